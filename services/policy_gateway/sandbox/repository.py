"""What git may see of a workspace's repository: its history, and a configuration that the gateway wrote.

A repository's own `.git/config` can name programs (filters, drivers, monitors, editors, helpers, includes). So the box
never shows it: the file is read here, and what is harmless is written anew. Whatever our reading and git's differ in,
git only ever reads what was written here.
"""

import itertools
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from contracts.errors import Rejected
from services.policy_gateway.sandbox.box import Bind

CONFIG_BYTES_MAX: Final = 1 << 20
HEAD_BYTES_MAX: Final = 4096
FILES: Final = ("HEAD", "config", "index", "packed-refs", "shallow")
FOLDERS: Final = ("hooks", "info", "logs", "modules", "objects", "refs", "reftable", "worktrees")
# section, whether it has a subsection: keys that hold data and never a program or the path of one.
HARMLESS: Final[Mapping[tuple[str, bool], frozenset[str]]] = {
    ("core", False): frozenset(
        [
            "repositoryformatversion",
            "filemode",
            "symlinks",
            "ignorecase",
            "autocrlf",
            "eol",
            "safecrlf",
            "quotepath",
            "precomposeunicode",
            "logallrefupdates",
            "abbrev",
            "whitespace",
            "trustctime",
            "checkstat",
            "compression",
            "sparsecheckout",
            "sparsecheckoutcone",
            "commentchar",
        ]
    ),
    ("extensions", False): frozenset({"objectformat", "refstorage"}),
    ("user", False): frozenset({"name", "email"}),
    ("author", False): frozenset({"name", "email"}),
    ("committer", False): frozenset({"name", "email"}),
    ("init", False): frozenset({"defaultbranch"}),
    ("branch", True): frozenset({"remote", "merge", "rebase", "description"}),
    ("branch", False): frozenset({"sort", "autosetupmerge", "autosetuprebase"}),
    ("remote", True): frozenset({"url", "pushurl", "fetch", "push", "tagopt", "prune"}),
    ("merge", False): frozenset({"ff", "conflictstyle", "renames", "renamelimit", "log", "stat"}),
    ("diff", False): frozenset(
        [
            "algorithm",
            "renames",
            "renamelimit",
            "context",
            "mnemonicprefix",
            "noprefix",
            "indentheuristic",
            "wserrorhighlight",
        ]
    ),
    ("status", False): frozenset(["short", "branch", "showuntrackedfiles", "relativepaths", "renames", "showstash"]),
    ("log", False): frozenset({"date", "decorate", "follow", "abbrevcommit", "showroot"}),
    ("commit", False): frozenset({"cleanup", "status", "verbose"}),
    ("tag", False): frozenset({"sort"}),
    ("format", False): frozenset({"pretty"}),
    ("pull", False): frozenset({"rebase", "ff"}),
    ("push", False): frozenset({"default", "followtags", "autosetupremote"}),
    ("i18n", False): frozenset({"commitencoding", "logoutputencoding"}),
    ("index", False): frozenset({"version"}),
    ("rerere", False): frozenset({"enabled"}),
}
_TURNS: Final = itertools.count()
_HEADER: Final = re.compile(r'\[\s*([A-Za-z0-9.-]+)(?:\s+"((?:[^"\\\n]|\\.)*)")?\s*\]')
_KEY: Final = re.compile(r"([A-Za-z][A-Za-z0-9-]*)[ \t]*(=?)")
_ESCAPES: Final = {"n": "\n", "t": "\t", "b": "\b", "\\": "\\", '"': '"'}


class BadRepository(Exception):
    """The repository is built in a way that the gateway does not serve; the text is for the caller."""


class Entry(NamedTuple):
    """One line of a configuration. A key alone, without a value, means true."""

    section: str
    subsection: str | None
    key: str
    value: str | None


def find_git() -> Path:
    """The system's git. Raises Rejected("program_not_found")."""
    found = shutil.which("git", path="/usr/local/bin:/usr/bin:/bin")
    if found is None:
        raise Rejected("program_not_found", program="git")
    return Path(os.path.realpath(found))


def binds(code: Path, name: str, state: Path, role: str) -> tuple[Bind, ...]:
    """Our configuration, no hooks, and read-only attributes over the repository's own; nothing where there is none.

    Raises BadRepository.
    """
    git = code / ".git"
    if not is_there(code):
        return ()
    try:
        prepare(code)
        config = _written(state, name, harmless_config(code, role))
        hooks = state / "no-hooks"
        hooks.mkdir(parents=True, exist_ok=True)
    except OSError as why:
        raise Rejected("file_error", "the repository's configuration cannot be read", path="/code/.git") from why
    overlays = ((config, "config"), (hooks, "hooks"), (git / "info", "info"))
    return tuple(Bind(source, f"/code/.git/{target}") for source, target in overlays)


def _written(state: Path, name: str, config: str) -> Path:
    """Renamed into place: a box that runs keeps the one it began with."""
    folder = state / "git"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path, fresh = folder / f"{name}.config", folder / f".{name}.{os.getpid()}.{next(_TURNS)}"
    fresh.write_bytes(config.encode("utf-8", "surrogateescape"))
    fresh.rename(path)
    return path


def kind(code: Path) -> str:
    """What stands at /code/.git: "none", "folder" or "file". Raises BadRepository for anything else."""
    try:
        mode = os.lstat(code / ".git").st_mode
    except FileNotFoundError:
        return "none"
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISREG(mode):
        return "file"
    raise BadRepository("/code/.git is neither a folder nor a file")


def is_there(code: Path) -> bool:
    """Whether /code has a repository that the gateway serves; raises BadRepository where it has another one."""
    if kind(code) == "none":
        return False
    check(code)
    return (code / ".git" / "HEAD").exists()


def check(code: Path) -> None:
    """Refuse a repository whose parts are not where they look: links lead readers astray, pipes hold them up."""
    if kind(code) == "file":
        raise BadRepository("/code/.git only points to a repository elsewhere")
    if os.path.lexists(code / ".git" / "commondir"):
        raise BadRepository("/code/.git belongs to a repository elsewhere")
    for name, wanted in (*((name, stat.S_ISREG) for name in FILES), *((name, stat.S_ISDIR) for name in FOLDERS)):
        try:
            mode = os.lstat(code / ".git" / name).st_mode
        except FileNotFoundError:
            continue
        if not wanted(mode):
            raise BadRepository(f"/code/.git/{name} is not what it should be")


def prepare(code: Path) -> None:
    """Make what the box mounts something over: bubblewrap would make it too, but follow whatever leads there."""
    git = code / ".git"
    for name in ("hooks", "info"):
        (git / name).mkdir(exist_ok=True)
    os.close(os.open(git / "config", os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))


def harmless_config(code: Path, role: str) -> str:
    """The configuration that the box shows in place of the repository's own. Raises BadRepository."""
    entries = list(_parse(_read(code / ".git" / "config")))
    kept = [entry for entry in entries if _is_harmless(entry)]
    named = {(entry.section, entry.key) for entry in kept}
    for key, value in (("name", f"{role}@htdag"), ("email", f"{role}@htdag")):
        if ("user", key) not in named:
            kept.append(Entry("user", None, key, value))
    return "# written by the policy-gateway: what can name a program is left out\n" + "".join(map(_line, kept))


def object_format(code: Path) -> str:
    """How the repository names its objects: "sha1" or "sha256". Raises BadRepository."""
    for entry in _parse(_read(code / ".git" / "config")):
        if (entry.section, entry.subsection, entry.key) == ("extensions", None, "objectformat"):
            return "sha256" if entry.value == "sha256" else "sha1"
    return "sha1"


def head(code: Path) -> str:
    """What HEAD says. Raises BadRepository."""
    return _read(code / ".git" / "HEAD", HEAD_BYTES_MAX).strip()


def _read(path: Path, bytes_max: int = CONFIG_BYTES_MAX) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as why:
        raise BadRepository(f"/code/.git/{path.name} cannot be read") from why
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadRepository(f"/code/.git/{path.name} is not a file")
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise BadRepository(f"/code/.git/{path.name} is too large")
    return data.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def _is_harmless(entry: Entry) -> bool:
    return entry.key in HARMLESS.get((entry.section, entry.subsection is not None), ())


def _line(entry: Entry) -> str:
    header = f"[{entry.section}]" if entry.subsection is None else f'[{entry.section} "{_quoted(entry.subsection)}"]'
    if entry.value is None:
        return f"{header}\n\t{entry.key}\n"
    value = _quoted(entry.value).replace("\n", "\\n").replace("\t", "\\t").replace("\b", "\\b")
    return f'{header}\n\t{entry.key} = "{value}"\n'


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\0", "")


def _parse(text: str) -> Iterator[Entry]:
    """Read the format of git-config(1). Raises BadRepository where it is none."""
    section, subsection, at = "", None, 0
    text = text.removeprefix("\ufeff")
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] in "#;":
            at = _line_end(text, at)
        elif header := _HEADER.match(text, at):
            section, subsection, at = header[1].lower(), header[2], header.end()
            if subsection is not None:
                subsection = re.sub(r"\\(.)", r"\1", subsection)
            elif "." in section:
                section, _, subsection = section.partition(".")
        elif section and (key := _KEY.match(text, at)):
            value, at = _value(text, key.end()) if key[2] else (None, _line_end(text, key.end()))
            yield Entry(section, subsection, key[1].lower(), value)
        else:
            raise BadRepository(f"/code/.git/config cannot be read at line {text.count(chr(10), 0, at) + 1}")


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _value(text: str, at: int) -> tuple[str, int]:
    """A value from after its "=": quotes, escapes and continued lines undone, outer blanks and comments left out."""
    out: list[str] = []
    kept, quoted = 0, False  # `kept`: how much of `out` is no trailing blank
    while at < len(text) and not (text[at] == "\n" and not quoted):
        letter = text[at]
        at += 1
        if letter == '"':
            quoted = not quoted
            kept = len(out)
        elif letter == "\\":
            escaped = text[at] if at < len(text) else "\n"
            at += 1
            if escaped != "\n":
                if escaped not in _ESCAPES:
                    raise BadRepository("/code/.git/config holds an unknown escape")
                out.append(_ESCAPES[escaped])
                kept = len(out)
        elif letter in "#;" and not quoted:
            at = _line_end(text, at)
        elif letter == "\n" and quoted:
            raise BadRepository("/code/.git/config holds an open quote")
        elif letter.isspace() and not quoted:
            if out:
                out.append(letter)
        else:
            out.append(letter)
            kept = len(out)
    return "".join(out[:kept]), at
