"""Ways out of the box that a program may try: through files, processes, sockets and the kernel's own doors."""

import json
import os
import platform
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from services.policy_gateway.sandbox.syscalls import MACHINES, number
from tests.attack.ground import Hands
from tests.support import boxes
from tests.support.nats_server import NatsServer

SECRET = "canary-7f3a"


def tried(hands: Hands, source: str, *words: str, profile: str = "coder") -> str:
    """What a program printed; it must have run to its end."""
    done = hands.python(source, *words, profile=profile)
    assert done.get("exit") == 0, done
    return str(done["stdout"]).strip()


# Each program prints "in" where the attack worked, "out" where it did not.
ATTEMPT = """
import os, sys
def attempt(action):
    try:
        action()
    except OSError as why:
        return "out"
    return "in"
"""


@pytest.fixture
def secret(tmp_path_factory: pytest.TempPathFactory, hands: Hands) -> Path:
    """A file outside of the workspace that the gateway's user can read."""
    path = hands.folder / "secret.txt"
    path.write_text(SECRET)
    path.chmod(0o644)
    return path


def test_a_link_out_of_the_workspace_leads_nowhere(hands: Hands, secret: Path) -> None:
    link = hands.code / "link"
    link.unlink(missing_ok=True)
    os.symlink(secret, link)
    assert tried(hands, ATTEMPT + "print(attempt(lambda: open('/code/link')))") == "out"
    made = "os.path.lexists('/code/own') or os.symlink(sys.argv[1], '/code/own')\n"
    assert tried(hands, ATTEMPT + made + "print(attempt(lambda: open('/code/own')))", str(secret)) == "out"


def test_the_root_of_process_one_is_the_box(hands: Hands, secret: Path) -> None:
    paths = [f"/proc/{who}/root{secret}" for who in ("1", "self", "2")]
    paths += [f"/proc/{hands.pid}/root{secret}", f"/proc/{hands.pid}/environ", f"/proc/1/cwd/..{secret}"]
    for path in paths:
        assert tried(hands, ATTEMPT + "print(attempt(lambda: open(sys.argv[1])))", path) == "out", path


@pytest.mark.parametrize(
    "path",
    [
        *("/code/.git/hooks/post-commit", "/code/.git/config", "/code/.git/index"),
        *("/etc/passwd", "/etc/cron.d/job", "/etc/ld.so.preload", "/var/spool/cron/root", "/usr/bin/git"),
        *("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/modprobe", "/sys/kernel/x"),
        *("/opt/x", "/root/.bashrc", "/home/x", "/dev/shm/../x", "/x"),
    ],
)
def test_no_file_of_the_system_or_the_repository_opens_for_writing(hands: Hands, path: str) -> None:
    (hands.code / ".git" / "hooks").mkdir(parents=True, exist_ok=True)
    assert tried(hands, ATTEMPT + "print(attempt(lambda: open(sys.argv[1], 'ab')))", path) == "out"


def test_the_repository_cannot_be_moved_or_mounted_away(hands: Hands) -> None:
    source = "print(attempt(lambda: os.rename('/code/.git', '/code/g')), attempt(lambda: os.rename('/code', '/c')))"
    assert tried(hands, ATTEMPT + source) == "out out"
    assert (hands.code / ".git").is_dir()


def test_the_tester_cannot_write_the_code(hands: Hands) -> None:
    source = "print(attempt(lambda: open('/code/x', 'w')), attempt(lambda: open('/build/x', 'w')))"
    assert tried(hands, ATTEMPT + source, profile="tester") == "out in"


def test_the_environment_of_the_gateway_stays_outside(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    said = tried(hands, "import os; print(sorted(os.environ), open('/proc/1/environ').read())")
    assert str(hands.folder) not in said
    assert not any(name in said for name in ("PYTEST", "SSH", "TOKEN", "HTDAG"))


def test_the_broker_on_loopback_cannot_be_reached(hands: Hands, start_nats_server: Callable[..., NatsServer]) -> None:
    server = start_nats_server()
    source = "import socket\nprint(attempt(lambda: socket.create_connection(('127.0.0.1', int(sys.argv[1])), 2)))"
    assert tried(hands, ATTEMPT + source, str(server.port)) == "out"
    assert tried(hands, ATTEMPT + source.replace("127.0.0.1", "::1"), str(server.port)) == "out"


def test_there_is_no_way_to_the_network_and_no_name_is_found(hands: Hands) -> None:
    source = """import socket
def datagram(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((address, 53))
print(*[attempt(lambda a=a: datagram(a)) for a in sys.argv[1:]], attempt(lambda: socket.getaddrinfo('example.com', 80)))
print(sorted(name for _, name in socket.if_nameindex()))
"""
    own = socket.gethostbyname("localhost").replace("127.0.0.1", "192.0.2.1")
    said = tried(hands, ATTEMPT + source, own, "10.0.0.1", "172.17.0.1", "192.168.0.1", "169.254.169.254")
    assert said == "out out out out out out\n['lo']"


def test_a_listener_inside_is_heard_inside_only(hands: Hands) -> None:
    """Test suites may use their own loopback; nobody outside hears them."""
    source = """import socket
with socket.create_server(('127.0.0.1', 0)) as server:
    print(attempt(lambda: socket.create_connection(server.getsockname(), 2)))
"""
    assert tried(hands, ATTEMPT + source) == "in"


def test_sockets_of_the_machine_are_out_of_reach(hands: Hands) -> None:
    path, name = str(hands.folder / "docker.sock"), f"\0htdag-attack-{os.getpid()}"
    source = """import socket
def connect(name):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(name)
print(*[attempt(lambda n=n: connect(n)) for n in (sys.argv[1], '\\0' + sys.argv[2], *sys.argv[3:])])
"""
    with socket.socket(socket.AF_UNIX) as by_path, socket.socket(socket.AF_UNIX) as by_name:
        by_path.bind(path)
        Path(path).chmod(0o777)
        by_name.bind(name)
        by_path.listen()
        by_name.listen()
        assert (
            tried(hands, ATTEMPT + source, path, name[1:], "/run/docker.sock", "/var/run/docker.sock")
            == "out out out out"
        )
    Path(path).unlink()


def test_a_socket_of_the_machine_inside_the_workspace_closes_the_workspace(hands: Hands) -> None:
    path = hands.code / "engine.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        refused = hands.python("print(1)")
    path.unlink()
    assert (refused["code"], refused["path"]) == ("sandbox_unavailable", "/code/engine.sock")


CALLS = """
import ctypes, errno, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for name, number, *arguments in json.loads(sys.argv[1]):
    ctypes.set_errno(0)
    result = libc.syscall(number, *arguments)
    print(name, 'in' if result != -1 else errno.errorcode.get(ctypes.get_errno()))
"""


def test_the_doors_of_the_kernel_are_shut(hands: Hands) -> None:
    machine = MACHINES[platform.machine()]
    namespaces = {"user": 0x10000000, "net": 0x40000000, "mount": 0x20000, "pid": 0x20000000}
    calls: list[list[object]] = [
        [f"unshare-{name}", number("unshare", machine), flag] for name, flag in namespaces.items()
    ]
    calls += [[f"clone-{name}", number("clone", machine), flag, 0, 0, 0, 0] for name, flag in namespaces.items()]
    calls += [
        ["ptrace", number("ptrace", machine), 16, 1, 0, 0],
        ["keyctl", number("keyctl", machine), 0, -3, 1],
        ["mount", number("mount", machine), 0, 0, 0, 0, 0],
        ["tiocsti", number("ioctl", machine), 0, 0x5412, 0],
        ["packet", number("socket", machine), 17, 3, 0],
        ["netlink-audit", number("socket", machine), 16, 3, 9],
        ["vsock", number("socket", machine), 40, 1, 0],
    ]
    said = dict(line.split() for line in tried(hands, CALLS, json.dumps(calls)).splitlines())
    refused = {name: why for name, why in said.items() if why not in {"EPERM", "ENOSYS", "EAFNOSUPPORT"}}
    assert (refused, len(said)) == ({}, len(calls))


def test_another_processor_mode_kills(hands: Hands) -> None:
    """Calls by the x32 numbers would pass a filter that looks at the low numbers only."""
    if platform.machine() == "x86_64":
        done = hands.python("import ctypes; ctypes.CDLL(None).syscall(0x40000000 | 39); print('alive')")
        assert (done["exit"], done["stdout"]) == (128 + 31, "")


def test_no_core_dump_and_no_set_user_id_file_is_left(hands: Hands) -> None:
    done = hands.python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert done["exit"] == 128 + 11
    source = (
        "print(*[attempt(a) for a in (lambda: os.chmod('/code/s', 0o4755), lambda: os.open('/code/t', 66, 0o4755))])"
    )
    assert tried(hands, ATTEMPT + "open('/code/s', 'w').close()\n" + source) == "out out"
    left = [path.name for path in hands.code.iterdir() if "core" in path.name or path.lstat().st_mode & 0o6000]
    assert left == []


def test_other_workspaces_and_the_home_of_htdag_cannot_be_seen(hands: Hands) -> None:
    other = hands.folder / "w2"
    other.mkdir(exist_ok=True)
    (other / "plan.txt").write_text(SECRET)
    source = "print(*[attempt(lambda p=p: os.stat(p)) for p in sys.argv[1:]])"
    state = hands.folder / "w1" / "state"
    said = tried(
        hands, ATTEMPT + source, str(other), f"{other}/plan.txt", str(state), "/code/../../w2", "/tmp/../../w2"
    )
    assert said == "out out out out out"


def test_the_terminal_of_the_gateway_cannot_be_opened(hands: Hands) -> None:
    assert tried(hands, ATTEMPT + "print(attempt(lambda: open('/dev/tty')), os.read(0, 1))") == "out b''"


def test_tests_in_a_box_know_that_they_cannot_build_another(hands: Hands) -> None:
    source = Path(boxes.__file__).read_text()
    done = hands.python(f"{source}\nprint(missing())")
    assert "there are no user namespaces here" in done["stdout"]
    assert boxes.missing() is None
