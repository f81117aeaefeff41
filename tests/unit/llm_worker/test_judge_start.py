"""A judge that does not come up: either this machine can never have one, or it has no room now."""

import errno

import pytest
import structlog

from contracts.errors import Rejected
from services.llm_worker.judging import lane
from services.llm_worker.judging.judge import Judge

SCHEMA = {"type": "object"}


async def refusal() -> Rejected:
    judge = Judge(structlog.get_logger())
    try:
        with pytest.raises(Rejected) as refused:
            await judge.check_schema(SCHEMA)
        return refused.value
    finally:
        await judge.close()


@pytest.mark.parametrize(
    ("ends", "code"),
    [("kill -9 $$", "provider_overloaded"), ("exit 1", "missing_dependency")],
    ids=["killed by the kernel", "by its own word"],
)
async def test_what_the_kernel_ends_had_no_room_and_what_ends_itself_lacks_something(monkeypatch, ends, code):
    monkeypatch.setattr(lane, "_command", lambda _: ["/bin/sh", "-c", ends])
    assert (await refusal()).code == code


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOMEM, "provider_overloaded"), (errno.ENOENT, "missing_dependency")]
)
async def test_a_machine_without_memory_is_told_from_one_without_the_program(monkeypatch, number, code):
    async def fail(*_: object, **__: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(lane, "start", fail)
    assert (await refusal()).code == code
