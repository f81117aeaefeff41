"""The shell tool: one program by its name, never a shell. What programs do is for the sandbox to bound; refused here is
what nobody needs there: code on the command line, installing, publishing, other projects, configurations and shells."""

from collections.abc import Sequence
from typing import Final

from services.policy_gateway.decision.git import git
from services.policy_gateway.decision.option_words import Given, read_option
from services.policy_gateway.decision.plans import GitPlan, Place, ShellPlan
from services.policy_gateway.decision.programs import ALWAYS, PREFIX_WORDS_MAX, CommandTable, Grammar
from services.policy_gateway.decision.roles import Rights
from services.policy_gateway.decision.shape import shown
from services.policy_gateway.decision.verdict import Deny

_NOTHING: Final = CommandTable((), {})
_ROOTS: Final = ("code", "tmp")
_ABBREVIATION_CHARS_MIN: Final = 4
"""Two dashes and two letters: some programs take the beginning of an option for the whole."""


def shell(rights: Rights, profile: str, words: list[str], cwd: Place) -> ShellPlan | GitPlan | Deny:
    """Judge the command `words`."""
    program = words[0]
    if rights.shell_any:
        return _any(words, cwd, rights)
    table = rights.commands.get(profile, _NOTHING)
    for grammar in table.by_program.get(program, ()):
        if tuple(words[: len(grammar.prefix)]) != grammar.prefix:
            continue
        if program == "git":
            return git(words[1:], cwd)
        wrong = _wrong(grammar, words, len(grammar.prefix))
        if wrong is not None:
            return _forbidden(words, table, wrong)
        return ShellPlan(program, tuple(words), cwd, rights.sandbox)
    return _forbidden(words, table, program)


def _any(words: list[str], cwd: Place, rights: Rights) -> ShellPlan | GitPlan | Deny:
    if words[0] == "":
        return _forbidden(words, _NOTHING, "")
    if words[0] == "git" and len(words) > 1:
        return GitPlan(tuple(words[1:]), cwd, True, rights.sandbox)
    return ShellPlan(words[0], tuple(words), cwd, rights.sandbox)


def _forbidden(words: list[str], table: CommandTable, matched: str) -> Deny:
    detail = {"command": shown(words), "allowed": list(table.allowed), "matched": shown(matched)}
    return Deny("forbidden_command", "shell.commands", detail)


def _wrong(grammar: Grammar, words: list[str], start: int) -> str | None:
    """The first word that is in the way, None when the command may run."""
    for word in words:
        if ("/" in word or ".." in word) and _strays(word):
            return word
    given: Given = []
    operands: list[str] = []
    free_behind = 0
    index = start
    while index < len(words):
        word = words[index]
        if len(word) < 2 or word[0] != "-":
            operands.append(word)
            wrong = _wrong_operand(grammar, operands)
            if wrong is not None:
                return wrong
            if len(operands) == 1:
                free_behind = grammar.free_behind.get(word, grammar.free_behind.get(ALWAYS, 0))
            if len(operands) == free_behind:
                break
            index += 1
            continue
        if word == "--":
            if not operands and len(grammar.prefix) == 1:
                return word  # what follows would be the subcommand
            break
        behind = _behind_option(grammar, words, index, given, bool(operands))
        if behind < 0:
            return word
        if grammar.modules and given and given[-1][0] == "-m":
            return _wrong_module(grammar, words, behind, given[-1][1] or "")
        index = behind
    if grammar.only and operands and not _fits(grammar.only, operands):
        return operands[0]
    return next((value for _, value in given if value and _strays(value)), None)


def _wrong_operand(grammar: Grammar, operands: list[str]) -> str | None:
    word = operands[-1]
    if grammar.never_begins and word.startswith(grammar.never_begins):
        return word
    if len(operands) <= PREFIX_WORDS_MAX and tuple(operands) in grammar.never:
        return " ".join(operands)
    if operands[0] in grammar.chains and (word.rstrip(","),) in grammar.never:
        return word
    return None


def _fits(prefixes: frozenset[tuple[str, ...]], operands: list[str]) -> bool:
    return any(tuple(operands[:length]) in prefixes for length in range(1, PREFIX_WORDS_MAX + 1))


def _behind_option(grammar: Grammar, words: list[str], index: int, given: Given, named: bool) -> int:
    word = words[index]
    if grammar.pairs and index + 1 < len(words) and (word, words[index + 1]) in grammar.pairs:
        return index + 2
    known = len(given)
    behind = read_option(words, index, grammar.options, given)
    if grammar.leading and not named and any(name not in grammar.leading for name, _ in given[known:]):
        return -1
    if behind < 0 and grammar.open and named and not _is_refused(grammar, word):
        return index + 1
    return behind


def _is_refused(grammar: Grammar, word: str) -> bool:
    name = word.partition("=")[0]
    if not name.startswith("--"):
        return not grammar.refused_letters.isdisjoint(name)
    if len(name) < _ABBREVIATION_CHARS_MIN:
        return False
    return any(refused.startswith(name) for refused in grammar.refused)


def _wrong_module(grammar: Grammar, words: Sequence[str], behind: int, module: str) -> str | None:
    if module not in grammar.modules:
        return f"-m {module}"
    own = grammar.modules[module]
    return None if own is None else _wrong(own, list(words), behind)


def _strays(word: str) -> bool:
    """Whether the word names an absolute path outside of the roots, or has a part `..`, itself or behind its option."""
    if _is_stray(word):
        return True
    _, equals, value = word.partition("=")
    if equals and _is_stray(value):
        return True
    return len(word) > 2 and word[0] == "-" and word[1] != "-" and _is_stray(word[2:])


def _is_stray(path: str) -> bool:
    parts = path.split("/")
    return ".." in parts or (path[:1] == "/" and parts[1] not in _ROOTS)
