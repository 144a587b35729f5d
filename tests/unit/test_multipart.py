"""multipart/related: whole, in pieces, cut, damaged, hostile."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from postdicom_async.dicomweb.multipart import (
    MultipartDamage,
    PartEnd,
    PartEvent,
    PartEvents,
    PartStart,
    reader_for,
)
from postdicom_async.dicomweb.store import part_framing
from tests.support.bodies import DICOM, Multipart, multipart_related
from tests.support.ids import shown
from tests.support.large import examples

Parts = list[tuple[dict[str, str], bytes]]
DICOM_HEADER = {"content-type": DICOM}


def pieces_of(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return (data[start:end] for start, end in pairwise(edges) if start < end)


class Reading:
    """A reader whose findings are given back call by call, those before the damage first."""

    def __init__(self, content_type: str, *, marked: bool = True, max_parts: int = 10) -> None:
        self._found = PartEvents()
        self._reader = reader_for(content_type, self._found, end_is_marked=marked, max_parts=max_parts)

    def feed(self, piece: bytes) -> Iterator[PartEvent]:
        return self._events(lambda: self._reader.feed(piece))

    def close(self) -> Iterator[PartEvent]:
        return self._events(self._reader.close)

    def _events(self, call: Callable[[], None]) -> Iterator[PartEvent]:
        try:
            call()
        finally:
            found, self._found[:] = list(self._found), ()
            yield from found

    def events(self, pieces: Iterable[bytes]) -> Iterator[PartEvent]:
        for piece in pieces:
            yield from self.feed(piece)
        yield from self.close()


def read(
    content_type: str, pieces: Iterable[bytes], *, marked: bool = True, max_parts: int = 1000
) -> tuple[Parts, MultipartDamage | None]:
    """Return the parts that were whole, and the damage that ended the reading."""
    whole: Parts = []
    headers: dict[str, str] = {}
    data: list[bytes] | None = None
    try:
        for event in Reading(content_type, marked=marked, max_parts=max_parts).events(pieces):
            if isinstance(event, PartStart):
                assert data is None
                headers, data = event.headers, []
            elif isinstance(event, PartEnd):
                assert data is not None
                whole.append((headers, b"".join(data)))
                data = None
            else:
                assert data is not None
                data.append(event)
    except MultipartDamage as damage:
        return whole, damage
    assert data is None
    return whole, None


def parts_of(made: Multipart, pieces: Iterable[bytes] | None = None) -> list[bytes]:
    parts, damage = read(made.content_type, [made.body] if pieces is None else pieces)
    assert damage is None
    return [data for _, data in parts]


ODD_DATA = [
    b"",
    b"\r\n",
    b"\r\n\r\n",
    b"--",
    b"\r\n--",
    b"\r\n--b0undary-of-the-test",
    b"--b0undary-of-the-tests--",
    b"b0undary-of-the-tests",
    b"\n--b0undary-of-the-tests\r\n",
    b"\r--b0undary-of-the-tests\r\n",
    b"\r" * 100,
    b"\r\n" * 100,
    bytes(range(256)) * 3,
    bytes(5000),
]
FORMS: list[dict[str, Any]] = [
    {},
    {"preamble": b"This is a message in several parts."},
    {"preamble": b"line\r\nline"},
    {"preamble": b"-- no boundary"},
    {"leading_crlf": True},
    {"final_crlf": False},
    {"epilogue": b"\r\nand more --b0undary-of-the-tests\r\n"},
    {"quoted": False},
    {"boundary": "DICOM DATA BOUNDARY"},
    {"boundary": "'()+_,-./:=?"},
    {"boundary": "-"},
    {"boundary": "--"},
    {"boundary": "x", "quoted": False},
    {"boundary": "b" * 70},
    {"boundary": "b" * 200},
    {"part_headers": {"Content-Type": DICOM, "MIME-Version": "1.0", "Content-Location": "http://x/y"}},
    {"part_headers": {"content-TYPE": DICOM}},
    {"part_headers": {"Content-Type": f'{DICOM};\ttransfer-syntax="1.2"'}},
    {"part_headers": {}},
    {"part_headers": lambda _index, part: {"Content-Type": DICOM, "Content-Length": str(len(part))}},
    {"part_headers": [(f"X-Header-{n}", "v" * 200) for n in range(30)]},
    {"part_headers": {"Content-Type": DICOM, "X-Name": "M\xfcller"}},
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=lambda form: shown(form)[:50])
@pytest.mark.parametrize("by", [None, 1, 2, 3, 7, 100])
def test_every_form_in_every_size(form: dict[str, Any], by: int | None) -> None:
    boundary = form.get("boundary", "")
    contents = [data for data in ODD_DATA if not boundary or f"--{boundary}".encode() not in data]
    made = multipart_related(contents, **form)
    step = by or len(made.body)
    assert parts_of(made, [made.body[at : at + step] for at in range(0, len(made.body), step)]) == contents


def test_headers_are_lower_case_and_types_are_read() -> None:
    made = multipart_related([b"x"], part_headers={"CONTENT-TYPE": f"{DICOM}; transfer-syntax=1.2", "X-Y": " z"})
    parts, _ = read(made.content_type, [made.body])
    assert parts == [({"content-type": f"{DICOM}; transfer-syntax=1.2", "x-y": "z"}, b"x")]
    media_type = PartStart(parts[0][0]).media_type
    assert (media_type.essence, media_type.parameters) == (DICOM, {"transfer-syntax": "1.2"})


def test_no_part_repr_shows_headers() -> None:
    assert "secret" not in repr(PartStart({"content-location": "secret"}))


THREE = multipart_related([b"first", b"", b"third \r\n--b0undary"], preamble=b"preamble", epilogue=b"epilogue")
EVERYTHING = [b"first", b"", b"third \r\n--b0undary"]


def test_cut_at_every_byte_keeps_only_whole_parts() -> None:
    for end in range(len(THREE.body)):
        parts, damage = read(THREE.content_type, [THREE.body[:end]])
        kept = [data for _, data in parts]
        assert kept == EVERYTHING[: len(kept)]
        assert (damage is None) is (len(kept) == 3)


def test_split_at_every_byte_gives_the_same() -> None:
    for at in range(1, len(THREE.body)):
        assert parts_of(THREE, [THREE.body[:at], THREE.body[at:]]) == EVERYTHING


def test_split_at_every_two_bytes_gives_the_same() -> None:
    body = multipart_related([b"a\r\n--b", b"c"], boundary="b0").body
    made = Multipart('multipart/related; boundary="b0"', body)
    for first in range(1, len(body)):
        for second in range(first + 1, len(body)):
            pieces = [body[:first], body[first:second], body[second:]]
            assert parts_of(made, pieces) == [b"a\r\n--b", b"c"]


CONTENT = st.binary(max_size=200) | st.sampled_from(ODD_DATA) | st.text("\r\n-b0", max_size=30).map(str.encode)
CONTENTS = st.lists(CONTENT, min_size=1, max_size=5)
CUTS = st.lists(st.integers(0, 100_000), max_size=12)


@given(CONTENTS, CUTS, st.booleans(), st.booleans())
def test_any_contents_cut_anywhere(contents: list[bytes], cuts: list[int], leading: bool, final: bool) -> None:
    made = multipart_related(contents, boundary="b0undary-of-the-tests-2", leading_crlf=leading, final_crlf=final)
    assert parts_of(made, pieces_of(made.body, cuts)) == contents


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), CUTS, st.integers(0, 10_000))
def test_a_cut_body_gives_a_prefix_and_damage(contents: list[bytes], cuts: list[int], end: int) -> None:
    made = multipart_related(contents, boundary="b0undary-of-the-tests-2", final_crlf=False)
    short = made.body[: end % len(made.body)]
    parts, damage = read(made.content_type, pieces_of(short, cuts))
    assert damage is not None
    assert [data for _, data in parts] == contents[: len(parts)]
    again, _ = read(made.content_type, [short])
    assert again == parts


@given(st.binary(max_size=300) | st.text("\r\n-b:; x", max_size=200).map(str.encode), CUTS)
@example(b"--b\r\n\r\n\r\n--b--", [])
def test_any_body_is_parts_or_damage_however_it_is_cut(body: bytes, cuts: list[int]) -> None:
    content_type = "multipart/related; boundary=b"
    whole, damage = read(content_type, [body] if body else [])
    pieced, other_damage = read(content_type, pieces_of(body, cuts))
    if damage is None and other_damage is None:
        assert whole == pieced


def test_fuzz() -> None:
    """20,000 mutated bodies give events or damage, and nothing else."""
    rng = random.Random(20)
    body = multipart_related([b"first part", b"\r\nsecond"], leading_crlf=True, part_headers={"A": "b", "C": "d"}).body
    snippets = [
        b"\r\n",
        b"\r",
        b"\n",
        b"--",
        b"--b0undary-of-the-tests",
        b":",
        b" ",
        b"\0",
        b"\xff",
        b"Content-Length: 5",
    ]
    for _ in range(20_000):
        changed = bytearray(body)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(changed))
            match rng.randrange(3):
                case 0:
                    changed[at : at + rng.randint(0, 6)] = rng.choice(snippets)
                case 1:
                    changed[at] = rng.randrange(256)
                case _:
                    del changed[at : at + rng.randint(1, 30)]
        read(THREE.content_type, pieces_of(bytes(changed), [rng.randrange(200)]))


# --- Content-Length of a part -----------------------------------------------------------------------------------------


def lengthy(parts: Sequence[bytes], lengths: Sequence[int] | None = None, **more: Any) -> Multipart:
    """Make a body whose parts say how long they are, or lie."""
    said = [len(part) for part in parts] if lengths is None else lengths
    return multipart_related(parts, part_headers=lambda index, _: {"Content-Length": str(said[index])}, **more)


@given(CONTENTS, CUTS, st.integers(0, 10_000))
def test_parts_that_say_how_long_they_are(contents: list[bytes], cuts: list[int], end: int) -> None:
    """Whole and cut anywhere; a boundary inside is data, as the length says."""
    contents = [*contents, b"\r\n--b0undary-of-the-tests\r\n\r\n", b"\r\n--b0undary-of-the-tests--"]
    made = lengthy(contents, final_crlf=False)
    assert parts_of(made, pieces_of(made.body, cuts)) == contents
    parts, damage = read(made.content_type, pieces_of(made.body[: end % len(made.body)], cuts))
    assert damage is not None
    assert [data for _, data in parts] == contents[: len(parts)]


@given(CONTENTS, CUTS, st.integers(-40, 40).filter(bool))
def test_a_length_that_lies_is_damage_and_its_part_never_whole(contents: list[bytes], cuts: list[int], by: int) -> None:
    true = [len(part) for part in contents]
    lengths = [*true[:-1], max(0, true[-1] + by)]
    contents, lengths = [*contents, b"after it"], [*lengths, 8]
    if lengths[:-1] == true:
        return
    made = lengthy(contents, lengths, boundary="b0undary-of-the-tests-2")
    parts, damage = read(made.content_type, pieces_of(made.body, cuts))
    assert damage is not None
    assert [data for _, data in parts] == contents[:-2]


def test_a_part_as_long_as_it_says_is_not_searched() -> None:
    """What would be costly to search: a gigabyte of beginnings of boundaries, in pieces as a socket gives them."""
    piece = b"\r\n--b0undary-of-the-test" * 2600
    seen = Counting()
    reader = reader_for(THREE.content_type, seen, end_is_marked=True, max_parts=1)
    reader.feed(b"--b0undary-of-the-tests\r\nContent-Length: %d\r\n\r\n" % (len(piece) * 16_000))
    for _ in range(16_000):
        reader.feed(piece)
    assert not seen.ended
    reader.feed(b"\r\n--b0undary-of-the-tests--")
    reader.close()
    assert (seen.size, seen.ended, seen.copies) == (len(piece) * 16_000, 1, 0)


class Counting:
    """Counts what it is handed, and how often that was no chunk as it had been fed."""

    def __init__(self) -> None:
        self.size = self.ended = self.copies = 0
        self._lengths = {len(b"\r\n--b0undary-of-the-test" * 2600)}

    def part_begins(self, headers: dict[str, str]) -> None:
        assert headers

    def part_data(self, chunk: bytes, start: int, end: int) -> None:
        assert 0 <= start < end <= len(chunk)
        self.copies += len(chunk) not in self._lengths
        self.size += end - start

    def part_ends(self) -> None:
        self.ended += 1


def test_what_came_before_the_damage_is_handed_over_in_one_call() -> None:
    found = PartEvents()
    reader = reader_for(THREE.content_type, found, end_is_marked=True, max_parts=10)
    damaged = THREE.body.replace(b"\r\n--b0undary-of-the-tests--", b"\r\n--b0undary-of-the-tests!!")
    with pytest.raises(MultipartDamage, match="boundary"):
        reader.feed(damaged)
    assert [event for event in found if isinstance(event, bytes)] == [b"first", b"third \r\n--b0undary"]
    assert sum(isinstance(event, PartEnd) for event in found) == 2


def test_a_header_may_go_on_in_the_next_line() -> None:
    body = b'--b\r\nContent-Type: application/dicom;\r\n\ttransfer-syntax="1.2"\r\n\r\nx\r\n--b--'
    parts, damage = read("multipart/related; boundary=b", [body])
    assert (parts, damage) == ([({"content-type": 'application/dicom; transfer-syntax="1.2"'}, b"x")], None)


@pytest.mark.parametrize(
    "line",
    [
        b" goes on",
        b"no colon",
        b": no name",
        b"odd name: x",
        b"A: \nB: x",
        b"A: x\ny",
        b"A: x\ry",
        b"Content-Length: 1 1",
    ],
)
def test_lines_that_are_no_headers(line: bytes) -> None:
    body = b"--b0undary-of-the-tests\r\n" + line + b"\r\n\r\nx\r\n--b0undary-of-the-tests--"
    assert "header cannot be read" in damage_of(THREE.content_type, body)


# --- limits -----------------------------------------------------------------------------------------------------------


def damage_of(content_type: str, body: bytes, **more: Any) -> str:
    _, damage = read(content_type, [body], **more)
    assert damage is not None
    return str(damage)


def test_too_many_parts() -> None:
    made = multipart_related([b"x"] * 11)
    assert "limits" in damage_of(made.content_type, made.body, max_parts=10)
    assert len(read(made.content_type, [made.body], max_parts=11)[0]) == 11


@pytest.mark.parametrize(
    "headers",
    [
        [(f"X-{n}", "v") for n in range(33)],
        [("X", "v" * 9000)],
        [("X" * 9000, "v")],
        [("Content-Length", "5")],
        [("Content-Length", "-1")],
        [("Content-Length", "x")],
        [("Content-Length", "1"), ("Content-Length", "1")],
        [("Content-Length", "9" * 5000)],
    ],
    ids=lambda headers: repr(headers)[:40],
)
def test_headers_beyond_the_limits(headers: list[tuple[str, str]]) -> None:
    made = multipart_related([b"x"], part_headers=headers)
    damage_of(made.content_type, made.body)


def test_endless_headers_are_not_gathered() -> None:
    fed: list[bytes] = []

    def endless() -> Iterator[bytes]:
        for piece in (b"--b0undary-of-the-tests\r\nX: ", *([b"x" * 1000] * 1000)):
            fed.append(piece)
            yield piece

    _, damage = read(THREE.content_type, endless())
    assert damage is not None
    assert len(fed) < 20


@pytest.mark.parametrize("boundary", ["b" * 257, "b" * 5000, "\u00e9", "b\nc"])
def test_odd_boundaries_are_damage_or_no_match(boundary: str) -> None:
    damage_of(f'multipart/related; boundary="{boundary}"', THREE.body)


def test_damage_shows_nothing_of_the_body() -> None:
    body = b"--b\r\nQUILLFEATHER\r\n\r\nQUILLFEATHER"
    assert "QUILL" not in damage_of("multipart/related; boundary=b", body)


@pytest.mark.parametrize("size", [64 * 1024, 1])
def test_time_is_linear(size: int) -> None:
    """64 MiB in pieces as a socket gives them, and a small body byte by byte."""
    total = 64 << 20 if size > 1 else 300_000
    reader = Reading(THREE.content_type)
    piece = (b"\r\n--b0undary" * size)[:size]
    started = time.process_time()
    list(reader.feed(b"--b0undary-of-the-tests\r\n\r\n"))
    received = sum(len(event) for _ in range(total // size) for event in reader.feed(piece) if isinstance(event, bytes))
    received += sum(len(event) for event in reader.feed(b"\r\n--b0undary-of-the-tests--") if isinstance(event, bytes))
    list(reader.close())
    assert received == total
    assert time.process_time() - started < 60.0


def test_a_long_preamble_is_not_gathered() -> None:
    reader = Reading(THREE.content_type)
    started = time.process_time()
    for _ in range(500):
        assert list(reader.feed(b"preamble\r\n" * 1000)) == []
    assert isinstance(next(reader.feed(b"\r\n--b0undary-of-the-tests\r\n\r\n")), PartStart)
    assert time.process_time() - started < 60.0


# --- no boundary parameter --------------------------------------------------------------------------------------------

FORGETFUL = ["multipart/related", 'multipart/related; type="application/dicom"', 'multipart/related; boundary=""']


@pytest.mark.parametrize("content_type", FORGETFUL)
@pytest.mark.parametrize("form", [{}, {"leading_crlf": True}, {"boundary": "two words"}, {"boundary": "b" * 70}])
@pytest.mark.parametrize("by", [1, 5, 10_000])
def test_the_boundary_is_found(content_type: str, form: dict[str, Any], by: int) -> None:
    body = multipart_related([b"first", b"second"], **form).body
    parts, damage = read(content_type, [body[at : at + by] for at in range(0, len(body), by)])
    assert damage is None
    assert [data for _, data in parts] == [b"first", b"second"]


@pytest.mark.parametrize(
    "body", [b"", b"x", b"--", b"--\r\n", b"x" * 10_000, b"--" + b"b" * 10_000, bytes(128) + b"DICM" + bytes(600)]
)
def test_no_boundary_anywhere(body: bytes) -> None:
    assert "without a boundary" in damage_of("multipart/related", body) or not body


def test_a_cut_before_the_boundary_is_known() -> None:
    body = multipart_related([b"first"]).body
    for end in range(1, len(body) - 2):
        assert read("multipart/related", [body[:end]])[1] is not None


# --- one part without multipart ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [DICOM, "", "application/octet-stream", f"{DICOM}; transfer-syntax=1.2"])
def test_single_part(content_type: str) -> None:
    parts, damage = read(content_type, [b"one ", b"part"])
    assert (parts, damage) == ([({"content-type": content_type}, b"one part")], None)


def test_single_part_whose_end_nothing_marks_is_not_whole() -> None:
    parts, damage = read(DICOM, [b"one ", b"part"], marked=False)
    assert parts == []
    assert damage is not None


@pytest.mark.parametrize("content_type", [DICOM, "", "multipart/related; boundary=b", "multipart/related"])
def test_an_empty_answer_has_no_parts(content_type: str) -> None:
    """Whether that is an error is for the caller to say."""
    assert read(content_type, [])[0] == []


def test_a_multipart_answer_without_parts_has_none() -> None:
    made = multipart_related([])
    assert read(made.content_type, [made.body])[0] == []


# --- writing ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=6), st.text("0123456789abcdef", min_size=32, max_size=32))
@settings(max_examples=examples(50))
def test_what_is_written_is_read(contents: list[bytes], boundary: str) -> None:
    framing: Sequence[bytes] = part_framing(boundary, len(contents))
    assert len(framing) == len(contents) + 1
    *heads, tail = framing
    body = b"".join(head + data for head, data in zip(heads, contents, strict=True)) + tail
    parts, damage = read(f'multipart/related; type="application/dicom"; boundary={boundary}', [body])
    assert (parts, damage) == ([(DICOM_HEADER, data) for data in contents], None)
