"""``postdicom scan``: what lies in files and folders, without any archive."""

from __future__ import annotations

import sys
import time
from dataclasses import fields, is_dataclass
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from postdicom_async import ScanStatus
from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.forms import OutputAs, OutputForm, form_of, write_list
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common
from postdicom_async.cli.paths import FilesFrom, SourcePaths, sources_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.status import Status
    from rich.tree import Tree

    from postdicom_async import Scan, ScannedPatient, ScannedSeries, ScannedStudy, ScanProgress


_LISTED = 20


def scan(
    common: Common,
    paths: SourcePaths = None,
    files_from: FilesFrom = None,
    output_as: OutputAs = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON document: a summary, the tree, and every file skipped.")
    ] = False,
) -> int:
    """List the patients, studies and series in files and folders.

    Nothing is sent and no archive is needed. With --output jsonl or csv it is a line for each instance.

    The exit code is 0 when every file could be identified, 1 when some could not be read; files that are not DICOM,
    directories (DICOMDIR) and duplicates do not count against it.
    """
    form, sources = form_of(output_as, as_json=as_json), sources_of(paths, files_from)
    found = run_async(lambda: _scan(sources, quiet=common.quiet))
    failed = None if found.ok else f"{found.counts[ScanStatus.UNREADABLE]} of {found.files} files cannot be read"
    if form is OutputForm.JSON:
        output.write_document(_document(found), error=failed)
    elif form is not OutputForm.TABLE:
        write_list(form, list(_instances(found)), columns=_COLUMNS)
    else:
        _tell(found, quiet=common.quiet)
    if failed is not None:
        output.error(failed)
        return Exit.ITEMS_FAILED
    return Exit.OK


async def _scan(paths: list[Path], *, quiet: bool) -> Scan:
    from postdicom_async import read_files

    if quiet:
        return await read_files(paths)
    with _Counter() as counter:
        return await read_files(paths, progress=counter)


class _Counter:
    """Shows how many files were read: on a terminal in one line that goes again, elsewhere in a line now and then."""

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty() and environ.get("TERM") != "dumb"
        self._interval = 0.1 if self._on_terminal else 5.0
        self._shown = time.monotonic()
        self._line: Status | None = None

    def __enter__(self) -> Self:
        if self._on_terminal:
            from rich.console import Console

            self._line = Console(stderr=True, highlight=False, markup=False, emoji=False).status("Scan")
            self._line.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._line is not None:
            self._line.stop()

    def __call__(self, event: ScanProgress) -> None:
        """Take an event of the scan."""
        now = time.monotonic()
        if now - self._shown < self._interval:
            return
        self._shown = now
        text = f"Scan: {event.files_done}{f' of {event.files_total}' if event.files_total else ''} files"
        if self._line is not None:
            self._line.update(text)
        else:
            output.note(text)


# --- for people -------------------------------------------------------------------------------------------------------


def _tell(found: Scan, *, quiet: bool) -> None:
    if found.patients:
        output.write(output.render(map(_tree, found.patients)))
    _list(found, "unreadable")
    if not quiet:
        _list(found, "duplicate")
        output.note(_summary_text(found))


def _list(found: Scan, status: str) -> None:
    skipped = [one for one in found.skipped if one.status == status]
    for one in skipped[:_LISTED]:
        output.note(f"{one.path}: {one.status}: {one.reason}")
    if len(skipped) > _LISTED:
        output.note(f"and {len(skipped) - _LISTED} more; --json lists all")


def _tree(patient: ScannedPatient) -> Tree:
    from rich.tree import Tree

    names = [patient.patient_name or "(no name)", patient.patient_id or "(no ID)"]
    tree = Tree(_line([*names, _date(patient.patient_birth_date), patient.patient_sex], style="bold"))
    for study in patient.studies:
        branch = tree.add(_line(_study_parts(study)))
        for series in study.series:
            branch.add(_line(_series_parts(series)))
    return tree


def _study_parts(study: ScannedStudy) -> list[str | None]:
    conflicts = study.patient_conflicts
    return [
        _date(study.study_date) or "(no date)",
        "/".join(study.modalities_in_study),
        study.study_description,
        study.accession_number and f"accession {study.accession_number}",
        f"{_counted(len(study.instances), 'instance')}, {output.size_text(study.size)}",
        f"{_counted(conflicts, 'file')} of another patient" if conflicts else None,
        study.study_instance_uid,
    ]


def _series_parts(series: ScannedSeries) -> list[str | None]:
    number = None if series.series_number is None else f"series {series.series_number}"
    count = _counted(len(series.instances), "instance")
    return [number or "series", series.modality, series.series_description, count, series.series_instance_uid]


def _line(parts: Iterable[str | None], *, style: str = "") -> Any:
    from rich.text import Text

    return Text("  ".join(output.clean(part) for part in parts if part), style=style, overflow="fold")


def _date(date: str | None) -> str | None:
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if date and len(date) == 8 and date.isdecimal() else date


_PLURALS = {"file": "files", "patient": "patients", "study": "studies", "instance": "instances"}


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun if count == 1 else _PLURALS[noun]}"


def _summary_text(found: Scan) -> str:
    if not found.files:
        return "no file was found"
    summary = _summary(found)
    counts = [_counted(summary[plural], noun) for noun, plural in _PLURALS.items()]
    packed = sum("unpack it" in (one.reason or "") for one in found.skipped)
    hint = f"; {packed} of them packed archives: unpack them" if packed else ""
    return ", ".join([*counts, *(f"{count} {status.value}" for status, count in found.counts.items())]) + hint


# --- for programs -----------------------------------------------------------------------------------------------------


def _summary(found: Scan) -> dict[str, Any]:
    instances = found.instances
    return {
        "files": found.files,
        "patients": len(found.patients),
        "studies": len(found.studies),
        "series": sum(len(study.series) for study in found.studies),
        "instances": len(instances),
        "bytes": sum(instance.size for instance in instances),
        **{status.value: count for status, count in found.counts.items()},
    }


_COLUMNS = (
    *("path", "patient_id", "patient_name", "patient_birth_date", "study_date", "study_description", "modality"),
    *("series_number", "series_description", "instance_number", "size"),
    *("study_instance_uid", "series_instance_uid", "sop_instance_uid"),
)


def _instances(found: Scan) -> Iterator[dict[str, Any]]:
    """Yield every instance with what its series, study and patient are."""
    for patient in found.patients:
        for study in patient.studies:
            for series in study.series:
                for instance in series.instances:
                    owners = (instance, series, study, patient)
                    yield {
                        name: next(_plain(getattr(one, name)) for one in owners if hasattr(one, name))
                        for name in _COLUMNS
                    }


def _document(found: Scan) -> dict[str, Any]:
    return {
        "summary": _summary(found),
        "patients": _plain(found.patients),
        "skipped": _plain(found.skipped),
    }


def _plain(value: Any) -> Any:
    """Return the tree as JSON has it; the names are those of the library's attributes."""
    if hasattr(value, "_asdict"):
        return value._asdict()
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
