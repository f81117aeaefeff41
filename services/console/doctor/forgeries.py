"""Messages that nobody may have written, among facts and what is believed like them, and in mailboxes.

Somebody has a key that he should not have. Of snapshots and sessions the newest of each stands alone: a forged one is
seen until its owner stores the next.
"""

import asyncio
from collections import deque
from typing import Final

from contracts.errors import Rejected
from contracts.rights import OPERATOR
from contracts.streams import COMMANDS, CONVERSATIONS, FACTS, SNAPSHOTS
from services.console.connection import Console
from services.console.doctor.finding import Finding
from services.runtime import nkeys
from services.runtime.event_store import Recorded
from services.runtime.genuine import sent_on

LOOKED_INTO: Final = (*FACTS, SNAPSHOTS, CONVERSATIONS, COMMANDS)
LOOKED_AT_MAX: Final = 50_000
"""So many of the newest messages of each stream are looked at."""
WAIT_S: Final = 5.0
SHOWN_MAX: Final = 3
RENEWABLE: Final = (f"*{nkeys.SUFFIX}", OPERATOR)
"""What in the folder of keys only opens the broker: a start makes it anew. All else there is made once."""
MEND: Final = (
    "they are not believed and stop nobody. Any key of the broker is enough to send them, an agent's too, and the"
    " operator's password: find out who had one. For new ones `htdag down`, remove"
    f" {' and '.join(f'keys/{name}' for name in RENEWABLE)}, and nothing else of that folder; the next start makes them"
)


async def forgeries(console: Console) -> Finding:
    """How many there are, and where."""
    found: list[str] = []
    whole = True
    for stream in LOOKED_INTO:
        try:
            count, places, all_seen = await _in_stream(console, stream)
        except Rejected as error:
            return Finding("forgeries", "warn", error.message, str(error.detail.get("hint") or error.kind.hint))
        whole = whole and all_seen
        if count:
            shown = ", ".join(f"{subject} at {seq}" for subject, seq in places)
            found.append(f"{count} in {stream} (newest: {shown})")
    looked = "" if whole else f"; only the newest {LOOKED_AT_MAX} messages of each stream were looked at"
    if not found:
        return Finding("forgeries", "ok", f"no forged message in {len(LOOKED_INTO)} streams{looked}")
    return Finding("forgeries", "warn", f"forged messages: {'; '.join(found)}{looked}", MEND)


async def _in_stream(console: Console, stream: str) -> tuple[int, list[tuple[str, int]], bool]:
    """How many, the newest of them, and whether the whole stream was looked at."""
    state = (await console.bus.api(f"STREAM.INFO.{stream}"))["state"]
    after = max(int(state["first_seq"]) - 1, int(state["last_seq"]) - LOOKED_AT_MAX, 0)
    # Into a mailbox many may write, so what says so of facts says nothing there; but no service takes from it what the
    # broker was made to send there.
    sent = 0
    sent_newest: deque[tuple[str, int]] = deque(maxlen=SHOWN_MAX)

    def look(record: Recorded) -> None:
        nonlocal sent
        if sent_on(record.headers):
            sent += 1
            sent_newest.append((record.subject, record.seq))

    follower = await console.bus.follow(stream, ">", look, after=after, headers_only=True)
    try:
        async with asyncio.timeout(WAIT_S):
            await follower.caught_up.wait()
        whole = after < max(int(state["first_seq"]), 1)  # one that never held anything begins at 0
    except TimeoutError:
        whole = False
    finally:
        await follower.stop()
    return follower.forged + sent, [*follower.forged_newest, *sent_newest][-SHOWN_MAX:], whole
