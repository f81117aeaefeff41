"""Files of tasks: every way they can be wrong has its own code, and says where."""

import json

import pytest

from contracts.errors import Rejected
from contracts.limits import REQUEST_BYTES_MAX
from services.console.input_file import parse
from services.console.task_file import looks_like_file, read_plan


@pytest.fixture
def write(tmp_path):
    def to(content) -> str:
        path = tmp_path / "tasks.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return str(path)

    return to


@pytest.mark.parametrize("content", [[{"id": "a"}], {"tasks": [{"id": "a"}]}, {"id": "a"}])
def test_a_list_an_object_and_one_task_are_plans(write, content):
    plan, remarks = read_plan(write(content))
    assert plan["tasks"] == [{"id": "a"}]
    assert remarks == []


def test_a_mistyped_field_is_remarked(write):
    _, remarks = read_plan(write([{"id": "a", "depend_on": []}, {"id": "b", "depend_on": []}]))
    assert remarks == ["task field depend_on is not known and was ignored (first in a)"]


def test_broken_json_says_line_and_column(write):
    with pytest.raises(Rejected) as refused:
        read_plan(write(b'[\n  {"id": "a",}\n]'))
    assert refused.value.code == "bad_json"
    assert (refused.value.detail["line"], refused.value.detail["column"]) == (2, 14)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"\xff\xfe", "bad_json"),
        (b"", "bad_json"),
        (b"NaN", "bad_json"),
        (b"[" * 100_000, "bad_json"),
        (b'"text"', "bad_request"),
        ({"goal": "x"}, "bad_request"),
        ({"tasks": {}}, "bad_request"),
        ([1], "bad_request"),
        (b" " * (REQUEST_BYTES_MAX + 1), "too_large"),
    ],
)
def test_each_mistake_has_its_code(write, content, code):
    with pytest.raises(Rejected) as refused:
        read_plan(write(content))
    assert refused.value.code == code


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(Rejected) as refused:
        read_plan(str(tmp_path / "none.json"))
    assert refused.value.code == "not_found"


def test_a_goal_is_not_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan").write_text("[]")
    assert not looks_like_file("Build user authentication with JWT")
    assert not looks_like_file("x" * 100_000)
    assert not looks_like_file("a\0b")
    assert looks_like_file("missing.json")
    assert looks_like_file("plan")
    assert looks_like_file("/dev/stdin")


def test_a_file_that_is_not_utf_8_is_no_json() -> None:
    with pytest.raises(Rejected) as refused:
        parse(b'[{"id":"\xff"}]', "tasks.json")
    assert refused.value.code == "bad_json"
    assert "UTF-8" in str(refused.value)
