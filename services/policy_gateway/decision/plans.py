"""What a call is allowed to do, in typed form: made by the decision, carried out by the tools, never parsed again."""

from typing import Any, Literal, NamedTuple

Root = Literal["code", "tmp", "host"]
"""Where a path begins: the workspace's /code or /tmp, or (admin only) the root of the machine."""
Profile = Literal["coder", "git", "tester", "admin"]
"""Which sandbox a program runs in, see `services.policy_gateway.sandbox`."""


class Place(NamedTuple):
    """A path below a root: `parts` hold no `..`, no `.`, no empty part, no NUL. Nothing is decoded or normalised."""

    root: Root
    parts: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The path as tools and people see it."""
        return "/" + "/".join(self.parts if self.root == "host" else (self.root, *self.parts))


class ReadPlan(NamedTuple):
    """Read one regular file."""

    path: Place
    bytes_max: int


class WritePlan(NamedTuple):
    """Replace one regular file, or make it; folders that are missing are made."""

    path: Place
    content: bytes


class ShellPlan(NamedTuple):
    """Run one program of the gateway's table in a sandbox. `argv[0]` is `program` as it was asked for."""

    program: str
    argv: tuple[str, ...]
    cwd: Place
    profile: Profile


class GitPlan(NamedTuple):
    """Run git in its sandbox. `argv` begins with the subcommand; `writes` means that refs may move."""

    argv: tuple[str, ...]
    cwd: Place
    writes: bool
    profile: Profile


class FetchPlan(NamedTuple):
    """Fetch one URL. `hosts` None means any public host; every redirect is judged like the first URL."""

    method: str
    scheme: str
    host: str
    port: int
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    hosts: frozenset[str] | None


class Mount(NamedTuple):
    """A bind mount of a container."""

    host: Place
    container: str
    read_only: bool


class DockerPlan(NamedTuple):
    """Run one command in a container of the fixed template. Without limits (admin) both are None."""

    image: str
    cmd: tuple[str, ...]
    working_dir: str | None
    mounts: tuple[Mount, ...]
    cpus: float | None
    mem_bytes: int | None


class LuaPlan(NamedTuple):
    """Run one chunk in the Lua sandbox."""

    src: str
    argv: tuple[Any, ...]


Plan = ReadPlan | WritePlan | ShellPlan | GitPlan | FetchPlan | DockerPlan | LuaPlan
