"""What `htdag policy` prints for people."""

import json
from typing import Any

from services.console.board_text import shorten
from services.console.output import Output, columns, duration

ARGS_CHARS: int = 60


def decision_text(decision: dict[str, Any], output: Output) -> str:
    """One line: the verdict, the rule behind it, and what it was about."""
    detail = json.dumps(decision["detail"], ensure_ascii=False) if decision["detail"] else ""
    if decision["verdict"] == "allow":
        return f"{output.paint('allow', 'green')}  {decision['rule']}  {detail}".rstrip()
    return f"{output.paint('deny', 'red')}  {decision['code']}  {decision['rule']}  {detail}".rstrip()


def roles_text(view: dict[str, Any]) -> str:
    """A table of roles."""
    rows = []
    for name, role in view["roles"].get("roles", {}).items():
        most = role.get("timeout_ms_max")
        rows.append((name, ",".join(role["tools"]), role.get("network", ""), duration(most / 1000) if most else "-"))
    table = columns(("ROLE", "TOOLS", "NETWORK", "LONGEST"), rows)
    return f"version {view['version']}, digest {view['digest'][:16]}\n{table}"


def statistics_text(found: dict[str, Any]) -> str:
    """Counts, the refusals by kind below."""
    total, blocked = found["total_tool_calls"], found["policy_violations_blocked"]
    share = f" ({blocked / total:.1%})" if total else ""
    lines = [f"total_tool_calls           {total}", f"policy_violations_blocked  {blocked}{share}"]
    return "\n".join([*lines, *(f"  {name:<24} {count}" for name, count in found["attacks_by_type"].items())])


def audit_table(rows: list[dict[str, Any]]) -> str:
    """One line per decision."""
    if not rows:
        return "no calls"
    shown = [
        (
            row["at"][:19],
            row["verdict"],
            row["role"],
            row["tool"],
            row["code"],
            f"{row['run_id']}/{row['task_id']}" if row["run_id"] else row["by"],
            "" if row["duration_ms"] is None else duration(row["duration_ms"] / 1000),
            shorten(json.dumps(row["args"], ensure_ascii=False), ARGS_CHARS),
        )
        for row in rows
    ]
    return columns(("AT", "VERDICT", "ROLE", "TOOL", "CODE", "WHO", "TOOK", "ARGS"), shown)


def difference_text(found: dict[str, Any]) -> str:
    """What would change, and what could not be judged."""
    shown = [
        (
            change["at"][:19],
            change["role"],
            change["tool"],
            change["was_code"] or change["was"],
            change["now_code"] or change["now"],
            shorten(json.dumps(change["args"], ensure_ascii=False), ARGS_CHARS),
        )
        for change in found["changed"]
    ]
    lines = [columns(("AT", "ROLE", "TOOL", "WAS", "NOW", "ARGS"), shown)] if shown else []
    lines.append(f"{len(found['changed']) + found['more']} of {found['judged']} verdicts would change")
    lines += [f"{count} could not be judged: {why}" for why, count in found["not_judged"].items()]
    return "\n".join(lines)
