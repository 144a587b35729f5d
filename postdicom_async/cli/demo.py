"""``postdicom demo``: a whole round trip on this machine, without a network or an account."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common
from postdicom_async.cli.paths import given_path, require_empty
from postdicom_async.cli.progress import Progress
from postdicom_async.cli.search import SearchLevel, search_tables
from postdicom_async.cli.serve import embedded_archive

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    from pydicom.dataset import Dataset

    from postdicom_async import DicomWeb, Outcome
    from postdicom_async.emulator import EmbeddedArchive


_SHOWN = 8


def demo(
    common: Common,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="DIR",
            parser=given_path,
            help="Leave samples, archive and downloads in this empty folder.",
        ),
    ] = None,
) -> int:
    """See it work, with no network and no account.

    Uploads, searches, downloads and compares every byte.

    Starts an archive on the loopback address in a temporary folder, with sample studies made for it (CT-like,
    multi-frame, names in several scripts) and the files that pydicom brings along. Ends with 0 if everything came back
    byte for byte, else with 1.
    """
    archive_class = embedded_archive()
    if keep is not None:
        require_empty(keep, "--keep")
        keep.mkdir(parents=True, exist_ok=True)
    place: AbstractContextManager[Path | str] = (
        tempfile.TemporaryDirectory(prefix="postdicom-demo-") if keep is None else nullcontext(keep)
    )
    with place as folder:
        tour = _Tour(Path(folder), archive_class, durable=keep is not None, quiet=common.quiet)
        identical = run_async(tour.run)
    return Exit.OK if identical else Exit.ITEMS_FAILED


class _Tour:
    """The steps of the demonstration, one after the other."""

    def __init__(self, folder: Path, archive_class: type[EmbeddedArchive], *, durable: bool, quiet: bool) -> None:
        self._folder = folder
        self._archive_class = archive_class
        self._durable = durable  # files that are about to be removed need not reach the disk
        self._quiet = quiet
        self._steps: list[DemoStep] = []
        self._failed = False

    async def run(self) -> bool:
        """Take all steps; return whether everything came back as it went."""
        from postdicom_async import DicomWeb, Settings

        self._note("making sample studies")
        with timed() as clock:
            sources = await asyncio.to_thread(make_samples, self._folder / "samples")
        self._steps.append(step_of("samples", sources.values(), clock.seconds))
        password = secrets.token_urlsafe(12)
        settings = Settings(fsync=self._durable)
        async with (
            self._archive_class(self._folder / "archive", username="demo", password=password) as server,
            DicomWeb(server.url, auth=("demo", password), settings=settings) as archive,
        ):
            self._note(f"archive on {server.url}, client on {archive.transport_name}")
            await self._upload(archive, sources)
            studies = await self._search(archive)
            saved = await self._download(archive, studies)
        await self._compare(sources, saved)
        self._show(studies)
        return not self._failed

    async def _upload(self, archive: DicomWeb, sources: dict[str, Path]) -> None:
        async with Progress("Upload", quiet=self._quiet) as progress:
            report = await archive.upload(list(sources.values()), progress=progress)
        for failure in report.failures:
            output.note(f"{failure.where}: {failure.status}: {failure.reason}")
        counts = ", ".join(f"{count} {status}" for status, count in report.counts.items())
        self._steps.append(DemoStep("upload", len(report.outcomes), report.bytes_sent, report.seconds, counts))
        self._failed |= not report.ok

    async def _search(self, archive: DicomWeb) -> list[Dataset]:
        with timed() as clock:
            studies = await archive.search_for_studies(fields=["StudyDescription"]).all()
        self._steps.append(DemoStep("search", None, None, clock.seconds, f"{len(studies)} studies"))
        with timed() as clock:
            found = await find_names(archive)
        self._failed |= not all(found.values())
        names = " ".join(name if there else f"{name} NOT FOUND" for name, there in found.items())
        self._steps.append(DemoStep("search by name", None, None, clock.seconds, names))
        return studies

    async def _download(self, archive: DicomWeb, studies: list[Dataset]) -> list[Outcome]:
        saved: list[Outcome] = []
        with timed() as clock:
            for number, study in enumerate(studies, 1):
                title = f"Download study {number} of {len(studies)}"
                async with Progress(title, quiet=self._quiet) as progress:
                    uid = str(study.StudyInstanceUID)
                    report = await archive.download_study(uid, to=self._folder / "downloads", progress=progress)
                saved += report.saved
        size = sum(one.size for one in saved)
        self._steps.append(DemoStep("download", len(saved), size, clock.seconds, f"{len(studies)} studies"))
        return saved

    async def _compare(self, sources: dict[str, Path], saved: list[Outcome]) -> None:
        with timed() as clock:
            differing = await asyncio.to_thread(compare, sources, saved)
        for words in differing:
            output.error(words)
        words = f"{len(differing)} differ" if differing else "every byte identical"
        self._steps.append(step_of("compare", sources.values(), clock.seconds, words))
        self._failed |= bool(differing)

    def _show(self, studies: list[Dataset]) -> None:
        rows = [step.row() for step in self._steps]
        columns = ("Step", "Instances", "Bytes", "Time", "Rate", "Result")
        steps = output.table(columns, rows, numbers=frozenset(columns[1:5]))
        things = [] if self._quiet else search_tables(SearchLevel.STUDIES, _best_of(studies), uids=False)
        output.write(output.render([*things, steps]))
        instances = self._steps[0].instances
        ending = "FAILED, see above" if self._failed else "came back byte for byte"
        output.write(f"{instances} instances of {len(studies)} studies {ending}.")

    def _note(self, text: str) -> None:
        if not self._quiet:
            output.note(text)


def _best_of(studies: list[Dataset]) -> list[Dataset]:
    """Return a few studies to show, those of the samples first."""
    return sorted(studies, key=lambda study: not str(study.get("PatientID", "")).startswith("SAMPLE"))[:_SHOWN]


# --- the steps --------------------------------------------------------------------------------------------------------


_NAMES = {"Święty*": "SAMPLE-002", "*山田*": "SAMPLE-003", "قباني*": "SAMPLE-004", "müller*": "SAMPLE-005"}
"""Filter to the ID of a sample patient it finds."""

_PIECE = 1 << 20


@dataclass(frozen=True)
class DemoStep:
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


def step_of(name: str, files: Iterable[Path], seconds: float, result: str = "") -> DemoStep:
    """Return the row of a step that worked on these files."""
    sizes = [file.stat().st_size for file in files]
    return DemoStep(name, len(sizes), sum(sizes), seconds, result)


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
