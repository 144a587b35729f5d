"""An end that is out of order pauses a job, is probed, and costs no item an attempt; single failures are no outage."""

from __future__ import annotations

import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postdicom_async import errors
from postdicom_async.jobs.pace import outage_policy
from postdicom_async.jobs.pace.outage_policy import Advice, Do, OutagePatience, OutagePolicy, RetryWaves

HOUR = 3600.0
OUTAGE = "ConnectionFailed"


def weather(seed: int = 1, patience: OutagePatience | None = None) -> OutagePolicy:
    return OutagePolicy(patience, chance=random.Random(seed).random)


def fail(sky: OutagePolicy, times: int, *, now: float = 0.0, error: str = OUTAGE) -> None:
    for _ in range(times):
        sky.ended(now, error=error)


def go_out(sky: OutagePolicy, now: float = 0.0) -> None:
    fail(sky, 4, now=now)
    assert sky.advice(now).do is Do.PROBE
    sky.asked()
    sky.probed(now, error=OUTAGE)
    assert sky.is_out
    assert sky.advice(now).do is Do.PAUSE


def wait_for_probe(sky: OutagePolicy, now: float) -> float:
    """Go on to the next probe, and return when it is."""
    for _ in range(10):
        advice = sky.advice(now)
        if advice.do is Do.PROBE:
            return now
        assert advice.do is Do.PAUSE
        assert advice.until > now
        now = advice.until
    raise AssertionError("no probe")


# --- a job in virtual time --------------------------------------------------------------------------------------------


@dataclass
class World:
    """A job of many chunks against an archive, as the engine goes about it: six chunks at once, a second each."""

    sky: OutagePolicy
    works: Callable[[float], bool]
    """Whether a request that is made now succeeds."""
    queued: int
    probe_works: Callable[[float], bool] | None = None
    attempts: int = 1  # requests that are made for a chunk that fails
    now: float = 0.0
    requests: list[float] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)
    end: Advice | None = None

    def run(self, until: float = math.inf) -> None:
        waiting = deque(range(self.queued))
        running: list[tuple[float, int]] = []
        while (waiting or running) and self.now < until:
            advice = self.sky.advice(self.now)
            if advice.do in {Do.GIVE_UP, Do.STOP}:
                self.end = advice
                return
            if advice.do is Do.PROBE:
                self._probe()
                continue
            if advice.do is Do.GO and waiting and len(running) < 6:
                self.sky.given(self.now)
                running.append((self.now + 1.0, waiting.popleft()))
                continue
            if running:
                running.sort()
                self.now, chunk = running.pop(0)
                if not self._chunk_ended():
                    waiting.appendleft(chunk)
            else:
                assert advice.until > self.now
                self.now = advice.until

    def _probe(self) -> None:
        self.sky.asked()
        self.requests.append(self.now)
        works = (self.probe_works or self.works)(self.now)
        self.now += 0.1
        self.sky.probed(self.now, error="" if works else OUTAGE)

    def _chunk_ended(self) -> bool:
        works = self.works(self.now)
        self.requests += [self.now] * (1 if works else self.attempts)
        self.sky.ended(self.now, error="" if works else "ServerError")
        if works:
            self.finished.append(self.now)
        return works


@pytest.mark.parametrize("seed", range(5))
def test_an_outage_of_ten_hours_costs_probes_and_nothing_else(seed: int) -> None:
    begins, ends = 100.0, 100.0 + 10 * HOUR
    world = World(weather(seed), lambda now: not begins <= now < ends, queued=10_000, attempts=5)
    world.run()
    assert world.end is None
    assert len(world.finished) == 10_000
    in_it = [at for at in world.requests if begins <= at < ends]
    # At most one probe a step, half a step long at least, after the chunks that ran when it began.
    assert len(in_it) <= 2 * 10 * HOUR / 300 + 10 + 10 * 5
    back = min(at for at in world.finished if at >= ends)
    assert back <= ends + 300 + 2
    assert world.sky.outages == 1
    assert not world.sky.is_out


def test_ten_minutes_of_a_total_outage_are_at_most_200_requests() -> None:
    world = World(weather(), lambda _: False, queued=10_000, attempts=5)
    world.run(until=600.0)
    assert len(world.requests) <= 200
    assert not world.finished


def test_an_archive_that_answers_questions_and_refuses_work_is_not_met_with_all_of_it() -> None:
    world = World(weather(), lambda _: False, queued=10_000, probe_works=lambda _: True, attempts=5)
    world.run(until=600.0)
    assert len(world.requests) <= 200
    world.run(until=20 * HOUR)
    assert world.end is not None
    assert world.end.do is Do.GIVE_UP


@pytest.mark.parametrize("seed", range(10))
def test_every_tenth_request_failing_at_random_is_no_outage(seed: int) -> None:
    chances = random.Random(seed)
    world = World(weather(seed), lambda _: chances.random() >= 0.1, queued=5_000)
    world.run()
    assert world.end is None
    assert len(world.finished) == 5_000
    assert len(world.requests) <= 5_000 * 1.15
    # The best six at once can do is 5,000 seconds' work in 834: it was not held up.
    assert world.now <= 1.2 * 5_000 / 6


def test_an_archive_that_fails_every_other_time_is_asked_less() -> None:
    turns = itertools.cycle([True, False])
    world = World(weather(), lambda _: next(turns), queued=2_000)
    world.run(until=600.0)
    failed = len(world.requests) - len(world.finished)
    assert failed < 50 + 600  # six at once for 600 seconds would be 1,800 failures
    assert not world.sky.outages


# --- step by step -----------------------------------------------------------------------------------------------------


def test_few_failures_in_a_row_change_nothing() -> None:
    sky = weather()
    fail(sky, 3)
    assert sky.advice(0.0).do is Do.GO
    assert not sky.is_out


def test_a_success_between_begins_the_row_anew() -> None:
    sky = weather()
    for _ in range(5):
        fail(sky, 3)
        sky.ended(0.0)
    assert sky.advice(0.0).do is Do.GO


def test_one_chunk_alone_that_fails_is_asked_about_too() -> None:
    sky = weather()
    for _ in range(4):
        sky.ended(0.0, error=OUTAGE)
    assert sky.advice(0.0).do is Do.PROBE


def test_one_probe_for_each_step_and_the_steps_grow() -> None:
    sky, now, moments = weather(), 0.0, []
    fail(sky, 4)
    for _ in range(12):
        now = wait_for_probe(sky, now)
        sky.asked()
        assert sky.advice(now).do is Do.PAUSE  # while it is under way
        moments.append(now)
        sky.probed(now, error=OUTAGE)
    steps = [after - before for before, after in itertools.pairwise(moments)]
    for count, step in enumerate(steps):
        longest = min(300.0, 5.0 * 2**count)
        assert longest / 2 <= step <= longest


def test_two_jobs_do_not_probe_at_the_same_moments() -> None:
    moments = []
    for seed in (1, 2):
        sky = weather(seed)
        go_out(sky)
        moments.append(wait_for_probe(sky, 0.0))
    assert moments[0] != moments[1]


def test_after_a_probe_that_succeeds_one_chunk_is_tried() -> None:
    sky = weather()
    go_out(sky)
    now = wait_for_probe(sky, 0.0)
    sky.asked()
    sky.probed(now)
    assert sky.advice(now).do is Do.GO
    sky.given(now)
    assert sky.advice(now).do is Do.PAUSE
    sky.ended(now)
    assert sky.advice(now).do is Do.GO
    assert not sky.is_out
    assert sky.since is None


def test_a_trial_that_nobody_tells_of_is_followed_by_another() -> None:
    sky = weather()
    go_out(sky)
    now = wait_for_probe(sky, 0.0)
    sky.asked()
    sky.probed(now)
    sky.given(now)
    advice = sky.advice(now)
    assert now < advice.until <= now + 300
    assert sky.advice(advice.until).do is Do.GO


def test_a_trial_that_fails_is_the_next_step_of_the_same_outage() -> None:
    sky = weather()
    go_out(sky)
    since = sky.since
    now = wait_for_probe(sky, 0.0)
    sky.asked()
    sky.probed(now)
    sky.given(now)
    sky.ended(now, error="ServerError")
    assert sky.since == since
    assert sky.outages == 1
    assert wait_for_probe(sky, now) >= now + 5


def test_a_trial_whose_answer_is_lost_fails_too() -> None:
    sky = weather()
    go_out(sky)
    now = wait_for_probe(sky, 0.0)
    sky.asked()
    sky.probed(now)
    sky.given(now)
    sky.ended(now, error="OutcomeUnknown", temporary=False)
    assert sky.advice(now).do is Do.PAUSE


def test_work_that_ends_well_says_more_than_a_probe_that_was_under_way() -> None:
    sky = weather()
    fail(sky, 4)
    sky.asked()
    sky.ended(1.0)
    sky.probed(2.0)
    for _ in range(6):
        assert sky.advice(2.0).do is Do.GO
        sky.given(2.0)


def test_the_next_outage_begins_with_short_steps_again() -> None:
    sky, now = weather(), 0.0
    go_out(sky)
    for _ in range(8):
        now = wait_for_probe(sky, now)
        sky.asked()
        sky.probed(now, error=OUTAGE)
    now = wait_for_probe(sky, now)
    sky.asked()
    sky.probed(now)
    sky.given(now)
    sky.ended(now)
    go_out(sky, now)
    assert wait_for_probe(sky, now) <= now + 5
    assert sky.outages == 2


def test_what_still_runs_when_an_outage_is_known_counts_for_nothing() -> None:
    sky = weather()
    go_out(sky)
    until = sky.advice(0.0).until
    fail(sky, 20, now=1.0)
    assert sky.advice(1.0).until == until


def test_work_that_ends_well_in_an_outage_brings_the_next_probe_forward() -> None:
    sky = weather()
    go_out(sky)
    sky.ended(1.0)
    assert sky.advice(1.0).do is Do.PROBE


def test_an_outage_outlasts_patience() -> None:
    sky = weather(patience=OutagePatience(outage=1000.0))
    go_out(sky)
    now = 0.0
    while sky.advice(now).do not in {Do.GIVE_UP, Do.STOP}:
        now = wait_for_probe(sky, now)
        sky.asked()
        sky.probed(now, error=OUTAGE, message="the connection was refused")
    assert 1000 <= now <= 1300
    assert sky.advice(now).do is Do.GIVE_UP
    assert "the connection was refused" in sky.advice(now).cause
    assert f"for {now / 60:.0f} min" in sky.advice(now).cause


def test_a_night_with_closed_windows_uses_up_no_patience() -> None:
    sky = weather(patience=OutagePatience(outage=1000.0))
    go_out(sky)
    sky.rested(50_000.0)
    assert sky.advice(50_000.0).do is Do.PROBE
    sky.asked()
    sky.probed(50_000.0, error=OUTAGE)
    assert sky.advice(50_000.0).do is Do.PAUSE


# --- what an archive asks for -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [0.5, 30.0, 700.0, 11 * HOUR])
def test_nobody_comes_back_earlier_than_asked(asked: float) -> None:
    sky = weather()
    sky.ended(10.0, error="RateLimited", retry_after=asked)
    advice = sky.advice(10.0)
    assert (advice.do, advice.until) == (Do.PAUSE, 10.0 + asked)
    assert "asks to wait" in advice.cause
    assert sky.advice(10.0 + asked - 0.01).do is Do.PAUSE
    assert sky.advice(10.0 + asked).do is Do.GO


def test_in_an_outage_it_is_obeyed_too() -> None:
    sky = weather()
    go_out(sky)
    now = wait_for_probe(sky, 0.0)
    sky.asked()
    sky.probed(now, error="ServerError", retry_after=900.0)
    assert sky.advice(now).until >= now + 900
    assert wait_for_probe(sky, now) >= now + 900


def test_a_shorter_wish_does_not_shorten_a_longer_one() -> None:
    sky = weather()
    sky.ended(0.0, error="RateLimited", retry_after=100.0)
    sky.ended(0.0, error="RateLimited", retry_after=5.0)
    assert sky.advice(0.0).until == 100.0


@pytest.mark.parametrize("asked", [math.nan, -5.0, 0.0, None])
def test_a_wish_that_means_nothing_is_none(asked: float | None) -> None:
    sky = weather()
    sky.ended(0.0, error="RateLimited", retry_after=asked)
    assert sky.advice(0.0).do is Do.GO


@pytest.mark.parametrize("asked", [13 * HOUR, math.inf, 1e300])
def test_a_wish_beyond_all_patience_ends_the_job(asked: float) -> None:
    sky = weather()
    sky.ended(0.0, error="RateLimited", retry_after=asked)
    assert sky.advice(0.0).do is Do.GIVE_UP
    assert "asks to wait" in sky.advice(0.0).cause


# --- what time does not mend ------------------------------------------------------------------------------------------


def test_a_full_disk_stops_at_once() -> None:
    sky = weather()
    sky.ended(0.0, error="LocalFileError", temporary=True)
    assert sky.advice(0.0).do is Do.STOP
    assert "disk" in sky.advice(0.0).cause
    sky.ended(0.0)
    assert sky.advice(0.0).do is Do.STOP  # until somebody does something


def test_a_password_that_was_changed_stops_with_the_probe() -> None:
    sky = weather()
    sky.ended(0.0, error="AuthenticationFailed", temporary=False)
    assert sky.advice(0.0).do is Do.PROBE
    sky.asked()
    sky.probed(0.0, error="AuthenticationFailed", temporary=False)
    assert sky.advice(0.0).do is Do.STOP
    assert "credentials" in sky.advice(0.0).cause


def test_a_target_that_may_only_be_read_stops_after_two_chunks() -> None:
    sky = weather()
    sky.ended(0.0, error="AuthenticationFailed", temporary=False)
    sky.asked()
    sky.probed(0.0)
    sky.given(0.0)
    sky.ended(0.0, error="AuthenticationFailed", temporary=False)
    assert sky.advice(0.0).do is Do.STOP


def test_a_study_that_this_account_may_not_see_does_not_stop_the_others() -> None:
    sky = weather()
    sky.ended(0.0, error="AuthenticationFailed", temporary=False)
    sky.asked()
    sky.probed(0.0)
    sky.given(0.0)
    sky.ended(0.0)
    assert sky.advice(0.0).do is Do.GO


def test_a_password_changed_in_an_outage_is_found_after_it() -> None:
    sky = weather()
    go_out(sky)
    now = wait_for_probe(sky, 0.0)
    sky.asked()
    sky.probed(now)
    sky.given(now)
    sky.ended(now, error="AuthenticationFailed", temporary=False)
    assert not sky.is_out  # it has answered
    sky.ended(now, error="AuthenticationFailed", temporary=False)
    sky.asked()
    sky.probed(now, error="AuthenticationFailed", temporary=False)
    assert sky.advice(now).do is Do.STOP


def test_one_chunk_that_is_answered_with_nonsense_stops_nothing_and_all_of_them_do() -> None:
    sky = weather()
    sky.ended(0.0, error="ProtocolError", temporary=False)
    sky.ended(0.0)
    assert sky.advice(0.0).do is Do.GO
    fail(sky, 4, error="ProtocolError")
    sky.asked()
    sky.probed(0.0, error="ProtocolError", temporary=False)
    assert sky.advice(0.0).do is Do.STOP


def test_a_lost_answer_is_an_outage_although_the_call_is_not_to_be_repeated() -> None:
    sky = weather()
    for _ in range(4):
        sky.ended(0.0, error="OutcomeUnknown", temporary=False)
    sky.asked()
    sky.probed(0.0, error="OutcomeUnknown", temporary=False)
    assert sky.advice(0.0).do is Do.PAUSE


# --- both ends, waves, and anything at all ----------------------------------------------------------------------------


def test_waves_are_further_and_further_apart() -> None:
    waves, chances = RetryWaves(), random.Random(3)
    for attempt in range(1, 5):
        waits = [waves.wait(attempt, chances.random()) for _ in range(500)]
        longest = min(300.0, 30.0 * 2**attempt)
        assert min(waits) >= 30.0
        assert max(waits) <= longest
        assert max(waits) > 0.9 * longest
    assert RetryWaves(first=0.0, last=0.0).wait(1, 0.9) == 0.0
    assert waves.wait(10**5, 0.99) <= 300


EVENTS = st.lists(
    st.tuples(
        st.floats(0, 100),
        st.sampled_from(["", "", OUTAGE, "RateLimited", "ProtocolError", "OutcomeUnknown", "AuthenticationFailed"]),
        st.one_of(st.none(), st.floats(0, 500), st.just(math.nan)),
        st.booleans(),
    ),
    max_size=60,
)


@given(EVENTS, st.integers(0, 10))
def test_whatever_happens_a_job_comes_to_work_or_to_an_end(
    events: list[tuple[float, str, float | None, bool]], seed: int
) -> None:
    sky, now = weather(seed), 0.0
    for gone, error, asked, is_probe in events:
        now += gone
        temporary = error not in {"ProtocolError", "AuthenticationFailed"}
        advice = sky.advice(now)
        if advice.do is Do.PAUSE:
            assert advice.until > now
            assert advice.cause
        if advice.do is Do.PROBE and is_probe:
            sky.asked()
            sky.probed(now, error=error, temporary=temporary, retry_after=asked)
        else:
            if advice.do is Do.GO:
                sky.given(now)
            sky.ended(now, error=error, temporary=temporary, retry_after=asked)
    # From now on everything works: within a few steps all of it goes on, unless the job has ended.
    for _ in range(20):
        advice = sky.advice(now)
        if advice.do in {Do.GIVE_UP, Do.STOP}:
            return
        if advice.do is Do.PAUSE:
            now = advice.until
        elif advice.do is Do.PROBE:
            sky.asked()
            sky.probed(now)
        else:
            sky.given(now)
            sky.ended(now)
            if not sky.is_out:
                return
    raise AssertionError("it never goes on")


def test_the_errors_that_are_told_apart_by_name_exist() -> None:
    """A renamed class would switch a guard off without a word."""
    named = {
        *outage_policy._WORDS,
        *outage_policy._AT_ONCE,
        *outage_policy._DOUBTFUL_AT_ONCE,
        *outage_policy._PASSES,
    }
    assert named <= set(errors.__all__)
