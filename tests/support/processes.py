"""Kills the processes that a test started and left running, with all their children.

A test that fails while it waits for a process never reaches the code that ends it. Such a process would run for ever,
keep its port and its lock, and disturb another test. So everything started through `subprocess`, as by asyncio, or
forked (`warm.py`) is recorded while a test runs, and what is left is killed after the test's own fixtures have ended. A
server shared by several tests is started inside `for_all_tests`.
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
_shared: list[bool] = []  # whether processes started now are shared with other tests


@contextmanager
def ended_processes() -> Iterator[None]:
    """Kill the processes started inside that still run at the end."""
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
    """Keep processes started inside running after the test that first needed them."""
    _shared.append(True)
    try:
        yield
    finally:
        _shared.pop()


def kill_tree(process: subprocess.Popen[Any]) -> None:
    """Kill a running process, its descendants, and its group if it leads one."""
    _kill_all(process.pid)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GONE_WITHIN)


def _kill_all(pid: int) -> None:
    """Kill a process, its descendants, and its group if it leads one."""
    pids = [pid, *_below(pid)]
    with suppress(ProcessLookupError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
    for one in pids:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def _below(pid: int) -> list[int]:
    """Return the descendants of a process, if the system tells (Linux)."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            children[int(status.read_text().rpartition(")")[2].split()[1])].append(int(status.parent.name))
    found = list(children[pid])
    for one in found:  # the list grows during the loop
        found += children[one]
    return found
