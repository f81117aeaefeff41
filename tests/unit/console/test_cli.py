"""The command line: parsing, help, usage errors. No broker is needed."""

import json
import subprocess
import sys

import pytest

from services.console import cli

COMMANDS = [name for name, *_ in cli._COMMANDS]


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch, tmp_path):
    monkeypatch.delenv("NATS_URL", raising=False)
    monkeypatch.setenv("HTDAG_HOME", str(tmp_path / "home"))


def leaves(app, chain=()):
    """Every command that can be typed, with its words."""
    names = [name for name in app if not name.startswith("-")]
    if not names or app.default_command is not None:
        yield chain, app
    for name in names:
        yield from leaves(app[name], (*chain, name))


def alone(*words):
    """What a command prints in a process of its own: a command that was listed keeps the help of the list."""
    script = "import sys; from services.console import cli; sys.exit(cli.run(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True).stdout


def every_command():
    for name in COMMANDS:
        yield from leaves(cli.application(used=name)[name], (name,))


@pytest.mark.parametrize(
    ("words", "app"), list(every_command()), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_teaches_with_an_example(words, app, capsys):
    assert cli.run([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Usage: htdag " + " ".join(words) in text
    example = " ".join(words)
    assert f"htdag {example}" in text.partition("example:")[2], f"{example} has no example"
    arguments = app.assemble_argument_collection(parse_docstring=True)
    wordless = [one.name for one in arguments if one.show and not one.parameter.help]
    assert wordless == [], f"{example} explains nothing about {wordless}"
    assert "--empty-" not in text, f"{example} has a flag that nobody asked for"


def test_the_help_of_run_does_not_promise_what_a_task_of_the_file_may_say_otherwise(capsys):
    assert cli.run(["run", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Model for every call whose task names none itself" in text
    for flag in ("--temperature", "--max-tokens", "--llm-timeout"):
        assert "task does not say" in text.partition(flag)[2].partition(" --")[0], flag


def test_the_help_of_all_commands_needs_no_command_module(capsys):
    assert cli.run(["--help"]) == 0
    text = capsys.readouterr().out
    for name, *_ in cli._COMMANDS:
        assert name in text


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["runs", "shw"],
        ["runs", "show"],
        ["run"],
        ["up", "--port", "x"],
        ["up", "--port", "99999"],
        ["up", "--port=-3"],
        ["up", "--sync", "2s"],
        ["ps", "-x"],
    ],
)
def test_a_usage_error_exits_2_with_a_hint(words, capsys):
    if words == ["nonsense"]:
        words = ["runs", "nonsense"]
    assert cli.run(words) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: bad_request: ")
    assert "\nhint: htdag" in said.err
    assert said.out == ""


def test_a_usage_error_is_also_json(capsys):
    assert cli.run(["runs", "show", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["class"] == "usage"


def test_common_options_may_stand_in_front(capsys, tmp_path):
    assert cli.run(["--home", str(tmp_path / "other"), "--json", "ps"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["home"] == str(tmp_path / "other")


def test_version_is_data(capsys):
    assert cli.run(["version", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"htdag", "python", "nats-py"}


def test_completion_knows_the_commands():
    assert "strategies" in alone("completion", "bash")


def test_an_unknown_service_is_refused(capsys):
    assert cli.run(["serve", "nobody"]) == 2
    said = capsys.readouterr().err
    assert all(f'"{name}"' in said for name in ("planner", "policy-gateway", "executor", "llm-worker", "identity")), (
        said
    )


def test_a_service_list_with_a_stranger_is_refused(capsys):
    assert cli.run(["up", "--only", "planner,nobody"]) == 2
    assert "no such service: nobody" in capsys.readouterr().err


def test_nothing_runs_here(capsys):
    assert cli.run(["ps"]) == 3
    assert cli.run(["down"]) == 3
    assert capsys.readouterr().err.count("error: not_running") == 2


def test_a_closed_pipe_ends_quietly(monkeypatch):
    class Closed:
        def write(self, _):
            raise BrokenPipeError

        def flush(self):
            return None

        def isatty(self):
            return False

        def fileno(self):
            return 1

    monkeypatch.setattr("sys.stdout", Closed())
    monkeypatch.setattr("os.dup2", lambda *_: None)
    assert cli.run(["version"]) == 141


def test_every_group_of_commands_has_an_example():
    for name in ("bus", "config", "epics", "llm", "models", "runs", "strategies", "tasks"):
        said = alone(name, "--help")
        assert f"htdag {name} " in said.partition("For example:")[2], said


def test_completion_knows_the_services_and_which_options_take_no_value():
    script = alone("completion", "bash")
    taking = next(line for line in script.splitlines() if "options_with_values=" in line).split("'")[1].split()
    assert {"--follow", "--stream"}.isdisjoint(taking)
    assert {"--run-id", "--home"} <= set(taking)
    assert '"planner" "policy-gateway" "executor" "llm-worker"' in script
