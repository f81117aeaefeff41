"""`htdag conformance`: whether foreign workers, and an instance's refusals, keep to the contract."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

from contracts.errors import FAILED, OK
from contracts.subjects import check_model_id
from services.console.connection import connected
from services.console.interruption import unwind_when_ended
from services.console.options import DEFAULTS, Common
from services.console.output import columns

if TYPE_CHECKING:
    from services.console.conformance.point import Point

app = App(
    name="conformance", help="Check the contract from outside: foreign workers, and errors.", help_format="plaintext"
)
ANSWER_S: Final = 30.0
"""An instance that is busy answers late, and right."""


@app.command
async def worker(*, model: Annotated[str, Parameter(name="--model")], common: Common = DEFAULTS) -> int:
    """Check a foreign worker that serves a model on htdag.v1.llm.serve.MODEL.

    Exit code 1 when a point is not met; a note is no failure.

    For example:
        htdag conformance worker --model echo

    Parameters
    ----------
    model
        The model it serves.
    """
    from services.console.conformance.foreign_worker import ForeignWorker

    async with connected(common) as console:
        points = await ForeignWorker(console.bus, check_model_id(model), console.timeout_s).points()
    return _told(points, "POINT", common, model=model)


@app.command
async def errors(*, scratch: bool = True, common: Common = DEFAULTS) -> int:
    """Check that htdag refuses as its contract says: every code of the catalogue is
    produced once, and its answer is judged by the published schema.

    The instance that runs is asked what is wrong, and keeps all it has: refused
    calls, some of them in the audit, and a run of tasks that all fail. What would
    do it harm (locked accounts, limits that are used up, a full disk, dead
    services) is done to a scratch instance and to two brokers on free ports,
    which this command starts and ends. The rest is asked of the very functions in
    this process. SEEN says which. Exit code 1 when an answer is no error of the
    one shape or has another code, or when a code was not produced.

    For example:
        htdag conformance errors
        htdag conformance errors --no-scratch --json

    Parameters
    ----------
    scratch
        Without it nothing is started, and the codes that need it are notes, which are no failure.
    """
    from services.console.conformance.errors.answers import ErrorAnswers

    unwind_when_ended()
    async with connected(common) as console:
        answers = ErrorAnswers(console.bus, max(console.timeout_s, ANSWER_S), common.output.note)
        points = await answers.points(scratch=scratch)
    counts = Counter(point.outcome for point in points)
    common.output.note(f"{counts['pass']} codes as they should be, {counts['fail']} not, {counts['note']} not produced")
    return _told(points, "CODE", common)


def _told(points: "list[Point]", name: str, common: Common, **about: str) -> int:
    """Print the points; the exit code."""
    failed = any(point.outcome == "fail" for point in points)
    document = {**about, "passed": not failed, "points": [point._asdict() for point in points]}
    rows = [(point.name, point.outcome, point.seen) for point in points]
    common.output.value(document, lambda _: columns((name, "OUTCOME", "SEEN"), rows))
    return FAILED if failed else OK
