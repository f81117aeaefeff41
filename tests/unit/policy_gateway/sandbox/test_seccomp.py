"""The filter, run by a small interpreter of classic BPF: every call on both machines."""

import errno
import struct

import pytest

from services.policy_gateway.sandbox import seccomp
from services.policy_gateway.sandbox.syscalls import MACHINES, NEWEST, NUMBERS, number

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
BOTH = pytest.mark.parametrize("machine", MACHINES)


def judged(machine: str, call: int, *arguments: int, arch: int | None = None, counted: bool = True) -> str:
    """What the kernel would do: "allow", "kill" or the name of an error."""
    words = [value & 0xFFFFFFFFFFFFFFFF for value in (*arguments, *(0,) * (6 - len(arguments)))]
    data = struct.pack("<II7Q", call & 0xFFFFFFFF, arch or MACHINES[machine].audit_arch, 0, *words)
    program = seccomp.program(memory_counted=counted, processors_held=counted, machine=machine)
    code = list(struct.iter_unpack("<HBBI", program))
    at, value = 0, 0
    while True:
        what, yes, no, operand = code[at]
        at += 1
        if what == 0x20:
            value = struct.unpack_from("<I", data, operand)[0]
        elif what == 0x06:
            if operand in {ALLOW, KILL}:
                return "allow" if operand == ALLOW else "kill"
            assert operand & 0xFFFF0000 == ERRNO
            return errno.errorcode[operand & 0xFFFF]
        else:
            held = {0x15: value == operand, 0x25: value > operand, 0x35: value >= operand, 0x45: value & operand}[what]
            at += yes if held else no


def call_of(name: str, machine: str) -> int:
    found = number(name, MACHINES[machine])
    assert found is not None
    return found


@BOTH
def test_what_is_named_is_refused_and_everything_else_runs(machine: str) -> None:
    column = MACHINES[machine].column
    refused = {NUMBERS[name][column]: "EPERM" for name in seccomp.REFUSED}
    refused |= {NUMBERS[name][column]: "ENOSYS" for name in seccomp.ABSENT}
    refused |= {NUMBERS[name][column]: "ENOTSUP" for name in seccomp.UNSUPPORTED}
    wrong = {}
    for call in range(NEWEST + 1):
        expected = refused.get(call, "allow")
        if judged(machine, call) not in {expected, "EAFNOSUPPORT"}:  # socket(0, …) names no family
            wrong[call] = judged(machine, call)
    assert wrong == {}


@BOTH
def test_what_nobody_has_judged_is_absent(machine: str) -> None:
    assert {judged(machine, call) for call in (NEWEST + 1, 500, 4096)} == {"ENOSYS"}


@BOTH
def test_numbers_of_other_machines_kill(machine: str) -> None:
    assert judged(machine, 39, arch=0x40000003) == "kill"
    others = [known.audit_arch for name, known in MACHINES.items() if name != machine]
    assert {judged(machine, 39, arch=arch) for arch in others} == {"kill"}


def test_x32_kills() -> None:
    assert {judged("x86_64", 0x40000000 | call) for call in (0, 39, 512, 547)} == {"kill"}
    assert judged("x86_64", -1) == "kill"


@BOTH
@pytest.mark.parametrize("flag", [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000])
def test_no_clone_makes_a_namespace(machine: str, flag: int) -> None:
    assert judged(machine, call_of("clone", machine), flag | 17) == "EPERM"


@BOTH
def test_processes_and_threads_start(machine: str) -> None:
    fork, thread = 0x01200011, 0x003D0F00
    assert {judged(machine, call_of("clone", machine), flags) for flags in (fork, thread, 17)} == {"allow"}


@BOTH
@pytest.mark.parametrize(
    ("family", "kind", "protocol", "expected"),
    [
        (1, 1, 0, "allow"),
        (2, 1, 0, "allow"),
        (10, 2, 17, "allow"),
        (16, 3, 0, "allow"),
        *((16, 3, protocol, "EAFNOSUPPORT") for protocol in (4, 9, 12, 15, 16, 21)),
        *((family, 3, 0, "EAFNOSUPPORT") for family in (0, 17, 31, 38, 40, 44)),
    ],
)
def test_families_of_sockets(machine: str, family: int, kind: int, protocol: int, expected: str) -> None:
    for name in ("socket", "socketpair"):
        assert judged(machine, call_of(name, machine), family, kind, protocol) == expected


@BOTH
def test_no_input_is_put_into_a_terminal(machine: str) -> None:
    ioctl = call_of("ioctl", machine)
    assert [judged(machine, ioctl, 0, request) for request in (0x5412, 0x541C, 0x5401)] == ["EPERM", "EPERM", "allow"]
    assert judged(machine, ioctl, 0, 0x100005412) == "EPERM"  # the kernel looks at the low half only


@BOTH
def test_no_file_gets_the_set_id_bits(machine: str) -> None:
    for name, mode_at in (("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2), ("mknodat", 2)):
        for mode, expected in ((0o755, "allow"), (0o1777, "allow"), (0o4755, "EPERM"), (0o2755, "EPERM")):
            assert judged(machine, call_of(name, machine), *(0,) * mode_at, mode) == expected
    openat = call_of("openat", machine)
    assert judged(machine, openat, 0, 0, 0o102, 0o4755) == "EPERM"
    assert judged(machine, openat, 0, 0, 0x410002, 0o4755) == "EPERM"
    assert judged(machine, openat, 0, 0, 0o2, 0o4755) == "allow"  # without O_CREAT the mode is whatever lies there


@BOTH
def test_where_nothing_counts_what_cannot_be_counted_is_absent(machine: str) -> None:
    for name in seccomp.UNCOUNTED_MEMORY:
        assert judged(machine, call_of(name, machine), counted=True) == "allow"
        assert judged(machine, call_of(name, machine), counted=False) == "ENOSYS"
    assert judged(machine, call_of("sched_setaffinity", machine), counted=False) == "EPERM"


def test_a_machine_without_a_table_has_no_filter() -> None:
    with pytest.raises(KeyError):
        seccomp.program(memory_counted=True, processors_held=True, machine="riscv64")
