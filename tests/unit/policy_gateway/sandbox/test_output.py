"""Output of any kind and size becomes text that fits a reply."""

import asyncio
import json

import pytest

from services.policy_gateway.sandbox.output import (
    ENCODED_BYTES_MAX,
    SAID_BYTES_MAX,
    HeadAndTail,
    Output,
    collect,
    said,
    shown,
)


async def collected(chunks: list[bytes], bytes_max: int) -> Output:
    stream = asyncio.StreamReader()
    for chunk in chunks:
        stream.feed_data(chunk)
    stream.feed_eof()
    kept = HeadAndTail(bytes_max)
    await collect(stream, kept)
    return kept.output()


async def test_both_ends_are_kept_and_the_rest_counted() -> None:
    assert await collected([b"abc", b"def", b"g" * 100_000, b"hi"], 6) == Output(b"abc", 100_008, b"ghi")


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
async def test_both_ends_are_right_however_it_comes(size: int) -> None:
    data = b"".join(b"%07d\n" % n for n in range(40_000))
    found = await collected([data[at : at + size] for at in range(0, len(data), size)], 1_000)
    assert found == Output(data[:500], len(data), data[-500:])
    assert await collected([data[:size]], 1 << 16) == Output(data[:size], size)


def test_the_middle_is_marked_where_it_is_missing() -> None:
    done = shown(Output(b"begin", 100, b"end"))
    assert done == ("begin\n[... 92 bytes left out here ...]\nend", True, False)


def test_an_error_tells_little_of_what_was_printed() -> None:
    long = Output(b"a" * 50_000, 90_000, b"z" * 40_000)
    found = said(long, Output(b"", 0))
    assert set(found) == {"stdout", "truncated"}
    assert found["stdout"].startswith("aaa")
    assert found["stdout"].endswith("zzz")
    assert len(found["stdout"]) <= SAID_BYTES_MAX + 100
    assert said(Output(b"", 0), Output(b"oh", 2)) == {"stderr": "oh"}


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
        found = shown(Output(data[:cut], 100, data[cut:]))
        assert found == ("x\n[... 99 bytes left out here ...]\n", True, False)
    assert shown(Output(data, 100)).text.startswith("x" + letter + "\n[")


@pytest.mark.parametrize(
    "data", [b"\0" * (1 << 20), b"\xff" * (1 << 20), b"\x1b" * (1 << 20)], ids=["nul", "ff", "esc"]
)
def test_whatever_the_bytes_are_the_reply_is_small_enough(data: bytes) -> None:
    done = shown(Output(data, len(data)))
    assert len(json.dumps(done.text, ensure_ascii=False).encode()) <= ENCODED_BYTES_MAX + 100
    assert done.truncated == ("left out" in done.text)
    assert len(done.text) > 400_000
