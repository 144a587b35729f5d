"""The Cloud API against services that are silent or crawl, with a deadline and without."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from postdicom_async import CloudApi, ConnectionFailed, OutcomeUnknown, Timeouts, UploadReport
from tests.cloud.service import ACCOUNT_KEY, API_KEY, CloudService, Received, success
from tests.faults.clients import settings
from tests.support.dicom_files import small_dicom
from tests.support.faulty_server import FaultyServer, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

SOON = settings(deadline=0.3, max_attempts=3)
MOST = 20.0


def silent_to(*keys: tuple[int, int]) -> Callable[[Received], bytes | None]:
    def answer(request: Received) -> bytes | None:
        return None if request.key in keys else success(request, SearchResultList=[])

    return answer


async def test_a_call_with_a_deadline() -> None:
    """A read failed, and may be done again; what became of a change is not known."""
    async with CloudService(lambda _: None) as service, service.client(settings=SOON) as api:
        started = time.monotonic()
        with pytest.raises(ConnectionFailed, match=r"deadline of 0\.3 s") as caught:
            await api.folders.search().all()
        with pytest.raises(OutcomeUnknown, match=r"deadline of 0\.3 s"):
            await api.folders.create("Second opinion")
        assert 0.6 * 0.9 <= time.monotonic() - started < MOST
        service.answer = silent_to()
        assert await api.folders.search().all() == []  # the connection still serves
    assert not isinstance(caught.value, OutcomeUnknown)


async def test_an_upload_with_a_deadline() -> None:
    silent = silent_to(*((23, kind) for kind in range(20)))
    async with CloudService(silent) as service, service.client(settings=SOON) as api:
        started = time.monotonic()
        with pytest.raises(ConnectionFailed, match=r"deadline of 0\.3 s") as caught:
            await api.upload([small_dicom()])
        assert 0.3 * 0.9 <= time.monotonic() - started < MOST
    assert isinstance(caught.value.report, UploadReport)
    assert [one.in_archive for one in caught.value.report.outcomes] == [False]


@pytest.mark.parametrize("deadline", [None, 0.2])
async def test_a_router_whose_answer_crawls(deadline: float | None) -> None:
    crawl = Reply(200, body=b" " * 5000, chunk_size=1, pause=0.02)
    bounds = Timeouts(idle_read=0.3, least_rate_window=0.3, deadline=deadline)
    quick = replace(settings(max_attempts=1), timeouts=bounds)
    started = time.monotonic()
    async with FaultyServer(crawl) as server:
        api = CloudApi(API_KEY, ACCOUNT_KEY, router_url=f"{server.url}/router/", settings=quick)
        with pytest.raises(ConnectionFailed, match="deadline" if deadline else "bytes a second|stopped sending"):
            await api.__aenter__()
    assert time.monotonic() - started < MOST
