"""What is under way on other machines: nothing counts twice, nothing is forgotten, a poisonous instance fails alone."""

from __future__ import annotations

import random

import pytest

from postdicom_async.jobs.ends.end import ListedInstance, Selection
from postdicom_async.jobs.machines.in_flight import CONDEMNED_AFTER, AttemptKey, ChunkReport, InFlight
from postdicom_async.jobs.plan import Chunk, ChunkEnd, ItemEnd
from postdicom_async.jobs.states import Reason, State


def chunk(number: int, count: int = 8, attempt: int = 1) -> Chunk:
    instances = [ListedInstance("1.2", f"1.2.{number}.{place}") for place in range(count)]
    return Chunk(number, attempt, number, Selection(f"1.{number}", None, instances, whole=True))


def taken(flights: InFlight) -> Chunk:
    found = flights.take()
    assert found is not None
    return found


def key_of(one: Chunk) -> AttemptKey:
    return one.number, one.attempt


def done(one: Chunk) -> list[ItemEnd]:
    return [ItemEnd(instance.series, instance.uid, State.DONE) for instance in one.wanted.instances]


def uids(one: Chunk) -> list[str]:
    return [instance.uid for instance in one.wanted.instances]


def test_a_chunk_is_handed_out_whole_and_ends_with_one_end_last() -> None:
    flights, given = InFlight(), chunk(7)
    flights.add(given)
    out = taken(flights)
    assert out == given
    assert flights.take() is None
    ends = flights.landed(key_of(out), done(out), ChunkEnd())
    assert ends == [*((given, item) for item in done(given)), (given, ChunkEnd())]
    assert flights.empty
    assert not flights.flying


def test_what_lands_twice_or_from_an_earlier_attempt_does_not_count() -> None:
    flights = InFlight()
    flights.add(chunk(1, attempt=3))
    first = taken(flights)
    flights.lost_all()
    second = taken(flights)
    assert (first.attempt, second.attempt) == (3, 4)
    assert flights.landed(key_of(first), done(first), ChunkEnd()) == []
    assert len(flights.landed(key_of(second), done(second), ChunkEnd())) == 9
    assert flights.landed(key_of(second), done(second), ChunkEnd()) == []
    assert flights.killed(key_of(second)) == []
    assert flights.empty


def test_what_was_lost_comes_first_and_in_order() -> None:
    flights = InFlight()
    for number in (1, 2, 3):
        flights.add(chunk(number))
    assert [taken(flights).number for _ in range(2)] == [1, 2]
    flights.lost_all()
    assert [taken(flights).number for _ in range(3)] == [1, 2, 3]


def test_a_chunk_that_killed_its_workers_comes_back_in_halves_with_attempts_of_their_own() -> None:
    flights, given = InFlight(), chunk(1, count=5)
    flights.add(given)
    assert flights.killed(key_of(taken(flights))) == []
    first, second = taken(flights), taken(flights)
    assert uids(first) + uids(second) == uids(given)
    assert {len(uids(first)), len(uids(second))} == {2, 3}
    assert not first.wanted.whole  # asking for the whole study would bring the other half too
    assert len({1, first.attempt, second.attempt}) == 3
    ends = flights.landed(key_of(second), done(second), ChunkEnd())
    assert all(isinstance(end, ItemEnd) for _, end in ends)
    assert flights.landed(key_of(first), done(first), ChunkEnd())[-1] == (given, ChunkEnd())


def test_an_instance_is_condemned_only_after_it_was_alone() -> None:
    flights = InFlight()
    flights.add(chunk(1, count=1))
    flights.add(chunk(2, count=1))
    suspect, other = taken(flights), taken(flights)
    assert flights.killed(key_of(suspect)) == []  # the other may have done it
    assert flights.take() is None  # it waits until the other has landed
    flights.add(chunk(3))
    assert flights.landed(key_of(other), done(other), ChunkEnd())
    for time in range(1, CONDEMNED_AFTER + 1):
        alone = taken(flights)
        assert alone.number == 1
        assert flights.take() is None  # and nothing else beside it
        ends = flights.killed(key_of(alone))
        assert bool(ends) == (time == CONDEMNED_AFTER)
    assert [end for _, end in ends] == [ItemEnd("1.2", "1.2.1.0", State.FAILED, Reason.UNEXPECTED), ChunkEnd()]
    assert taken(flights).number == 3


def test_a_suspect_that_is_lost_with_its_scheduler_is_tried_alone_again() -> None:
    flights = InFlight()
    flights.add(chunk(1, count=1))
    flights.add(chunk(2))
    flights.killed(key_of(taken(flights)))
    assert taken(flights).number == 1
    flights.lost_all()
    assert taken(flights).number == 1
    assert flights.take() is None


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_problems_the_graver_is_told(turned: bool) -> None:
    flights, given = InFlight(), chunk(1)
    flights.add(given)
    flights.killed(key_of(taken(flights)))
    outage = ChunkEnd("target", "ConnectionFailed", temporary=True)
    refused = ChunkEnd("source", "AuthenticationFailed")
    flights.landed(key_of(taken(flights)), [], refused if turned else outage)
    assert flights.landed(key_of(taken(flights)), [], outage if turned else refused) == [(given, refused)]


def test_the_same_chunk_is_not_under_way_twice() -> None:
    flights = InFlight()
    flights.add(chunk(1))
    with pytest.raises(AssertionError):
        flights.add(chunk(1, attempt=2))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_every_instance_ends_once_and_only_poison_fails(seed: int) -> None:
    """Workers die, the scheduler dies, copies land late; poisonous instances kill whoever has them."""
    chance = random.Random(seed)
    chunks = [chunk(number, chance.randint(0, 40)) for number in range(1, 9)]
    everything = [uid for one in chunks for uid in uids(one)]
    poison = set(chance.sample(everything, chance.randint(0, 3)))
    flights, ended, gone, waiting = InFlight(), list[ChunkReport](), list[Chunk](), list(chunks)
    flying: list[Chunk] = []
    for _ in range(20_000):
        if waiting and not flights.has_waiting:
            flights.add(waiting.pop(0))
        if len(flying) < 4 and (out := flights.take()) is not None:
            flying.append(out)
        if not flying:
            break
        out = chance.choice(flying)
        match chance.choice(["land", "land", "land", "worker", "scheduler", "late", "nothing"]):
            case "land" if not poison & set(uids(out)):
                flying.remove(out)
                gone.append(out)
                ended += flights.landed(key_of(out), done(out), ChunkEnd())
            case "land":  # whoever flies beside it on the same worker is taken down too
                beside = [other for other in flying if other is out or chance.random() < 0.5]
                flying = [other for other in flying if other not in beside]
                gone += beside
                ended += [given for other in beside for given in flights.killed(key_of(other))]
            case "worker" if chance.random() < 0.1:
                flying.remove(out)
                gone.append(out)
                flights.lost(key_of(out))
            case "scheduler" if chance.random() < 0.1:
                gone += flying
                flying = []
                flights.lost_all()
            case "late" if gone:
                late = chance.choice(gone)
                assert flights.landed(key_of(late), done(late), ChunkEnd()) == []
            case _:
                pass
    assert flights.empty
    items = [end for _, end in ended if isinstance(end, ItemEnd)]
    assert sorted(end.uid for end in items) == sorted(everything)
    assert {end.uid for end in items if end.state is State.FAILED} == poison
    assert sorted(one.number for one, end in ended if isinstance(end, ChunkEnd)) == list(range(1, 9))
