"""Chunks on several machines: real schedulers and workers, killed while they work; every instance ends exactly once."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed")

from distributed import Security

from postdicom_async.errors import ConnectionFailed, UsageError
from postdicom_async.jobs.machines import dispatcher as dispatcher_module
from postdicom_async.jobs.machines import worker
from postdicom_async.jobs.machines.dispatcher import DaskDispatcher, tls
from postdicom_async.jobs.plan import Chunk, ChunkEnd, ItemEnd
from postdicom_async.jobs.states import Reason, State
from tests.jobs import chores
from tests.jobs.cluster import ROOT, Cluster, running_cluster
from tests.support.certificates import Authority
from tests.support.faulty_server import unused_port

psutil: Any = pytest.importorskip("psutil")  # dask brings it


class Drawn:
    """Gives chunks, and counts how many were given and not ended: what was asked for too early would show.

    The last is held back until something has happened, so that there is work while it does.
    """

    def __init__(self, chunks: list[Chunk], last_when: Callable[[], Any] = lambda: True) -> None:
        self._chunks = iter(chunks)
        self._last = chunks[-1]
        self._last_when = last_when
        self.open = 0
        self.most = 0

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        for chunk in self._chunks:
            if chunk is self._last:
                await until(self._last_when)
            self.open += 1
            self.most = max(self.most, self.open)
            return chunk
        raise StopAsyncIteration


def dispatcher(
    cluster: Cluster, task: Any = chores.work, *, source: str = "a", target: str = "b", pause: float = 0, **more: Any
) -> DaskDispatcher:
    source_end, target_end = chores.FakeSpec(source), chores.FakeSpec(target)
    more |= {"source": source_end, "target": target_end, "options": lambda workers: (pause, workers)}
    return DaskDispatcher(cluster.address, task, **more)


class Told:
    """What a dispatcher gave, checked as an engine would count it."""

    def __init__(self) -> None:
        self.items = Counter[str]()
        self.failed = dict[str, int]()
        self.ends = dict[int, ChunkEnd]()

    def take(self, chunk: Chunk, end: ItemEnd | ChunkEnd) -> None:
        assert chunk.number not in self.ends, "its end was the last of it"
        if isinstance(end, ChunkEnd):
            self.ends[chunk.number] = end
            return
        assert (end.series, end.uid) in {(one.series, one.uid) for one in chunk.wanted.instances}
        self.items[end.uid] += 1
        if end.state is not State.DONE:
            self.failed[end.uid] = end.reason

    def is_exactly(self, chunks: list[Chunk]) -> None:
        wanted = [one.uid for chunk in chunks for one in chunk.wanted.instances]
        assert self.items == Counter(wanted)
        assert self.ends == {chunk.number: ChunkEnd() for chunk in chunks}


async def told_by(taken: DaskDispatcher, chunks: AsyncIterator[Chunk], told: Told | None = None) -> Told:
    told = told or Told()
    async with aclosing(taken.run(chunks)) as results:
        async for chunk, end in results:
            told.take(chunk, end)
            if isinstance(end, ChunkEnd) and isinstance(chunks, Drawn):
                chunks.open -= 1
    return told


async def until(happened: Any) -> None:
    async with asyncio.timeout(40):
        while not happened():
            await asyncio.sleep(0.02)


async def test_every_chunk_ends_once_and_no_more_are_drawn_than_twice_the_workers(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        chunks = chores.chunks_of(40)
        drawn = Drawn(chunks)
        async with dispatcher(cluster) as taken:
            told = await told_by(taken, drawn)
        told.is_exactly(chunks)
        assert not told.failed
        assert drawn.most <= 4
        assert len(chores.lines(tmp_path, "done")) == 40
        opened = Counter(line.split(maxsplit=1)[1] for line in chores.lines(tmp_path, "ends"))
        assert opened["a opened"] == opened["b opened"] <= 2  # once a worker, not once a chunk


async def test_a_worker_is_killed_in_mid_chunk(tmp_path: Path) -> None:
    with running_cluster(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="3") as cluster:
        chunks = chores.chunks_of(16)
        killed: list[int] = []

        def works(pid: int) -> bool:
            begun, done = (
                [line for line in chores.lines(tmp_path, name) if line.startswith(f"{pid} ")]
                for name in ("begun", "done")
            )
            return len(begun) > len(done)

        async with dispatcher(cluster, pause=0.1) as taken:
            told = Told()
            going = asyncio.create_task(told_by(taken, Drawn(chunks, lambda: len(killed) == 2), told))
            for worker, ends in zip(cluster.workers, (2, 8), strict=True):
                assert worker.process is not None
                pid = worker.process.pid
                await until(lambda pid=pid, ends=ends: len(told.ends) >= ends and works(pid))
                worker.kill()
                killed.append(pid)
            await going
        told.is_exactly(chunks)
        assert not told.failed
        assert len(chores.lines(tmp_path, "begun")) > 16  # what the dead had begun was begun again


async def test_the_scheduler_is_killed_and_comes_back(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        chunks = chores.chunks_of(16)
        events: list[str] = []
        async with dispatcher(cluster, pause=0.05, on_event=events.append) as taken:
            told = Told()
            going = asyncio.create_task(told_by(taken, Drawn(chunks, lambda: events), told))
            await until(lambda: len(told.ends) >= 3 and len(chores.lines(tmp_path, "begun")) >= 6)
            cluster.kill_scheduler()
            await until(lambda: events)
            ended = len(told.ends)
            cluster.start_scheduler()
            await going
        told.is_exactly(chunks)
        assert not told.failed
        assert ended < 16
        assert events == [
            "the scheduler is lost; what was under way is handed out again when it is back",
            "the scheduler is back",
        ]
        attempts = {int(line.split()[2]) for line in chores.lines(tmp_path, "begun")}
        assert attempts == {1, 2}


async def test_a_scheduler_that_hangs_is_taken_for_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_cluster(tmp_path) as cluster:
        chunks = chores.chunks_of(16)
        events: list[str] = []
        async with dispatcher(cluster, pause=0.05, on_event=events.append) as taken:
            told = Told()
            going = asyncio.create_task(told_by(taken, Drawn(chunks, lambda: len(events) == 2), told))
            await until(lambda: len(told.ends) >= 3)
            assert cluster.scheduler is not None
            with monkeypatch.context() as quick:
                quick.setattr(dispatcher_module, "ANSWERS_WITHIN", 2.0)
                cluster.scheduler.send_signal(signal.SIGSTOP)
                await until(lambda: events)
            cluster.scheduler.send_signal(signal.SIGCONT)
            await going
        told.is_exactly(chunks)
        assert not told.failed


async def test_a_worker_joins_late_and_the_rates_are_divided_anew(tmp_path: Path) -> None:
    def shares() -> list[str]:
        return [line.split()[3] for line in chores.lines(tmp_path, "begun")]

    with running_cluster(tmp_path, workers=0) as cluster:
        chunks = chores.chunks_of(30)
        drawn = Drawn(chunks, lambda: "0.50" in shares())
        async with dispatcher(cluster, pause=0.05) as taken:
            told = Told()
            going = asyncio.create_task(told_by(taken, drawn, told))
            await asyncio.sleep(1.5)
            assert drawn.most == 0  # nothing is drawn while nobody could do it
            cluster.add_worker()
            await until(lambda: len(told.ends) >= 3)
            cluster.add_worker()
            await going
        told.is_exactly(chunks)
        assert shares()[0] == "1.00"
        assert shares()[-1] == "0.50"


@pytest.mark.parametrize("nanny", [False, True])
async def test_a_poisonous_instance_fails_alone(tmp_path: Path, nanny: bool) -> None:
    with running_cluster(tmp_path, workers=0) as cluster:
        for _ in range(2):
            cluster.add_worker(nanny=nanny)
        chunks = chores.chunks_of(6, size=4, poison=3)
        async with dispatcher(cluster, pause=0.01) as taken:
            told = await told_by(taken, Drawn(chunks))
        told.is_exactly(chunks)
        assert told.failed == {chores.POISON: Reason.UNEXPECTED}


async def test_work_that_raises_is_no_reason_to_stop_and_nothing_private_is_logged(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        chunks = chores.chunks_of(4, size=3, poison=2)
        events: list[str] = []
        async with dispatcher(cluster, chores.fails_at_poison, on_event=events.append) as taken:
            told = await told_by(taken, Drawn(chunks))
        told.is_exactly(chunks)
        assert told.failed == {chores.POISON: Reason.UNEXPECTED}
        assert all("RuntimeError" in event for event in events)
        assert chores.SECRET not in cluster.logs() + "".join(events)


async def test_work_that_workers_cannot_load_is_the_callers_to_mend_and_logs_show_numbers_alone(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        async with dispatcher(cluster, chores.raises) as taken:
            with pytest.raises(UsageError, match=r"^workers: they cannot load"):
                await told_by(taken, Drawn(chores.chunks_of(2)))
        logs = cluster.logs()
        assert re.search(r"<chunk [12], attempt 1>", logs)  # dask says what it could not run
        assert "1.2.1.0" not in logs
        assert "canary" not in logs.replace(f"ImportError('{chores.SECRET}')", "")


@pytest.mark.parametrize(
    ("source", "target", "end"),
    [
        (
            "no secret here",
            "b",
            ChunkEnd("source", "UsageError", message="on a worker: profile here: it has no password on this machine"),
        ),
        ("a", "broken", ChunkEnd("target", "RuntimeError", message="on a worker: RuntimeError")),
    ],
)
async def test_an_end_that_cannot_be_opened_on_a_worker_is_told(
    tmp_path: Path, source: str, target: str, end: ChunkEnd
) -> None:
    with running_cluster(tmp_path, workers=1) as cluster:
        async with dispatcher(cluster, source=source, target=target) as taken:
            told = await told_by(taken, Drawn(chores.chunks_of(2)))
        assert told.ends == {1: end, 2: end}
        assert not told.items
        assert chores.SECRET not in cluster.logs()


async def test_an_end_whose_credentials_were_refused_is_opened_anew_for_the_next_chunk(tmp_path: Path) -> None:
    with running_cluster(tmp_path, workers=1) as cluster:
        async with dispatcher(cluster, chores.refused) as taken:
            for chunk in chores.chunks_of(3):
                await told_by(taken, Drawn([chunk]))
        ends = Counter(line.split(maxsplit=1)[1] for line in chores.lines(tmp_path, "ends"))
        assert ends == {"a opened": 1, "b opened": 3, "b closed": 3}


async def test_whoever_stops_taking_results_stops_the_workers(tmp_path: Path) -> None:
    pause = 0.0
    with running_cluster(tmp_path, workers=1) as cluster:
        taken = DaskDispatcher(
            cluster.address,
            chores.work,
            source=chores.FakeSpec("a"),
            target=chores.FakeSpec("b"),
            options=lambda workers: (pause, workers),
        )
        async with taken:
            told = Told()
            going = asyncio.create_task(told_by(taken, Drawn(chores.chunks_of(99)), told))
            await until(lambda: told.ends)
            pause = 600.0  # whatever is begun from now on does not end by itself
            await until(lambda: sum(line.endswith(" 600.0") for line in chores.lines(tmp_path, "begun")) == 2)
            going.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going
            pause = 0.0
            chunks = chores.chunks_of(4)
            told = await told_by(taken, Drawn(chunks))  # the worker has its threads back
        told.is_exactly(chunks)


async def test_what_is_dropped_is_not_given_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the scheduler hears of the cancellation only after the worker."""
    monkeypatch.setenv("SHARED_FOLDER", str(tmp_path))
    source, target = chores.FakeSpec("a"), chores.FakeSpec("b")
    (chunk,) = chores.chunks_of(1)
    working = asyncio.create_task(
        asyncio.to_thread(chores.work, worker.Parcel("run", chunk, source, target, (600.0, 1)))
    )
    await until(lambda: chores.lines(tmp_path, "begun"))
    await worker.drop("another")
    assert not working.done()
    await worker.drop("run")
    assert await working is None
    await worker.stop()


async def test_a_worker_that_is_stopped_closes_its_ends_and_another_goes_on(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        chunks = chores.chunks_of(12)
        async with dispatcher(cluster, pause=0.05) as taken:
            told = Told()
            stopped: list[bool] = []
            going = asyncio.create_task(told_by(taken, Drawn(chunks, lambda: stopped), told))
            await until(lambda: len(chores.lines(tmp_path, "ends")) >= 4 and told.ends)  # both have opened theirs
            await asyncio.to_thread(cluster.workers[0].stop)
            stopped.append(True)
            await going
        told.is_exactly(chunks)
        assert not told.failed
        ends = Counter(line.split(maxsplit=1)[1] for line in chores.lines(tmp_path, "ends"))
        assert ends["a closed"] == ends["b closed"] == 1


async def test_a_worker_of_another_version_is_sent_away(tmp_path: Path) -> None:
    with running_cluster(tmp_path, workers=1) as cluster:
        chunks = chores.chunks_of(8)
        events: list[str] = []
        async with dispatcher(cluster, pause=0.05, on_event=events.append) as taken:
            told = Told()
            going = asyncio.create_task(told_by(taken, Drawn(chunks, lambda: events), told))
            await until(lambda: told.ends)
            cluster.add_worker(PYTHONPATH=f"{other_version(tmp_path)}:{ROOT}")
            await going
        told.is_exactly(chunks)
        assert events
        assert all(
            re.fullmatch(r"the worker at tcp://\S+ has postdicom-async 99\.0, and here is \S+: it was sent away", one)
            for one in events
        )
        assert len({line.split()[0] for line in chores.lines(tmp_path, "done")}) == 1


async def test_when_only_workers_of_another_version_come_it_is_said_at_once(tmp_path: Path) -> None:
    with running_cluster(tmp_path, workers=0) as cluster:
        cluster.add_worker(PYTHONPATH=f"{other_version(tmp_path)}:{ROOT}")
        async with dispatcher(cluster) as taken:
            with pytest.raises(UsageError, match=r"^workers: the worker at tcp://\S+ has postdicom-async 99\.0"):
                await told_by(taken, Drawn(chores.chunks_of(2)))


def other_version(folder: Path) -> Path:
    """Make a folder that, before all others in the path, says that the package has another version."""
    place = folder / "other" / "postdicom_async-99.0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: postdicom-async\nVersion: 99.0\n")
    return place.parent


async def test_patience_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_cluster(tmp_path, workers=0) as cluster:
        async with dispatcher(cluster, patience=1) as taken:
            monkeypatch.setattr(dispatcher_module, "ANSWERS_WITHIN", 2.0)
            with pytest.raises(ConnectionFailed, match=r"^no worker for 1 s; the same command goes on"):
                await told_by(taken, Drawn(chores.chunks_of(2)))
            cluster.kill_scheduler()
            with pytest.raises(ConnectionFailed, match=r"^no scheduler for 1 s"):
                await told_by(taken, Drawn(chores.chunks_of(2)))


async def test_no_scheduler_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_module, "ANSWERS_WITHIN", 1.0)
    with pytest.raises(ConnectionFailed, match=r"^scheduler: nothing answers at its address"):
        async with DaskDispatcher(f"tcp://127.0.0.1:{unused_port()}", chores.work):
            pass


async def test_nobody_on_other_machines_is_listened_to(tmp_path: Path) -> None:
    with running_cluster(tmp_path, workers=1) as cluster:
        async with dispatcher(cluster) as taken:
            await told_by(taken, Drawn(chores.chunks_of(2)))
        worker = cluster.workers[0].process
        assert worker is not None
        assert cluster.scheduler is not None
        for pid in (worker.pid, cluster.scheduler.pid):
            listening = [one.laddr for one in psutil.Process(pid).net_connections("inet") if one.status == "LISTEN"]
            assert listening
            assert {address.ip for address in listening} == {"127.0.0.1"}


# --- who is connected to ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["tcp://10.0.0.7:8786", "archive.example:8786", "tcp://[2001:db8::1]:8786"])
def test_another_machine_without_tls_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=r"^scheduler: it executes what reaches its port.*over TLS alone") as caught:
        DaskDispatcher(address, chores.work)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["", "host", "http://127.0.0.1:1", "inproc://1", "tcp://:8786", "tcp://127.0.0.1:x"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=r"^scheduler: give its address as tls://HOST:8786"):
        DaskDispatcher(address, chores.work)


@pytest.mark.parametrize("missing", ["require_encryption", "tls_ca_file", "tls_client_cert", "tls_client_key"])
def test_tls_without_certificates_of_both_sides_is_refused(missing: str) -> None:
    files = {
        name: None if name == missing else "x.pem" for name in ("tls_ca_file", "tls_client_cert", "tls_client_key")
    }
    made: Any = Security
    security = made(require_encryption=missing != "require_encryption", **files)
    for chosen in (security, None):
        with pytest.raises(UsageError, match=r"^scheduler: tls:// needs the files"):
            DaskDispatcher("tls://archive.example:8786", chores.work, security=chosen)


def come_without_certificate(port: int, ca_file: Path) -> None:
    nobody = ssl.create_default_context(cafile=str(ca_file))
    nobody.check_hostname = False
    with socket.create_connection(("127.0.0.1", port)) as raw, nobody.wrap_socket(raw) as secure:
        secure.read()  # TLS 1.3 tells only now that a certificate is missing


async def test_over_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    certificate, key = ours.client_files()
    files = {"ca-file": ours.ca_file, "cert": certificate, "key": key}
    with running_cluster(tmp_path, certificates=files) as cluster:
        chunks = chores.chunks_of(6)
        async with dispatcher(cluster, security=tls(str(ours.ca_file), str(certificate), str(key))) as taken:
            told = await told_by(taken, Drawn(chunks))
        told.is_exactly(chunks)
        with pytest.raises(ssl.SSLError):
            come_without_certificate(cluster.port, ours.ca_file)
        foreign = tls(str(ours.ca_file), *map(str, theirs.client_files()))
        with pytest.raises(ConnectionFailed, match="a certificate is refused"):
            async with dispatcher(cluster, security=foreign):
                pass


# --- within a worker -------------------------------------------------------------------------------------------------


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Let this process be the worker."""
    monkeypatch.setenv("SHARED_FOLDER", str(tmp_path))
    yield
    await worker.stop()


def parcel(**more: Any) -> worker.Parcel:
    (chunk,) = chores.chunks_of(1)
    return worker.Parcel("job", chunk, chores.FakeSpec("a"), chores.FakeSpec("b"), (0.0, 1), **more)


async def carried() -> Any:
    return await asyncio.to_thread(chores.work, parcel())


@pytest.mark.usefixtures("here")
async def test_an_end_that_no_chunk_has_used_for_long_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "IDLE", 0.05)
    for times in (1, 2):
        items, end = await carried()
        assert len(items) == 5
        assert ChunkEnd(*end) == ChunkEnd()
        await until(lambda times=times: len(chores.lines(tmp_path, "ends")) == 4 * times)
    ends = [line.split(maxsplit=1)[1] for line in chores.lines(tmp_path, "ends")]
    assert Counter(ends) == {"a opened": 2, "b opened": 2, "a closed": 2, "b closed": 2}


@pytest.mark.usefixtures("here")
async def test_a_parcel_of_another_version_is_not_opened(tmp_path: Path) -> None:
    assert chores.work(parcel(version="98.0")) == worker.Refused(worker.VERSION)
    assert not chores.lines(tmp_path, "ends")


@pytest.mark.usefixtures("here")
async def test_what_comes_back_is_plain_and_what_travels_shows_numbers_alone() -> None:
    items, end = await carried()
    assert {type(value) for item in [*items, end] for value in item} <= {str, int, bool, bytes, float, type(None)}
    assert repr(parcel()) == "<chunk 1, attempt 1>"
    assert [worker.unpacked(item).state for item in items] == [State.DONE] * 5
