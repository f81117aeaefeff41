"""What goes into an image: the files of a folder, of busybox, or of this machine's Python."""

import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from contracts.errors import Rejected

LDD_S: Final = 30.0
PACKAGES: Final = "/opt/packages"
PYTHON: Final = "/usr/local/bin/python3"
LEFT_OUT: Final = frozenset(
    {"__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3"}
)
REQUIREMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Entry(NamedTuple):
    """One name in an image: a link when `link` is set, else a file's content, else a folder."""

    path: str
    mode: int = 0o755
    source: Path | None = None
    text: bytes | None = None
    link: str | None = None


class RootFs(NamedTuple):
    """Everything of an image: entries in any order, and the environment of its programs."""

    entries: tuple[Entry, ...]
    env: tuple[str, ...] = ("PATH=/usr/local/bin:/usr/bin:/bin",)


def of_folder(folder: Path) -> RootFs:
    """A folder as it stands: files, folders and links; devices, sockets and set-user-id bits are left out."""
    if not folder.is_dir():
        raise Rejected("bad_request", f"{folder} is no folder", hint="name the root of a file system")
    return RootFs(tuple(_walk(folder, "")))


def of_busybox() -> RootFs:
    """The static busybox of this machine with a link for each of its programs."""
    return RootFs((*_skeleton(), *_busybox(required=True)))


def of_python(packages: Sequence[str] = ()) -> RootFs:
    """This machine's Python with its standard library and shared libraries, and installed packages with their needs.

    busybox is added where there is one, so that there is a shell.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = Path(os.path.realpath(sys.executable))
    library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix}))
    standard = tuple(
        entry
        for entry in _walk(library, f"usr/local/lib/{version}", follow=True)
        if "-packages/" not in f"{entry.path}/" and not entry.path.endswith(".a") and "/config-" not in entry.path
    )
    packaged = tuple(_packages(packages))
    programs = [interpreter, *(entry.source for entry in (*standard, *packaged) if _is_library(entry))]
    entries = (
        *_skeleton(),
        *_busybox(required=False),
        Entry(f"usr/local/bin/{version}", source=interpreter),
        Entry(PYTHON.lstrip("/"), link=version),
        Entry("usr/local/bin/python", link=version),
        *standard,
        *packaged,
        *_shared(program for program in programs if program is not None),
    )
    env = (f"PYTHONPATH={PACKAGES}", "PYTHONDONTWRITEBYTECODE=1", "PYTEST_ADDOPTS=-p no:cacheprovider")
    return RootFs(entries, (*RootFs(()).env, *env))


def _skeleton() -> tuple[Entry, ...]:
    """Where mounts go, since nobody can make a folder in a root that is read-only; and who nobody is."""
    people = b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n"
    return (
        Entry("tmp", 0o1777),
        Entry("work"),
        Entry("code"),
        Entry("etc/passwd", 0o644, text=people),
        Entry("etc/group", 0o644, text=b"root:x:0:\nnogroup:x:65534:\n"),
    )


def _busybox(*, required: bool) -> Iterator[Entry]:
    found = shutil.which("busybox")
    if found is None:
        if required:
            hint = "apt-get install busybox-static"
            raise Rejected("missing_dependency", "busybox is not installed", needs="busybox", hint=hint)
        return
    busybox = Path(os.path.realpath(found))
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, timeout=LDD_S, check=True).stdout
    yield Entry("bin/busybox", source=busybox)
    yield from _shared([busybox])
    for program in listed.split():
        if program != "busybox":
            yield Entry(f"bin/{program}", link="busybox")


def _packages(names: Sequence[str]) -> Iterator[Entry]:
    """The files of installed packages and of what they need, and their programs."""
    wanted, seen = list(names), set()
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            raise Rejected("missing_dependency", f"the package {name} is not installed", needs=name) from None
        wanted += _needs(found)
        for file in found.files or ():
            if ".." not in file.parts and not LEFT_OUT & {"__pycache__"} & set(file.parts):
                source = Path(str(found.locate_file(file)))
                if source.is_file():
                    yield Entry(f"{PACKAGES[1:]}/{file.as_posix()}", 0o644, source=source)
        for program in found.entry_points.select(group="console_scripts"):
            module, _, function = program.value.partition(":")
            text = f"#!{PYTHON}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
            yield Entry(f"usr/local/bin/{program.name}", text=text.encode())


def _needs(found: importlib.metadata.Distribution) -> Iterator[str]:
    """Names of what a package requires on this machine, extras left out."""
    for line in found.requires or ():
        requirement, _, condition = line.partition(";")
        name = REQUIREMENT.match(requirement.strip())
        if name is None or "extra" in condition:
            continue
        try:
            importlib.metadata.distribution(name[0])
        except importlib.metadata.PackageNotFoundError:
            continue  # its condition does not hold here, or the package would not work here either
        yield name[0]


def _is_library(entry: Entry) -> bool:
    return entry.source is not None and ".so" in entry.source.name


def _shared(programs: Iterable[Path]) -> Iterator[Entry]:
    """The shared libraries of programs, at the paths where the loader looks for them."""
    paths = sorted({str(program) for program in programs})
    listed = subprocess.run(["ldd", *paths], capture_output=True, text=True, timeout=LDD_S, check=False).stdout
    found = set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listed, re.MULTILINE))
    for path in sorted(found):
        yield Entry(path.lstrip("/"), source=Path(os.path.realpath(path)))
    cache = Path("/etc/ld.so.cache")
    if found and cache.is_file():
        yield Entry("etc/ld.so.cache", 0o644, source=cache)


def _walk(folder: Path, into: str, *, follow: bool = False) -> Iterator[Entry]:
    """Everything in a folder in order of names; `follow` turns links into what they name and leaves out LEFT_OUT."""
    for name in sorted(os.listdir(folder)):
        source, path = folder / name, str(PurePosixPath(into, name))
        if follow and name in LEFT_OUT:
            continue
        try:
            status = source.stat() if follow else source.lstat()
        except OSError:
            continue  # a link to nothing
        if stat.S_ISLNK(status.st_mode):
            yield Entry(path, link=os.readlink(source))
        elif stat.S_ISDIR(status.st_mode):
            yield Entry(path, status.st_mode & 0o1777)
            yield from _walk(source, path, follow=follow)
        elif stat.S_ISREG(status.st_mode):
            yield Entry(path, 0o755 if status.st_mode & 0o111 else 0o644, source=source)
