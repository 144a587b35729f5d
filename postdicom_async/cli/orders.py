"""``postdicom orders`` and ``postdicom cloud orders``: PostDICOM's patient orders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postdicom_async import UsageError
from postdicom_async.cli import output
from postdicom_async.cli.connection import CloudOptions
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.paths import given_path, require_readable, words_of
from postdicom_async.cli.vendor import (
    OperationCall,
    Yes,
    field_table,
    raw_columns,
    show_columns,
    show_orders,
    tell_done,
    tell_made,
    vendor_command,
    write_answer,
    write_answers,
)

if TYPE_CHECKING:
    from postdicom_async import PatientOrder

_MAIN = ("institution_uuid", "patient_name", "patient_id", "patient_birthdate", "modality")


@vendor_command(
    "orders.search", lists=True, cloud="Find patient orders, by study dates or by birth dates but not by both."
)
def search(call: OperationCall) -> int:
    """Find patient orders.

    Writes a table, or with --json one array of the service's own objects. Finding nothing is no error.
    """
    return show_orders(call)


@vendor_command("orders.search_in_folder", lists=True)
def in_folder(call: OperationCall) -> int:
    """Find the patient orders in a folder.

    Writes a table, or with --json one array of the service's own objects. Finding nothing is no error.
    """
    return show_orders(call)


@vendor_command("orders.properties")
def show(call: OperationCall) -> int:
    """Show everything the service tells about a patient order."""
    found: PatientOrder = call.run()
    inner = found.get("PatientOrder")
    if call.as_json or not found.raw:
        write_answer(found, as_json=call.as_json)
    else:
        output.write(field_table((inner if isinstance(inner, Mapping) else found.raw).items()))
    return Exit.OK


@vendor_command("orders.create", main=_MAIN, from_file=True)
def create(
    call: OperationCall,
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            parser=given_path,
            help="Make an order for each row of a CSV file (UTF-8, with , or ;), whose headings are these options; "
            "what is given here is for every row.",
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            metavar="FILE",
            parser=given_path,
            help="Where it is kept what became of each row; without it FILE.csv.results.jsonl beside the rows.",
        ),
    ] = None,
    retry_unknown: Annotated[
        bool,
        typer.Option("--retry-unknown", help="Make those again whose answer was lost. Search before: they may exist."),
    ] = False,
) -> int:
    """Make a patient order, and write its UUID; or one for each row of a CSV file.

    If no answer comes, the order may or may not have been created: search before you repeat this. With --from this is
    kept: the same command again makes what is missing, and never an order that was made or may have been made.
    """
    if from_file is not None:
        from postdicom_async.cli.bulk_orders import create_orders

        return create_orders(call, from_file, results, retry_unknown=retry_unknown)
    if results is not None or retry_unknown:
        raise UsageError("--results and --retry-unknown: only with --from")
    call.require()
    made: PatientOrder = call.run()
    return tell_made(call, made, made.patient_order_uuid, "order made")


@vendor_command("orders.create_from_json")
def create_from_json(
    call: OperationCall,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            parser=given_path,
            help="One JSON object of the service's own field names, such as PatientName, PatientID, OrderModality.",
        ),
    ],
) -> int:
    """Make a patient order from a file with the service's own field names, and write its UUID.

    If no answer comes, the order may or may not have been created: search before you repeat this.
    """
    made: PatientOrder = call.run(fields=_fields_in(file))
    return tell_made(call, made, made.patient_order_uuid, "order made")


def _fields_in(file: Path) -> Mapping[str, object]:
    require_readable([file])
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        problem = words_of(error)
    except (ValueError, RecursionError):
        problem = "not JSON"
    else:
        if isinstance(found, dict):
            return found
        problem = "give one JSON object"
    raise UsageError(f"{file}: {problem}")


@vendor_command("orders.delete", cloud="Move a patient order to the recycle bin.")
def delete(call: OperationCall, yes: Yes = False) -> int:
    """Delete a patient order and its images, for good.

    Asks first. Without a terminal to ask on, it wants --yes.
    """
    order = call.given["patient_order_uuid"]
    question = (
        f"Move patient order {order} to the recycle bin?"
        if isinstance(call.account, CloudOptions)
        else (f"Delete patient order {order} and its images for good?")
    )
    if not yes and not call.is_confirmed(question):
        return Exit.ITEMS_FAILED
    return tell_done(call, "order deleted")


@vendor_command(
    "orders.assign_to_user",
    "orders.assign_to_group",
    "orders.assign_to_institution",
    cloud="Assign a patient order to a user, to a user group or to an institution.",
)
def assign(call: OperationCall) -> int:
    """Assign a patient order to a user or to a user group."""
    return tell_done(call, "order assigned")


@vendor_command("orders.unassign_from_user", "orders.unassign_from_group")
def unassign(call: OperationCall) -> int:
    """Take a patient order from a user or from a user group."""
    return tell_done(call, "order unassigned")


@vendor_command("orders.tag_content")
def tags(call: OperationCall) -> int:
    """Show the content of DICOM tags of a patient order, for accounts that may.

    With --json, one array of the service's answers: one, unless the list of tags is too long for one request.
    """
    found: list[Any] = call.run()
    if call.as_json:
        write_answers(found)
        return Exit.OK
    items = [item for one in found for item in one.items]
    return show_columns(raw_columns(items), ("tag", "tags"), quiet=call.quiet)
