"""A job keeps to its rates and windows, is told so while it runs, and leaves nothing behind where it waited."""

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postdicom_async import ConnectionFailed, DicomWeb, Limits, UsageError
from postdicom_async.jobs.pace.pace import Bucket, Pace, Rate, WorkerShare
from postdicom_async.jobs.pace.presets import PRESETS, preset, preset_of
from postdicom_async.jobs.pace.windows import Windows
from tests.faults import clients
from tests.faults.archive import MemoryArchive
from tests.support.bodies import json_reply
from tests.support.dicom_files import study_files, uid
from tests.support.faulty_server import FaultyServer, Reply
from tests.support.virtual_time import in_virtual_time

MB = 1_000_000.0

# --- rates as texts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("40M", Rate(40e6)),
        ("40 MB/s", Rate(40e6)),
        ("1.5G", Rate(1.5e9)),
        ("500k", Rate(500e3)),
        ("512KiB", Rate(512 * 1024.0)),
        ("40MiB/s", Rate(40 * 1024.0**2)),
        ("2T", Rate(2e12)),
        ("1500", Rate(1500.0)),
        ("off", Rate(None)),
        ("0", Rate(None)),
        ("0M", Rate(None)),
        ("OFF", Rate(None)),
        ("10/s", Rate(10.0, "requests")),
        ("0.5/s", Rate(0.5, "requests")),
        ("600/min", Rate(10.0, "requests")),
        ("0/s", Rate(None, "requests")),
    ],
)
def test_rates(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text", ["", "fast", "-5M", "40X", "40MM", "M", "10/", "10/day", "1e6", "inf", "nan", "4 0M", "40M 10/s", "10M/min"]
)
def test_what_is_no_rate_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match=r'"40M".*"10/s".*"off"'):
        Rate.parse(text)


def test_a_rate_of_the_other_kind_is_refused() -> None:
    with pytest.raises(UsageError, match='"40M"'):
        Rate.parse("10/s", of="bytes")
    with pytest.raises(UsageError, match='"10/s"'):
        Rate.parse("40M", of="requests")
    assert Rate.parse("10", of="requests") == Rate(10.0, "requests")
    assert Rate.parse("off", of="requests") == Rate(None, "requests")


@given(st.one_of(st.sampled_from([40e6, 1e3, 1.5e9, 1024.0, 512 * 1024.0]), st.integers(1, 10**9).map(float)))
def test_a_rate_comes_back(per_second: float) -> None:
    assert Rate.parse(str(Rate(per_second))).per_second == pytest.approx(per_second, rel=1e-12)


def test_rates_as_shown() -> None:
    assert [str(Rate(value)) for value in (40e6, 1.5e9, 999.0, None)] == ["40M", "1.5G", "999", "off"]
    assert str(Rate(10.0, "requests")) == "10/s"


# --- one bucket, in virtual time --------------------------------------------------------------------------------------


def take_all(bucket: Bucket, amounts: list[float], now: float = 0.0) -> list[float]:
    """Take one after the other as soon as it may be taken; return the moments."""
    moments = []
    for amount in amounts:
        while (wait := bucket.take(now, amount)) > 0:
            now += wait
        moments.append(now)
    return moments


def test_without_a_rate_nothing_waits() -> None:
    assert take_all(Bucket(), [1e12] * 100) == [0.0] * 100


def test_a_rate_is_held_and_a_burst_is_a_second_long() -> None:
    moments = take_all(Bucket(10.0), [1.0] * 111)
    assert moments[10] == 0.0  # what a second brings, and one on credit
    assert moments[-1] == pytest.approx(10.0)


def test_what_nobody_took_is_kept_for_a_second_only() -> None:
    bucket = Bucket(10.0)
    take_all(bucket, [1.0] * 20)
    later = take_all(bucket, [1.0] * 20, now=1000.0)
    assert sum(moment < 1000.01 for moment in later) == 11


def test_a_single_amount_may_be_of_any_size_and_the_next_one_waits() -> None:
    bucket = Bucket(1 * MB)
    assert bucket.take(0.0, 3600 * MB) == 0.0
    assert bucket.take(0.0, 1.0) == pytest.approx(3599.0)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(10.0)
    take_all(bucket, [1.0] * 11, now=100.0)
    assert bucket.take(100.0, 1.0) == pytest.approx(0.1)
    assert bucket.take(50.0, 1.0) == pytest.approx(0.1)
    assert bucket.take(50.1, 1.0) == 0.0


def test_a_higher_rate_holds_at_once() -> None:
    bucket = Bucket(1 * MB)
    bucket.take(0.0, 101 * MB)
    assert bucket.take(0.0, 1.0) == pytest.approx(100.0)
    bucket.set(0.0, 100 * MB)
    assert bucket.take(0.0, 1.0) == pytest.approx(1.0)
    bucket.set(0.0, None)
    assert bucket.take(0.0, 1e12) == 0.0


def test_a_lower_rate_holds_at_once_and_old_debts_take_no_longer() -> None:
    bucket = Bucket(100 * MB)
    bucket.take(0.0, 400 * MB)
    assert bucket.take(0.0, 1.0) == pytest.approx(3.0)
    bucket.set(0.0, 1 * MB)
    assert bucket.take(0.0, 1.0) == pytest.approx(3.0)
    moments = take_all(bucket, [MB / 10] * 101, now=3.0)
    assert moments[-1] == pytest.approx(13.0)


def test_a_rate_that_is_lowered_keeps_no_burst_of_the_old_one() -> None:
    bucket = Bucket(100.0)
    bucket.take(0.0, 0.0)
    bucket.set(0.0, 1.0)
    assert take_all(bucket, [1.0] * 5)[-1] == pytest.approx(3.0)


STEPS = st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.001, 50.0)), min_size=1, max_size=60)


@settings(deadline=None)
@given(st.floats(0.1, 100.0), STEPS)
def test_in_no_stretch_of_time_more_is_taken_than_allowed(rate: float, steps: list[tuple[float, float]]) -> None:
    bucket, now, taken = Bucket(rate), 0.0, []
    for pause, amount in steps:
        now += pause
        now = take_all(bucket, [amount], now)[0]
        taken.append((now, amount))
    for first in range(len(taken)):
        total = 0.0
        for moment, amount in taken[first:]:
            # A second's worth and what came in the meantime was there; the last one is on credit.
            assert total <= rate * (1.0 + moment - taken[first][0]) * (1 + 1e-6) + 1e-6
            total += amount


# --- the pace of a job, in virtual time -------------------------------------------------------------------------------

MONDAY = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def virtual(work: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await work()

    in_virtual_time(run)


def moment() -> float:
    return asyncio.get_running_loop().time()


def pace_of(**values: Any) -> Pace:
    return Pace(clock=moment, now=lambda: MONDAY + timedelta(seconds=moment()), **values)


def test_whoever_comes_first_is_served_first() -> None:
    async def work() -> None:
        pace, served = pace_of(max_rate=1 * MB), []

        async def one(number: int, size: int) -> None:
            await pace.bytes(size)
            served.append((number, round(moment())))

        async with asyncio.TaskGroup() as group:
            for number, size in enumerate([10_000_000, 1, 5_000_000, 1, 1]):
                group.create_task(one(number, size))
        assert [number for number, _ in served] == [0, 1, 2, 3, 4]
        assert [at for _, at in served] == [0, 9, 9, 14, 14]

    virtual(work)


def test_a_waiter_that_is_cancelled_takes_nothing_and_holds_nobody_up() -> None:
    async def work() -> None:
        pace = pace_of(max_rate=1 * MB)
        await pace.bytes(11_000_000)
        tasks = [asyncio.create_task(pace.bytes(1_000_000_000)) for _ in range(50)]
        last = asyncio.create_task(pace.bytes(1))
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await last
        assert moment() == pytest.approx(10.0)
        assert all(task.cancelled() for task in tasks)

    virtual(work)


@pytest.mark.parametrize("rate", ["100M", "off"])
def test_a_higher_rate_wakes_whoever_waits(rate: str) -> None:
    async def work() -> None:
        pace = pace_of(max_rate="1M")
        await pace.bytes(1_000_000_000)
        waiting = [asyncio.create_task(pace.bytes(1)) for _ in range(5)]
        await asyncio.sleep(5)
        pace.set(max_rate=rate)
        await asyncio.gather(*waiting)
        assert moment() <= 5 + 10

    virtual(work)


def test_a_lower_rate_holds_within_two_seconds() -> None:
    async def work() -> None:
        pace, moved = pace_of(max_rate="100M"), list[float]()

        async def worker() -> None:
            while True:
                await pace.bytes(500_000)
                moved.append(moment())
                await asyncio.sleep(0.001)

        tasks = [asyncio.create_task(worker()) for _ in range(8)]
        await asyncio.sleep(10)
        assert len(moved) >= 200 * 9.5
        pace.set(max_rate="1M")
        await asyncio.sleep(2)
        moved.clear()
        await asyncio.sleep(60)
        assert 110 <= len(moved) <= 122
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    virtual(work)


def test_requests_and_bytes_have_their_own_rates() -> None:
    async def work() -> None:
        pace = pace_of(max_rate="1M", max_requests="2/s")
        await pace.bytes(100_000_000)
        for _ in range(23):
            await pace.request()
        assert moment() == pytest.approx(10.0)

    virtual(work)


def test_a_pause_holds_until_it_is_taken_back() -> None:
    async def work() -> None:
        pace = pace_of()
        await pace.wait_until_open()
        pace.pause()
        waiting = asyncio.create_task(pace.wait_until_open())
        await asyncio.sleep(10_000)
        assert not waiting.done()
        assert pace.paused
        assert not pace.is_open
        pace.resume()
        await waiting
        assert moment() <= 10_002

    virtual(work)


def test_a_window_is_waited_for() -> None:
    async def work() -> None:
        pace = pace_of(windows="20:00-06:00 UTC")
        await pace.wait_until_open()
        assert moment() == pytest.approx(8 * 3600)
        await asyncio.sleep(9 * 3600)
        assert pace.is_open
        await asyncio.sleep(2 * 3600)
        assert not pace.is_open

    virtual(work)


def test_other_windows_wake_whoever_waits() -> None:
    async def work() -> None:
        pace = pace_of(windows="20:00-06:00 UTC")
        waiting = asyncio.create_task(pace.wait_until_open())
        await asyncio.sleep(100)
        pace.set(windows="")
        await waiting
        assert moment() <= 102
        pace.set(windows=Windows.parse("20:00-06:00 UTC"))
        assert not pace.is_open

    virtual(work)


def test_a_clock_on_the_wall_that_is_put_forward_is_noticed() -> None:
    async def work() -> None:
        shift = [0.0]
        pace = Pace(
            windows="20:00-06:00 UTC", clock=moment, now=lambda: MONDAY + timedelta(seconds=moment() + shift[0])
        )
        waiting = asyncio.create_task(pace.wait_until_open())
        await asyncio.sleep(10)
        shift[0] = 8 * 3600.0  # the machine slept
        await waiting
        assert moment() <= 60

    virtual(work)


def test_whoever_waits_for_a_window_may_be_cancelled() -> None:
    async def work() -> None:
        pace = pace_of(windows="20:00-06:00 UTC")
        waiting = asyncio.create_task(pace.wait_until_open())
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual(work)


# --- what may be set --------------------------------------------------------------------------------------------------


def test_what_is_not_named_stays() -> None:
    pace = Pace(max_rate="40M", max_requests=10, at_once=6, windows="20:00-06:00 UTC")
    before = pace.snapshot()
    pace.set()
    assert pace.snapshot() == before
    pace.set(at_once=3)
    assert pace.snapshot() == before | {"at_once": 3}
    pace.set(max_rate="10/s")  # the option is one for both kinds
    assert pace.snapshot()["max_rate"] == "40M"


@pytest.mark.parametrize(
    "values",
    [
        {"max_rate": "fast"},
        {"max_rate": -1},
        {"max_rate": float("nan")},
        {"max_rate": float("inf")},
        {"max_rate": True},
        {"max_rate": []},
        {"max_requests": "40M"},
        {"max_requests": {}},
        {"at_once": -1},
        {"at_once": 1.5},
        {"at_once": "6"},
        {"at_once": True},
        {"at_once": 10**6},
        {"windows": "sometimes"},
        {"windows": 5},
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_changed(values: dict[str, Any]) -> None:
    pace = Pace(max_rate="40M", at_once=6)
    before = pace.snapshot()
    wanted: dict[str, Any] = {"max_rate": "1M", "max_requests": "1/s", "at_once": 2, "windows": ""} | values
    with pytest.raises(UsageError) as raised:
        pace.set(**wanted)
    assert pace.snapshot() == before
    assert "\n" not in str(raised.value)


def test_a_snapshot_is_json_and_can_be_set_again() -> None:
    pace = Pace(max_rate="40M", max_requests="10/s", at_once=6, windows="Mon-Fri 20:00-06:00 Europe/Berlin")
    pace.pause()
    shot = json.loads(json.dumps(pace.snapshot()))
    other = Pace()
    other.set(**{name: shot[name] for name in ("max_rate", "max_requests", "at_once", "windows")})
    other.pause()
    assert other.snapshot() == pace.snapshot()
    other.set(max_rate="off", max_requests=0, at_once=0, windows="always")
    other.resume()
    assert other.snapshot() == Pace().snapshot()


def test_rates_are_shared_among_workers() -> None:
    pace = Pace(max_rate="40M", max_requests=10)
    share = pickle.loads(pickle.dumps(pace.share(4)))
    assert share == WorkerShare(10e6, 2.5)
    assert Pace().share(4) == WorkerShare()
    assert Pace(max_rate=share.max_rate, max_requests=share.max_requests).share(0) == share


# --- presets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("healthcare.googleapis.com", "google"),
        ("HEALTHCARE.googleapis.com.", "google"),
        ("dicom-medical-imaging.us-east-1.amazonaws.com", "aws"),
        ("clinic-imaging.dicom.azurehealthcareapis.com", "azure"),
        ("www.postdicom.com", "postdicom"),
        ("postdicom.com", "postdicom"),
        ("notpostdicom.com", None),
        ("s3.amazonaws.com", None),
        ("healthcare.googleapis.com.example", None),
        ("localhost", None),
        ("", None),
    ],
)
def test_a_cloud_is_known_by_its_host(host: str, name: str | None) -> None:
    found = preset_of(host)
    assert (found and found.name) == name


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_can_be_applied(name: str) -> None:
    one = preset(name.upper())
    Limits(batch_instances=one.batch_instances, batch_bytes=one.batch_bytes, page_size=one.page_size)
    Pace(max_requests=one.max_requests, at_once=one.parallel)
    assert one.notes


def test_an_unknown_preset_is_refused_with_all_names() -> None:
    with pytest.raises(UsageError, match=r"google.*postdicom"):
        preset("amazon prime")


# --- requests of a client, on a real server ---------------------------------------------------------------------------

STUDY = uid(1)


async def test_ten_requests_a_second_over_searches_and_transfers(transport_name: str) -> None:
    files = list(study_files(12).values())
    pace, asked = Pace(max_requests="10/s"), list[float]()

    async def gate() -> None:
        await pace.request()
        asked.append(time.monotonic())

    using = clients.settings(before_request=gate, batch_instances=1, page_size=3)
    failed = itertools.chain([Reply(503)], itertools.repeat(None))
    world = MemoryArchive(files, fault=lambda _: next(failed))
    transport = clients.transport_of(transport_name, using)
    async with FaultyServer(world) as server, DicomWeb(server.url, settings=using, transport=transport) as archive:
        async with asyncio.TaskGroup() as group:
            group.create_task(archive.upload(files))
            group.create_task(archive.search_for_instances(study_instance_uid=STUDY).all())
            for _ in range(8):
                group.create_task(archive.search_for_instances(study_instance_uid=STUDY, limit=1).first())
        requests = len(server.requests)
    assert requests >= 24  # twelve stores and the check on them, five pages, eight searches
    assert len(asked) == requests, "every request is asked for, a repeat too"
    # Ten are there to begin with, and one is on credit.
    assert asked[-1] - asked[0] >= (requests - 11) / 10 - 0.01


async def test_whoever_waits_for_the_pace_holds_no_connection() -> None:
    closed = asyncio.Event()

    async def gate() -> None:
        await closed.wait()

    using = clients.settings(connections=1, parallel_searches=1)
    async with FaultyServer(lambda _: json_reply([])) as server, DicomWeb(server.url, settings=using) as archive:
        slow = archive.with_options(before_request=gate)
        waiting = [asyncio.create_task(slow.search_for_studies(limit=1).first()) for _ in range(3)]
        for _ in range(5):
            await archive.search_for_studies(limit=1).first()
        assert not any(task.done() for task in waiting)
        closed.set()
        await asyncio.gather(*waiting)
        assert len(server.requests) == 8


async def test_a_wait_for_the_pace_is_no_silence_of_the_archive() -> None:
    async def gate() -> None:
        await asyncio.sleep(0.6)

    using = clients.settings(
        before_request=gate, answer=0.3, search_answer=0.3, idle_read=0.3, connect=0.3, max_attempts=1
    )
    async with FaultyServer(lambda _: json_reply([])) as server, DicomWeb(server.url, settings=using) as archive:
        assert await archive.search_for_studies(limit=1).first() is None


async def test_a_deadline_counts_it() -> None:
    async def gate() -> None:
        await asyncio.Event().wait()

    using = clients.settings(before_request=gate, deadline=0.2)
    async with FaultyServer(lambda _: json_reply([])) as server, DicomWeb(server.url, settings=using) as archive:
        with pytest.raises(ConnectionFailed, match="deadline"):
            await archive.search_for_studies(limit=1).first()
        assert not server.requests


async def test_a_call_that_is_cancelled_while_it_waits_leaves_nothing() -> None:
    pace = Pace(max_requests="10/h")
    files = list(study_files(3).values())
    using = clients.settings(before_request=pace.request, connections=2, parallel_searches=1)
    before = asyncio.all_tasks()
    async with FaultyServer(MemoryArchive(files)) as server, DicomWeb(server.url, settings=using) as archive:
        await archive.search_for_studies(limit=1).first()
        calls: list[Any] = [archive.search_for_instances(study_instance_uid=STUDY).all() for _ in range(10)]
        calls += [archive.upload(files) for _ in range(10)]
        tasks = [asyncio.ensure_future(call) for call in calls]
        for turns in range(5):
            await asyncio.sleep(0.01 * turns)
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert len(server.requests) == 1
        pace.set(max_requests="off")
        for _ in range(5):
            assert len(await archive.search_for_instances(study_instance_uid=STUDY).all()) == 3
        assert server.open_connections <= 2
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before


async def test_what_the_pace_raises_ends_the_call_and_holds_no_slot() -> None:
    async def gate() -> None:
        raise OSError("stopped")

    using = clients.settings(connections=1, parallel_searches=1)
    async with FaultyServer(lambda _: json_reply([])) as server, DicomWeb(server.url, settings=using) as archive:
        stopped = archive.with_options(before_request=gate)
        for _ in range(3):
            with pytest.raises(OSError, match="stopped"):
                await stopped.search_for_studies(limit=1).first()
        await archive.search_for_studies(limit=1).first()
        assert len(server.requests) == 1


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(UsageError, match="before_request"):
        clients.settings(before_request=5)
