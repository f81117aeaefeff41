"""The report of an attack drill as people read it."""

from pathlib import Path

import msgspec

from contracts.drill import DrillAttack, DrillReport
from contracts.errors import Rejected
from services.console.output import columns

_MARKS = {"refused": "refused", "contained": "contained", "harm": "HARM"}


def drill_text(report: DrillReport) -> str:
    """A line per attack, the attempts below it, and what a system without policy would have lost."""
    parts = []
    for attack in report.attacks:
        titles = ", ".join(attempt.title for attempt in attack.attempts)
        parts.append(f"{attack.number} {attack.name}   {attack.blocked}/{attack.total} blocked   ({titles})")
        parts.append(_attempts(attack))
    ended = "ends clean" if not report.left_behind else "left behind: " + ", ".join(report.left_behind)
    parts.append(f"other calls waited {report.probe_max_ms:g} ms at most; {ended}")
    return "\n".join(parts)


def _attempts(attack: DrillAttack) -> str:
    rows = [
        (
            f"  {attempt.id}",
            attempt.title,
            f"{attempt.role} {attempt.tool}",
            _MARKS[attempt.outcome],
            "; ".join(attempt.harm) or attempt.code or "ran, harmlessly",
            f"{attempt.took_ms:g} ms",
            attempt.would_lose,
        )
        for attempt in attack.attempts
    ]
    return columns(("  NO", "ATTEMPT", "BY", "OUTCOME", "CODE", "TOOK", "WITHOUT POLICY"), rows)


def save(report: DrillReport, path: Path) -> None:
    """Write the whole report as JSON; raises Rejected("bad_request") when the file cannot be written."""
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    except OSError as error:
        raise Rejected("bad_request", f"{path}: {error.strerror}", field="report") from error
