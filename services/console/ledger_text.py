"""The ledger for people: limits, calls and estimates as text."""

from collections.abc import Mapping
from typing import Any

from services.console.output import Output, columns, money

_CENT = 10_000
COUNTED = "limits count what they were held for, the ledger nothing"
"""Where the two differ, both say so."""


def dollars(usd_micros: int) -> str:
    """Dollars with cents, and with more decimals only where there are fractions of a cent."""
    return f"${usd_micros / 1_000_000:.2f}" if usd_micros % _CENT == 0 else money(usd_micros)


def limits_text(limits: Mapping[str, Any]) -> str:
    """One line for all calls, and one for each model that has limits of its own."""
    day = f"daily {dollars(limits['limit_usd_micros'])}" if limits["limit_usd_micros"] else "daily no limit"
    clock = limits["resets_at"][11:16]
    parts = [
        f"{day}  spent {dollars(limits['spent_usd_micros'])}  reserved {dollars(limits['reserved_usd_micros'])}"
        f"  resets {clock}Z",
        f"{limits['requests_per_minute'] or 'no limit'}/min used {limits['requests_used']}",
        f"concurrent {limits['in_flight']}/{limits['concurrent'] or 'no limit'} queue {limits['queue']}",
    ]
    lines = [" | ".join(parts)]
    if limits["cost_unknown"]:
        lines.append(f"{limits['cost_unknown']} calls of unknown cost today ({COUNTED})")
    lines += [_model_line(model) for model in limits["models"]]
    if limits.get("disagreeing"):
        others = ", ".join(one["worker_id"] for one in limits["disagreeing"])
        lines.append(f"workers go by different limits: other ones hold at {others}; restart all of them")
    return "\n".join(lines)


def _model_line(model: Mapping[str, Any]) -> str:
    parts = []
    if model["limit_usd_micros"]:
        spent, reserved = dollars(model["spent_usd_micros"]), dollars(model["reserved_usd_micros"])
        parts.append(f"daily {dollars(model['limit_usd_micros'])}  spent {spent}  reserved {reserved}")
    if model["requests_per_minute"]:
        parts.append(f"{model['requests_per_minute']}/min used {model['requests_used']}")
    if model["concurrent"]:
        parts.append(f"concurrent {model['in_flight']}/{model['concurrent']}")
    return f"{model['model']}: {' | '.join(parts)}"


def ledger_text(found: Mapping[str, Any], output: Output) -> str:
    """The sums, and a table of calls."""
    rows = [
        (
            row["at"],
            output.state(row["status"]),
            row["corr_id"],
            row["model"],
            _tokens(row),
            None if row["reserved_usd_micros"] is None else money(row["reserved_usd_micros"]),
            _cost(row),
            row.get("answers") or None,
            _why(row),
        )
        for row in found["rows"]
    ]
    sums = f"{found['calls']} paid calls  {found['tokens']} tokens  {money(found['cost_usd_micros'])}"
    if found["cost_unknown"]:
        sums += f"  and {found['cost_unknown']} of unknown cost ({COUNTED})"
    if found["reserved"]:
        sums += f"  reserved {money(found['reserved_usd_micros'])} for {found['reserved']}"
    table = columns(("AT", "STATE", "CALL", "MODEL", "TOKENS", "HELD", "COST", "ANSWERS", "REASON"), rows)
    return f"{table}\n{sums}" if rows else sums


def _tokens(row: Mapping[str, Any]) -> int:
    unheard: int = row.get("abandoned_tokens", 0) if row["status"] == "paid" else 0
    answered: int = row["prompt_tokens"] + row["completion_tokens"]
    return answered + unheard


def _why(row: Mapping[str, Any]) -> str:
    """Why a call was released, and what askings of it are in its cost that nobody heard the answer of."""
    if not row.get("abandoned_tokens"):
        return str(row["reason"])
    unheard = row.get("abandoned_usd_micros", 0)
    cost = "an unknown cost" if unheard is None else money(unheard)
    return f"{row['reason']} {cost} of it abandoned".strip()


def _cost(row: Mapping[str, Any]) -> str:
    if row["status"] == "paid":
        return "unknown" if row["cost_usd_micros"] is None else money(row["cost_usd_micros"])
    held = row["reserved_usd_micros"]
    return "" if row["status"] == "released" or held is None else f"({money(held)})"


def estimate_text(found: Mapping[str, Any]) -> str:
    """What a request would use."""
    likely, most = found["cost_usd_micros"], found["cost_usd_micros_max"]
    cost = "cost unknown" if most is None or likely is None else f"{money(most)} at most"
    text = (
        f"{found['model_used']}  {found['prompt_tokens']} prompt tokens (at most {found['prompt_tokens_max']})"
        f"  answer at most {found['completion_tokens_max']}  {cost}"
    )
    return f"{text}\nnow refused: {found['refusal']}" if found["refusal"] else text
