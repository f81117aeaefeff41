"""git, by the table: the subcommands and options that cannot lose or leak history. Everything else is refused.

The plan is not the words that came in but what they mean: where a word could be a revision or a path, `--` is put
where it settles that.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from services.policy_gateway.decision.git_table import SUBCOMMANDS, Subcommand
from services.policy_gateway.decision.git_words import (
    is_new_name,
    is_path,
    is_revision,
    is_revision_or_path,
    is_stash,
    is_value,
)
from services.policy_gateway.decision.option_words import Given, read_option
from services.policy_gateway.decision.plans import GitPlan, Place
from services.policy_gateway.decision.shape import shown
from services.policy_gateway.decision.verdict import Deny

_LISTING: Final = frozenset(
    {"-l", "--list", "-a", "--all", "-r", "--remotes", "--contains", "--merged", "--no-merged", "--points-at"}
)
_STASH_VERBS: Final = ("push", "list", "show", "pop", "apply")
_VERBS: Final = {"stash": _STASH_VERBS, "reflog": ("show",)}

_OF_HEAD: Final = frozenset({"shortlog"})
"""Without a revision these read standard input where people have a terminal; an agent means HEAD, as they do."""


class _Read(NamedTuple):
    """A command taken apart. `options` are the words as given, `paths` what stood behind `--`, None without it."""

    options: list[str]
    given: Given
    operands: list[str]
    paths: Sequence[str] | None

    def names(self) -> set[str]:
        """The names of the options given."""
        return {name for name, _ in self.given}


class _Judged(NamedTuple):
    """The words behind the subcommand as they will run, or the word that is in the way."""

    words: Sequence[str] = ()
    writes: bool = True
    wrong: str | None = None


def git(argv: Sequence[str], cwd: Place) -> GitPlan | Deny:
    """Judge `argv`, which begins behind the word `git`."""
    start = 0
    while start < len(argv) and argv[start] == "--no-pager":
        start += 1
    words = argv[start:]
    if not words or words[0] not in SUBCOMMANDS:
        return _unknown(argv, words)
    name = words[0]
    table = SUBCOMMANDS[name]
    verbs = _VERBS.get(name)
    if verbs is not None and len(words) > 1 and words[1][:1] != "-" and words[1] not in verbs:
        return _dangerous(argv, f"{name} {words[1]}", f"{name} takes {_TAKES[table.operands]}")
    read = _read(words, table)
    if isinstance(read, str):
        return _dangerous(argv, f"{name} {read}", "this option is closed, or lacks its value")
    for option, value in read.given:
        if value is not None and not is_value(option, value):
            return _dangerous(argv, f"{name} {option}", "this value is closed")
    for path in read.paths or ():
        if not is_path(path):
            return _dangerous(argv, f"{name} {path}", "paths are relative and stay inside")
    judged = _RULES[table.operands](read)
    if judged.wrong is not None:
        return _dangerous(argv, f"{name} {judged.wrong}".strip(), f"{name} takes {_TAKES[table.operands]}")
    words_run = judged.words
    if name in _OF_HEAD and not read.operands and read.paths is None:
        words_run = (*words_run, "HEAD")
    return GitPlan((name, *words_run), cwd, table.writes and judged.writes, "git")


def _read(words: Sequence[str], table: Subcommand) -> _Read | str:
    options: list[str] = []
    given: Given = []
    operands: list[str] = []
    index = 1
    while index < len(words):
        word = words[index]
        if word == "--":
            return _Read(options, given, operands, words[index + 1 :])
        if len(word) < 2 or word[0] != "-":
            operands.append(word)
            index += 1
            continue
        if table.numbers and word.isascii() and word[1:].isdigit():
            behind = index + 1
        else:
            behind = read_option(words, index, table.options, given)
            if behind < 0:
                return word
        options.extend(words[index:behind])
        index = behind
    return _Read(options, given, operands, None)


def _unknown(argv: Sequence[str], words: Sequence[str]) -> Deny:
    matched = words[0] if words else " ".join(argv)
    if words and words[0][:1] != "-":
        # The word that people know the danger by: `push --force`, `push +main`.
        loud = next((word for word in words[1:] if word[:1] in {"-", "+"}), None)
        if loud is not None:
            matched = f"{matched} {loud}"
    return _dangerous(argv, matched, "not among the subcommands that are open")


def _dangerous(argv: Sequence[str], matched: str, reason: str) -> Deny:
    detail = {"argv": shown(list(argv)), "matched": shown(matched), "reason": shown(reason)}
    return Deny("dangerous_git_operation", "git.table", detail)


def _first_wrong(words: Sequence[str], is_fine: Callable[[str], bool]) -> str | None:
    return next((word for word in words if not is_fine(word)), None)


def _as_it_came(read: _Read, wrong: str | None) -> _Judged:
    behind = () if read.paths is None else ("--", *read.paths)
    return _Judged((*read.options, *read.operands, *behind), wrong=wrong)


def _paths(read: _Read) -> _Judged:
    found = (*read.operands, *(read.paths or ()))
    return _Judged((*read.options, "--", *found) if found else read.options, wrong=_first_wrong(read.operands, is_path))


def _revisions_paths(read: _Read) -> _Judged:
    return _as_it_came(read, _first_wrong(read.operands, is_revision_or_path))


def _revisions(read: _Read) -> _Judged:
    if read.paths is not None:
        return _Judged(wrong="--")
    return _as_it_came(read, _first_wrong(read.operands, is_revision))


def _grep(read: _Read) -> _Judged:
    # Without -e the first word is what is searched for: any text.
    behind = 0 if any(name == "-e" for name, _ in read.given) else 1
    return _as_it_came(read, _first_wrong(read.operands[behind:], is_revision_or_path))


def _restore(read: _Read) -> _Judged:
    if not read.names() & {"-S", "--staged"}:
        return _Judged(wrong=read.operands[0] if read.operands else "")
    return _paths(read)


def _reset(read: _Read) -> _Judged:
    if not read.operands and not read.paths:
        return _Judged(read.options)
    if read.operands and read.operands[0] != "HEAD":
        return _Judged(wrong=read.operands[0])
    return _Judged(
        (*read.options, "HEAD", "--", *read.operands[1:], *(read.paths or ())),
        wrong=_first_wrong(read.operands[1:], is_path),
    )


def _branch(read: _Read) -> _Judged:
    names = read.names()
    return _list_or_make(read, bool(names & _LISTING) or "--show-current" in names)


def _tag(read: _Read) -> _Judged:
    return _list_or_make(read, bool(read.names() & {"-l", "--list", "-n"}))


def _list_or_make(read: _Read, listing: bool) -> _Judged:
    if read.paths is not None:
        return _Judged(wrong="--")
    if listing or not read.operands:
        return _as_it_came(read, _first_wrong(read.operands, is_revision))._replace(writes=False)
    wrong = None if is_new_name(read.operands[0]) else read.operands[0]
    if len(read.operands) > 2:
        wrong = wrong or read.operands[2]
    return _as_it_came(read, wrong or _first_wrong(read.operands[1:], is_revision))


def _switch(read: _Read) -> _Judged:
    if read.paths is not None:
        return _Judged(wrong="--")
    # A dash is the branch before this one.
    wrong = read.operands[1] if len(read.operands) > 1 else None
    return _as_it_came(read, wrong or _first_wrong(read.operands, lambda word: word == "-" or is_revision(word)))


def _checkout(read: _Read) -> _Judged:
    if read.paths:
        return _Judged(wrong=f"-- {read.paths[0]}")
    wrong = read.operands[1] if len(read.operands) > 1 else _first_wrong(read.operands, is_revision)
    # Without the dashes `checkout README.md` would overwrite the file.
    return _Judged((*read.options, *read.operands, "--") if read.operands else read.options, wrong=wrong)


def _stash(read: _Read) -> _Judged:
    verb = read.operands[0] if read.operands else "push"
    rest = read.operands[1:]
    behind = () if read.paths is None else ("--", *read.paths)
    if verb not in _STASH_VERBS:
        return _Judged(wrong=verb)
    if verb == "push":
        found = (*rest, *(read.paths or ()))
        words = (verb, *read.options, "--", *found) if found else (verb, *read.options)
        return _Judged(words, wrong=_first_wrong(rest, is_path))
    wrong = _first_wrong(rest, is_stash) or (rest[1] if len(rest) > 1 else None)
    if verb == "list" and rest:
        wrong = rest[0]
    return _Judged((verb, *read.options, *rest), verb in {"pop", "apply"}, f"{verb} --" if behind else wrong)


def _reflog(read: _Read) -> _Judged:
    if read.paths is not None or read.operands not in ([], ["show"]):
        return _Judged(wrong=read.operands[0] if read.operands else "--")
    return _Judged(("show", *read.options))


_RULES: Final[dict[str, Callable[[_Read], _Judged]]] = {
    "paths": _paths,
    "revisions": _revisions,
    "revisions_paths": _revisions_paths,
    "branch": _branch,
    "switch": _switch,
    "checkout": _checkout,
    "stash": _stash,
    "tag": _tag,
    "grep": _grep,
    "reset": _reset,
    "restore": _restore,
    "reflog": _reflog,
}
_TAKES: Final = {
    "paths": "paths that are relative and stay inside",
    "revisions": "plain revisions",
    "revisions_paths": "plain revisions, and paths that are relative and stay inside",
    "branch": "a new name and a start, or patterns to list",
    "switch": "one branch",
    "checkout": "one branch or start point, never paths",
    "stash": "push, list, show, pop or apply",
    "tag": "a new name and a revision, or patterns to list",
    "grep": "a pattern, plain revisions, and paths that stay inside",
    "reset": "nothing, or HEAD and paths: the index only",
    "restore": "--staged and paths: the index only",
    "reflog": "nothing, or show",
}
