"""What a token endpoint answered (RFC 6749 section 5): a token, or why there is none. Pure.

Nothing of an answer's own text is shown: an endpoint may repeat the request, which holds the secret. Of the error codes
those of the standards are named.
"""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import Any, Final, NamedTuple


class Granted(NamedTuple):
    """A token, and the seconds that it is good; None if the answer does not say."""

    value: str
    expires_in: float | None

    def __repr__(self) -> str:
        """Return nothing of the token."""
        return "<Granted>"


class NotGranted(NamedTuple):
    """Why there is no token.

    Attributes:
        words: one sentence, of this package's own words.
        temporary: whether the same request may be granted later.
    """

    words: str
    temporary: bool = False


_HINTS: Final[dict[str, str]] = {
    "invalid_client": "check client_id, client_secret and client_auth",
    "invalid_request": "check scope, audience and client_auth",
    "invalid_grant": "the client's credentials are not valid for this grant",
    "unauthorized_client": "this client may not use the client credentials grant",
    "unsupported_grant_type": "the endpoint does not offer the client credentials grant",
    "invalid_scope": "check scope",
    "invalid_target": "check audience",
    "access_denied": "this client may not have that scope or audience",
    "temporarily_unavailable": "it may be back later",
    "server_error": "it may be back later",
}
"""The codes that are shown: RFC 6749 sections 5.2 and 4.1.2.1, RFC 8707 section 2."""

_PASS = frozenset({"temporarily_unavailable", "server_error"})
_PASSING_STATUSES = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


def read_answer(status: int, body: bytes) -> Granted | NotGranted:
    """Return what an endpoint's whole answer says."""
    told = _object(body)
    if 200 <= status < 300:
        return NotGranted("the token endpoint's answer is not a JSON object") if told is None else _granted(told)
    if 300 <= status < 400:
        return NotGranted("the token endpoint answered with a redirect, which is not followed; check token_url")
    code = None if told is None else told.get("error")
    passes = code in _PASS if isinstance(code, str) else False
    passes = passes or status >= 500 or status in _PASSING_STATUSES
    if isinstance(code, str) and code in _HINTS:
        return NotGranted(f"the token endpoint answered {code}: {_HINTS[code]}", passes)
    if passes:
        return NotGranted(f"the token endpoint is not available at the moment (status {status})", temporary=True)
    hint = "check token_url" if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED} else "check the client"
    return NotGranted(f"the token endpoint refused the request with status {status}; {hint}")


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _granted(told: dict[str, Any]) -> Granted | NotGranted:
    value, kind = told.get("access_token"), told.get("token_type", "bearer")
    if not (isinstance(value, str) and value and value.isascii() and value.isprintable() and " " not in value):
        return NotGranted("the token endpoint's answer holds no access_token that can be sent")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return NotGranted("the token endpoint gave a token that is no bearer token (token_type)")
    return Granted(value, _seconds(told.get("expires_in")))


def _seconds(told: object) -> float | None:
    """Return a lifetime, which some endpoints write as text; None where it is none."""
    try:
        seconds = math.nan if isinstance(told, bool) else float(told)  # type: ignore[arg-type]  # anything JSON holds
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < math.inf else None
