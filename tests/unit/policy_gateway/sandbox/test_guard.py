"""What stands at /code/.git while a coder's program runs, and who takes it away."""

import asyncio
import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.errors import Rejected
from services.policy_gateway.sandbox import guard
from services.policy_gateway.sandbox.guard import guarded
from tests.support.eventually import eventually


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    return tmp_path / "code"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[int]:
    """The lock in the hand of another gateway, which is just taking the folder away."""
    (tmp_path / "guards").mkdir()
    with (tmp_path / "guards" / "shop").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


async def test_an_empty_folder_stands_in_as_long_as_somebody_needs_it(code: Path, tmp_path: Path) -> None:
    async with guarded(code, "shop", tmp_path):
        async with guarded(code, "shop", tmp_path):
            assert list(code.iterdir()) == [code / ".git"]
        assert (code / ".git").is_dir()
    assert list(code.iterdir()) == []


async def test_a_folder_of_the_user_is_left_alone(code: Path, tmp_path: Path) -> None:
    (code / ".git").mkdir()
    async with guarded(code, "shop", tmp_path):
        pass
    assert (code / ".git").is_dir()


async def test_whoever_comes_last_takes_the_lock_away_too(code: Path, tmp_path: Path) -> None:
    async with guarded(code, "shop", tmp_path):
        async with guarded(code, "shop", tmp_path):
            pass
        assert [path.name for path in (tmp_path / "guards").iterdir()] == ["shop"]
    assert list((tmp_path / "guards").iterdir()) == []


async def test_a_lock_that_was_taken_away_meanwhile_protects_nothing(
    code: Path, tmp_path: Path, elsewhere: int
) -> None:
    calling = asyncio.create_task(_enter_and_leave(code, tmp_path))
    await asyncio.sleep(0)
    (tmp_path / "guards" / "shop").unlink()
    fcntl.flock(elsewhere, fcntl.LOCK_UN)
    await eventually(calling.done)
    assert calling.exception() is None
    assert list((tmp_path / "guards").iterdir()) == []


async def _enter_and_leave(code: Path, state: Path) -> None:
    async with guarded(code, "shop", state):
        assert (code / ".git").is_dir()
        assert (state / "guards" / "shop").exists()


async def test_whoever_meets_another_at_the_door_waits_for_it(code: Path, tmp_path: Path, elsewhere: int) -> None:
    async def call() -> None:
        async with guarded(code, "shop", tmp_path):
            assert (code / ".git").is_dir()

    calling = asyncio.create_task(call())
    await asyncio.sleep(0)
    assert not calling.done()
    fcntl.flock(elsewhere, fcntl.LOCK_UN)
    await eventually(calling.done)
    assert calling.exception() is None


async def test_a_gateway_that_stands_still_with_the_lock_stops_no_other(
    code: Path, tmp_path: Path, elsewhere: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "LOCK_AGAIN_S", 0.001)
    with pytest.raises(Rejected) as refused:
        async with guarded(code, "shop", tmp_path):
            pytest.fail("the folder may vanish at any moment")
    assert refused.value.code == "file_error"
    assert list(code.iterdir()) == []
