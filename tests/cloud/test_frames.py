"""Frames: the documented layouts byte for byte, and whatever else may come."""

from __future__ import annotations

import random
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postdicom_async import ProtocolError
from postdicom_async.cloud.frames import (
    Envelope,
    MessageType,
    Response,
    decode_response,
    encode_request,
    encode_upload,
    read_envelope,
)
from tests.cloud.service import Received, envelope_frame
from tests.support.large import examples

SESSION_FRAME = "03 00 01 00 00 00 04 00 00 00 07 00 00 00 7b 22 41 22 3a 31 7d"
GENERAL_FRAME = "11 00 02 01 00 00 22 00 00 00 0a 00 00 00 7b 22 4e 22 3a 22 c3 a9 22 7d 00"
UPLOAD_FRAME = "17 00 03 00 00 00 03 00 00 00 07 00 00 00 7b 22 41 22 3a 31 7d 03 00 00 00 de ad 01 04 61 62 63 64 00"
RESPONSE_FRAME = (
    "12 00 07 00 00 00 02 01 00 00 01 02 00 00 00 6f 6b 22 00 00 00 12 00 00 00 7b 22 52 65 73 70 6f 6e 73 65 43 6f "
    "64 65 22 3a 31 7d"
)
RESPONSE = bytes.fromhex(RESPONSE_FRAME)
FUZZED = 100_000
CUT_FIELD = "a frame ends inside one of its fields"


def test_session_request() -> None:
    assert encode_request(MessageType.SESSION, 1, 4, b'{"A":1}').hex(" ") == SESSION_FRAME


def test_general_request_ends_with_the_zero_byte() -> None:
    text = '{"N":"é"}'.encode()
    assert encode_request(MessageType.GENERAL, 258, 34, text).hex(" ") == GENERAL_FRAME
    assert encode_request(MessageType.GENERAL, 258, 34, text, trailing_zero=False).hex(" ") == GENERAL_FRAME[:-3]


@pytest.mark.parametrize("data", [b"\xde\xad\x01", memoryview(b"\xde\xad\x01")])
def test_upload_request(data: bytes | memoryview) -> None:
    assert encode_upload(3, 3, b'{"A":1}', data, "abcd").hex(" ") == UPLOAD_FRAME
    assert encode_upload(3, 3, b'{"A":1}', data, "abcd", trailing_zero=False).hex(" ") == UPLOAD_FRAME[:-3]


def test_response() -> None:
    response = decode_response(RESPONSE)
    assert response == Response(18, 258, True, b"ok", 34, b'{"ResponseCode":1}')
    assert "ResponseCode" not in repr(response)
    assert read_envelope(response).refusal is None


def test_what_follows_the_last_field_is_ignored() -> None:
    assert decode_response(RESPONSE + b"\0" * 9 + b"more") == decode_response(RESPONSE)


@pytest.mark.parametrize("length", range(len(RESPONSE)))
def test_cut_anywhere_it_is_an_error(length: int) -> None:
    with pytest.raises(ProtocolError, match=CUT_FIELD):
        decode_response(RESPONSE[:length])


@pytest.mark.parametrize("length", [0, -1, -(2**31)])
def test_a_length_of_zero_or_less_is_an_empty_text(length: int) -> None:
    frame = struct.pack("<HIIBi", 18, 7, 258, 1, length) + struct.pack("<ii", 34, length) + b"behind"
    assert decode_response(frame) == Response(18, 258, True, b"", 34, b"")


@pytest.mark.parametrize("length", [40, 1000, 2**31 - 1])
@pytest.mark.parametrize("at", [11, 21])
def test_a_length_beyond_the_frame_is_an_error_and_takes_no_memory(length: int, at: int) -> None:
    frame = RESPONSE[:at] + struct.pack("<i", length) + RESPONSE[at + 4 :]
    tracemalloc.start()
    with pytest.raises(ProtocolError, match=CUT_FIELD):
        decode_response(frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 1024


def read(frame: bytes) -> Response | Envelope | None:
    """Do all that is done with a frame that came; None for a protocol error. Anything else raised fails the test."""
    try:
        response = decode_response(frame)
        return read_envelope(response)
    except ProtocolError:
        return None


def test_fuzzed_frames_are_an_answer_or_a_protocol_error() -> None:
    """Well-formed frames with bytes changed, cut, put in and doubled; the same ones at each run."""
    chance = random.Random(20)
    request = Received(1, 17, 5, 3, b"", b"", b"", b"")
    seeds = [
        RESPONSE,
        envelope_frame(request, {"ResponseCode": 1, "ResponseMessage": {"Success": True, "Result": "x" * 50}}),
        envelope_frame(request, {"ResponseCode": 0, "ResponseMessage": "[[[1]]]", "Message": None}, flag=0),
        envelope_frame(request, b"null"),
        envelope_frame(request, b'{"ResponseCode":"1","ResponseMessage":"{\\"Success\\":\\"false\\"}"}'),
    ]
    read_ones = 0
    for _ in range(FUZZED):
        frame = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 5)):
            mutate(frame, chance)
        read_ones += read(bytes(frame)) is not None
    assert FUZZED // 20 < read_ones < FUZZED - FUZZED // 20


def mutate(frame: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(frame) + 1)
    match chance.randrange(5):
        case 0:
            frame[at : at + 1] = chance.randbytes(1)
        case 1:
            del frame[at : at + chance.randrange(1, 20)]
        case 2:
            frame[at:at] = chance.randbytes(chance.randrange(1, 20))
        case 3:
            frame[at : at + 4] = struct.pack("<i", chance.choice([-1, 0, 2**31 - 1, len(frame), 7]))
        case _:
            frame += frame[at:]


@settings(max_examples=examples(500), deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from([4, 6, 18]), st.integers(0, 2**32 - 1), st.booleans(), st.binary(), st.integers(-5, 99), st.binary()
)
def test_what_is_in_a_frame_comes_out(
    kind: int, number: int, flag: bool, message: bytes, management: int, result: bytes
) -> None:
    head = struct.pack("<HIIBi", kind, 3, number, flag, len(message)) + message
    frame = head + struct.pack("<ii", management, len(result)) + result
    assert decode_response(frame) == Response(kind, number, flag, message, management, result)
