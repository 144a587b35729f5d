"""Instances that go to somebody else as they arrive, or nowhere."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from postdicom_async.dicomweb.receive import Receiver
from postdicom_async.dicomweb.retrieve import Target
from postdicom_async.errors import ProtocolError
from postdicom_async.http.answer import StreamedAnswer
from postdicom_async.results import InstanceUids
from postdicom_async.transfer.arrivals import Arrivals
from postdicom_async.transfer.outcomes import Gathered
from postdicom_async.transfer.progress import Meter
from postdicom_async.transfer.sinks import Passing, Relay, Sink, Verified, Verifier
from tests.support.bodies import Multipart, multipart_related
from tests.support.dicom_files import small_dicom, uid

STUDY = uid(7)


def uids(number: int) -> InstanceUids:
    return InstanceUids(STUDY, uid(7, 1), uid(7, 1, number))


LARGE = small_dicom(*uids(0), pixel_bytes=4_000_000)
CONTENTS = [LARGE, *(small_dicom(*uids(number)) for number in range(1, 30))]
MADE = multipart_related(
    CONTENTS, part_headers=lambda index, part: {"Content-Length": str(len(part))} if index % 2 else {}
)


class Answer:
    """As much of an answer as the receiver looks at, which counts what was asked of it."""

    def __init__(self, made: Multipart) -> None:
        self.content_type = made.content_type
        self.end_is_marked = True
        self.asked = 0
        self._body = made.body

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._body), 50_000):
            await asyncio.sleep(0)
            piece = self._body[at : at + 50_000]
            self.asked += len(piece)
            yield piece


@contextmanager
def receiving(sink: Sink) -> Iterator[Callable[[Answer], asyncio.Task[None]]]:
    arrivals = Arrivals(STUDY, Gathered(keeps_all=True))

    def start(answer: Answer) -> asyncio.Task[None]:
        receiver = Receiver(sink, Target(STUDY), arrivals.answer(), meter=Meter(None))
        return asyncio.create_task(receiver.receive(cast("StreamedAnswer", answer), 1000))

    try:
        yield start
    finally:
        arrivals.close()


async def test_verification_keeps_nothing_and_tells_what_came() -> None:
    told: list[Verified] = []
    with receiving(Verifier(told.append)) as start:
        await start(Answer(MADE))
    assert [(one.header.uids, one.size) for one in told] == [(uids(n), len(data)) for n, data in enumerate(CONTENTS)]
    assert [one.sha256 for one in told] == [hashlib.sha256(data).digest() for data in CONTENTS]


async def test_verification_tells_nothing_of_what_was_cut() -> None:
    told: list[Verified] = []
    with receiving(Verifier(told.append)) as start, pytest.raises(ProtocolError):
        await start(Answer(Multipart(MADE.content_type, MADE.body[: len(LARGE) // 2])))
    assert told == []


async def test_instances_pass_through_while_they_arrive() -> None:
    relay = Relay()
    with receiving(relay) as start:
        answer = Answer(MADE)
        task = start(answer)
        task.add_done_callback(lambda _: relay.finish())
        came: list[tuple[InstanceUids, int | None, bytes]] = []
        async for passing in relay:
            if not came:
                assert answer.asked < len(LARGE)
            came.append((passing.uids, passing.length, b"".join([piece async for piece in passing])))
        await task
    assert came == [(uids(n), len(data) if n % 2 else None, data) for n, data in enumerate(CONTENTS)]


async def test_a_slow_reader_holds_back_the_network() -> None:
    relay = Relay(held=300_000)
    with receiving(relay) as start:
        answer = Answer(MADE)
        task = start(answer)
        task.add_done_callback(lambda _: relay.finish())
        passing = await anext(aiter(relay))
        pieces = aiter(passing)
        taken = len(await anext(pieces))
        for _ in range(20):
            for _ in range(50):
                await asyncio.sleep(0)
            assert answer.asked - taken <= 300_000 + 2 * relay.piece + 50_000
            taken += len(await anext(pieces))
        relay.close()
        await task
    assert answer.asked == len(MADE.body)


async def test_a_reader_who_leaves_an_instance_early_gets_the_next_one() -> None:
    relay = Relay(held=300_000)
    with receiving(relay) as start:
        task = start(Answer(MADE))
        task.add_done_callback(lambda _: relay.finish())
        came: list[InstanceUids] = []
        async for passing in relay:
            came.append(passing.uids)
            async with passing:
                await anext(aiter(passing))
        await task
    assert came == [uids(number) for number in range(30)]
    assert not relay.is_full()


@pytest.mark.parametrize("cut", [10_000, 100_000, len(LARGE) - 1])
async def test_what_breaks_off_is_an_error_for_the_reader(cut: int) -> None:
    relay = Relay()
    with receiving(relay) as start:
        task = start(Answer(Multipart(MADE.content_type, MADE.body[:cut])))
        task.add_done_callback(lambda _: relay.finish())
        came: list[Passing] = []
        async for passing in relay:
            came.append(passing)
            with pytest.raises(ProtocolError, match="did not arrive whole"):
                async for _ in passing:
                    pass
        with pytest.raises(ProtocolError):
            await task
    assert len(came) == (cut >= relay.piece)


async def test_a_reader_who_has_gone_does_not_hold_up_the_answer() -> None:
    relay = Relay(held=100_000)
    with receiving(relay) as start:
        answer = Answer(MADE)
        task = start(answer)
        await anext(aiter(relay))
        relay.close()
        async with asyncio.timeout(10):
            await task
    assert answer.asked == len(MADE.body)


async def test_a_cancelled_receiver_tells_the_reader() -> None:
    relay = Relay(held=100_000)
    with receiving(relay) as start:
        task = start(Answer(MADE))
        passing = await anext(aiter(relay))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ProtocolError):
            async for _ in passing:
                pass
    assert "7.1.0" in repr(passing)
