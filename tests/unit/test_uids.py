"""UIDs: nothing else becomes part of a URL or a file name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from postdicom_async.dicom.header import checked_uid, is_uid
from postdicom_async.errors import UsageError

GOOD = ["0", "1", "1.2", "1.2.840.10008.1.2", "2.25." + "9" * 39, "1.02.3", "1." * 31 + "11", "9" * 64]
BAD: list[object] = [
    "",
    ".",
    "..",
    ".1",
    "1.",
    "1..2",
    "1.2.",
    "9" * 65,
    "1.2\n",
    "\n1.2",
    "1.2 ",
    "1 .2",
    "1.2\x00",
    "1.a",
    "-1",
    "1.-2",
    "1/2",
    "../1",
    "1\\2",
    "1.2%2e",
    "\u0661.\u0662",
    "1.\u00b2",
    "\uff11.2",
    "1e5",
    "*",
    None,
    1,
    1.2,
    b"1.2",
    ["1.2"],
    ("1", "2"),
]


@pytest.mark.parametrize("value", GOOD)
def test_good(value: str) -> None:
    assert is_uid(value)
    assert checked_uid(f" {value}\n", "argument") == value


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_bad(value: object) -> None:
    assert not is_uid(value)


@pytest.mark.parametrize("value", [bad for bad in BAD if not (isinstance(bad, str) and is_uid(bad.strip()))], ids=repr)
def test_bad_argument_is_named_and_not_repeated(value: object) -> None:
    with pytest.raises(UsageError, match=r"^study_instance_uid: ") as caught:
        checked_uid(value, "study_instance_uid")
    assert repr(value) not in str(caught.value)


@given(st.binary(max_size=8))
def test_generated_uids_are_good(seed: bytes) -> None:
    assert is_uid(generate_uid(entropy_srcs=[seed.hex()]))


@given(st.text(max_size=70))
def test_what_passes_is_digits_and_single_dots(value: str) -> None:
    if is_uid(value):
        assert set(value) <= set("0123456789.")
        assert all(value.split("."))
        assert len(value) <= 64
