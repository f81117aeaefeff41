"""Whether boxes can be built here at all: inside of one, as in a tester's, a program gets no namespaces of its own."""

import ctypes
import errno
import functools
import os
from typing import Final

CLONE_NEWUSER: Final = 0x10000000
NO_NAMESPACES: Final = (errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.ENOSPC)


@functools.cache
def missing() -> str | None:
    """Why no box can be built here, or None. On CI there is no excuse.

    Only the kernel's own answer counts: where there are namespaces and a box fails all the same, that is for the tests
    to find.
    """
    if os.environ.get("CI"):
        return None
    refused = _refused()
    if refused in NO_NAMESPACES:
        return f"there are no user namespaces here ({os.strerror(refused)}), as in a tester's box"
    return None


def _refused() -> int:
    """What a process of its own is told that asks for a user namespace; 0 when it gets one."""
    libc = ctypes.CDLL(None, use_errno=True)
    child = os.fork()
    if child == 0:
        try:
            answer = ctypes.get_errno() if libc.unshare(CLONE_NEWUSER) else 0
        except BaseException:
            answer = 0
        os._exit(answer)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if not os.WIFSIGNALED(status) else errno.EPERM
