"""What the synchronous client raises: the package's own errors, in forms that callers of `requests` catch too.

Where ``requests`` is installed, an error with a status is a ``requests.HTTPError`` as well, a lost connection a
``requests.ConnectionError``, and any other failure of the archive or the network a ``requests.RequestException``. It is
imported at the first failure, not before. The classes are made then: they have the names of the package's own.

What is attached tells no more than the error does: ``response`` has the status and the server's masked words, no
address, no header, no body.
"""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from importlib import import_module
from typing import Any, Final

from postdicom_async.errors import (
    ConnectionFailed,
    LocalFileError,
    PostdicomError,
    TransferError,
    UsageError,
)
from postdicom_async.face import translated

__all__ = ["FailedResponse", "HTTPError", "as_callers_catch_it"]


class FailedResponse:
    """What is known of an answer that was an error, with the names that ``requests.Response`` has for it.

    Attributes:
        status_code: the HTTP status.
        reason: the standard's words for it.
        text: the server's words, masked as in the error's own text; empty if there were none.
        headers: empty.
        url: empty.
        ok: False.
    """

    def __init__(self, status_code: int, text: str) -> None:
        self.status_code: int = status_code
        self.reason: str = _phrase_of(status_code)
        self.text: str = text
        self.headers: dict[str, str] = {}
        self.url: str = ""
        self.ok: bool = False

    @property
    def content(self) -> bytes:
        """``text`` as bytes."""
        return self.text.encode()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<Response [{self.status_code}]>"


class HTTPError(PostdicomError):
    """The archive answered with an error. Also one of `NotFound`, `AuthenticationFailed`, `RateLimited`, `ServerError`.

    Where ``requests`` is installed, it is a ``requests.HTTPError`` too.

    Attributes:
        response: the status, and the server's masked words.
        request: None.
    """

    response: FailedResponse
    request: None


class _Failure:
    """The base of the classes made here: it says how to pickle them, since they have no place to be found at."""

    def __reduce__(self: Any) -> tuple[Any, ...]:
        kind = next(base for base in type(self).__mro__ if base.__module__ == PostdicomError.__module__)
        state = {name: value for name, value in vars(self).items() if name not in _LEFT_OUT}
        return _made_again, (kind, self.args, state)


_LEFT_OUT: Final = frozenset({"response", "request"})
_AS_THEY_ARE: Final = (UsageError, LocalFileError, TransferError)  # not the network's fault


def _made_again(kind: type[PostdicomError], args: tuple[Any, ...], state: dict[str, Any]) -> PostdicomError:
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(state)
    return in_requests_terms(error)


def _phrase_of(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else ""


@cache
def _requests_exceptions() -> Any:
    """Return the module of ``requests`` with its exceptions, None if it is not installed or cannot be imported."""
    try:
        return import_module("requests.exceptions")
    except Exception:  # noqa: BLE001 - an installation that is broken is none; its warnings may be errors
        return None


_classes: dict[tuple[type, bool], type[PostdicomError]] = {}


def _class_of(kind: type[PostdicomError], *, with_response: bool) -> type[PostdicomError]:
    """Return the class for errors of a kind that callers of requests catch as well; always the same one."""
    if (known := _classes.get((kind, with_response))) is not None:
        return known
    theirs = _requests_exceptions()
    name = "RequestException"
    if with_response:
        name = "HTTPError"
    elif issubclass(kind, ConnectionFailed):
        name = "ConnectionError"
    bases: list[type] = [HTTPError] if with_response else []
    bases += [_Failure, kind] if theirs is None else [_Failure, kind, getattr(theirs, name)]
    made = type(kind.__name__, tuple(bases), {"__module__": __name__, "__doc__": kind.__doc__})
    return _classes.setdefault((kind, with_response), made)


def in_requests_terms(error: PostdicomError) -> PostdicomError:
    """Return an error of the same kind, with the same attributes, that callers of ``requests`` catch as well."""
    if isinstance(error, (*_AS_THEY_ARE, _Failure)):
        return error
    refused = error.status is not None and not 200 <= error.status < 300
    kind = _class_of(type(error), with_response=refused)
    new = kind.__new__(kind)
    new.args = error.args
    vars(new).update(vars(error))
    response = FailedResponse(error.status or 0, str(error.reason or "")) if refused else None
    vars(new).update(request=None, response=response)
    return new


def as_callers_catch_it() -> translated[PostdicomError]:
    """Return a ``with`` block that gives errors of the package the form of `in_requests_terms`."""
    return translated(PostdicomError, in_requests_terms)
