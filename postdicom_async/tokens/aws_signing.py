"""Requests signed for AWS, with the keys that botocore finds (extra ``aws``)."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncGenerator, Generator
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import httpx

from postdicom_async.errors import AuthenticationFailed, UsageError
from postdicom_async.face import public_face, translated
from postdicom_async.http.endpoint import is_loopback
from postdicom_async.tokens.in_threads import in_thread, no_identity, require_extra
from postdicom_async.tokens.sigv4 import UNSIGNED, AwsKeys, signature_headers, strict_target

_SIGNED = ("host", "content-type")
_NOTHING = hashlib.sha256().hexdigest()


@public_face
def aws(
    region: str,
    *,
    service: str = "medical-imaging",
    credentials: Any = None,
    payload: Literal["signed", "unsigned"] = "signed",
) -> httpx.Auth:
    """Return signatures of this program's identity at AWS (Signature Version 4), for ``auth=``.

    botocore finds the keys: variables such as ``AWS_ACCESS_KEY_ID``, the profile of ``AWS_PROFILE``, web identity, or
    the role of the container or machine. They are looked for with the first request, and again before they end.

    Args:
        region: such as ``us-east-1``.
        service: its name in signatures; by default AWS HealthImaging's.
        credentials: keys of botocore (``session.get_credentials()``) instead of those it finds.
        payload: ``"signed"`` reads each body that is sent a first time for its hash; ``"unsigned"`` leaves it out of
            the signature, over ``https://``, where the service allows that.

    Raises:
        UsageError: botocore is not installed, or an argument is wrong.
    """
    require_extra("botocore", "aws")
    for name, value in (("region", region), ("service", service)):
        if not isinstance(value, str) or not value or not value.replace("-", "").isalnum():
            raise UsageError("give a name such as us-east-1", argument=name)
    if payload not in {"signed", "unsigned"}:
        raise UsageError("give signed or unsigned", argument="payload")
    return _AwsAuth(region, service, _Keys(credentials), is_signed=payload == "signed")


class _AwsAuth(httpx.Auth):
    """Signs each request anew; a body is read from its beginning for each."""

    def __init__(self, region: str, service: str, keys: _Keys, *, is_signed: bool) -> None:
        self._region = region
        self._service = service
        self._keys = keys
        self._is_signed = is_signed

    def __repr__(self) -> str:
        return f"<tokens.aws {self._region} {self._service}>"

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Refuse: requests are asynchronous here."""
        del request
        raise RuntimeError("use it with an asynchronous client")

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Sign a request, and send it once."""
        keys = await self._keys.get()
        target = strict_target(request.url.raw_path.decode("ascii"))
        request.url = request.url.copy_with(raw_path=target.encode("ascii"))
        leaves_out = not self._is_signed and (request.url.scheme == "https" or is_loopback(str(request.url)))
        headers = {name: request.headers[name] for name in _SIGNED if name in request.headers}
        request.headers.update(
            signature_headers(
                request.method,
                target,
                headers,
                UNSIGNED if leaves_out else await _hash_of(request),
                keys,
                region=self._region,
                service=self._service,
                now=datetime.now(UTC),
            )
        )
        yield request


async def _hash_of(request: httpx.Request) -> str:
    try:
        return hashlib.sha256(request.content).hexdigest()
    except httpx.RequestNotRead:
        pass
    digest = hashlib.sha256()
    async for piece in request.stream:  # type: ignore[union-attr]  # the session's bodies are asynchronous
        digest.update(piece)
        await asyncio.sleep(0)  # a body from memory would hold the event loop until its end
    return digest.hexdigest()


class _Keys:
    """The keys, found when they are first asked for. Only what may block is done in a thread, by one at a time."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials
        self._asking = threading.Lock()

    async def get(self) -> AwsKeys:
        """Return the keys that are good now.

        Raises:
            AuthenticationFailed: there are none.
        """
        found = self._credentials
        if found is not None and not (hasattr(found, "refresh_needed") and found.refresh_needed()):
            return self._frozen()
        return await in_thread(self._found)

    def _found(self) -> AwsKeys:
        with self._asking, translated(Exception, partial(no_identity, "aws", _is_final)):
            if self._credentials is None:
                import botocore.session

                self._credentials = botocore.session.get_session().get_credentials()
            return self._frozen()

    def _frozen(self) -> AwsKeys:
        if self._credentials is None:
            raise AuthenticationFailed("aws gave no credentials; none were found")
        keys = self._credentials.get_frozen_credentials()
        return AwsKeys(keys.access_key, keys.secret_key, keys.token)


def _is_final(error: Exception) -> bool:
    from botocore.exceptions import ConfigParseError, NoCredentialsError, PartialCredentialsError, ProfileNotFound

    if isinstance(error, AuthenticationFailed):
        return True
    return isinstance(error, NoCredentialsError | PartialCredentialsError | ProfileNotFound | ConfigParseError)
