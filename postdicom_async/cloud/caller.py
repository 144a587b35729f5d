"""Calls the general operations of the Cloud API for one user: check, write, send, read. Nothing else does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from postdicom_async.cloud.operations import OPERATIONS, CloudOperation, fields_of
from postdicom_async.errors import ProtocolError
from postdicom_async.http.problems import outcome_unknown
from postdicom_async.http.repeat import deadline_passed, within
from postdicom_async.http.retry import Repeat
from postdicom_async.paging import Results
from postdicom_async.vendor.answers import Content, VendorAnswer, choose, list_in
from postdicom_async.vendor.caller import PrivateTexts, VendorCaller, is_new, said_no
from postdicom_async.vendor.table import AnswerTable
from postdicom_async.vendor.values import Values, is_uuid
from postdicom_async.watching import watch_call, watched_pages

if TYPE_CHECKING:
    from uuid import UUID

    from postdicom_async.cloud.connection import Connection
    from postdicom_async.errors import PostdicomError
    from postdicom_async.vendor.answers import User
    from postdicom_async.vendor.wire import CloudWire

_Answer = TypeVar("_Answer", bound=VendorAnswer)
_INSTITUTION = "institution_uuid"


class CloudCaller(VendorCaller[CloudOperation]):
    """Calls operations on a connection as one user of the account."""

    operations: Mapping[str, CloudOperation] = OPERATIONS

    def __init__(self, connection: Connection, user: UUID | str | None) -> None:
        self.connection = connection
        self._user = user

    @property
    def wire(self) -> CloudWire:
        """The assumptions about the service."""
        return self.connection.wire

    @property
    def user(self) -> User:
        """The user on whose behalf all calls are made."""
        return self.connection.user_of(self._user)

    def _institution(self, given: object) -> object:
        """Return the UUID of an institution given by name, or of the user's only one if none is given.

        A UUID is returned as it is and checked later: an order may belong to an institution that is not the user's.
        """
        is_name = isinstance(given, str) and not is_uuid(given)
        return choose(_INSTITUTION, self.user.institutions, given).identity if given is None or is_name else given

    # --- calls ---------------------------------------------------------------------------------------------------

    def search(
        self,
        name: str,
        kind: type[_Answer],
        key: str,
        given: Mapping[str, object],
        *,
        path: tuple[str, ...],
    ) -> Results[_Answer]:
        """Return the objects a search finds, each once, identified by the field ``key``.

        Arguments are checked at once; the request is made as the results are read. ``path`` leads to the list
        inside the answer.
        """
        operation = self.operation(name)
        values = self.checked(operation, given)

        async def pages(_at_most: int | None, _warnings: list[str]) -> AsyncIterator[list[dict[str, Any]]]:
            found = await self._send(operation, values)
            seen: set[str] = set()
            yield [item for item in _objects(operation, found, path) if is_new(item, key, seen)]

        table = AnswerTable(operation.title, kind)
        return Results(watched_pages(operation.title, pages), lambda item, _warnings: kind(item), tabular=table)

    async def listed(self, name: str, kind: Callable[[dict[str, Any]], _Answer]) -> list[_Answer]:
        """Return every object of a list that takes no arguments."""
        operation = self.operation(name)
        with watch_call(operation.title):
            return [kind(item) for item in _objects(operation, await self._send(operation, {}), ())]

    def checked(self, operation: CloudOperation, given: Mapping[str, object]) -> Values:
        """Return checked values of a call; a required institution defaults to the user's only one."""
        if any(one.argument == _INSTITUTION for one in operation.parameters):
            given = {**given, _INSTITUTION: self._institution(given.get(_INSTITUTION))}
        return super().checked(operation, given)

    async def _send(self, operation: CloudOperation, values: Values) -> Content:
        fields = {"UserUuid": self.user.identity, **fields_of(operation, values, self.wire)}
        deadline = self.connection.settings.timeouts.deadline

        def late() -> PostdicomError:
            error = deadline_passed(operation.title, deadline, sent=True)
            return outcome_unknown(error) if operation.repeat is Repeat.CHANGE else error

        call = self.connection.call(operation.title, operation.number_for(values), fields, operation.repeat)
        envelope = await within(deadline, call, late)
        if envelope.refusal is not None:
            known = (*PrivateTexts(values), *self.connection.secrets, *self.user.private)
            raise said_no(operation.title, envelope.refusal, known)
        return envelope.message


class CloudFacade:
    """A group of operations. Each method passes on all its arguments, as its ``locals()``."""

    def __init__(self, caller: CloudCaller) -> None:
        self._caller = caller


_MISSING = object()


def _objects(operation: CloudOperation, found: Content, path: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the list at ``path`` in an answer; without a path, or where it leads nowhere, any list there is.

    No list at all does not count as an empty one: results would be lost silently.
    """
    place: Any = found
    for name in path:
        value = _field(place, name)
        if value is None or (value is _MISSING and place is not found):
            return []  # explicitly empty
        if value is _MISSING:
            break
        place = value
    listed = None if place == "" else list_in(place)
    if listed is None:
        raise ProtocolError("the service answered with something other than a list", operation=operation.title)
    return listed


def _field(found: Any, name: str) -> Any:
    fields = found.items() if isinstance(found, dict) else ()
    return next((value for key, value in fields if key.lower() == name.lower()), _MISSING)
