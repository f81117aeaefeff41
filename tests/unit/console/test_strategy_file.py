"""Strategies as files."""

import pytest

from contracts.errors import Rejected
from services.console.strategy_file import read_strategy

LUA = "return {subtasks={}, strategy='atomic'}"


def test_a_script_takes_its_stage_from_its_name(tmp_path):
    path = tmp_path / "decomposition.lua"
    path.write_text(LUA)
    assert read_strategy(path, name="quick", stage=None) == {"name": "quick", "scripts": {"decomposition": LUA}}


def test_a_short_stage_name_is_understood(tmp_path):
    path = tmp_path / "x.lua"
    path.write_text(LUA)
    assert read_strategy(path, name="quick", stage="spawn")["scripts"] == {"agent_spawning": LUA}


def test_a_directory_is_a_whole_strategy(tmp_path):
    folder = tmp_path / "secure"
    folder.mkdir()
    (folder / "decompose.lua").write_text(LUA)
    (folder / "completion.lua").write_text("return 1")
    body = read_strategy(folder, name=None, stage=None)
    assert body == {"name": "secure", "scripts": {"decomposition": LUA, "completion": "return 1"}}


def test_a_toml_file_names_scripts_inline_and_by_path(tmp_path):
    (tmp_path / "done.lua").write_text(LUA)
    path = tmp_path / "secure.toml"
    path.write_text('pattern = "auth"\npriority = 10\n[scripts]\ncomplete = "done.lua"\nspawn = "return 1"\n')
    assert read_strategy(path, name=None, stage=None) == {
        "name": "secure",
        "pattern": "auth",
        "priority": 10,
        "scripts": {"completion": LUA, "agent_spawning": "return 1"},
    }


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("x.lua", LUA, "bad_request"),
        ("x.toml", "a = ", "bad_request"),
        ("x.toml", "patern = 'x'", "bad_request"),
        ("x.toml", "[scripts]\nfly = 'return 1'", "bad_request"),
        ("x.toml", "[scripts]\nspawn = 'gone.lua'", "not_found"),
        ("decomposition.lua", "--" + "x" * (1 << 20), "too_large"),
    ],
)
def test_each_mistake_has_its_code(tmp_path, name, content, code):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(Rejected) as refused:
        read_strategy(path, name="n", stage=None)
    assert refused.value.code == code
