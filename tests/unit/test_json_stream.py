"""JSON that is read while it arrives: as json reads it, however it is cut, and bounded."""

from __future__ import annotations

import gc
import json
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async.dicom import json_reading
from postdicom_async.dicom.json_reading import DEEPEST, EndsEarly, JsonReader, NotJson, TooMuch, read_json

if TYPE_CHECKING:
    from collections.abc import Iterable

LARGEST = 1 << 26
MIB = 1 << 20


def read(pieces: Iterable[bytes], *, largest: int = LARGEST) -> list[Any]:
    reader = JsonReader(largest=largest)
    found = [item for piece in pieces for items in reader.feed(piece) for item in items]
    return found + [item for items in reader.end() for item in items]


def cut_at(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def expected(text: bytes) -> list[Any] | None:
    """Return the items by json's own reading; None where it is neither a list nor an object."""
    try:
        found = json.loads(text, parse_constant=lambda name: [][int(name)])
    except (ValueError, UnicodeDecodeError):
        return None
    if isinstance(found, dict):
        return [found]
    return found if isinstance(found, list) else None


@pytest.fixture(params=[json_reading._WINDOW, 1], ids=["window", "level by level"])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reading, "_WINDOW", request.param)


TEXTS = st.text(max_size=6) | st.sampled_from(
    ["\\", '"', '\\"', "{", "[}", "\ud83d\ude00", "\u2028", "é", "\x00", "],"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.builds(
    lambda value, indent, ascii_only: json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode(
        "utf-8", "surrogatepass"
    ),
    st.lists(VALUES, max_size=5) | st.dictionaries(TEXTS, VALUES, max_size=5),
    st.sampled_from([None, 1]),
    st.booleans(),
)
WINDOWS = st.sampled_from([1, 7, json_reading._WINDOW])


@given(DOCUMENTS, st.integers(1, 40), WINDOWS)
def test_any_document_cut_anywhere_is_what_json_reads(text: bytes, size: int, window: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_reading, "_WINDOW", window)
        assert read([text]) == read(cut_at(text, 1)) == read(cut_at(text, size)) == expected(text)


@given(DOCUMENTS, st.data(), WINDOWS)
def test_any_beginning_of_a_document_ends_early(text: bytes, data: st.DataObject, window: int) -> None:
    beginning = text[: data.draw(st.integers(1, len(text) - 1))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_reading, "_WINDOW", window)
        for pieces in ([beginning], cut_at(beginning, 1)):
            with pytest.raises(EndsEarly):
                read(pieces)


ODD = [
    '"',
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "1",
    "-",
    ".",
    "e",
    "true",
    "nul",
    "NaN",
    " ",
    "\\u12",
    "\\ud83d",
    "\x01",
]
GARBAGE = st.lists(st.sampled_from(ODD), max_size=14).map("".join)


@given(GARBAGE | st.text(max_size=20), st.sampled_from(["", "[", "{", '["', '[{"a":', '{"a":"']), WINDOWS)
def test_what_is_not_json_is_refused_however_it_is_cut(garbage: str, before: str, window: int) -> None:
    text = (before + garbage).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_reading, "_WINDOW", window)
        for pieces in ([text], cut_at(text, 1), cut_at(text, 3)):
            wanted = [] if not text.strip(b" \t\n\r") else expected(text)
            if wanted is None:
                with pytest.raises(NotJson):
                    read(pieces)
            else:
                assert read(pieces) == wanted


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_encodings(encoding: str) -> None:
    text = '[{"a": "é\U0001f600"}]'.encode(encoding)
    assert read(cut_at(text, 1)) == [{"a": "é\U0001f600"}]
    with pytest.raises(EndsEarly):
        read(cut_at(text[:-1], 1))


@pytest.mark.parametrize("text", [b"", b" \r\n", b"\xef\xbb\xbf", b"[]", b" [ ] "])
def test_nothing_has_no_items(text: bytes) -> None:
    assert read([text]) == []


@pytest.mark.parametrize("text", [b'{"a": 1, "a": 2}', b'[{"a": 1, "a": 2}]'])
@pytest.mark.usefixtures("window")
def test_of_two_members_of_one_name_the_last_counts(text: bytes) -> None:
    assert read([text]) == [{"a": 2}]


# --- bounds -----------------------------------------------------------------------------------------------------------


def nested(levels: int) -> bytes:
    return b"[" + b'{"a":' * (levels - 2) + b"[]" + b"}" * (levels - 2) + b"]"


@pytest.mark.usefixtures("window")
def test_depth() -> None:
    in_strings = json.dumps([{"a": "[{" * 100, "[[[[": '"[' * 100}] * 3).encode()
    assert len(read([nested(DEEPEST)])) == 1
    assert len(read([in_strings])) == 3
    for text in (nested(DEEPEST + 1), nested(900), nested(200_000), b"[" * 200_000, b'{"a":' * 200_000):
        with pytest.raises(NotJson, match="deep"):
            read([text])


def test_an_item_is_bounded_but_not_their_number() -> None:
    many = b"[" + b",".join([b'{"a": "0123456789"}'] * 1000) + b"]"
    assert len(read([many], largest=30)) == 1000
    for text in (many, b"[" + b" " * 1000, b'["' + b"x" * 1000, b"[" + b"1" * 1000):
        with pytest.raises(TooMuch, match="large"):
            read([text], largest=15)


@pytest.mark.parametrize("value", [b"1", b"1.5", b'"}"', b"[]", b"{}", b"null", b'"\\n"'], ids=repr)
def test_a_long_list_in_an_item_is_bounded(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reading, "_MOST_VALUES", 200_000)
    piece = (value + b",") * 10_000
    with pytest.raises(TooMuch, match="many values"):
        read([b'[{"a":['] + [piece] * 2000)


@pytest.mark.parametrize("number", [b"9" * 5000, b"9" * 300_000, b"-" + b"9" * 5000])
@pytest.mark.usefixtures("window")
def test_numbers_of_many_digits_are_refused(number: bytes) -> None:
    with pytest.raises(NotJson):
        read([b"[", number, b"]"])


@pytest.mark.parametrize("name", [b"NaN", b"Infinity", b"-Infinity"])
@pytest.mark.usefixtures("window")
def test_what_is_no_number_is_refused(name: bytes) -> None:
    for text in (b'[{"a":[1,%b]}]', b'{"a":%b}', b"[%b]"):
        with pytest.raises(NotJson):
            read([text % name])


def test_one_large_item_is_read_level_by_level() -> None:
    frames = [
        {"00209113": {"vr": "SQ", "Value": [{"00200032": {"vr": "DS", "Value": [1.5, -2, n]}}]}} for n in range(9000)
    ]
    item = {"52009230": {"vr": "SQ", "Value": frames}, "00420011": {"vr": "OB", "InlineBinary": "QUJD" * 300_000}}
    item["00081030"] = {"vr": "LO", "Value": ["\\\n\u00e9\U0001f600" * 60_000]}
    for ascii_only in (True, False):
        text = json.dumps([item, {"a": 1}], ensure_ascii=ascii_only).encode()
        assert len(text) > 2 * MIB
        assert read([text]) == read(cut_at(text, 10_007)) == [item, {"a": 1}]
        assert read_json(text) == [item, {"a": 1}]


HOSTILE = {
    "empty objects": b"{},",
    "lists in lists": b"[[[]]],",
    "numbers": b"1,",
    "strings that look like objects": b'"}",',
    "escapes": b'"' + b"\\u0041" * 1000 + b'",',
    "white space": b" " * 500 + b"1,",
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("before", [b"[", b'[{"a":['])
def test_no_slice_of_work_is_long_and_little_is_held(kind: str, before: bytes) -> None:
    """Each turn of the reader is what an event loop waits for; measured in time of the processor."""
    reader = JsonReader(largest=LARGEST)
    list(reader.feed(before))
    chunk = HOSTILE[kind] * (MIB // len(HOSTILE[kind]))
    gc.collect()
    longest, started = 0.0, time.thread_time()
    for _items in reader.feed(chunk):
        longest = max(longest, time.thread_time() - started)
        started = time.thread_time()
    assert longest < 0.25


def test_small_items_are_read_in_flat_memory() -> None:
    chunk = b'{"00080018": {"vr": "UI", "Value": ["1.2.3"]}},' * 1000
    reader = JsonReader(largest=LARGEST)
    count = sum(len(items) for items in reader.feed(b"["))
    tracemalloc.start()
    try:
        for _ in range(60):
            count += sum(len(items) for items in reader.feed(chunk))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 60_000
    assert peak < 5 * MIB


def test_it_is_told_whether_more_follows() -> None:
    reader = JsonReader(largest=LARGEST)
    for piece, amid in (
        (b"[", True),
        (b"{}", False),
        (b" ", False),
        (b",", True),
        (b"{", True),
        (b"}", False),
        (b"]", False),
    ):
        list(reader.feed(piece))
        assert reader.is_amid is amid or piece == b"["
