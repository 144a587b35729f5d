"""A dask scheduler and workers of it in processes of their own, on loopback; killed and started again by the tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import postdicom_async
from tests.support.faulty_server import unused_port
from tests.support.warm import WARM, WarmGroup, warm_group

__all__ = ["ROOT", "Cluster", "running_cluster", "wait_until"]

ROOT = Path(postdicom_async.__file__).parent.parent
QUICK = {
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",  # a chunk comes back after the first worker it kills
    "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "1h",
}
# Without a dashboard there still is a server of HTTP that asks nobody who they are; by itself on every interface.
NO_PAGES = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]


def wait_until(happened: Callable[[], bool], *, seconds: float = 40) -> None:
    """Wait; fail when it does not happen."""
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def _begun(command: list[str], log: IO[bytes], environment: dict[str, str]) -> subprocess.Popen[bytes] | WarmGroup:
    """Start a module with its arguments, warm where that can be: not a nanny, which starts others by Python's means."""
    ours = environment["PYTHONPATH"] == str(ROOT)
    if WARM and ours and ("--no-nanny" in command or command[0].endswith("scheduler")):
        return warm_group(*command, env=environment, log=log)
    return subprocess.Popen(
        [sys.executable, "-m", *command], stdout=log, stderr=log, env=environment, cwd=ROOT, start_new_session=True
    )


def _kill(process: subprocess.Popen[bytes] | WarmGroup) -> None:
    """Kill a process and what it started."""
    if isinstance(process, WarmGroup):
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Supervised:
    """A process that is started again when it ends, as a service manager does."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str]) -> None:
        self._command = command
        self._log = log
        self._environment = environment
        self._ended, self._killed = threading.Event(), threading.Event()
        self._begun = threading.Event()
        self.process: subprocess.Popen[bytes] | WarmGroup | None = None
        self.starts = 0
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()
        assert self._begun.wait(60), "it did not start"

    def _keep(self) -> None:
        while not self._ended.is_set():
            with self._log.open("ab") as log:
                self.process = _begun(self._command, log, self._environment)
            self.starts += 1
            self._begun.set()
            while self.process.poll() is None and not self._killed.is_set():
                time.sleep(0.02)
            _kill(self.process)  # it, and what it started
            self.process.wait()

    def kill(self) -> None:
        """Kill the process as it stands; it is started again."""
        assert self.process is not None
        _kill(self.process)

    def stop(self) -> None:
        """Ask it to end, as a service manager does, and do not start it again."""
        assert self.process is not None
        self._ended.set()
        self.process.terminate()
        self._thread.join(20)

    def close(self) -> None:
        """Kill it for good."""
        self._ended.set()
        self._killed.set()
        self._thread.join(20)


class Cluster:
    """A scheduler on a port of its own, and workers.

    Attributes:
        folder: shared by all; the logs are in it.
    """

    def __init__(self, folder: Path, *, certificates: dict[str, Path] | None = None, **environment: str) -> None:
        self.folder = folder
        self._certificates = certificates
        self._environment = {
            **os.environ,
            **QUICK,
            "PYTHONPATH": str(ROOT),
            "SHARED_FOLDER": str(folder),
            **environment,
        }
        self.port = unused_port()
        self.workers: list[Supervised] = []
        self.scheduler: subprocess.Popen[bytes] | WarmGroup | None = None
        self.start_scheduler()

    @property
    def address(self) -> str:
        return f"{'tls' if self._certificates else 'tcp'}://127.0.0.1:{self.port}"

    def _files(self) -> list[str]:
        return [part for name, path in (self._certificates or {}).items() for part in (f"--tls-{name}", str(path))]

    def start_scheduler(self) -> None:
        """Start it, on the port that it had before, and wait until it listens."""
        command = [
            "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port),
            *NO_PAGES, "--idle-timeout", "300", *self._files(), *(["--protocol", "tls"] if self._certificates else []),
        ]  # fmt: skip
        with (self.folder / "scheduler.log").open("ab") as log:
            self.scheduler = _begun(command, log, self._environment)
        wait_until(self._listens)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def kill_scheduler(self) -> None:
        assert self.scheduler is not None
        self.scheduler.kill()
        self.scheduler.wait()

    def add_worker(self, *, nanny: bool = False, **environment: str) -> Supervised:
        """Start another worker, by itself without a nanny: the supervisor is enough."""
        command = [
            "distributed.cli.dask_worker", self.address, *NO_PAGES, "--nthreads", "2",
            *([] if nanny else ["--no-nanny"]), "--host", "127.0.0.1",
            "--local-directory", str(self.folder / "scratch"), *self._files(),
        ]  # fmt: skip
        log = self.folder / f"worker{len(self.workers)}.log"
        self.workers.append(Supervised(command, log, {**self._environment, **environment}))
        return self.workers[-1]

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self.kill_scheduler()


@contextlib.contextmanager
def running_cluster(folder: Path, workers: int = 2, **more: Any) -> Iterator[Cluster]:
    """Run a scheduler and workers; nothing of them is left afterwards."""
    cluster = Cluster(folder, **more)
    try:
        for _ in range(workers):
            cluster.add_worker()
        yield cluster
    finally:
        cluster.close()
