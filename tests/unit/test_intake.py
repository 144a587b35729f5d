"""What an upload makes of its sources: one outcome each, in order, whatever is refused, cut off or alike."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async import Anonymization
from postdicom_async.disk import scratch
from postdicom_async.errors import ConnectionFailed, LocalFileError, UsageError
from postdicom_async.results import BytesMoved, InstanceFinished, Outcome, ProgressEvent, Status, UploadReport
from postdicom_async.transfer import intake as intake_module
from postdicom_async.transfer.at_once import for_each
from postdicom_async.transfer.intake import Intake, Numbered
from postdicom_async.transfer.outcomes import Gathered
from tests.support.dicom_files import small_dicom, uid

STORED, FAILED, DUPLICATE = Status.STORED, Status.FAILED, Status.DUPLICATE
UNREADABLE, UNCONFIRMED = Status.UNREADABLE, Status.UNCONFIRMED
IN_THE_WAY = "another source of this upload has the same SOP Instance UID and other content"


def version(number: int, instance: int = 1, *, pixel_bytes: int = 64) -> bytes:
    """Make one of several files with the same UIDs and the same length."""
    return small_dicom(uid(1), uid(1, 1), uid(1, 1, instance), pixel_bytes=pixel_bytes, patient_name=f"V{number:04}")


class Consumer:
    """Sends what it is given, some at a time, and settles it with what ``verdict`` says."""

    def __init__(self, verdict: Callable[[bytes], Status] = lambda _: STORED, *, at_once: int = 2) -> None:
        self.verdict = verdict
        self.at_once = at_once
        self.sent: list[bytes] = []
        self.rounds = 0
        self.under_way: set[str] = set()
        self.delay: Callable[[], float] = lambda: 0.0
        self.events: list[ProgressEvent] = []
        self.listener: Callable[[ProgressEvent], None] = self.events.append
        self.before: Callable[[bytes], Awaitable[None]] | None = None
        self.ends_at = 1 << 30

    async def upload(self, sources: Any, **options: Any) -> UploadReport:
        intake = Intake(piece=1000, anonymize=options.pop("anonymize", None), on_progress=self.listener, **options)

        async def deliver(one: Numbered) -> None:
            instance = one.instance
            name = instance.header.uids.sop_instance_uid
            assert name not in self.under_way, "two sources of one UID at once"
            self.under_way.add(name)
            try:
                data = b"".join([piece async for piece in instance.body.open()])
                self.sent.append(data)
                if self.before is not None:
                    await self.before(data)
                await asyncio.sleep(self.delay())
                if len(self.sent) > self.ends_at:
                    raise ConnectionFailed("gone")
                status = self.verdict(data)
            except LocalFileError:
                status = UNREADABLE
            finally:
                self.under_way.discard(name)
            intake.settle(
                one.number,
                Outcome(instance.label, status, instance.header.uids, instance.body.length, reason="said so"),
            )

        async def send(admitted: AsyncIterator[Numbered]) -> None:
            self.rounds += 1
            await for_each(admitted, deliver, at_once=self.at_once)

        return await intake.run(sources, send, "send", None)


def refusing(*refused: bytes, status: Status = FAILED) -> Callable[[bytes], Status]:
    return lambda data: status if data in refused else STORED


def statuses(report: UploadReport) -> list[Status]:
    return [outcome.status for outcome in report.outcomes]


# --- several sources with one UID -------------------------------------------------------------------------------------


async def test_when_the_first_is_stored_the_others_fail() -> None:
    consumer = Consumer()
    report = await consumer.upload([version(1), version(2), version(3), version(1), version(2)])
    assert statuses(report) == [STORED, FAILED, FAILED, DUPLICATE, FAILED]
    assert [one.reason for one in report.outcomes[1:3]] == [IN_THE_WAY] * 2
    assert consumer.sent == [version(1)]


async def test_when_the_first_is_refused_the_next_is_tried() -> None:
    consumer = Consumer(refusing(version(1), version(2)))
    report = await consumer.upload([version(n) for n in (1, 2, 3, 4)] + [version(3), version(1)])
    assert statuses(report) == [FAILED, FAILED, STORED, FAILED, DUPLICATE, FAILED]
    assert [one.reason for one in report.outcomes] == [
        "said so", "said so", "said so", IN_THE_WAY, "sent once", "as the one like it",
    ]  # fmt: skip
    assert consumer.sent == [version(1), version(2), version(3)]


@pytest.mark.parametrize("status", [UNCONFIRMED, Status.WARNED, Status.PRESENT])
async def test_only_what_is_not_there_makes_room(status: Status) -> None:
    report = await Consumer(refusing(version(1), status=status)).upload([version(1), version(2)])
    assert statuses(report) == [status, FAILED]
    assert report.outcomes[1].reason == IN_THE_WAY


async def test_one_like_another_that_is_there_already_was_not_sent() -> None:
    report = await Consumer(lambda _: Status.PRESENT).upload([version(1), version(1)])
    assert statuses(report) == [Status.PRESENT, DUPLICATE]
    assert report.outcomes[1].reason == "as the one like it, which is there already"


async def test_one_that_becomes_unreadable_makes_room(tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(version(1))
    (tmp_path / "2").write_bytes(version(2))
    consumer = Consumer()

    async def changing() -> AsyncIterator[Path]:
        yield tmp_path / "1"
        yield tmp_path / "2"
        (tmp_path / "1").write_bytes(version(3))
        await asyncio.sleep(0)

    consumer.at_once = 1
    with pytest.MonkeyPatch.context() as patched:
        real = intake_module.Intake._admitted

        async def then_changed(self: Intake, source: Any) -> Any:
            numbered = await real(self, source)
            (tmp_path / "1").write_bytes(version(3))
            return numbered

        patched.setattr(intake_module.Intake, "_admitted", then_changed)
        report = await consumer.upload(changing())
    assert statuses(report) == [UNREADABLE, STORED]
    assert consumer.sent == [version(2)]


@pytest.mark.parametrize("kind", ["bytes", "files"])
async def test_a_cut_one_never_stands_for_its_uid(kind: str, tmp_path: Path) -> None:
    cut, whole = version(1)[:-1], version(1)
    sources: list[Any] = [cut, whole]
    if kind == "files":
        for name, data in zip(("a", "b"), (cut, whole), strict=True):
            (tmp_path / name).write_bytes(data)
        sources = [tmp_path]
    consumer = Consumer()
    report = await consumer.upload(sources)
    assert statuses(report) == [UNREADABLE, STORED]
    assert report.outcomes[0].reason == "cut off: its pixel data need 64 bytes, 63 are there"
    assert consumer.sent == [whole]
    assert not report.ok


async def test_a_cut_one_that_the_caller_insists_on() -> None:
    cut, whole = version(1)[:-1], version(1)
    consumer = Consumer(refusing(cut))
    report = await consumer.upload([cut, whole], send_truncated=True)
    assert statuses(report) == [FAILED, STORED]
    assert consumer.sent == [cut, whole]


async def test_a_late_one_goes_out_at_once_when_the_first_was_refused() -> None:
    consumer = Consumer(at_once=1)
    settled = asyncio.Event()

    def refusing_the_first(data: bytes) -> Status:
        settled.set()
        return FAILED if data == version(1) else STORED

    consumer.verdict = refusing_the_first

    async def slowly() -> AsyncIterator[bytes]:
        yield version(1)
        yield version(9, 9)
        await settled.wait()
        yield version(2)

    assert statuses(await consumer.upload(slowly())) == [FAILED, STORED, STORED]


async def test_anonymised_ones_are_tried_as_well() -> None:
    rules = Anonymization({"PatientBirthDate": ""})
    consumer = Consumer(lambda data: FAILED if b"V0001" in data else STORED)
    report = await consumer.upload([version(1), version(2), version(2)], anonymize=rules)
    assert statuses(report) == [FAILED, STORED, DUPLICATE]


async def test_no_more_than_a_few_are_kept_of_one_uid() -> None:
    consumer = Consumer(lambda _: FAILED)
    report = await consumer.upload([version(number) for number in range(30)])
    assert statuses(report) == [FAILED] * 30
    assert len(consumer.sent) == 9
    assert {one.reason for one in report.outcomes[9:]} == {IN_THE_WAY}


async def test_little_of_what_waits_is_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(intake_module, "_HELD_BYTES", 2 * len(version(0, pixel_bytes=100_000)))
    large = [version(number, instance, pixel_bytes=100_000) for instance in (1, 2, 3, 4) for number in (1, 2)]
    seconds = large[1::2]
    consumer = Consumer(refusing(*large[::2]), at_once=len(large))
    consumer.delay = lambda: 0.05
    report = await consumer.upload(large)
    assert statuses(report) == [FAILED, STORED, FAILED, STORED, FAILED, FAILED, FAILED, FAILED]
    for number, data in enumerate(seconds):
        (tmp_path / f"{number}").write_bytes(data)
    consumer = Consumer(refusing(*large[::2]), at_once=len(large))
    consumer.delay = lambda: 0.05
    report = await consumer.upload([*large[::2], tmp_path])
    assert statuses(report) == [FAILED] * 4 + [STORED] * 4, "files are not in memory"


# --- an end before the end --------------------------------------------------------------------------------------------


async def test_what_was_never_sent_is_failed_and_says_why() -> None:
    consumer = Consumer(at_once=1)
    consumer.ends_at = 2
    sources = [version(1, number) for number in range(1, 9)] + [version(2, 3), version(1, 3)]
    with pytest.raises(ConnectionFailed) as caught:
        await consumer.upload(sources)
    report = caught.value.report
    assert isinstance(report, UploadReport)
    assert statuses(report)[:2] == [STORED] * 2
    assert {(one.status, one.reason) for one in report.outcomes[2:]} == {(FAILED, "not sent: gone")}
    assert 3 <= len(report.outcomes) <= 4, "what was not drawn has no outcome"


async def test_what_waits_when_all_ends_was_not_sent_either() -> None:
    consumer = Consumer(at_once=3)
    consumer.ends_at = 0
    consumer.delay = lambda: 0.05
    with pytest.raises(ConnectionFailed) as caught:
        await consumer.upload([version(1), version(2), version(1)])
    report = caught.value.report
    assert isinstance(report, UploadReport)
    assert [(one.status, one.reason) for one in report.outcomes] == [
        (FAILED, "not sent: gone"),
        (FAILED, "not sent: gone"),
        (FAILED, "as the one like it"),
    ]


async def test_cancelled_while_others_wait() -> None:
    """Nothing goes on, and nothing is held up."""
    consumer = Consumer(at_once=1)
    consumer.delay = lambda: 60.0
    tasks = set(asyncio.all_tasks())
    with anyio.move_on_after(0.2) as scope:
        await consumer.upload([version(1), version(2), version(3)])
    assert scope.cancelled_caught
    await asyncio.sleep(0)
    assert set(asyncio.all_tasks()) == tasks
    assert consumer.sent == [version(1)]


async def test_one_slot_and_all_refused() -> None:
    """The only slot is never held for what waits for it."""
    consumer = Consumer(lambda _: FAILED, at_once=1)
    async with asyncio.timeout(20):
        report = await consumer.upload([version(number, instance) for instance in range(5) for number in range(3)])
    assert statuses(report) == [FAILED] * 15
    assert len(consumer.sent) == 15


@pytest.mark.parametrize("wrong", [None, 1, "yes"])
def test_send_truncated_is_yes_or_no(wrong: Any) -> None:
    with pytest.raises(UsageError, match="send_truncated: give True or False"):
        Intake(piece=1, anonymize=None, on_progress=None, send_truncated=wrong)


# --- as it comes ------------------------------------------------------------------------------------------------------


async def told_by(consumer: Consumer, sources: Any) -> list[tuple[str, Status]]:
    """Upload into the fold of a stream; return what it was told, in that order."""
    told: list[tuple[str, Status]] = []
    gathered = Gathered(keeps_all=True)

    def add(outcome: Outcome, number: int = 0) -> None:
        told.append((outcome.where, outcome.status))
        Gathered.add(gathered, outcome, number)

    gathered.add = add  # type: ignore[method-assign]
    report = await consumer.upload(sources, gathered=gathered)
    assert sorted(told) == sorted((one.where, one.status) for one in report.outcomes)
    return told


async def test_a_twin_is_told_with_the_end_of_the_one_that_stands_for_it() -> None:
    consumer = Consumer(refusing(version(1)))
    told = await told_by(consumer, [version(1), version(1), version(9, 9), version(9, 9)])
    assert told == [("bytes 1", FAILED), ("bytes 2", FAILED), ("bytes 3", STORED), ("bytes 4", DUPLICATE)]


async def test_more_twins_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they wait for is sent first, in a round of its own."""
    monkeypatch.setattr(intake_module, "_MOST_TWINS", 3)
    consumer = Consumer(refusing(version(1)), at_once=9)
    consumer.delay = lambda: 0.05
    sources = [version(1), *[version(1)] * 9, version(2), *[version(2)] * 9, version(7, 7)]
    report = await consumer.upload(sources)
    assert statuses(report) == [FAILED] * 10 + [STORED, *[DUPLICATE] * 9, STORED]
    assert consumer.rounds > 2


async def test_one_that_comes_again_when_it_was_settled_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen is found in the database as in memory; a refused one still makes room for another."""
    monkeypatch.setattr(scratch, "_RECENT", 2)
    sources = [version(number, instance) for number in (1, 2, 1, 2) for instance in range(1, 12)]
    consumer = Consumer(lambda data: FAILED if data in sources[:5] else STORED, at_once=1)
    report = await consumer.upload(sources)
    assert (
        statuses(report)
        == [FAILED] * 5 + [STORED] * 6 + [STORED] * 5 + [FAILED] * 6 + [FAILED] * 5 + [DUPLICATE] * 11 + [FAILED] * 6
    )


async def test_files_that_come_again_when_they_were_settled_long_ago(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scratch, "_RECENT", 2)
    for number in range(20):
        (tmp_path / f"a{number}\udcff").write_bytes(version(1, number))
        (tmp_path / f"b{number}").write_bytes(version(1 + number % 2, number))
    report = await Consumer(at_once=1).upload(tmp_path)
    assert report.counts == {STORED: 20, DUPLICATE: 10, FAILED: 10}


async def test_one_that_is_under_way_again_while_many_others_are_settled() -> None:
    """It was refused, comes again with other content, and is not for the database before that is settled too."""
    consumer = Consumer(refusing(version(1)), at_once=3)
    others_are_through = asyncio.Event()

    async def deliver_slowly(data: bytes) -> None:
        if data == version(2):
            await others_are_through.wait()

    consumer.before = deliver_slowly

    async def sources() -> AsyncIterator[bytes]:
        yield version(1)
        while not consumer.sent:
            await asyncio.sleep(0)
        yield version(2)
        for instance in range(2, 600):
            yield version(1, instance)
        others_are_through.set()

    report = await consumer.upload(sources())
    assert report.counts == {FAILED: 1, STORED: 599}


async def test_a_full_folder_for_temporary_files_is_a_plain_error_and_hides_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full() -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(scratch, "_new_database", full)
    monkeypatch.setattr(scratch, "_RECENT", 5)
    consumer = Consumer(at_once=3)
    with pytest.raises(LocalFileError, match=r"temporary files.*full") as caught:
        await consumer.upload([version(1, instance) for instance in range(100)])
    report = caught.value.report
    assert isinstance(report, UploadReport)
    assert report.counts == {STORED: len(consumer.sent)}
    assert 5 <= len(consumer.sent) <= 8


@pytest.mark.parametrize("at", [1, 2, 5])
async def test_a_listener_that_raises_ends_it_and_hides_nothing(at: int) -> None:
    class Enough(Exception):
        pass

    def listener(event: ProgressEvent) -> None:
        if isinstance(event, InstanceFinished) and event.totals.instances_done >= at:
            raise Enough

    consumer = Consumer(at_once=2)
    consumer.listener = listener
    gathered = Gathered(keeps_all=True)
    sources = [version(1, 1 + number // 2) for number in range(40)]  # each twice
    with pytest.raises(Enough):
        await consumer.upload(sources, gathered=gathered)
    assert gathered.counts[STORED] == len(consumer.sent) < 20
    assert gathered.counts[FAILED] == 0
    assert gathered.counts[DUPLICATE] >= len(consumer.sent) - 2


async def test_a_listener_that_raises_at_the_very_end() -> None:
    class Enough(Exception):
        pass

    def listener(event: ProgressEvent) -> None:
        if isinstance(event, InstanceFinished) and event.totals.instances_done == 3:
            raise Enough

    consumer = Consumer(at_once=5)
    consumer.listener = listener
    with pytest.raises(Enough):
        await consumer.upload([version(1, 1), version(1, 2), version(1, 3)])


# --- whatever comes in whatever order ---------------------------------------------------------------------------------

GIVEN = st.lists(
    st.one_of(st.tuples(st.integers(1, 3), st.integers(1, 4)), st.just("text"), st.just("cut")), max_size=25
)


def expected(given_sources: list[Any], bad: set[tuple[int, int]]) -> list[Status]:
    """Say what must become of each source, whenever each is sent."""
    versions: dict[int, list[int]] = {}
    for one in given_sources:
        if isinstance(one, tuple) and one[1] not in versions.setdefault(one[0], []):
            versions[one[0]].append(one[1])
    chosen = {
        instance: next((number for number in numbers if (instance, number) not in bad), None)
        for instance, numbers in versions.items()
    }
    seen: set[tuple[int, int]] = set()
    found: list[Status] = []
    for one in given_sources:
        if not isinstance(one, tuple):
            found.append(Status.NOT_DICOM if one == "text" else UNREADABLE)
        elif chosen[one[0]] == one[1]:
            found.append(DUPLICATE if one in seen else STORED)
        else:
            found.append(FAILED)
        if isinstance(one, tuple):
            seen.add(one)
    return found


@given(
    GIVEN,
    st.sets(st.tuples(st.integers(1, 3), st.integers(1, 4))),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
    st.booleans(),
)
@pytest.mark.asyncio
async def test_every_source_has_its_outcome(
    sources: list[Any], bad: set[tuple[int, int]], at_once: int, chance: random.Random, streamed: bool
) -> None:
    odd = {"text": b"no DICOM", "cut": version(9, 1)[:-1]}
    data = [odd[one] if isinstance(one, str) else version(one[1], one[0]) for one in sources]
    consumer = Consumer(refusing(*(version(number, instance) for instance, number in bad)), at_once=at_once)
    consumer.delay = lambda: chance.choice([0, 0, 0.001])
    report = await consumer.upload(iter(data) if streamed else data)
    assert statuses(report) == expected(sources, bad)
    assert [one.size for one in report.outcomes] == list(map(len, data))
    assert len(consumer.sent) == len(set(consumer.sent))
    finished = [event for event in consumer.events if isinstance(event, InstanceFinished)]
    assert [event.totals.instances_done for event in finished] == list(range(1, len(data) + 1))
    assert not [event for event in consumer.events if isinstance(event, BytesMoved)]
