"""Options that every command has."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from services.console.home import Home
from services.console.output import Output

_COMMON = "Common options"


Wish = Annotated[bool | None, Parameter(n_tokens=0)]
"""A flag with three states: --x, --no-x, or nothing said. It takes no value, which completion must know too."""


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Where the instance is, how to print, how long to wait for one answer."""

    home: Annotated[Path | None, Parameter(group=_COMMON)] = None
    """Directory of the instance; else HTDAG_HOME, else the user's data directory."""
    json: Annotated[bool, Parameter(group=_COMMON, negative="", show_default=False)] = False
    """Print JSON: one document, or one per line where it streams."""
    wait: Annotated[float, Parameter(group=_COMMON)] = 10.0
    """Seconds to wait for one answer."""

    @property
    def output(self) -> Output:
        """The command's two streams."""
        return Output(json=self.json)

    @property
    def place(self) -> Home:
        """The home that this command works on."""
        return Home.locate(self.home)


DEFAULTS: Final = Common()
"""What a command works with when no common option is given."""
