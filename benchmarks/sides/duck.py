"""What a user of dicomweb-client's interface does, with whichever client has it: data sets down, eight threads up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydicom import dcmread

from benchmarks.measure import Measurement, Meter, Task, files_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydicom.dataset import Dataset

THREADS = 8


class Duck(Protocol):
    """The part of that interface which is used here."""

    def iter_study(self, study_instance_uid: str) -> Iterator[Dataset]:
        """Give the instances of a study."""
        ...

    def store_instances(self, datasets: Sequence[Dataset]) -> Dataset:
        """Store instances and give the answer."""
        ...


def move(client: Duck, task: Task) -> Measurement:
    """Do a task: one data set at a time down, one in a request up."""
    return _download(client, task) if task.action == "download" else _upload(client, task)


def _download(client: Duck, task: Task) -> Measurement:
    with Meter() as meter:
        for dataset in client.iter_study(task.studies[0]):
            path = Path(task.target, f"{dataset.SOPInstanceUID}.dcm")
            dataset.save_as(path, enforce_file_format=True)
    return meter.result(*files_in(task.target))


def _upload(client: Duck, task: Task) -> Measurement:
    def store(path: Path) -> int:
        answer = client.store_instances([dcmread(path)])
        return len(answer.get("ReferencedSOPSequence", ()))

    with Meter() as meter, ThreadPoolExecutor(THREADS) as threads:
        paths = [path for source in task.sources for path in sorted(Path(source).rglob("*.dcm"))]
        stored = sum(threads.map(store, paths))
    return meter.result(stored, sum(path.stat().st_size for path in paths))
