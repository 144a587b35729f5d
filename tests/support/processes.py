"""Ends the processes that a test started and left running, with all that they started.

A test that fails while it waits for a process never comes to where it would end it. Such a process goes on for ever,
holds its port and its lock, and another test meets it. So whatever is started through `subprocess`, which asyncio does
too, or forked (`warm.py`) is noted while a test runs, and what is left of it is killed when all of the test's own
fixtures have ended. A server that other tests want as well is started inside `for_all_tests`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

_GONE_WITHIN = 10.0  # seconds
_shared: list[bool] = []  # whether what is started now is for other tests, too


@contextmanager
def ended_processes() -> Iterator[None]:
    """Kill what is started inside and still runs at the end."""
    started: list[subprocess.Popen[Any]] = []
    forked_before = set(multiprocessing.active_children())
    real = subprocess.Popen.__init__

    def noted(self: subprocess.Popen[Any], *args: Any, **options: Any) -> None:
        real(self, *args, **options)
        if not _shared:
            started.append(self)

    with patch.object(subprocess.Popen, "__init__", noted):
        try:
            yield
        finally:
            for process in started:
                if process.returncode is None and process.poll() is None:
                    kill_tree(process)
            for forked in set(multiprocessing.active_children()) - forked_before:
                _kill_all(forked.pid or 0)
                forked.join(_GONE_WITHIN)


@contextmanager
def for_all_tests() -> Iterator[None]:
    """Let what is started inside go on when the test ends that was the first to want it."""
    _shared.append(True)
    try:
        yield
    finally:
        _shared.pop()


def kill_tree(process: subprocess.Popen[Any]) -> None:
    """Kill a process that runs, those below it, and its group where it leads one."""
    _kill_all(process.pid)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GONE_WITHIN)


def _kill_all(pid: int) -> None:
    """Kill a process, those below it, and its group where it leads one."""
    pids = [pid, *_below(pid)]
    with suppress(ProcessLookupError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
    for one in pids:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def _below(pid: int) -> list[int]:
    """Return the processes below one, as far as the system says (Linux)."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            children[int(status.read_text().rpartition(")")[2].split()[1])].append(int(status.parent.name))
    found = list(children[pid])
    for one in found:  # grows while it is gone through
        found += children[one]
    return found
