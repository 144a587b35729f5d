"""The frames: layout, what is cut short, and whatever else may come."""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async.emulator.cloud.frames import BadFrame, CloudRequest, decode_request, encode_response
from tests.emulator.cloud_support import decode, encode

A = '{"A":1}'
VECTORS = {
    "03 00 01 00 00 00 04 00 00 00 07 00 00 00 7b 22 41 22 3a 31 7d": CloudRequest(3, 1, 4, A),
    "11 00 02 01 00 00 22 00 00 00 0a 00 00 00 7b 22 4e 22 3a 22 c3 a9 22 7d 00": CloudRequest(
        17, 258, 34, '{"N":"é"}', trailing=b"\x00"
    ),
    (
        "17 00 03 00 00 00 03 00 00 00 07 00 00 00 7b 22 41 22 3a 31 7d 03 00 00 00 de ad 01 04 61 62 63 64 00"
    ): CloudRequest(23, 3, 3, A, memoryview(b"\xde\xad\x01"), "abcd", b"\x00"),
}
RESPONSE = bytes.fromhex(
    "12 00 07 00 00 00 02 01 00 00 01 02 00 00 00 6f 6b 22 00 00 00 12 00 00 00 7b 22 52 65 73 70 6f 6e 73 65 43 6f 64"
    " 65 22 3a 31 7d"
)
"""The published examples of requests, and that of an answer."""

VECTOR = pytest.mark.parametrize(("text", "request_"), VECTORS.items(), ids=["session", "general", "upload"])
HEAD = struct.Struct("<HIii")


@VECTOR
def test_requests(text: str, request_: CloudRequest) -> None:
    frame = bytes.fromhex(text)

    assert decode_request(frame) == request_
    written = encode(
        request_.message_type,
        request_.message_id,
        request_.management_type,
        request_.text.encode(),
        bytes(request_.data),
        request_.user_text,
    )
    assert written == frame, "these tests' own client"


def test_the_answer() -> None:
    request = CloudRequest(17, 258, 34, "")

    assert encode_response(18, 7, request, b'{"ResponseCode":1}', message="ok") == RESPONSE
    assert len(RESPONSE) == 43


def test_an_answer_with_more_than_ascii_and_no_success() -> None:
    frame = encode_response(
        6, 0xFFFF_FFFE, CloudRequest(23, 0xFFFF_FFFF, -1, ""), '"ł"'.encode(), success=0, message="źle"
    )

    answer = decode(frame)

    assert (answer.message_type, answer.own_id, answer.requested_id) == (6, 0xFFFF_FFFE, 0xFFFF_FFFF)
    assert (answer.success, answer.message, answer.management_type, answer.envelope) == (0, "źle", -1, "ł")


@pytest.mark.parametrize("tail", [b"", b"\x00", b"\x00\x00", b"x" * 100_000])
@VECTOR
def test_what_follows_the_last_field_does_not_matter(text: str, request_: CloudRequest, tail: bytes) -> None:
    frame = bytes.fromhex(text).removesuffix(b"\x00") + tail

    found = decode_request(frame)

    assert (found.text, found.data, found.user_text) == (request_.text, request_.data, request_.user_text)
    assert found.trailing == tail[:64]


@VECTOR
def test_a_frame_cut_anywhere_is_none(text: str, request_: CloudRequest) -> None:
    frame = bytes.fromhex(text)
    for length in range(len(frame) - len(request_.trailing)):
        with pytest.raises(BadFrame):
            decode_request(frame[:length])


@pytest.mark.parametrize("length", [0, -1, -(2**31)])
def test_a_text_without_a_length_is_empty(length: int) -> None:
    found = decode_request(HEAD.pack(17, 1, 1, length) + b"\x00")

    assert (found.text, found.trailing) == ("", b"\x00")


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "head"),
        (HEAD.pack(18, 1, 1, 0), "message type 18"),
        (HEAD.pack(0, 1, 1, 0), "message type 0"),
        (HEAD.pack(17, 1, 1, 1), "JSON text"),
        (HEAD.pack(17, 1, 1, 2**31 - 1), "JSON text"),
        (HEAD.pack(17, 1, 1, 2) + b"\xc3(", "JSON text is not UTF-8"),
        (HEAD.pack(17, 1, 1, 3) + b"\xed\xa0\x80", "JSON text is not UTF-8"),
        (HEAD.pack(23, 1, 1, 0) + struct.pack("<i", -1) + bytes(9), "file data is negative"),
        (HEAD.pack(23, 1, 1, 0) + struct.pack("<i", 2**31 - 1) + bytes(9), "file data"),
        (HEAD.pack(23, 1, 1, 0) + struct.pack("<i", 0), "length of the user UUID"),
        (HEAD.pack(23, 1, 1, 0) + struct.pack("<iB", 0, 255) + bytes(254), "user UUID"),
        (HEAD.pack(23, 1, 1, 0) + struct.pack("<iB", 0, 1) + b"\xff", "user UUID is not UTF-8"),
    ],
)
def test_frames_that_are_none(frame: bytes, reason: str) -> None:
    with pytest.raises(BadFrame, match=reason):
        decode_request(frame)


def test_lengths_are_believed_only_once_the_bytes_are_there() -> None:
    data = bytes(4 * 1024 * 1024)
    whole = encode(23, 1, 3, b"{}", data, "u")
    claims = [HEAD.pack(kind, 1, 1, 2**31 - 1) + bytes(100) for kind in (3, 17, 23)]
    tracemalloc.start()
    try:
        for claim in claims:
            with pytest.raises(BadFrame):
                decode_request(claim)
        found = decode_request(whole)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert found.data == data
    assert peak < 100_000, "data are a view of the frame"


def test_neither_frames_nor_errors_show_what_is_in_them() -> None:
    request = decode_request(encode(23, 1, 3, b'{"A":"secret"}', b"secret", "secret"))

    assert "secret" not in repr(request)
    for hostile in (HEAD.pack(17, 1, 1, 9) + b"\xffsecret\xff\xff", HEAD.pack(17, 1, 1, 99) + b"secret"):
        with pytest.raises(BadFrame) as caught:
            decode_request(hostile)
        assert "secret" not in repr(caught.value)
        assert caught.value.__context__ is None


KINDS = st.sampled_from([3, 17, 23])
NUMBERS = st.integers(0, 2**32 - 1)


@given(KINDS, NUMBERS, st.integers(-(2**31), 2**31 - 1), st.text(), st.binary(), st.text(alphabet="0aé-", max_size=100))
def test_whatever_is_written_is_read(
    kind: int, number: int, management: int, text: str, data: bytes, user: str
) -> None:
    raw = text.encode()
    head = HEAD.pack(kind, number, management, len(raw)) + raw
    if kind == 23:
        head += struct.pack("<i", len(data)) + data + bytes([len(user.encode())]) + user.encode()

    found = decode_request(head + b"\x00")

    expected = (data, user) if kind == 23 else (b"", "")
    assert (found.message_type, found.message_id, found.management_type) == (kind, number, management)
    assert (found.text, (bytes(found.data), found.user_text)) == (text, expected)
    assert found.trailing == b"\x00"


@given(st.binary(max_size=200) | st.builds(lambda kind, rest: struct.pack("<H", kind) + rest, KINDS, st.binary()))
def test_whatever_comes_is_read_or_refused(frame: bytes) -> None:
    with suppress(BadFrame):
        found = decode_request(frame)
        assert found.message_type in {3, 17, 23}
        assert len(found.text.encode()) + len(found.data) <= len(frame)


@given(st.integers(0, 33), st.integers(0, 255))
def test_a_flipped_byte_raises_nothing_else(at: int, value: int) -> None:
    frame = bytearray(bytes.fromhex(list(VECTORS)[2]))
    frame[at] = value
    with suppress(BadFrame):
        assert decode_request(bytes(frame)).message_type in {3, 17, 23}
