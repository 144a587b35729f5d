"""``postdicom search``: studies, series and instances of an archive."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postdicom_async import UsageError
from postdicom_async.cli import output
from postdicom_async.cli.connection import Connection
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common
from postdicom_async.cli.search_table import ASKED_FOR, SINGULAR, Level, search_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from pydicom.dataset import Dataset

    from postdicom_async import DicomWeb, Results

__all__ = ["parse_filters", "search", "write_json"]


def search(
    level: Annotated[Level, typer.Argument(help="What to search for.")],
    connection: Connection,
    common: Common,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            "-f",
            metavar="KEY=VALUE",
            help="A DICOM keyword or tag and what it must match: PatientName='DOE*', StudyDate=20240101-20241231. "
            "Give it once for each attribute.",
        ),
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--field", metavar="KEYWORD", help="An attribute wanted besides the standard ones; 'all' for all."
        ),
    ] = None,
    study: Annotated[
        str | None, typer.Option("--study", metavar="UID", help="Series and instances: only of this study.")
    ] = None,
    series: Annotated[
        str | None, typer.Option("--series", metavar="UID", help="Instances: only of this series.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="The most results wanted.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the archive's own DICOM JSON, one array, as it comes.")
    ] = False,
) -> int:
    """Find studies, series or instances.

    Writes a table, or with --json one array of DICOM JSON objects (PS3.18 annex F). Finding nothing is no error.
    """
    matching = parse_filters(filters or ())
    _require_parents(level, study, series)
    archive = connection.client()
    parents = {
        name: uid for name, uid in (("study_instance_uid", study), ("series_instance_uid", series)) if uid is not None
    }

    def results(extra: Sequence[str] = ()) -> Results[Dataset]:
        """Describe the search; nothing is sent before it is read."""
        wanted = [*(fields or ()), *extra]
        find: Callable[..., Results[Dataset]] = getattr(archive, f"search_for_{level}")
        return find(matching, **parents, fields="all" if "all" in wanted else wanted, limit=limit)

    if as_json:
        return run_async(lambda: write_json(archive, results(), quiet=common.quiet))
    datasets = run_async(lambda: _all(archive, results(ASKED_FOR[level]), quiet=common.quiet))
    if datasets:
        output.write(output.render(search_tables(level, datasets, fields or ())))
    if not common.quiet:
        output.note(_count_text(level, len(datasets)))
    return Exit.OK


def parse_filters(filters: Iterable[str]) -> dict[str, str]:
    """Return ``KEY=VALUE`` arguments as filters; what a key may be, the library decides.

    Raises:
        UsageError: one is not of that form, or a key comes twice. The value is not repeated: it may be a name.
    """
    parsed: dict[str, str] = {}
    for argument in filters:
        key, equals, value = argument.partition("=")
        if not key or not equals:
            raise UsageError("--filter: give KEY=VALUE, for example PatientName='DOE*'")
        if key in parsed:
            raise UsageError(f"--filter: {key} is given twice")
        parsed[key] = value
    return parsed


def _require_parents(level: Level, study: str | None, series: str | None) -> None:
    if study is not None and level is Level.STUDIES:
        raise UsageError("--study: for series and instances; use --filter StudyInstanceUID=UID for studies")
    if series is not None and level is not Level.INSTANCES:
        raise UsageError("--series: for instances only")


def _count_text(level: Level, count: int) -> str:
    if not count:
        return "nothing matches"
    return f"1 {SINGULAR[level]}" if count == 1 else f"{count} {level}"


async def _all(archive: DicomWeb, results: Results[Dataset], *, quiet: bool) -> list[Dataset]:
    async with archive:
        datasets = await results.all()
    _pass_on(results.warnings, quiet=quiet)
    return datasets


async def write_json(archive: AbstractAsyncContextManager[Any], results: Results[Any], *, quiet: bool) -> int:
    """Write the array object by object, so that it may be long; an error on the way still closes it."""
    joint = "["
    try:
        async with archive:
            async for item in results.raw:
                if not output.write(joint + json.dumps(item)):
                    return Exit.OK
                joint = ","
    finally:
        output.write("[]" if joint == "[" else "]")
    _pass_on(results.warnings, quiet=quiet)
    return Exit.OK


def _pass_on(warnings: Iterable[str], *, quiet: bool) -> None:
    for warning in () if quiet else warnings:
        output.note(f"warning: {warning}")
