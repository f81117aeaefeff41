"""The strategy aggregate: versioned Lua scripts that decompose, spawn, orchestrate and judge."""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from contracts.task import AgentNode, TaskSpec

Stage = Literal["decomposition", "agent_spawning", "orchestration", "completion"]
STAGES: Final[tuple[Stage, ...]] = ("decomposition", "agent_spawning", "orchestration", "completion")
STAGE_ALIASES: Final[dict[str, Stage]] = {
    "decompose": "decomposition",
    "spawn": "agent_spawning",
    "orchestrate": "orchestration",
    "complete": "completion",
}


NO_STRATEGY: Final = "none"
"""Said instead of a strategy's name: choose none, and let the executor's fallback spawn the agents."""
CHOICE_TEXTS_MAX: Final = 500
"""So many different descriptions of one plan are looked at when its strategy is chosen."""
CHOICE_TEXT_CHARS_MAX: Final = 4_000
"""Only the beginning of a description decides which strategy it gets."""


def choice_texts(tasks: Sequence[TaskSpec], goal: str = "") -> list[str]:
    """The texts in which the patterns of strategies are searched: the goal, else what the agents' tasks say.

    Empty for a plan without a goal and without an agent: nothing in it would follow a strategy.
    """
    agents = [task for task in tasks if type(task.node) is AgentNode]
    if not agents:
        return []
    if goal.strip():
        return [goal[:CHOICE_TEXT_CHARS_MAX]]
    texts = dict.fromkeys(f"{task.title} {task.description}"[:CHOICE_TEXT_CHARS_MAX] for task in agents)
    return list(texts)[:CHOICE_TEXTS_MAX]


class StrategyBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """One version of a strategy. `pattern` is a regular expression searched in a task's description, case ignored.

    Among the strategies that match, the highest `priority` wins, then the name. `scripts` maps a stage to Lua
    source; a stage that is missing is taken from the fallback of the executor.
    """

    scripts: dict[str, str]
    pattern: str = ".*"
    priority: int = 0
    description: str = ""


class StrategyPut(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="strategy.put.v1"):
    """A new version was stored and became active. `version` counts from 1."""

    name: str
    version: int
    body: StrategyBody
    digest: str


class StrategyActivated(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="strategy.activated.v1"):
    """An older or newer stored version became the active one (activate, rollback)."""

    name: str
    version: int
    reason: str = ""


class StrategyDeactivated(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="strategy.deactivated.v1"
):
    """No version of this strategy is chosen any more."""

    name: str
    reason: str = ""


StrategyEvent = StrategyPut | StrategyActivated | StrategyDeactivated


class StrategyView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A strategy in a list; `version` is the active one, 0 when none is."""

    name: str
    version: int
    versions: list[int]
    pattern: str
    priority: int
    scripts: list[str]
    description: str = ""
    digest: str = ""


class StrategyChoice(msgspec.Struct, frozen=True):
    """Which strategy (`name@version`) a plan gets; null when none matches."""

    strategy: str | None


class StrategyTrial(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one stage returned for one task, without any effect."""

    strategy: str
    stage: str
    value: Any
    duration_ms: float
