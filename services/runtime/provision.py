"""Making the broker fit `contracts.streams`: create what is missing, show and mend what differs. Idempotent."""

import asyncio
import contextlib
from typing import Any, Literal

import msgspec

from contracts.errors import Rejected
from contracts.permissions import owned
from contracts.streams import CONSUMERS, STREAMS, ConsumerSpec, StreamSpec
from services.runtime.bus import Bus

NOT_FOUND = frozenset({10059, 10014})
READY_TIMEOUT_S = 30.0


class Change(msgspec.Struct, frozen=True):
    """What applying did, or would do, to one stream or consumer."""

    kind: Literal["stream", "consumer"]
    name: str
    action: Literal["create", "update", "same"]
    differs: dict[str, list[Any]] = {}


async def apply(bus: Bus, *, dry: bool = False) -> list[Change]:
    """Create and update every stream and consumer; with `dry`, only say what would be done.

    Raises Rejected jetstream_unavailable when the broker has no JetStream, storage_full when it has no room.
    """
    await await_jetstream(bus)
    changes = [await _stream(bus, spec, dry) for spec in STREAMS]
    missing = {change.name for change in changes if change.action == "create"} if dry else set()
    for consumer in CONSUMERS:
        if consumer.stream in missing:
            changes.append(Change("consumer", f"{consumer.stream}/{consumer.name}", "create"))
        else:
            changes.append(await _consumer(bus, consumer, dry))
    return changes


async def missing(bus: Bus, service: str) -> list[str]:
    """The streams and consumers that a service needs as its own and that nobody has made yet."""
    await await_jetstream(bus)
    wanted = {name: f"STREAM.INFO.{name}" for name in owned(service)}
    wanted |= {
        f"{one.stream}/{one.name}": f"CONSUMER.INFO.{one.stream}.{one.name}"
        for one in CONSUMERS
        if one.owner == service
    }
    return [name for name, verb in wanted.items() if await _existing(bus, verb) is None]


async def await_jetstream(bus: Bus) -> None:
    """A cluster without a leader is silent for some seconds; a server without JetStream says so at once."""
    end = asyncio.get_running_loop().time() + READY_TIMEOUT_S
    while True:
        try:
            await bus.api("INFO", timeout_s=2)
        except Rejected as error:
            if error.code == "jetstream_unavailable" or asyncio.get_running_loop().time() > end:
                raise
        else:
            return


async def _existing(bus: Bus, verb: str) -> dict[str, Any] | None:
    try:
        return dict((await bus.api(verb))["config"])
    except Rejected as error:
        if error.detail.get("err_code") in NOT_FOUND:
            return None
        raise


def _differences(wanted: dict[str, Any], existing: dict[str, Any]) -> dict[str, list[Any]]:
    return {key: [existing.get(key), value] for key, value in wanted.items() if not _same(existing.get(key), value)}


def _same(there: Any, wanted: Any) -> bool:
    """Equal, where the broker leaves out what is false or empty and adds its own keys to objects."""
    if isinstance(wanted, dict) and isinstance(there, dict):
        return all(_same(there.get(key), value) for key, value in wanted.items())
    return bool(there == wanted) or (not there and not wanted)


async def _stream(bus: Bus, spec: StreamSpec, dry: bool) -> Change:
    wanted = {"name": spec.name, **spec.config}
    existing = await _existing(bus, f"STREAM.INFO.{spec.name}")
    if existing is None:
        if not dry:
            await bus.api(f"STREAM.CREATE.{spec.name}", wanted)
        return Change("stream", spec.name, "create")
    differs = _differences(wanted, existing)
    if not differs:
        return Change("stream", spec.name, "same")
    if not dry and "storage" in differs and existing["storage"] == "memory":
        # A stream cannot move to the disk; what is kept in memory may be lost at any time, so it may be now.
        with contextlib.suppress(Rejected):  # another service was faster
            await bus.api(f"STREAM.DELETE.{spec.name}")
        await bus.api(f"STREAM.CREATE.{spec.name}", wanted)
    elif not dry:
        # What the operator set and we do not care about (replicas, placement, size limits) stays.
        try:
            await bus.api(f"STREAM.UPDATE.{spec.name}", {**existing, **wanted})
        except Rejected as error:
            if error.code != "internal":
                raise
            raise Rejected(
                "stream_differs", f"{spec.name}: {error.message}", stream=spec.name, differs=sorted(differs)
            ) from error
    return Change("stream", spec.name, "update", differs)


async def _consumer(bus: Bus, spec: ConsumerSpec, dry: bool) -> Change:
    name = f"{spec.stream}/{spec.name}"
    wanted = {"name": spec.name, "durable_name": spec.name, **spec.config}
    existing = await _existing(bus, f"CONSUMER.INFO.{spec.stream}.{spec.name}")
    differs = {} if existing is None else _differences(wanted, existing)
    if existing is not None and not differs:
        return Change("consumer", name, "same")
    action: Literal["create", "update"] = "create" if existing is None else "update"
    if not dry:
        tail = f".{spec.config['filter_subject']}" if "filter_subject" in spec.config else ""
        await bus.api(
            f"CONSUMER.CREATE.{spec.stream}.{spec.name}{tail}",
            {"stream_name": spec.stream, "config": {**(existing or {}), **wanted}, "action": action},
        )
    return Change("consumer", name, action, differs)
