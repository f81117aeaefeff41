"""What a container sees of the machine: mounts made safe before the engine, which resolves paths again, sees them.

The code folder itself is mounted as it is: nobody but the gateway can put something else in its place. A path below
it could become a symbolic link between our look and the engine's mount, so the container gets a copy, made by
descriptors, in a folder of the gateway.
"""

import contextlib
import os
import shutil
import stat
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import Mount
from services.policy_gateway.tools.opening import FOLDER, O_PATH, is_regular, open_beneath, opened
from services.policy_gateway.tools.tool import Workspace

COPIES: Final = "mounts"
COPY_BYTES_MAX: Final = 256 << 20
COPY_ENTRIES_MAX: Final = 20_000
COPY_DEPTH_MAX: Final = 64
TRIES_MAX: Final = 8
CLOSED: Final = tuple(
    Path(path) for path in ("/proc", "/sys", "/dev", "/run/containerd", "/run/podman", "/var/lib/docker")
)
CLOSED_TARGETS: Final = (Path("/proc"), Path("/sys"), Path("/dev"))


class Mounts(NamedTuple):
    """Mounts for the engine's API, the folder of copies to remove afterwards, and whose files they are."""

    specs: list[dict[str, Any]]
    copies: Path
    owner: tuple[int, int] | None


def prepare(
    mounts: tuple[Mount, ...], workspace: Workspace, call_id: str, deadline: int, sockets: tuple[Path, ...]
) -> Mounts:
    """Open every mount by the rules of the fs tool. Raises Rejected: forbidden_mount, file_not_found, too_large."""
    copies = copies_of(workspace) / f"{deadline}-{blake2b(call_id.encode(), digest_size=8).hexdigest()}"
    specs: list[dict[str, Any]] = []
    looked_at: list[tuple[Mount, os.stat_result]] = []
    try:
        for index, mount in enumerate(mounts):
            source, status = _source(mount, workspace, copies / str(index), sockets)
            looked_at.append((mount, status))
            specs.append(_spec(mount, source))
    except BaseException:
        discard(copies)
        raise
    return Mounts(specs, copies, _owner(looked_at))


def check(mounts: tuple[Mount, ...], workspace: Workspace, sockets: tuple[Path, ...]) -> None:
    """Look at every mount as `prepare` does, and make nothing. Raises Rejected: forbidden_mount, file_not_found."""
    for mount in mounts:
        _looked_at(mount, workspace, sockets)


def copies_of(workspace: Workspace) -> Path:
    """Where a workspace keeps the copies of calls under way: beside `tmp`, where no tool reaches."""
    return workspace.tmp.parent / COPIES


def discard(copies: Path) -> None:
    """Remove the copies of one call, and their folder when it was the last one's."""
    shutil.rmtree(copies, ignore_errors=True)
    with contextlib.suppress(OSError):
        copies.parent.rmdir()


def sweep(root: Path, now_s: float) -> int:
    """Remove copies below a workspace root that outlived their deadline; a gateway died over them."""
    removed = 0
    for copies in root.glob(f"*/{COPIES}/*"):
        deadline = copies.name.partition("-")[0]
        if not deadline.isdigit() or int(deadline) < now_s:
            discard(copies)
            removed += 1
    return removed


def _owner(looked_at: list[tuple[Mount, os.stat_result]]) -> tuple[int, int] | None:
    """Who a container has to be: the owner of what it may write, else of what it sees of the workspace.

    Nobody becomes root to read the machine: what is mounted of it for reading alone stays what everybody may read.
    """
    writable = [status for mount, status in looked_at if not mount.read_only]
    ours = [status for mount, status in looked_at if mount.host.root != "host"]
    reads_machine = any(mount.read_only and mount.host.root == "host" for mount, _ in looked_at)
    for status in (*writable, *ours):
        if status.st_uid or not reads_machine:
            return status.st_uid, status.st_gid
    return None


def _source(mount: Mount, workspace: Workspace, copy: Path, sockets: tuple[Path, ...]) -> tuple[Path, os.stat_result]:
    real, status = _looked_at(mount, workspace, sockets)
    if mount.host.root == "host" or not mount.host.parts:
        return real, status
    _copy(mount, workspace, copy)
    return copy, status


def _looked_at(mount: Mount, workspace: Workspace, sockets: tuple[Path, ...]) -> tuple[Path, os.stat_result]:
    if _closed_target(mount.container):
        raise _forbidden(mount, "a container cannot have it there")
    try:
        with opened(mount.host, workspace, O_PATH) as found:
            status = os.fstat(found)
            real = Path(f"/proc/self/fd/{found}").readlink()
    except Rejected as why:
        if why.code != "forbidden_path":
            raise
        raise _forbidden(mount, str(why.detail.get("reason", ""))) from None
    if not stat.S_ISDIR(status.st_mode) and not is_regular(status):
        raise _forbidden(mount, "neither a file nor a folder")
    if real == Path("/") or any(real.is_relative_to(closed) for closed in CLOSED):
        raise _forbidden(mount, "it belongs to the machine")
    if any(_resolved(path).is_relative_to(real) for path in (*sockets, *CLOSED)):
        raise _forbidden(mount, "it leads to the engine or to the kernel")
    if not mount.read_only and mount.host.root != "host" and mount.host.parts:
        raise _forbidden(mount, "only the whole of it can be mounted for writing")
    return real, status


def _resolved(path: Path) -> Path:
    return path.parent.resolve() / path.name


def _closed_target(container: str) -> bool:
    target = Path(container)
    return (
        not target.is_absolute()
        or ".." in target.parts
        or target == Path("/")
        or any(target.is_relative_to(closed) for closed in CLOSED_TARGETS)
    )


def _spec(mount: Mount, source: Path) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(source),
        "Target": mount.container,
        "ReadOnly": mount.read_only,
        # A read-only bind leaves writable what is mounted further below, so that is left out.
        "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
    }


def _forbidden(mount: Mount, reason: str) -> Rejected:
    return Rejected("forbidden_mount", host=mount.host.shown, container=mount.container, reason=reason)


class _Budget:
    """What one copy may still take."""

    def __init__(self) -> None:
        self._bytes, self._entries = COPY_BYTES_MAX, COPY_ENTRIES_MAX

    def entry(self, depth: int) -> None:
        """One more file, folder or link."""
        self._entries -= 1
        if self._entries < 0 or depth > COPY_DEPTH_MAX:
            raise _too_large()

    def content(self, size: int) -> None:
        """So many more bytes."""
        self._bytes -= size
        if self._bytes < 0:
            raise _too_large()


def _too_large() -> Rejected:
    message = "the mounted folder is too large to be copied; mount /code itself"
    return Rejected("too_large", message, bytes_max=COPY_BYTES_MAX, entries_max=COPY_ENTRIES_MAX)


def _make(folder: Path) -> None:
    for left in reversed(range(TRIES_MAX)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:  # the last of the others has just taken the folder around away
            if not left:
                raise
        else:
            return


def _copy(mount: Mount, workspace: Workspace, copy: Path) -> None:
    try:
        _make(copy.parent)
        with opened(mount.host, workspace, os.O_RDONLY) as found:
            if stat.S_ISDIR(os.fstat(found).st_mode):
                _copy_folder(found, copy, _Budget(), 1)
            else:
                _copy_file(found, copy, _Budget(), 1)
    except OSError as why:
        raise Rejected("file_error", path=mount.host.shown, reason=why.strerror) from None


def _copy_folder(folder: int, target: Path, budget: _Budget, depth: int) -> None:
    budget.entry(depth)
    target.mkdir()
    target.chmod(0o755)
    for name in sorted(os.listdir(folder)):
        try:
            kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISLNK(kind):  # it is followed inside the container, where it can do no harm
                os.symlink(os.readlink(name, dir_fd=folder), target / name)
                budget.entry(depth)
                continue
            if not stat.S_ISDIR(kind) and not stat.S_ISREG(kind):
                continue
            inner = open_beneath(folder, name, FOLDER if stat.S_ISDIR(kind) else os.O_RDONLY)
        except OSError:
            continue  # it vanished or changed in between
        try:
            (_copy_folder if stat.S_ISDIR(kind) else _copy_file)(inner, target / name, budget, depth + 1)
        finally:
            os.close(inner)


def _copy_file(file: int, target: Path, budget: _Budget, depth: int) -> None:
    status = os.fstat(file)
    if not is_regular(status):
        return
    mode = 0o755 if status.st_mode & 0o111 else 0o644
    copied = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        budget.entry(depth)
        while sent := os.sendfile(copied, file, None, 1 << 20):
            budget.content(sent)
        os.fchmod(copied, mode)
    finally:
        os.close(copied)
