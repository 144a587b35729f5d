"""What the commands over PostDICOM's own operations share: running a call, and showing what it answered."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer

from postdicom_async import UsageError
from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.search import write_items
from postdicom_async.cli.search_table import column_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from postdicom_async import Folder, PatientOrder, Results, ShareLink, VendorAnswer

__all__ = [
    "AsJson",
    "Yes",
    "confirmed",
    "detail",
    "field_table",
    "folder_columns",
    "option",
    "order_columns",
    "raw_columns",
    "require_one",
    "run_call",
    "show_columns",
    "show_folders",
    "show_order",
    "show_orders",
    "tell_done",
    "tell_link",
    "tell_made",
    "write_answer",
    "write_answers",
]

_T = TypeVar("_T")
_Client = TypeVar("_Client", bound="AbstractAsyncContextManager[Any]")

Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Write what the service answered, as JSON.")]


def option(name: str, text: str, metavar: str = "TEXT", panel: str | None = None) -> Any:
    """Return an option for one parameter of an operation."""
    return typer.Option(f"--{name}", help=text, metavar=metavar, rich_help_panel=panel)


def detail(name: str, text: str, metavar: str = "TEXT") -> Any:
    """Return an option in a panel of its own, where a long name has room."""
    return option(name, text, metavar, "Details")


def run_call(archive: _Client, call: Callable[[_Client], Coroutine[Any, Any, _T]]) -> _T:
    """Open the client, make the call, close; return what it answered."""

    async def work() -> _T:
        async with archive:
            return await call(archive)

    return run_async(work)


def require_one(**given: object) -> None:
    """Refuse anything but one of these options.

    Raises:
        UsageError: none or several are given.
    """
    if sum(map(bool, given.values())) != 1:
        *names, last = (f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"give {', '.join(names)} or {last}, one of them")


def confirmed(question: str) -> bool:
    """Ask whether something is to be done that cannot be undone; what is not a clear yes is a no, and said.

    Raises:
        UsageError: there is nobody to ask.
    """
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("deleting asks first: run this in a terminal, or give --yes")
    sys.stderr.write(f"{output.clean(question)} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in {"y", "yes"}:
        return True
    output.error("nothing was deleted")
    return False


# --- what a call answered -------------------------------------------------------------------------------------------


def write_answer(answer: VendorAnswer, *, as_json: bool = True, error: str | None = None) -> None:
    """Write the service's own object, or its text: as the answer in a document, or as it is."""
    found = answer.raw or answer.text
    if as_json:
        output.write_document({"answer": found}, error=error)
    else:
        output.write(json.dumps(found, indent=2))


def write_answers(answers: Iterable[VendorAnswer]) -> None:
    """Write several of them."""
    output.write_document({"items": [answer.raw or answer.text for answer in answers]})


def tell_done(answer: VendorAnswer, words: str, *, as_json: bool, quiet: bool) -> int:
    """Tell that something was done of which nothing is to be told but that."""
    if as_json:
        write_answer(answer)
    elif not quiet:
        output.note(words)
    return Exit.OK


def tell_made(answer: VendorAnswer, uuid: str | None, words: str, *, as_json: bool, quiet: bool) -> int:
    """Write the UUID of what was made to standard output."""
    if as_json:
        write_answer(answer)
    elif uuid:
        output.write(output.clean(uuid))
    else:
        output.note(f"{words}, but the answer holds no UUID; a search finds it")
        return Exit.OK
    if not quiet:
        output.note(words)
    return Exit.OK


def tell_link(
    link: ShareLink,
    *,
    as_json: bool,
    quiet: bool,
    protected: bool = False,
    remark: str = "without a password: whoever has the address may look",
    words: str = "shared",
) -> int:
    """Write the address of a link to standard output; without one, all that the service answered, and fail."""
    failed = None if link.url else f"{words}, but the answer holds no address; it is on standard output"
    if as_json or not link.url:
        write_answer(link, as_json=as_json, error=failed)
    else:
        output.write(output.clean(link.url))
    if failed is not None:
        output.error(failed)
        return Exit.ITEMS_FAILED
    if not protected and not quiet:
        output.note(remark)
    return Exit.OK


# --- what was found -------------------------------------------------------------------------------------------------


def show_orders(
    archive: AbstractAsyncContextManager[Any], results: Results[PatientOrder], *, as_json: bool, quiet: bool
) -> int:
    """Read the results of a search for orders, and write them."""
    if as_json:
        run_async(lambda: write_items(archive, results, quiet=quiet))
        return Exit.OK
    orders = run_call(archive, lambda _: results.all())
    return show_columns(order_columns(orders), ("order", "orders"), quiet=quiet)


def show_folders(
    archive: AbstractAsyncContextManager[Any], results: Results[Folder], *, as_json: bool, quiet: bool
) -> int:
    """Read the results of a search for folders, and write them, and the orders in them if there are any."""
    if as_json:
        run_async(lambda: write_items(archive, results, quiet=quiet))
        return Exit.OK
    folders = run_call(archive, lambda _: results.all())
    code = show_columns(folder_columns(folders), ("folder", "folders"), quiet=quiet)
    held = [(folder.folder_name or "", order) for folder in folders for order in folder.orders]
    if held:
        columns = {"Folder": [folder for folder, _ in held], **order_columns([order for _, order in held])}
        code = show_columns(columns, ("order", "orders"), quiet=quiet)
    return code


def show_order(found: PatientOrder, *, as_json: bool) -> int:
    """Write everything about an order."""
    inner = found.get("PatientOrder")
    if as_json or not found.raw:
        write_answer(found, as_json=as_json)
    else:
        output.write(field_table((inner if isinstance(inner, Mapping) else found.raw).items()))
    return Exit.OK


# --- tables ---------------------------------------------------------------------------------------------------------


def show_columns(
    columns: dict[str, list[str]], what: tuple[str, str], *, quiet: bool, none: str = "nothing matches"
) -> int:
    """Write a table, without the columns that are empty everywhere, and how many there are."""
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    count = max(map(len, columns.values()), default=0)
    if filled:
        output.write(output.render(column_tables(filled)))
    if not quiet:
        output.note(f"{count} {what[count != 1]}" if count else none)
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
        "Order UUID": [order.patient_order_uuid if order.is_named else "" for order in orders],
    }


def folder_columns(folders: Sequence[Folder]) -> dict[str, list[str]]:
    """Return what a table shows of folders, by headings."""
    return {
        "Name": [folder.folder_name or "" for folder in folders],
        "Description": [folder.folder_description or "" for folder in folders],
        "Shared": ["yes" if folder.is_shared else "" for folder in folders],
        "Orders": [_number_text(folder.order_count) for folder in folders],
        "Folders": [_number_text(folder.sub_folder_count) for folder in folders],
        "Folder UUID": [folder.folder_uuid if folder.is_named else "" for folder in folders],
    }


def raw_columns(items: Iterable[Any]) -> dict[str, list[str]]:
    """Return the fields of objects whose names are not known beforehand, by headings."""
    objects = [item for item in items if isinstance(item, Mapping)]
    names = dict.fromkeys(name for item in objects for name in item)
    return {
        re.sub(r"(?<=[a-z])Uuid$", " UUID", str(name)): [_value_text(item.get(name)) for item in objects]
        for name in names
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
