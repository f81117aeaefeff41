"""What one program sees: the bubblewrap command of a box. Pure, but for looking which system folders there are."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

from services.policy_gateway.sandbox.limits import Limits

SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
LIBRARIES: Final = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/local/lib", "/usr/share/git-core")
LINKED: Final = ("/lib", "/lib32", "/lib64", "/libx32")
ETC: Final = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "ssl/certs", "ssl/openssl.cnf")
ETC_WITH_NETWORK: Final = ("resolv.conf", "services", "protocols", "ca-certificates", "pki/tls/certs")
DEVICES: Final = ("null", "zero", "full", "random", "urandom")
IDENTITY: Final = "1000"
"""User and group inside. Outside the box it is the gateway's own user, root or not, without any capability."""


class Bind(NamedTuple):
    """A folder or file of the machine at its place in the box."""

    source: Path
    target: str
    writable: bool = False


class Link(NamedTuple):
    """A symbolic link of the box itself: `path` leads to `target`."""

    target: str
    path: str


class Box(NamedTuple):
    """One box: what it holds beside the system, its environment and where the program starts."""

    binds: tuple[Bind, ...]
    environment: Mapping[str, str]
    cwd: str
    network: bool = False
    programs: Literal["system", "none"] = "system"
    """`none`: the libraries of the system, and no program but those in `binds`."""
    links: tuple[Link, ...] = ()


class Shape(NamedTuple):
    """What this machine lets bubblewrap do. Less than everything is never weaker, only poorer: see `SHAPES`."""

    own_proc: bool = True
    """False: there is no /proc at all, since a container refuses a new one and the host's shows too much."""
    own_dev: bool = True
    """False: five harmless devices are bound instead of a new /dev."""
    no_user_namespaces: bool = True
    """False: the kernel's switch cannot be set here; the filter refuses new namespaces either way."""


SHAPES: Final = (
    Shape(),
    Shape(no_user_namespaces=False),
    Shape(own_proc=False),
    Shape(own_proc=False, no_user_namespaces=False),
    Shape(own_proc=False, own_dev=False, no_user_namespaces=False),
)
"""Tried in this order."""


class Pipes(NamedTuple):
    """Descriptors that bubblewrap inherits: the filter, where it waits for its limits, where it tells its pids."""

    filter: int
    gate: int
    status: int


def command(bwrap: str, shape: Shape, box: Box, limits: Limits, pipes: Pipes, etc: Path) -> list[str]:
    """Everything before the program itself. `etc` holds the gateway's own passwd, group, hosts and nsswitch.conf."""
    # Twice: --unshare-all only tries the user namespace, and one that cannot be had must fail.
    argv = [bwrap, "--unshare-all", "--unshare-user"]
    if box.network:
        argv.append("--share-net")
    if shape.no_user_namespaces:
        argv.append("--disable-userns")
    argv += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv", "--hostname", "box"]
    argv += ["--uid", IDENTITY, "--gid", IDENTITY]
    argv += ["--seccomp", str(pipes.filter), "--block-fd", str(pipes.gate), "--json-status-fd", str(pipes.status)]
    argv += _system(box)
    argv += _etc(etc, network=box.network)
    if shape.own_proc:
        # Read-only, since a process of the real root may write sysctls even without a capability: core_pattern.
        argv += ["--proc", "/proc", "--remount-ro", "/proc"]
    argv += _devices(shape, limits)
    for source, target, writable in box.binds:
        argv += ["--bind" if writable else "--ro-bind", str(source), target]
    for target, path in box.links:
        argv += ["--symlink", target, path]
    argv += ["--remount-ro", "/"]
    for name, value in box.environment.items():
        argv += ["--setenv", name, value]
    return [*argv, "--chdir", box.cwd, "--"]


def _system(box: Box) -> list[str]:
    argv: list[str] = []
    folders = SYSTEM if box.programs == "system" else (*LIBRARIES, *LINKED)
    for folder in folders:
        path = Path(folder)
        if path.is_symlink():
            argv += ["--symlink", os.readlink(path), folder]
        elif path.is_dir():
            argv += ["--ro-bind", folder, folder]
    return argv


def _etc(own: Path, *, network: bool) -> list[str]:
    argv: list[str] = []
    for name in ETC + (ETC_WITH_NETWORK if network else ()):
        argv += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for name in ("passwd", "group", "hosts", "nsswitch.conf"):
        argv += ["--ro-bind", str(own / name), f"/etc/{name}"]
    return argv


def _devices(shape: Shape, limits: Limits) -> list[str]:
    size = ["--size", str(limits.shared_memory_bytes), "--perms", "1777", "--tmpfs", "/dev/shm"]
    if shape.own_dev:
        return ["--dev", "/dev", *size, "--remount-ro", "/dev"]
    argv = ["--dir", "/dev"]
    for device in DEVICES:
        argv += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    return argv + size
