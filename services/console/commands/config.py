"""`htdag config`: every value and where it is from."""

from cyclopts import App

from services.console.options import DEFAULTS, Common
from services.console.output import columns

app = App(
    name="config",
    help="Show the configuration and where each value is from.\n\nFor example:\n    htdag config show",
    help_format="plaintext",
)


@app.command
def show(*, common: Common = DEFAULTS) -> None:
    """Print every value with its origin: default, file, environment or flag.
    Secrets are masked.

    For example:
        htdag config show
    """
    from services.console.serve import load_sections
    from services.runtime.config import Config

    config = Config.load({"core.home": str(common.home.expanduser().absolute())} if common.home else None)
    load_sections(config)
    rows = config.explain()
    document = [row._asdict() for row in rows]
    table = [(f"{row.section}.{row.key}", row.value, row.origin) for row in rows]
    common.output.value(document, lambda _: columns(("KEY", "VALUE", "FROM"), table))
