"""`htdag serve`: one service in this process."""

from cyclopts import App

from services.console import serve as table
from services.console.options import DEFAULTS, Common

app = App(name="serve", help_format="plaintext")


@app.default
def serve(service: str, /, *, common: Common = DEFAULTS) -> int:
    """Run one service in the foreground until TERM: planner, executor or llm-
    worker.

    Example:
        htdag serve planner

    Parameters
    ----------
    service
        Name of the service.
    """
    return table.serve(service, common.home)
