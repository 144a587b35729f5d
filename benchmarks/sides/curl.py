"""curl: the answer to a file, a premade body from a file. One request, nothing parsed."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from pathlib import Path

from benchmarks.measure import Measurement, Task, cpu_seconds, memory
from benchmarks.sides.raw import stored_in


def run(task: Task) -> Measurement:
    answer = Path(task.target, "body")
    command = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--output", str(answer)]
    command += ["--write-out", "%{time_total} %{size_download} %{size_upload}"]
    command += ["--user", f"{task.user}:{task.password}"] if task.user else []
    command += _download(task) if task.action == "download" else _upload(task)
    before = cpu_seconds(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = _watch(process)
        printed = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise RuntimeError(f"curl ended with {process.returncode}")
    cpu = cpu_seconds(resource.RUSAGE_CHILDREN) - before
    wall, received, sent = (float(figure) for figure in printed.split())
    if task.action == "download":
        return Measurement(wall, cpu, 0, peak, 0, int(received))
    return Measurement(wall, cpu, 0, peak, stored_in(answer.read_bytes()), int(sent))


def _download(task: Task) -> list[str]:
    return [
        "--header",
        'Accept: multipart/related; type="application/dicom"',
        f"{task.url}/studies/{task.studies[0]}",
    ]


def _upload(task: Task) -> list[str]:
    content_type = f'Content-Type: multipart/related; type="application/dicom"; boundary={task.boundary}'
    headers = ["--header", content_type, "--header", "Accept: application/dicom+json", "--header", "Expect:"]
    # --upload-file streams; --data-binary would hold the whole file in memory. With Expect, servers that do not
    # answer it cost a second.
    return [*headers, "--request", "POST", "--upload-file", task.body, f"{task.url}/studies"]


def _watch(process: subprocess.Popen[str]) -> int:
    """Follow the peak of its resident bytes. Polled: what wait4 tells includes the parent's size before exec."""
    peak = 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        peak = max(peak, memory(process.pid)[1])
        time.sleep(0.005)
    return peak
