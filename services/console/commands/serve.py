"""`htdag serve`: one service in this process."""

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter, validators

from services.console import serve as table
from services.console.options import DEFAULTS, Common

if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(table.SERVICES)]

app = App(name="serve", help_format="plaintext")


@app.default
def serve(
    service: Name,
    /,
    *,
    http_port: Annotated[int | None, Parameter(validator=validators.Number(gte=0, lte=65535))] = None,
    common: Common = DEFAULTS,
) -> int:
    """Run one service in the foreground until TERM or Ctrl-C.

    It uses the broker at NATS_URL. `htdag up` starts a broker and every service.

    For example:
        htdag serve planner
        htdag serve executor --http-port 0

    Parameters
    ----------
    service
        Which one.
    http_port
        Port of /livez, /readyz and /metrics on loopback, 0 for any free one; else the service's own, from
        core.http_port. A second one of a service on the same machine needs it.
    """
    return table.serve(service, common.home, http_port)
