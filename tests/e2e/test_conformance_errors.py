"""B12: `htdag conformance errors` produces every documented code, and leaves the instance and the machine as it was."""

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import CATALOGUE
from services.console.conformance.errors.answers import asked_of_scratch
from tests.e2e.instance import Instance
from tests.support.eventually import eventually

pytestmark = [pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    # Not pytest's folder: the path of a socket has a hundred characters at most.
    with tempfile.TemporaryDirectory(prefix="htdag-e2e-") as folder:
        made = Instance(tmp_path_factory.mktemp("home"), TMPDIR=folder)
        made.up("--model", "mock")
        yield made
        made("down")


def kept(instance: Instance) -> list[Any]:
    """What a user has in an instance, and what was spent."""
    asked = (
        ("users", "list"), ("approvals", "list"), ("epics", "list"), ("strategies", "list"), ("policy", "roles"),
    )  # fmt: skip
    limits = instance("llm", "limits", "--json").document
    money = [limits["spent_usd_micros"], limits["reserved_usd_micros"]]
    return [money, *(instance(*words, "--json").document for words in asked)]


def left(instance: Instance) -> list[str]:
    """What commands left behind in the folder of temporary files."""
    return [path.name for path in Path(instance.env["TMPDIR"]).glob("htdag-conformance-*")]


def test_every_code_is_produced_and_keeps_to_the_contract(instance: Instance) -> None:
    before = kept(instance)
    said = instance("conformance", "errors", "--json")
    document = said.document
    points = {point["name"]: point for point in document["points"]}
    assert {name: point for name, point in points.items() if point["outcome"] != "pass"} == {}
    assert (said.code, document["passed"], list(points)) == (0, True, list(CATALOGUE))
    assert f"{len(CATALOGUE)} codes as they should be, 0 not, 0 not produced" in said.err
    assert kept(instance) == before
    assert left(instance) == []
    assert instance("ps").code == 0


def test_without_a_scratch_instance_the_codes_that_need_one_are_notes_and_counted(instance: Instance) -> None:
    said = instance("conformance", "errors", "--no-scratch", "--json")
    notes = [point["name"] for point in said.document["points"] if point["outcome"] == "note"]
    assert (said.code, sorted(notes)) == (0, sorted(asked_of_scratch()))
    assert f"0 not, {len(notes)} not produced" in said.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_who_stops_it_stops_the_scratch_instance(instance: Instance, number: signal.Signals) -> None:
    # A test run of its own may have HUP ignored, and then so would the command.
    before = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    command = instance.start("conformance", "errors")
    signal.signal(number, before)
    try:
        tmp = Path(instance.env["TMPDIR"])
        await eventually(lambda: list(tmp.glob("htdag-conformance-*/home/instance.json")), timeout_s=30)
        command.send_signal(number)
        assert command.wait(timeout=30) != 0
    finally:
        command.kill()
        command.communicate(timeout=10)
    assert left(instance) == []
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp) not in "\n".join(line for line in running.splitlines() if "htdag-conformance-" in line)
