"""Google Cloud's identities, by google-auth (extra ``google``)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from postdicom_async.face import public_face
from postdicom_async.http.credentials import Token, TokenIssuer
from postdicom_async.tokens.in_threads import ThreadedIssuer, require_extra

_HEALTHCARE = "https://www.googleapis.com/auth/cloud-healthcare"


@public_face
def google(credentials: Any = None, *, scopes: Sequence[str] = (_HEALTHCARE,)) -> TokenIssuer:
    """Return the identity that this program has at Google Cloud, for ``auth=``.

    google-auth finds it ("application default credentials"): the file of ``GOOGLE_APPLICATION_CREDENTIALS``, what
    ``gcloud auth application-default login`` left, workload identity, or the service account of the machine. It is
    looked for with the first request. It uses the proxies of the environment, not those of the archive.

    Args:
        credentials: an identity of google-auth instead of the one it finds.
        scopes: what the tokens are for; by default the Cloud Healthcare API.

    Raises:
        UsageError: google-auth is not installed.
    """
    require_extra("google.auth", "google")
    require_extra("requests", "google")
    identity = _Identity(credentials, tuple(scopes))
    return ThreadedIssuer("google", identity.ask, _is_final)


class _Identity:
    """An identity, found when it is first asked for."""

    def __init__(self, credentials: Any, scopes: Sequence[str]) -> None:
        self._given = credentials
        self._scopes = scopes
        self._found: Any = None

    def ask(self) -> Token:
        import google.auth
        import google.auth.credentials
        import requests
        from google.auth.transport.requests import Request

        if self._found is None and self._given is None:
            self._found, _ = google.auth.default(scopes=self._scopes)
        elif self._found is None:
            self._found = google.auth.credentials.with_scopes_if_required(  # type: ignore[no-untyped-call]
                self._given, self._scopes
            )
        with requests.Session() as session:
            self._found.refresh(Request(session))
        return Token(self._found.token, _seconds_until(self._found.expiry))


def _seconds_until(expiry: datetime | None) -> float | None:
    """Return the time until a moment, which google-auth writes in UTC without saying so."""
    if expiry is None:
        return None
    left = (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
    return left if left > 0 else None


def _is_final(error: Exception) -> bool:
    from google.auth.exceptions import DefaultCredentialsError, RefreshError

    return isinstance(error, DefaultCredentialsError) or (isinstance(error, RefreshError) and not error.retryable)
