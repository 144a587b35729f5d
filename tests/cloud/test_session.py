"""One session: many requests at once, connections that break, sessions that are lost."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from postdicom_async import (
    CloudApi,
    CloudWire,
    ConnectionFailed,
    OutcomeUnknown,
)
from tests.cloud.conftest import Account
from tests.cloud.cutting import Cut, CuttingProxy
from tests.cloud.forms import ONE
from tests.cloud.service import API_KEY, SESSION, CloudService, Received, echo, uuid, views
from tests.faults.clients import settings
from tests.support.large import large

MANY = 1000


# --- many at once ---------------------------------------------------------------------------------------------------


async def test_a_thousand_at_once_answered_in_random_order() -> None:
    held: list[bytes] = []

    def answer(request: Received) -> list[bytes]:
        held.append(echo(request))
        if len(held) < MANY:
            return []
        random.Random(7).shuffle(held)
        return held

    async with CloudService(answer) as service, service.client() as api:
        links = await views(api, MANY)
        assert [link.url for link in links] == [f"https://viewer.example/{uuid(number)}" for number in range(MANY)]
        assert len(service.sent()) == MANY
        assert service.sockets == 1


async def test_a_thousand_at_once_at_the_archive(account: Account) -> None:
    oddities = account.server.cloud.oddities
    oddities.shuffled, oddities.duplicates, oddities.text_frames, oddities.garbage = 97, True, True, True
    names = [f"Folder {number}" for number in range(MANY)]
    made = await asyncio.gather(*(account.api.folders.create(name) for name in names))
    oddities.shuffled = 0
    there = {folder.folder_uuid: folder.folder_name for folder in await account.api.folders.search().all()}
    assert [there[one.folder_uuid] for one in made] == names


async def test_cancelling_frees_nobody_elses_answer() -> None:
    async def answer(request: Received) -> bytes:
        await asyncio.sleep(0)
        return echo(request)

    async with CloudService(answer) as service, service.client() as api:
        for _ in range(5):
            tasks = [asyncio.create_task(_view(api, number)) for number in range(100)]
            await asyncio.sleep(0.005)
            for task in tasks[::2]:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(url.endswith(uuid(2 * at + 1)) for at, url in enumerate(done[1::2]))  # type: ignore[union-attr]
        assert all(link.url for link in await views(api, 20))


async def _view(api: CloudApi, number: int) -> str | None:
    return (await api.view.order(uuid(number))).url


# --- connections that break -----------------------------------------------------------------------------------------


async def a_few(api: CloudApi) -> list[Any]:
    """Make three reads and three changes at once."""
    return await asyncio.gather(
        *(api.view.order(uuid(number)) for number in range(3)),
        *(api.folders.create(f"Folder {number}") for number in range(3)),
        return_exceptions=True,
    )


async def through(cut: Cut | None) -> tuple[CuttingProxy, list[Received], list[Any]]:
    """Make the few requests over a connection that is cut, and return how they ended."""
    async with CloudService(echo) as service, CuttingProxy(service.url, cut) as proxy:
        service.url = proxy.url
        async with asyncio.timeout(20), service.client() as api:
            ends = await a_few(api)
        return proxy, service.sent(), ends


def check_ends(sent: list[Received], ends: list[Any]) -> None:
    reads, changes = ends[:3], ends[3:]
    assert all(link.url.endswith(uuid(number)) for number, link in enumerate(reads)), ends
    assert all(not isinstance(end, BaseException) or type(end) is OutcomeUnknown for end in changes), ends
    names = [one.fields["FolderName"] for one in sent if one.key == (17, 2)]
    assert len(names) == len(set(names)), "a change was sent twice"
    arrived = {f"Folder {number}" for number, end in enumerate(changes) if not isinstance(end, BaseException)}
    assert arrived <= set(names)


@pytest.mark.parametrize("nth", [7, large(1)])
async def test_cut_at_every_byte_of_the_answers(nth: int) -> None:
    whole, sent, ends = await through(None)
    assert len(sent) == 6
    assert not [end for end in ends if isinstance(end, BaseException)]
    for at in range(0, whole.down + 1, nth):
        _, sent, ends = await through(Cut(down=at))
        check_ends(sent, ends)


@pytest.mark.parametrize("nth", [23, large(5)])
@pytest.mark.parametrize("reset", [False, True])
async def test_cut_anywhere_in_the_requests(reset: bool, nth: int) -> None:
    whole, _, _ = await through(None)
    for at in range(0, whole.up + 1, nth):
        _, sent, ends = await through(Cut(up=at, reset=reset))
        check_ends(sent, ends)


@pytest.mark.parametrize("when", ["before", "after", "during"])
async def test_dropped_around_a_change(account: Account, when: Any) -> None:
    from postdicom_async.emulator.cloud.oddities import Drop

    cloud = account.server.cloud
    cloud.oddities.drops.append(Drop(when, (17, 2)))
    with pytest.raises(OutcomeUnknown, match="create folder: outcome unknown: the connection broke; search for it"):
        await account.api.folders.create("Once")
    assert len(cloud.sent((17, 2))) == 1
    there = [folder.folder_name for folder in await account.api.folders.search().all()]
    assert there == ([] if when == "before" else ["Once"])


@pytest.mark.parametrize("when", ["before", "after", "during"])
async def test_dropped_around_a_read(account: Account, when: Any) -> None:
    from postdicom_async.emulator.cloud.oddities import Drop

    account.server.cloud.oddities.drops.append(Drop(when, (17, 1)))
    assert await account.api.orders.search().all() == []
    assert len(account.server.cloud.sent((17, 1))) == 2


async def test_a_dropped_connection_takes_its_session_up_again() -> None:
    async with CloudService(echo) as service, service.client() as api:
        await api.view.order(ONE)
        service.drop()
        assert all(link.url for link in await views(api, 20))
    assert service.sockets == 2
    assert len(service.asked) == 3
    registration = service.received[2]
    assert registration.key == (3, 2)
    assert registration.fields == {
        "SessionUuid": SESSION,
        "OtherParameterList": [f"Api={SESSION}", f"ApiKey={API_KEY}"],
    }


async def test_or_a_new_session_is_opened(account: Account) -> None:
    cloud = account.server.cloud
    cloud.forget_sessions()
    cloud.drop_sockets()
    results = await asyncio.gather(*(account.api.folders.search().all() for _ in range(20)))
    assert results == [[]] * 20
    assert [one.step for one in cloud.http_requests] == ["web-service", "session", "socket"] * 2
    assert len(cloud.sent((3, 4))) == 2


async def test_registering_again_can_be_left_out() -> None:
    wire = CloudWire(reuse_session=False)
    async with CloudService(echo) as service, service.client(wire=wire) as api:
        service.drop()
        await api.view.order(ONE)
    assert [one.key for one in service.received] == [(3, 4), (3, 4), (17, 5)]
    assert len(service.asked) == 6


async def test_when_the_service_is_gone_all_who_wait_are_told_soon() -> None:
    async with CloudService(echo) as service:
        api = await service.client(settings=settings(max_attempts=2)).__aenter__()
        await views(api, 3)
    asked = len(service.asked)
    async with asyncio.timeout(10):
        ends = await views(api, 200)
    assert {type(end) for end in ends} == {ConnectionFailed}
    assert len({id(end) for end in ends}) == 200
    assert not any(end.may_have_arrived for end in ends)
    assert "no server listens there" in str(ends[0]) or "refused" in str(ends[0]), str(ends[0])
    assert len(service.asked) - asked < 40, "the session was opened anew for each of them"
    await api.__aexit__(None, None, None)
