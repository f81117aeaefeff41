"""An epic as queries read it: its state, and where each of its plans stands in the log."""

from typing import Final

from contracts.codec import CommitCodec
from contracts.epic import EpicEvent, GoalPlanned, Plan
from contracts.subjects import parse_events
from services.planner.epic.state import Epic, evolve
from services.runtime.event_store import Recorded

EPIC_CODEC: Final[CommitCodec[EpicEvent]] = CommitCodec(EpicEvent)


class EpicReading:
    """A fold of one epic's log."""

    def __init__(self) -> None:
        self.epic = Epic("")
        self.plan_seqs: dict[str, int] = {}

    @property
    def weight(self) -> int:
        """Tasks and runs held."""
        return len(self.epic.bodies) + len(self.plan_seqs) + 1

    def take(self, record: Recorded) -> None:
        """Take in one commit of the epic."""
        if not self.epic.epic_id:
            self.epic = Epic(parse_events(record.subject).aggregate_id)
        for event in EPIC_CODEC.decode(record.data, skip_unknown=True).events:
            evolve(self.epic, event)
            if isinstance(event, GoalPlanned):
                self.plan_seqs[event.run_id] = record.seq


def planned_in(record: Recorded, run_id: str) -> GoalPlanned | None:
    """The plan of a run from the commit that stored it."""
    for event in EPIC_CODEC.decode(record.data, skip_unknown=True).events:
        if isinstance(event, GoalPlanned) and event.run_id == run_id:
            return event
    return None


def plan_of(planned: GoalPlanned, epic_id: str) -> Plan:
    """A stored plan as it was first answered."""
    return Plan(
        goal=planned.goal,
        strategy=planned.strategy,
        reasoning=planned.reasoning,
        depth=max(task.depth for task in planned.tasks),
        tasks=planned.tasks,
        run_id=planned.run_id,
        epic_id=epic_id,
    )
