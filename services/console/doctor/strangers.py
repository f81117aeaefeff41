"""Streams that no contract names: over subjects of htdag, over anybody's inbox, or answering in the place of ours.

Codes, credentials and answers are said there, and are to be kept nowhere; a mirror that answers direct gets may have
forgotten what was. The broker cannot judge which subjects a new stream takes, so only one key makes streams; whoever
had it, or a broker without users, could still make such a one.
"""

from typing import Any, Final

from contracts.errors import Rejected
from contracts.rights import INBOX
from contracts.streams import STREAMS
from contracts.subjects import ROOT
from services.console.connection import Console
from services.console.doctor.finding import Finding
from services.console.paged_lists import paged

_OURS: Final = frozenset({ROOT.partition(".")[0], "llm", "ai", "$JS", "$SRV", INBOX})
_NAMES: Final = frozenset(spec.name for spec in STREAMS)


async def strangers(console: Console) -> Finding:
    """No stream but ours keeps what is said to us, or answers for one of ours."""
    try:
        found = await paged(console, "STREAM.LIST", "streams")
    except Rejected as error:
        return Finding("other streams", "warn", error.message, error.kind.hint)
    listening = [text for text in map(_heard, found) if text]
    if not listening:
        return Finding("other streams", "ok", "none keeps what is said on subjects of htdag")
    message = f"not of htdag: {'; '.join(listening)}"
    mend = (
        "codes and credentials may stand there: find out who made it, remove it (`nats stream rm NAME`, as a user who"
        " may), and make new credentials"
    )
    return Finding("other streams", "fail", message, mend)


def _heard(info: dict[str, Any]) -> str:
    """A stranger with what of it concerns us; "" when nothing does."""
    config = info["config"]
    if config["name"] in _NAMES:
        return ""
    subjects = [one for one in config.get("subjects") or [] if _concerns_us(one.partition(".")[0])]
    if subjects:
        return f"{config['name']} keeps {', '.join(subjects)}"
    origin = str((config.get("mirror") or {}).get("name", ""))
    answers = origin in _NAMES and config.get("mirror_direct")
    return f"{config['name']} answers for {origin}" if answers else ""


def _concerns_us(first: str) -> bool:
    return first in ("*", ">") or first in _OURS or first.startswith(f"{INBOX}_")
