"""Gates in words: a line each for a list, and the whole action before somebody is asked for a code.

What is released is what was shown, so nothing of an action is left out here, however long it is.
"""

from typing import Any, Final

from contracts.action_text import as_json, summary, visible
from services.console.board_text import shorten
from services.console.output import duration
from services.console.taint_text import read_before, read_text

SCREEN_CHARS_MAX: Final = 4_000
"""Beyond so many characters it is said how to read them page by page: the first ones have left the screen."""
TITLE_SHOWN_CHARS_MAX: Final = 40


def row(gate: dict[str, Any], now_ms: float) -> tuple[object, ...]:
    """One line of a list; see HEADS."""
    return (
        gate["approval_id"],
        gate["status"],
        gate["run_id"],
        named(gate),
        gate["digest"][:12],
        duration(left_s(gate, now_ms)) if gate["status"] == "open" else gate["user"],
        gate["summary"] + _tail(gate),
    )


def left_s(gate: dict[str, Any], now_ms: float) -> float:
    """How long an open gate can still be answered: by identity's clock, or by ours for an identity that is older."""
    told, expires_at_ms = gate.get("left_ms"), gate["expires_at_ms"]
    return max(0.0, float(expires_at_ms - now_ms if told is None else told) / 1000)


HEADS: Final = ("GATE", "STATUS", "RUN", "TASK", "DIGEST", "EXPIRES IN", "ACTION")


def named(gate: dict[str, Any]) -> str:
    """The task, and beside it what whoever made the plan calls it."""
    task_id, title = str(gate["task_id"]), shorten(gate["title"], TITLE_SHOWN_CHARS_MAX)
    return task_id if title in ("", task_id) else f'{task_id} "{visible(title)}"'


def whole(gate: dict[str, Any]) -> str:
    """Everything that will be done, then in one line what it comes to: that stands nearest to the prompt."""
    text = as_json(gate["action"], indent=2)
    lines = [f"    {line}" for line in text.split("\n")]
    if len(text) > SCREEN_CHARS_MAX:
        lines.append(f"  {len(text)} characters, page by page: htdag approvals show {gate['approval_id']} | less")
    head = f"{gate['approval_id']}  {named(gate)}  run {visible(gate['run_id'])}"
    told = [*lines, *read_before(gate), f"  {summary(gate['action'])}", f"  digest {gate['digest']}"]
    return "\n".join([head, *told])


def _tail(gate: dict[str, Any]) -> str:
    said = read_text(gate.get("read_from", ()), gate.get("read_more", 0))
    return f"  after reading {said}" if said else ""


def shown(gate: dict[str, Any]) -> str:
    """One gate with everything that is known of it."""
    facts = [
        ("status", gate["status"]),
        ("asked", f"{gate['requested_at']} by {visible(gate['requested_by']) or '-'}"),
        ("expires", gate["expires_at"]),
        ("may answer", ", ".join(map(visible, gate["approvers"])) or "every human"),
        ("answered", f"{gate['answered_at']} by {gate['user'] or '-'}" if gate["answered_at"] else ""),
        ("reason", visible(gate["reason"])),
        ("signature", {True: "ok", False: "not genuine"}.get(gate["signature_ok"], "")),
    ]
    return "\n".join([whole(gate), *(f"  {name}: {said}" for name, said in facts if said)])
