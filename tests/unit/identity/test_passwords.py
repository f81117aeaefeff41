"""Passwords cost this machine something each: only so many at a time."""

import asyncio

import msgspec
import pytest

from contracts.errors import Rejected
from services.identity.config import MEMORY_KIB, MEMORY_KIB_MIN, Config
from services.identity.passwords import HOME_WAITING_MAX, WAITING_MAX, Passwords


async def test_those_beyond_a_short_queue_are_sent_back_at_once() -> None:
    passwords = Passwords(MEMORY_KIB_MIN)
    phc = await passwords.hashed("correct horse battery staple")
    told = await asyncio.gather(
        *(passwords.fits("correct horse battery staple", phc) for _ in range(WAITING_MAX + 4)), return_exceptions=True
    )
    refused = [one for one in told if isinstance(one, Rejected)]
    assert told[:WAITING_MAX] == [True] * WAITING_MAX
    assert [(one.code, one.detail["retry_after"]) for one in refused] == [("rate_limited", 1)] * 4
    assert await passwords.fits("correct horse battery staple", phc), "afterwards there is room again"


async def test_the_first_comparison_needs_no_second_place_in_the_queue() -> None:
    passwords = Passwords(MEMORY_KIB_MIN)
    told = await asyncio.gather(*(passwords.fits("guess", None) for _ in range(WAITING_MAX)))
    assert told == [False] * WAITING_MAX


async def test_strangers_who_fill_the_queue_leave_places_to_who_reads_the_home() -> None:
    """Else guessing names that nobody has, as fast as they are refused, would keep the owner from the way back."""
    passwords = Passwords(MEMORY_KIB_MIN)
    phc = await passwords.hashed("correct horse battery staple")
    strangers = [asyncio.create_task(passwords.fits("guess", None)) for _ in range(WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Rejected, match="rate_limited"):
        await passwords.fits("guess", None)
    assert await passwords.fits("correct horse battery staple", phc, home=True)
    assert await asyncio.gather(*strangers) == [False] * WAITING_MAX
    at_home = [passwords.fits("guess", None, home=True) for _ in range(HOME_WAITING_MAX + 1)]
    told = await asyncio.gather(*at_home, return_exceptions=True)
    assert [isinstance(one, Rejected) for one in told].count(True) == 1, "there, too, not without end"


@pytest.mark.parametrize("memory_kib", [MEMORY_KIB_MIN, MEMORY_KIB])
async def test_a_password_is_compared_as_it_was_set_whatever_is_configured_now(memory_kib: int) -> None:
    set_then = await Passwords(memory_kib).hashed("correct horse battery staple")
    assert set_then.startswith(f"$argon2id$v=19$m={memory_kib},t=3,p=4$")
    now = Passwords(MEMORY_KIB)
    assert await now.fits("correct horse battery staple", set_then)
    assert not await now.fits("correct horse battery", set_then)


def test_less_memory_than_safe_is_refused() -> None:
    assert Config().password_memory_kib == MEMORY_KIB == 65_536
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"password_memory_kib": MEMORY_KIB_MIN - 1}, Config)
