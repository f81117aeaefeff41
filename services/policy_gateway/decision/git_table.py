"""The git commands of the coder, as data: what is not here is refused.

One line per subcommand: short options, long options, what the other words may be, whether refs may move. A name stands
alone when it takes nothing; `=` takes a value (`=v`, glued or the next word), `?` a value only when it is glued or
follows `=`, `:` needs `=v`, `+` takes the next word if there is one. So the table reads words exactly as git does:
a word that git would take for a path or a revision is never taken for a value.
"""

from typing import Final, Literal, NamedTuple

from services.policy_gateway.decision.option_words import Kind

Operands = Literal[
    "paths",
    "revisions",
    "revisions_paths",
    "branch",
    "switch",
    "checkout",
    "stash",
    "tag",
    "grep",
    "reset",
    "restore",
    "reflog",
]


class Subcommand(NamedTuple):
    """What one git subcommand takes. `numbers`: also `-5`. `writes`: refs may move."""

    options: dict[str, Kind]
    operands: Operands
    writes: bool = False
    numbers: bool = False


_MARKS: Final[dict[str, Kind]] = {"=": "value", "?": "optional", ":": "equals", "+": "last"}


def _options(short: str, long: str) -> dict[str, Kind]:
    table: dict[str, Kind] = {}
    for dashes, names in (("-", short), ("--", long)):
        for name in names.split():
            kind = _MARKS.get(name[-1])
            table[dashes + (name[:-1] if kind else name)] = kind or "flag"
    return table


_LOG: Final = _options(
    "w b p s u n= U? S= G= L= M? C?",
    "stat? name-only name-status cached staged word-diff? numstat shortstat summary no-color oneline graph all follow"
    " reverse no-merges merges patch no-patch decorate? first-parent quiet check unified? since= until= after= before="
    " author= committer= grep= format: pretty? max-count= skip= diff-filter= date=",
)
_REV_LIST: Final = _options(
    "n=",
    "count all max-count= skip= since= until= after= before= author= committer= grep= merges no-merges first-parent"
    " reverse oneline abbrev-commit topo-order date-order parents children objects left-right left-only right-only"
    " cherry-pick ancestry-path disk-usage",
)
_PICK: Final = _options("x", "no-edit abort")

SUBCOMMANDS: Final[dict[str, Subcommand]] = {
    "status": Subcommand(
        _options("s b u? z v", "short branch porcelain? long verbose untracked-files? ignored"), "paths"
    ),
    "add": Subcommand(_options("A u v n", "all update verbose dry-run intent-to-add"), "paths"),
    "commit": Subcommand(
        _options("a q s v m=", "all quiet signoff allow-empty verbose dry-run no-edit message="), "paths", writes=True
    ),
    "diff": Subcommand(_LOG, "revisions_paths", numbers=True),
    "log": Subcommand(_LOG, "revisions_paths", numbers=True),
    "show": Subcommand(_LOG, "revisions_paths", numbers=True),
    "branch": Subcommand(
        _options(
            "a v r l",
            "all verbose remotes list show-current no-color contains+ merged+ no-merged+ sort= format= points-at=",
        ),
        "branch",
        writes=True,
    ),
    "switch": Subcommand(_options("q c=", "quiet create="), "switch", writes=True),
    "checkout": Subcommand(_options("q b=", "quiet"), "checkout", writes=True),
    "merge": Subcommand(_options("q m=", "no-ff ff-only ff no-edit abort quiet message="), "revisions", writes=True),
    "stash": Subcommand(_options("u q m=", "include-untracked quiet message="), "stash", writes=True),
    "tag": Subcommand(_options("a l n? m=", "list annotate message= sort="), "tag", writes=True),
    "rev-parse": Subcommand(_options("q", "show-toplevel short? abbrev-ref? verify quiet"), "revisions"),
    "merge-base": Subcommand(_options("a", "all is-ancestor fork-point independent octopus"), "revisions"),
    "rev-list": Subcommand(_REV_LIST, "revisions_paths", numbers=True),
    "ls-tree": Subcommand(_options("d r t l z", "name-only name-status long full-name full-tree"), "revisions_paths"),
    "describe": Subcommand(_options("", "tags always all long dirty?"), "revisions"),
    "shortlog": Subcommand(_options("s n e c", "summary numbered"), "revisions"),
    "blame": Subcommand(_options("w l s e L=", ""), "revisions_paths"),
    "grep": Subcommand(_options("n i w l c E F v h e=", "ignore-case line-number count"), "grep"),
    "ls-files": Subcommand(_options("o m c d z", "others exclude-standard modified cached deleted"), "paths"),
    "mv": Subcommand(_options("v n", "verbose dry-run"), "paths"),
    "rm": Subcommand(_options("r q n", "cached dry-run quiet"), "paths"),
    "reset": Subcommand(_options("q", "quiet mixed"), "reset"),
    "restore": Subcommand(_options("S q", "staged quiet"), "restore"),
    "reflog": Subcommand(_options("n=", ""), "reflog", numbers=True),
    "revert": Subcommand(_PICK, "revisions", writes=True),
    "cherry-pick": Subcommand(_PICK, "revisions", writes=True),
}

Value = Literal["format", "sort", "revision", "lines", "new_name", "word"]
VALUES: Final[dict[str, Value]] = {
    "--format": "format",
    "--pretty": "format",
    "--sort": "sort",
    "--contains": "revision",
    "--merged": "revision",
    "--no-merged": "revision",
    "--points-at": "revision",
    "-L": "lines",
    "-c": "new_name",
    "--create": "new_name",
    "-b": "new_name",
    "--porcelain": "word",
    "--untracked-files": "word",
    "-u": "word",
}
"""Options whose value is looked at; every other value is text that git only searches for or shows."""
