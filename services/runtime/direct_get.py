"""Reading a stream without a consumer: batched direct get. One request answers with many messages."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import msgspec
from nats.aio.msg import Msg

from services.runtime.event_store import Recorded
from services.runtime.genuine import genuine, void
from services.runtime.link import Link, status_of
from services.runtime.stream_info import unreadable

BATCH: Final = 1000
BATCH_BYTES: Final = 16 << 20
"""What one answer may hold in memory at once; the broker ends the batch early."""
SUBJECTS_PER_REQUEST_MAX: Final = 500
TIMEOUT_S: Final = 5.0
TRIES_MAX: Final = 4
LOOK_BACK: Final = 64
"""How far before a forged message the newest genuine one is looked for first, in sequences of the stream."""
LOOK_BACK_GROWS: Final = 8
STORED_AT: Final = "Nats-Time-Stamp"
"""When the broker stored a message, by its own clock: a header of everything that is read so."""
_ENCODE: Final = msgspec.json.Encoder().encode


class _Replies:
    """Collects the messages that answer one direct get until its end marker."""

    def __init__(self) -> None:
        self.messages: list[Msg] = []
        self.end: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

    def take(self, message: Msg) -> None:
        """Keep a message; the first status message ends the batch."""
        if status_of(message) is not None:
            if not self.end.done():
                self.end.set_result(message)
        else:
            self.messages.append(message)


async def _ask(link: Link, stream: str, body: dict[str, Any]) -> tuple[list[Msg], Msg]:
    """One direct get: its messages and the message that ended it."""
    last_error: BaseException | None = None
    for _ in range(TRIES_MAX):
        replies = _Replies()
        inbox = link.expect(replies.take)
        try:
            link.send(f"$JS.API.DIRECT.GET.{stream}", _ENCODE(body), reply=inbox)
            async with asyncio.timeout(TIMEOUT_S):
                end = await replies.end
        except TimeoutError as error:
            last_error = error
            continue
        finally:
            link.forget(inbox)
        if status_of(end) != "503":
            return replies.messages, end
        await asyncio.sleep(0.1)
    raise await unreadable(link, stream) from last_error


def recorded(link: Link, stream: str, message: Msg) -> Recorded:
    """A direct get answer as a Recorded; one that nobody could have put there rightly is void."""
    headers = message.headers or {}
    seq, subject = int(headers["Nats-Sequence"]), headers["Nats-Subject"]
    if not genuine(stream, headers):
        link.forgeries.seen(stream, subject, seq)
        return void(seq, subject)
    return Recorded(seq, subject, message.data, headers)


async def history(
    link: Link, stream: str, pattern: str, after: int = 0, *, batch: int = BATCH
) -> AsyncIterator[Recorded]:
    """Messages whose subject matches `pattern`, behind sequence `after`, in order, until the end of the stream.

    Forged ones are among them, void: whoever folds takes their sequences over.
    """
    while True:
        messages, end = await _ask(
            link, stream, {"seq": after + 1, "next_by_subj": pattern, "batch": batch, "max_bytes": BATCH_BYTES}
        )
        for message in messages:
            record = recorded(link, stream, message)
            after = record.seq
            yield record
        headers = end.headers or {}
        if not messages or headers.get("Nats-Num-Pending", "0") == "0":
            return


async def first_since(link: Link, stream: str, pattern: str, at: str) -> int:
    """The sequence of the first message that matches `pattern` and was stored at `at` (RFC 3339) or later, else 0."""
    messages, _ = await _ask(link, stream, {"start_time": at, "next_by_subj": pattern, "batch": 1})
    return int((messages[0].headers or {})["Nats-Sequence"]) if messages else 0


async def last(link: Link, stream: str, subject: str) -> Recorded | None:
    """The newest message of one subject that is not forged, None when there is none. The cheapest read there is."""
    found = await last_stored(link, stream, subject)
    return await _genuine_before(link, stream, found) if found is not None and found.forged else found


async def last_stored(link: Link, stream: str, subject: str) -> Recorded | None:
    """The newest message of one subject, void when it is forged; asks for nothing but that subject."""
    return await _one(link, stream, f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")


async def _genuine_before(link: Link, stream: str, forged: Recorded) -> Recorded | None:
    """The newest message of a forged one's subject that is not forged; streams are only read forwards."""
    end, step = forged.seq, LOOK_BACK
    while end > 1:
        found: Recorded | None = None
        after = max(0, end - 1 - step)
        async for record in history(link, stream, forged.subject, after):
            if record.seq >= end:
                break
            found = found if record.forged else record
        if found is not None:
            return found
        end, step = after + 1, step * LOOK_BACK_GROWS
    return None


async def at(link: Link, stream: str, seq: int) -> Recorded | None:
    """The message at one sequence, void when it is forged, None when it is gone or not there yet."""
    return await _one(link, stream, f"$JS.API.DIRECT.GET.{stream}", _ENCODE({"seq": seq}))


async def _one(link: Link, stream: str, api: str, body: bytes) -> Recorded | None:
    for _ in range(TRIES_MAX):
        reply: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        inbox = link.expect(_first(reply))
        try:
            link.send(api, body, reply=inbox)
            async with asyncio.timeout(TIMEOUT_S):
                message = await reply
        except TimeoutError:
            continue
        finally:
            link.forget(inbox)
        status = status_of(message)
        if status == "404":
            return None
        if status is None:
            return recorded(link, stream, message)
        await asyncio.sleep(0.1)
    raise await unreadable(link, stream)


def _first(future: asyncio.Future[Msg]) -> Callable[[Msg], None]:
    def take(message: Msg) -> None:
        if not future.done():
            future.set_result(message)

    return take


async def last_of_many(link: Link, stream: str, subjects: Sequence[str]) -> dict[str, Recorded]:
    """The newest message of each subject that has one that is not forged."""
    found: dict[str, Recorded] = {}
    seen: set[str] = set()
    for start in range(0, len(subjects), SUBJECTS_PER_REQUEST_MAX):
        missing = list(subjects[start : start + SUBJECTS_PER_REQUEST_MAX])
        while missing:
            messages, end = await _ask(link, stream, {"multi_last": missing, "batch": len(missing)})
            for message in messages:
                seen.add((message.headers or {})["Nats-Subject"])
                newest = recorded(link, stream, message)
                record = await _genuine_before(link, stream, newest) if newest.forged else newest
                if record is not None:
                    found[record.subject] = record
            # The broker ends an answer that grows too big; what is left is asked for again.
            if not messages or (end.headers or {}).get("Nats-Num-Pending", "0") == "0":
                break
            missing = [subject for subject in missing if subject not in seen]
    return found
