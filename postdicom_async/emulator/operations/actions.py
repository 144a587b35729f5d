"""PostDICOM's own operations over HTTP: each a ``GET`` with its parameters in a header of its own name.

Actions block, and return the fields of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from postdicom_async.emulator.answers import Refusal, RouteRow, base_url, refusal
from postdicom_async.emulator.context import ArchiveContext
from postdicom_async.emulator.operations.faults import ReceivedCall
from postdicom_async.emulator.operations.table import OPERATIONS, VendorOperation
from postdicom_async.emulator.store.header import Json
from postdicom_async.emulator.vendor.account import VendorAccount
from postdicom_async.emulator.vendor.folders import StoredFolder
from postdicom_async.emulator.vendor.parameters import BadParameters, Given, read_loosely

_ON_DEMAND = "this fault was asked for"
_TEXT_FIELDS = ("Result", "PatientOrderUuid", "FolderUuid")
"""What a plain text answer consists of: the first that there is."""


def operation_routes(context: ArchiveContext) -> list[RouteRow]:
    """Return method, path and handler of the thirteen operations."""
    actions = _actions(VendorAccount(context))
    return [
        ("GET", f"/{name}", partial(_handle, context, OPERATIONS[name], action)) for name, action in actions.items()
    ]


async def _handle(
    context: ArchiveContext, operation: VendorOperation, action: Callable[[Given], Json], request: Request
) -> Response:
    """Handle one request, or fail as a test asked for; answer in the form that the options ask for."""
    fault = context.faults.take(operation.name)
    if fault == "cut-before":
        return _cut(request)
    if fault == "success-false":
        return _answer(Success=False, Message=_ON_DEMAND)
    if fault and fault.isdigit():
        return refusal(int(fault), _ON_DEMAND)
    name = operation.header.lower().encode()
    headers = [value for key, value in request.scope["headers"] if key == name]
    try:
        given = read_loosely(operation.parameters, operation.header, headers, base_url(request))
        context.faults.calls.append(ReceivedCall(operation.name, given.values))
        fields = await context.run(action, given)
    except (Refusal, BadParameters) as refused:
        status, reason = (
            (400, str(refused)) if isinstance(refused, BadParameters) else (refused.status_code, refused.detail)
        )
        return _answer(Success=False, Message=reason) if context.options.success_false else refusal(status, reason)
    if fault == "cut-after":
        return _cut(request)
    if fault == "text" or context.options.text_answers:
        return _answer(_as_text(fields), "text/plain")
    return _answer(Success=True, Message="", **fields)


def _answer(text: str = "", media_type: str = "application/json", **fields: Any) -> Response:
    body = text or json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return Response(body, headers={"Cache-Control": "no-store"}, media_type=media_type)


def _as_text(fields: Json) -> str:
    """Return an answer as plain text: a URL, a UUID, or ``Success``; lists stay JSON."""
    if any(isinstance(value, list) for value in fields.values()):
        return json.dumps(fields, ensure_ascii=False)
    return str(next((fields[name] for name in _TEXT_FIELDS if name in fields), "Success"))


def _cut(request: Request) -> Response:
    """Drop the connection without another byte; the returned response is not sent."""
    request.state.transport.abort()
    return Response()


def _actions(account: VendorAccount) -> dict[str, Callable[[Given], Json]]:
    """Return what each operation does, by the names of their paths."""
    orders, folders = account.orders, account.folders

    def told_folder(folder: StoredFolder, given: Given) -> Json:
        if not given.flag("GetOrdersInFolder"):
            return account.told_folder(folder)
        inside = account.told_orders(orders.some(folders.order_uuids(folder.uuid)))
        return {**account.told_folder(folder), "PatientOrderList": inside}

    def create_folder(given: Given) -> Json:
        name, description = given.text("FolderName"), given.text("FolderDescription")
        return told_folder(folders.create(name, description, given.text("ParentFolderUuid")), given)

    def search_folder(given: Given) -> Json:
        found = folders.search(given.text("ParentFolderUuid"), given.text("FolderName"))
        return {"FolderList": [told_folder(folder, given) for folder in found]}

    def add_order(given: Given) -> Json:
        folders.add_order(account.named(given).uuid, given.items("FolderUuidList"))
        return {}

    def properties(given: Given) -> Json:
        order = account.named(given)
        return {**account.told_orders([order])[0], **account.told_places(order)}

    def tag_content(given: Given) -> Json:
        order, series = account.named(given), given.text("PatientSeriesUuid")
        return {"DicomTagList": account.told_tags(order, series, given.items("DicomTagIdList"))}

    def delete_order(given: Given) -> Json:
        orders.delete(account.named(given))
        return {}

    return {
        "createsharelink": lambda given: account.share(given, given.items("PatientOrderInfoList")),
        "sharepatientorderwithurl": lambda given: account.share(given, given.items("OrderUuidList")),
        "sharefolderwithurl": lambda given: account.share(given, folder=given.text("FolderUuid")),
        "createfolder": create_folder,
        "searchfolder": search_folder,
        "addordertofolder": add_order,
        "createpatientorder": lambda given: account.told_orders([account.create_order(given, given.values)])[0],
        "getpatientorderlist": lambda given: {"PatientOrderList": account.told_orders(orders.search(given))},
        "getpatientorderproperties": properties,
        "getdicomtagcontent": tag_content,
        "assignordertouser": account.assign,
        "assignordertousergroup": account.assign,
        "deleteorder": delete_order,
    }
