"""Common to the callers of both PostDICOM APIs: checking arguments and judging answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Generic, TypeVar

from postdicom_async.errors import ProtocolError, ServerError
from postdicom_async.http.problems import outcome_unknown
from postdicom_async.http.redaction import safe_reason
from postdicom_async.http.retry import Repeat
from postdicom_async.vendor.answers import Content, VendorAnswer, view
from postdicom_async.vendor.fields import Operation, check
from postdicom_async.vendor.values import Values, private_texts
from postdicom_async.watching import watch_call

_Answer = TypeVar("_Answer", bound=VendorAnswer)
_Operation = TypeVar("_Operation", bound=Operation)


class VendorCaller(ABC, Generic[_Operation]):
    """Calls the operations of one API, each under the name of the method that makes the call."""

    operations: Mapping[str, _Operation]
    """The table of the API."""

    def operation(self, name: str | _Operation) -> _Operation:
        """Return an operation by its name; an operation passed directly, such as a variant, is returned as it is."""
        return self.operations[name] if isinstance(name, str) else name

    def checked(self, operation: _Operation, given: Mapping[str, object]) -> Values:
        """Return the checked values of a call.

        ``given`` may be the ``locals()`` of the method: a parameter in its signature that the operation lacks is an
        error, so none can be lost.

        Raises:
            UsageError: an argument is missing, malformed or too long.
        """
        arguments = {name: value for name, value in given.items() if name != "self"}
        return check(operation, arguments, first_day=_first_day)

    @abstractmethod
    async def _send(self, operation: _Operation, values: Values) -> Content:
        """Make one request and return the content of the answer; raise if it is a refusal."""

    async def call(self, name: str | _Operation, kind: Callable[..., _Answer], given: Mapping[str, object]) -> _Answer:
        """Make one call and return its answer as ``kind``.

        Raises:
            UsageError: an argument is missing, malformed or too long; nothing was sent.
            OutcomeUnknown: the request left and no answer came, or one without the UUID of the created object.
            PostdicomError: the service refused, or cannot be worked with.
        """
        operation = self.operation(name)
        values = self.checked(operation, given)
        with watch_call(operation.title):
            answer = view(kind, await self._send(operation, values))
        if operation.repeat is Repeat.CHANGE and not answer.is_named:
            # The object was probably created, and only a search can find it: a second call would create it twice.
            unnamed = ProtocolError("the service said yes, but not under which UUID", operation=operation.title)
            raise outcome_unknown(unnamed)
        return answer


def said_no(title: str, reason: str, private: Iterable[str], *, status: int | None = None) -> ServerError:
    """Return the exception for a refusal, with the service's words as far as they may be shown."""
    return ServerError("the service said no", operation=title, status=status, reason=safe_reason(reason, private))


class PrivateTexts:
    """The values to be masked in the server's words; computed only if there are any words."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def __iter__(self) -> Iterator[str]:
        return iter(private_texts(self._values))


def _first_day() -> date:
    """Return the earliest date that is today anywhere."""
    # An expiry date is in the account's time zone, which is unknown: the last time zone on earth (UTC-12) decides.
    return (datetime.now(UTC) - timedelta(hours=12)).date()


def is_new(item: dict[str, Any], key: str, seen: set[str]) -> bool:
    """Return whether an object, identified by its field ``key``, is not in ``seen``; add it."""
    value = next((value for name, value in item.items() if name.lower() == key.lower()), None)
    mark = value if isinstance(value, str) and value else repr(item)
    new = mark not in seen
    seen.add(mark)
    return new
