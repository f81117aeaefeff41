"""`htdag bus`: the broker's streams, consumers and messages, for people who have no other NATS tool."""

import asyncio
import json
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import App, Parameter

from contracts.commit import HEADER_REASON
from contracts.errors import CONFLICT, OK, Rejected
from contracts.streams import CONSUMERS, DEAD_LETTERS, STREAMS
from services.console import stream_keeper
from services.console.absence import while_there
from services.console.connection import Console, connected
from services.console.options import DEFAULTS, Common
from services.console.output import Output, columns, size
from services.console.paged_lists import paged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from services.runtime.bus import Message
    from services.runtime.event_store import Recorded

app = App(
    name="bus",
    help="Streams, consumers, messages and dead letters.\n\nFor example:\n    htdag bus ls",
    help_format="plaintext",
)
dlq = App(
    name="dlq",
    help="Dead letters: messages that were put aside, with the reason.\n\nFor example:\n    htdag bus dlq ls",
    help_format="plaintext",
)
app.command(dlq)


@app.command
async def ls(*, subjects: Annotated[bool, Parameter(negative="")] = False, common: Common = DEFAULTS) -> None:
    """List streams and their consumers, with messages, bytes and what waits; or what is said where.

    For example:
        htdag bus ls
        htdag bus ls --subjects

    Parameters
    ----------
    subjects
        List every subject with its version, who owns it and the stream that keeps it. Needs no broker.
    """
    if subjects:
        from services.console.subject_list import SUBJECTS

        rows = [(s.subject, s.version, s.owner, s.stream, s.meaning) for s in SUBJECTS]
        table = columns(("SUBJECT", "VERSION", "OWNER", "STREAM", "MEANING"), rows)
        common.output.value([s._asdict() for s in SUBJECTS], table)
        return
    async with connected(common) as console:
        streams = [await _stream(console, info) for info in await paged(console, "STREAM.LIST", "streams")]
    stream_rows = [
        (s["name"], s["messages"], size(s["bytes"]), s["last_seq"], s["owner"], s["meaning"]) for s in streams
    ]
    consumer_rows = [
        (f"{s['name']}/{c['name']}", c["pending"], c["ack_pending"], c["redelivered"], c["waiting_pulls"])
        for s in streams
        for c in s["consumers"]
    ]
    common.output.value(
        streams,
        lambda _: (
            columns(("STREAM", "MESSAGES", "BYTES", "LAST", "OWNER", "MEANING"), stream_rows)
            + "\n\n"
            + columns(("CONSUMER", "PENDING", "UNACKED", "REDELIVERED", "PULLS"), consumer_rows)
        ),
    )


@app.command
async def apply(*, diff: Annotated[bool, Parameter(negative="")] = False, common: Common = DEFAULTS) -> int:
    """Create missing streams and consumers and mend what differs, with the key of
    the home or of the folder that NATS_NKEY names: the operator's password may
    not. On a broker without users, services do the same when they start.

    For example:
        htdag bus apply --diff

    Parameters
    ----------
    diff
        Only show what would change; exit code 5 when something would.
    """
    changes = await stream_keeper.keep(common, dry=diff)
    changed = [change for change in changes if change.action != "same"]
    lines = [
        f"{change.action} {change.kind} {change.name}"
        + "".join(f"\n  {_difference(k, v)}" for k, v in change.differs.items())
        for change in changed
    ]
    same = f"{len(changes) - len(changed)} of {len(changes)} streams and consumers are as they should be"
    common.output.value(changes, "\n".join([*lines, same]))
    return CONFLICT if diff and changed else OK


@app.command
def keys(*, out: Path, common: Common = DEFAULTS) -> None:
    """Make the keys of all users of a broker that is not htdag's own, each in a file
    for its owner only; what is there stays.

    nats.env is for the broker: public keys, and the operator's password. Services
    find their seed when NATS_NKEY names the folder or the file.

    For example:
        htdag bus keys --out /etc/htdag/keys

    Parameters
    ----------
    out
        The folder for the keys.
    """
    from services.console import key_files

    files = key_files.write(out.expanduser().absolute())
    common.output.value([str(path) for path in files], "\n".join(map(str, files)))


@app.command
async def tail(
    subject: str,
    /,
    *,
    all: Annotated[bool, Parameter(negative="")] = False,
    count: int | None = None,
    common: Common = DEFAULTS,
) -> None:
    """Print messages as they come, until Ctrl-C: from the stream that holds the
    subject, else as they fly by.

    For example:
        htdag bus tail 'htdag.v1.evt.executor.>'
        htdag bus tail 'llm.health' --count 2

    Parameters
    ----------
    subject
        A subject; * stands for one token, > for the rest.
    all
        Begin with what is stored already.
    count
        End after so many messages.
    """
    _check_subject(subject)
    if count is not None and count < 1:
        raise Rejected("bad_request", "count must be at least 1", field="count", min=1, requested=count)
    done = asyncio.Event()
    printed = 0

    def show(record: "Recorded | Message") -> None:
        nonlocal printed
        if done.is_set():
            return
        _print(common.output, record.subject, record.data, getattr(record, "seq", None), record.headers)
        printed += 1
        if count is not None and printed >= count:
            done.set()

    async with connected(common) as console:
        stream = await _stream_of(console, subject)
        if stream is not None:
            await console.bus.follow(stream, subject, show, after=0 if all else None)
        else:
            await console.bus.subscribe(subject, show)
        await console.check_heard(subject)
        common.output.note(f"listening to {subject}" + (f" in {stream}" if stream else "") + "; Ctrl-C ends it")
        await while_there(console.bus, done, "`htdag bus tail` again when it is back")


@app.command
async def history(
    subject: str,
    /,
    *,
    limit: int = 1000,
    last: Annotated[bool, Parameter(negative="")] = False,
    common: Common = DEFAULTS,
) -> None:
    """Print what a stream holds for a subject, the oldest first; commits are shown
    event by event.

    For example:
        htdag bus history htdag.v1.evt.executor.run.auth-build-1
        htdag bus history 'htdag.v1.dlq.*' --last --limit 5

    Parameters
    ----------
    subject
        A subject; * stands for one token, > for the rest.
    limit
        How many messages at most: the oldest ones.
    last
        The newest ones instead, in the same order.
    """
    _check_subject(subject)
    if limit < 1:
        raise Rejected("bad_request", "limit must be at least 1", field="limit", min=1, requested=limit)
    async with connected(common) as console:
        stream = await _stream_of(console, subject)
        if stream is None:
            raise Rejected("not_found", f"no single stream holds {subject}", hint="`htdag bus ls`")
        records = console.bus.history(stream, subject)
        shown = await (_print_newest if last else _print_oldest)(common.output, records, limit)
    if not shown:
        raise Rejected("not_found", f"{stream} holds nothing for {subject}", hint="`htdag bus ls`")


def _print_record(output: Output, record: "Recorded") -> None:
    if record.forged and not output.json:
        output.line(f"{record.seq}  {record.subject}  forged: see `htdag doctor`")
    else:
        _print(output, record.subject, record.data, record.seq, record.headers)


async def _print_oldest(output: Output, records: "AsyncIterator[Recorded]", limit: int) -> int:
    shown = 0
    async for record in records:
        _print_record(output, record)
        shown += 1
        if shown >= limit:
            output.note(f"stopped after the oldest {limit}; --limit shows more, --last the newest")
            break
    return shown


async def _print_newest(output: Output, records: "AsyncIterator[Recorded]", limit: int) -> int:
    newest: deque[Recorded] = deque(maxlen=limit)
    count = 0
    async for record in records:
        newest.append(record)
        count += 1
    if count > limit:
        output.note(f"the newest {limit} of {count}; --limit shows more")
    for record in newest:
        _print_record(output, record)
    return len(newest)


@dlq.command(name="ls")
async def dlq_ls(*, common: Common = DEFAULTS) -> None:
    """List dead letters: which message, from which stream, and why.

    For example:
        htdag bus dlq ls
    """
    async with connected(common) as console:
        letters = [_letter(record) async for record in console.bus.history(DEAD_LETTERS, ">")]
    rows = [(x["seq"], x["subject"], x["original_seq"], x["reason"], x["detail"]) for x in letters]
    common.output.value(
        letters, columns(("SEQ", "SUBJECT", "WAS", "REASON", "DETAIL"), rows) if rows else "no dead letters"
    )


@dlq.command(name="show")
async def dlq_show(seq: int, /, *, common: Common = DEFAULTS) -> None:
    """Print one dead letter with its payload.

    For example:
        htdag bus dlq show 3

    Parameters
    ----------
    seq
        Its number in the first column of `htdag bus dlq ls`.
    """
    async with connected(common) as console:
        async for record in console.bus.history(DEAD_LETTERS, ">", after=seq - 1):
            if record.seq == seq:
                common.output.value({**_letter(record), "data": _readable(record.data)})
                return
    raise Rejected("not_found", f"there is no dead letter {seq}", hint="`htdag bus dlq ls`")


async def _stream(console: Console, info: dict[str, Any]) -> dict[str, Any]:
    name, state = info["config"]["name"], info["state"]
    spec = next((spec for spec in STREAMS if spec.name == name), None)
    durable = {spec.name for spec in CONSUMERS if spec.stream == name}
    consumers = [
        {
            "name": consumer["name"],
            "pending": consumer["num_pending"],
            "ack_pending": consumer["num_ack_pending"],
            "redelivered": consumer["num_redelivered"],
            "waiting_pulls": consumer["num_waiting"],
        }
        for consumer in await paged(console, f"CONSUMER.LIST.{name}", "consumers")
        if consumer["name"] in durable or spec is None or consumer["config"].get("durable_name")
    ]
    return {
        "name": name,
        "messages": state["messages"],
        "bytes": state["bytes"],
        "last_seq": state["last_seq"],
        "owner": spec.owner if spec else "",
        "meaning": spec.meaning if spec else "not of htdag",
        "consumers": sorted(consumers, key=lambda consumer: str(consumer["name"])),
    }


def _check_subject(subject: str) -> None:
    tokens = subject.split(".")
    printable = all(not char.isspace() and char.isprintable() for char in subject)
    if not all(tokens) or not printable or ">" in tokens[:-1]:
        hint = "tokens between dots, none empty, no spaces; > only at the end"
        raise Rejected("bad_request", f"{subject!r} is no subject", hint=hint, field="subject")


async def _stream_of(console: Console, subject: str) -> str | None:
    """The one stream that stores what matches `subject`; None when none or several do."""
    answer = await console.bus.api("STREAM.NAMES", {"subject": subject})
    names = answer.get("streams") or []
    return str(names[0]) if len(names) == 1 else None


def _print(output: Output, subject: str, data: bytes, seq: int | None, headers: Any) -> None:
    body = _readable(data)
    if output.json:
        output.value({"subject": subject, "seq": seq, "headers": dict(headers), "data": body})
        return
    head = f"{seq or '-'}  {subject}"
    if _is_commit(body):
        output.line(f"{head}  {body.get('at', '')}  by {body.get('by') or '-'}  cause {body.get('cause') or '-'}")
        for event in body["events"]:
            rest = {key: value for key, value in event.items() if key != "type"}
            output.line(f"    {event.get('type', '?')}  {json.dumps(rest, ensure_ascii=False)}")
        return
    output.line(f"{head}  {body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)}")


def _is_commit(body: Any) -> bool:
    events = body.get("events") if isinstance(body, dict) else None
    return isinstance(events, list) and all(isinstance(event, dict) for event in events)


def _readable(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        return data.decode("utf-8", "replace")


def _letter(record: "Recorded") -> dict[str, Any]:
    return {
        "seq": record.seq,
        "stream": record.subject.rpartition(".")[2],
        "subject": record.headers.get("Htdag-Subject", record.subject),
        "original_seq": record.headers.get("Htdag-Seq", ""),
        "reason": record.headers.get(HEADER_REASON, ""),
        "detail": record.headers.get("Htdag-Detail", ""),
    }


def _difference(key: str, values: list[Any]) -> str:
    there, wanted = (json.dumps(value) for value in values)
    return f"{key}: {there} -> {wanted}"
