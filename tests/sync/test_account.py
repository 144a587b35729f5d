"""A PostDICOM account without asyncio."""

from __future__ import annotations

from postdicom_async.emulator import archive_in_thread
from postdicom_async.sync import PostDicomClient


def test_an_account_searches_and_its_operations_are_called() -> None:
    with archive_in_thread() as archive, PostDicomClient(archive.url, *(archive.auth or ("", ""))) as client:
        assert client.search_for_studies() == []
        assert client.call(lambda account: account.search_for_studies().all()) == []
