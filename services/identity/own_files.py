"""Files of identity's own: private, whole, and on the disk, or a refusal that names them."""

from pathlib import Path

from contracts.errors import Rejected
from services.runtime.private_files import replace_private


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, mode 0600, on the disk when this returns. Raises Rejected("bad_config")."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_private(path, text)
    except OSError as error:
        raise Rejected("bad_config", f"{path.name} cannot be written: {error.strerror}", hint=str(path)) from error
