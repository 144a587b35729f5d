"""The thirteen operations of PostDICOM's DICOMweb API, as one table, and how their parameters are written. Pure.

Each operation is a ``GET`` without a body or a query; its parameters are one JSON object in one request header
whose name differs from operation to operation (C# sample; Node sample for nine of them). Every value is text; a list is
a JSON array written into text. Because GETs here create and delete, each operation declares whether it may be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from postdicom_async.errors import UsageError
from postdicom_async.vendor import fields as of
from postdicom_async.vendor.fields import Field, Operation, in_dicomweb
from postdicom_async.vendor.values import LISTS, Value, ValueKind, Values, ascii_json
from postdicom_async.vendor.wire import Wire


@dataclass(frozen=True, slots=True)
class HeaderOperation(Operation):
    """One operation of the DICOMweb API.

    Attributes:
        path: below the account's address.
        header: the request header that carries the parameters.
    """

    path: str
    header: str


def _read(title: str, path: str, header: str, *fields: Field) -> HeaderOperation:
    return HeaderOperation(title, True, in_dicomweb(*fields), path, header)


def _change(title: str, path: str, header: str, *fields: Field) -> HeaderOperation:
    return HeaderOperation(title, False, in_dicomweb(*fields), path, header)


_LINK_EXPIRES: Final = of.EXPIRES.but(help="The last day of the link.", required="both")

# Paths and headers: C# sample and Node sample; the latter lacks tag content, properties, and search and deletion of
# orders. Parameters, and which are required: documented.
OPERATIONS: Final[dict[str, HeaderOperation]] = {
    "shares.create_link": _change(
        "create share link",
        "/createsharelink",
        "ShareParameters",
        of.ORDERS.but(kind=ValueKind.ORDER_INFO_LIST, dicomweb="PatientOrderInfoList"),
        _LINK_EXPIRES,
        of.PASSWORD,
        of.DOWNLOADABLE.but(dicomweb="Downloadable"),
    ),
    "shares.share_orders": _change(
        "share patient orders",
        "/sharepatientorderwithurl",
        "SharePatientOrderParameters",
        of.ORDERS,
        _LINK_EXPIRES,
        of.PASSWORD,
        of.DOWNLOADABLE,
    ),
    "folders.create": _change("create folder", "/createfolder", "CreateFolderParameters", *of.NEW_FOLDER),
    "folders.search": _read("search folders", "/searchfolder", "SearchFolderParameters", *of.FOLDER_SEARCH),
    "folders.share": _change(
        "share folder",
        "/sharefolderwithurl",
        "ShareFolderParameters",
        *of.FOLDER_SHARE[:4],
        of.EXPIRES.but(help="The last day. Without it, for ever."),
        of.DOWNLOADABLE,
    ),
    "folders.add_order": _change(
        "add order to folder", "/addordertofolder", "AddOrderToFolderParameters", of.ORDER, of.FOLDERS
    ),
    "orders.assign_to_user": _change(
        "assign order to user", "/assignordertouser", "AssignOrderToUserParameters", of.ORDER, of.TO_USER
    ),
    "orders.assign_to_group": _change(
        "assign order to user group",
        "/assignordertousergroup",
        "AssignOrderToUserGroupParameters",
        of.ORDER,
        of.TO_GROUP,
    ),
    "orders.create": _change(
        "create patient order", "/createpatientorder", "CreatePatientOrderParameters", *of.NEW_ORDER
    ),
    "orders.properties": _read(
        "get patient order properties",
        "/getpatientorderproperties",
        "GetPatientOrderPropertiesParameters",
        of.ORDER_INSTITUTION,
        of.ORDER,
    ),
    "orders.tag_content": _read(
        "get DICOM tag content",
        "/getdicomtagcontent",
        "GetDicomTagContentParameters",
        of.ORDER_INSTITUTION,
        of.ORDER,
        of.SERIES,
        of.TAGS,
    ),
    "orders.search": _read(
        "search patient orders", "/getpatientorderlist", "GetPatientOrderListParameters", *of.ORDER_SEARCH
    ),
    "orders.delete": _change(
        "delete patient order", "/deleteorder", "DeleteOrderParameters", of.ORDER_INSTITUTION, of.ORDER
    ),
}
"""By the method that makes the call: ``orders.create`` is ``PostDicom.orders.create``."""


def encode(operation: HeaderOperation, values: Values, wire: Wire) -> str:
    """Return the header's value: ASCII JSON, so that every name survives, within ``wire.header_bytes``.

    ``values`` are checked Python values by argument; see ``vendor.fields.check``.

    Raises:
        UsageError: it is too long; the message names the argument to shorten or split.
    """
    written = {
        parameter.wire: _written(parameter.kind, values.get(parameter.argument), wire)
        for parameter in operation.parameters
        if parameter.argument in values or wire.sends_empty
    }
    text = "{" + ",".join([f'"{name}":{ascii_json(value)}' for name, value in written.items()]) + "}"
    if len(text) > wire.header_bytes:
        longest = max(operation.parameters, key=lambda parameter: len(written.get(parameter.wire, "")))
        raise UsageError(
            f"too much for one request ({len(text)} bytes of parameters, at most "
            f"{wire.header_bytes}); shorten it or split it into several calls",
            argument=longest.argument,
            operation=operation.title,
        )
    return text


def _written(kind: ValueKind, value: Value | None, wire: Wire) -> str:
    if value is None:
        return wire.absent_list if kind in LISTS else ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return wire.true if value else wire.false
    if isinstance(value, datetime):
        return value.isoformat(" ", "minutes")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, int):
        return str(value)
    is_nested = kind is ValueKind.ORDER_INFO_LIST
    return ascii_json([ascii_json({wire.inner_order_key: item}) for item in value] if is_nested else value)


def split(operation: HeaderOperation, values: Values, wire: Wire) -> list[Values]:
    """Return the values of as many requests as needed for each to fit; of one if they fit as they are.

    Only a read with a list can be split; its results are joined.

    Raises:
        UsageError: it does not fit and cannot be split.
    """
    try:
        encode(operation, values, wire)
    except UsageError:
        lists = [(name, value) for name, value in values.items() if isinstance(value, list) and len(value) > 1]
        if not operation.reads or not lists:
            raise
    else:
        return [values]
    # Halve the longest list. If two lists are long, each part of one is combined with each part of the other.
    name, longest = max(lists, key=lambda pair: sum(len(str(item)) for item in pair[1]))
    middle = len(longest) // 2
    halves = {**values, name: longest[:middle]}, {**values, name: longest[middle:]}
    return [part for half in halves for part in split(operation, half, wire)]
