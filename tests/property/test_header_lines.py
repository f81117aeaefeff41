"""The quick reader of headers says what nats-py's own says, of every block of bytes."""

from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client

from services.runtime.link import header_block, header_text
from services.runtime.nats_client import PlainClient

READ = PlainClient._parse_header_lines
LINES = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.tuples(
            st.sampled_from([b"Key", b" Key ", b"two words", b"", b"K\x1cey", b"\xc3\xa4"]), st.binary(max_size=12)
        ).map(b":".join),
    ),
    max_size=5,
).map(b"\r\n".join)


@given(LINES)
@example(b"A: 1\r\nB:2\r\nC:\t3 \r\n")
@example(b"A: \xff\xfe\r\nB\xc3: x\r\n")
@example(b"A:\xc2\xa0x\xc2\xa0")
@example(b"no colon\r\n: no name\r\n")
def test_every_block_is_read_as_nats_py_reads_it(raw):
    assert READ(raw) == Client._parse_header_lines(raw)


@given(st.dictionaries(st.from_regex(r"\A[A-Za-z-]{1,12}\Z"), st.text(max_size=20), max_size=5))
def test_no_value_adds_a_header(headers):
    block = header_block(header_text(headers))
    assert set(READ(block[len(b"NATS/1.0\r\n") :])) == set(headers)
