"""Sessions in threads that come and go, each with an event loop of its own, as test clients and worker pools have."""

from __future__ import annotations

import subprocess
import sys

import pytest

SESSIONS = """
import asyncio, threading
from postdicom_async import DicomWeb

async def session():
    async with DicomWeb("http://127.0.0.1:9"):
        pass

for _ in range(20):
    thread = threading.Thread(target=asyncio.run, args=(session(),))
    thread.start()
    thread.join()
print("done")
"""


@pytest.mark.parametrize(
    "first", ["", "asyncio.run(session())\n"], ids=["in threads alone", "first in the main thread"]
)
def test_a_session_in_each_of_many_threads(first: str) -> None:
    """Never in this process: where it goes wrong the interpreter dies."""
    code = SESSIONS.replace("for _", first + "for _")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr[-2000:]
