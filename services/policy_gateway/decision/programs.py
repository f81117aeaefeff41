"""The commands of the shell tool as data: token prefixes, and which options and words may follow them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from contracts.errors import Rejected
from services.policy_gateway.decision.option_words import Kinds, kinds

ALWAYS: Final = "*"
PREFIX_WORDS_MAX: Final = 3
"""How many words a prefix in `only` and `never` may have."""


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a command line may go on behind its token prefix.

    `flags`, `values` (`=v`, glued or the next word) and `optional` (`=v` only) are the options that may be given;
    with `leading`, only those in front of the first word, where a misread value would be read as the subcommand.
    `only` and `never` are token prefixes of the words that are no options: with `only`, one of them must fit; of
    `never`, none may. Behind a word of `chains` every word is judged like a first one. `never_begins` refuses words by
    their first characters. `open`: behind the first word options
    that are not listed are fine, except the `refused` ones. `free_behind` says behind how many words everything is
    free, because it goes to a script: by the first word, `*` for all others. `modules` are what `-m` may name; one
    that is a command itself is judged as that command. `pairs` are options that are fine with one value only.
    """

    flags: list[str] = []
    values: list[str] = []
    optional: list[str] = []
    leading: list[str] = []
    pairs: list[str] = []
    only: list[str] = []
    never: list[str] = []
    never_begins: list[str] = []
    chains: list[str] = []
    open: bool = False
    refused: list[str] = []
    free_behind: dict[str, int] = {}
    modules: list[str] = []
    like: str | None = None


@dataclass(frozen=True, slots=True)
class Grammar:
    """A `Command`, laid out for decisions."""

    prefix: tuple[str, ...]
    options: Kinds
    leading: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    only: frozenset[tuple[str, ...]]
    never: frozenset[tuple[str, ...]]
    never_begins: tuple[str, ...]
    chains: frozenset[str]
    open: bool
    refused: frozenset[str]
    refused_letters: frozenset[str]
    free_behind: Mapping[str, int]
    modules: Mapping[str, "Grammar | None"]


@dataclass(frozen=True, slots=True)
class CommandTable:
    """What a role may run in one profile: `allowed` is what a refusal shows, `by_program` has long prefixes first."""

    allowed: tuple[str, ...]
    by_program: Mapping[str, tuple[Grammar, ...]]


def command_table(names: Sequence[str], commands: Mapping[str, Command], field: str) -> CommandTable:
    """Lay the commands `names` out. Raises Rejected("bad_request") when one is not described."""
    by_program: dict[str, list[Grammar]] = {}
    for name in names:
        grammar = _grammar(name, commands, field)
        by_program.setdefault(grammar.prefix[0], []).append(grammar)
    ordered = {
        program: tuple(sorted(found, key=lambda grammar: -len(grammar.prefix))) for program, found in by_program.items()
    }
    return CommandTable(tuple(names), ordered)


def _grammar(name: str, commands: Mapping[str, Command], field: str) -> Grammar:
    prefix = tuple(name.split(" "))
    if "" in prefix or "/" in prefix[0] or not name.isascii():
        raise Rejected("bad_request", f"{field}: words with one space between them, no path", field=field)
    if name == "git":
        return _laid_out(prefix, Command(), {}, field)
    command = commands.get(name)
    if command is not None and command.like is not None:
        command = commands.get(command.like)
    if command is None or command.like is not None:
        raise Rejected("bad_request", f"{field}: commands does not describe {name[:80]}", field=field)
    modules: dict[str, Grammar | None] = {}
    for module in command.modules:
        described = commands.get(module)
        modules[module] = None if described is None else _laid_out((module,), described, {}, field)
    return _laid_out(prefix, command, modules, field)


def _prefixes(lines: Sequence[str], field: str) -> frozenset[tuple[str, ...]]:
    found = frozenset(tuple(line.split(" ")) for line in lines)
    if any(len(words) > PREFIX_WORDS_MAX or "" in words for words in found):
        reason = f"{field}: prefixes have at most {PREFIX_WORDS_MAX} words, one space between them"
        raise Rejected("bad_request", reason, field=field)
    return found


def _laid_out(prefix: tuple[str, ...], command: Command, modules: Mapping[str, Grammar | None], field: str) -> Grammar:
    pairs = frozenset((first, second) for first, _, second in (pair.partition(" ") for pair in command.pairs))
    return Grammar(
        prefix=prefix,
        options=kinds(command.flags, command.values, command.optional),
        leading=frozenset(command.leading),
        pairs=pairs,
        only=_prefixes(command.only, field),
        never=_prefixes(command.never, field),
        never_begins=tuple(command.never_begins),
        chains=frozenset(command.chains),
        open=command.open,
        refused=frozenset(command.refused),
        refused_letters=frozenset(word[1] for word in command.refused if len(word) == 2),
        free_behind=command.free_behind,
        modules=modules,
    )
