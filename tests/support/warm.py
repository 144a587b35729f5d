"""Warm processes: forked from one that has already imported the package.

A test that kills jobs at fifty points needs fifty real processes, but not fifty times half a second of imports. What
is forked is a process like any other: it is killed, its files are synced, its locks fall with it. It differs from a
fresh one in that every module of the package is loaded, so tests about imports, or about interpreter exit (``atexit``
is not run), need a cold process. One server is kept for all tests of a pytest worker; it has neither threads nor an
event loop, so that forking it is safe, and it ends with the worker.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import reduction
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import IO, Any

__all__ = ["WARM", "WarmGroup", "WarmProcess", "run_warm", "start_warm", "warm_group"]

WARM = sys.platform != "win32"
"""Whether this system can fork."""

_ROOT = Path(__file__).parents[2]
_STREAM_LIMIT = 1 << 22


class _Descriptor:
    """An open file that goes with a process when it is started."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Callable[[Any], _Descriptor], tuple[Any]]:
        return _arrived, (reduction.DupFd(self.number),)


def _arrived(sent: Any) -> _Descriptor:
    return _Descriptor(sent.detach())


def _as_program(
    module: str,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    folder: str,
    files: dict[int, _Descriptor],
    leads: bool,
) -> None:
    """In the forked process: become ``python -m module`` with these arguments."""
    if leads:
        os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:] = ["", str(_ROOT), *(one for one in sys.path if one not in ("", str(_ROOT)))]
    for number, file in files.items():
        os.dup2(file.number, number)
    for one in {file.number for file in files.values()}:
        os.close(one)
    if "dask" in sys.modules:
        sys.modules["dask"].config.refresh()  # it reads the environment when it is imported
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _start(
    module: str,
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    folder: Path,
    files: dict[int, int],
    *,
    leads: bool = False,
) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.warm_imports"])
    sent = {number: _Descriptor(file) for number, file in files.items()}
    process = context.Process(target=_as_program, args=(module, arguments, dict(environment), str(folder), sent, leads))
    process.start()
    return process


class WarmGroup:
    """A process with its own process group, beside the tests; has the interface of ``subprocess.Popen``."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Return its code; None while it runs."""
        return self._process.exitcode

    def wait(self) -> int | None:
        """Wait for its end; return its code."""
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """Kill it and its children; it may not have become group leader yet."""
        if self.poll() is None:
            self._process.kill()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def warm_group(module: str, *arguments: str, env: Mapping[str, str], log: IO[bytes]) -> WarmGroup:
    """Start ``python -m module`` with these arguments as leader of a process group; its output is logged."""
    said = {1: log.fileno(), 2: log.fileno()}
    return WarmGroup(_start(module, arguments, env, _ROOT, said, leads=True))


class WarmProcess:
    """A running process with the interface of ``asyncio``'s.

    Attributes:
        stdout: its standard output.
        stderr: its standard error.
    """

    def __init__(self, process: ForkServerProcess, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader) -> None:
        self._process = process
        self.stdout, self.stderr = stdout, stderr

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()

    async def wait(self) -> int:
        """Wait for its end; return its code."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
        self._process.join()
        code = self.returncode
        assert code is not None
        return code

    async def communicate(self) -> tuple[bytes, bytes]:
        """Read all that it says, and wait for its end."""
        out, err = await asyncio.gather(self.stdout.read(), self.stderr.read())
        await self.wait()
        return out, err


async def _reader(file: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_STREAM_LIMIT)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(file, "rb", 0))
    return reader


async def start_warm(module: str, *arguments: str, env: Mapping[str, str], folder: Path) -> WarmProcess:
    """Start ``python -m module`` with these arguments in this folder; standard input is empty, the others are read."""
    (out, its_out), (err, its_err) = os.pipe(), os.pipe()
    try:
        process = _start(module, arguments, env, folder, {1: its_out, 2: its_err})
    finally:
        os.close(its_out)
        os.close(its_err)
    return WarmProcess(process, await _reader(out), await _reader(err))


async def run_warm(module: str, *arguments: str, seconds: float = 60) -> int:
    """Run ``python -m module`` with these arguments; return its code, negative for a signal."""
    process = _start(module, arguments, os.environ, _ROOT, {})
    await asyncio.to_thread(process.join, seconds)
    code = process.exitcode
    assert code is not None, f"it did not end within {seconds} seconds"
    process.close()
    return code
