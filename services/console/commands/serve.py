"""`htdag serve`: one service in this process."""

from typing import TYPE_CHECKING, Literal

from cyclopts import App

from services.console import serve as table
from services.console.options import DEFAULTS, Common

if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(table.SERVICES)]

app = App(name="serve", help_format="plaintext")


@app.default
def serve(service: Name, /, *, common: Common = DEFAULTS) -> int:
    """Run one service in the foreground until TERM or Ctrl-C.

    It uses the broker at NATS_URL. `htdag up` starts a broker and every service.

    For example:
        htdag serve planner

    Parameters
    ----------
    service
        Which one.
    """
    return table.serve(service, common.home)
