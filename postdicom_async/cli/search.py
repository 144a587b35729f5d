"""``postdicom search``: studies, series and instances of an archive."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from postdicom_async import PostdicomError, ProtocolError, UsageError
from postdicom_async.cli import output
from postdicom_async.cli.connection import ConnectionOptions
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.forms import OutputAs, OutputForm, Sheet, form_of, write_object
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common, ErrorIfNothing, level_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from pydicom.dataset import Dataset
    from rich.table import Table

    from postdicom_async import DicomWeb, Results


FilterArguments: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        "-f",
        metavar="KEY=VALUE",
        help="A DICOM keyword or tag and what it must match: PatientName='DOE*', StudyDate=20240101-. "
        "Give it once for each attribute.",
    ),
]


@dataclass(frozen=True)
class Wanted:
    """What is searched for, and what of it is wanted."""

    filters: FilterArguments = None
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--field", metavar="KEYWORD", help="An attribute wanted besides the standard ones; 'all' for all."
        ),
    ] = None
    study: Annotated[
        str | None, typer.Option("--study", metavar="UID", help="Series and instances: only of this study.")
    ] = None
    series: Annotated[str | None, typer.Option("--series", metavar="UID", help="Instances: only of this series.")] = (
        None
    )
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="The most results wanted.")] = None


def search(
    level: Annotated[
        SearchLevel,
        typer.Argument(parser=level_of(SearchLevel), metavar="studies|series|instances", help="What to search for."),
    ],
    wanted: Wanted,
    connection: ConnectionOptions,
    common: Common,
    count: Annotated[bool, typer.Option("--count", help="Write only how many there are.")] = False,
    output_as: OutputAs = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON document; its items are the archive's own DICOM JSON.")
    ] = False,
    error_if_nothing: ErrorIfNothing = False,
) -> int:
    """Find studies, series or instances.

    Writes a table; with --json one object whose items are DICOM JSON (PS3.18 annex F), as they come, with --output
    jsonl these items a line each; with --output csv a column for each keyword, values as DICOM writes them. Finding
    nothing is no error, unless --error-if-nothing says so.
    """
    form = form_of(output_as, as_json=as_json)
    _refuse_contradictions(form, wanted.fields or (), count=count)
    matching = parse_filters(wanted.filters or ())
    _hint_at_level(level, matching, quiet=common.quiet)
    parents = _parents(level, wanted.study, wanted.series)
    archive = connection.client()

    def results(extra: Sequence[str] = ()) -> Results[Dataset]:
        """Describe the search; nothing is sent before it is read."""
        fields = [*(wanted.fields or ()), *extra]
        find: Callable[..., Results[Dataset]] = getattr(archive, f"search_for_{level}")
        return find(matching, **parents, fields="all" if "all" in fields else fields, limit=wanted.limit)

    missing = NOTHING if error_if_nothing else None
    if count:
        found = run_async(lambda: _each(archive, results().raw, lambda _: True, quiet=common.quiet))
        _write_count(found, form, missing)
    elif form is OutputForm.JSON:
        found = run_async(lambda: write_items(archive, results(), quiet=common.quiet, missing=missing))
    elif form is OutputForm.JSONL:
        found = run_async(lambda: _each(archive, results().raw, write_object, quiet=common.quiet))
    elif form is OutputForm.CSV:
        found = run_async(lambda: _write_sheet(archive, level, results(ASKED_FOR[level]), wanted.fields or (), common))
    else:
        datasets = run_async(lambda: _all(archive, results(ASKED_FOR[level]), quiet=common.quiet))
        found = len(datasets)
        _tell(level, datasets, wanted.fields or (), quiet=common.quiet)
    return end_of_search(found, error_if_nothing=error_if_nothing)


def _write_count(found: int, form: OutputForm, missing: str | None) -> None:
    if form is OutputForm.JSON:
        output.write_document({"count": found}, error=None if found else missing)
    else:
        output.write(str(found))


def _refuse_contradictions(form: OutputForm, fields: Sequence[str], *, count: bool) -> None:
    if count and form in (OutputForm.JSONL, OutputForm.CSV):
        raise UsageError(f"--count: not with --output {form}")
    if form is OutputForm.CSV and "all" in fields:
        raise UsageError("--field all: not with --output csv, whose columns must be known; name them")


async def _each(archive: DicomWeb, results: Results[Any], take: Callable[[Any], bool], *, quiet: bool) -> int:
    """Hand over every result as it comes, until ``take`` wants no more; return how many there were."""
    count = 0
    async with archive:
        async for item in results:
            count += 1
            if not take(item):
                break
    _pass_on(results.warnings, quiet=quiet)
    return count


async def _write_sheet(
    archive: DicomWeb, level: SearchLevel, results: Results[Dataset], fields: Sequence[str], common: Common
) -> int:
    columns = list(dict.fromkeys((*_COLUMNS[level], *fields)))
    sheet = Sheet(columns)
    return await _each(
        archive, results, lambda one: sheet.add(plain_text(one, name) for name in columns), quiet=common.quiet
    )


def _tell(level: SearchLevel, datasets: list[Dataset], fields: Sequence[str], *, quiet: bool) -> None:
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


def _hint_at_level(level: SearchLevel, filters: Mapping[str, str], *, quiet: bool) -> None:
    """Hint at filters that match no study because they are series or instance attributes (PS3.18 10.6.1.2)."""
    if quiet or level is not SearchLevel.STUDIES:
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
    """Return ``KEY=VALUE`` arguments as filters; the library validates the keys.

    Raises:
        UsageError: one has another form, or a key occurs twice. The message does not quote the value: it may be a name.
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


def refuse_what_was_not_asked_for(warnings: Iterable[str], more: str = "") -> None:
    """Refuse to act on results that an archive gave in spite of the filters: one that ignores them gives everything.

    Raises:
        ProtocolError: the warnings of `Results` tell of such results; ``more`` is put behind the words.
    """
    for warning in warnings:
        if "not what was asked for" in warning:
            raise ProtocolError(warning + more, operation="search")


def _parents(level: SearchLevel, study: str | None, series: str | None) -> dict[str, str]:
    """Return the UIDs that a search is within, by the library's arguments."""
    if study is not None and level is SearchLevel.STUDIES:
        raise UsageError("--study: for series and instances; use --filter StudyInstanceUID=UID for studies")
    if series is not None and level is not SearchLevel.INSTANCES:
        raise UsageError("--series: for instances only")
    given = {"study_instance_uid": study, "series_instance_uid": series}
    return {name: uid for name, uid in given.items() if uid is not None}


def _count_text(level: SearchLevel, count: int) -> str:
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

    ``missing`` is the error to report if there is none.
    """
    document = output.JsonStream()
    count = 0
    ended: object = "interrupted"
    try:
        async with archive:
            async for item in results.raw:
                count += 1
                if not document.add(item):  # the output was closed, which is not an error
                    return count
        ended = None if count else missing
    except PostdicomError as error:
        ended = error
        raise
    finally:  # after any error too: an object without its end cannot be parsed, so a program would not even learn why
        document.end(error=ended, warnings=list(results.warnings))
    _pass_on(results.warnings, quiet=quiet)
    return count


def _pass_on(warnings: Iterable[str], *, quiet: bool) -> None:
    for warning in () if quiet else warnings:
        output.note(f"warning: {warning}")


# --- as a table for people --------------------------------------------------------------------------------------------


class SearchLevel(StrEnum):
    """What is searched for."""

    STUDIES = "studies"
    SERIES = "series"
    INSTANCES = "instances"


SINGULAR = {SearchLevel.STUDIES: "study", SearchLevel.SERIES: "series", SearchLevel.INSTANCES: "instance"}

# DICOM keyword to heading. The UID comes last: it is the longest, and what a download asks for.
_COLUMNS: dict[SearchLevel, dict[str, str]] = {
    SearchLevel.STUDIES: {
        "PatientName": "Patient",
        "PatientID": "ID",
        "StudyDate": "Date",
        "ModalitiesInStudy": "Modality",
        "StudyDescription": "Description",
        "NumberOfStudyRelatedSeries": "Series",
        "NumberOfStudyRelatedInstances": "Instances",
        "StudyInstanceUID": "Study Instance UID",
    },
    SearchLevel.SERIES: {
        "Modality": "Modality",
        "SeriesNumber": "No.",
        "SeriesDescription": "Description",
        "NumberOfSeriesRelatedInstances": "Instances",
        "StudyInstanceUID": "Study Instance UID",
        "SeriesInstanceUID": "Series Instance UID",
    },
    SearchLevel.INSTANCES: {
        "InstanceNumber": "No.",
        "SOPClassUID": "SOP Class",
        "Rows": "Rows",
        "Columns": "Columns",
        "NumberOfFrames": "Frames",
        "SeriesInstanceUID": "Series Instance UID",
        "SOPInstanceUID": "SOP Instance UID",
    },
}
ASKED_FOR: dict[SearchLevel, tuple[str, ...]] = {
    SearchLevel.STUDIES: ("StudyDescription",),
    SearchLevel.SERIES: (),
    SearchLevel.INSTANCES: (),
}
"""Columns that are not among the attributes of every answer (PS3.18 section 10.6.3.3)."""

_NUMBERS = frozenset({"#", "Series", "Instances", "No.", "Rows", "Columns", "Frames", "Orders", "Folders"})


def search_tables(
    level: SearchLevel, datasets: Sequence[Dataset], fields: Iterable[str] = (), *, uids: bool = True
) -> list[Table]:
    """Return what was found: the level's columns, without those empty everywhere, and one for each field asked for.

    Where the terminal is too narrow for all of it, the UIDs have a table of their own, so that they can be copied.
    """
    columns = _columns(level, datasets, fields)
    if not uids:
        return [_table({name: cells for name, cells in columns.items() if not _is_uid(name)})]
    return column_tables(columns)


def column_tables(columns: dict[str, list[str]]) -> list[Table]:
    """Return columns by their headings as a table, or as two where UIDs and UUIDs make it too wide for the terminal."""
    if _width_of(columns) <= output.width():
        return [_table(columns)]
    rows = len(next(iter(columns.values()), []))
    numbers = {"#": [str(number) for number in range(1, rows + 1)]}
    return [
        _table(numbers | {name: cells for name, cells in columns.items() if _is_uid(name) is uid_table})
        for uid_table in (False, True)
    ]


def _columns(level: SearchLevel, datasets: Sequence[Dataset], fields: Iterable[str]) -> dict[str, list[str]]:
    rows = {keyword: [value_text(dataset, keyword) for dataset in datasets] for keyword in _COLUMNS[level]}
    columns = {_COLUMNS[level][keyword]: cells for keyword, cells in rows.items() if any(cells)}
    for field in fields:
        if field != "all" and field not in rows:
            columns[field] = [value_text(dataset, field) for dataset in datasets]
    return columns


def _is_uid(heading: str) -> bool:
    return heading.endswith((" UID", " UUID"))


def _table(columns: dict[str, list[str]]) -> Table:
    return output.table(list(columns), zip(*columns.values(), strict=True), numbers=_NUMBERS)


def _width_of(columns: dict[str, list[str]]) -> int:
    from rich.cells import cell_len

    return sum(max(map(cell_len, (name, *cells))) + 3 for name, cells in columns.items())


def value_text(dataset: Dataset, attribute: str) -> str:
    """Return an attribute's value as text, empty where there is none; a path of attributes leads into sequences."""
    head, _, rest = attribute.partition(".")
    element = dataset.get(_key_of(head))
    if element is None or element.value is None:
        return ""
    if element.VR == "SQ":
        return ", ".join(filter(None, (value_text(item, rest) for item in element.value))) if rest else "(sequence)"
    show = _SHOWN_AS.get(element.VR, str)
    return ", ".join(map(show, element.value)) if element.VM > 1 else show(element.value)


def plain_text(dataset: Dataset, attribute: str) -> str:
    """Return an attribute's value as DICOM writes it, several with a backslash between them."""
    head, _, rest = attribute.partition(".")
    element = dataset.get(_key_of(head))
    if element is None or element.value is None:
        return ""
    if element.VR == "SQ":
        return "\\".join(filter(None, (plain_text(item, rest) for item in element.value))) if rest else ""
    return "\\".join(map(str, element.value)) if element.VM > 1 else str(element.value)


def _key_of(attribute: str) -> int:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(attribute)
    return int(attribute, 16) if tag is None else tag


def _date_text(value: object) -> str:
    date = str(value)
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdecimal() else date


def _uid_text(uid: object) -> str:
    """Return a UID, or the name of what it stands for where the standard gives it one."""
    return str(getattr(uid, "name", uid)).removesuffix(" Storage")


_SHOWN_AS: dict[str, Callable[[object], str]] = {"DA": _date_text, "UI": _uid_text}
