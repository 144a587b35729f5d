from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import ended_processes, for_all_tests

SLEEPS = "import time; print(1, flush=True); time.sleep(600)"
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {SLEEPS!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


def runs(pid: int) -> bool:
    for _ in range(100):  # whoever lost its parent is buried by the system, in its own time
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        if Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z":
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("own_group", [False, True])
def test_what_a_failing_test_left_is_ended_with_all_below_it(own_group: bool) -> None:
    process: subprocess.Popen[bytes] | None = None
    child = 0
    with pytest.raises(AssertionError), ended_processes():  # noqa: PT012 - what fails comes last
        command = [sys.executable, "-c", PARENT]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=own_group)
        assert process.stdout is not None
        child = int(process.stdout.readline())
        raise AssertionError("the test fails here")
    assert process is not None
    assert process.stdout is not None
    process.stdout.close()
    assert process.returncode == -9
    assert not runs(child)


async def test_what_was_started_by_asyncio_is_ended_too() -> None:
    with ended_processes():
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", SLEEPS, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"1\n"
    async with asyncio.timeout(10):
        await process.communicate()
    assert not runs(process.pid)


def test_what_ended_by_itself_is_left_alone() -> None:
    with ended_processes():
        assert subprocess.run([sys.executable, "-c", "print(1)"], check=True, capture_output=True).stdout == b"1\n"


def test_what_other_tests_want_as_well_goes_on() -> None:
    with ended_processes(), for_all_tests():
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process.poll() is None
    process.communicate()
