"""How many requests run at once, in virtual time against archives that are made up."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async.transfer.adaptive import AtOnce

MB = 1_000_000


@dataclass
class Server:
    """Shares what it can carry with so many streams equally among them.

    Attributes:
        carries: bytes a second with so many at once.
        delay: seconds until a piece begins to move.
        allows: refuses what is more.
        jitter: how much the size of what a piece costs may differ, as a factor.
    """

    carries: Callable[[int], float]
    delay: float = 0.0
    allows: int = 1_000
    jitter: float = 0.0


@dataclass
class Run:
    """What came of it."""

    seconds: float
    levels: list[tuple[float, int]] = field(default_factory=list)
    moved: float = 0.0
    refused: int = 0

    def share_at(self, least: int, most: int, since: float = 0.0) -> float:
        """Return the share of time at levels of a range."""
        ends = [*(at for at, _ in self.levels[1:]), self.seconds]
        spans = [(max(start, since), end, level) for (start, level), end in zip(self.levels, ends, strict=True)]
        total = self.seconds - since
        return sum(end - start for start, end, level in spans if end > start and least <= level <= most) / total


def simulate(policy: AtOnce, server: Server, *, size: float, seconds: float, seed: int = 1) -> Run:
    """Keep the policy's number of pieces under way for so long; a refused one is repeated after a second."""
    chance = random.Random(seed)
    run = Run(seconds, [(0.0, policy.now)])
    now, waiting = 0.0, 0
    events: list[tuple[float, int, str]] = []  # when, number, what
    moving: dict[int, float] = {}  # bytes left
    began: dict[int, float] = {}
    number = 0
    while now < seconds:
        while len(began) + waiting < policy.now:
            number += 1
            if len(began) >= server.allows:
                run.refused += 1
                policy.refused(now)
                waiting += 1
                heapq.heappush(events, (now + 1.0, number, "wait"))
            else:
                began[number] = now
                heapq.heappush(events, (now + server.delay, number, "move"))
        each = server.carries(len(moving)) / len(moving) if moving else 0.0
        first = min(moving, key=moving.__getitem__) if moving else 0
        ends = now + moving[first] / each if moving else float("inf")
        at = min(ends, events[0][0] if events else float("inf"))
        for one in moving:
            moving[one] -= each * (at - now)
        now = at
        if events and events[0][0] <= ends:
            _, one, what = heapq.heappop(events)
            if what == "move":
                moving[one] = size * (1 + server.jitter * (2 * chance.random() - 1))
            else:
                waiting -= 1
        else:
            del moving[first]
            run.moved += size
            policy.done(began.pop(first), now, int(size))
        if run.levels[-1][1] != policy.now:
            run.levels.append((now, policy.now))
    return run


def each_carries(rate: float) -> Callable[[int], float]:
    return lambda streams: rate * streams


def test_more_are_added_quickly_where_each_connection_carries_its_own() -> None:
    run = simulate(AtOnce(8), Server(each_carries(50 * MB), delay=0.03), size=0.5 * MB, seconds=10)
    assert run.share_at(8, 8, since=1.0) > 0.8
    reached = next(at for at, level in run.levels if level == 8)
    assert reached < 0.8, "by doubling"


def test_nothing_is_added_where_the_bottleneck_is_shared() -> None:
    run = simulate(AtOnce(8), Server(lambda _: 50.0 * MB), size=0.5 * MB, seconds=60)
    assert run.share_at(1, 1, since=1.0) > 0.95
    assert max(level for _, level in run.levels) == 4


def test_it_settles_where_the_shared_bottleneck_is_reached() -> None:
    run = simulate(AtOnce(16), Server(lambda n: min(4 * n, 14) * 10.0 * MB), size=0.5 * MB, seconds=60)
    assert run.share_at(3, 5, since=2.0) > 0.9
    assert run.moved > 0.9 * 60 * 140 * MB


def falls(streams: int) -> float:
    """Carry less with more streams: what took 1.38 s with one takes 2.46 with four."""
    return 150 * MB / (1 + 0.26 * (streams - 1))


def test_an_archive_that_is_slower_with_more_is_asked_one_by_one() -> None:
    run = simulate(AtOnce(8), Server(falls), size=0.5 * MB, seconds=20)
    assert run.share_at(1, 1) > 0.9
    assert run.moved > 0.95 * falls(1) * 20


def test_a_fast_stream_is_left_alone_at_first() -> None:
    """What is over in a second or two gains nothing from a trial."""
    run = simulate(AtOnce(8), Server(falls), size=0.5 * MB, seconds=1.9)
    assert run.levels == [(0.0, 1)]


def test_while_it_is_held_nothing_is_tried_and_then_at_once() -> None:
    policy, now = AtOnce(8), 0.0
    policy.held = True
    for _ in range(200):
        policy.done(now, now + 0.01, MB // 2)
        now += 0.01
    assert policy.now == 1
    policy.held = False
    policy.done(now, now + 0.01, MB // 2)
    assert policy.now == 4


def test_first_is_not_gone_below_without_a_refusal() -> None:
    run = simulate(AtOnce(6, first=3), Server(falls), size=0.5 * MB, seconds=20)
    assert run.share_at(3, 3) > 0.9
    assert min(level for _, level in run.levels) == 3


def test_an_archive_that_allows_four_is_asked_for_more_ever_more_seldom() -> None:
    run = simulate(AtOnce(8), Server(each_carries(10 * MB), delay=0.03, allows=4), size=0.5 * MB, seconds=300)
    assert run.share_at(3, 4, since=20.0) > 0.85
    assert run.refused < 40
    assert run.moved > 0.8 * 300 * 4 * 0.5 * MB / (0.03 + 0.05)


def test_refusals_of_requests_that_were_under_way_together_are_one() -> None:
    policy = AtOnce(8, first=8)
    for n in range(8):
        policy.refused(5.0 + n / 100)
    assert policy.now == 4
    policy.refused(7.0)
    assert policy.now == 2
    policy.refused(9.0)
    policy.refused(11.0)
    assert policy.now == 1


def test_what_was_refused_is_tried_again_only_later() -> None:
    policy = AtOnce(2, first=2)
    policy.refused(0.0)
    assert policy.now == 1
    now = 0.0
    while policy.now == 1:
        policy.done(now, now + 0.1, MB)
        now += 0.1
        assert now < 60
    assert now >= 10


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("jitter", [0.2, 0.8])
def test_noise_does_not_lead_astray(jitter: float, seed: int) -> None:
    server = Server(each_carries(50 * MB), delay=0.03, jitter=jitter)
    grown = simulate(AtOnce(8), server, size=0.5 * MB, seconds=40, seed=seed)
    assert grown.moved > 0.75 * simulate(AtOnce(8, first=8), server, size=0.5 * MB, seconds=40, seed=seed).moved
    stayed = simulate(AtOnce(8), Server(falls, jitter=jitter), size=0.5 * MB, seconds=40, seed=seed)
    assert stayed.moved > 0.93 * falls(1) * 40


@pytest.mark.parametrize("server", [Server(each_carries(50 * MB), delay=0.03), Server(falls), Server(lambda _: 5e7)])
def test_it_never_swings(server: Server) -> None:
    """Once settled, trials are of a neighbour, and seldom."""
    run = simulate(AtOnce(8), server, size=0.5 * MB, seconds=120)
    late = [(at, level) for at, level in run.levels if at > 10]
    assert len(late) < 40
    assert all(abs(one[1] - other[1]) <= 2 for one, other in itertools.pairwise(late))


def test_large_pieces_are_measured_by_whole_rounds() -> None:
    """Requests that take seconds each and run in step: no end is counted to a level that it does not belong to."""
    run = simulate(AtOnce(6, first=3), Server(each_carries(10 * MB), delay=0.5), size=20 * MB, seconds=600)
    assert run.share_at(6, 6, since=60) > 0.8


@given(
    most=st.integers(1, 32),
    first=st.integers(1, 40),
    events=st.lists(
        st.tuples(st.floats(0, 3), st.floats(0, 5), st.integers(0, 10**9), st.integers(0, 9)), max_size=300
    ),
)
def test_the_level_is_always_within_its_bounds(
    most: int, first: int, events: list[tuple[float, float, int, int]]
) -> None:
    policy, now = AtOnce(most, first=first), 0.0
    for later, took, size, what in events:
        now += later
        if what:
            policy.done(now - took, now, size)
        else:
            before = policy.now
            policy.refused(now)
            assert policy.now <= before
        assert 1 <= policy.now <= most
