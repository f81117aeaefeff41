"""The model table: which model ids there are, what an alias stands for, and which provider answers."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from contracts.errors import Rejected
from contracts.subjects import check_model_id
from services.llm_worker.config import Config, ModelConfig
from services.runtime.environment import is_foreign

LOCAL: Final = "smollm2"
MOCK: Final = "mock"
AUTO: Final = "auto"
UNBILLED: Final = ("embedded", "mock")
"""Providers that work here: they cost nothing where nobody says otherwise, and send no bill for what nobody heard."""
ALIAS_HOPS_MAX: Final = 4
GEMINI_URL: Final = "https://generativelanguage.googleapis.com/v1beta/openai/"

SEED_MODELS: Final[Mapping[str, tuple[str, ModelConfig]]] = {
    "claude-sonnet-4.5": (
        "ANTHROPIC_API_KEY",
        ModelConfig(provider="anthropic", model="claude-sonnet-4-5", api_key_env="ANTHROPIC_API_KEY"),
    ),
    "gemini-2.5-pro": (
        "GEMINI_API_KEY",
        ModelConfig(provider="openai", model="gemini-2.5-pro", base_url=GEMINI_URL, api_key_env="GEMINI_API_KEY"),
    ),
    "gemini-1.5-flash": (
        "GEMINI_API_KEY",
        ModelConfig(provider="openai", model="gemini-1.5-flash", base_url=GEMINI_URL, api_key_env="GEMINI_API_KEY"),
    ),
}
"""The names the default strategies use, with the variable whose presence makes them real."""

AUTO_BY_COMPLEXITY: Final = ((8.0, "claude-sonnet-4.5"), (5.0, "gemini-2.5-pro"), (0.0, "gemini-1.5-flash"))
AUTO_BY_CHARS: Final = ((4_000, 8.0), (500, 5.0), (0, 2.0))

_SEPARATORS: Final = re.compile(r"[._]")


KEYLESS: Final = frozenset({"cli"})
"""Providers that may bill, and are told nothing by which they could know the same call again."""


class Resolved(NamedTuple):
    """What a model id stands for: the id that was asked, the id that answers, and how."""

    asked: str
    used: str
    config: ModelConfig
    note: str = ""

    @property
    def shown(self) -> str:
        """The model that answers, without its commands: `mock:delay=2s` is `mock`."""
        return MOCK if self.used.startswith(f"{MOCK}:") else self.used

    @property
    def billed_by(self) -> str:
        """Who may bill a call although nobody hears its answer; empty: nobody does, or not again when asked again."""
        config = self.config
        return "" if config.provider in UNBILLED or config.honours_idempotency_key else config.provider


def _check_key_honoured(name: str, model: ModelConfig) -> None:
    if model.honours_idempotency_key and model.provider in KEYLESS:
        key = f"llm_worker.models.{name}.honours_idempotency_key"
        hint = "leave it out: what an asking cost that nobody heard is charged"
        raise Rejected("bad_config", f"{key}: a program is told no key that it could honour", key=key, hint=hint)


def same_model(left: str, right: str) -> bool:
    """Whether two spellings name one model: dots may be written as `-` or `_` where a subject cannot hold them."""
    return left == right or _plain(left) == _plain(right)


def _plain(name: str) -> str:
    return _SEPARATORS.sub("-", name)


def _not_named_by(config: Config) -> dict[str, tuple[str, ModelConfig]]:
    """The well-known names of which the owner says nothing, in whatever spelling: for the others their word counts."""
    named = {_plain(name) for name in config.models}
    named.update(_plain(name) for name, target in config.aliases.items() if not same_model(name, target))
    return {name: seed for name, seed in SEED_MODELS.items() if _plain(name) not in named}


def _check_variable(name: str, variable: str) -> None:
    """Refuse a variable for a key by whose name nobody sees that it holds one: every service would be given it."""
    if variable and not is_foreign("nats", variable):
        key = f"llm_worker.models.{name}.api_key_env"
        text = f"{key}: {variable} is no name of a secret, so every service would be given it"
        raise Rejected("bad_config", text, key=key, hint="end it with _KEY, _TOKEN or _SECRET")


def _check_price(name: str, model: ModelConfig) -> None:
    """Refuse half a price: it would be passed over without a word."""
    prices = {
        "price_in_usd_per_mtok": model.price_in_usd_per_mtok,
        "price_out_usd_per_mtok": model.price_out_usd_per_mtok,
    }
    missing = [field for field, price in prices.items() if price is None]
    if len(missing) == 1:
        key = f"llm_worker.models.{name}.{missing[0]}"
        raise Rejected("bad_config", f"{key}: the two prices of a model go together", key=key)


class ModelTable:
    """All models of this worker. Keys come from the configuration; from `environ` for models that name their own.

    What a configured alias says wins over every model of its name, whichever keys are set.
    """

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        self._config = config
        keys = {
            **environ,
            "OPENAI_API_KEY": config.openai_api_key or "",
            "ANTHROPIC_API_KEY": config.anthropic_api_key or "",
            "GEMINI_API_KEY": config.gemini_api_key or "",
        }
        # Whoever keeps a key in a file often keeps a line end with it.
        self._keys = {name: key.strip() for name, key in keys.items()}
        seeds = _not_named_by(config)
        self._models: dict[str, ModelConfig] = {
            LOCAL: ModelConfig(
                provider="embedded",
                model=LOCAL,
                max_output_tokens=config.embedded_output_tokens_max,
                slots=config.embedded_slots,
            ),
            MOCK: ModelConfig(provider="mock"),
            **{name: model for name, (key, model) in seeds.items() if self._keys[key]},
            **config.models,
        }
        # A model that stands for itself is no alias: `htdag up --model` names one for all well-known names.
        known = {_plain(name) for name in self._models}
        own = {name: to for name, to in config.aliases.items() if name != to or _plain(name) not in known}
        self._aliases: dict[str, str] = {name: LOCAL for name in seeds if name not in self._models}
        self._stand_ins = frozenset(self._aliases) - frozenset(own)
        self._aliases.update(own)
        self._spellings = {_plain(name): name for name in (*self._models, *self._aliases)}
        self._cache: dict[str, Resolved] = {}

    def resolve(self, model_id: str) -> Resolved:
        """What `model_id` stands for. Raises Rejected("unknown_model" | "provider_missing" | "bad_id")."""
        found = self._cache.get(model_id)
        if found is None:
            found = self._resolve(check_model_id(model_id))
            if len(self._cache) < 1024:
                self._cache[model_id] = found
        return found

    def check(self) -> None:
        """Raise Rejected("bad_config") for a configured model or alias that no request can ever reach."""
        for name in self.ids():
            try:
                self.resolve(name)
            except Rejected as error:
                if error.code == "provider_missing":
                    continue  # its key may come later
                target = self._aliases.get(name)
                what = f"alias {name} stands for {target}" if target else f"model {name}"
                key = f"llm_worker.{'aliases' if target else 'models'}.{name}"
                hint = "`htdag config show`; with `htdag up --model` it is that name"
                raise Rejected("bad_config", f"{key}: {what}: {error.message}", key=key, hint=hint) from error
        for name, model in self._config.models.items():
            _check_variable(name, model.api_key_env)
            _check_price(name, model)
            _check_key_honoured(name, model)
            for behind in model.fallback:
                self._check_fallback(name, behind)

    def _check_fallback(self, name: str, behind: str) -> None:
        try:
            self.resolve(behind)
        except Rejected as error:
            if error.code != "provider_missing":  # its key may come later
                key = f"llm_worker.models.{name}.fallback"
                raise Rejected("bad_config", f"{key}: {error.message}", key=key) from error

    def secrets(self) -> list[str]:
        """What this worker holds in confidence: every key, and what it passes on to programs."""
        named = {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"}
        for model in self._models.values():
            named.update((model.api_key_env, *model.pass_env))
        return [self._keys[name] for name in sorted(named) if self._keys.get(name)]

    def key_of(self, config: ModelConfig) -> str:
        """The key of a provider, or an empty string."""
        return self._keys.get(config.api_key_env, "") if config.api_key_env else ""

    def ids(self) -> list[str]:
        """Every id that is worth showing, models first."""
        return [*self._models, *(name for name in self._aliases if name not in self._models)]

    def stand_ins(self) -> list[Resolved]:
        """The well-known names that a local model answers because their key is not set."""
        return [self.resolve(name) for name in sorted(self._stand_ins)]

    def choose(self, complexity: float | None, chars: int) -> str:
        """The id that `auto` stands for: by complexity when it is told, else by the length of the conversation."""
        if complexity is None:
            complexity = next(value for least, value in AUTO_BY_CHARS if chars >= least)
        return next(name for least, name in AUTO_BY_COMPLEXITY if complexity >= least)

    def _resolve(self, asked: str) -> Resolved:
        name, note = asked, ""
        for _ in range(ALIAS_HOPS_MAX):
            name = self._spelled(name)
            if name not in self._aliases:
                if name in self._models:
                    return Resolved(asked, name, self._models[name], note)
                break
            note = f"no {SEED_MODELS[name][0]} is set" if name in self._stand_ins else f"alias of {self._aliases[name]}"
            name = self._aliases[name]
        if name.startswith(f"{MOCK}:"):
            return Resolved(asked, name, self._models[MOCK], note)
        return Resolved(asked, name, self._by_provider(asked, name), note)

    def _spelled(self, name: str) -> str:
        if name in self._models or name in self._aliases:
            return name
        return self._spellings.get(_plain(name), name)

    def _by_provider(self, asked: str, name: str) -> ModelConfig:
        provider, slash, model = name.partition("/")
        if slash and model and provider == "openai":
            url, key = self._config.openai_base_url, self._keys["OPENAI_API_KEY"]
            if not url and not key:
                raise Rejected("provider_missing", model=asked, needs="OPENAI_API_KEY")
            # Somebody's own server may need no key.
            named = "OPENAI_API_KEY" if key else ""
            return ModelConfig(provider="openai", model=model, base_url=url, api_key_env=named)
        if slash and model and provider == "anthropic":
            if not self._keys["ANTHROPIC_API_KEY"]:
                raise Rejected("provider_missing", model=asked, needs="ANTHROPIC_API_KEY")
            url = self._config.anthropic_base_url
            return ModelConfig(provider="anthropic", model=model, base_url=url, api_key_env="ANTHROPIC_API_KEY")
        if slash and model and provider == "nats":
            return ModelConfig(provider="nats", model=check_model_id(model))
        raise Rejected("unknown_model", f"no such model: {asked}", model=asked)
