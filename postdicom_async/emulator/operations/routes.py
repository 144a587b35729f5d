"""PostDICOM's own operations over HTTP: each a ``GET`` with its parameters in a header of its own name."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from starlette.responses import Response

from postdicom_async.emulator.answers import Refusal, base_url, refusal
from postdicom_async.emulator.operations.actions import Actions
from postdicom_async.emulator.operations.faults import VendorCall
from postdicom_async.emulator.operations.parameters import BadParameters, decode
from postdicom_async.emulator.operations.table import OPERATIONS
from postdicom_async.emulator.vendor.answers import no, plain, yes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from postdicom_async.emulator.context import ArchiveContext
    from postdicom_async.emulator.operations.table import Operation
    from postdicom_async.emulator.store.header import Json

__all__ = ["Vendor", "vendor_routes"]

Handler: TypeAlias = "Callable[[Request], Awaitable[Response]]"

_ON_DEMAND = "this fault was asked for"
_TEXT_FIELDS = ("Result", "PatientOrderUuid", "FolderUuid")
"""What a plain text answer consists of: the first that there is."""


def vendor_routes(context: ArchiveContext) -> list[tuple[str, str, Handler]]:
    """Return method, path and handler of the thirteen operations."""
    vendor = Vendor(context)
    return [("GET", f"/{name}", partial(vendor.handle, operation)) for name, operation in OPERATIONS.items()]


class Vendor:
    """Reads the parameters, lets the action run, and answers in the form the options ask for."""

    def __init__(self, context: ArchiveContext) -> None:
        self._context = context
        self._actions = Actions(context.store, context.options).by_name()

    async def handle(self, operation: Operation, request: Request) -> Response:
        """Handle one request, or fail as asked for."""
        fault = self._context.faults.take(operation.name)
        if fault == "cut-before":
            return self._cut(request)
        if fault == "success-false":
            return no(_ON_DEMAND)
        if fault and fault.isdigit():
            return refusal(int(fault), _ON_DEMAND)
        try:
            fields = await self._act(operation, request)
        except Refusal as refused:
            if self._context.options.success_false:
                return no(refused.detail)
            raise
        if fault == "cut-after":
            return self._cut(request)
        if fault == "text" or self._context.options.text_answers:
            return plain(_as_text(fields))
        return yes(**fields)

    async def _act(self, operation: Operation, request: Request) -> Json:
        name = operation.header.lower().encode()
        try:
            given = decode(operation, [value for key, value in request.scope["headers"] if key == name])
        except BadParameters as problem:
            raise Refusal(400, str(problem)) from None
        self._context.faults.calls.append(VendorCall(operation.name, given.values))
        return await self._context.run(self._actions[operation.name], given, base_url(request))

    def _cut(self, request: Request) -> Response:
        self._context.faults.cut(request.scope.get("client"))
        return Response()  # goes nowhere


def _as_text(fields: Json) -> str:
    """Return an answer without its JSON: a URL, a UUID, or ``Success``; what lists something stays JSON."""
    if any(isinstance(value, list) for value in fields.values()):
        return json.dumps(fields, ensure_ascii=False)
    return str(next((fields[name] for name in _TEXT_FIELDS if name in fields), "Success"))
