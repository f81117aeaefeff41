"""The program of the self-test: runs inside a box, tries what must fail there, and says what did not.

It is handed over as text (`python -c`) and so uses the standard library alone. Argument: a JSON object with `numbers`
(system calls), `loopback` (a port outside), `abstract` (a socket name outside), `hidden` (paths outside) and
`environment` (the names that were given). Output: {property: [what was possible that must not be]}.
"""

import ctypes
import errno
import json
import os
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

Given = dict[str, Any]
OPENED_FOR_WRITING = (
    *("/etc/passwd", "/usr/probe", "/probe", "/dev/probe", "/etc/cron.d/probe"),
    *("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger", "/proc/1/mem"),
)
MUST_NOT_BE_THERE = ("/run", "/var", "/home", "/sys", "/root/.ssh", "/etc/shadow", "/var/run/docker.sock", "/boot")
AT_NO_ADDRESS = ("192.0.2.1", "10.0.0.1", "169.254.169.254")
CLONE_NEWUSER = 0x10000000
TIOCSTI = 0x5412
BAD_FAMILIES = (("AF_PACKET", 17, 3), ("AF_VSOCK", 40, 1), ("AF_ALG", 38, 5), ("AF_BLUETOOTH", 31, 1))


def files(given: Given) -> Iterator[str]:
    """Nothing outside of /code and /tmp can be written."""
    for path in OPENED_FOR_WRITING:
        try:
            os.close(os.open(path, os.O_WRONLY | (0 if path.startswith("/proc") else os.O_CREAT)))
        except OSError:
            continue
        yield f"{path} opens for writing"
    try:
        os.close(os.open("/code/probe", os.O_WRONLY | os.O_CREAT))
    except OSError as why:
        yield f"/code cannot be written: {why.strerror}"


def repository(given: Given) -> Iterator[str]:
    """The coder's shell cannot touch the repository."""
    for path in ("/code/.git/config", "/code/.git/hooks/post-commit", "/code/.git/probe"):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        except OSError:
            continue
        yield f"{path} opens for writing"
    try:
        os.rename("/code/.git", "/code/moved")
    except OSError:
        return
    yield "/code/.git can be taken away"


def network(given: Given) -> Iterator[str]:
    """No way out: neither the machine's loopback nor any route, nor sockets that need none."""
    with socket.socket() as client:
        client.settimeout(1)
        if client.connect_ex(("127.0.0.1", given["loopback"])) == 0:
            yield "the loopback of the machine answers"
    for address in AT_NO_ADDRESS:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            if client.connect_ex((address, 53)) == 0:
                yield f"there is a route to {address}"
    with socket.socket(socket.AF_UNIX) as client:
        if client.connect_ex("\0" + given["abstract"]) == 0:
            yield "an abstract socket of the machine answers"
    for name, family, kind in BAD_FAMILIES:
        try:
            socket.socket(family, kind).close()
        except OSError:
            continue
        yield f"{name} sockets can be made"


def sight(given: Given) -> Iterator[str]:
    """No process, folder, variable or descriptor of the machine can be seen."""
    try:
        processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        processes = []  # no /proc at all
    if len(processes) > 4:
        yield f"{len(processes)} processes can be seen"
    for path in [*MUST_NOT_BE_THERE, *given["hidden"], *(f"/proc/1/root{path}" for path in given["hidden"])]:
        if os.path.lexists(path):
            yield f"{path} can be seen"
    for name in set(os.environ) - set(given["environment"]) - {"PWD", "LC_CTYPE"}:
        yield f"the variable {name} came along"
    for descriptor in range(3, 256):
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        yield f"descriptor {descriptor} came along"


def calls(given: Given) -> Iterator[str]:
    """The filter refuses what escapes are made of."""
    libc = ctypes.CDLL(None, use_errno=True)
    tries: dict[str, tuple[int, ...]] = {
        "ptrace": (0, 0, 0, 0),
        "mount": (0, 0, 0, 0, 0),
        "umount2": (0, 0),
        "unshare": (CLONE_NEWUSER,),
        "setns": (0, 0),
        "keyctl": (0, 0, 0),
        "add_key": (0, 0, 0, 0, 0),
        "bpf": (0, 0, 0),
        "userfaultfd": (0,),
        "perf_event_open": (0, 0, 0, 0, 0),
        "io_uring_setup": (1, 0),
        "open_by_handle_at": (0, 0, 0),
        "process_vm_readv": (1, 0, 0, 0, 0, 0),
        "kexec_load": (0, 0, 0, 0),
        "clone": (CLONE_NEWUSER, 0, 0, 0, 0),
        "clone3": (0, 0),
        "ioctl": (0, TIOCSTI, 0),
        "chroot": (0,),
    }
    for name, arguments in tries.items():
        ctypes.set_errno(0)
        result = libc.syscall(given["numbers"][name], *arguments)
        if name == "clone" and result == 0:
            os._exit(0)
        if result != -1 or ctypes.get_errno() not in {errno.EPERM, errno.ENOSYS}:
            yield f"{name} is not refused by the filter ({errno.errorcode.get(ctypes.get_errno(), 'it worked')})"


def privileges(given: Given) -> Iterator[str]:
    """No capability, no way to one, no set-user-ID file, no core dump."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(39, 0, 0, 0, 0) != 1:  # PR_GET_NO_NEW_PRIVS
        yield "new privileges can be gained"
    if any(libc.prctl(23, capability, 0, 0, 0) == 1 for capability in range(41)):  # PR_CAPBSET_READ
        yield "capabilities are left"
    if os.geteuid() == 0:
        yield "it runs as root"
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0:
        yield "core dumps can be written"
    with open("/tmp/set-id", "wb"):
        pass
    try:
        os.chmod("/tmp/set-id", 0o4755)
    except OSError:
        return
    yield "set-user-ID files can be made"


PROPERTIES: dict[str, Callable[[Given], Iterator[str]]] = {
    "files": files,
    "repository": repository,
    "network": network,
    "sight": sight,
    "calls": calls,
    "privileges": privileges,
}


def main() -> None:
    """Try everything and print what was found."""
    given = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps({name: list(tried(given)) for name, tried in PROPERTIES.items()}))


if __name__ == "__main__":
    main()
