"""A second repository per workspace, out of every box's reach, that never forgets a commit a ref has pointed to.

Before a git call that may move refs, all refs of the workspace are fetched into it. There they live as `refs/now/…`
with a reflog each, so that what was overwritten stays; nothing is ever pruned there but by age. `restore` makes a
repository out of it again, also when the workspace has lost its own.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from contracts.errors import Rejected
from services.policy_gateway.sandbox import repository
from services.policy_gateway.sandbox.box import Bind, Box
from services.policy_gateway.sandbox.running import Ending
from services.policy_gateway.sandbox.sandbox import Sandbox
from services.policy_gateway.tools.tool import Workspace

BYTES_MAX: Final = 4 << 30
"""A history larger than this is not kept, and so not written either."""
REFS_MAX: Final = 20_000
CONFIG: Final = """[core]
\tbare = true
\tlogAllRefUpdates = always
[gc]
\tauto = 2000
\tautoPackLimit = 20
\tautoDetach = false
\treflogExpire = 90.days
\treflogExpireUnreachable = 90.days
\tpruneExpire = 90.days
[maintenance]
\tautoDetach = false
[uploadpack]
\tallowAnySHA1InWant = true
[safe]
\tdirectory = *
"""
ENVIRONMENT: Final = {
    "GIT_CONFIG_NOSYSTEM": "1",
    # Said globally too, since git asks there whether the workspace's repository may be read at all.
    "GIT_CONFIG_GLOBAL": "/shadow/config",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_COMMITTER_NAME": "policy-gateway",
    "GIT_COMMITTER_EMAIL": "policy-gateway@htdag",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
}
FETCH: Final = ("fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
OFF: Final = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "submodule.recurse=false")
_OBJECT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SYMBOLIC: Final = re.compile(r"ref: (refs/heads/[^\s~^:?*\[\\\x00-\x1f\x7f]+)")
_LOG_LINE: Final = re.compile(r"([0-9a-f]{40,64}) ([0-9a-f]{40,64}) .*? (\d+) [+-]\d{4}\t")


class Tip(NamedTuple):
    """A commit that a ref of the workspace pointed to, and since when the shadow knows it."""

    ref: str
    commit: str
    at_s: int


class Shadow:
    """The shadow repositories of one gateway, one folder per workspace below the sandbox's state."""

    def __init__(self, sandbox: Sandbox, *, bytes_max: int = BYTES_MAX) -> None:
        self._sandbox = sandbox
        self._folder = sandbox.state / "shadow"
        self._bytes_max = bytes_max
        self._locks: dict[str, asyncio.Lock] = {}

    async def keep(self, workspace: Workspace, deadline_s: float) -> None:
        """Fetch what the refs point to now; nothing to do where they have not moved since the last time.

        Raises Rejected when the history cannot be kept: then nothing may be written. BadRepository, DeadlinePassed.
        """
        async with self._locks.setdefault(workspace.name, asyncio.Lock()):
            seen = await asyncio.to_thread(_signature, workspace.code)
            at = self._folder / workspace.name
            if seen is None or seen == _text(at / "seen"):
                return
            await asyncio.to_thread(self._make, at, workspace.code)
            box = await asyncio.to_thread(self._box, at, workspace)
            refs = ["+refs/*:refs/now/*"]
            head = await asyncio.to_thread(repository.head, workspace.code)
            if _OBJECT.fullmatch(head):
                refs.append("+HEAD:refs/now/HEAD")
            fetched = await self._git(box, [*FETCH, "/code/.git", *refs], deadline_s)
            if fetched.exit:
                # A folder of refs where a ref was, or the reverse: the old ones move aside, with what they point to.
                aside = f"+refs/now/*:refs/past/{hashlib.sha256(seen.encode()).hexdigest()[:12]}/*"
                moved = await self._git(box, [*FETCH, "/shadow", aside], deadline_s)
                fetched = await self._git(box, [*FETCH, "--prune", "/code/.git", *refs], deadline_s)
                if moved.exit or fetched.exit:
                    said = fetched.stderr.kept.decode("utf-8", "replace").strip()[-500:]
                    raise Rejected("file_error", "the history could not be kept safe: nothing was written", said=said)
            (at / "head").write_text(head)
            (at / "seen").write_text(seen)

    async def restore(self, workspace: Workspace, deadline_s: float, *, commit: str | None = None) -> None:
        """Bring the history back. Without a repository in /code: all of it, with the files that are missing.

        Beside an existing repository nothing is overwritten: what the shadow has appears as `refs/rescued/…`; `commit`
        is one that no ref points to any more, see `tips`. Raises Rejected.
        """
        at = self._folder / workspace.name
        if not (at / "HEAD").exists():
            raise Rejected("not_found", "nothing was kept for this workspace", workspace=workspace.name)
        there, guarded = await asyncio.to_thread(self._guarded, workspace)
        box = Box((Bind(at, "/shadow"), Bind(workspace.code, "/code", writable=True), *guarded), ENVIRONMENT, "/code")
        into = "refs/rescued" if there else "refs"
        refs = [f"{commit}:refs/rescued/{commit}"] if commit else [f"+refs/now/*:{into}/*"]
        steps: list[Sequence[str]] = []
        if not there:
            shape = _text(at / "format") or "sha1"
            steps.append(["init", "--quiet", "--template=", f"--object-format={shape}", "/code"])
        steps.append(["-C", "/code", *OFF, *FETCH, "--update-head-ok", "/shadow", *refs])
        if not there:
            steps += [["-C", "/code", *OFF, *words] for words in _head_words(_text(at / "head") or "")]
            steps += [["-C", "/code", *OFF, *words] for words in (["read-tree", "HEAD"], ["checkout-index", "--all"])]
        for words in steps:
            done = await self._git(box, words, deadline_s, own=False)
            # Files that are there already stay: checkout-index then ends with 1.
            if done.exit and "checkout-index" not in words:
                raise Rejected("file_error", done.stderr.kept.decode("utf-8", "replace").strip()[-500:])

    def tips(self, workspace: Workspace) -> list[Tip]:
        """Every commit that a ref has pointed to, the oldest first."""
        logs = self._folder / workspace.name / "logs"
        return sorted(set(_tips(logs)), key=lambda tip: (tip.at_s, tip.ref))

    async def _git(self, box: Box, words: Sequence[str], deadline_s: float, *, own: bool = True) -> Ending:
        which = ("--git-dir=/shadow",) if own else ()
        return await self._sandbox.run(box, [str(repository.find_git()), *which, *words], deadline_s)

    def _make(self, at: Path, code: Path) -> None:
        """An empty repository where there is none yet; refuses to let one grow without end."""
        if not (at / "HEAD").exists():
            shape = repository.object_format(code)
            version = "\trepositoryformatversion = 0\n"
            if shape != "sha1":
                version = f"\trepositoryformatversion = 1\n[extensions]\n\tobjectFormat = {shape}\n"
            for name in ("objects", "refs"):
                (at / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            (at / "config").write_text(f"[core]\n{version}{CONFIG}")
            (at / "format").write_text(shape)
            (at / "HEAD").write_text("ref: refs/heads/none\n")
        used = sum(file.lstat().st_size for file in (at / "objects").rglob("*"))
        if used > self._bytes_max:
            raise Rejected("too_large", "the history is larger than what is kept of it", bytes_max=self._bytes_max)

    def _guarded(self, workspace: Workspace) -> tuple[bool, tuple[Bind, ...]]:
        """Whether there is a repository, and what keeps its configuration from starting programs. Raises Rejected."""
        try:
            there = repository.is_there(workspace.code)
            return there, repository.binds(workspace.code, workspace.name, self._sandbox.state, "policy-gateway")
        except repository.BadRepository as why:
            raise Rejected("file_error", str(why), path="/code/.git") from why

    def _box(self, at: Path, workspace: Workspace) -> Box:
        """The shadow to write to, the repository to read from, and nothing else of the workspace."""
        guarded = repository.binds(workspace.code, workspace.name, self._sandbox.state, "policy-gateway")
        binds = (Bind(at, "/shadow", writable=True), Bind(workspace.code / ".git", "/code/.git"), *guarded)
        return Box(binds, ENVIRONMENT, "/")


def _head_words(head: str) -> list[list[str]]:
    if symbolic := _SYMBOLIC.fullmatch(head):
        return [["symbolic-ref", "HEAD", symbolic[1]]]
    return [["update-ref", "--no-deref", "HEAD", head]] if _OBJECT.fullmatch(head) else []


def _signature(code: Path) -> str | None:
    """Changes whenever a ref does; None where there is no repository. Raises BadRepository."""
    if not repository.is_there(code):
        return None
    digest = hashlib.sha256()
    for number, path in enumerate(_ref_files(code / ".git")):
        if number > REFS_MAX:
            return f"many-{os.urandom(8).hex()}"
        about = path.lstat()
        digest.update(f"{path} {about.st_ino} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}\n".encode())
    return digest.hexdigest()


def _ref_files(git: Path) -> Iterator[Path]:
    for name in ("HEAD", "packed-refs"):
        if (git / name).exists():
            yield git / name
    for folder in ("refs", "reftable"):
        for at, _, files in sorted(os.walk(git / folder)):
            for file in sorted(files):
                yield Path(at) / file


def _tips(logs: Path) -> Iterator[Tip]:
    for file in sorted(logs.rglob("*")):
        if not file.is_file():
            continue
        ref = str(file.relative_to(logs))
        for line in file.read_text("utf-8", "replace").splitlines():
            if found := _LOG_LINE.match(line):
                for commit in (found[1], found[2]):
                    if commit.strip("0"):
                        yield Tip(ref.replace("refs/now/", "refs/", 1), commit, int(found[3]))


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
