"""The command line: the table of commands, imported only when one is used, and the exit code of each."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cyclopts import App, CycloptsError, Group, Parameter

from contracts.errors import USAGE
from services.console import failure
from services.console.flag_hints import in_flags
from services.console.input_file import STDIN

_HELP: Final = """Carries goals out with teams of language-model agents, on NATS JetStream.

Start here:
    htdag up -d                         a whole instance on this machine
    htdag run "Build a login with JWT"  a goal becomes tasks, live
    htdag doctor                        what is wrong, and what to do
    htdag COMMAND --help                each command, with an example"""

_WORK: Final = Group("Work", sort_key=1)
_INSTANCE: Final = Group("Instance", sort_key=2)
_TOOLS: Final = Group("Tools", sort_key=3)

_COMMANDS: Final[tuple[tuple[str, str, Group, str], ...]] = (
    ("run", "run:app", _WORK, "Carry out a goal, or the tasks of a file, and watch it."),
    ("runs", "runs:app", _WORK, "Look at runs; cancel, resume, replay and audit them."),
    ("tasks", "tasks:app", _WORK, "Enqueue tasks and look at them."),
    ("epics", "epics:app", _WORK, "Create epics and look at their progress."),
    ("strategies", "strategies:app", _WORK, "Lua strategies: store, try, activate, roll back."),
    ("policy", "policy:app", _WORK, "What roles may do: judge and make calls, audit, statistics, versions."),
    ("approvals", "approvals:app", _WORK, "Gates that wait for a human: look, release, deny."),
    ("users", "users:app", _WORK, "Accounts of humans: prove who you are, set up, unlock, reset."),
    ("agents", "agents:app", _WORK, "Accounts of agents, and their challenges to each other."),
    ("llm", "llm:app", _WORK, "Ask a model; look at models, workers, tokens and paid answers."),
    ("up", "up:up_app", _INSTANCE, "Start a whole instance: broker, services, small local model."),
    ("down", "up:down_app", _INSTANCE, "Stop the instance of this home."),
    ("ps", "up:ps_app", _INSTANCE, "Show the processes of this home."),
    ("scale", "scale:app", _INSTANCE, "Hold the copies that `up --scale` asked for; supervisord runs it."),
    ("serve", "serve:app", _INSTANCE, "Run one service in the foreground."),
    ("doctor", "doctor:app", _INSTANCE, "Find what is wrong and say what to do."),
    ("demo", "demo:app", _INSTANCE, "The main job in one command, on a throw-away instance."),
    ("bus", "bus:app", _TOOLS, "Streams, consumers, messages and dead letters."),
    ("models", "models:app", _TOOLS, "Local models: what is here, and get one."),
    ("config", "config:app", _TOOLS, "Show the configuration and where each value is from."),
    ("conformance", "conformance:app", _TOOLS, "Check foreign workers, and all refusals, against the contract."),
    ("bench", "bench:app", _TOOLS, "Measure how fast a throw-away instance is on this machine."),
    ("completion", "completion:app", _TOOLS, "Print the completion script of a shell."),
    ("version", "version:app", _TOOLS, "Print the version."),
)
"""Name, where it is, group, help: enough to print the help without importing any of it."""

_LEADING_FLAGS: Final = frozenset({"--json"})
_LEADING_VALUES: Final = frozenset({"--home", "--wait"})


def _version() -> str:
    from importlib.metadata import version

    return version("htdag")


class Commands(App):
    """The root of all commands, which tells when one begins, and which flags one has."""

    begins: Callable[[], None]

    def parse_args(self, *args: Any, **options: Any) -> Any:
        """See App; imports the command and reads its words."""
        found = super().parse_args(*args, **options)
        self.begins()
        return found

    def flags(self, tokens: Sequence[str]) -> frozenset[str]:
        """The flags of the command that these words name."""
        chain, _, _ = self.parse_commands(tokens)
        used: App = self
        for name in chain:
            used = used[name]
        return frozenset(name for one in used.assemble_argument_collection() for name in one.names)


def application(used: str | None = None, begins: Callable[[], None] = lambda: None) -> Commands:
    """All commands. The one that is `used` speaks for itself; the others are only listed, with the help from here."""
    made = Commands(
        name="htdag", help=_HELP, help_format="plaintext", version=_version, suppress_keyboard_interrupt=False,
        default_parameter=Parameter(negative_iterable=()),
    )  # fmt: skip
    made.begins = begins
    for name, where, group, text in _COMMANDS:
        listed = None if name == used else text
        made.command(f"services.console.commands.{where}", name=name, group=group, help=listed)
    made.register_install_completion_command(group=_TOOLS, help="Install the completion of this shell.")
    return made


def run(arguments: Sequence[str], *, begins: Callable[[], None] = lambda: None) -> int:
    """Carry out one command line; its exit code. A refusal is printed, never raised.

    `begins` is called when all words are understood, just before the command itself.
    """
    tokens = _common_options_last(arguments)
    as_json = "--json" in tokens
    made: Commands | None = None
    try:
        made = application(tokens[0] if tokens else None, begins)
        result = made(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except CycloptsError as error:
        return _usage(error, as_json)
    except BaseException as error:
        if failure.unread(error):
            return failure.leave_unread()
        wire = failure.wire_of(error)
        if wire is not None:
            return _report(in_flags(wire, made.flags(tokens) if made else ()), as_json)
        if failure.interrupted(error):
            return failure.INTERRUPTED
        if failure.terminated(error):
            return failure.TERMINATED
        raise


def _common_options_last(arguments: Sequence[str]) -> list[str]:
    """`htdag --home X run …` is `htdag run … --home X`: common options may stand in front of the command.

    A lone `-` becomes the path of standard input: the parser would take it for an option without a name.
    """
    tokens, moved = list(arguments), list[str]()
    while tokens:
        name = tokens[0].partition("=")[0]
        if tokens[0] in _LEADING_FLAGS or (name in _LEADING_VALUES and "=" in tokens[0]):
            moved.append(tokens.pop(0))
        elif name in _LEADING_VALUES and len(tokens) > 1:
            moved += [tokens.pop(0), tokens.pop(0)]
        else:
            break
    return [STDIN if token == "-" else token for token in tokens] + moved


def _usage(error: CycloptsError, as_json: bool) -> int:
    chain = " ".join(error.command_chain or ())
    message = " ".join(str(error).split())
    wire = {
        "class": "usage",
        "code": "bad_request",
        "message": message,
        "hint": f"htdag {chain} --help" if chain else "htdag --help",
    }
    code = _report(wire, as_json)
    return code if code == failure.BROKEN_PIPE else USAGE


def _report(wire: Mapping[str, Any], as_json: bool) -> int:
    try:
        return failure.report(wire, as_json=as_json)
    except BrokenPipeError:
        return failure.leave_unread()
