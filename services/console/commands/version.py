"""`htdag version`."""

import platform
from importlib.metadata import version as distribution_version

from cyclopts import App

from services.console.options import DEFAULTS, Common

app = App(name="version", help_format="plaintext")


@app.default
def version(*, common: Common = DEFAULTS) -> None:
    """Print the version of htdag and of what it stands on.

    For example:
        htdag version --json
    """
    found = {
        "htdag": distribution_version("htdag"),
        "python": platform.python_version(),
        "nats-py": distribution_version("nats-py"),
    }
    common.output.value(found, "  ".join(f"{name} {number}" for name, number in found.items()))
