"""Arguments of the wrong kind: one clear line before anything is sent."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from postdicom_async import CloudApi, DicomWeb, Settings, UsageError

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


@pytest.mark.parametrize("numbers", [5, None, object(), "12", {1}])
async def test_frame_numbers_that_are_no_list(archive: DicomWeb, numbers: Any) -> None:
    async with archive:
        with pytest.raises(UsageError, match=r"^frame_numbers: "):
            await archive.retrieve_instance_frames(*UIDS, numbers)


@pytest.mark.parametrize("settings", [5, {}, Settings])
def test_settings_that_are_none(settings: Any) -> None:
    with pytest.raises(UsageError, match=r"^settings: "):
        DicomWeb("https://archive.example", settings=settings)


@pytest.mark.parametrize("proxy", [5, b"http://proxy", object()])
def test_a_proxy_that_is_no_text(proxy: Any) -> None:
    with pytest.raises(UsageError, match=r"^proxy: "):
        Settings(proxy=proxy)


@pytest.mark.parametrize(("kind", "given"), [(DicomWeb, ["no address"]), (CloudApi, ["no key", "no key"])])
def test_what_was_never_made_can_be_looked_at(kind: Any, given: list[str]) -> None:
    """A class of the caller's own holds it in the frame that the error leaves, and crash reporters show it."""
    client = kind.__new__(kind)
    with pytest.raises(UsageError):
        client.__init__(*given)
    assert repr(client) == f"<{kind.__name__}>"
