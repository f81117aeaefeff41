"""Headers are read as nats-py reads them where they are well formed, and as the broker does where they are not."""

from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client

from services.runtime.genuine import HANDED_OUT, HEADER_STREAM, stream_named
from services.runtime.link import header_block, header_text
from services.runtime.nats_client import ToughClient

READ = ToughClient._parse_header_lines
NAMES = st.one_of(st.sampled_from(["Key", "Nats-Sequence", ""]), st.text("abC-_.!", min_size=1, max_size=8))
VALUES = st.binary(max_size=12).map(lambda value: value.replace(b"\r\n", b""))
LINES = st.one_of(
    st.binary(max_size=20).map(lambda line: line.replace(b":", b"")),
    st.tuples(NAMES.map(str.encode), VALUES).map(b":".join),
)


@given(st.lists(LINES, max_size=5).map(b"\r\n".join))
@example(b"A: 1\r\nB:2\r\nC:\t3 \r\n")
@example(b"A: \xff\xfe\r\nB\xc3: x\r\n")
@example(b"A:\xc2\xa0x\xc2\xa0")
@example(b"A: 1\r\nA: 2\r\n")
def test_a_block_is_read_as_nats_py_reads_it(raw):
    theirs = Client._parse_header_lines(raw)
    theirs.pop("", None)
    assert READ(raw) == theirs


@given(st.dictionaries(st.from_regex(r"\A[A-Za-z-]{1,12}\Z"), st.text(max_size=20), max_size=5))
def test_no_value_adds_a_header(headers):
    block = header_block(header_text(headers))
    assert set(READ(block[len(b"NATS/1.0\r\n") :])) == set(headers)


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_what_stands_before_the_name_of_the_stream_never_makes_it_believed(before, after):
    name = f"{HEADER_STREAM}:".encode()
    block = b"NATS/1.0\r\n" + before + name + b" MINE\r\n" + after + b"\r\n\r\n"
    first = block.find(name)
    assert (stream_named(block) == "MINE") == (
        block[first - 2 : first] == b"\r\n" and block.startswith(name + b" MINE\r\n", first)
    )


@given(st.lists(LINES, max_size=3), st.lists(LINES, max_size=3))
def test_what_was_handed_out_twice_names_no_stream(before, after):
    name, mark = f"{HEADER_STREAM}: MINE".encode(), f"{HANDED_OUT}: MINE".encode()
    block = b"\r\n".join([b"NATS/1.0", name, *before, mark, *after, b"Nats-Sequence: 1"])
    once, twice = block + b"\r\n\r\n", block + b"\r\n" + mark + b"\r\n\r\n"
    assert (stream_named(once), stream_named(twice)) == ("MINE", "")


@given(st.binary(max_size=12).filter(lambda said: b"\r\n" not in said))
def test_a_mark_in_the_middle_of_a_line_is_one(before):
    name, mark = f"{HEADER_STREAM}: MINE".encode(), f"{HANDED_OUT}: MINE".encode()
    block = b"\r\n".join([b"NATS/1.0", name, before + mark, mark, b"", b""])
    assert stream_named(block) == ""
