"""curl: answers to files, a premade body from a file. Nothing parsed."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from pathlib import Path

from benchmarks.measure import Measurement, Task, cpu_seconds, memory
from benchmarks.names import MULTIPART
from benchmarks.sides.raw import stored_in

ACCEPT = 'Accept: multipart/related; type="application/dicom"'


def run(task: Task) -> Measurement:
    options = ["--silent", "--show-error", "--fail", "--noproxy", "*", "--write-out", "%{time_total}\\n"]
    options += ["--user", f"{task.user}:{task.password}"] if task.user else []
    options += ["--cacert", task.authority] if task.authority else []
    work = _download(task, options) if task.action == "download" else _upload(task, options)
    before = cpu_seconds(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(["curl", *work], stdout=subprocess.PIPE, text=True) as process:
        peak = _watch(process)
        printed = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise RuntimeError(f"curl ended with {process.returncode}")
    cpu = cpu_seconds(resource.RUSAGE_CHILDREN) - before
    wall = max(map(float, printed.split()))  # of transfers that began together
    if task.action == "download":
        return Measurement(wall, cpu, 0, peak, 0, sum(one.stat().st_size for one in Path(task.target).iterdir()))
    return Measurement(wall, cpu, 0, peak, stored_in(_answer(task).read_bytes()), Path(task.bodies[0]).stat().st_size)


def _download(task: Task, options: list[str]) -> list[str]:
    """One request a path, all at once."""
    words = [*options, "--header", ACCEPT]
    words += ["--parallel", "--parallel-immediate", "--parallel-max", str(len(task.bodies))] if task.bodies[1:] else []
    for number, path in enumerate(task.bodies):
        words += ["--output", str(Path(task.target, str(number))), f"{task.url}{path}"]
    return words


def _upload(task: Task, options: list[str]) -> list[str]:
    headers = ["--header", f"Content-Type: {MULTIPART}", "--header", "Accept: application/dicom+json"]
    # --upload-file streams; --data-binary would hold the whole file in memory. With Expect, servers that do not
    # answer it cost a second.
    sending = ["--header", "Expect:", "--request", "POST", "--upload-file", task.bodies[0]]
    return [*options, *headers, *sending, "--output", str(_answer(task)), f"{task.url}/studies"]


def _answer(task: Task) -> Path:
    return Path(task.target, "answer")


def _watch(process: subprocess.Popen[str]) -> int:
    """Follow the peak of its resident bytes. Polled: what wait4 tells includes the parent's size before exec."""
    peak = 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        peak = max(peak, memory(process.pid)[1])
        time.sleep(0.005)
    return peak
