"""`DICOMwebClient`, the synchronous client: what it is made of, and how it ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar
from urllib.parse import urlsplit

from postdicom_async.dicomweb.client import DicomWeb
from postdicom_async.dicomweb.dialects import DICOMWEB, Dialect, Route
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.http.endpoint import origin_of
from postdicom_async.http.retry import Failure, failure_of_status
from postdicom_async.settings import Retry, Settings, Timeouts, Tls
from postdicom_async.sync.asking import path_prefix, prefixed
from postdicom_async.sync.changing import Changing
from postdicom_async.sync.failures import as_callers_catch_it
from postdicom_async.sync.portal import Line, connect
from postdicom_async.sync.retrieving import Retrieving
from postdicom_async.sync.searching import Searching
from postdicom_async.sync.session_utils import (
    HttpSession,
    SessionLike,
    auth_from_header,
    auth_like_requests,
    auth_of,
    headers_of,
    proxy_of,
)

if TYPE_CHECKING:
    from types import TracebackType

    from postdicom_async.http.credentials import Auth

_T = TypeVar("_T")

_RETRIED = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
_PORTS = {"http": 80, "https": 443}
_PREFIX_OF = {
    Route.STORE: "stow",
    Route.STORE_IN_STUDY: "stow",
    Route.STUDY: "wado",
    Route.SERIES: "wado",
    Route.INSTANCE: "wado",
}  # all other routes are searches


@public_face
class DICOMwebClient(Searching, Retrieving, Changing):
    """A DICOMweb archive for code without an event loop, with the names and answers of ``dicomweb-client``.

    Nothing is sent before the first call. All clients of a process share one thread, where their requests run; any
    number of threads may use a client at once. A client ends with ``close()``, as a ``with`` block, or when it is
    garbage; a child process made by a fork connects anew.

    Args:
        url: the address of the service, for example ``https://archive.example/dicom-web``.
        session: a ``requests.Session``, or one of `postdicom_async.sync.session_utils`: its credentials, headers,
            proxies and certificates are taken over; nothing is sent through it.
        qido_url_prefix: a path between the address and searches.
        wado_url_prefix: the same for retrieval.
        stow_url_prefix: the same for stores.
        delete_url_prefix: the same for deletions.
        proxies: proxies by scheme, ``{"https": "http://proxy.example:3128"}``.
        headers: sent with every request. A bearer token or a password in ``Authorization`` becomes ``auth``.
        callback: not offered: there are no responses of ``requests`` here. See ``on_event`` of `Settings`.
        chunk_size: kept and not used: data is passed on as it comes, in bounded memory.
        permissive_uid: take UIDs that are none.
        timeout: seconds to connect and to wait for an answer, or a pair of them; by default those of `Timeouts`.
        auth: credentials as for `DicomWeb`, or an object of ``requests.auth``. They go before those of the session.
        settings: limits, time-outs, retry, TLS, proxy. Without them, the proxies and the file of authorities that the
            environment names are used, as requests does (unless the session's ``trust_env`` is False).
        dialect: the server's URL shapes, as for `DicomWeb`.

    Attributes:
        base_url: the address of the service.
        protocol: ``"https"`` or ``"http"``.
        scheme: the same.
        host: the server's name.
        port: the server's port.
        url_prefix: the path in the address.
        qido_url_prefix: as given.
        wado_url_prefix: as given.
        stow_url_prefix: as given.
        delete_url_prefix: as given.

    Raises:
        UsageError: an argument is wrong, cannot be carried over, or credentials would travel unencrypted. It is a
            ``ValueError``.
    """

    _kind: Callable[..., DicomWeb] = DicomWeb

    def __init__(
        self,
        url: str,
        session: SessionLike | None = None,
        qido_url_prefix: str | None = None,
        wado_url_prefix: str | None = None,
        stow_url_prefix: str | None = None,
        delete_url_prefix: str | None = None,
        proxies: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        callback: Callable[..., Any] | None = None,
        chunk_size: int = 10**6,
        permissive_uid: bool = False,
        timeout: float | tuple[float, float] | None = None,
        *,
        auth: Auth | Any = None,
        settings: Settings | None = None,
        dialect: str | Dialect = DICOMWEB,
    ) -> None:
        self._closed = False
        self._lines: dict[int, Line] = {}  # by process: there are several after a fork
        self._retry: Retry | None = None
        self._permissive_uid = permissive_uid
        if callback is not None:
            raise UsageError(
                "there are no responses to call it with; settings=Settings(on_event=…) tells of requests",
                argument="callback",
            )
        self.set_chunk_size(chunk_size)
        session = HttpSession() if session is None else session
        own = dict(headers_of(session) | dict(headers or {}))
        credentials = _credentials(auth, session, own)
        made = _settings(url, session, settings, own, proxies, timeout)
        if not isinstance(dialect, Dialect | str):
            raise UsageError("give a name or a Dialect", argument="dialect")
        plain = dialect if isinstance(dialect, Dialect) else DicomWeb(url, dialect=dialect).internals.dialect
        prefixes = {
            "qido": path_prefix(qido_url_prefix, "qido_url_prefix"),
            "wado": path_prefix(wado_url_prefix, "wado_url_prefix"),
            "stow": path_prefix(stow_url_prefix, "stow_url_prefix"),
        }
        deleting = path_prefix(delete_url_prefix, "delete_url_prefix")
        self._deletions = replace(plain, routes=prefixed(plain, dict.fromkeys(Route, deleting)))
        by_route = {route: prefixes[_PREFIX_OF.get(route, "qido")] for route in Route}
        self._routes = replace(plain, routes=prefixed(plain, by_route))
        # nothing that refers to the client itself: it would then wait for Python's collector of cycles
        self._make: Callable[[], DicomWeb] = partial(
            self._kind, url, auth=credentials, settings=made, dialect=self._routes
        )
        self._settings = self._make().settings
        self._describe(url)
        self.qido_url_prefix: str | None = qido_url_prefix
        self.wado_url_prefix: str | None = wado_url_prefix
        self.stow_url_prefix: str | None = stow_url_prefix
        self.delete_url_prefix: str | None = delete_url_prefix

    def _describe(self, url: str) -> None:
        parts = urlsplit(url)
        self.base_url: str = url
        self.scheme: str = parts.scheme
        self.protocol: str = parts.scheme
        self.host: str = parts.hostname or ""
        self.port: int = parts.port or _PORTS[parts.scheme]
        self.url_prefix: str = parts.path

    def __repr__(self) -> str:
        base = vars(self).get("base_url")  # the constructor may have refused an argument
        return f"<DICOMwebClient {origin_of(base)}>" if base else "<DICOMwebClient>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DICOMwebClient cannot be pickled; make one in each process")

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        made = self._settings
        return made if self._retry is None else replace(made, retry=self._retry)

    # --- how it is used -----------------------------------------------------------------------------------------------

    def set_chunk_size(self, chunk_size: int) -> None:
        """Keep a number of bytes that has no effect here: data is passed on as it comes, in bounded memory.

        Raises:
            UsageError: it is no number from 1 on.
        """
        if type(chunk_size) is not int or chunk_size < 1:
            raise UsageError("give a number from 1 on", argument="chunk_size")
        self._chunk_size = chunk_size

    def set_http_retry_params(
        self,
        retry: bool = True,
        max_attempts: int = 5,
        wait_exponential_multiplier: float = 1000,
        retriable_error_codes: Iterable[int] = _RETRIED,
    ) -> None:
        """Set how requests are repeated, from the next call on; what may be repeated is decided by what they do.

        A read is repeated after any passing failure (408, 429, 500, 502, 503, 504, a broken connection), a store after
        408, 429 and 503, a deletion only if it never left. ``Retry-After`` is obeyed.

        Args:
            retry: False for no repeats.
            max_attempts: requests made for one call, the first included.
            wait_exponential_multiplier: the first wait is random up to this many milliseconds, doubling each time.
            retriable_error_codes: statuses; all of them must be among those above, and those above stay.

        Raises:
            UsageError: a number is wrong, or a status is never repeated.
        """
        if never := [int(code) for code in retriable_error_codes if failure_of_status(int(code)) is Failure.FINAL]:
            raise UsageError(f"status {never[0]} is never repeated", argument="retriable_error_codes")
        old = self._settings.retry
        wait = wait_exponential_multiplier / 1000
        self._retry = replace(old, max_attempts=max_attempts, base=wait) if retry else replace(old, max_attempts=1)

    def __enter__(self) -> Self:
        self._line()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, work: Callable[[DicomWeb], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine of the asynchronous client, and return its result: for what has no method here.

        ``client.call(lambda archive: archive.retrieve_study_rendered(study_uid))``. The coroutine runs in the client's
        thread, and must not block it.

        Raises:
            BaseException: what the coroutine raises; errors of this package in the forms that `requests` has too.
        """
        return self._run(work)

    def close(self) -> None:
        """Close every connection, and the client; what is under way in other threads fails."""
        self._closed = True
        line = self._lines.pop(os.getpid(), None)
        if line is not None:
            line.hang_up()

    def _line(self) -> Line:
        if self._closed:
            raise UsageError("the client is closed")
        here = os.getpid()
        line = self._lines.get(here)
        if line is None:  # one step: of two threads that come at once, one has its line dropped again
            with as_callers_catch_it():
                line = self._lines.setdefault(here, connect(self._make()))
        return line

    # --- names of attributes ------------------------------------------------------------------------------------------

    @staticmethod
    def lookup_keyword(tag: str | int | tuple[int, int]) -> str:
        """Return the keyword of a tag.

        Raises:
            KeyError: the standard has none.
        """
        import pydicom.datadict

        keyword = pydicom.datadict.keyword_for_tag(tag)
        if not keyword:
            raise KeyError(f"Could not find a keyword for tag {tag}.")
        return keyword

    @staticmethod
    def lookup_tag(keyword: str) -> str:
        """Return the tag of a keyword, as eight hexadecimal digits.

        Raises:
            KeyError: the standard has no such keyword.
        """
        import pydicom.datadict

        tag = pydicom.datadict.tag_for_keyword(keyword)
        if tag is None:
            raise KeyError(f'Could not find a tag for "{keyword}".')
        return f"{tag:08X}"


def _credentials(auth: Any, session: SessionLike, headers: dict[str, str]) -> Auth:
    """Return the credentials: those given, those in a header, which is taken out of ``headers``, or the session's."""
    of_session = auth_of(session)
    named = next((name for name in headers if name.lower() == "authorization"), None)
    header = None if named is None else headers.pop(named)
    if auth is not None:
        return auth_like_requests(auth)
    if header is None:
        return of_session
    return auth_from_header(header)


def _settings(
    url: str,
    session: SessionLike,
    settings: Settings | None,
    headers: dict[str, str],
    proxies: Mapping[str, str] | None,
    timeout: float | tuple[float, float] | None,
) -> Settings:
    """Return the settings given, with what the other arguments and the session say."""
    if settings is not None and not isinstance(settings, Settings):
        raise UsageError("give Settings(...), or None", argument="settings")
    made = settings or Settings(use_environment_proxies=session.trust_env)
    proxy = proxy_of(proxies, url) or proxy_of(session.proxies, url)
    return replace(
        made,
        headers={**made.headers, **headers},
        proxy=proxy or made.proxy,
        tls=_tls(made.tls, session, trust_env=settings is None and session.trust_env),
        timeouts=made.timeouts if timeout is None else _timeouts(made, timeout),
    )


def _tls(tls: Tls, session: SessionLike, *, trust_env: bool) -> Tls:
    verify: Any = session.verify
    if verify is True and trust_env:
        verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    if verify is False:
        tls = replace(tls, accept_any_certificate=True)
    elif isinstance(verify, str):
        tls = replace(tls, ca_file=Path(verify))
    if session.cert:
        certificate, key = session.cert if isinstance(session.cert, tuple) else (session.cert, None)
        tls = replace(tls, certificate=certificate, key=key)
    return tls


def _timeouts(settings: Settings, timeout: float | tuple[float, float]) -> Timeouts:
    connecting, answering = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    return replace(
        settings.timeouts, connect=connecting, answer=answering, search_answer=answering, idle_read=answering
    )
