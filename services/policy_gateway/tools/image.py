"""Images without a registry: a root file system becomes a docker archive, which the engine loads.

The same files give the same bytes: names in order, no times, no owners; so the same image has the same id.
"""

import asyncio
import hashlib
import io
import json
import platform
import re
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from contracts.errors import Rejected
from services.policy_gateway.tools import rootfs
from services.policy_gateway.tools.engine import engine
from services.policy_gateway.tools.rootfs import Entry, RootFs

NAME: Final = re.compile(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?")
NAME_CHARS_MAX: Final = 200
LOAD_S: Final = 600.0
ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
READ_BYTES: Final = 1 << 20


async def build(
    name: str,
    *,
    folder: Path | None = None,
    busybox: bool = False,
    python: bool = False,
    packages: Sequence[str] = (),
    url: str | None = None,
) -> dict[str, Any]:
    """Build an image from exactly one source, load it into the engine and return `{image, id, bytes}`.

    `folder` is a root file system, `busybox` the machine's static one, `python` its Python with `packages`. Raises
    Rejected: bad_request, missing_dependency, docker_unavailable, file_error.
    """
    if not NAME.fullmatch(name) or len(name) > NAME_CHARS_MAX:
        raise Rejected(
            "bad_request", f"{name[:NAME_CHARS_MAX]!r} is no name of an image", hint="for example my/tools:1"
        )
    if (folder is not None) + busybox + python != 1:
        raise Rejected("bad_request", "an image comes from one source", hint="a folder, busybox or python")
    tagged = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    with tempfile.TemporaryFile() as archive:
        size = await asyncio.to_thread(_gather, archive, tagged, folder, busybox, packages)
        return {"image": tagged, "id": await load(archive, tagged, url), "bytes": size}


async def load(archive: IO[bytes], name: str, url: str | None = None) -> str:
    """Give a docker archive to the engine; the id of the image that has this name afterwards."""
    async with asyncio.timeout(LOAD_S), engine(url) as client:
        await client.images.import_image(archive)
        return str((await client.images.inspect(name))["Id"])


def _gather(archive: IO[bytes], name: str, folder: Path | None, busybox: bool, packages: Sequence[str]) -> int:
    if folder is not None:
        source = rootfs.of_folder(folder)
    else:
        source = rootfs.of_busybox() if busybox else rootfs.of_python(packages)
    try:
        return write_archive(archive, name, source)
    except OSError as why:
        raise Rejected("file_error", f"cannot write the image: {why.strerror}") from None


def write_archive(archive: IO[bytes], name: str, source: RootFs) -> int:
    """Write a docker archive with one layer and rewind it; returns the bytes of the layer."""
    with tempfile.TemporaryFile() as layer:
        _write_layer(layer, source.entries)
        size = layer.tell()
        layer.seek(0)
        digest = hashlib.file_digest(layer, "sha256").hexdigest()
        layer.seek(0)
        config = _bytes_of(
            {
                "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
                "os": "linux",
                "config": {"Env": list(source.env), "WorkingDir": "/"},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
                "history": [{"created_by": "htdag policy image"}],
            }
        )
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        layer_name = f"{digest}/layer.tar"
        manifest = _bytes_of([{"Config": config_name, "RepoTags": [name], "Layers": [layer_name]}])
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for path, data in ((config_name, config), ("manifest.json", manifest)):
                tar.addfile(_header(path, 0o644, size=len(data)), io.BytesIO(data))
            tar.addfile(_header(layer_name, 0o644, size=size), layer)
    archive.seek(0)
    return size


def _write_layer(layer: IO[bytes], entries: tuple[Entry, ...]) -> None:
    """All entries in order of their paths, the first of each path, with the folders above them."""
    unique: dict[str, Entry] = {}
    for entry in entries:
        unique.setdefault(entry.path, entry)
    for path in list(unique):
        for parent in PurePosixPath(path).parents:
            if str(parent) != ".":
                unique.setdefault(str(parent), Entry(str(parent)))
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(unique):
            _add(tar, unique[path])
    layer.flush()


def _add(tar: tarfile.TarFile, entry: Entry) -> None:
    if entry.link is not None:
        header = _header(entry.path, 0o777)
        header.type, header.linkname = tarfile.SYMTYPE, entry.link
        tar.addfile(header)
    elif entry.text is not None:
        tar.addfile(_header(entry.path, entry.mode, size=len(entry.text)), io.BytesIO(entry.text))
    elif entry.source is not None:
        with entry.source.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            tar.addfile(_header(entry.path, entry.mode, size=size), file)
    else:
        header = _header(entry.path, entry.mode)
        header.type = tarfile.DIRTYPE
        tar.addfile(header)


def _header(path: str, mode: int, *, size: int = 0) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    header.mode, header.size, header.mtime, header.uid, header.gid = mode, size, 0, 0, 0
    return header


def _bytes_of(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
