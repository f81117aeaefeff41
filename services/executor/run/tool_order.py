"""In which order the tool calls of one answer are made: as it lists them, but reads that follow each other together.

What a model writes in one answer it means in this order: write, then add, then commit. Pure.
A call that can only be refused does nothing: it waits for nobody, and nobody waits for it.
"""

from collections.abc import Iterable

from contracts.run_tools import ToolRequested
from contracts.tools import only_reads


def due(open_calls: Iterable[ToolRequested]) -> list[ToolRequested]:
    """Of calls without a result, by their numbers, those that wait for none before them in their own answer.

    A call waits for every open one before it, unless it and all of those only read.
    """
    found: list[ToolRequested] = []
    only_reading: dict[str, bool] = {}
    for asked in open_calls:
        if asked.barred:
            found.append(asked)
            continue
        reads = only_reads(asked.tool, asked.args)
        before = only_reading.get(asked.step)
        if before is None or (before and reads):
            found.append(asked)
        only_reading[asked.step] = reads and before is not False
    return found
