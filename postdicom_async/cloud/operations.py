"""The operations of the Cloud API as one table, and how their parameters are written. Pure.

Numbers, names and their order are the JavaScript library's. Each request is one JSON object: ``UserUuid``, the
operation's own fields in the order below, then both keys. Because the API knows no read-only verb, each operation says
for itself whether it may be repeated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final

from postdicom_async.errors import UsageError
from postdicom_async.vendor import fields as of
from postdicom_async.vendor.fields import ASSUMED_PLACE, Field, Operation, Parameter, in_cloud
from postdicom_async.vendor.values import Value, ValueKind, Values
from postdicom_async.vendor.wire import CloudWire


@dataclass(frozen=True, slots=True)
class CloudOperation(Operation):
    """One general operation (message type 17) of the Cloud API.

    Attributes:
        management_type: its number.
        until: its number when ``expires`` is given, if that differs.
        in_json: whether fields that have a place in ``JsonParameters`` are written there.
    """

    management_type: int
    until: int | None = None
    in_json: bool = False

    def number_for(self, values: Values) -> int:
        """Return the number of a call with these values."""
        return self.until if self.until is not None and "expires" in values else self.management_type


def _read(title: str, number: int, *fields: Field) -> CloudOperation:
    return CloudOperation(title, True, in_cloud(*fields), number)


def _change(title: str, number: int, *fields: Field, until: int | None = None, in_json: bool = False) -> CloudOperation:
    return CloudOperation(title, False, in_cloud(*fields), number, until, in_json)


_INSTITUTION: Final = of.ORDER_INSTITUTION.but(found=True)
_NAMED_ORDERS: Final = of.ORDERS.but(dicomweb="PatientOrderUuidList")
_LAST_DAY: Final = of.EXPIRES.but(help="The last day of the link. Without it, for ever.", required="")
# Documented; the public copy of the script has no such argument. Its place is assumed.
_DOWNLOADABLE_INSIDE: Final = of.DOWNLOADABLE.but(required="")
_SHARE_BY_EMAIL: Final = (of.FOLDER, of.EMAIL, of.PASSWORD_EMAIL, *of.FOLDER_SHARE[1:])

OPERATIONS: Final[dict[str, CloudOperation]] = {
    "orders.search": _read("search patient orders", 1, *of.ORDER_SEARCH),
    "orders.search_in_folder": _read("search patient orders", 1, of.FOLDER),
    "orders.properties": _read("get patient order properties", 13, of.ORDER_INSTITUTION, of.ORDER),
    "orders.create": _change("create patient order", 7, *of.NEW_ORDER),
    "orders.create_from_json": _change("create patient order", 25, of.INSTITUTION, in_json=True),
    "orders.delete": _change("delete patient order", 6, of.ORDER_INSTITUTION, of.ORDER),
    "orders.assign_to_user": _change("assign order to user", 28, of.ORDER, of.TO_USER),
    "orders.assign_to_group": _change("assign order to user group", 29, of.ORDER, of.TO_GROUP),
    "orders.assign_to_institution": _change(
        "assign order to institution",
        35,
        of.ORDER,
        of.INSTITUTION.but(help="The institution to assign it to.", found=False),
    ),
    "orders.unassign_from_user": _change(
        "unassign order from user",
        32,
        of.ORDER,
        of.TO_USER.but(help="The user to take it from.", cloud="UnassignedUserUuid"),
    ),
    "orders.unassign_from_group": _change(
        "unassign order from user group",
        33,
        of.ORDER,
        of.TO_GROUP.but(help="The group to take it from.", cloud="UnassignedUserGroupUuid"),
    ),
    "folders.create": _change("create folder", 2, *of.NEW_FOLDER),
    "folders.search": _read("search folders", 3, *of.FOLDER_SEARCH),
    "folders.update": _change("update folder", 27, of.FOLDER, *of.FOLDER_UPDATE, in_json=True),
    "folders.delete": _change("delete folder", 4, of.FOLDER),
    "folders.add_order": _change("add order to folder", 8, _INSTITUTION, of.ORDER, of.FOLDERS),
    "folders.remove_orders": _change("remove orders from folder", 9, of.FOLDER, _NAMED_ORDERS),
    "folders.share": _change("share folder", 15, *of.FOLDER_SHARE),
    "folders.share_by_email": _change("share folder by e-mail", 14, *_SHARE_BY_EMAIL),
    "folders.share_to_upload": _change("share folder to upload", 17, *of.FOLDER_SHARE, of.INSTITUTION),
    "folders.share_to_upload_by_email": _change(
        "share folder to upload by e-mail", 16, *_SHARE_BY_EMAIL, of.INSTITUTION
    ),
    "folders.share_with_users": _change(
        "share folder with users", 18, of.FOLDER, of.WITH_USERS, of.EXPIRES, _DOWNLOADABLE_INSIDE
    ),
    "folders.share_with_groups": _change(
        "share folder with user groups", 19, of.FOLDER, of.WITH_GROUPS, of.EXPIRES, _DOWNLOADABLE_INSIDE
    ),
    "shares.create_link": _change("create share link", 21, of.ORDERS, of.DOWNLOADABLE, _LAST_DAY, until=37),
    "shares.share_by_email": _change(
        "share patient orders by e-mail",
        20,
        of.ORDERS,
        of.EMAIL,
        of.PASSWORD_EMAIL,
        of.DOWNLOADABLE,
        _LAST_DAY,
        until=36,
    ),
    # A view link does not outlive its viewer; asking for another one changes nothing.
    "view.order": _read("get view link", 5, of.ORDER),
    "view.patient": _read(
        "get view link", 5, of.PATIENT_NAME, of.PATIENT_BIRTHDATE.but(cloud="BirthDate", required="", place=0)
    ),
    "view.folder": _read("get folder view link", 26, of.FOLDER),
    "groups.create": _change("create order group", 10, _INSTITUTION, _NAMED_ORDERS),
    "groups.add_orders": _change("add orders to order group", 11, _INSTITUTION, of.CONNECTED_GROUP, _NAMED_ORDERS),
    "groups.remove_orders": _change("remove orders from order group", 12, _INSTITUTION, _NAMED_ORDERS),
    "flags.dictionary": _read("get flag dictionary", 30),
    "flags.set": _change("set flag", 31, of.ORDER, of.FLAG_GROUP, of.FLAG),
    "nodes.all": _read("list DICOM nodes", 23),
    "users.all": _read("list users", 34),
    "users.groups": _read("list user groups", 22),
    "users.contacts": _read("list contacts", 24),
}
"""By the method that makes the call: ``orders.create`` is ``CloudApi.orders.create``."""

_FROM_JSON: Final = sorted((*of.NEW_ORDER[1:], *of.ONLY_IN_JSON), key=lambda one: one.json or (0, "", ""))
ORDER_FIELDS: Final = tuple(
    replace(one, argument=one.wire, required=False) for field in _FROM_JSON for one in in_cloud(field)
)
"""What ``orders.create_from_json`` takes: the vendor's own names, in the JavaScript library's order."""

CREATE_ORDER_WITH_JSON: Final = replace(OPERATIONS["orders.create"], management_type=25, in_json=True)
"""What ``orders.create`` does where the other way cannot say it."""

CREATE_ORDER_FROM_JSON: Final = replace(
    CREATE_ORDER_WITH_JSON, parameters=(*OPERATIONS["orders.create_from_json"].parameters, *ORDER_FIELDS)
)
_WHOLE_NUMBER: Final = re.compile("-?[0-9]{1,16}")
_LONGEST_ACCESSION_NUMBER: Final = 16


def fields_of(operation: CloudOperation, values: Values, wire: CloudWire) -> dict[str, Any]:
    """Return the operation's own fields, in order, from checked values by argument.

    Raises:
        UsageError: a value cannot be written as ``wire`` has it.
    """
    # The dates present select the search: those of the other one must be absent, not even empty.
    searches = {"", *(one.pair for one in operation.parameters if one.argument in values)}
    fields: dict[str, Any] = {}
    for one in operation.parameters:
        value = values.get(one.argument)
        if operation.in_json and one.json is not None:
            continue
        if value is not None:
            fields[one.wire] = _json_value(one, value, wire)
        elif one.absent is not None and one.pair in searches:
            fields[one.wire] = one.absent
    if operation.in_json:
        fields["JsonParameters"] = _nested(operation, values, wire)
    return fields


def _nested(operation: CloudOperation, values: Values, wire: CloudWire) -> dict[str, Any]:
    """Return an order's or a folder's fields as ``JsonParameters``, at the JavaScript library's places.

    Its public copy drops seven fields that the vendor documents; their places are assumed.
    """
    is_order = operation.management_type == CREATE_ORDER_WITH_JSON.management_type
    groups = ("IdentityInformation", "StudyInformation", "OtherInformation") if is_order else ("IdentityInformation",)
    nested: dict[str, Any] = {group: {} for group in groups}
    for one in operation.parameters:
        value = values.get(one.argument)
        if one.json is None or value is None:
            continue
        if one.wire == "OrderAccessionNumber" and len(str(value)) > _LONGEST_ACCESSION_NUMBER:  # documented
            message = f"at most {_LONGEST_ACCESSION_NUMBER} characters"
            raise UsageError(message, argument=one.argument, operation=operation.title)
        group, key = one.json
        group = wire.other_order_fields if group == ASSUMED_PLACE else group
        place = nested.setdefault(group, {}) if group else nested
        place[key] = _json_value(one, value, wire)
    return nested


def _json_value(parameter: Parameter, value: Value, wire: CloudWire) -> Any:
    """Return a checked value as JSON has it; dates become text."""
    if parameter.kind is ValueKind.FLAG_ID:
        text = str(value)
        if wire.flag_ids_as_text:
            return text
        if not _WHOLE_NUMBER.fullmatch(text):
            message = "give a whole number, or CloudWire(flag_ids_as_text=True) for text"
            raise UsageError(message, argument=parameter.argument, operation="set flag")
        return int(text)
    if isinstance(value, datetime):
        return value.isoformat(" ", "minutes")
    if isinstance(value, date):
        return value.isoformat() + (wire.after_date_alone if parameter.kind is ValueKind.DATE_OR_DATETIME else "")
    return value
