"""The graphs that are measured. Their tasks are ordinary ones: started before, recorded after their body runs."""

from collections.abc import Sequence
from typing import Final

from contracts.task import NatsNode, Node, NoopNode, TaskSpec

BODY_SUBJECT: Final = "bench.body"
"""Where bodies run when they run in another process."""
BODY_TEXT: Final = "x" * 60
FAN_DEFAULT: Final = 1000
CHAIN_DEFAULT: Final = 200
CROWD_DEFAULT: Final = 200
LAYERS: Final = (1, 3, 3, 2, 1)


def body(*, remote: bool) -> Node:
    """What a task does: nothing here, or a request to another process."""
    return NatsNode(subject=BODY_SUBJECT, payload={"text": BODY_TEXT}) if remote else NoopNode(result=BODY_TEXT)


def layered(widths: Sequence[int], node: Node) -> list[TaskSpec]:
    """Layers of tasks; each task depends on the whole layer before it."""
    tasks: list[TaskSpec] = []
    before: list[str] = []
    for number, width in enumerate(widths):
        layer = [f"t{number}-{index}" for index in range(width)]
        tasks += [TaskSpec(id=name, depends_on=before, node=node) for name in layer]
        before = layer
    return tasks


def fan(count: int, *, remote: bool) -> list[TaskSpec]:
    """W1: one root, `count` independent tasks, one join."""
    return layered((1, count, 1), body(remote=remote))


def chain(count: int, *, remote: bool) -> list[TaskSpec]:
    """W2: `count` tasks in sequence."""
    return layered((1,) * count, body(remote=remote))


def diamond(*, remote: bool) -> list[TaskSpec]:
    """W3: ten tasks in layers 1-3-3-2-1; many such runs are started at once."""
    return layered(LAYERS, body(remote=remote))
