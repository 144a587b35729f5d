"""dicomweb-client as its user would take it: one data set at a time down, eight threads up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session, create_session_from_user_pass
from pydicom import dcmread

from benchmarks.measure import Measurement, Meter, Task, files_in

THREADS = 8


def run(task: Task) -> Measurement:
    session = create_session_from_user_pass(task.user, task.password) if task.user else create_session()
    session.verify = task.authority or True
    client = DICOMwebClient(task.url, session=session)
    return _download(client, task) if task.action == "download" else _upload(client, task)


def _download(client: DICOMwebClient, task: Task) -> Measurement:
    with Meter() as meter:
        for dataset in client.iter_study(task.studies[0]):
            path = Path(task.target, f"{dataset.SOPInstanceUID}.dcm")
            dataset.save_as(path, enforce_file_format=True)
    return meter.result(*files_in(task.target))


def _upload(client: DICOMwebClient, task: Task) -> Measurement:
    def store(path: Path) -> int:
        answer = client.store_instances([dcmread(path)])
        return len(answer.get("ReferencedSOPSequence", ()))

    with Meter() as meter, ThreadPoolExecutor(THREADS) as threads:
        paths = [path for source in task.sources for path in sorted(Path(source).rglob("*.dcm"))]
        stored = sum(threads.map(store, paths))
    return meter.result(stored, sum(path.stat().st_size for path in paths))
