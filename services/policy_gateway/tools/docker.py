"""The docker tool: one command in one container of a fixed template, then nothing is left of it.

The caller chooses image, command, mounts and less of the limits; everything else is the template: no network, a
read-only root, no capability, no new privilege, few processes, no swap. Images come from the engine as they are there;
nothing is pulled. The tool touches only containers that it made itself, and by their id.
"""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import DockerPlan
from services.policy_gateway.sandbox.output import DRAIN_PAUSE_S, HeadAndTail, said, told
from services.policy_gateway.tools import mounts
from services.policy_gateway.tools.engine import engine, engine_sockets, engine_url
from services.policy_gateway.tools.tool import Ticket

if TYPE_CHECKING:
    from aiodocker import Docker as Client
    from aiodocker.containers import DockerContainer

LABEL, CALL_LABEL, DEADLINE_LABEL = "htdag", "htdag.call", "htdag.deadline"
NOBODY: Final = "65534:65534"
PIDS_MAX: Final = 256
TMP: Final = "rw,nosuid,nodev,size=256m,mode=1777"
VOLUME: Final = "rw,nosuid,nodev,size=64m,mode=1777"
OUTPUT_BYTES_MAX: Final = 1 << 20
CLEAN_UP_SHARE: Final = 0.1
"""The part of its time that a call keeps for the removal of its container, CLEAN_UP_S at most."""
CLEAN_UP_S: Final = 1.0
REMOVE_S: Final = 15.0
LIST_S: Final = 10.0
LAST_OUTPUT_S: Final = 2.0
GRACE_S: Final = 10.0
"""How long after its deadline a container may stand before the reaper takes it."""
REASON_CHARS_MAX: Final = 300
PATH: Final = re.compile(r"(?<![\w.)])/[^\s\"':,;()]+")
CONTAINER_REFUSED: Final = ("oci runtime", "invalid mount", "mountpoint", "cannot start a container")
"""What engines say, with a status of their own failures, of a container that cannot be as it was asked for."""
NO_SUCH_PROGRAM: Final = ("executable file not found", "no such file or directory", "permission denied")


class Docker:
    """Carries out docker plans. `url` None means DOCKER_HOST, else the usual socket."""

    def __init__(self, url: str | None = None, wall_clock: Callable[[], float] = time.time) -> None:
        self._url = url
        self._wall_clock = wall_clock
        self._removals: set[asyncio.Task[None]] = set()

    async def run(self, plan: DockerPlan, ticket: Ticket) -> dict[str, Any]:
        """Run the command and return `{stdout, stderr, exit, truncated, duration_ms}`, with `oom` where it was that.

        Raises Rejected: docker_unavailable, image_not_found, program_not_found, forbidden_mount, file_not_found,
        container_refused for limits or mounts that this engine cannot give, timeout.
        """
        now_s = asyncio.get_running_loop().time()
        allowed_s = ticket.deadline_s - now_s
        ends_s = ticket.deadline_s - min(CLEAN_UP_S, CLEAN_UP_SHARE * max(allowed_s, 0.0))
        deadline = round(self._wall_clock() + allowed_s)
        printed = {1: HeadAndTail(OUTPUT_BYTES_MAX), 2: HeadAndTail(OUTPUT_BYTES_MAX)}
        try:
            async with asyncio.timeout_at(ends_s):
                sockets = engine_sockets(engine_url(self._url))
                # Before anything is asked of an engine: what is closed is closed without one, and without the image.
                await asyncio.to_thread(mounts.check, plan.mounts, ticket.workspace, sockets)
                async with engine(self._url) as client:
                    return await self._contain(client, plan, ticket, deadline, printed)
        except TimeoutError:
            detail = said(printed[1].output(), printed[2].output())
            raise Rejected("timeout", **detail, timeout_ms=round(allowed_s * 1000)) from None

    async def reap(self, workspaces: Path | None = None) -> int:
        """Remove what gateways that died left behind, long past its deadline; returns how much.

        Containers of ours and, below the root of the workspaces, copies made for mounts. Without an engine there is
        nothing to do.
        """
        late_s = self._wall_clock() - GRACE_S
        removed = 0
        if workspaces is not None:
            removed += await asyncio.to_thread(mounts.sweep, workspaces, late_s)
        if engine_url(self._url) is None:
            return removed
        try:
            async with engine(self._url) as client:
                for container in await _ours(client, CALL_LABEL):
                    deadline = container["Labels"][DEADLINE_LABEL]
                    if deadline.isdigit() and int(deadline) < late_s:
                        await _remove(container)
                        removed += 1
        except Rejected:
            return removed
        return removed

    async def bury(self, call_id: str) -> None:
        """Remove the container of a call whose gateway died, before anybody makes that call again.

        Never raises: without an engine nothing runs, and what an engine in trouble keeps is left to the reaper.
        """
        if engine_url(self._url) is None:
            return
        with suppress(Rejected):
            async with engine(self._url) as client:
                for container in await _ours(client, f"{CALL_LABEL}={call_id}"):
                    await _remove(container)

    async def _contain(
        self, client: "Client", plan: DockerPlan, ticket: Ticket, deadline: int, printed: dict[int, HeadAndTail]
    ) -> dict[str, Any]:
        image = await _image(client, plan.image)
        info = await client.system.info()
        sockets = engine_sockets(engine_url(self._url))
        prepared = await self._prepare(plan, ticket, deadline, sockets)
        config = template(plan, image, prepared, int(info.get("NCPU", 1)), user_of(prepared, info))
        config["Labels"] = {LABEL: "1", CALL_LABEL: ticket.call_id, DEADLINE_LABEL: str(deadline)}
        # A call that is cancelled while the engine makes the container must still learn its id.
        making = asyncio.create_task(client.containers.create(config))
        try:
            try:
                container = await asyncio.shield(making)
                return await _watch(container, printed)
            except Exception as why:
                raise _told(why, plan, ticket) from None
        finally:
            await self._surely(_clean_up(making, prepared.copies))

    async def _prepare(
        self, plan: DockerPlan, ticket: Ticket, deadline: int, sockets: tuple[Path, ...]
    ) -> mounts.Mounts:
        """The mounts. A call whose time is over while its copies are made leaves none behind."""
        job = asyncio.create_task(
            asyncio.to_thread(mounts.prepare, plan.mounts, ticket.workspace, ticket.call_id, deadline, sockets)
        )
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            await self._surely(_unprepare(job))
            raise

    async def _surely(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for the end of some work; a cancellation in between does not stop it."""
        task = asyncio.create_task(work)
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            raise


def user_of(prepared: mounts.Mounts, info: Mapping[str, Any]) -> str:
    """Whom a container runs as: the owner of what it works on, who alone can enter a private workspace.

    That may be root. With every capability dropped and none to gain, root is an owner like others: what belongs to
    somebody else, and is closed, stays closed.
    """
    if prepared.owner is None:
        return NOBODY
    if any("rootless" in str(option) for option in info.get("SecurityOptions") or ()):
        return "0:0"  # the engine's own ordinary user is root inside, and everybody else is unknown to it
    return "{}:{}".format(*prepared.owner)


def template(
    plan: DockerPlan, image: dict[str, Any], prepared: mounts.Mounts, cores: int, user: str = NOBODY
) -> dict[str, Any]:
    """Return the container's configuration for the engine's API: the plan in the fixed template."""
    config: dict[str, Any] = {
        "Image": image["Id"],  # the very image that was looked at, whatever its name means a moment later
        "Entrypoint": [plan.cmd[0]],
        "Cmd": list(plan.cmd[1:]),
        "User": user,
        "Hostname": "sandbox",
        "NetworkDisabled": True,
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "OpenStdin": False,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "NetworkMode": "none",
            "Privileged": False,
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "PidsLimit": PIDS_MAX,
            "IpcMode": "private",
            "ShmSize": 16 << 20,
            "Ulimits": [
                {"Name": "core", "Soft": 0, "Hard": 0},
                {"Name": "nofile", "Soft": 4096, "Hard": 4096},
            ],
            "LogConfig": {"Type": "none"},  # the output goes to us alone, and we cut it
            "RestartPolicy": {"Name": "no"},
            "Tmpfs": {"/tmp": TMP} | dict.fromkeys(_volumes(image), VOLUME),
            "Mounts": prepared.specs,
        },
    }
    if plan.working_dir is not None:
        config["WorkingDir"] = plan.working_dir
    if plan.mem_bytes is not None:
        config["HostConfig"] |= {"Memory": plan.mem_bytes, "MemorySwap": plan.mem_bytes}
    if plan.cpus is not None:
        config["HostConfig"]["NanoCpus"] = round(min(max(plan.cpus, 0.01), cores) * 1e9)
    return config


def _volumes(image: dict[str, Any]) -> list[str]:
    """Volumes that the image declares: on memory, or each call would leave one on the disk."""
    return [path for path in (image.get("Config") or {}).get("Volumes") or {} if path != "/tmp"]


async def _image(client: "Client", reference: str) -> dict[str, Any]:
    """What the engine says of an image. One that is pinned (`name:tag@sha256:…`) must be that very image: by the
    digest of its registry or, for one that was loaded without a registry, by its id."""
    import aiodocker

    name, _, digest = reference.partition("@")
    try:
        image = dict(await client.images.inspect(name))
    except aiodocker.DockerError as why:
        if why.status in (400, 404):
            raise Rejected("image_not_found", image=reference) from None
        raise
    known = (image["Id"], *(pinned.rpartition("@")[2] for pinned in image.get("RepoDigests") or ()))
    if digest and digest not in known:
        raise Rejected("image_not_found", "the engine has another image of this name", image=reference)
    return image


async def _watch(container: "DockerContainer", output: dict[int, HeadAndTail]) -> dict[str, Any]:
    """Start the container, collect what it says until it ends, and say how it ended."""
    loop = asyncio.get_running_loop()
    async with container.attach(stdout=True, stderr=True) as stream:

        async def collect() -> None:
            while (message := await stream.read_out()) is not None:
                kept = output.get(message.stream, output[1])
                kept.add(message.data)
                if kept.full:
                    await asyncio.sleep(DRAIN_PAUSE_S)

        collecting = asyncio.create_task(collect())
        try:
            started_s = loop.time()
            await container.start()
            ended = await container.wait()
            duration_ms = round((loop.time() - started_s) * 1000)
            await asyncio.wait([collecting], timeout=LAST_OUTPUT_S)
        finally:
            collecting.cancel()
            await asyncio.wait([collecting])
    state = (await container.show())["State"]
    value = told(output[1].output(), output[2].output(), int(ended["StatusCode"]), duration_ms)
    if state.get("OOMKilled"):
        value["oom"] = True
    return value


async def _unprepare(job: "asyncio.Task[mounts.Mounts]") -> None:
    """A thread cannot be stopped: wait for its end, then take away what it made."""
    await asyncio.wait([job], timeout=REMOVE_S)
    if job.done() and not job.cancelled() and job.exception() is None:
        await asyncio.to_thread(mounts.discard, job.result().copies)


async def _clean_up(making: "asyncio.Task[DockerContainer]", copies: Path) -> None:
    await asyncio.wait([making], timeout=REMOVE_S)
    if making.done() and not making.cancelled() and making.exception() is None:
        await _remove(making.result())
    await asyncio.to_thread(mounts.discard, copies)


async def _ours(client: "Client", call: str) -> "list[DockerContainer]":
    """Containers that gateways made, of all calls or of one. Raises Rejected("docker_unavailable")."""
    import aiodocker

    # All three: a container inherits labels of its image, so one alone proves little.
    labels = [f"{LABEL}=1", call, DEADLINE_LABEL]
    try:
        async with asyncio.timeout(LIST_S):
            return await client.containers.list(all=True, filters={"label": labels})
    except (aiodocker.DockerError, TimeoutError) as why:
        raise Rejected("docker_unavailable", "the Docker engine does not say what runs") from why


async def _remove(container: "DockerContainer") -> None:
    """Kill and remove; what cannot be removed now is left to the reaper."""
    import aiodocker

    try:
        async with asyncio.timeout(REMOVE_S):
            await container.delete(force=True, v=True)
    except (aiodocker.DockerError, TimeoutError, OSError):
        return


def _told(why: Exception, plan: DockerPlan, ticket: Ticket) -> Exception:
    """The refusal of the engine in our own words and with virtual paths."""
    import aiodocker

    if not isinstance(why, aiodocker.DockerError) or why.status == 900:
        return why
    words = why.message.lower()
    if any(sign in words for sign in NO_SUCH_PROGRAM) and ("exec:" in words or "exec " in words):
        return Rejected("program_not_found", program=plan.cmd[0])
    reason = _virtual(why.message, plan, ticket)[:REASON_CHARS_MAX]
    if why.status in (400, 409) or any(sign in words for sign in CONTAINER_REFUSED):
        return Rejected("container_refused", reason=reason)
    return Rejected("docker_unavailable", "the engine could not run the container", reason=reason)


def _virtual(message: str, plan: DockerPlan, ticket: Ticket) -> str:
    """What the engine said, with the paths that the caller knows; those of the machine are nobody's business."""
    message = message.replace(str(ticket.workspace.code), "/code")
    known = {"/code", plan.working_dir, *(mount.container for mount in plan.mounts)}

    def told_path(found: "re.Match[str]") -> str:
        path = found.group()
        return path if any(path == one or (one and path.startswith(f"{one}/")) for one in known) else "(a path)"

    return PATH.sub(told_path, message)
