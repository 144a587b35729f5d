"""``postdicom search``: studies, series and instances of an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from postdicom_async import PostdicomError, UsageError
from postdicom_async.cli import output
from postdicom_async.cli.connection import Connection
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common, ErrorIfNothing, level_of
from postdicom_async.cli.search_table import ASKED_FOR, SINGULAR, Level, search_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from pydicom.dataset import Dataset

    from postdicom_async import DicomWeb, Results

__all__ = ["end_of_search", "parse_filters", "search", "write_items"]


def search(
    level: Annotated[
        Level, typer.Argument(parser=level_of(Level), metavar="studies|series|instances", help="What to search for.")
    ],
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
        bool, typer.Option("--json", help="Write one JSON document; its items are the archive's own DICOM JSON.")
    ] = False,
    error_if_nothing: ErrorIfNothing = False,
) -> int:
    """Find studies, series or instances.

    Writes a table, or with --json one object whose items are DICOM JSON (PS3.18 annex F), as they come. Finding nothing
    is no error, unless --error-if-nothing says so.
    """
    matching = parse_filters(filters or ())
    _hint_at_level(level, matching, quiet=common.quiet)
    parents = _parents(level, study, series)
    archive = connection.client()

    def results(extra: Sequence[str] = ()) -> Results[Dataset]:
        """Describe the search; nothing is sent before it is read."""
        wanted = [*(fields or ()), *extra]
        find: Callable[..., Results[Dataset]] = getattr(archive, f"search_for_{level}")
        return find(matching, **parents, fields="all" if "all" in wanted else wanted, limit=limit)

    if as_json:
        missing = NOTHING if error_if_nothing else None
        count = run_async(lambda: write_items(archive, results(), quiet=common.quiet, missing=missing))
    else:
        datasets = run_async(lambda: _all(archive, results(ASKED_FOR[level]), quiet=common.quiet))
        count = len(datasets)
        _tell(level, datasets, fields or (), quiet=common.quiet)
    return end_of_search(count, error_if_nothing=error_if_nothing)


def _tell(level: Level, datasets: list[Dataset], fields: Sequence[str], *, quiet: bool) -> None:
    if datasets:
        output.write(output.render(search_tables(level, datasets, fields)))
    if not quiet:
        output.note(_count_text(level, len(datasets)))


NOTHING = "nothing matches"
_NOT_OF_A_STUDY = {
    "modality": "ModalitiesInStudy",
    "00080060": "ModalitiesInStudy",
    "sopclassuid": "SOPClassesInStudy",
    "00080016": "SOPClassesInStudy",
}


def _hint_at_level(level: Level, filters: Mapping[str, str], *, quiet: bool) -> None:
    """Tell of filters that look right and match no study: they are attributes of what lies in it (PS3.18 10.6.1.2)."""
    if quiet or level is not Level.STUDIES:
        return
    for key in filters:
        if (better := _NOT_OF_A_STUDY.get(key.lower())) is not None:
            output.note(f"{key} is no attribute of a study: to find studies, filter by {better}")


def end_of_search(count: int, *, error_if_nothing: bool) -> int:
    """Return the exit code."""
    if count or not error_if_nothing:
        return Exit.OK
    output.error(NOTHING)
    return Exit.NOTHING


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


def _parents(level: Level, study: str | None, series: str | None) -> dict[str, str]:
    """Return the UIDs that a search is within, by the library's arguments."""
    if study is not None and level is Level.STUDIES:
        raise UsageError("--study: for series and instances; use --filter StudyInstanceUID=UID for studies")
    if series is not None and level is not Level.INSTANCES:
        raise UsageError("--series: for instances only")
    given = {"study_instance_uid": study, "series_instance_uid": series}
    return {name: uid for name, uid in given.items() if uid is not None}


def _count_text(level: Level, count: int) -> str:
    if not count:
        return NOTHING
    return f"1 {SINGULAR[level]}" if count == 1 else f"{count} {level}"


async def _all(archive: DicomWeb, results: Results[Dataset], *, quiet: bool) -> list[Dataset]:
    async with archive:
        datasets = await results.all()
    _pass_on(results.warnings, quiet=quiet)
    return datasets


async def write_items(
    archive: AbstractAsyncContextManager[Any], results: Results[Any], *, quiet: bool, missing: str | None = None
) -> int:
    """Write one object, item by item, so that it may be long; return how many items there were.

    ``missing`` is the error that it is if there is none.
    """
    document = output.Document()
    count = 0
    ended: object = "interrupted"
    try:
        async with archive:
            async for item in results.raw:
                count += 1
                if not document.add(item):
                    return count
        ended = None if count else missing
    except PostdicomError as error:
        ended = error
        raise
    finally:
        document.end(error=ended, warnings=list(results.warnings))
    _pass_on(results.warnings, quiet=quiet)
    return count


def _pass_on(warnings: Iterable[str], *, quiet: bool) -> None:
    for warning in () if quiet else warnings:
        output.note(f"warning: {warning}")
