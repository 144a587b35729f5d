"""What the commands over PostDICOM's own operations share: running a call, and showing what it answered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer

from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.search_table import column_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from postdicom_async import Folder, PatientOrder, PostDicom, ShareLink, VendorAnswer

__all__ = [
    "AsJson",
    "detail",
    "document",
    "field_table",
    "folder_columns",
    "option",
    "order_columns",
    "run_call",
    "show_columns",
    "tell_done",
    "tell_link",
    "tell_made",
]

_T = TypeVar("_T")

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Write what the service answered, as JSON.")]


def option(name: str, text: str, metavar: str = "TEXT", panel: str | None = None) -> Any:
    """Return an option for one parameter of an operation."""
    return typer.Option(f"--{name}", help=text, metavar=metavar, rich_help_panel=panel)


def detail(name: str, text: str, metavar: str = "TEXT") -> Any:
    """Return an option in a panel of its own, where a long name has room."""
    return option(name, text, metavar, "Details")


def run_call(archive: PostDicom, call: Callable[[PostDicom], Coroutine[Any, Any, _T]]) -> _T:
    """Open the client, make the call, close; return what it answered."""

    async def work() -> _T:
        async with archive:
            return await call(archive)

    return run_async(work)


# --- what a call answered -------------------------------------------------------------------------------------------


def document(answer: VendorAnswer) -> Any:
    """Return an answer for ``--json``: the service's own object, or its text."""
    return answer.raw or answer.text


def tell_done(answer: VendorAnswer, words: str, *, as_json: bool, quiet: bool) -> int:
    """Tell that something was done of which nothing is to be told but that."""
    if as_json:
        output.write(output.json_text(document(answer)))
    elif not quiet:
        output.note(words)
    return Exit.OK


def tell_made(answer: VendorAnswer, uuid: str | None, words: str, *, as_json: bool, quiet: bool) -> int:
    """Write the UUID of what was made to standard output."""
    if as_json or uuid:
        output.write(output.json_text(document(answer)) if as_json else output.clean(uuid))
    else:
        output.note(f"{words}, but the answer holds no UUID; a search finds it")
        return Exit.OK
    if not quiet:
        output.note(words)
    return Exit.OK


def tell_link(link: ShareLink, *, protected: bool, as_json: bool, quiet: bool) -> int:
    """Write the address of a share to standard output; without one, all that the service answered, and fail."""
    if as_json or not link.url:
        output.write(output.json_text(document(link)))
    else:
        output.write(output.clean(link.url))
    if not link.url:
        output.error("shared, but the answer holds no address; it is on standard output")
        return Exit.ITEMS_FAILED
    if not protected and not quiet:
        output.note("without a password: whoever has the address may look")
    return Exit.OK


# --- tables ---------------------------------------------------------------------------------------------------------


def show_columns(columns: dict[str, list[str]], what: tuple[str, str], *, quiet: bool) -> int:
    """Write a table, without the columns that are empty everywhere, and how many there are."""
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    count = max(map(len, columns.values()), default=0)
    if filled:
        output.write(output.render(column_tables(filled)))
    if not quiet:
        output.note(f"{count} {what[count != 1]}" if count else "nothing matches")
    return Exit.OK


def order_columns(orders: Sequence[PatientOrder]) -> dict[str, list[str]]:
    """Return what a table shows of orders, by headings."""
    return {
        "Patient": [order.patient_name or "" for order in orders],
        "ID": [order.patient_id or "" for order in orders],
        "Birth date": [order.get_text("PatientBirthdate") or "" for order in orders],
        "Modality": [(order.modality or "").replace("\\", ", ") for order in orders],
        "Description": [order.study_description or "" for order in orders],
        "Status": [order.order_status or "" for order in orders],
        "Institution UUID": [order.institution_uuid or "" for order in orders],
        "Order UUID": [order.patient_order_uuid or "" for order in orders],
    }


def folder_columns(folders: Sequence[Folder]) -> dict[str, list[str]]:
    """Return what a table shows of folders, by headings."""
    return {
        "Name": [folder.folder_name or "" for folder in folders],
        "Description": [folder.folder_description or "" for folder in folders],
        "Shared": ["yes" if folder.is_shared else "" for folder in folders],
        "Orders": [_number_text(folder.order_count) for folder in folders],
        "Folders": [_number_text(folder.sub_folder_count) for folder in folders],
        "Folder UUID": [folder.folder_uuid or "" for folder in folders],
    }


def _number_text(number: int | None) -> str:
    return "" if number is None else str(number)


def field_table(rows: Iterable[tuple[str, Any]]) -> str:
    """Return fields and their values as a table; what is nested stays JSON."""
    shown = [(name, _value_text(value)) for name, value in rows]
    return output.render([output.table(("Field", "Value"), [row for row in shown if row[1]])])


def _value_text(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else str(value)
