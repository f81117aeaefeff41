"""Output of any kind and size becomes text that fits a reply."""

import asyncio
import json

import pytest

from services.policy_gateway.sandbox.output import ENCODED_BYTES_MAX, Output, collect, shown


async def collected(chunks: list[bytes], bytes_max: int) -> Output:
    stream = asyncio.StreamReader()
    for chunk in chunks:
        stream.feed_data(chunk)
    stream.feed_eof()
    return await collect(stream, bytes_max)


async def test_the_beginning_is_kept_and_the_rest_counted() -> None:
    assert await collected([b"abc", b"def", b"g" * 100_000], 5) == Output(b"abcde", 100_006)


async def test_nothing_is_nothing() -> None:
    assert shown(await collected([], 5)) == ("", False, False)


def test_text_stays_as_it_is() -> None:
    text = "grüße � \x1b[1m\n"
    assert shown(Output(text.encode(), len(text.encode()))) == (text, False, False)


def test_bytes_that_are_no_text_are_replaced_and_said_so() -> None:
    assert shown(Output(b"a\xff\xfeb", 4)) == ("a��b", False, True)


@pytest.mark.parametrize("letter", ["ü", "€", "🙂"])
def test_a_cut_through_a_letter_is_no_loss(letter: str) -> None:
    data = ("x" + letter).encode()
    for cut in range(2, len(data)):
        assert shown(Output(data[:cut], 100)) == ("x", True, False)
    assert shown(Output(data, 100)) == ("x" + letter, True, False)


@pytest.mark.parametrize(
    "data", [b"\0" * (1 << 20), b"\xff" * (1 << 20), b"\x1b" * (1 << 20)], ids=["nul", "ff", "esc"]
)
def test_whatever_the_bytes_are_the_reply_is_small_enough(data: bytes) -> None:
    done = shown(Output(data, len(data)))
    assert len(json.dumps(done.text, ensure_ascii=False).encode()) <= ENCODED_BYTES_MAX
    assert done.truncated == (len(done.text) < len(data))
    assert len(done.text) > 400_000
