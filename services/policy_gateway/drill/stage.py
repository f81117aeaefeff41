"""The throw-away workspace of a drill: a repository with history, the attackers' programs, and what must not change."""

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from contracts.errors import Rejected
from services.policy_gateway.sandbox.emptying import empty

COMMITS: Final = 60
CANARY_VARIABLE: Final = "HTDAG_DRILL_SECRET"
GROWTH_BYTES_MAX: Final = 5 << 30
"""A workspace that has grown by more than this was filled."""
PAYLOADS: Final = Path(__file__).parent / "payloads"
GIT_S: Final = 20.0
_SIGNATURE: Final = "drill <drill@localhost> 1700000000 +0000"


class Stage:
    """One workspace below `root`, and the signs of harm around it."""

    def __init__(self, root: Path) -> None:
        self.name = f"drill-{secrets.token_hex(4)}"
        self.canary = secrets.token_hex(16)
        self.folder = root / self.name
        self.code = self.folder / "code"
        self._refs = ""
        self._cron: dict[str, float] = {}
        self._code: os.stat_result | None = None

    async def build(self) -> None:
        """Make it. Raises Rejected missing_dependency without git."""
        await asyncio.to_thread(self._build)

    def _build(self) -> None:
        self.code.mkdir(parents=True, mode=0o700)
        (self.folder / "tmp").mkdir(mode=0o700)
        (self.folder / "workspace.toml").write_text('profile = "python"\n')
        (self.code / "lib").mkdir()
        for payload in PAYLOADS.glob("*.py"):
            shutil.copy(payload, self.code / payload.name)
        (self.code / "lib" / "auth.py").write_text("def authenticate(user, password):\n    return False\n")
        (self.code / "way_out").symlink_to("/etc")
        _git(self.code, "init", "--quiet", "--initial-branch=main")
        _git(self.code, "fast-import", "--quiet", standard_input=_history())
        _git(self.code, "reset", "--quiet", "--mixed")
        os.environ[CANARY_VARIABLE] = self.canary
        self._refs, self._cron = _refs(self.code), _cron()
        self._code = self.code.stat()

    async def harm(self, said: str) -> list[str]:
        """Signs of harm since the stage was built; `said` is what the attacker got back."""
        return await asyncio.to_thread(self._harm, said)

    def _harm(self, said: str) -> list[str]:
        found = []
        if self.canary in said:
            found.append("a secret of the environment was read")
        if "INFO {" in said:
            found.append("the broker was reached")
        if "root:x:0:0" in said:
            found.append("a file outside the workspace was read")
        if _refs(self.code) != self._refs:
            found.append("the history changed")
        source = _content(self.code / "lib" / "auth.py")
        if source is None:
            found.append("the source was deleted")
        elif b"return False" not in source:
            found.append("the source was changed")
        if _cron() != self._cron:
            found.append("a job was planted")
        left = list(_attackers(self._code))
        if left:
            found.append(f"{len(left)} processes outlived the call")
        grown = _bytes_of(self.folder)
        if grown > GROWTH_BYTES_MAX:
            found.append(f"the disk was filled with {grown >> 20} MiB")
        for fill in (*self.code.glob("fill-*"), *(self.folder / "tmp").glob("fill-*")):
            with contextlib.suppress(OSError):  # a folder of that name, or it is gone
                fill.unlink()
        return found

    async def remove(self) -> list[str]:
        """Take everything away again; what could not be."""
        return await asyncio.to_thread(self._remove)

    def _remove(self) -> list[str]:
        os.environ.pop(CANARY_VARIABLE, None)
        with contextlib.suppress(OSError):  # it is not there
            empty(self.folder)  # an attacker's tree may be deeper than any path
            self.folder.rmdir()
        left = [str(self.folder.name)] if self.folder.exists() else []
        return left + [f"process {pid}" for pid in _attackers(self._code)]


def _git(folder: Path, *words: str, standard_input: bytes | None = None) -> str:
    world = {"PATH": os.environ.get("PATH", os.defpath), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            input=standard_input, capture_output=True, env=world, timeout=GIT_S, check=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise Rejected("missing_dependency", "git is not installed", hint="apt-get install git") from error
    except subprocess.SubprocessError as error:
        raise Rejected("internal", f"git {words[0]} failed on the stage of the drill") from error
    return done.stdout.decode(errors="replace")


def _content(path: Path) -> bytes | None:
    """What a file holds; None where no such file is any more. Attackers leave what they like in its place."""
    try:
        return path.read_bytes() if path.is_file() and not path.is_symlink() else None
    except OSError:
        return None


def _bytes_of(folder: Path) -> int:
    """The size of all files below a folder in which others may still be at work."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _history() -> bytes:
    """A repository of some weeks, in the words of `git fast-import`."""
    lines = []
    for number in range(1, COMMITS + 1):
        text, message = f"version {number}\n", f"Step {number}\n"
        lines.append(
            f"commit refs/heads/main\ncommitter {_SIGNATURE}\ndata {len(message)}\n{message}"
            f"M 100644 inline story.txt\ndata {len(text)}\n{text}"
        )
    return "\n".join(lines).encode()


def _refs(code: Path) -> str:
    """Every ref and every reachable commit: what must be there after each attempt."""
    try:
        return _git(code, "for-each-ref") + _git(code, "rev-list", "--all", "--count")
    except Rejected:
        return "not a repository any more"


def _cron() -> dict[str, float]:
    folders = [Path("/etc/cron.d"), Path("/var/spool/cron/crontabs")]
    return {str(path): path.stat().st_mtime for folder in folders if folder.is_dir() for path in folder.glob("*")}


def _attackers(code: os.stat_result | None) -> Iterator[int]:
    """Processes of this machine that run one of the attackers' programs, in whatever namespace.

    Those whose /code is another folder than `code` belong to another drill; of what has none, nobody can say that. What
    only builds a box around a program says the program's name too: what is in the box counts.
    """
    programs = {payload.name.encode() for payload in PAYLOADS.glob("*.py")}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it is gone
        builds = words[0].rpartition(b"/")[2] == b"bwrap"
        if programs.intersection(words) and not builds and not _elsewhere(process / "root" / "code", code):
            yield int(process.name)


def _elsewhere(folder: Path, code: os.stat_result | None) -> bool:
    try:
        return code is not None and not os.path.samestat(folder.stat(), code)
    except OSError:
        return False
