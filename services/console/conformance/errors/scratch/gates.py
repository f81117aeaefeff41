"""On the scratch instance: gates that may not be answered, by this one, any more, or as they were shown."""

from typing import Any, Final

from contracts.approval import DIGEST_CHARS
from services.console.conformance.errors.scenario import Scenario, Sight, until
from services.console.conformance.errors.scratch.instance import Scratch
from services.console.conformance.errors.scratch.people import Person, ready_person

RUN: Final = "conformance-gates"
GRANT: Final = "identity.approval.converse"
DENY: Final = "identity.approval.deny"
TASKS: Final = ("granted", "denied", "withdrawn", "shown", "others")


async def _gates(scratch: Scratch, sight: Sight) -> None:
    tasks: list[dict[str, Any]] = [{"id": name, "node": {"type": "approval", "title": name}} for name in TASKS]
    tasks[-1]["approvers"] = ["conformance-nobody"]
    person = await ready_person(scratch, "conformance-carl")
    await scratch.ask("executor.run.start", {"run_id": RUN, "tasks": tasks})
    gates = await until(lambda: _open(scratch))

    await _answer(scratch, GRANT, gates["granted"], person)
    again = await _begin(scratch, GRANT, {"approval_id": gates["granted"]})
    sight.said("approval_granted", again, GRANT)

    await _answer(scratch, DENY, gates["denied"], person)
    sight.error("approval_denied", await until(lambda: _error_of(scratch, "denied")), f"task denied of the run {RUN}")

    changed = {"approval_id": gates["shown"], "digest": "0" * DIGEST_CHARS}
    sight.said("approval_stale", await _begin(scratch, GRANT, changed), GRANT)
    sight.said("not_an_approver", await _answer(scratch, GRANT, gates["others"], person), GRANT)
    by_agent = await _answer(scratch, GRANT, gates["shown"], person, by="agent:conformance")
    sight.said("agent_cannot_approve", by_agent, f"{GRANT} by an agent")

    await scratch.ask("executor.run.cancel", {"run_id": RUN, "task_id": "withdrawn"})
    await until(lambda: _closed(scratch, gates["withdrawn"]))
    sight.said("approval_withdrawn", await _begin(scratch, GRANT, {"approval_id": gates["withdrawn"]}), GRANT)

    await scratch.ask("executor.run.cancel", {"run_id": RUN})
    sight.error("cancelled", (await scratch.over(RUN))["error"], f"run {RUN}")


async def _open(scratch: Scratch) -> dict[str, str] | None:
    """The gates of all tasks, once they are there."""
    gates = await scratch.ask("identity.approval.list", {"run_id": RUN})
    return {gate["task_id"]: gate["approval_id"] for gate in gates} if len(gates) == len(TASKS) else None


async def _closed(scratch: Scratch, approval_id: str) -> bool:
    gate = await scratch.ask("identity.approval.show", {"approval_id": approval_id})
    return bool(gate["status"] == "withdrawn")


async def _error_of(scratch: Scratch, task_id: str) -> Any:
    view = await scratch.ask("executor.run.get", {"run_id": RUN})
    return next(task.get("error") for task in view["tasks"] if task["id"] == task_id)


async def _begin(scratch: Scratch, verb: str, gate: dict[str, str]) -> Any:
    """The answer to who asks for a gate and has not said a word yet."""
    return await scratch.ask(verb, {"session": "", "text": "", "gates": [gate]})


async def _answer(scratch: Scratch, verb: str, approval_id: str, person: Person, by: str | None = None) -> Any:
    """Both turns of a conversation about one gate; how it ended."""
    body = {"session": f"conformance-{approval_id}-{by or ''}", "gates": [{"approval_id": approval_id}]}
    await scratch.ask(verb, {**body, "text": person.name}, by=by)
    return await scratch.ask(verb, {**body, "text": person.code()}, by=by)


GATES: Final = (
    Scenario(
        (
            "approval_granted", "approval_denied", "approval_stale", "not_an_approver", "agent_cannot_approve",
            "approval_withdrawn", "cancelled",
        ),
        _gates,
    ),
)  # fmt: skip
