"""`htdag serve`: one service in this process."""

from cyclopts import App

from services.console import serve as table
from services.console.options import DEFAULTS, Common

app = App(name="serve", help_format="plaintext")


@app.default
def serve(service: str, /, *, common: Common = DEFAULTS) -> int:
    """Run one service in the foreground until TERM or Ctrl-C.

    It uses the broker at NATS_URL. `htdag up` starts a broker and every service.

    For example:
        htdag serve planner

    Parameters
    ----------
    service
        planner, executor, llm-worker or identity.
    """
    return table.serve(service, common.home)
