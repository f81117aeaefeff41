"""Layers, origins, refusals and secrets of the configuration."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from contracts.errors import Rejected
from services.runtime.config import Config, Core, Secret


class Planner(msgspec.Struct, frozen=True, kw_only=True):
    strategy: str = "standard"
    depth: int = 5
    safe: bool = False
    roles: list[str] = []
    limits: dict[str, int] = {}
    api_key: Annotated[Secret | None, msgspec.Meta(extra={"env": ("OPENAI_API_KEY",)})] = None


@pytest.fixture
def load(tmp_path: Path):
    """Config.load in a world of its own: no variable and no file of this machine."""

    def load(flags: dict[str, Any] | None = None, path: Path | None = None, **env: str) -> Config:
        world = {"HOME": str(tmp_path), "HTDAG_HOME": str(tmp_path / "home"), **env}
        return Config.load(flags, path=path, env=world, cwd=tmp_path)

    return load


def origin(config: Config, section: str, key: str) -> str:
    return next(row.origin for row in config.explain() if (row.section, row.key) == (section, key))


def shown(config: Config, section: str, key: str) -> str:
    return next(row.value for row in config.explain() if (row.section, row.key) == (section, key))


def test_defaults_hold_when_nothing_is_said(load):
    config = load()
    assert config.core.nats_url == "nats://127.0.0.1:4222"
    assert config.core.http_host == "127.0.0.1"
    assert origin(config, "core", "nats_url") == "default"


def test_flag_beats_variable_beats_file_beats_default(load, tmp_path):
    (tmp_path / "htdag.toml").write_text('[planner]\ndepth = 2\nstrategy = "a"\nsafe = true\n')
    config = load({"planner.depth": 4}, HTDAG_PLANNER__DEPTH="3", HTDAG_PLANNER__STRATEGY="b")
    section = config.section("planner", Planner)
    assert (section.depth, section.strategy, section.safe, section.roles) == (4, "b", True, [])
    assert origin(config, "planner", "depth") == "flag --depth"
    assert origin(config, "planner", "strategy") == "env HTDAG_PLANNER__STRATEGY"
    assert origin(config, "planner", "safe") == f"file {tmp_path / 'htdag.toml'}"


def test_a_flag_that_was_not_given_changes_nothing(load):
    assert load({"core.http_port": None}).core.http_port == 9464


def test_home_file_lies_over_the_users_and_under_the_working_folders(load, tmp_path):
    user = tmp_path / ".config" / "htdag"
    user.mkdir(parents=True)
    (user / "config.toml").write_text('[planner]\nstrategy = "user"\ndepth = 1\nsafe = true\n')
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "htdag.toml").write_text('[planner]\nstrategy = "home"\ndepth = 2\n')
    (tmp_path / "htdag.toml").write_text('[planner]\nstrategy = "here"\n')
    section = load().section("planner", Planner)
    assert (section.strategy, section.depth, section.safe) == ("here", 2, True)


def test_an_explicit_file_takes_the_place_of_the_found_ones(load, tmp_path):
    (tmp_path / "htdag.toml").write_text("[planner]\ndepth = 2\n")
    (tmp_path / "other.toml").write_text('[planner]\nstrategy = "other"\n')
    section = load(path=tmp_path / "other.toml").section("planner", Planner)
    assert (section.strategy, section.depth) == ("other", 5)
    assert load(HTDAG_CONFIG=str(tmp_path / "other.toml")).section("planner", Planner).strategy == "other"


def test_an_explicit_file_must_exist(load, tmp_path):
    with pytest.raises(Rejected, match="there is no"):
        load(path=tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("toml", "key", "nearest"),
    [
        ("[planner]\ndepht = 2\n", "planner.depht", "depth"),
        ("[plannr]\ndepth = 2\n", "plannr", "planner"),
        ("[core]\nhtpp_port = 1\n", "core.htpp_port", "http_port"),
    ],
)
def test_refuses_an_unknown_key_and_names_the_nearest(load, tmp_path, toml, key, nearest):
    (tmp_path / "htdag.toml").write_text(toml)
    with pytest.raises(Rejected) as refusal:
        load().section("planner", Planner)
    assert refusal.value.code == "bad_config"
    assert refusal.value.detail["key"] == key
    assert refusal.value.detail["nearest"] == nearest
    assert f"did you mean {nearest}?" in refusal.value.message


def test_refuses_an_unknown_variable(load):
    with pytest.raises(Rejected, match=r"HTDAG_PLANER__DEPTH is unknown.*did you mean planner"):
        load(HTDAG_PLANER__DEPTH="3")
    with pytest.raises(Rejected, match=r"planner\.dept is unknown .*HTDAG_PLANNER__DEPT.*did you mean depth"):
        load(HTDAG_PLANNER__DEPT="3").section("planner", Planner)


@pytest.mark.parametrize("section", ["broker", "console", "evolution", "bench"])
def test_refuses_a_section_that_nobody_reads(load, tmp_path, section):
    """Given a wish that no service would ever look at, then it is not taken in silence."""
    with pytest.raises(Rejected, match=f"HTDAG_{section.upper()}__HOST is unknown") as refusal:
        load(**{f"HTDAG_{section.upper()}__HOST": "192.0.2.1"})
    assert refusal.value.code == "bad_config"
    (tmp_path / "htdag.toml").write_text(f'[{section}]\nhost = "192.0.2.1"\n')
    with pytest.raises(Rejected, match=f"{section} is unknown"):
        load()


@pytest.mark.parametrize("text", ["[core\n", 'core = "x"\n', "[core]\nhttp_port = 70000\n", '[core]\ndrain_s = "x"\n'])
def test_refuses_a_file_that_is_wrong(load, tmp_path, text):
    (tmp_path / "htdag.toml").write_text(text)
    with pytest.raises(Rejected) as refusal:
        load()
    assert refusal.value.code == "bad_config"
    assert refusal.value.kind.exit_code == 78


def test_variables_are_read_as_the_type_of_their_field(load):
    section = load(
        HTDAG_PLANNER__DEPTH="7",
        HTDAG_PLANNER__SAFE="true",
        HTDAG_PLANNER__ROLES='["coder","tester"]',
        HTDAG_PLANNER__LIMITS='{"a":1}',
        HTDAG_PLANNER__STRATEGY="[not json",
    ).section("planner", Planner)
    assert section == Planner(depth=7, safe=True, roles=["coder", "tester"], limits={"a": 1}, strategy="[not json")


@pytest.mark.parametrize("variable", [{"HTDAG_PLANNER__DEPTH": "many"}, {"HTDAG_PLANNER__ROLES": "[1"}])
def test_refuses_a_variable_of_the_wrong_type_naming_it(load, variable):
    with pytest.raises(Rejected, match=next(iter(variable))):
        load(**variable).section("planner", Planner)


def test_secrets_come_from_the_environment_or_a_file_and_are_masked(load, tmp_path):
    assert load(OPENAI_API_KEY="k1").section("planner", Planner).api_key == "k1"
    assert load(OPENAI_API_KEY="k1", HTDAG_PLANNER__API_KEY="k2").section("planner", Planner).api_key == "k2"
    (tmp_path / "key").write_text("k3\n")
    assert load(OPENAI_API_KEY_FILE=str(tmp_path / "key")).section("planner", Planner).api_key == "k3"
    assert load(HTDAG_PLANNER__API_KEY_FILE=str(tmp_path / "key")).section("planner", Planner).api_key == "k3"
    (tmp_path / "htdag.toml").write_text(f'[planner]\napi_key_file = "{tmp_path / "key"}"\n')
    config = load()
    assert config.section("planner", Planner).api_key == "k3"
    assert shown(config, "planner", "api_key") == "***"
    assert "k3" not in str(config.explain())


def test_refuses_a_secret_in_a_file_or_a_flag(load, tmp_path):
    with pytest.raises(Rejected, match="is a secret") as refusal:
        load({"planner.api_key": "leaky"}).section("planner", Planner)
    assert "leaky" not in str(refusal.value.to_wire())
    (tmp_path / "htdag.toml").write_text('[core]\nnats_password = "leaky"\n')
    with pytest.raises(Rejected, match="set nats_password_file"):
        load()


def test_refuses_a_secret_file_that_cannot_be_read(load, tmp_path):
    with pytest.raises(Rejected, match="NATS_PASSWORD_FILE"):
        load(NATS_PASSWORD_FILE=str(tmp_path / "absent"))


def test_broker_names_of_the_ecosystem_are_understood(load):
    config = load(NATS_URL="nats://ann:pw@broker:4222", NATS_USER="ann", NATS_PASSWORD="pw")
    assert (config.core.nats_user, config.core.nats_password) == ("ann", "pw")
    assert shown(config, "core", "nats_url") == "nats://ann:***@broker:4222"
    assert "pw" not in str(config.explain())


def test_home_is_absolute_and_cannot_move_itself(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load({"core.home": "here"}).core.home == str(tmp_path / "here")
    assert load({"core.home": "flag"}, HTDAG_CORE__HOME="env").core.home == str(tmp_path / "flag")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "htdag.toml").write_text('[core]\nhome = "elsewhere"\n')
    (tmp_path / ".config" / "htdag").mkdir(parents=True)
    (tmp_path / ".config" / "htdag" / "config.toml").write_text(f'[core]\nhome = "{tmp_path / "home"}"\n')
    assert load({"core.home": "flag"}).core.home == str(tmp_path / "flag")
    with pytest.raises(Rejected, match="cannot be set in the home's own file"):
        load(HTDAG_HOME="")


def test_every_service_has_its_own_health_port():
    core = Core()
    ports = [core.http_port_of(name) for name in ("planner", "executor", "llm-worker", "console")]
    assert ports == [9464, 9465, 9469, 9470]
    assert Core(http_port=0).http_port_of("planner") == 0


def test_sections_that_nobody_read_are_explained_and_masked(load):
    config = load(HTDAG_LLM_WORKER__API_KEY="k", HTDAG_EXECUTOR__PARALLEL="3")
    assert shown(config, "llm_worker", "api_key") == "***"
    assert shown(config, "executor", "parallel") == "3"
