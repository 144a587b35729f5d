"""A running job is told what to do through a socket of its user's alone, and goes on whatever is sent there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postdicom_async.disk.private_files import PrivateSocket
from postdicom_async.errors import ConnectionFailed, LedgerLocked, LocalFileError, NotFound, UsageError
from postdicom_async.jobs.pace import control
from postdicom_async.jobs.pace.control import ControlServer, NoJobRuns, ask, control_paths, handlers_of
from postdicom_async.jobs.pace.pace import Pace

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such sockets there")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder whose path is short, as a socket's must be."""
    with tempfile.TemporaryDirectory(prefix="pd") as name:
        yield Path(name) / "postdicom"


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "job.sock"


async def status() -> dict[str, Any]:
    return {"phase": "moving", "done": 5}


class Job:
    """A job's pace and what it answers to."""

    def __init__(self) -> None:
        self.pace = Pace(max_rate="40M")
        self.stopped = asyncio.Event()
        self.handlers = handlers_of(self.pace, status=status, stop=self.stopped.set)


async def raw(path: Path, sent: bytes) -> list[dict[str, Any]]:
    """Send bytes, end, and return what is answered."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=2**24)
    try:
        writer.write(sent)
        writer.write_eof()
        return [json.loads(line) async for line in reader]
    finally:
        writer.close()
        await writer.wait_closed()


# --- what a job answers to --------------------------------------------------------------------------------------------


async def test_a_running_job_is_told_everything(path: Path) -> None:
    job = Job()
    async with ControlServer(path, job.handlers) as server:
        assert server.path == path
        answer = await ask(path, {"do": "set", "max_rate": "10M", "at_once": 6, "windows": "Mon 20:00-06:00 UTC"})
        assert answer["ok"]
        assert (answer["max_rate"], answer["at_once"], answer["windows"]) == ("10M", 6, "Mon 20:00-06:00 UTC")
        assert job.pace.snapshot()["max_rate"] == "10M"
        assert (await ask(path, {"do": "pause"}))["paused"] is True
        assert job.pace.paused
        assert (await ask(path, {"do": "status"})).items() >= {"phase": "moving", "done": 5, "paused": True}.items()
        assert (await ask(path, {"do": "resume"}))["paused"] is False
        assert await ask(path, {"do": "stop"}) == {"ok": True}
        assert job.stopped.is_set()


async def test_a_new_rate_holds_within_two_seconds(path: Path) -> None:
    job = Job()
    job.pace.set(max_rate="1")
    await job.pace.bytes(1_000_000)
    async with ControlServer(path, job.handlers):
        waiting = asyncio.create_task(job.pace.bytes(1))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert (await ask(path, {"do": "set", "max_rate": "off"}))["ok"]
        async with asyncio.timeout(2):
            await waiting


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"do": "set"}, "give one or more of at_once, max_rate, max_requests, windows"),
        ({"do": "set", "rate": "40M"}, "give one or more of"),
        ({"do": "set", "max_rate": "fast"}, '"40M"'),
        ({"do": "set", "max_rate": [1]}, "max_rate"),
        ({"do": "set", "windows": "sometimes"}, "sometimes"),
        ({"do": "set", "windows": 5}, "windows"),
        ({"do": "set", "at_once": "6"}, "at_once"),
        ({"do": "delete"}, "known are pause, resume, set, status, stop"),
        ({"do": 5}, "known are"),
        ({}, "known are"),
    ],
)
async def test_what_makes_no_sense_is_answered_in_one_line(path: Path, message: dict[str, Any], words: str) -> None:
    job = Job()
    before = job.pace.snapshot()
    async with ControlServer(path, job.handlers):
        answer = await ask(path, message)
    assert answer["ok"] is False
    assert words in answer["error"]
    assert "\n" not in answer["error"]
    assert job.pace.snapshot() == before


async def test_several_questions_on_one_connection_are_answered_in_order(path: Path) -> None:
    async with ControlServer(path, Job().handlers):
        answers = await raw(path, b'{"do": "pause"}\n{"do": "status"}\n{"do": "resume"}')
    assert [answer["paused"] for answer in answers] == [True, True, False]


async def test_200_lines_of_garbage_are_answered_and_the_job_goes_on(path: Path) -> None:
    chances = random.Random(7)
    lines = [chances.randbytes(chances.randrange(1, 2000)).replace(b"\n", b" ") for _ in range(190)]
    lines += [
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"null",
        b"[]",
        b"5",
        b'"do"',
        b'{"do": null}',
        b"\xff\xfe",
        b"{",
        b"9" * 9000,
    ]
    assert len(lines) == 200
    job = Job()
    before = job.pace.snapshot()
    async with ControlServer(path, job.handlers):
        answers = await raw(path, b"\n".join(lines) + b"\n")
        assert len(answers) == 200
        assert not any(answer["ok"] for answer in answers)
        assert job.pace.snapshot() == before
        assert (await ask(path, {"do": "status"}))["ok"]


async def test_a_line_without_an_end_is_held_in_bounded_memory(path: Path) -> None:
    async with ControlServer(path, Job().handlers):
        reader, writer = await asyncio.open_unix_connection(str(path))

        async def send() -> None:
            for _ in range(256):
                writer.write(b"x" * 65536)
                await writer.drain()
            writer.write(b'\n{"do": "status"}\n')
            writer.write_eof()

        sending = asyncio.create_task(send())
        answers = [json.loads(line) async for line in reader]
        await sending
        writer.close()
        await writer.wait_closed()
        assert answers[-1]["ok"]
        assert not answers[0]["ok"]
        assert (await ask(path, {"do": "status"}))["ok"]


async def test_a_handler_that_fails_says_so_and_nothing_private(path: Path) -> None:
    async def broken(_: dict[str, Any]) -> None:
        raise RuntimeError("Doe^John at /secret/path")

    async def refused(_: dict[str, Any]) -> None:
        raise UsageError("not now")

    async with ControlServer(path, {"break": broken, "refuse": refused}):
        assert await ask(path, {"do": "break"}) == {"ok": False, "error": "unexpected (RuntimeError)"}
        assert await ask(path, {"do": "refuse"}) == {"ok": False, "error": "not now"}


async def test_more_connections_than_allowed_are_closed_and_later_ones_served(path: Path) -> None:
    async with ControlServer(path, Job().handlers):
        held = [await asyncio.open_unix_connection(str(path)) for _ in range(40)]
        ended = [asyncio.create_task(reader.read()) for reader, _ in held]
        while sum(task.done() for task in ended) < 8:
            await asyncio.sleep(0.01)
        for _, writer in held:
            writer.close()
        await asyncio.gather(*ended, return_exceptions=True)
        while True:
            with contextlib.suppress(ConnectionFailed):
                assert (await ask(path, {"do": "status"}))["ok"]
                break


async def test_a_connection_that_says_nothing_is_ended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_IDLE", 0.05)
    async with ControlServer(path, Job().handlers):
        reader, writer = await asyncio.open_unix_connection(str(path))
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_the_answer_to_stop_is_given_although_the_server_ends(path: Path) -> None:
    job = Job()

    async def late(_: dict[str, Any]) -> dict[str, Any]:
        job.stopped.set()
        await asyncio.sleep(0.1)
        return {"stopped": True}

    async with ControlServer(path, {"stop": late}):
        asking = asyncio.create_task(ask(path, {"do": "stop"}))
        await job.stopped.wait()
    assert await asking == {"ok": True, "stopped": True}


async def test_a_handler_that_never_ends_does_not_hold_the_job_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_LAST_WORDS", 0.05)
    begun = asyncio.Event()

    async def endless(_: dict[str, Any]) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with ControlServer(path, {"wait": endless}):
        asking = asyncio.create_task(ask(path, {"do": "wait"}))
        await begun.wait()
    with pytest.raises(ConnectionFailed, match="ended before"):
        await asking
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- who may ask, and where -------------------------------------------------------------------------------------------


async def test_the_socket_and_its_folder_are_the_users_alone(path: Path, folder: Path) -> None:
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    old = os.umask(0)
    try:
        async with ControlServer(path, {}):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_ISSOCK(path.stat().st_mode)
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert list(folder.iterdir()) == [path]
        assert not list(folder.iterdir())
    finally:
        os.umask(old)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="the system does not say who asks")
async def test_another_user_is_refused_even_where_the_files_would_let_him(path: Path, folder: Path) -> None:
    job = Job()
    async with ControlServer(path, job.handlers):
        for place, mode in ((folder.parent, 0o755), (folder, 0o755), (path, 0o666)):
            place.chmod(mode)
        program = f"""
            import os, socket
            os.setgid(65534); os.setuid(65534)
            s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r})
            s.sendall(b'{{"do": "pause"}}\\n')
            print(s.makefile().readline())
        """
        run = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
        )
        assert json.loads(run.stdout) == {"ok": False, "error": "this job is another user's"}
        assert not job.pace.paused
        folder.chmod(0o700)
        closed = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
        )
        assert "PermissionError" in closed.stderr


async def test_a_user_does_not_ask_a_job_of_another_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ControlServer(path, Job().handlers):
        monkeypatch.setattr(control, "_peer", lambda _: 12345)
        with pytest.raises(UsageError, match="another user's"):
            await ask(path, {"do": "pause"})


async def test_the_socket_of_a_job_that_was_killed_is_replaced(path: Path) -> None:
    program = f"""
        import asyncio, pathlib
        from postdicom_async.jobs.pace.control import ControlServer
        async def main():
            async with ControlServer(pathlib.Path({str(path)!r}), {{}}):
                print("ready", flush=True)
                await asyncio.Event().wait()
        asyncio.run(main())
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
        assert not (await ask(path, {"do": "status"}))["ok"]  # it runs, and knows of nothing
        with pytest.raises(LedgerLocked):
            PrivateSocket(path)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert path.exists()
    with pytest.raises(NoJobRuns):
        await ask(path, {"do": "status"})
    async with ControlServer(path, Job().handlers):
        assert (await ask(path, {"do": "status"}))["ok"]
    assert not path.exists()


async def test_where_no_job_runs_it_is_said_so(path: Path) -> None:
    with pytest.raises(NoJobRuns, match="no job runs here") as raised:
        await ask(path, {"do": "status"})
    assert isinstance(raised.value, NotFound)
    assert raised.value.__context__ is None
    with pytest.raises(NoJobRuns):
        await ask([path, path.with_name("other.sock")], {"do": "status"})


async def test_a_job_that_does_not_answer_is_told_apart(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(ConnectionFailed, match=r"does not answer within 0\.1 s"):
            await ask(path, {"do": "status"}, timeout=0.1)
        with pytest.raises(LedgerLocked):
            async with ControlServer(path, {}):
                pass


async def test_what_is_no_socket_is_not_replaced(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("mine")
    async with ControlServer(path, {}) as server:
        assert server.path is None
        assert server.problem == "control socket: something else lies in its place"
    assert path.read_text() == "mine"
    with pytest.raises(LocalFileError):
        PrivateSocket(path)
    assert list(path.parent.iterdir()) == [path]


async def test_a_socket_that_took_its_place_is_left_there(path: Path) -> None:
    first = PrivateSocket(path)
    path.unlink()
    second = PrivateSocket(path)
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()


async def test_a_folder_behind_a_link_is_not_used(folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir(mode=0o755)
    folder.symlink_to(elsewhere)
    with pytest.raises(LocalFileError, match="somebody else"):
        PrivateSocket(folder / "job.sock")
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755


async def test_of_several_places_the_first_that_can_be_used_is(folder: Path) -> None:
    folder.parent.joinpath("file").write_text("")
    paths = [folder.parent / "file" / "job.sock", folder / "b.sock", folder / "c.sock"]
    async with ControlServer(paths, Job().handlers) as server:
        assert server.path == paths[1]
        assert server.problem is None
        assert (await ask(paths, {"do": "status"}))["ok"]
    async with ControlServer(paths[:1], Job().handlers) as server:
        assert server.path is None
        assert server.problem is not None
        assert str(folder.parent) not in server.problem


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTDICOM_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/u/.local/state")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    paths = control_paths(tmp_path / "ledger.sqlite")
    places = ["/home/u/.local/state/postdicom/control", "/run/user/1000/postdicom"]
    assert [str(path.parent) for path in paths[:2]] == places
    assert len({path.name for path in paths}) == 1
    assert control_paths(tmp_path / "other" / ".." / "ledger.sqlite") == paths
    assert control_paths(tmp_path / "other.sqlite")[0].name != paths[0].name
    monkeypatch.setenv("POSTDICOM_STATE", "/srv/jobs")
    assert str(control_paths(tmp_path / "ledger.sqlite")[0].parent) == "/srv/jobs/control"
    monkeypatch.setenv("POSTDICOM_STATE", "/" + "long/" * 40)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    (short,) = control_paths(tmp_path / "ledger.sqlite")
    assert len(os.fsencode(short)) <= 100
    assert short.parent.parent == Path(tempfile.gettempdir())


async def test_without_such_sockets_a_job_runs_and_says_that_it_cannot_be_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "HAS_UNIX_SOCKETS", False)
    async with ControlServer(path, {}) as server:
        assert server.path is None
        assert "cannot be told" in (server.problem or "")
    with pytest.raises(UsageError, match="cannot be told"):
        await ask(path, {"do": "pause"})
