"""The console script `htdag`: so small that Ctrl-C is quiet from the first moment on.

Importing the commands takes a few tenths of a second. Whoever presses Ctrl-C in them wants no traceback of an import;
there is nothing yet that would have to be put in order. TERM needs nothing: its default is silent, and 143 in a shell.
This module imports nothing that the interpreter has not loaded; what Python itself does before it is out of reach.
"""

import os
import signal
import sys

INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Carry out the command line of this process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as with nohup
        signal.signal(signal.SIGINT, _leave)
    from services.console import cli, failure

    sys.excepthook = failure.report_mistake
    code = cli.run(sys.argv[1:], begins=_begins)
    # What is left is the end of the interpreter.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _begins() -> None:
    """The command's words are understood: from here on Ctrl-C is its own affair."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_number: int, _frame: object) -> None:
    os._exit(INTERRUPTED)
