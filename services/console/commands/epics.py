"""`htdag epics`: goals that people and agents work on."""

from decimal import Decimal
from typing import Any

from cyclopts import App

from contracts.limits import TITLE_CHARS_MAX
from services.console.board_text import shorten
from services.console.connection import connected
from services.console.options import DEFAULTS, Common
from services.console.output import columns, micros_of, money, plain

app = App(
    name="epics",
    help="Create epics and look at their progress.\n\nFor example:\n    htdag epics list",
    help_format="plaintext",
)


@app.command
async def create(
    title: str,
    /,
    *,
    id: str | None = None,
    description: str = "",
    priority: int = 5,
    budget_usd: Decimal | None = None,
    budget_tokens: int | None = None,
    common: Common = DEFAULTS,
) -> None:
    """Create an epic and print its id.

    For example:
        htdag epics create "Auth" --id auth --budget-usd 5

    Parameters
    ----------
    title
        Its title.
    id
        Its id; one is made up when not given.
    description
        What it is about.
    priority
        1 is the most urgent; shown in the list, and stored only.
    budget_usd
        Dollars that all LLM calls of its runs may cost together.
    budget_tokens
        Tokens that they may use.
    """
    micros = None if budget_usd is None else micros_of(budget_usd)
    wishes = {
        "title": title,
        "epic_id": id,
        "description": description,
        "priority": priority,
        "budget_usd_micros": micros,
        "budget_tokens": budget_tokens,
    }
    async with connected(common) as console:
        epic = plain(
            await console.call(
                "planner.epic.create", {key: value for key, value in wishes.items() if value is not None}
            )
        )
    common.output.value(epic, epic["epic_id"])


@app.command
async def update(
    epic_id: str,
    /,
    *,
    title: str | None = None,
    description: str | None = None,
    priority: int | None = None,
    budget_usd: Decimal | None = None,
    budget_tokens: int | None = None,
    common: Common = DEFAULTS,
) -> None:
    """Change an epic; what is not given stays. A raised budget holds at once.

    For example:
        htdag epics update auth --budget-usd 10

    Parameters
    ----------
    epic_id
        Id of the epic.
    title
        Its title.
    description
        What it is about.
    priority
        1 is the most urgent.
    budget_usd
        Dollars that all LLM calls of its runs may cost together.
    budget_tokens
        Tokens that they may use.
    """
    wishes = {
        "epic_id": epic_id,
        "title": title,
        "description": description,
        "priority": priority,
        "budget_usd_micros": None if budget_usd is None else micros_of(budget_usd),
        "budget_tokens": budget_tokens,
    }
    async with connected(common) as console:
        epic = plain(
            await console.call(
                "planner.epic.update", {key: value for key, value in wishes.items() if value is not None}
            )
        )
    common.output.value(epic, lambda _: _text(epic))


@app.command
async def show(epic_id: str, /, *, common: Common = DEFAULTS) -> None:
    """Show an epic with its progress.

    For example:
        htdag epics show auth

    Parameters
    ----------
    epic_id
        Id of the epic; `htdag epics list` shows them.
    """
    async with connected(common) as console:
        epic = plain(await console.call("planner.epic.get", {"epic_id": epic_id}))
    common.output.value(epic, lambda _: _text(epic))


@app.command(name="list")
async def list_(*, limit: int = 20, after: str | None = None, common: Common = DEFAULTS) -> None:
    """List epics, newest first.

    For example:
        htdag epics list

    Parameters
    ----------
    limit
        How many at most.
    after
        Only those behind this epic id: the next page.
    """
    page = {"limit": limit, **({"after": after} if after else {})}
    async with connected(common) as console:
        epics = plain(await console.call("planner.epic.list", page))
    rows = [
        (
            epic["epic_id"],
            epic["priority"],
            f"{epic['completed']}/{epic['total']}",
            epic["failed"],
            epic["created_at"],
            shorten(epic["title"]),
        )
        for epic in epics
    ]
    common.output.value(epics, lambda _: columns(("EPIC", "PRIORITY", "DONE", "FAILED", "CREATED", "TITLE"), rows))


def _text(epic: dict[str, Any]) -> str:
    lines = [
        f"epic {epic['epic_id']}  {shorten(epic['title'], TITLE_CHARS_MAX)}",
        f"tasks {epic['total']}  completed {epic['completed']}  failed {epic['failed']}  priority {epic['priority']}",
        f"created {epic['created_at']}" + (f" by {epic['created_by']}" if epic["created_by"] else ""),
    ]
    if epic["budget_usd_micros"] is not None or epic["budget_tokens"] is not None:
        dollars = money(epic["budget_usd_micros"]) if epic["budget_usd_micros"] is not None else "none"
        lines.append(f"budget {dollars}  tokens {epic['budget_tokens'] or 'none'}")
    unknown = "  and calls of unknown cost" if epic["cost_unknown"] else ""
    lines.append(f"spent {money(epic['spent_usd_micros'])}  tokens {epic['spent_tokens']}{unknown}")
    if epic["description"]:
        lines.append(epic["description"])
    return "\n".join([*lines, *(f"run {run}" for run in epic["runs"])])
