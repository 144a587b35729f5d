"""Arguments of the wrong kind: one clear line before anything is sent."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from postdicom_async import DicomWeb, UsageError

UIDS = ("1.2", "1.2.3", "1.2.3.4")


def refuse(request: httpx.Request) -> httpx.Response:
    raise AssertionError("something was sent")


@pytest.fixture
def archive() -> DicomWeb:
    return DicomWeb("https://archive.example", transport=httpx.MockTransport(refuse))


@pytest.mark.parametrize("to", [None, 5, b"x", "", "x\0y", object()])
async def test_a_folder_that_is_none(archive: DicomWeb, to: Any) -> None:
    async with archive:
        with pytest.raises(UsageError, match=r"^to: "):
            await archive.download_study("1.2", to=to)


@pytest.mark.parametrize("argument", ["layout", "progress"])
@pytest.mark.parametrize("value", [5, b"x"])
async def test_what_must_be_callable(archive: DicomWeb, argument: str, value: Any, tmp_path: Any) -> None:
    async with archive:
        with pytest.raises(UsageError, match=rf"^{argument}: "):
            await archive.download_instance(*UIDS, to=tmp_path / "out", **{argument: value})


@pytest.mark.parametrize("byte_range", [5, ("a", "b"), (3,), (5, 1), (-1, 4), "0-5"])
async def test_a_byte_range_that_is_none(archive: DicomWeb, byte_range: Any) -> None:
    async with archive:
        with pytest.raises(UsageError, match=r"^byte_range: "):
            await archive.retrieve_bulkdata("bulk/1", byte_range=byte_range)


@pytest.mark.parametrize("url", [None, 5, b"x"])
async def test_a_bulk_data_address_that_is_no_text(archive: DicomWeb, url: Any) -> None:
    async with archive:
        with pytest.raises(UsageError, match=r"^url: "):
            await archive.retrieve_bulkdata(url)
