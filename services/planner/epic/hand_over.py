"""From an event of an epic to the durable command that hands its tasks to the executor. Pure."""

from typing import Any, NamedTuple

import msgspec

from contracts.epic import GoalPlanned, TasksEnqueued
from contracts.run import AddTasks, RunOptions, StartRun
from contracts.subjects import command as command_subject


class HandOver(NamedTuple):
    """A durable command. Its `msg_id` comes from the event: the broker stores it once, however often it is sent.

    Tasks of several events may travel in one command, under the id of the first; the executor takes each task once.
    """

    msg_id: str
    run_id: str
    subject: str
    body: StartRun | AddTasks

    @property
    def key(self) -> str:
        """What tells the actor host that this one is under way already."""
        return self.msg_id

    @property
    def first_task_id(self) -> str:
        """The task by whose presence in the run's log this hand-over is known to have arrived."""
        return self.body.tasks[0].id


def hand_over(epic_id: str, event: GoalPlanned | TasksEnqueued) -> HandOver:
    """The command that follows from `event` of this epic."""
    options = _options(event.options)
    if isinstance(event, GoalPlanned):
        start = StartRun(
            run_id=event.run_id,
            goal=event.goal,
            epic_id=epic_id,
            tasks=event.tasks,
            options=options,
            strategy=event.strategy,
        )
        subject = command_subject("executor", "run", event.run_id, "start")
        return HandOver(f"start:{event.run_id}", event.run_id, subject, start)
    add = AddTasks(run_id=event.run_id, tasks=event.tasks, epic_id=epic_id, options=options, strategy=event.strategy)
    subject = command_subject("executor", "run", event.run_id, "add")
    return HandOver(f"add:{event.run_id}:{event.tasks[0].id}", event.run_id, subject, add)


def _options(stored: dict[str, Any]) -> RunOptions:
    return msgspec.convert(stored, RunOptions)
