"""Every file that pydicom ships, anonymised: only what was asked for is another, and nothing of it is left anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag

from postdicom_async import Anonymization
from postdicom_async.disk.anonymized import anonymized_now
from postdicom_async.disk.files import Unusable
from postdicom_async.disk.sources import Usable, read_sources
from tests.support.anonymizing import (
    DATA,
    SHIPPED,
    Leaf,
    after,
    anonymize,
    content_of,
    dataset_bytes,
    dcmdump,
    leaves,
    meta_end,
    meta_leaves,
    refusal,
    result_of,
    sent,
    strictly_invalid,
)
from tests.support.dicom_files import uid

NO_FILE = "not DICOM: no DICOM file (PS3.10)"
NO_UIDS = "no valid Study, Series and SOP Instance UID"

# Everything that pydicom ships and that is not sent, and why.
REFUSED = {
    **dict.fromkeys(
        (
            "__init__.py",
            "charset_files/FileInfo.txt",
            "data_manager.py",
            "download.py",
            "hashes.json",
            "palettes/README.md",
            "retry.py",
            "test_files/ExplVR_BigEndNoMeta.dcm",
            "test_files/ExplVR_LitEndNoMeta.dcm",
            "test_files/README.txt",
            "test_files/crayons.icc",
            "test_files/dicomdirtests/README.txt",
            "test_files/dicomdirtests/TINY_ALPHA/README",
            "test_files/no_meta.dcm",
            "test_files/rtplan.dump",
            "test_files/rtstruct.dcm",
            "test_files/rtstruct.dump",
            "test_files/test1.json",
            "test_files/test_PN.json",
            "urls.json",
        ),
        NO_FILE,
    ),
    "test_files/zipMR.gz": "not DICOM: a gzip archive: unpack it",
    **dict.fromkeys(
        (
            "charset_files/chrSQEncoding.dcm",
            "charset_files/chrSQEncoding1.dcm",
            "palettes/fall.dcm",
            "palettes/hotiron.dcm",
            "palettes/hotmetalblue.dcm",
            "palettes/pet.dcm",
            "palettes/pet20step.dcm",
            "palettes/spring.dcm",
            "palettes/summer.dcm",
            "palettes/winter.dcm",
            "test_files/JPEGLSNearLossless_08.dcm",
            "test_files/JPEGLSNearLossless_16.dcm",
            "test_files/SC_rgb_jls_lossy_line.dcm",
            "test_files/SC_rgb_jls_lossy_sample.dcm",
            "test_files/UN_sequence.dcm",
            "test_files/dicomdirtests/DICOMDIR",
            "test_files/dicomdirtests/DICOMDIR-bigEnd",
            "test_files/dicomdirtests/DICOMDIR-empty.dcm",
            "test_files/dicomdirtests/DICOMDIR-implicit",
            "test_files/dicomdirtests/DICOMDIR-nooffset",
            "test_files/dicomdirtests/DICOMDIR-nopatient",
            "test_files/dicomdirtests/DICOMDIR-reordered",
            "test_files/dicomdirtests/TINY_ALPHA/DICOMDIR",
            "test_files/empty_charset_LEI.dcm",
            "test_files/meta_missing_tsyntax.dcm",
            "test_files/nested_priv_SQ.dcm",
            "test_files/no_meta_group_length.dcm",
            "test_files/priv_SQ.dcm",
        ),
        NO_UIDS,
    ),
    "test_files/MR_truncated.dcm": "cut off: its pixel data need 8192 bytes, 8130 are there",
    "test_files/rtplan_truncated.dcm": "cut off: BeamSequence (300A,00B0) needs 976 bytes, 711 are there",
}
# What the engine says of those that are seen to be cut off before it is asked.
TRUNCATED = {
    "test_files/MR_truncated.dcm": "cannot be anonymised: it ends inside PixelData (7FE0,0010)",
    "test_files/rtplan_truncated.dcm": "cannot be anonymised: it ends inside BeamSequence (300A,00B0)",
}
# Of these the engine can be asked directly, with rules that give them UIDs.
WITHOUT_UIDS = [name for name, reason in REFUSED.items() if reason == NO_UIDS and "meta_missing_tsyntax" not in name]
NAMES = [path.relative_to(DATA).as_posix() for path in SHIPPED]
GOOD = [name for name in NAMES if name not in REFUSED]

# pydicom reads beyond the end of a sequence here.
CUT = {"test_files/dicomdirtests/DICOMDIR-nooffset": "cannot be anonymised: it ends inside Item (FFFE,E000)"}
# A file with hardly a value in it.
NOTHING_LONG = {"test_files/SC_jpeg_no_color_transform.dcm"}
UIDS: dict[int, str] = {0x00080018: uid(1, 1, 1), 0x0020000D: uid(1), 0x0020000E: uid(1, 1)}

# What dcmdump says of them; the originals are no better.
ODD_PIXELS = "W: DcmItem: Length of element (7fe0,0010) is not a multiple of 2 (VR=OW)"
COMPLAINTS = {
    **dict.fromkeys(
        (
            "693_J2KI.dcm",
            "MR_small_jp2klossless.dcm",
            "MR_small_jpeg_ls_lossless.dcm",
            "SC_rgb_rle_16bit.dcm",
            "SC_rgb_rle_16bit_2frame.dcm",
            "rtdose_rle.dcm",
            "rtdose_rle_1frame.dcm",
        ),
        ODD_PIXELS,
    ),
    "UN_sequence.dcm": "W: Found element (4453,100c) with VR UN and undefined length, reading a sequence with transfer "
    "syntax LittleEndianImplicit (CP-246)",
    "winter.dcm": "W: DcmItem: Element (0008,0018) found twice in one data set or item, ignoring second entry",
    "SC_rgb_jpeg.dcm": "E: dcmdump: I/O suspension or premature end of stream",  # implicit VR, and says explicit
}

PROTECTED = {0x00080005, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E}
PIXELS = 0x7FE00010
IDENTITY = {0x00080020, 0x00080050, 0x00080080, 0x00080090, 0x00081010, 0x00100010, 0x00100020, 0x00100030}
PADDING = 0xFFFCFFFC
LONG = "Q" * 63
NEW_VALUES = {
    "AE": ("QAE", "QAEQAEQAEQAEQAE"),
    "AS": ("007W",),
    "CS": ("Q", "QQ_QQQ QQQQQQQQ"),
    "DA": ("19010203",),
    "DS": ("7", "-7.123456789e-12"),
    "DT": ("19010203040506.789012+0100", "1901"),
    "IS": ("7", "-2147483648"),
    "LO": ("Q", LONG, f"{LONG}\\{LONG}"),
    "LT": ("Q", LONG * 100),
    "PN": ("Q", f"{LONG}={LONG}={LONG}"),
    "SH": ("Q", LONG[:15]),
    "ST": ("Q", LONG * 16),
    "TM": ("01", "010203.04"),
    "UI": ("1.2.3", "2.25.987654321098765432109876543210987654321"),
    "UT": ("Q", LONG * 2000),
}


def encoded(vr: str, text: str) -> bytes:
    data = text.encode("ascii")
    return data + (b"\0" if vr == "UI" else b" ") * (len(data) % 2)


# --- rules that reach everything --------------------------------------------------------------------------------------


def may_be_changed(tag: int) -> bool:
    return tag not in PROTECTED and tag != PIXELS and tag & 0xFFFF != 0 and tag >> 16 != 0xFFFC


def rules_for(before: list[Leaf]) -> dict[int, str | None]:
    """Choose every third element, at every depth; remove, empty and replace in turn, by what is longer or shorter."""
    vrs: dict[int, set[str]] = {}
    for leaf in before:
        vrs.setdefault(leaf.tag, set()).add(leaf.vr)
    actions = cycle(["remove", "replace", "empty", "replace"])
    values = {vr: cycle(some) for vr, some in NEW_VALUES.items()}
    rules: dict[int, str | None] = {}
    tags = sorted(filter(may_be_changed, vrs))
    for tag in sorted({*tags[::3], *(IDENTITY & vrs.keys())}):
        action, vr = next(actions), vrs[tag].pop()
        known = not vrs[tag] and bool(keyword_for_tag(tag)) and dictionary_VR(tag) == vr
        if action == "replace" and known and vr in values:
            rules[tag] = next(values[vr])
        else:
            rules[tag] = "" if action == "empty" and known else None
    return rules


def gone(data: bytes, before: list[Leaf], rules: dict[int, str | None]) -> set[bytes]:
    """Return values that may be nowhere any more; what else holds one is removed as well, where that can be asked."""
    elsewhere = b"\xff".join(meta_leaves(data).values())
    values = {leaf.value.strip(b" \0") for leaf in before if rules.keys() & set(leaf.tags) and leaf.vr != "SQ"}
    values = {value for value in values if len(value) >= 6 and value not in elsewhere and value.strip(b"\0")}
    again = True
    while again:
        again = False
        for leaf in [leaf for leaf in before if not rules.keys() & set(leaf.tags)]:
            held = {value for value in values if value in leaf.value}
            if held and may_be_changed(leaf.tag):
                rules[leaf.tag] = None
                again = True
            else:
                values -= held
    return values


def asked_for(before: list[Leaf], rules: Mapping[int, str | None]) -> dict[int, bytes | None]:
    """Return the bytes that elements are to have."""
    vrs = {leaf.tag: leaf.vr for leaf in before}
    asked: dict[int, bytes | None] = {PADDING: None}
    for tag, text in rules.items():
        if tag in vrs:
            asked[tag] = None if text is None else encoded(vrs[tag], text)
    return asked


def require_anonymised(data: bytes, result: Usable | Unusable, expected: list[Leaf], instance: str = "") -> bytes:
    """Compare what would be sent with what is expected, element by element."""
    out = sent(result)
    assert leaves(out) == expected
    assert out[:132] == bytes(128) + b"DICM"
    copy = {0x00020003: encoded("UI", instance)} if instance else {}
    length = meta_end(out) - 144  # what comes after the group length itself
    assert meta_leaves(out) == meta_leaves(data) | copy | {0x00020000: length.to_bytes(4, "little")}
    assert strictly_invalid(out) <= strictly_invalid(data)
    return out


# --- the files --------------------------------------------------------------------------------------------------------


def source(name: str) -> Usable | Unusable:
    async def first() -> Usable | Unusable:
        async for (found,) in read_sources(DATA / name, piece=1 << 16):
            return found
        raise AssertionError(name)

    return asyncio.run(first())


def keyed(rules: Mapping[int, str | None]) -> dict[str, str | None]:
    return {f"{tag:08X}": value for tag, value in rules.items()}


def test_there_are_files_of_every_kind() -> None:
    assert REFUSED.keys() < set(NAMES)
    assert len(GOOD) > 150


@pytest.mark.parametrize("name", GOOD)
def test_only_what_was_asked_for_is_another(name: str) -> None:
    path = DATA / name
    data, status = path.read_bytes(), path.stat()
    before = leaves(data)
    rules = rules_for(before)
    values = gone(data, before, rules)
    assert bool(values) is (name not in NOTHING_LONG)
    result = anonymized_now(source(name), Anonymization(keyed(rules)))
    out = require_anonymised(data, result, after(before, asked_for(before, rules)))
    left = content_of(out)
    assert not [value for value in values if value in left]
    assert path.read_bytes() == data
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (status.st_mtime_ns, status.st_ino)


@pytest.mark.parametrize("name", GOOD)
def test_what_nothing_applies_to_stays_byte_for_byte(name: str) -> None:
    """Also the lengths of sequences and items, defined or not, and what ends them."""
    data = (DATA / name).read_bytes()
    out = anonymize(data, {"PatientTelephoneNumbers": None, "44114411": None})
    kept = dataset_bytes(data)
    if leaves(data)[-1].tag == PADDING:
        kept = kept[: max(kept.rfind(b"\xfc\xff\xfc\xff"), kept.rfind(b"\xff\xfc\xff\xfc"))]
    assert dataset_bytes(out) == kept


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_sent_has_its_reason(name: str) -> None:
    result = anonymized_now(source(name), Anonymization({"PatientName": "Q"}))
    assert refusal(result) == REFUSED[name]


@pytest.mark.parametrize("name", WITHOUT_UIDS)
def test_files_without_uids_that_get_some(name: str) -> None:
    """The engine itself, which an upload would not ask: they hold directories, palettes and sequences of VR UN."""
    data = (DATA / name).read_bytes()
    before = leaves(data)
    rules = rules_for(before)
    result = result_of(data, Anonymization(keyed(rules) | keyed(UIDS), insert_absent=True))
    if name in CUT:
        assert refusal(result) == CUT[name]
        return
    present = {leaf.path[0] for leaf in before if len(leaf.path) == 1}
    added = {tag: text or "" for tag, text in rules.items() if text is not None and tag not in present}
    left = after(before, asked_for(before, rules | UIDS))
    expected = inserted(left, added | {tag: text for tag, text in UIDS.items() if tag not in present})
    require_anonymised(data, result, expected, UIDS[0x00080018])


def inserted(before: list[Leaf], added: Mapping[int, str]) -> list[Leaf]:
    """Return elements with others at the top level, where their tags belong."""
    groups = {tag >> 16 for tag in added}
    left = [leaf for leaf in before if len(leaf.path) > 1 or leaf.tag & 0xFFFF or leaf.tag >> 16 not in groups]
    for tag, text in added.items():
        vr = dictionary_VR(tag)
        value = b"0" if vr == "SQ" else encoded(vr, text)
        left.append(Leaf((tag,), vr, value))
    return sorted(left, key=lambda leaf: leaf.path[0])  # what lies in one sequence stays as it is


def test_dcmdump_takes_them_as_it_takes_the_originals(tmp_path: Path) -> None:
    changed: dict[str, bytes] = {}
    for number, name in enumerate([*GOOD, *WITHOUT_UIDS]):
        if name not in CUT:
            data = (DATA / name).read_bytes()
            rules = Anonymization(keyed(rules_for(leaves(data))) | keyed(UIDS), insert_absent=name in WITHOUT_UIDS)
            changed[f"{number} {Path(name).name}"] = anonymize(data, rules)
    complaints = dcmdump(tmp_path, changed)
    assert {name.partition(" ")[2]: text for name, text in complaints.items()} == COMPLAINTS
