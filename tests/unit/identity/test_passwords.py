"""Passwords cost this machine something each: only so many at a time."""

import asyncio

from contracts.errors import Rejected
from services.identity.passwords import WAITING_MAX, Passwords


async def test_those_beyond_a_short_queue_are_sent_back_at_once() -> None:
    passwords = Passwords()
    phc = await passwords.hashed("correct horse battery staple")
    told = await asyncio.gather(
        *(passwords.fits("correct horse battery staple", phc) for _ in range(WAITING_MAX + 4)), return_exceptions=True
    )
    refused = [one for one in told if isinstance(one, Rejected)]
    assert told[:WAITING_MAX] == [True] * WAITING_MAX
    assert [(one.code, one.detail["retry_after"]) for one in refused] == [("rate_limited", 1)] * 4
    assert await passwords.fits("correct horse battery staple", phc), "afterwards there is room again"


async def test_the_first_comparison_needs_no_second_place_in_the_queue() -> None:
    passwords = Passwords()
    told = await asyncio.gather(*(passwords.fits("guess", None) for _ in range(WAITING_MAX)))
    assert told == [False] * WAITING_MAX
