"""Credentials, proxies and certificates of a ``requests.Session``, in this package's terms; and such sessions.

``DICOMwebClient(session=…)`` takes a ``requests.Session``, or one of the functions' here, which need no ``requests``:
they have the incumbent's names. A session is read once, when the client is made; nothing is sent through it. What in it
cannot be carried over is a `UsageError`, not silence.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import anyio.to_thread
import httpx

from postdicom_async.errors import LocalFileError, UsageError
from postdicom_async.http.endpoint import origin_of

if TYPE_CHECKING:
    from postdicom_async.http.credentials import Auth

__all__ = [
    "HttpSession",
    "SessionLike",
    "add_certs_to_session",
    "create_session",
    "create_session_from_auth",
    "create_session_from_gcp_credentials",
    "create_session_from_user_pass",
]


class SessionLike(Protocol):
    """What is read of a session: a ``requests.Session`` or an `HttpSession`."""

    auth: Any
    headers: Any
    proxies: Any
    verify: Any
    cert: Any
    trust_env: bool


@dataclass
class HttpSession:
    """The part of a ``requests.Session`` that can be carried over.

    Attributes:
        auth: as for ``DICOMwebClient(auth=…)``, or an object of ``requests.auth``.
        headers: sent with every request.
        proxies: by scheme, or by scheme and host, as requests has them.
        verify: True, False, or the path of a file of authorities.
        cert: the path of a client certificate, or a pair of it and its key.
        trust_env: use proxies and authorities that the environment names.
    """

    auth: Any = field(default=None, repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    proxies: dict[str, str] = field(default_factory=dict, repr=False)
    verify: bool | str = True
    cert: str | tuple[str, str] | None = None
    trust_env: bool = True


def create_session() -> HttpSession:
    """Return a session without credentials."""
    return HttpSession()


def create_session_from_auth(auth: Any) -> HttpSession:
    """Return a session with credentials: those of `DICOMwebClient`, or an object of ``requests.auth``."""
    return HttpSession(auth=auth)


def create_session_from_user_pass(username: str, password: str) -> HttpSession:
    """Return a session for a user name and a password."""
    return HttpSession(auth=(username, password))


def create_session_from_gcp_credentials(google_credentials: Any = None) -> HttpSession:
    """Return a session for credentials of ``google-auth``; those of the environment without any.

    Raises:
        UsageError: the extra ``google`` is not installed.
    """
    return HttpSession(auth=_google(google_credentials))


def add_certs_to_session(session: SessionLike, ca_bundle: str | None = None, cert: str | None = None) -> SessionLike:
    """Add the path of a file of authorities, and of a client certificate, to a session, and return it.

    Raises:
        LocalFileError: a file does not exist.
    """
    for name, path in (("verify", ca_bundle), ("cert", cert)):
        if path is not None:
            whole = Path(path).expanduser()
            if not whole.exists():
                raise LocalFileError("the file of the certificate does not exist")
            setattr(session, name, str(whole))
    return session


# --- reading one ------------------------------------------------------------------------------------------------------

_OF_REQUESTS = {"accept", "accept-encoding", "connection", "content-type", "content-length", "host", "user-agent"}
_NOT_CARRIED_OVER = {
    "params": "parameters of the session are not sent; give additional_params to the calls",
    "cookies": "cookies are not sent; give auth= or headers=",
}


def headers_of(session: SessionLike) -> dict[str, str]:
    """Return the headers that a session's owner has added."""
    found = {str(name): str(value) for name, value in dict(session.headers or {}).items()}
    agent = next((value for name, value in found.items() if name.lower() == "user-agent"), "")
    own = {name: value for name, value in found.items() if name.lower() not in _OF_REQUESTS}
    return own | ({"User-Agent": agent} if agent and not agent.startswith("python-requests/") else {})


def auth_of(session: SessionLike) -> Auth:
    """Return a session's credentials.

    Raises:
        UsageError: something in it cannot be carried over.
    """
    for name, why in _NOT_CARRIED_OVER.items():
        if getattr(session, name, None):
            raise UsageError(why, argument="session")
    if any((getattr(session, "hooks", None) or {}).values()):
        raise UsageError("hooks of the session are not called; use settings=Settings(on_event=…)", argument="session")
    if (credentials := getattr(session, "credentials", None)) is not None and hasattr(credentials, "before_request"):
        return _google(credentials)  # google.auth.transport.requests.AuthorizedSession
    home = next((kind.__module__ for kind in type(session).__mro__ if "request" in vars(kind)), "")
    if home and home.partition(".")[0] != "requests":
        raise UsageError("this kind of session sends requests in its own way; give auth= instead", argument="session")
    return auth_like_requests(session.auth)


def auth_like_requests(auth: Any) -> Auth:
    """Return credentials given as ``requests`` takes them, or as `DicomWeb` does."""
    kinds = [f"{kind.__module__}.{kind.__name__}" for kind in type(auth).__mro__]
    if "requests.auth.HTTPDigestAuth" in kinds:
        return httpx.DigestAuth(auth.username, auth.password)
    if "requests.auth.HTTPBasicAuth" in kinds and "requests.auth.HTTPProxyAuth" not in kinds:
        return (_text(auth.username), _text(auth.password))
    if "requests.auth.AuthBase" in kinds:
        return _RequestsAuth(auth)
    found: Auth = auth
    return found


def auth_from_header(value: str) -> Auth:
    """Return the credentials in the value of an ``Authorization`` header."""
    scheme, _, rest = value.partition(" ")
    if scheme.lower() == "bearer" and rest:
        return rest.strip()
    if scheme.lower() == "basic":
        with suppress(ValueError):
            user, _, password = b64decode(rest, validate=True).decode().partition(":")
            return (user, password)
    return _Signing(lambda _method, _url, _headers: {"Authorization": value})


def _google(credentials: Any) -> Auth:
    from postdicom_async.tokens.google_cloud import google

    return google(credentials)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def proxy_of(proxies: Mapping[str, str] | None, url: str) -> str | None:
    """Return the proxy for an address, chosen as ``requests`` does.

    Raises:
        UsageError: ``proxies`` is no mapping.
    """
    if proxies is None:
        return None
    if not isinstance(proxies, Mapping):
        raise UsageError("give a mapping of a scheme to the address of a proxy", argument="proxies")
    scheme, _, rest = origin_of(url).partition("://")
    host = httpx.URL(f"{scheme}://{rest}").host
    names = (f"{scheme}://{host}", scheme, f"all://{host}", "all")
    return next((proxies[name] for name in names if proxies.get(name)), None)


# --- credentials of other libraries ---------------------------------------------------------------------------------


class _Signing(httpx.Auth):
    """Has a blocking function sign the headers of each request, in a thread: it may fetch a token."""

    def __init__(self, sign: Callable[[str, str, dict[str, str]], Mapping[str, Any]]) -> None:
        self._sign = sign

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Add what the function adds."""
        method, url, headers = request.method, str(request.url), dict(request.headers)
        signed = await anyio.to_thread.run_sync(self._sign, method, url, headers, limiter=anyio.CapacityLimiter(1))
        for name, value in signed.items():
            if request.headers.get(name) != _text(value):
                request.headers[name] = _text(value)
        yield request


class _RequestsAuth(_Signing):
    """An object of ``requests.auth``: it gets a request to sign. Hooks that it adds are not called."""

    def __init__(self, auth: Callable[[Any], Any]) -> None:
        def sign(method: str, url: str, headers: dict[str, str]) -> Mapping[str, Any]:
            import requests

            prepared = requests.PreparedRequest()
            prepared.prepare(method=method, url=url, headers=headers)
            found: Mapping[str, Any] = auth(prepared).headers
            return {name: value for name, value in found.items() if name.lower() != "content-length"}

        super().__init__(sign)
