"""Files that are cut, damaged or made to do harm: refused, or anonymised all the same; nothing else ever happens."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postdicom_async import Anonymization
from postdicom_async.dicom.elements import ReadWindow
from postdicom_async.disk.files import Unusable
from tests.support.anonymizing import DATA, Leaf, Writer, after, content_of, leaves, meta_end, read, result_of, sent
from tests.support.dicom_files import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, JPEG
from tests.support.large import examples, large
from tests.unit.test_anonymize_files import GOOD, asked_for, gone, keyed, rules_for
from tests.unit.test_anonymize_forms import NAME, TEXT, rich_file

PROFILE = Anonymization.basic_profile(secret=b"of the tests")
MODERATE = 50_000
# One of each kind: many are alike.
CUT_FILES = sorted(
    {len((DATA / name).read_bytes()): name for name in GOOD if (DATA / name).stat().st_size < MODERATE}.values()
)


# --- cut --------------------------------------------------------------------------------------------------------------


def offsets(size: int) -> list[int]:
    """Return places all over a file, more of them at its end, where the last elements are."""
    return sorted({*range(140, size, max(1, size // 24)), *range(max(140, size - 40), size, 3), size - 1})


@pytest.mark.parametrize("name", [large(name) if number % 3 else name for number, name in enumerate(CUT_FILES)])
def test_cut_anywhere(name: str) -> None:
    data = (DATA / name).read_bytes()
    before = leaves(data)
    rules = rules_for(before)
    values = gone(data, before, rules)
    made = Anonymization(keyed(rules))
    for size in offsets(len(data)):
        for rules_used in (made, PROFILE):
            result = result_of(data[:size], rules_used)
            if isinstance(result, Unusable):
                assert result.reason.startswith("cannot be anonymised: ")
                assert result.size == size
                continue
            out = sent(result)
            if rules_used is made:
                left = leaves(data[:size])
                assert leaves(out) == after(left, asked_for(left, rules)), size
                content = content_of(out)
                assert not [value for value in values if value in content], size


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED, JPEG])
def test_every_prefix(syntax: str) -> None:
    """Only where an element ends may a file end; what is sent then has nothing of the name in it."""
    data = rich_file(syntax, undefined=syntax != DEFLATED)
    ends = []
    for size in range(len(data)):
        result = result_of(data[:size], {"PatientName": "Q^R", "TextValue": None})
        if not isinstance(result, Unusable):
            assert b"QUILL" not in content_of(sent(result))
            ends.append(size)
    # After the UIDs come three elements; zeros after one may be padding.
    assert len(ends) <= 5


# --- damaged ----------------------------------------------------------------------------------------------------------


@cache
def originals() -> list[bytes]:
    return [
        rich_file(syntax, undefined=undefined)
        for syntax in (IMPLICIT, EXPLICIT, BIG_ENDIAN, JPEG)
        for undefined in (True, False)
    ] + [inflated(undefined=True), inflated(undefined=False)]


def inflated(*, undefined: bool) -> bytes:
    """Return what a deflated file holds, so that it can be damaged before it is packed."""
    return rich_file(EXPLICIT, undefined=undefined).replace(
        b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x16\x001.2.840.10008.1.2.1.99", 1
    )


def packed(data: bytes, start: int) -> bytes:
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return data[:start] + packer.compress(data[start:]) + packer.flush()


HARM = st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"UN\0\0", b"SQ\0\0"])
ONE_CHANGE = st.tuples(
    st.floats(0, 1, exclude_max=True), st.one_of(st.binary(min_size=1, max_size=4), HARM), st.booleans()
)
CHANGES = st.lists(ONE_CHANGE, min_size=1, max_size=5)
RULES = [
    Anonymization({"PatientName": "Q^R", "TextValue": None}),
    Anonymization(
        {"PatientName": "", "TextValue": "T"},
        insert_absent=True,
        remap_uids=True,
        remove_private=True,
        secret="of the tests",
    ),
    PROFILE,
]
NEW_NAMES = {b"Q^R ", b"", b"ANONYMIZED"}


@given(number=st.integers(0, 9), changes=CHANGES, rules=st.sampled_from(RULES))
@settings(max_examples=examples(1500))
def test_damaged_anywhere(number: int, changes: list[tuple[float, bytes, bool]], rules: Anonymization) -> None:
    """A name that is still one for a reader is not what it was; where it no longer is one, nobody could tell."""
    data = originals()[number]
    start = data.index(b"\x08\x00\x00\x00") if b"\x08\x00\x00\x00UL" in data or number < 2 else 0
    for place, new, inserted in changes:
        at = 132 + int(place * (len(data) - 132))
        data = data[:at] + new + data[at if inserted else at + len(new) :]
    result = result_of(packed(data, start) if number >= 8 else data, rules)
    if isinstance(result, Unusable):
        assert result.reason.startswith("cannot be anonymised: ")
        return
    assert names_in(sent(result)) <= NEW_NAMES


def names_in(data: bytes) -> set[bytes]:
    try:
        found: list[Leaf] = leaves(data)
    except Exception:  # of pydicom, on what it does not understand
        return set()
    return {leaf.value for leaf in found if leaf.tag == NAME and leaf.vr in ("PN", "UN")}


@given(st.binary(max_size=600))
@settings(max_examples=examples(500))
def test_anything_after_a_good_beginning(garbage: bytes) -> None:
    for to in (Writer(EXPLICIT), Writer(IMPLICIT), Writer(BIG_ENDIAN)):
        result = result_of(to.file(after=garbage), RULES[1])
        if not isinstance(result, Unusable):
            assert names_in(sent(result)) <= NEW_NAMES


# --- made to do harm --------------------------------------------------------------------------------------------------


@cache
def hostile() -> dict[str, bytes]:
    plain, to = Writer(IMPLICIT), Writer()
    endless = 0xFFFFFFFF
    item, empty = to.element(0xFFFEE000, "", b"", length=endless), to.element(0xFFFEE000, "", b"")
    sequence = to.element(0x00081115, "SQ", b"", length=endless)
    unknown = to.element(0x00091001, "UN", b"", length=endless)
    private = plain.element(0x00091001, "", b"", length=endless)
    fragments = to.element(0x7FE00010, "OB", b"", length=endless)
    two_groups = plain.element(0x00290010, "", b"") + plain.element(0x002B0010, "", b"")
    inner = b""
    for _ in range(40):
        inner = plain.sequence(0x00081115, two_groups * 600 + inner, undefined=True)
    no_items = [to.sequence(0x00091002, b"\x10\0\x10\0QQ", undefined=False, vr="UN")] * 500
    bomb = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    zeros = bomb.compress(bytes(64 << 20)) + bomb.flush()
    start = Writer(DEFLATED).file_as_given()
    return {
        "zeros, then something": plain.file(after=bytes(1 << 20) + b"\x29\0\x10\x10\2\0\0\0ab"),
        "zeros without an end": plain.file(after=bytes(1 << 20) + b"\1"),
        "huge text": to.file(after=struct.pack("<HH2sHI", 0x0010, 0x4000, b"UT", 0, 0xFFFFFFFE)),
        "huge character set": to.file(after=to.element(0x00080005, "UT", b"", length=0x7FFFFFFE)),
        "huge UIDs": plain.file(after=plain.element(0x00200052, "UI", b"1.2\\" * (1 << 18) + b"1.2 ")),
        "deep": to.file(after=(sequence + item) * 20_000),
        "deep and unknown": to.file(after=(unknown + item) * 20_000),
        "deep and private": plain.file(after=(private + item) * 20_000),
        "wide": to.file(after=sequence + item * 40_000),
        "items without an end": to.file(after=sequence + empty * 30_000),
        "fragments without an end": to.file(after=fragments + empty * 30_000),
        "no sequences": to.file(after=to.sequence(0x00091001, *no_items, undefined=False, vr="UN")),
        "many groups": plain.file(after=two_groups * 20_000),
        "many groups at every depth": plain.file(after=inner),
        "many names": to.file(after=to.element(NAME, "PN", "A^B ") * 100_000),
        "packed zeros": start[: meta_end(start)] + zeros,
        "many elements": to.file(after=to.element(0x00280010, "US", b"") * 30_000),
        "many fragments": to.file(after=fragments + empty * 30_000 + to.element(0xFFFEE0DD, "", b"")),
        "many items": to.file(after=sequence + empty * 30_000 + to.element(0xFFFEE0DD, "", b"")),
    }  # fmt: skip


HARMLESS = {"many elements", "many fragments", "many items"}


@pytest.mark.parametrize("what", hostile())
def test_made_to_do_harm(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, and so is work: nothing is looked at again and again."""
    data = hostile()[what]
    looks = 0
    real = ReadWindow.peek

    def counted(self: ReadWindow, at: int, count: int) -> bytes:
        nonlocal looks
        looks += 1
        return real(self, at, count)

    rules = Anonymization({"PatientName": ""}, remap_uids=True, secret="of the tests")
    result_of(Writer().file(), rules)  # what is imported once
    monkeypatch.setattr(ReadWindow, "peek", counted)
    tracemalloc.start()
    try:
        result = result_of(data, rules)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(result, Unusable) is (what not in HARMLESS)
    assert peak < 32 << 20
    assert looks <= 1000 + len(data)


def test_a_reader_finds_the_name_where_nothing_is_damaged() -> None:
    """What the tests above look for is there to be found."""
    for data in originals()[:8]:
        assert names_in(data) == {b"QUILLFEATHER^JOHN "}
    assert TEXT in {leaf.tag for leaf in leaves(originals()[0])}
    assert read(originals()[0]).PatientName == "QUILLFEATHER^JOHN"
