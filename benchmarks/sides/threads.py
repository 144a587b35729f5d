"""``requests`` in six threads, each with a session of its own, one instance a request: what a careful user writes."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from benchmarks.measure import Measurement, Meter, Task
from benchmarks.names import BOUNDARY, MULTIPART, PART_HEAD

THREADS = 6
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()


def run(task: Task) -> Measurement:
    own = threading.local()
    url = f"{task.url}/" if task.dialect == "postdicom" else f"{task.url}/studies"

    def store(path: Path) -> int:
        if not hasattr(own, "session"):
            own.session = requests.Session()
            own.session.auth = (task.user, task.password)
            own.session.headers.update({"Content-Type": MULTIPART, "Accept": "application/dicom+json"})
        answer = own.session.post(url, data=PART_HEAD + path.read_bytes() + TAIL)
        answer.raise_for_status()
        return len(json.loads(answer.content)["00081199"]["Value"])

    with Meter() as meter, ThreadPoolExecutor(THREADS) as pool:
        paths = [path for source in task.sources for path in sorted(Path(source).rglob("*.dcm"))]
        stored = sum(pool.map(store, paths))
    return meter.result(stored, sum(path.stat().st_size for path in paths))
