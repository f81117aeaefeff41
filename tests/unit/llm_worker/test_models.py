"""Names of models: what answers, and that nothing answers silently in another's place."""

from typing import Any, Literal

import pytest
from msgspec.structs import replace

from contracts.errors import Rejected
from contracts.llm import LlmInput, LlmParams, LlmRequest
from services.llm_worker.config import Config, ModelConfig
from services.llm_worker.models import ModelTable
from services.llm_worker.providers.anthropic import AnthropicProvider
from services.llm_worker.providers.openai import OpenAiProvider
from services.llm_worker.resolving import Resolver


def table(environ=None, **options) -> ModelTable:
    return ModelTable(Config(**options), environ or {})


def refusal_of(models: ModelTable, name: str) -> str:
    with pytest.raises(Rejected) as caught:
        models.resolve(name)
    return caught.value.code


@pytest.mark.parametrize("name", ["claude-sonnet-4.5", "gemini-2.5-pro", "gemini-1.5-flash", "claude-sonnet-4-5"])
def test_a_seed_name_without_a_key_is_answered_by_the_local_model_and_says_so(name):
    resolved = table().resolve(name)
    assert (resolved.used, resolved.config.provider) == ("smollm2", "embedded")
    assert "_API_KEY is set" in resolved.note
    assert [one.asked for one in table().stand_ins()] == ["claude-sonnet-4.5", "gemini-1.5-flash", "gemini-2.5-pro"]


def test_a_seed_name_with_its_key_is_the_real_model():
    models = table(anthropic_api_key="k")
    resolved = models.resolve("claude-sonnet-4.5")
    assert (resolved.used, resolved.config.provider, resolved.note) == ("claude-sonnet-4.5", "anthropic", "")
    assert models.key_of(resolved.config) == "k"
    assert models.resolve("gemini-2.5-pro").used == "smollm2"


@pytest.mark.parametrize("name", ["nosuch", "smollm", "gpt-4o", "openai/", "mocks"])
def test_an_unknown_model_is_never_replaced(name):
    assert refusal_of(table(), name) == "unknown_model"


@pytest.mark.parametrize("name", ["openai/gpt-4o", "anthropic/claude-x"])
def test_a_provider_without_its_key_is_missing(name):
    assert refusal_of(table(), name) == "provider_missing"


def test_keys_open_their_providers():
    models = table(openai_api_key="o", openai_base_url="http://127.0.0.1:1/v1", anthropic_api_key="a")
    assert models.resolve("openai/gpt-4o").config.model == "gpt-4o"
    assert models.resolve("openai/gpt-4o").config.base_url == "http://127.0.0.1:1/v1"
    assert models.resolve("anthropic/claude-x").config.model == "claude-x"


def test_the_configuration_adds_models_and_aliases():
    own = ModelConfig(provider="openai", model="q", base_url="http://127.0.0.1:1", api_key_env="OWN_KEY")
    models = table({"OWN_KEY": "s"}, models={"own": own}, aliases={"fast": "own", "claude-sonnet-4.5": "mock"})
    assert models.resolve("fast").config is own
    assert models.key_of(own) == "s"
    assert models.resolve("claude-sonnet-4.5").used == "mock"
    assert models.resolve("claude-sonnet-4.5").note == "alias of mock"


@pytest.mark.parametrize("written", ["claude-sonnet-4.5", "claude-sonnet-4-5", "claude_sonnet_4_5"])
@pytest.mark.parametrize("key", ["", "k"])
def test_what_the_owner_says_a_name_stands_for_wins_whether_the_key_of_its_provider_is_set_or_not(written, key):
    by_alias = table(anthropic_api_key=key, aliases={written: "mock"})
    own = ModelConfig(provider="openai", model="q", base_url="http://127.0.0.1:1")
    by_model = table(anthropic_api_key=key, models={written: own})
    for asked in ("claude-sonnet-4.5", "claude-sonnet-4-5", written):
        assert (by_alias.resolve(asked).used, by_alias.resolve(asked).note) == ("mock", "alias of mock")
        assert by_model.resolve(asked).config is own
    assert sum(name.startswith("claude") for name in by_alias.ids()) == 1
    assert "claude-sonnet-4.5" not in [one.asked for one in (*by_alias.stand_ins(), *by_model.stand_ins())]
    by_alias.check()


@pytest.mark.parametrize("name", ["smollm2", "own"])
def test_an_alias_wins_over_every_model_of_its_name(name):
    models = table(models={"own": ModelConfig(provider="openai", model="q")}, aliases={name: "mock:tokens=5"})
    assert models.resolve(name).used == "mock:tokens=5"
    models.check()


def test_a_model_may_stand_for_itself_and_for_others():
    """`htdag up --model claude-sonnet-4.5`: that one model answers for all names of strategies, itself too."""
    names = ("claude-sonnet-4.5", "gemini-2.5-pro", "gemini-1.5-flash")
    models = table(anthropic_api_key="k", gemini_api_key="g", aliases=dict.fromkeys(names, "claude-sonnet-4.5"))
    models.check()
    assert [models.resolve(name).config.model for name in names] == ["claude-sonnet-4-5"] * 3
    own = ModelConfig(provider="mock")
    mine = table(models={"claude-sonnet-4-5": own}, aliases=dict.fromkeys(names, "claude-sonnet-4.5"))
    assert [mine.resolve(name).config for name in names] == [own] * 3
    spelled = table(anthropic_api_key="k", aliases={"claude-sonnet-4-5": "claude-sonnet-4.5"})
    assert spelled.resolve("claude-sonnet-4-5").config.provider == "anthropic"


def test_a_ring_of_aliases_is_an_unknown_model():
    assert refusal_of(table(aliases={"a": "b", "b": "a"}), "a") == "unknown_model"


def test_a_malformed_name_is_a_bad_id():
    assert refusal_of(table(), "a b") == "bad_id"
    assert refusal_of(table(), "x" * 300) == "bad_id"


def request(model_id: str, **params) -> LlmRequest:
    return LlmRequest(LlmInput([{"role": "user", "content": "x"}]), model_id=model_id, params=LlmParams(**params))


@pytest.mark.parametrize(
    ("complexity", "name"), [(9.0, "claude-sonnet-4.5"), (5.0, "gemini-2.5-pro"), (1.0, "gemini-1.5-flash")]
)
def test_auto_chooses_by_complexity_and_says_what(complexity, name):
    resolved = Resolver(table()).resolve(request("auto", complexity=complexity))
    assert (resolved.asked, resolved.used, resolved.note) == ("auto", "smollm2", f"auto chose {name}")


def test_auto_without_complexity_goes_by_length():
    assert table().choose(None, 10) == "gemini-1.5-flash"
    assert table().choose(None, 100_000) == "claude-sonnet-4.5"


def test_wrong_commands_of_the_mock_are_refused_before_the_call():
    for model_id, params in (("mock:bogus=1", {}), ("mock", {"mock": {"tokens": "x"}}), ("mock:fail=nonsense", {})):
        with pytest.raises(Rejected) as caught:
            Resolver(table()).resolve(request(model_id, **params))
        assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"aliases": {"gpt": "nope"}}, "llm_worker.aliases.gpt"),
        ({"aliases": {"a": "b", "b": "a"}}, "llm_worker.aliases.a"),
        ({"models": {"m": ModelConfig(provider="openai", api_key_env="GOODKEY")}}, "llm_worker.models.m.api_key_env"),
        (
            {"models": {"m": ModelConfig(provider="openai", api_key_env="OPENAI_API_KEY_EU")}},
            "llm_worker.models.m.api_key_env",
        ),
        ({"models": {"a b": ModelConfig(provider="mock")}}, "llm_worker.models.a b"),
    ],
)
def test_a_configured_name_that_can_never_answer_is_wrong_configuration(options, key):
    with pytest.raises(Rejected) as refused:
        table(**options).check()
    assert (refused.value.code, refused.value.detail["key"]) == ("bad_config", key)


@pytest.mark.parametrize(
    ("half", "missing"),
    [
        (ModelConfig(provider="openai", model="m", price_in_usd_per_mtok=0.0), "out"),
        (ModelConfig(provider="mock", price_out_usd_per_mtok=1.0), "in"),
    ],
)
def test_half_a_price_would_be_passed_over_and_is_refused(half, missing):
    with pytest.raises(Rejected) as refused:
        table(models={"m": half}).check()
    assert refused.value.code == "bad_config"
    assert refused.value.detail["key"] == f"llm_worker.models.m.price_{missing}_usd_per_mtok"


def test_a_program_that_is_told_no_key_cannot_honour_it():
    told = ModelConfig(provider="cli", argv=("claude",), honours_idempotency_key=True)
    with pytest.raises(Rejected) as refused:
        table(models={"m": told}).check()
    assert (refused.value.code, refused.value.detail["key"]) == (
        "bad_config", "llm_worker.models.m.honours_idempotency_key",
    )  # fmt: skip
    table(models={"m": replace(told, honours_idempotency_key=False)}).check()


def test_a_model_whose_key_is_not_there_yet_may_be_configured():
    table(aliases={"gpt": "openai/gpt-4o", "m": "mock:delay=2s"}).check()


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({}, "OWN_KEY is not set"),
        ({"OWN_KEY": " \n"}, "OWN_KEY is not set"),
        ({"OWN_KEY": "k"}, ""),
        ({"OWN_KEY": " k\r\n"}, ""),
        ({"OWN_KEY": "k\r\nX-Evil: 1"}, "OWN_KEY holds characters that no header can carry"),
        ({"OWN_KEY": "ключ"}, "OWN_KEY holds characters that no header can carry"),
    ],
)
@pytest.mark.parametrize("adapter", [OpenAiProvider, AnthropicProvider])
def test_a_key_that_is_named_and_cannot_be_used_is_missing_also_at_somebodys_own_url(environ, missing, adapter):
    kinds: dict[Any, Literal["openai", "anthropic"]] = {OpenAiProvider: "openai", AnthropicProvider: "anthropic"}
    own = ModelConfig(provider=kinds[adapter], model="q", base_url="http://127.0.0.1:1", api_key_env="OWN_KEY")
    models = ModelTable(Config(models={"own": own}), environ)
    assert adapter(lambda one: models.key_of(one.config)).missing(models.resolve("own")) == missing
    assert models.key_of(own) in ("", environ["OWN_KEY"].strip() if environ else "")


def test_somebodys_own_server_needs_no_key():
    models = ModelTable(Config(openai_base_url="http://127.0.0.1:1"), {})
    assert OpenAiProvider(lambda one: models.key_of(one.config)).missing(models.resolve("openai/q")) == ""


def test_a_fallback_that_nobody_knows_is_refused_at_the_start():
    models = ModelTable(Config(models={"a": ModelConfig(provider="mock", fallback=("mock", "nosuch"))}), {})
    with pytest.raises(Rejected) as refused:
        models.check()
    assert (refused.value.code, refused.value.detail["key"]) == ("bad_config", "llm_worker.models.a.fallback")
