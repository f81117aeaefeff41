"""Opening files below a root so that nothing outside of it can be reached, whatever others do meanwhile.

Linux resolves the path itself (openat2): no `..` above the root, no symbolic link, no magic link of /proc. There is no
fallback: where the kernel lacks openat2, nothing is opened.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import Place
from services.policy_gateway.tools.tool import Workspace

SYS_OPENAT2: Final = 437
RESOLVE: Final = 0x02 | 0x04 | 0x08  # NO_MAGICLINKS | NO_SYMLINKS | BENEATH
SAFE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY
O_PATH: Final = os.O_PATH
TRIES_MAX: Final = 8
"""The kernel says EAGAIN when a rename elsewhere meets a resolution; asked again it decides."""

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_ESCAPES: Final = {errno.ELOOP: "a symbolic link", errno.EXDEV: "the path leaves its root"}
_MISSING: Final = (errno.ENOENT, errno.ENOTDIR)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(folder: int, path: str, flags: int) -> int:
    """Open a path below a folder's descriptor; raises OSError, with ELOOP or EXDEV for a way out."""
    if flags & os.O_DIRECTORY:  # RESOLVE_NO_SYMLINKS alone tells a link (ELOOP) from a file (ENOTDIR)
        flags |= os.O_CLOEXEC
    elif flags & O_PATH:  # goes with no flag that means nothing for it
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC
    else:
        flags |= SAFE
    how = _OpenHow(flags, 0, RESOLVE)
    name = os.fsencode(path)
    for _ in range(TRIES_MAX):
        descriptor = _syscall(SYS_OPENAT2, folder, name, ctypes.byref(how), ctypes.sizeof(how))
        if descriptor >= 0:
            return int(descriptor)
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(code, os.strerror(code))


@contextmanager
def root_of(place: Place, workspace: Workspace) -> Iterator[int]:
    """The descriptor of the folder in which a place begins; raises Rejected(workspace_not_found)."""
    roots = {"code": workspace.code, "tmp": workspace.tmp, "host": Path("/")}
    try:
        root = os.open(roots[place.root], FOLDER | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise Rejected("workspace_not_found", workspace=workspace.name) from None
    try:
        yield root
    finally:
        os.close(root)


@contextmanager
def opened(place: Place, workspace: Workspace, flags: int) -> Iterator[int]:
    """The descriptor of what stands at a place, for the length of a `with`; raises Rejected."""
    with root_of(place, workspace) as root:
        try:
            descriptor = open_beneath(root, "/".join(place.parts) or ".", flags)
        except OSError as why:
            refuse(why, place)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def refuse(why: OSError, place: Place) -> NoReturn:
    """Raise the refusal that belongs to a failed system call. The message shows the virtual path only."""
    code = why.errno or errno.EIO
    path = place.shown
    if code in _ESCAPES:
        raise Rejected("forbidden_path", path=path, reason=_ESCAPES[code]) from None
    if code in _MISSING:
        raise Rejected("file_not_found", path=path) from None
    if code in (errno.ENXIO, errno.EISDIR, errno.ENODEV):
        raise Rejected("not_regular_file", path=path) from None
    if code == errno.ENOSYS:
        raise Rejected("sandbox_unavailable", "this kernel has no openat2, so no file is touched") from None
    raise Rejected("file_error", path=path, reason=os.strerror(code)) from None


def is_regular(status: os.stat_result) -> bool:
    """Whether it is a plain file: no folder, device, pipe or socket."""
    return stat.S_ISREG(status.st_mode)
