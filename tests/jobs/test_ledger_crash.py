"""A ledger whose process ends at any instant: what comes back is a state that was, and it adds up."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from postdicom_async.errors import LedgerLocked
from postdicom_async.jobs.ends.end import ListedStudy
from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.ledger.schema import ItemRow, Stage
from postdicom_async.jobs.plan import ItemEnd
from postdicom_async.jobs.states import MOVES, State
from tests.jobs.ledgers import FACTS, assert_adds_up, filled, reader
from tests.support.large import examples

HELPERS = Path(__file__).parent
Model = dict[tuple[str, str, str], tuple[State, int, int, int]]
"""Study, series and UID of an item; state, reason, attempts, size."""


def model_of(path: Path) -> Model:
    with reader(path) as one:
        return {
            (item.study, item.series, item.uid): (item.state, item.reason, item.attempts, item.size)
            for item in one.items()
        }


def as_reopened(model: Model) -> Model:
    return {
        key: (State.PENDING, reason, attempts - 1, size) if state is State.RUNNING else (state, reason, attempts, size)
        for key, (state, reason, attempts, size) in model.items()
    }


class AnyCrash(RuleBasedStateMachine):
    """Random changes; the process is dropped by going on with copies of its files, cut at random."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.number = 0
        self.model: Model = {}
        self.studies: dict[str, int] = {}

    @property
    def path(self) -> Path:
        return self.folder / f"{self.number}.ledger"

    @initialize()
    def start(self) -> None:
        async def start() -> None:
            self.ledger = await Ledger.create(self.path, FACTS)
            await self.ledger.note_studies(
                [ListedStudy(f"1.{n}", "20240101", 3) for n in range(4)], at_target=False, run=1
            )
            self.studies = {study.uid: study.id for study in await self.ledger.studies(Stage.FOUND)}
            await self.ledger.__aexit__(None, None, None)  # so that a cut log costs items, and not the studies
            self.ledger = await Ledger.open(self.path)

        self.runner.run(start())
        self.history = [dict(self.model)]  # states since the last that is durable

    def changed(self) -> None:
        self.history.append(dict(self.model))

    def in_loop(self, change: Any) -> None:
        async def do() -> None:
            change()

        self.runner.run(do())
        self.changed()

    @rule(study=st.integers(0, 3), items=st.lists(st.integers(0, 9), max_size=6), state=st.sampled_from([
        State.PENDING, State.PRESENT, State.EXCLUDED, State.FAILED]), size=st.integers(0, 1 << 40))  # fmt: skip
    def plan(self, study: int, items: list[int], state: State, size: int) -> None:
        uid = f"1.{study}"
        rows = [ItemRow(f"{uid}.{n % 2}", f"{uid}.9.{n}", state, int(state), 0, size) for n in items]
        for row in rows:
            self.model[uid, row.series, row.uid] = (row.state, row.reason, row.attempts, row.size)
        self.in_loop(lambda: self.ledger.plan(self.studies[uid], rows))

    @rule(chosen=st.randoms(use_true_random=False), to=st.sampled_from(State), counts=st.booleans())
    def move(self, chosen: random.Random, to: State, counts: bool) -> None:
        keys = [key for key, value in self.model.items() if to in MOVES[value[0]]]
        if not keys:
            return
        study, series, uid = chosen.choice(sorted(keys))
        _, _, attempts, size = self.model[study, series, uid]
        if to is State.RUNNING:
            before = self.model[study, series, uid]
            self.model[study, series, uid] = (to, before[1], attempts + 1, size)
            self.in_loop(lambda: self.ledger.run_items(self.studies[study], [(series, uid)]))
            return
        attempts = attempts if counts else max(0, attempts - 1)
        self.model[study, series, uid] = (to, 7, attempts, size + 1)
        end = ItemEnd(series, uid, to, 7, size=size + 1)
        self.in_loop(lambda: self.ledger.settle(self.studies[study], [end], attempt_counts=counts))

    @rule(study=st.integers(0, 3), planned=st.integers(0, 20))
    def equal(self, study: int, planned: int) -> None:
        self.in_loop(lambda: self.ledger.set_stage(self.studies[f"1.{study}"], Stage.EQUAL, planned=planned))

    @rule()
    def commit(self) -> None:
        self.runner.run(self.ledger.commit())
        self.history = [dict(self.model)]

    @rule(states=st.sets(st.sampled_from(State), min_size=1))
    def reset(self, states: set[State]) -> None:
        number = self.runner.run(self.ledger.reset(sorted(states)))
        moved = [key for key, value in self.model.items() if value[0] in states]
        assert number == len(moved)
        for key in moved:
            self.model[key] = (State.PENDING, 0, 0, self.model[key][3])
        self.history = [dict(self.model)]

    @rule(cut=st.none() | st.integers(0, 5000))
    def crash(self, cut: int | None) -> None:
        old = self.path
        self.number += 1

        def copy() -> None:  # in the thread that writes: so nothing is written meanwhile
            for name in ("", "-wal"):
                if old.with_name(old.name + name).exists():
                    shutil.copy(old.with_name(old.name + name), self.path.with_name(self.path.name + name))

        self.runner.run(self.ledger._writer.in_thread(copy))
        log = self.path.with_name(self.path.name + "-wal")
        if cut is not None:
            with log.open("r+b") as file:
                file.truncate(max(0, log.stat().st_size - cut))
        self.runner.run(self.ledger.__aexit__(None, None, None))
        self.ledger = self.runner.run(Ledger.open(self.path))
        found = model_of(self.path)
        if cut is None:
            possible = [as_reopened(model) for model in self.history]
            assert found in possible
            self.model = found
        else:  # synced and lost after all: an earlier state, which adds up
            self.model = found
        self.history = [dict(self.model)]

    @rule()
    def restart(self) -> None:
        self.runner.run(self.ledger.__aexit__(None, None, None))
        assert not self.path.with_name(self.path.name + "-wal").exists()
        self.ledger = self.runner.run(Ledger.open(self.path))
        self.model = as_reopened(self.model)
        assert model_of(self.path) == self.model
        self.history = [dict(self.model)]

    @invariant()
    def adds_up(self) -> None:
        if hasattr(self, "ledger"):
            assert_adds_up(self.path)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.runner.run(self.ledger.__aexit__(None, None, None))
            assert model_of(self.path) == self.model
        self.runner.close()
        shutil.rmtree(self.folder)


AnyCrash.TestCase.settings = settings(
    max_examples=examples(30), stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
test_any_crash = AnyCrash.TestCase


# --- real processes --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
async def test_thirty_writers_are_killed(tmp_path: Path) -> None:
    path = tmp_path / "one.ledger"
    async with await filled(path, studies=200, items=40):
        pass
    chance = random.Random(20240517)
    durable = 0
    writers = subprocess.Popen(
        [sys.executable, str(HELPERS / "killed_writers.py"), path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writers.stdin is not None
    assert writers.stdout is not None
    with writers.stdin, writers.stdout:
        for number in range(30):
            writers.stdin.write(b"next\n")
            writers.stdin.flush()
            pid = int(writers.stdout.readline())
            assert writers.stdout.readline() == b"open\n"
            time.sleep(chance.uniform(0, 0.03))
            os.kill(pid, signal.SIGKILL)
            lines = list(iter(writers.stdout.readline, b"killed\n"))
            assert b"end\n" not in lines, "it had nothing left to do: this test needs more items"
            if number % 3 == 0:
                assert_adds_up(path)  # as the next one finds it
            with reader(path) as one:
                summary = one.summary()
            assert summary.of(State.DONE).instances >= durable + int(lines[-1] if lines else 0)
            assert summary.discovered == 200 * 40
            durable = summary.of(State.DONE).instances
    writers.wait()
    assert durable > 30, "they were killed amid their work"
    async with await Ledger.open(path) as ledger:
        assert State.RUNNING not in await ledger.counts()
    assert_adds_up(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.parametrize("how", ["create", "open"])
async def test_of_fifty_racing_starts_one_wins(tmp_path: Path, how: str) -> None:
    path = tmp_path / "one.ledger"
    if how == "open":
        async with await filled(path):
            pass
    racers = subprocess.Popen(
        [sys.executable, str(HELPERS / "racing_starts.py"), path, how, "50"], stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    )  # fmt: skip
    assert racers.stdout is not None
    assert racers.stdin is not None
    lines = [json.loads(racers.stdout.readline()) for _ in range(50)]
    assert sorted(what for what, _ in lines) == ["locked"] * 49 + ["runs"]
    winner = next(pid for what, pid in lines if what == "runs")
    with pytest.raises(LedgerLocked):
        await Ledger.open(path)
    os.kill(winner, signal.SIGKILL)
    racers.stdin.close()
    racers.stdout.close()
    racers.wait()
    async with await Ledger.open(path):
        pass
    assert_adds_up(path)
