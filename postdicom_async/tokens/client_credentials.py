"""OAuth 2.0 client credentials (RFC 6749 section 4.4): a program's own identity, without a user who logs in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx

from postdicom_async.bodies import BytesBody
from postdicom_async.errors import AuthenticationFailed, PostdicomError, UsageError
from postdicom_async.face import public_face, translated
from postdicom_async.http.credentials import EARLY, Road, Token, TokenIssuer
from postdicom_async.http.endpoint import checked_url, is_loopback, origin_of
from postdicom_async.http.exchange import Call, OriginPath
from postdicom_async.http.retry import Repeat, parse_retry_after
from postdicom_async.http.session import Session
from postdicom_async.settings import Retry, Settings
from postdicom_async.tokens.answers import NotGranted, read_answer

if TYPE_CHECKING:
    from postdicom_async.http.answer import Answer

_OPERATION = "get a token"
_ANSWER_BYTES = 256 * 1024
_OF_OURS = frozenset({"grant_type", "scope", "audience", "client_id", "client_secret"})

# A token comes in a moment or not at all, and everything waits for it.
_SILENCE, _DEADLINE = 30.0, 60.0


@public_face
class ClientCredentials(TokenIssuer):
    """Tokens for a client (program, service account) of an identity provider, for ``auth=`` of any `DicomWeb`.

    A token is asked for with the first request, ``early`` seconds before it ends while requests go on with the one that
    is still good, and when an archive refuses it with 401; each time by one request, however many need it. All clients
    with this object, and their copies, share the token. Requests for tokens go the way of the archive's: its
    authorities, client certificate, proxy or transport; verification of certificates stays on. They follow no redirect.

    Where there is no token, calls raise `AuthenticationFailed`: ``temporary`` if the endpoint cannot be reached or
    fails, after the repeats of `Retry`; at once if it refuses the client.

    Args:
        token_url: the token endpoint; ``https://``, but ``http://`` on this machine.
        client_id: the client.
        client_secret: its secret. It is in no ``repr``, and this object cannot be pickled.
        scope: what the token is for, one text or several.
        audience: for whom the token is, where the provider asks for that (Auth0); not a part of RFC 6749.
        client_auth: how the client identifies itself: ``"basic"``, in a header, or ``"post"``, in the body.
        early: seconds before its end at which a token is replaced; at half of its time if that is later.
        parameters: other parameters of the request, such as ``resource``.
        settings: other settings for the requests for tokens than those of the archive: TLS, proxy, time-outs.

    Raises:
        UsageError: an argument is wrong, or the secret would travel unencrypted.
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str,
        *,
        scope: str | Iterable[str] = "",
        audience: str | None = None,
        client_auth: Literal["basic", "post"] = "basic",
        early: float = EARLY,
        parameters: Mapping[str, str] | None = None,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(early=_checked_early(early))
        self._origin, self._path = checked_token_url(token_url)
        self._client = _checked_text("client_id", client_id), _checked_text("client_secret", client_secret)
        self._asked = _checked_parameters(parameters)
        scopes = _checked_scopes(scope)
        self._asked |= {"grant_type": "client_credentials"}
        self._asked |= {"scope": scopes} if scopes else {}
        self._asked |= {"audience": _checked_text("audience", audience)} if audience else {}
        if client_auth not in {"basic", "post"}:
            raise UsageError("give basic or post", argument="client_auth")
        self._in_body = client_auth == "post"
        if not isinstance(settings, Settings | None):
            raise UsageError("give Settings(...), or None", argument="settings")
        self._settings = settings

    def __repr__(self) -> str:
        return f"<ClientCredentials {getattr(self, '_origin', '')}>"

    async def issue(self, road: Road) -> Token:
        """Ask the endpoint for a token, once. The clients do this; there is no need to call it.

        Raises:
            AuthenticationFailed: it gave none.
        """
        settings = _for_tokens(self._settings or _elsewhere(road.settings))
        transport = None if road.transport is None else _Lent(road.transport)
        with translated(PostdicomError, _no_token):
            auth = None if self._in_body else _in_header(*self._client)
            session = Session(self._origin, auth=auth, settings=settings, transport=transport)
            await session.open()
            try:
                answer = await session.fetch(self._call(), cap=_ANSWER_BYTES)
            finally:
                await session.close()
        return _token_of(answer)

    def _call(self) -> Call:
        form = dict(self._asked)
        if self._in_body:
            form |= dict(zip(("client_id", "client_secret"), self._client, strict=True))
        return Call(
            _OPERATION,
            "POST",
            OriginPath(self._path),
            Repeat.READ,
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            body=BytesBody(urlencode(form).encode()),
            accepted=frozenset(range(300, 600)),
            private=self._client,
        )


def _in_header(client_id: str, client_secret: str) -> tuple[str, str]:
    """Return user and password of HTTP Basic: each is encoded as in a form first (RFC 6749 section 2.3.1)."""
    return quote_plus(client_id), quote_plus(client_secret)


def _token_of(answer: Answer) -> Token:
    found = read_answer(answer.status, answer.body)
    if isinstance(found, NotGranted):
        raise AuthenticationFailed(
            found.words,
            status=answer.status,
            temporary=found.temporary,
            retry_after=parse_retry_after(answer.headers.get("retry-after"), datetime.now(UTC)),
        )
    return Token(found.value, found.expires_in)


def _no_token(error: PostdicomError) -> AuthenticationFailed:
    """Return the error for a request that got no answer. The engine's words are about archives."""
    words = error.message.replace("the archive", "the token endpoint")
    return AuthenticationFailed(f"no token: {words}", temporary=error.temporary)


class _Lent(httpx.AsyncBaseTransport):
    """The transport of an archive's client, which closes it itself."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on."""
        return await self._transport.handle_async_request(request)


# --- settings and arguments -------------------------------------------------------------------------------------------


def _elsewhere(settings: Settings) -> Settings:
    """Return an archive's settings for another server.

    Certificates count there even if the archive's do not, and the archive's headers, which may be secrets, stay away.
    """
    return replace(settings, headers={}, tls=replace(settings.tls, accept_any_certificate=False))


def _for_tokens(settings: Settings) -> Settings:
    """Return the settings of one attempt: the archive's request is what is repeated, and told of."""
    old = settings.timeouts
    waits = ("answer", "search_answer", "idle_read", "idle_write")
    silence = {name: min(getattr(old, name), _SILENCE) for name in waits}
    deadline = _DEADLINE if old.deadline is None else min(old.deadline, _DEADLINE)
    return replace(
        settings,
        timeouts=replace(old, deadline=deadline, **silence),
        retry=Retry(max_attempts=1),
        allow_http_credentials=False,
        chunked_upload=False,
        on_event=None,
        before_request=None,
    )


def checked_token_url(token_url: str) -> tuple[str, str]:
    """Return origin and path of a token endpoint; a query is part of it (RFC 6749 section 3.2).

    Raises:
        UsageError: it is no address, holds a user, or is not encrypted.
    """
    if not isinstance(token_url, str):
        raise UsageError("give an address such as https://login.example/oauth2/token", argument="token_url")
    url, question, query = token_url.partition("?")
    with translated(UsageError, lambda error: UsageError(error.problem, argument="token_url")):
        checked_url(url)
    if any(not char.isprintable() or char.isspace() or char == "#" for char in query):
        raise UsageError("the address holds a space, '#' or a control character", argument="token_url")
    if urlsplit(url).scheme == "http" and not is_loopback(url):
        raise UsageError("the secret would travel unencrypted; use https://", argument="token_url")
    return origin_of(url), (urlsplit(url).path or "/") + question + query


def _checked_text(argument: str, value: Any) -> str:
    if not isinstance(value, str) or not value or value.encode("utf-8", "replace").decode("utf-8") != value:
        raise UsageError("give text", argument=argument)
    return value


def _checked_scopes(scope: Any) -> str:
    several: list[Any] = [scope] if isinstance(scope, str) else list(scope) if isinstance(scope, Iterable) else [None]
    if not all(isinstance(one, str) for one in several):
        raise UsageError("give text, or several texts as a list", argument="scope")
    return " ".join(several)


def _checked_parameters(parameters: Mapping[str, str] | None) -> dict[str, str]:
    found = {_checked_text("parameters", name): value for name, value in (parameters or {}).items()}
    if taken := sorted(_OF_OURS & set(found)):
        raise UsageError(f"{taken[0]} is set by itself", argument="parameters")
    for value in found.values():
        _checked_text("parameters", value)
    return found


def _checked_early(early: float) -> float:
    if isinstance(early, bool) or not isinstance(early, int | float) or not 0 <= early < float("inf"):
        raise UsageError("give seconds, from 0 on", argument="early")
    return float(early)
