"""The fs tool: reads and replaces regular files below the roots of a workspace.

Every file is reached through descriptors (`opening`): a folder that becomes a symbolic link in between leads nowhere.
A write makes a new file and renames it into place: readers see the old content or the new, never a half.
"""

import asyncio
import base64
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import Place, ReadPlan, WritePlan
from services.policy_gateway.sandbox.ledger import Ledger
from services.policy_gateway.sandbox.limits import DEFAULTS, Limits
from services.policy_gateway.tools.opening import FOLDER, O_PATH, is_regular, open_beneath, opened, refuse, root_of
from services.policy_gateway.tools.tool import Ticket

BYTES_MAX: Final = 16 << 20
VALUE_BYTES_MAX: Final = 6 * BYTES_MAX + 1024
"""What an answer can be at most: without a smaller bound every file fits."""
ENCODED_TIMES_MAX: Final = 7
"""A control character takes six bytes in an answer; the rest is for what stands around."""
TOO_LARGE_HINT: Final = "an answer carries no more: let a program print the part that is needed, or split the file"
READ_BYTES: Final = 1 << 20
FILE_MODE: Final = 0o644
FOLDER_MODE: Final = 0o755
THREADS_MAX: Final = 16
GIT: Final = ".git"
END_WAIT_S: Final = 0.25
"""How long a call whose time is over waits for the disk, to say whether its write was stopped."""


class Files:
    """Carries out read and write plans in threads of its own: a slow disk holds up nobody else."""

    def __init__(
        self, ledger: Ledger | None = None, limits: Limits = DEFAULTS, value_bytes_max: int = VALUE_BYTES_MAX
    ) -> None:
        self._value_bytes_max = value_bytes_max
        self._ledger, self._limits = ledger or Ledger(), limits
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="files")

    async def run(self, plan: ReadPlan | WritePlan, ticket: Ticket) -> dict[str, Any]:
        """Read or write; see `read` and `write`."""
        started_s = asyncio.get_running_loop().time()
        if started_s >= ticket.deadline_s:
            # A thread may be quicker than the timeout that would stop it.
            raise Rejected("timeout", timeout_ms=round((ticket.deadline_s - started_s) * 1000))
        over = threading.Event()
        job = self._threads.submit(self._carry_out, plan, ticket, over)
        done = asyncio.wrap_future(job)
        try:
            async with asyncio.timeout_at(ticket.deadline_s):
                return await asyncio.shield(done)
        except TimeoutError:
            timeout_ms = round((ticket.deadline_s - started_s) * 1000)
            raise Rejected("timeout", timeout_ms=timeout_ms) from None
        finally:
            over.set()
            if not done.done():
                job.cancel()  # takes it out of the line; one that runs sees `over`
                done.add_done_callback(_nobody_waits)
                await asyncio.wait([done], timeout=END_WAIT_S)

    def close(self) -> None:
        """Take no more calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _carry_out(self, plan: ReadPlan | WritePlan, ticket: Ticket, over: threading.Event) -> dict[str, Any]:
        if isinstance(plan, ReadPlan):
            return read(plan, ticket, over, self._value_bytes_max)
        if plan.path.root == "host":
            return write(plan, ticket, over)
        folders = (ticket.workspace.code, ticket.workspace.tmp)
        self._ledger.check(folders, self._limits, "/code with /tmp", tmp=ticket.workspace.tmp)
        value = write(plan, ticket, over)
        self._ledger.add(folders, len(plan.content))
        return value


def _nobody_waits(done: "asyncio.Future[Any]") -> None:
    if not done.cancelled():
        done.exception()  # looked at, so that it is not reported as lost


def read(
    plan: ReadPlan, ticket: Ticket, over: threading.Event, value_bytes_max: int = VALUE_BYTES_MAX
) -> dict[str, Any]:
    """Return `{content, size}`; bytes that are no UTF-8 come as base64 with `encoding`.

    A file comes whole or not at all: whoever reads a part and writes it back loses the rest.
    Raises Rejected: file_not_found, not_regular_file, forbidden_path, too_large, file_error, workspace_not_found.
    """
    bytes_max = min(plan.bytes_max, BYTES_MAX, value_bytes_max)
    with opened(plan.path, ticket.workspace, os.O_RDONLY) as file:
        status = os.fstat(file)
        if not is_regular(status):
            raise Rejected("not_regular_file", path=plan.path.shown)
        if status.st_size > bytes_max:
            raise _too_large(plan.path, bytes_max, size=status.st_size)
        try:
            content = _read_up_to(file, bytes_max + 1, over)
        except OSError as why:
            refuse(why, plan.path)
    if len(content) > bytes_max:  # it grew, or it is a file of /proc, which never tells its size
        raise _too_large(plan.path, bytes_max)
    try:
        value: dict[str, Any] = {"content": content.decode("utf-8"), "size": len(content)}
    except UnicodeDecodeError:
        text = base64.b64encode(content).decode("ascii")
        value = {"content": text, "encoding": "base64", "size": len(content)}
    # As text of an answer most files are a little longer than they are, and some much.
    if len(content) * ENCODED_TIMES_MAX > value_bytes_max and len(msgspec.json.encode(value)) > value_bytes_max:
        raise _too_large(plan.path, value_bytes_max, size=len(content))
    return value


def write(plan: WritePlan, ticket: Ticket, over: threading.Event) -> dict[str, Any]:
    """Put the content at the path and return `{bytes_written, path}`. Folders that are missing are made.

    Raises Rejected: not_regular_file, forbidden_path, too_large, file_error, workspace_not_found.
    """
    place = plan.path
    if len(plan.content) > BYTES_MAX:
        raise _too_large(place, BYTES_MAX, size=len(plan.content))
    if not place.parts:
        raise Rejected("not_regular_file", path=place.shown)
    if place.root != "host" and GIT in place.parts:
        raise Rejected("forbidden_path", path=place.shown, reason="the history is not written by hand")
    with root_of(place, ticket.workspace) as root:
        try:
            folder = _open_parents(root, place.parts[:-1])
            try:
                _replace(folder, plan, _temporary_name(ticket.call_id), over)
            finally:
                os.close(folder)
        except NotADirectoryError:
            raise Rejected("file_error", path=place.shown, reason="a folder of the path is a file") from None
        except OSError as why:
            refuse(why, place)
    return {"bytes_written": len(plan.content), "path": place.shown}


def _read_up_to(file: int, bytes_max: int, over: threading.Event) -> bytes:
    pieces: list[bytes] = []
    left = bytes_max
    while left and not over.is_set():
        piece = os.read(file, min(left, READ_BYTES))
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _open_parents(root: int, parts: tuple[str, ...]) -> int:
    """The descriptor of the last folder, each one made or opened by the descriptor of the one before."""
    folder = os.dup(root)
    for part in parts:
        try:
            inner = _enter(folder, part)
        finally:
            os.close(folder)
        folder = inner
    return folder


def _enter(folder: int, part: str) -> int:
    try:
        return open_beneath(folder, part, FOLDER)
    except FileNotFoundError:
        try:
            os.mkdir(part, FOLDER_MODE, dir_fd=folder)
        except FileExistsError:  # somebody else made it a moment ago
            return open_beneath(folder, part, FOLDER)
    inner = open_beneath(folder, part, FOLDER)
    try:
        _own_like(inner, os.fstat(folder), FOLDER_MODE)
        os.fsync(folder)
    except OSError:
        os.close(inner)
        raise
    return inner


def _replace(folder: int, plan: WritePlan, temporary: str, over: threading.Event) -> None:
    name = plan.path.parts[-1]
    previous = _what_stands(folder, name, plan.path)
    with suppress(FileNotFoundError):  # of a gateway that died in this very call
        os.unlink(temporary, dir_fd=folder)
    file = _nameless(folder, temporary)
    try:
        _fill(file, plan.content)
        like, mode = (previous, previous.st_mode & 0o777) if previous else (os.fstat(folder), FILE_MODE)
        _own_like(file, like, mode)
        os.fsync(file)
        if over.is_set():  # nobody waits any more, so nothing happens any more
            return
        if os.fstat(file).st_nlink == 0:
            os.link(f"/proc/self/fd/{file}", temporary, dst_dir_fd=folder, follow_symlinks=True)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    finally:
        os.close(file)
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)


def _what_stands(folder: int, name: str, place: Place) -> os.stat_result | None:
    """The status of the file that will be replaced, None where there is none; refuses what is no plain single file."""
    try:
        found = open_beneath(folder, name, O_PATH)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(found)
    finally:
        os.close(found)
    if stat.S_ISLNK(status.st_mode):
        raise Rejected("forbidden_path", path=place.shown, reason="a symbolic link")
    if not is_regular(status):
        raise Rejected("not_regular_file", path=place.shown)
    if status.st_nlink != 1:
        raise Rejected("forbidden_path", path=place.shown, reason="the file has another name elsewhere")
    return status


def _nameless(folder: int, temporary: str) -> int:
    """A new file in the folder: without a name, so that a crash leaves nothing, where the file system can do that."""
    try:
        return os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError:  # which error says "not here" differs from file system to file system
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(temporary, flags, 0o600, dir_fd=folder)


def _fill(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


def _own_like(file: int, like: os.stat_result, mode: int) -> None:
    """Give what a gateway that runs as root made to the owner of its surroundings."""
    if os.geteuid() == 0:
        os.fchown(file, like.st_uid, like.st_gid)
    os.fchmod(file, mode)


def _temporary_name(call_id: str) -> str:
    return f".htdag-{blake2b(call_id.encode(), digest_size=8).hexdigest()}.tmp"


def _too_large(place: Place, bytes_max: int, **more: int) -> Rejected:
    message = f"the file is larger than the {bytes_max} bytes that one call carries"
    return Rejected("too_large", message, path=place.shown, max=bytes_max, hint=TOO_LARGE_HINT, **more)
