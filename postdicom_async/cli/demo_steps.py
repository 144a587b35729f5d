"""What the demonstration does besides calling the library: samples, names to find, comparing, a row for each step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from postdicom_async.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from postdicom_async import DicomWeb, Outcome

__all__ = ["Step", "compare", "find_names", "make_samples", "step_of", "timed"]

_NAMES = {"Święty*": "SAMPLE-002", "*山田*": "SAMPLE-003", "قباني*": "SAMPLE-004", "müller*": "SAMPLE-005"}
"""Filter to the ID of a sample patient it finds."""

_PIECE = 1 << 20


@dataclass(frozen=True)
class Step:
    """A row of the table at the end."""

    name: str
    instances: int | None
    size: int | None
    seconds: float
    result: str

    def row(self) -> tuple[str, ...]:
        """Return the row as text."""
        size = "" if self.size is None else output.size_text(self.size)
        rate = "" if self.size is None else output.rate_text(self.size, self.seconds)
        instances = "" if self.instances is None else str(self.instances)
        return self.name, instances, size, f"{self.seconds:.2f} s", rate, self.result


def step_of(name: str, files: Iterable[Path], seconds: float, result: str = "") -> Step:
    """Return the row of a step that worked on these files."""
    sizes = [file.stat().st_size for file in files]
    return Step(name, len(sizes), sum(sizes), seconds, result)


class timed:  # noqa: N801 - reads as a statement
    """Wall time of a block, in ``seconds``."""

    seconds: float = 0.0

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.monotonic() - self._started


def make_samples(folder: Path) -> dict[str, Path]:
    """Write sample studies, add pydicom's own test files; return files by SOP Instance UID."""
    from pydicom import dcmread

    from postdicom_async.emulator.samples import pydicom_test_files, write_samples

    files = [*write_samples(folder), *pydicom_test_files()]
    return {str(dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID): file for file in files}


async def find_names(archive: DicomWeb) -> dict[str, bool]:
    """Search for patients whose names are not ASCII; return for each filter whether it found the right one."""
    found = {}
    for name, patient_id in _NAMES.items():
        studies = await archive.search_for_studies({"PatientName": name}).all()
        found[name] = patient_id in {str(study.get("PatientID")) for study in studies}
    return found


def compare(sources: dict[str, Path], saved: Iterable[Outcome]) -> list[str]:
    """Compare what came back with what went out; return a line for each instance that is not the same."""
    downloaded = {one.uids.sop_instance_uid: one.path for one in saved if one.uids}
    differing = [f"{uid}: did not come back" for uid in sources.keys() - downloaded.keys()]
    differing += [f"{uid}: was never sent" for uid in downloaded.keys() - sources.keys()]
    both = sources.keys() & downloaded.keys()
    return differing + [f"{uid}: differs" for uid in both if not _same(sources[uid], downloaded[uid])]


def _same(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while piece := first.read(_PIECE):
            if piece != second.read(_PIECE):
                return False
        return not second.read(1)
