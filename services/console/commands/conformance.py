"""`htdag conformance`: whether programs that are not htdag's keep to its contracts."""

from typing import Annotated

from cyclopts import App, Parameter

from contracts.errors import FAILED, OK
from contracts.subjects import check_model_id
from services.console.connection import connected
from services.console.options import DEFAULTS, Common
from services.console.output import columns

app = App(name="conformance", help="Check programs that are not htdag's own.", help_format="plaintext")


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
    from services.console.conformance import Conformance

    async with connected(common) as console:
        points = await Conformance(console.bus, check_model_id(model), console.timeout_s).points()
    failed = any(point.outcome == "fail" for point in points)
    document = {"model": model, "passed": not failed, "points": [point._asdict() for point in points]}
    rows = [(point.name, point.outcome, point.seen) for point in points]
    common.output.value(document, lambda _: columns(("POINT", "OUTCOME", "SEEN"), rows))
    return FAILED if failed else OK
