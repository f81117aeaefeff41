"""A folder of the box that is also found where the machine has it.

The scripts of a Python environment name their interpreter by its place on the machine, and a program that starts one of
them asks the kernel, which knows nothing of /code. So that place leads to the same folder in the box. It is a link and
no second mount: nothing can be read or written through it that cannot be anyway, and of the machine it shows the names
of the folders above and nothing else.
"""

import contextlib
import os
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from services.policy_gateway.sandbox.box import SYSTEM, Bind, Box, Link

TMP: Final = Path("/tmp")
TAKEN: Final = tuple(Path(path) for path in (*SYSTEM, "/etc", "/proc", "/dev", "/code", "/build"))
"""What the box has of its own there stays; no workspace lies below these but in a container made for one."""


class Twin(NamedTuple):
    """A folder of the machine that the box has at another place."""

    real: Path
    shown: str


def with_twin(box: Box, twin: Twin, tmp: Path, state: Path) -> Box:
    """The box, with the folder at both places where that is possible. Raises OSError."""
    real = twin.real
    if str(real) == twin.shown or any(_overlap(real, Path(bind.target)) for bind in box.binds if bind.target != "/tmp"):
        return box
    if any(_overlap(real, taken) for taken in TAKEN) or real == TMP:
        return box
    if real.is_relative_to(TMP):
        found = _below_tmp(twin, tmp, state)
        return box if found is None else box._replace(binds=(*box.binds, found))
    return box._replace(links=(*box.links, Link(twin.shown, str(real))))


def _below_tmp(twin: Twin, tmp: Path, state: Path) -> Bind | None:
    """What to mount over one folder of the box's own /tmp; None where something else has its name.

    Programs can write there at any time: a path of more than one part could lead anywhere when bubblewrap follows it.
    So one part is mounted, made before, with the rest of the path inside. The empty folder stays in the private tmp:
    another box may need it at this moment.
    """
    first, *rest = twin.real.relative_to(TMP).parts
    with contextlib.suppress(FileExistsError):
        os.mkdir(tmp / first, 0o755)
    if (tmp / first).is_symlink() or not (tmp / first).is_dir():
        return None
    if not rest:
        return Bind(twin.real, f"{TMP}/{first}")
    around = state / "twins" / blake2b(f"{twin.real} {twin.shown}".encode(), digest_size=8).hexdigest()
    link = around.joinpath(*rest)
    link.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    with contextlib.suppress(FileExistsError):
        os.symlink(twin.shown, link)
    return Bind(around, f"{TMP}/{first}")


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
