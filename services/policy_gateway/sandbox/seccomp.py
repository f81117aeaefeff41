"""The seccomp filter of every box, as the BPF program that bubblewrap loads before the program starts.

A list of what is refused rather than of what is allowed: build tools of many languages run here, and a call that was
forgotten must not break them at random. What is closed is what nobody compiles or tests with: namespaces, mounts, keys,
tracing, the large interfaces whose mistakes become escapes. Calls newer than this list answer ENOSYS, as on an older
kernel; other machines' calls (32 bit, x32) kill, since numbers mean something else there.

AF_UNIX stays open: BEAM, Node, pytest and every process pool talk to their children through it. It cannot reach the
host: abstract names belong to the box's own network namespace, and a path must be visible in the box, which holds no
folder where services put sockets (`box` masks those that stand in /code).
"""

import errno
import functools
import platform
import struct
from collections.abc import Iterable
from typing import Final

from services.policy_gateway.sandbox.syscalls import MACHINES, NEWEST, Machine, number

# Loads, jumps and returns of classic BPF; offsets into struct seccomp_data.
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ABOVE, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x25, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32_BIT: Final = 0x40000000

Instruction = tuple[int, int, int, int]

REFUSED: Final = (
    *("ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "process_madvise"),
    *("add_key", "request_key", "keyctl", "bpf", "userfaultfd", "perf_event_open", "fanotify_init"),
    *("lookup_dcookie", "nfsservctl", "modify_ldt", "uselib", "_sysctl"),
    *("mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount"),
    *("fspick", "mount_setattr", "open_tree_attr", "unshare", "setns", "name_to_handle_at", "open_by_handle_at"),
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot", "swapon", "swapoff"),
    *("syslog", "acct", "quotactl", "quotactl_fd", "iopl", "ioperm", "settimeofday", "clock_settime", "adjtimex"),
    *("clock_adjtime", "sethostname", "setdomainname", "vhangup", "migrate_pages", "move_pages"),
)
"""These answer EPERM."""
ABSENT: Final = ("io_uring_setup", "io_uring_enter", "io_uring_register", "clone3", "openat2")
"""These answer ENOSYS, for which libraries have an older way; clone3 and openat2 hide what they want in memory."""
UNSUPPORTED: Final = ("fallocate",)
"""These answer EOPNOTSUPP, as some file systems do: a whole disk is reserved more quickly than anybody can watch."""
UNCOUNTED_MEMORY: Final = ("memfd_create", "memfd_secret", "shmget")
"""Memory that belongs to no process: closed where only the watchdog counts."""

_NEW_NAMESPACE: Final = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_SET_ID_BITS: Final = 0o6000
_CREATES: Final = 0x40 | 0x400000  # O_CREAT, __O_TMPFILE
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK, _NETLINK_ROUTE = 1, 2, 10, 16, 0
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_RESERVE: Final = (0x40305828, 0x4030582A, 0x40305839)  # FS_IOC_RESVSP, FS_IOC_RESVSP64, FS_IOC_ZERO_RANGE
_IOCTLS: Final = (_TIOCSTI, _TIOCLINUX, *_RESERVE)


@functools.cache
def program(*, memory_counted: bool, processors_held: bool, machine: str = platform.machine()) -> bytes:
    """The filter for this machine, ready for `bwrap --seccomp`. Raises KeyError on a machine without a table."""
    known = MACHINES[machine]
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_JUMP_EQUAL, 1, 0, known.audit_arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        code += [(_JUMP_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL)]
    code += [(_JUMP_ABOVE, 0, 1, NEWEST), _refusal(errno.ENOSYS)]
    code += _each(ABSENT, errno.ENOSYS, known)
    code += _each(UNSUPPORTED, errno.EOPNOTSUPP, known)
    code += _each(REFUSED, errno.EPERM, known)
    if not memory_counted:
        code += _each(UNCOUNTED_MEMORY, errno.ENOSYS, known)
    if not processors_held:
        code += _each(("sched_setaffinity",), errno.EPERM, known)
    code += _by_arguments(known)
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _refusal(number_of_error: int) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | number_of_error)


def _argument(position: int) -> Instruction:
    """Load the low half of an argument: all that are judged here are 32 bits wide in the kernel."""
    return (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * position)


def _each(names: Iterable[str], number_of_error: int, machine: Machine) -> list[Instruction]:
    code: list[Instruction] = []
    for name in names:
        code += _on(name, machine, [_refusal(number_of_error)])
    return code


def _on(name: str, machine: Machine, body: list[Instruction]) -> list[Instruction]:
    """The body for one call; it ends in a return. Nothing where the machine does not have the call."""
    found = number(name, machine)
    return [] if found is None else [(_JUMP_EQUAL, 0, len(body), found), *body]


def _by_arguments(machine: Machine) -> list[Instruction]:
    allow: Instruction = (_RETURN, 0, 0, _ALLOW)
    no = _refusal(errno.EPERM)
    namespaces = [_argument(0), (_JUMP_BITS, 0, 1, _NEW_NAMESPACE), no, allow]
    last = len(_IOCTLS) - 1
    bad: list[Instruction] = [(_JUMP_EQUAL, last - at, int(at == last), what) for at, what in enumerate(_IOCTLS)]
    ioctls = [_argument(1), *bad, no, allow]
    families: list[Instruction] = [
        _argument(0),
        (_JUMP_EQUAL, 5, 0, _AF_UNIX),
        (_JUMP_EQUAL, 4, 0, _AF_INET),
        (_JUMP_EQUAL, 3, 0, _AF_INET6),
        (_JUMP_EQUAL, 0, 3, _AF_NETLINK),
        # Interfaces and addresses may be listed, as Node and BEAM do; there are no rights to change any.
        _argument(2),
        (_JUMP_EQUAL, 0, 1, _NETLINK_ROUTE),
        allow,
        _refusal(errno.EAFNOSUPPORT),
    ]
    code = _on("clone", machine, namespaces) + _on("ioctl", machine, ioctls)
    for name in ("socket", "socketpair"):
        code += _on(name, machine, families)
    # A gateway that runs as root makes files of root: none of them may become a set-user-ID program of the host.
    for name, mode_at in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2), ("creat", 1)):
        code += _on(name, machine, [_argument(mode_at), (_JUMP_BITS, 0, 1, _SET_ID_BITS), no, allow])
    for name, mode_at in (("mknod", 1), ("mknodat", 2)):
        code += _on(name, machine, [_argument(mode_at), (_JUMP_BITS, 0, 1, _SET_ID_BITS), no, allow])
    for name, flags_at in (("open", 1), ("openat", 2)):
        opening = [_argument(flags_at), (_JUMP_BITS, 0, 3, _CREATES), _argument(flags_at + 1)]
        code += _on(name, machine, [*opening, (_JUMP_BITS, 0, 1, _SET_ID_BITS), no, allow])
    return code
