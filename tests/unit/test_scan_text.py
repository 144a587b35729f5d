"""Text by its character set: the examples of PS3.5 annexes H to K, pydicom's own files, and any bytes at all."""

from __future__ import annotations

import warnings
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async.dicom.text import decode_text

CHARACTER_SETS = Path(pydicom.data.__file__).parent / "charset_files"


@pytest.mark.parametrize(
    ("value", "character_set", "text"),
    [
        (b"Doe^John ", b"", "Doe^John"),
        (b"  Doe^John\0", b"ISO_IR 6", "Doe^John"),
        (b"Buc^J\xe9r\xf4me", b"ISO_IR 100", "Buc^Jérôme"),
        (b"Buc^J\xe9r\xf4me", b"", "Buc^Jérôme"),
        ("Święty^Łukasz".encode(), b"ISO_IR 192", "Święty^Łukasz"),
        ("Święty^Łukasz".encode("iso8859-2"), b"ISO_IR 101 ", "Święty^Łukasz"),
        ("Διονυσιος".encode("iso8859-7"), b"ISO_IR 126", "Διονυσιος"),
        ("Διονυσιος".encode("iso8859-7"), b"iso-ir-126", "Διονυσιος"),
        ("王^小东".encode("gb18030"), b"GB18030", "王^小东"),
        ("王^小东".encode("gbk"), b"GBK", "王^小东"),
        (
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            b"\\ISO 2022 IR 87",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
            b"ISO 2022 IR 13\\ISO 2022 IR 87",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
        ),
        (
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf ",
            b"\\ISO 2022 IR 149",
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        (b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=", b"\\ISO 2022 IR 58", "Zhang^XiaoDong=张^小东="),
        (b"A\xe9\\\x1b-F\xc4\\\xe9", b"ISO 2022 IR 100\\ISO 2022 IR 126", "Aé\\Δ\\é"),
        (b"A\\B", b"", "A\\B"),
        (b"caf\xe9", b"NO SUCH SET", "café"),
        (b"caf\xe9", b"ISO_IR 999", "café"),
        (b"\xff\xfe", b"ISO_IR 192", "\ufffd\ufffd"),
        (b"\x1b%Gx", b"ISO 2022 IR 100", "\x1b%Gx"),
        (b"a\x1bb", b"ISO_IR 192", "a\x1bb"),
        (b"", b"ISO_IR 192", ""),
    ],
)
def test_examples(value: bytes, character_set: bytes, text: str) -> None:
    assert decode_text(value, character_set) == text


def test_a_backslash_within_a_character_of_two_bytes_is_none() -> None:
    encoded = b"\x1b$B" + "十\\".encode("iso2022_jp").removeprefix(b"\x1b$B")
    assert decode_text(encoded, b"\\ISO 2022 IR 87") == "十\\"
    sign = next(char for char in map(chr, range(0x4E00, 0x9000)) if 0x5C in _two_bytes(char))
    assert decode_text(b"\x1b$B" + _two_bytes(sign) + b"\x1b(B", b"\\ISO 2022 IR 87") == sign


def _two_bytes(char: str) -> bytes:
    return char.encode("iso2022_jp", "replace").removeprefix(b"\x1b$B")[:2]


@pytest.mark.parametrize("path", sorted(CHARACTER_SETS.glob("chr*.dcm")), ids=lambda path: path.name)
def test_as_pydicom_reads_its_own_files(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    raw = pydicom.dcmread(path).get_item("PatientName")
    if raw is None:
        pytest.skip("no name")
    character_set = dataset.get("SpecificCharacterSet", "")
    terms = [character_set] if isinstance(character_set, str) else list(character_set)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name = str(dataset.PatientName)
    assert isinstance(raw.value, bytes)
    assert decode_text(raw.value, "\\".join(terms).encode()).rstrip("=") == name


@given(st.binary(max_size=60), st.sampled_from([b"", b"\\ISO 2022 IR 87", b"ISO 2022 IR 13", b"GBK", b"ISO_IR 192"]))
def test_any_bytes_become_text(value: bytes, character_set: bytes) -> None:
    assert isinstance(decode_text(value, character_set), str)


@given(st.lists(st.sampled_from([b"\x1b", b"\x1b$B", b"\x1b$)C", b"\x1b(J", b"\x1b-F", b"\\", b"^", b"\xe9", b";3"])))
def test_any_escapes_become_text(parts: list[bytes]) -> None:
    assert isinstance(decode_text(b"".join(parts), b"ISO 2022 IR 100\\ISO 2022 IR 87"), str)


@given(st.binary(max_size=30))
def test_any_character_set_is_one(character_set: bytes) -> None:
    assert decode_text(b"Doe^John", character_set)
