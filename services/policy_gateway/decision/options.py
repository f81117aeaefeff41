"""The options of a call: timeout, cpu, mem, net. None of them can widen what a role has, or name a role."""

import math
import re
from typing import Any, Final, NamedTuple

from services.policy_gateway.decision.roles import TIMEOUT_MS_CEILING, Rights
from services.policy_gateway.decision.shape import bad_args, shown
from services.policy_gateway.decision.verdict import Deny

CPUS_MAX: Final = 64
_KNOWN: Final = frozenset({"timeout", "cpu", "mem", "net", "policy", "role"})
_CLAIMS: Final = ("policy", "role")
_MEM: Final = re.compile(r"([0-9]{1,15})([kmg])", re.ASCII)
_NETS: Final = {False: ("deny",), True: ("deny", "allow")}
_UNITS: Final = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class Limits(NamedTuple):
    """What a call asks to have at most."""

    cpus: float | None = None
    mem_bytes: int | None = None
    net: str | None = None


def claimed_role(opts: dict[str, Any] | None) -> list[Any]:
    """The roles that the options claim. Roles come from subject and task: a claim can only agree."""
    return [opts[key] for key in _CLAIMS if key in opts] if opts else []


def timeout(rights: Rights, opts: dict[str, Any] | None) -> int | Deny:
    """The deadline of the call in milliseconds."""
    if opts is None or "timeout" not in opts:
        return rights.timeout_default_ms
    asked = opts["timeout"]
    if type(asked) is not int or asked < 1:
        return Deny("bad_timeout", "timeout.shape", {"requested": shown(asked)})
    longest = rights.timeout_ms_max
    if longest is not None and asked > longest:
        return Deny("timeout_exceeded", "timeout.max", {"max": longest, "requested": shown(asked)})
    if asked > TIMEOUT_MS_CEILING:
        return Deny("bad_timeout", "timeout.shape", {"requested": shown(asked), "max": TIMEOUT_MS_CEILING})
    return asked


def limits(rights: Rights, opts: dict[str, Any] | None, args: dict[str, Any], mem_bytes_max: int) -> Limits | Deny:
    """cpu, mem and net of the options, and of the arguments where a tool has them there; both must agree."""
    if opts is not None and not opts.keys() <= _KNOWN:
        stranger = shown(min(opts.keys() - _KNOWN))
        return Deny("bad_args", "args.opts", {"field": f"opts.{stranger}", "reason": "no such option"})
    cpus: float | None = None
    mem_bytes: int | None = None
    net: str | None = None
    for source, where in ((args, ""), (opts, "opts.")):
        if not source:
            continue
        if "cpu" in source:
            found = _cpus(source["cpu"], f"{where}cpu")
            if isinstance(found, Deny):
                return found
            if cpus is not None and found != cpus:
                return _conflict("cpu", cpus, found)
            cpus = found
        if "mem" in source:
            size = _mem_bytes(source["mem"], f"{where}mem", mem_bytes_max)
            if isinstance(size, Deny):
                return size
            if mem_bytes is not None and size != mem_bytes:
                return _conflict("mem", mem_bytes, size)
            mem_bytes = size
        if "net" in source:
            asked = source["net"]
            if type(asked) is not str or asked not in _NETS[rights.network != "deny"]:
                return bad_args(f"{where}net", "net repeats what the role has, it never widens", net=shown(asked))
            if net is not None and asked != net:
                return _conflict("net", net, asked)
            net = asked
    return Limits(cpus, mem_bytes, net)


def _conflict(field: str, one: float | str, other: float | str) -> Deny:
    return bad_args(field, "args and opts disagree", args=one, opts=other)


def _cpus(value: Any, field: str) -> float | Deny:
    if type(value) not in {int, float} or not 0 < value <= CPUS_MAX or not math.isfinite(value):
        return bad_args(field, f"a number above 0, at most {CPUS_MAX}", given=shown(value))
    return float(value)


def _mem_bytes(value: Any, field: str, bytes_max: int) -> int | Deny:
    found = _MEM.fullmatch(value) if type(value) is str else None
    size = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < size <= bytes_max:
        return bad_args(field, "a whole number and k, m or g, such as 2g", given=shown(value), bytes_max=bytes_max)
    return size
