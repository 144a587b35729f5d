"""What is left of requests that were cancelled before a silent server said anything."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.runner import Bench, Lines, environment, tell

if TYPE_CHECKING:
    from benchmarks.sizes import Sizes

REQUESTS = 10
AFTER = 1.0
PATIENCE = 60.0
CLIENT = """
import asyncio, sys
from postdicom_async import DicomWeb, Limits, Settings

async def main():
    limits = Limits(parallel_searches=int(sys.argv[2]))  # fewer of them would be under way otherwise
    async with DicomWeb(sys.argv[1], settings=Settings(limits=limits)) as archive:
        tasks = [asyncio.create_task(archive.search_for_studies().first()) for _ in range(int(sys.argv[2]))]
        await asyncio.to_thread(sys.stdin.readline)  # until all of them have arrived
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        print("cancelled", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


class Silent:
    """A server that takes requests and never answers. Counts what has arrived, and who is still connected."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._lock = threading.Condition()
        self.arrived: int = 0
        self.open: int = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            self._change(opened=1)
            seen = False
            try:
                while connection.recv(1 << 16):
                    self._change(arrived=0 if seen else 1)
                    seen = True
            except OSError:
                pass
            self._change(opened=-1)

    def _change(self, *, arrived: int = 0, opened: int = 0) -> None:
        with self._lock:
            self.arrived += arrived
            self.open += opened
            self._lock.notify_all()

    def wait_for(self, arrived: int) -> None:
        """Wait until so many requests have arrived, on a connection each."""
        with self._lock:
            if not self._lock.wait_for(lambda: self.arrived >= arrived, PATIENCE):
                raise RuntimeError("the requests did not arrive")


@contextmanager
def silent() -> Iterator[Silent]:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield Silent(listener)


def run_cancelled(bench: Bench, sizes: Sizes) -> None:
    tell("cancelled: ten requests")
    with silent() as server:
        left, _ = _cancel(server, REQUESTS, AFTER)
    tell(f"cancelled: {sizes.exits} processes")
    exits, clean = [], 0
    for _ in range(sizes.exits):
        with silent() as server:
            _, (seconds, is_clean) = _cancel(server, 1, 0.0)
        exits.append(seconds)
        clean += is_clean
    bench.figures |= {"sockets": left, "clean-exits": 100 * clean / sizes.exits}
    rows = [
        (f"sockets open {AFTER:g} s after {REQUESTS} requests were cancelled", str(left)),
        (f"processes of {sizes.exits} that ended cleanly after one", str(clean)),
        ("seconds from its end to that of the process, median", f"{median(exits):.3f}"),
    ]
    bench.lines["cancelled"] = Lines(("what", "measured"), rows)
    bench.note(
        "cancelled", "clean: exit code 0, nothing on standard error, the client's block left in the ordinary way"
    )


def _cancel(server: Silent, requests: int, after: float) -> tuple[int, tuple[float, bool]]:
    """Have a process cancel its requests; return how many sockets are open then, and how the process ended."""
    command = [sys.executable, "-c", CLIENT, server.url, str(requests)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            server.wait_for(requests)
            process.stdin.write("\n")
            process.stdin.flush()
            if process.stdout.readline() != "cancelled\n":
                raise RuntimeError("the client did not cancel its requests")
            time.sleep(after)
            left, started = server.open, time.perf_counter()
            _, errors = process.communicate("\n", timeout=PATIENCE)
        except RuntimeError as error:
            process.kill()
            _, errors = process.communicate()
            raise RuntimeError(f"{error}: {(errors.strip() or 'no words').splitlines()[-1]}") from None
        finally:
            process.kill()
    return left, (time.perf_counter() - started, process.returncode == 0 and not errors)
