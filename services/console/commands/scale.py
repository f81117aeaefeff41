"""`htdag scale`: the program under supervisord that keeps the number of copies as wished, and ends what hangs."""

import sys

from cyclopts import App

from contracts.errors import OK
from services.console.options import DEFAULTS, Common
from services.runtime.environment import begin_without_others

app = App(name="scale", help_format="plaintext")


@app.default
async def scale(*, common: Common = DEFAULTS) -> int:
    """Hold the number of copies of each service that `htdag up --scale` asked for last.

    It adds workers while calls wait, drains them when they are idle, and kills one that hangs, which
    is then started again. supervisord runs it; you need not.

    For example:
        htdag scale --home /tmp/a
    """
    begin_without_others("scaler")
    from services.console.supervision.keeper import Keeper
    from services.console.supervision.supervised import SupervisedCopies

    home = common.place
    url = home.running().operator_url
    await Keeper(home, SupervisedCopies(home), lambda text: print(text, file=sys.stderr, flush=True)).run(url)
    return OK
