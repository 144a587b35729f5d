"""PostDICOM's own operations over HTTP: each a ``GET`` with its parameters in a header of its own name.

What they do blocks, and returns the fields of the answer.
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
from postdicom_async.emulator.operations.faults import VendorCall
from postdicom_async.emulator.operations.table import OPERATIONS, VendorOperation
from postdicom_async.emulator.store.header import Json
from postdicom_async.emulator.vendor.account import VendorAccount
from postdicom_async.emulator.vendor.parameters import BadParameters, Given, read_loosely

__all__ = ["operation_routes"]

_ON_DEMAND = "this fault was asked for"
_TEXT_FIELDS = ("Result", "PatientOrderUuid", "FolderUuid")
"""What a plain text answer consists of: the first that there is."""


def operation_routes(context: ArchiveContext) -> list[RouteRow]:
    """Return method, path and handler of the thirteen operations."""
    actions = _Actions(VendorAccount(context))
    return [
        ("GET", f"/{name}", partial(_handle, context, operation, getattr(actions, name)))
        for name, operation in OPERATIONS.items()
    ]


async def _handle(
    context: ArchiveContext, operation: VendorOperation, action: Callable[[Given], Json], request: Request
) -> Response:
    """Handle one request, or fail as asked for, and answer in the form the options ask for."""
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
        context.faults.calls.append(VendorCall(operation.name, given.values))
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
    """Return an answer without its JSON: a URL, a UUID, or ``Success``; what lists something stays JSON."""
    if any(isinstance(value, list) for value in fields.values()):
        return json.dumps(fields, ensure_ascii=False)
    return str(next((fields[name] for name in _TEXT_FIELDS if name in fields), "Success"))


def _cut(request: Request) -> Response:
    """Drop the connection without another byte; what is returned goes nowhere."""
    request.state.transport.abort()
    return Response()


class _Actions:
    """The thirteen operations by the names of their paths; each takes the parameters."""

    def __init__(self, account: VendorAccount) -> None:
        self._account = account

    def createsharelink(self, given: Given) -> Json:
        return self._account.share(given, given.items("PatientOrderInfoList"))

    def sharepatientorderwithurl(self, given: Given) -> Json:
        return self._account.share(given, given.items("OrderUuidList"))

    def sharefolderwithurl(self, given: Given) -> Json:
        return self._account.share(given, folder=given.text("FolderUuid"))

    def createfolder(self, given: Given) -> Json:
        name, description = given.text("FolderName"), given.text("FolderDescription")
        return self._account.told_folder(
            self._account.folders.create(name, description, given.text("ParentFolderUuid"))
        )

    def searchfolder(self, given: Given) -> Json:
        account, listed = self._account, []
        for folder in account.folders.search(given.text("ParentFolderUuid"), given.text("FolderName")):
            fields = account.told_folder(folder)
            if given.flag("GetOrdersInFolder"):
                orders = account.orders.some(account.folders.order_uuids(folder.uuid))
                fields["PatientOrderList"] = account.told_orders(orders)
            listed.append(fields)
        return {"FolderList": listed}

    def addordertofolder(self, given: Given) -> Json:
        self._account.folders.add_order(self._account.named(given).uuid, given.items("FolderUuidList"))
        return {}

    def createpatientorder(self, given: Given) -> Json:
        return self._account.told_orders([self._account.create_order(given, dict(given.values))])[0]

    def getpatientorderlist(self, given: Given) -> Json:
        return {"PatientOrderList": self._account.told_orders(self._account.orders.search(given))}

    def getpatientorderproperties(self, given: Given) -> Json:
        order = self._account.named(given)
        return {**self._account.told_orders([order])[0], **self._account.told_places(order)}

    def getdicomtagcontent(self, given: Given) -> Json:
        order, series, tags = self._account.named(given), given.text("PatientSeriesUuid"), given.items("DicomTagIdList")
        return {"DicomTagList": self._account.told_tags(order, series, tags)}

    def assignordertouser(self, given: Given) -> Json:
        return self._account.assign(given)

    def assignordertousergroup(self, given: Given) -> Json:
        return self._account.assign(given)

    def deleteorder(self, given: Given) -> Json:
        self._account.orders.delete(self._account.named(given))
        return {}
