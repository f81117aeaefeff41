"""Control groups for one box each: version 2 where it is delegated, the separate hierarchies of version 1 else."""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from services.policy_gateway.sandbox.limits import Limits

PREFIX: Final = "htdag-box-"
NEEDED: Final = frozenset({"memory", "pids"})
PERIOD_US: Final = 100_000
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


class Group(NamedTuple):
    """The groups of one box, one folder per controller (all the same folder in version 2)."""

    folders: Mapping[str, Path]
    unified: bool

    def take(self, pid: int) -> None:
        """Move a process in; what it starts from now on is inside too."""
        for folder in dict.fromkeys(self.folders.values()):
            (folder / "cgroup.procs").write_text(str(pid))

    def memory_kills(self) -> int:
        """How many processes the kernel killed because the group was out of memory."""
        return _counter(self.folders["memory"] / ("memory.events" if self.unified else "memory.oom_control"))

    def remove(self) -> bool:
        """Remove the empty groups; False while something is left in one."""
        empty = True
        for folder in dict.fromkeys(self.folders.values()):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                empty = False
        return empty


class Cgroups:
    """Where this process may make groups."""

    def __init__(self, parents: Mapping[str, Path], *, unified: bool) -> None:
        self._parents = parents
        self._unified = unified

    @classmethod
    def find(cls) -> "Cgroups | None":
        """The place for groups; None where memory and processes cannot both be held."""
        mounts = _mounts()
        for parents, unified in ((_unified(mounts), True), (_separate(mounts), False)):
            if parents.keys() >= NEEDED:
                found = cls(parents, unified=unified)
                if found._works():
                    return found
        return None

    @property
    def controllers(self) -> frozenset[str]:
        """What can be held here: always memory and pids, mostly cpu."""
        return frozenset(self._parents)

    @property
    def version(self) -> int:
        """The version of the interface, for people."""
        return 2 if self._unified else 1

    def make(self, name: str, limits: Limits) -> Group:
        """Make the groups of one box and set their bounds; raises OSError."""
        group = Group({controller: at / f"{PREFIX}{name}" for controller, at in self._parents.items()}, self._unified)
        try:
            for folder in dict.fromkeys(group.folders.values()):
                folder.mkdir()
            for controller, file, value in _settings(limits, unified=self._unified):
                if controller in group.folders and (group.folders[controller] / file).exists():
                    (group.folders[controller] / file).write_text(value)
        except OSError:
            group.remove()
            raise
        return group

    def leftovers(self) -> list[Path]:
        """Groups whose gateway does not live any more: its process id stands in their name."""
        found = []
        for at in dict.fromkeys(self._parents.values()):
            for folder in at.glob(f"{PREFIX}*-*"):
                owner = folder.name.removeprefix(PREFIX).split("-")[0]
                if owner.isdigit() and not Path(f"/proc/{owner}").exists():
                    found.append(folder)
        return found

    def _works(self) -> bool:
        try:
            return self.make(f"{os.getpid()}-probe", Limits()).remove()
        except OSError:
            return False


def _settings(limits: Limits, *, unified: bool) -> list[tuple[str, str, str]]:
    quota_us = limits.processors * PERIOD_US
    if unified:
        return [
            ("memory", "memory.max", str(limits.memory_bytes)),
            ("memory", "memory.swap.max", "0"),
            ("memory", "memory.oom.group", "1"),
            ("pids", "pids.max", str(limits.processes)),
            ("cpu", "cpu.max", f"{quota_us} {PERIOD_US}"),
        ]
    return [
        ("memory", "memory.limit_in_bytes", str(limits.memory_bytes)),
        ("memory", "memory.memsw.limit_in_bytes", str(limits.memory_bytes)),
        ("pids", "pids.max", str(limits.processes)),
        ("cpu", "cpu.cfs_period_us", str(PERIOD_US)),
        ("cpu", "cpu.cfs_quota_us", str(quota_us)),
    ]


def _counter(file: Path) -> int:
    try:
        words = file.read_text().split()
    except OSError:
        return 0
    return int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else 0


class _Mount(NamedTuple):
    root: str
    at: Path
    kind: str
    controllers: frozenset[str]


def _mounts() -> list[_Mount]:
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            kind, _, options = right.split(" ", 2)
            if kind in {"cgroup", "cgroup2"}:
                root, at = (_ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), word) for word in left.split()[3:5])
                found.append(_Mount(root, Path(at), kind, frozenset(options.split(" ")[-1].split(","))))
    return found


def _own(mount: _Mount, path: str) -> Path:
    """Our own group below a mount that may show only a part of the hierarchy."""
    inside = path.removeprefix(mount.root) if mount.root != "/" else path
    return mount.at / inside.lstrip("/")


def _membership() -> dict[frozenset[str], str]:
    """Our path per hierarchy; version 2 stands under no controller."""
    paths = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            paths[frozenset(filter(None, names.split(",")))] = path
    return paths


def _separate(mounts: list[_Mount]) -> dict[str, Path]:
    parents: dict[str, Path] = {}
    for names, path in _membership().items():
        for mount in mounts:
            if mount.kind == "cgroup" and names and names <= mount.controllers:
                parents |= {name: _own(mount, path) for name in names & {"memory", "pids", "cpu"}}
    return {name: at for name, at in parents.items() if os.access(at, os.W_OK)}


def _unified(mounts: list[_Mount]) -> dict[str, Path]:
    """The nearest group above or at ours that hands its controllers down and lets us make groups and move into them."""
    path = _membership().get(frozenset())
    for mount in mounts:
        if mount.kind != "cgroup2" or path is None:
            continue
        own = _own(mount, path)
        for at in (own, *own.parents):
            if not at.is_relative_to(mount.at):
                break
            handed = _controllers(at)
            if handed >= NEEDED and os.access(at, os.W_OK) and os.access(at / "cgroup.procs", os.W_OK):
                return dict.fromkeys(handed & {"memory", "pids", "cpu"}, at)
    return {}


def _controllers(at: Path) -> frozenset[str]:
    try:
        return frozenset((at / "cgroup.subtree_control").read_text().split())
    except OSError:
        return frozenset()
