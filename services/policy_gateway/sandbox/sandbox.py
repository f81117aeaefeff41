"""The sandbox of one gateway: finds out once what this machine can do, then runs programs in boxes."""

import asyncio
import contextlib
import copy
import itertools
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from contracts.errors import Rejected
from services.policy_gateway.sandbox import seccomp
from services.policy_gateway.sandbox.box import SHAPES, Box, Pipes, Shape, command
from services.policy_gateway.sandbox.cgroups import Cgroups, Group
from services.policy_gateway.sandbox.ledger import Ledger
from services.policy_gateway.sandbox.leftovers import remove_leftovers
from services.policy_gateway.sandbox.limits import DEFAULTS, Limits, confine, processors_for
from services.policy_gateway.sandbox.running import (
    END_TIMEOUT_S,
    STATUS_BYTES_MAX,
    DeadlinePassed,
    Ending,
    Running,
    SetupFailed,
)
from services.policy_gateway.sandbox.warden import Warden
from services.policy_gateway.sandbox.watchdog import Watch
from services.runtime.lua.sandbox import bubblewrap

BOXES_DEFAULT: Final = 8
EMPTY_GROUP_TRIES: Final = 100
EMPTY_GROUP_PAUSE_S: Final = 0.01
STUCK_S: Final = 3 * END_TIMEOUT_S
PROBE_S: Final = 10.0
RETRY_S: Final = 30.0
CLEAN_UP_S: Final = 0.1
"""Kept of each deadline for killing and burying; a twentieth where the deadline is short."""
ETC: Final = {
    "passwd": "root:x:0:0::/:/bin/false\nagent:x:1000:1000::/tmp/home:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "group": "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost box\n::1 localhost box\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
"""The gateway's own: those of the machine name its users and hosts."""


class Sandbox:
    """Runs programs in boxes. `state` is a private folder of the gateway, outside of every workspace."""

    def __init__(
        self,
        state: Path,
        *,
        limits: Limits = DEFAULTS,
        boxes_max: int = BOXES_DEFAULT,
        cgroups: bool = True,
        bwrap: Path | None = None,
        shapes: Sequence[Shape] = SHAPES,
    ) -> None:
        self.state = state
        self.limits = limits
        self.ledger = Ledger()
        self._warden = Warden(state)
        self._bwrap = str(bwrap) if bwrap else bubblewrap()
        self._cgroups = Cgroups.find() if cgroups else None
        self._shapes = shapes
        self._shape: Shape | None = None
        self._why_not = ""
        self._tried_s = float("-inf")
        self._looking = asyncio.Lock()
        self._places = asyncio.Semaphore(boxes_max)
        self._turns = itertools.count()
        self._lives: set[asyncio.Task[Ending]] = set()

    def with_limits(self, limits: Limits) -> "Sandbox":
        """The same sandbox with other limits; it shares what was found out already."""
        other = copy.copy(self)
        other.limits = limits
        return other

    @property
    def shape(self) -> Shape | None:
        """What bubblewrap can do here; None before `ready()`."""
        return self._shape

    @property
    def why_not(self) -> str:
        """Why no box can be built, for the operator: may hold paths of the host."""
        return self._why_not

    def holders(self) -> dict[str, str]:
        """What holds each bound on this machine."""
        grouped = f"cgroup v{self._cgroups.version}" if self._cgroups else ""
        has_cpu = self._cgroups is not None and "cpu" in self._cgroups.controllers
        by_hand = "watchdog" if os.geteuid() == 0 else "rlimit and watchdog"
        return {
            "memory": grouped or "rlimit and watchdog",
            "processes": grouped or by_hand,
            "processors": grouped if has_cpu else "affinity",
        }

    async def ready(self) -> Shape:
        """The shape of boxes here, found out at the first call. Raises Rejected("sandbox_unavailable")."""
        async with self._looking:
            now_s = asyncio.get_running_loop().time()
            if self._shape is None and now_s - self._tried_s >= RETRY_S:
                self._tried_s = now_s
                self._shape = await self._find_shape()
            if self._shape is None:
                raise Rejected("sandbox_unavailable")
            return self._shape

    async def sweep(self) -> int:
        """Remove what a killed gateway left: boxes without a parent, control groups, scratch folders.

        For the start of a gateway, before its first call; other gateways of the same state keep theirs.
        """
        return await asyncio.to_thread(remove_leftovers, self.state, self._cgroups)

    async def run(self, box: Box, argv: Sequence[str], deadline_s: float) -> Ending:
        """Run one program in one box; at the end nothing of it is left, however this call ends.

        Raises DeadlinePassed or Rejected: sandbox_unavailable, program_not_found, file_not_found (where to run),
        workspace_full (what it may write to).
        """
        shape = await self.ready()
        loop = asyncio.get_running_loop()
        kill_at_s = deadline_s - min(CLEAN_UP_S, (deadline_s - loop.time()) / 20)
        endings: list[Ending] = []
        try:
            async with asyncio.timeout_at(kill_at_s), self._places:
                await asyncio.to_thread(self._check_folders, box)
                return await self._life(shape, box, argv, endings)
        except TimeoutError:
            raise DeadlinePassed(endings[0] if endings else None) from None
        except SetupFailed as why:
            if "Can't chdir to" in str(why):
                raise Rejected("file_not_found", "there is no such folder to run in", path=box.cwd) from why
            if str(why).startswith("bwrap: execvp "):
                raise Rejected("program_not_found", program=Path(argv[0]).name) from why
            self._why_not = str(why)
            raise Rejected("sandbox_unavailable") from why

    def _check_folders(self, box: Box) -> None:
        if folders := _writable(box):
            shown = " with ".join(bind.target for bind in box.binds if bind.writable)
            tmp = next((bind.source for bind in box.binds if bind.writable and bind.target == "/tmp"), None)
            self.ledger.check(folders, self.limits, shown, tmp=tmp)

    async def _life(self, shape: Shape, box: Box, argv: Sequence[str], endings: list[Ending]) -> Ending:
        """A box has a task of its own, which is told to stop and never cancelled; how it ended is put into `endings`.

        Cancelled between bubblewrap's start and the news of its first process, it would leave that process behind.
        """
        stop = asyncio.Event()
        life = asyncio.ensure_future(self._run(shape, box, argv, stop))
        self._lives.add(life)
        life.add_done_callback(self._lived)
        try:
            return await asyncio.shield(life)
        finally:
            stop.set()
            # A process that is stuck in the kernel does not die; its caller gets an answer all the same.
            await asyncio.wait([life], timeout=STUCK_S)
            if life.done() and not life.cancelled() and life.exception() is None:
                endings.append(life.result())

    def _lived(self, life: asyncio.Task[Ending]) -> None:
        self._lives.discard(life)
        if not life.cancelled():
            life.exception()  # whoever still waits gets it; else it is of no interest

    async def _run(self, shape: Shape, box: Box, argv: Sequence[str], stop: asyncio.Event) -> Ending:
        if self._bwrap is None:
            raise SetupFailed("there is no bwrap program")
        turn = next(self._turns)
        async with self._group(turn) as group:
            held = group is not None and "cpu" in group.folders
            bpf = seccomp.program(memory_counted=group is not None, processors_held=held)
            async with _plumbing(bpf) as plumbing:
                line = command(self._bwrap, shape, box, self.limits, plumbing.pipes, self.state / "etc")
                alone = group is None
                watch = Watch(alone, alone, _writable(box), self.ledger, group)
                with self.ledger.working_in(watch.folders), self._warden.told():
                    return await self._run_in(group, turn, [*line, *argv], plumbing, watch, stop)

    async def _run_in(
        self,
        group: Group | None,
        turn: int,
        line: Sequence[str],
        plumbing: "_Plumbing",
        watch: Watch,
        stop: asyncio.Event,
    ) -> Ending:
        began_s = asyncio.get_running_loop().time()
        try:
            running = await Running.start(line, plumbing.pipes, group)
        except OSError as why:
            raise SetupFailed(f"bwrap cannot be started: {why.strerror}") from why
        try:
            plumbing.hand_over()
            pid = await running.first_pid(plumbing.status)
            if group is not None:
                await asyncio.to_thread(group.take, pid)
            confine(pid, self.limits, memory_counted=group is not None)
            if group is None or "cpu" not in group.folders:
                os.sched_setaffinity(pid, processors_for(turn, self.limits))
            os.write(plumbing.go, b"1")
            return await running.finish(plumbing.status, self.limits, watch, stop, began_s)
        except OSError as why:
            raise SetupFailed(f"the limits cannot be set: {why.strerror}") from why
        finally:
            await running.end()

    @contextlib.asynccontextmanager
    async def _group(self, turn: int) -> AsyncIterator[Group | None]:
        """The control group of one box, removed at its end; None where there are none."""
        if self._cgroups is None:
            yield None
            return
        try:
            group = await asyncio.to_thread(self._cgroups.make, f"{os.getpid()}-{turn}", self.limits)
        except OSError as why:
            raise SetupFailed(f"no control group can be made any more: {why.strerror}") from why
        try:
            yield group
        finally:
            # The processes are gone, yet the kernel may need a moment to let go of their group.
            for _ in range(EMPTY_GROUP_TRIES):
                if group.remove():
                    break
                await asyncio.sleep(EMPTY_GROUP_PAUSE_S)

    async def _find_shape(self) -> Shape | None:
        """The first shape in which a program really runs."""
        try:
            await asyncio.to_thread(self._write_etc)
        except OSError as why:
            self._why_not = f"the state folder cannot be written: {why.strerror}"
            return None
        box = Box(binds=(), environment={}, cwd="/")
        for shape in self._shapes:
            try:
                async with asyncio.timeout(PROBE_S):
                    ending = await self._life(shape, box, ["/bin/sh", "-c", ":"], [])
            except (SetupFailed, TimeoutError, KeyError) as why:
                self._why_not = str(why) or type(why).__name__
                continue
            if ending.exit == 0:
                return shape
            self._why_not = f"a program in a box ended with {ending.exit}"
        return None

    def _write_etc(self) -> None:
        folder = self.state / "etc"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, text in ETC.items():
            fresh = folder / f".{name}.{os.getpid()}"
            fresh.write_text(text)
            fresh.chmod(0o644)
            fresh.rename(folder / name)


def _writable(box: Box) -> list[Path]:
    return [bind.source for bind in box.binds if bind.writable]


class _Plumbing:
    """What bubblewrap inherits, the descriptor that opens its gate, and the stream of its status."""

    def __init__(self, pipes: Pipes, go: int, status: asyncio.StreamReader) -> None:
        self.pipes = pipes
        self.go = go
        self.status = status
        self._ours = True

    def hand_over(self) -> None:
        """Close our copies; bubblewrap has its own by now. Once is enough."""
        if self._ours:
            self._ours = False
            for descriptor in self.pipes:
                os.close(descriptor)


@contextlib.asynccontextmanager
async def _plumbing(bpf: bytes) -> AsyncIterator[_Plumbing]:
    filter_fd = os.memfd_create("filter", os.MFD_CLOEXEC)
    os.write(filter_fd, bpf)
    os.lseek(filter_fd, 0, os.SEEK_SET)
    gate_read, go = os.pipe()
    # Opened for both ways, the gate has no end of file: when the gateway dies, what waits there never begins.
    gate = os.open(f"/proc/self/fd/{gate_read}", os.O_RDWR | os.O_CLOEXEC)
    os.close(gate_read)
    status_read, status_write = os.pipe()
    stream = asyncio.StreamReader(limit=STATUS_BYTES_MAX)
    plumbing = _Plumbing(Pipes(filter=filter_fd, gate=gate, status=status_write), go, stream)
    transport: asyncio.BaseTransport | None = None
    reading_end = os.fdopen(status_read, "rb", buffering=0)
    try:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), reading_end)
        yield plumbing
    finally:
        plumbing.hand_over()
        os.close(go)
        if transport is None:
            reading_end.close()
        else:
            transport.close()
