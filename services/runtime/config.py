"""Configuration in layers: defaults, then files, then the environment, then flags; each value knows where it is from.

A section is one frozen msgspec struct whose defaults are the lowest layer. Files are TOML tables named like the
section. The environment says `HTDAG_<SECTION>__<KEY>`. An unknown key is refused, with the nearest right one.

A secret is a field of type `Secret` (or `Secret | None`). It comes from the environment, or from a file that
`<key>_file` (TOML) or `HTDAG_<SECTION>__<KEY>_FILE` names; never from a TOML value or a flag, and it is masked
wherever it is shown. `Meta(extra={"env": ("OPENAI_API_KEY",)})` gives a field the names the ecosystem knows.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar, get_args, get_origin

import msgspec

from contracts.errors import Rejected
from services.runtime.environment import SECTION_OF
from services.runtime.redaction import HIDDEN, masked_tree
from services.runtime.secret_names import secret_name

T = TypeVar("T", bound=msgspec.Struct)

Secret = Annotated[str, msgspec.Meta(extra={"secret": True})]
"""A value that is never shown."""

SECTIONS: Final = ("core", *SECTION_OF.values())
"""Every section that somebody reads; a file or a variable that names another one is refused."""

HTTP_PORT_BASE: Final = 9464
_HTTP_ORDER: Final = ("planner", "executor", "evolution", "identity", "policy-gateway", "llm-worker", "console")
_ENV_PREFIX: Final = "HTDAG_"
_SECRET_FILE_BYTES_MAX: Final = 64 << 10


def _known_as(*names: str) -> msgspec.Meta:
    return msgspec.Meta(extra={"env": names})


Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class Core(msgspec.Struct, frozen=True, kw_only=True):
    """What every process needs. `home` holds everything of one instance; the rest is reach, speech and patience.

    `nats_sync` is the broker's `sync_interval`: with "always" each commit is fsynced and batches pay off early.
    `http_port` is the first of the block of health ports; each service has its fixed place in it and 0 means any free
    port. A soft stop may take `drain_s`; what is cut then gets `grace_s` to end.
    `nats_nkey_file` is a seed file, or a folder that holds one per user. Streams are made by whoever may do everything;
    with an NKey that is somebody else, unless `provision` says otherwise.
    """

    home: Annotated[str, _known_as("HTDAG_HOME")] = ""
    nats_url: Annotated[str, _known_as("NATS_URL")] = "nats://127.0.0.1:4222"
    nats_user: Annotated[str | None, _known_as("NATS_USER")] = None
    nats_password: Annotated[Secret | None, _known_as("NATS_PASSWORD")] = None
    nats_nkey_file: Annotated[str | None, _known_as("NATS_NKEY")] = None
    nats_sync: str = "always"
    provision: bool | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = "auto"
    http_host: str = "127.0.0.1"
    http_port: Port = HTTP_PORT_BASE
    drain_s: Seconds = 20.0
    grace_s: Seconds = 5.0

    @property
    def home_path(self) -> Path:
        """The instance's folder."""
        return Path(self.home)

    @property
    def provisions(self) -> bool:
        """Whether services make streams and consumers themselves."""
        return self.nats_nkey_file is None if self.provision is None else self.provision

    def http_port_of(self, service: str) -> int:
        """The health port of a service; 0 is any free one."""
        if self.http_port == 0 or service not in _HTTP_ORDER:
            return 0
        return self.http_port + _HTTP_ORDER.index(service)


class Explained(NamedTuple):
    """One row of `htdag config show`: a value as it may be shown, and the layer it came from."""

    section: str
    key: str
    value: str
    origin: str


class _Layered(NamedTuple):
    value: Any
    origin: str
    text: bool
    """A string of the environment or a flag, to be read as the field's type."""


class Config:
    """All layers of one process, read once. Make it with `Config.load`."""

    def __init__(self, layers: Mapping[str, Mapping[str, _Layered]], env: Mapping[str, str]) -> None:
        self._layers = layers
        self._env = env
        self._sections: dict[str, Any] = {}
        self._origins: dict[tuple[str, str], str] = {}

    @classmethod
    def load(
        cls,
        flags: Mapping[str, Any] | None = None,
        *,
        path: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> "Config":
        """Read every layer. `flags` are `{"core.http_port": 0}`, None meaning "not given"; `path` is `--config`.

        An explicit file (`path`, else HTDAG_CONFIG) takes the place of `./htdag.toml` and of the user's own file; the
        file in the home lies under all others but the user's own. Raises Rejected("bad_config").
        """
        env = os.environ if env is None else env
        flag_layers = _flag_layers(flags or {})
        env_layers = _env_layers(env)
        explicit = path or env.get("HTDAG_CONFIG")
        if explicit:
            below, above = {}, _file_layers(Path(explicit).expanduser())
        else:
            below, above = _file_layers(_user_file(env), True), _file_layers((cwd or Path.cwd()) / "htdag.toml", True)
        without_home = cls(_merged(below, above, env_layers, flag_layers), env)
        home = without_home.core.home_path
        at_home = _file_layers(home / "htdag.toml", True)
        config = cls(_merged(below, at_home, above, env_layers, flag_layers), env)
        if config.core.home_path != home:
            raise _bad("core.home", "core.home cannot be set in the home's own file", origin=str(home / "htdag.toml"))
        return config

    @property
    def core(self) -> Core:
        """The section `core`, with the home made absolute."""
        core = self.section("core", Core)
        if not core.home:
            core = msgspec.structs.replace(core, home=_default_home())
        elif not core.home.startswith("/"):
            core = msgspec.structs.replace(core, home=str(Path(core.home).expanduser().absolute()))
        self._sections["core"] = core
        return core

    def section(self, name: str, struct: type[T]) -> T:
        """The values of a section as its struct. Raises Rejected("bad_config") naming the key and the nearest one."""
        if name in self._sections:
            return self._sections[name]  # type: ignore[no-any-return]
        if name not in SECTIONS:
            raise KeyError(f"{name} is not in config.SECTIONS")
        given = self._layers.get(name, {})
        fields = {field.name: field for field in msgspec.structs.fields(struct)}
        file_keys = {f"{key}_file": key for key, field in fields.items() if _is_secret(field.type)}
        values: dict[str, Any] = {}
        for key, layered in given.items():
            if key in fields:
                values[key] = _read(name, key, fields[key].type, layered)
                self._origins[name, key] = layered.origin
            elif key not in file_keys:
                raise _unknown(f"{name}.{key}", name, key, [*fields, *file_keys], layered.origin)
        self._secrets_from_files(name, file_keys, values)
        self._ecosystem_names(name, fields, values)
        try:
            section = msgspec.convert(values, struct)
        except msgspec.ValidationError as error:
            raise _bad(name, f"section {name}: {error}") from error
        self._sections[name] = section
        return section

    def explain(self) -> list[Explained]:
        """Every value of the sections that were read, and every given value of the others, in order, masked."""
        _ = self.core
        rows: list[Explained] = []
        for name in SECTIONS:
            section = self._sections.get(name)
            if section is None:
                for key, layered in self._layers.get(name, {}).items():
                    rows.append(Explained(name, key, _shown(key, layered.value, secret=False), layered.origin))
                continue
            for field in msgspec.structs.fields(section):
                origin = self._origins.get((name, field.name), "default")
                value = getattr(section, field.name)
                rows.append(Explained(name, field.name, _shown(field.name, value, _is_secret(field.type)), origin))
        return rows

    def _secrets_from_files(self, name: str, file_keys: Mapping[str, str], values: dict[str, Any]) -> None:
        for file_key, key in file_keys.items():
            layered = self._layers.get(name, {}).get(file_key)
            if layered is not None and key not in values:
                values[key] = _secret_of_file(f"{name}.{file_key}", str(layered.value))
                self._origins[name, key] = f"{layered.origin} -> {layered.value}"

    def _ecosystem_names(self, name: str, fields: Mapping[str, Any], values: dict[str, Any]) -> None:
        for key, field in fields.items():
            # Our own variable and a flag are more to the point; a file is not.
            if key in values and not self._origins[name, key].startswith("file "):
                continue
            for variable in _extra(field.type).get("env", ()):
                if self._env.get(variable):
                    origin = f"env {variable}"
                    values[key] = _read(name, key, field.type, _Layered(self._env[variable], origin, True))
                elif _is_secret(field.type) and self._env.get(f"{variable}_FILE"):
                    origin = f"env {variable}_FILE -> {self._env[f'{variable}_FILE']}"
                    values[key] = _secret_of_file(f"{variable}_FILE", self._env[f"{variable}_FILE"])
                else:
                    continue
                self._origins[name, key] = origin
                break


def _merged(*layers: Mapping[str, Mapping[str, _Layered]]) -> dict[str, dict[str, _Layered]]:
    merged: dict[str, dict[str, _Layered]] = {}
    for layer in layers:
        for section, values in layer.items():
            merged.setdefault(section, {}).update(values)
    return merged


def _file_layers(path: Path, may_be_absent: bool = False) -> dict[str, dict[str, _Layered]]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        if may_be_absent:
            return {}
        raise _bad("--config", f"there is no {path}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _bad(str(path), f"{path} cannot be read: {error}") from error
    origin = f"file {path}"
    layers: dict[str, dict[str, _Layered]] = {}
    for section, table in tables.items():
        _check_section(section, section, origin)
        if not isinstance(table, dict):
            raise _bad(section, f"{section} must be a table: [{section}]", origin=origin)
        layers[section] = {key: _Layered(value, origin, False) for key, value in table.items()}
    return layers


def _env_layers(env: Mapping[str, str]) -> dict[str, dict[str, _Layered]]:
    layers: dict[str, dict[str, _Layered]] = {}
    for variable, value in env.items():
        if not variable.startswith(_ENV_PREFIX) or "__" not in variable:
            continue
        section, _, key = variable.removeprefix(_ENV_PREFIX).lower().partition("__")
        _check_section(section, variable, f"env {variable}")
        layers.setdefault(section, {})[key] = _Layered(value, f"env {variable}", True)
    return layers


def _flag_layers(flags: Mapping[str, Any]) -> dict[str, dict[str, _Layered]]:
    layers: dict[str, dict[str, _Layered]] = {}
    for name, value in flags.items():
        if value is None:
            continue
        section, _, key = name.partition(".")
        origin = f"flag --{key.replace('_', '-')}"
        _check_section(section, name, origin)
        layers.setdefault(section, {})[key] = _Layered(value, origin, isinstance(value, str))
    return layers


def _user_file(env: Mapping[str, str]) -> Path:
    folder = env.get("XDG_CONFIG_HOME") or str(Path(env.get("HOME") or "~").expanduser() / ".config")
    return Path(folder) / "htdag" / "config.toml"


def _default_home() -> str:
    import platformdirs

    return platformdirs.user_data_dir("htdag", appauthor=False)


def _read(section: str, key: str, kind: Any, layered: _Layered) -> Any:
    """The value as the field's type; text is tried as a plain value first, then as JSON (lists, tables)."""
    name = f"{section}.{key}"
    if _is_secret(kind) and not layered.origin.startswith("env "):
        raise _bad(name, f"{name} is a secret: set it in the environment, or set {key}_file", origin=layered.origin)
    try:
        if layered.text and str(layered.value).lstrip()[:1] in ("[", "{") and not _takes_text(kind):
            return msgspec.json.decode(layered.value, type=kind)
        return msgspec.convert(layered.value, kind, strict=not layered.text)
    except msgspec.MsgspecError as error:
        raise _bad(name, f"{name} ({layered.origin}): {error}", origin=layered.origin) from error


def _takes_text(kind: Any) -> bool:
    if get_origin(kind) in (list, dict, tuple):
        return False
    return kind is str or any(_takes_text(part) for part in get_args(kind))


def _secret_of_file(name: str, path: str) -> str:
    try:
        with Path(path).expanduser().open(encoding="utf-8") as file:
            return file.read(_SECRET_FILE_BYTES_MAX).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(name, f"{name}: {path} cannot be read") from error


def _extra(kind: Any) -> dict[str, Any]:
    """What the Meta of a field's type says beside its bounds, through unions and nested Annotated."""
    extra: dict[str, Any] = {}
    for part in get_args(kind):
        if isinstance(part, msgspec.Meta):
            extra.update(part.extra or {})
        else:
            extra.update(_extra(part))
    return extra


def _is_secret(kind: Any) -> bool:
    return bool(_extra(kind).get("secret"))


def _shown(key: str, value: Any, secret: bool) -> str:
    if value is None:
        return ""
    if secret or secret_name(key):
        return HIDDEN if value else ""
    shown = masked_tree(msgspec.to_builtins(value, order="deterministic"))
    return shown if isinstance(shown, str) else msgspec.json.encode(shown).decode()


def _check_section(section: str, what: str, origin: str) -> None:
    if section not in SECTIONS:
        raise _unknown(what, "the configuration", section, SECTIONS, origin)


def _unknown(what: str, where: str, key: str, known: Iterable[str], origin: str) -> Rejected:
    nearest = difflib.get_close_matches(key, list(known), 1, 0.5)
    mend = f"; did you mean {nearest[0]}?" if nearest else f"; {where} knows {', '.join(sorted(known))}"
    detail = {"nearest": nearest[0]} if nearest else {}
    return _bad(what, f"{what} is unknown ({origin}){mend}", origin=origin, **detail)


def _bad(key: str, message: str, **detail: Any) -> Rejected:
    return Rejected("bad_config", message, key=key, **detail)
