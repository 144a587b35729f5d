"""``postdicom get-tags``: chosen attributes of files, or of instances in an archive."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postdicom_async import ScanStatus, UsageError
from postdicom_async.cli import output
from postdicom_async.cli.connection import ConnectionOptions
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.forms import OutputAs, OutputForm, Sheet, form_of, write_object
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import AsJson, Common, ErrorIfNothing
from postdicom_async.cli.paths import FilesFrom, SourcePaths, sources_of
from postdicom_async.cli.search import column_tables, plain_text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from pydicom.dataset import Dataset


@dataclass(frozen=True)
class Instances:
    """Of which instances in an archive."""

    study: Annotated[
        str | None, typer.Option("--study", metavar="UID", help="Of a study in an archive, instead of files.")
    ] = None
    series: Annotated[str | None, typer.Option("--series", metavar="UID", help="Only of this series of it.")] = None
    instance: Annotated[
        str | None, typer.Option("--instance", metavar="UID", help="Only of this instance of the series.")
    ] = None

    def uids(self) -> list[str]:
        """Return the UIDs from the study down, none for files.

        Raises:
            UsageError: one is given without that above it.
        """
        if self.instance and not self.series:
            raise UsageError("--instance: give --series too")
        if self.series and not self.study:
            raise UsageError("--series: give --study too")
        return [uid for uid in (self.study, self.series, self.instance) if uid]


def get_tags(
    tags: Annotated[
        list[str],
        typer.Option(
            "--tag",
            "-t",
            metavar="KEYWORD",
            help="A keyword or a tag (GGGGEEEE); with dots into sequences: RequestAttributesSequence.ScheduledProcedure"
            "StepID. Once for each.",
        ),
    ],
    connection: ConnectionOptions,
    common: Common,
    instances: Instances,
    paths: SourcePaths = None,
    files_from: FilesFrom = None,
    output_as: OutputAs = None,
    as_json: AsJson = False,
    error_if_nothing: ErrorIfNothing = False,
) -> int:
    """Show chosen tags of files, or of instances in an archive.

    A line for each instance: its path, or with --study its SOP Instance UID, then the values as DICOM writes them.
    Files that are not DICOM are left out; the exit code is 1 when some could not be read.
    """
    form, uids = form_of(output_as, as_json=as_json), instances.uids()
    keys = {name: [_key_of(part) for part in name.split(".")] for name in dict.fromkeys(tags)}
    if uids and (paths or files_from):
        raise UsageError("give PATH... or --study, not both")
    rows = _Rows(form, "SOPInstanceUID" if uids else "path", list(keys), quiet=common.quiet)
    if uids:
        archive = connection.client()
        run_async(lambda: rows.take(_from_archive(archive, uids)))
    else:
        found = _Files(sources_of(paths, files_from), [path[0] for path in keys.values()])
        run_async(lambda: rows.take(found.read()))
        rows.unreadable = found.unreadable
    return rows.end(error_if_nothing=error_if_nothing)


def _key_of(name: str) -> int:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(name)
    if tag is not None:
        return tag
    try:
        return int(name, 16) if len(name) == 8 else _refuse(name)
    except ValueError:
        pass
    return _refuse(name)


def _refuse(name: str) -> int:
    raise UsageError(f"--tag: {name[:64]!r} is neither a DICOM keyword nor a tag (GGGGEEEE)")


async def _from_archive(archive: Any, uids: Sequence[str]) -> AsyncGenerator[tuple[str, Dataset], None]:
    level = ("study", "series", "instance")[len(uids) - 1]
    async with archive:
        async for one in getattr(archive, f"retrieve_{level}_metadata")(*uids):
            yield str(one.get("SOPInstanceUID", "")), one


class _Files:
    """The instances among files, and how many cannot be read."""

    def __init__(self, sources: Sequence[Path], keys: Sequence[int]) -> None:
        self._sources = sources
        self._keys = list(keys)
        self.unreadable = 0

    async def read(self) -> AsyncGenerator[tuple[str, Dataset], None]:
        """Yield each with its path."""
        from postdicom_async import read_files

        scan = await read_files(self._sources)
        paths = [one.path for one in scan.instances]
        for one in scan.skipped:
            if one.status is ScanStatus.DUPLICATE:
                paths.append(one.path)
            elif one.status is ScanStatus.UNREADABLE:
                self._note(one.path, one.reason)
        for path in paths:
            dataset = await asyncio.to_thread(_read, path, self._keys)
            if dataset is None:
                self._note(path, "cannot be read")
            else:
                yield str(path), dataset

    def _note(self, path: Path, reason: str) -> None:
        self.unreadable += 1
        output.note(f"{path}: {reason}")


def _read(path: Path, keys: list[int]) -> Dataset | None:
    """Return the wanted elements of a file, those of its file meta information among them; None if it fails."""
    from pydicom import dcmread
    from pydicom.dataset import Dataset

    try:
        found = dcmread(path, stop_before_pixels=True, force=True, specific_tags=[*keys, 0x00080005])
        merged = Dataset()
        for source in (found.file_meta, found):
            merged.update({element.tag: element for element in source})
    except Exception:  # noqa: BLE001 - a parser on foreign bytes may raise anything, with their text in it
        return None
    return merged


class _Rows:
    """Writes a line for each instance as it comes, or a table or document at the end."""

    def __init__(self, form: OutputForm, named_by: str, tags: list[str], *, quiet: bool) -> None:
        self._form = form
        self._named_by = named_by
        self._tags = tags
        self._quiet = quiet
        self._items: list[dict[str, str | None]] = []
        self._sheet = Sheet((named_by, *tags)) if form is OutputForm.CSV else None
        self._count = 0
        self.unreadable = 0

    async def take(self, found: AsyncGenerator[tuple[str, Dataset], None]) -> None:
        """Write what comes, until it ends or the output is closed."""
        take = self._writer()
        async with aclosing(found):
            async for name, dataset in found:
                self._count += 1
                values = {tag: plain_text(dataset, tag) or None for tag in self._tags}
                if not take({self._named_by: name, **values}):
                    break

    def _writer(self) -> Callable[[dict[str, str | None]], bool]:
        if self._form is OutputForm.JSONL:
            return write_object
        sheet = self._sheet
        if sheet is not None:
            return lambda item: sheet.add(item.values())
        return self._keep

    def _keep(self, item: dict[str, str | None]) -> bool:
        self._items.append(item)
        return True

    def end(self, *, error_if_nothing: bool) -> int:
        """Write the rest; return the exit code."""
        failed = f"{self.unreadable} files cannot be read" if self.unreadable else None
        if failed is None and not self._count and error_if_nothing:
            failed = "no instance was found"
        if self._form is OutputForm.JSON:
            output.write_document({"items": self._items}, error=failed)
        elif self._items:
            columns = {name: [one[name] or "" for one in self._items] for name in (self._named_by, *self._tags)}
            output.write(output.render(column_tables(columns)))
        if failed is not None:
            output.error(failed)
            return Exit.ITEMS_FAILED if self.unreadable else Exit.NOTHING
        if not self._quiet and self._form is OutputForm.TABLE:
            output.note(f"{self._count} instance{'' if self._count == 1 else 's'}")
        return Exit.OK
