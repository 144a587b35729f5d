"""Deflated data sets, read by offset."""

from __future__ import annotations

import zlib

import pytest

from postdicom_async.dicom.deflated import Inflated
from postdicom_async.dicom.elements import DicomProblem


def packed(data: bytes) -> bytes:
    deflater = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 8 * 1024 * 1024, 8 * 1024 * 1024 + 7])
def test_the_last_bytes_stand_for_many(size: int) -> None:
    """All of the input is taken long before all that it stands for was given."""
    data = packed(bytes(size))
    inflated = Inflated(lambda at, length: data[at : at + length], 0)

    assert inflated.size() == size
    assert inflated.read(max(size - 10, 0), 100) == bytes(min(size, 10))


@pytest.mark.parametrize("left", [1, 2, 20])
def test_what_ends_early_is_told(left: int) -> None:
    data = packed(bytes(8 * 1024 * 1024))[:-left]

    with pytest.raises(DicomProblem, match="ends early"):
        Inflated(lambda at, length: data[at : at + length], 0).size()
