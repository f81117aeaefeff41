"""The roles as data: who may use which tool, how long, with which programs, hosts and images.

`parse_roles` reads the text of a `roles.toml` and builds the tables that decisions look into: once per version, so that
a call costs look-ups only. What a role does not name it does not have.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import Profile, Root
from services.policy_gateway.decision.programs import Command, CommandTable, command_table

SHIPPED: Final = Path(__file__).with_name("roles.toml")
"""The roles that come with the program; the edge reads the file."""
ROLES_CHARS_MAX: Final = 1 << 20
HOST_CHARS_MAX: Final = 253
TIMEOUT_MS_CEILING: Final = 366 * 86_400_000
"""The longest that even a role without a maximum may ask for: a number, never for ever."""
TIMEOUT_DEFAULT_MS: Final = 3_600_000
"""The deadline of a call that names none, in a role without a maximum."""

ToolName = Literal["git", "fs", "shell", "http", "docker", "lua"]
Network = Literal["deny", "hosts", "public"]
Milliseconds = Annotated[int, msgspec.Meta(ge=1, le=TIMEOUT_MS_CEILING)]
NAME_SHOWN: Final = 64
_T = TypeVar("_T")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_HOST: Final = re.compile(r"(?:\*\.)?[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+", re.ASCII)


class FsRights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which roots are open. `host` opens the whole machine."""

    roots: list[Root]
    write: bool = False


class ShellRights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which commands may be run, by profile of the workspace: token prefixes such as `mix test`. `any`: all of them."""

    sandbox: Profile
    commands: dict[str, list[str]] = {}
    any: bool = False


class HttpRights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which hosts may be asked: exact names, or `*.name` for all below it. `any`: every public host, method, header."""

    hosts: list[str] = []
    calls_max: int | None = None
    any: bool = False


class DockerRights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which images may be run, `name:tag` or `name:tag@sha256:…`. `any`: every image, no limits, writable mounts."""

    images: list[str] = []
    any: bool = False


class Role(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one role may do. Without `timeout_ms_max` it has no maximum; a deadline it always has."""

    tools: list[ToolName]
    timeout_ms_max: Milliseconds | None = None
    network: Network = "deny"
    approval: bool = False
    git: Literal["none", "table", "any"] = "none"
    fs: FsRights | None = None
    shell: ShellRights | None = None
    http: HttpRights | None = None
    docker: DockerRights | None = None


class RolesDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole `roles.toml`."""

    roles: dict[str, Role]
    aliases: dict[str, str] = {}
    commands: dict[str, Command] = {}


class _Sections(msgspec.Struct, forbid_unknown_fields=True):
    roles: dict[str, Any]
    aliases: dict[str, str] = {}
    commands: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Rights:
    """One role, laid out for decisions. `name` is its own name, also when it was found by an alias."""

    name: str
    tools: frozenset[str]
    timeout_ms_max: int | None
    network: Network
    approval: bool
    git_any: bool
    roots: frozenset[Root]
    fs_write: bool
    sandbox: Profile
    shell_any: bool
    commands: Mapping[str, CommandTable]
    http_any: bool
    hosts: frozenset[str]
    calls_max: int | None
    docker_any: bool
    images: Mapping[str, str]

    @property
    def timeout_default_ms(self) -> int:
        """The deadline of a call that names none."""
        return TIMEOUT_DEFAULT_MS if self.timeout_ms_max is None else self.timeout_ms_max


@dataclass(frozen=True, slots=True)
class Roles:
    """One version of the roles. `digest` is of the meaning, not of the text: comments do not change it."""

    document: RolesDocument
    digest: str
    rights: Mapping[str, Rights]
    """By the names of roles and of aliases."""


def parse_roles(text: str) -> Roles:
    """Read the text of a `roles.toml`. Raises Rejected("bad_request", field=…) for what cannot be a policy."""
    if not isinstance(text, str) or len(text) > ROLES_CHARS_MAX:
        raise _bad("roles", f"a text of at most {ROLES_CHARS_MAX} characters")
    try:
        found: Any = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _bad("roles", f"no TOML: {error}"[:300]) from error
    sections = _converted(found, _Sections, "")
    document = RolesDocument(
        {name: _converted(role, Role, f"roles.{name[:NAME_SHOWN]}") for name, role in sections.roles.items()},
        sections.aliases,
        {name: _converted(one, Command, f"commands.{name[:NAME_SHOWN]}") for name, one in sections.commands.items()},
    )
    return compile_roles(document)


def _converted(value: Any, kind: type[_T], field: str) -> _T:
    """`value` as a struct; what is wrong with it is told by the names of the file."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        inner = path.rstrip("`").lstrip(".")
        raise _bad(".".join(part for part in (field, inner) if part) or "roles", reason) from error


def compile_roles(document: RolesDocument) -> Roles:
    """Check what types cannot say, and lay the tables out."""
    if not document.roles:
        raise _bad("roles", "at least one role")
    rights = {name: _rights(name, role, document.commands) for name, role in document.roles.items()}
    for alias, name in document.aliases.items():
        if _NAME.fullmatch(alias) is None or alias in document.roles:
            raise _bad(f"aliases.{alias[:NAME_SHOWN]}", "a new name of a-z 0-9 _")
        if name not in document.roles:
            raise _bad(f"aliases.{alias}", "the name of a role")
        rights[alias] = rights[name]
    digest = hashlib.sha256(msgspec.json.encode(document, order="sorted")).hexdigest()
    return Roles(document, digest, rights)


def _rights(name: str, role: Role, commands: Mapping[str, Command]) -> Rights:
    field = f"roles.{name[:NAME_SHOWN]}"
    if _NAME.fullmatch(name) is None:
        raise _bad(field, "a name of a-z 0-9 _")
    sections = {"git": role.git != "none", "fs": role.fs, "shell": role.shell, "http": role.http, "docker": role.docker}
    for tool in role.tools:
        if not sections.get(tool, True):
            raise _bad(f"{field}.{tool}", f"what the role may do with {tool}")
    fs, shell, docker = role.fs or FsRights([]), role.shell or ShellRights("coder"), role.docker or DockerRights()
    http = role.http or HttpRights()
    for host in http.hosts:
        if len(host) > HOST_CHARS_MAX or _HOST.fullmatch(host) is None:
            raise _bad(f"{field}.http.hosts", f"a host in lower case, or *.host: {host[:80]}")
    if "http" in role.tools and role.network == "deny":
        raise _bad(f"{field}.network", "a network, for a role that has http")
    return Rights(
        name=name,
        tools=frozenset(role.tools),
        timeout_ms_max=role.timeout_ms_max,
        network=role.network,
        approval=role.approval,
        git_any=role.git == "any",
        roots=frozenset(fs.roots) or frozenset(("code", "tmp")),
        fs_write=fs.write,
        sandbox=shell.sandbox,
        shell_any=shell.any,
        commands={
            profile: command_table(names, commands, f"{field}.shell.commands.{profile}")
            for profile, names in shell.commands.items()
        },
        http_any=http.any,
        hosts=frozenset(http.hosts),
        calls_max=http.calls_max,
        docker_any=docker.any,
        images={image.partition("@")[0]: image for image in docker.images},
    )


def _bad(field: str, reason: str) -> Rejected:
    return Rejected("bad_request", f"{field}: {reason}", field=field)
