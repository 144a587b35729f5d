"""One request on its way out and the head of its answer: what the transport is given, and the watch over it.

An httpx client around the transport would cost as much as all that is ours: cookies, redirects and hooks that are not
used here. So the transport is asked directly; only an ``httpx.Auth`` has its flow driven.
"""

from __future__ import annotations

import ssl
from time import monotonic
from typing import TYPE_CHECKING

import httpx

from postdicom_async.errors import UsageError
from postdicom_async.face import translated
from postdicom_async.http.call import request_of
from postdicom_async.http.clocks import SentBody, Watch
from postdicom_async.http.problems import Problem, connection_failed, problem_of_exception, problem_of_timeout
from postdicom_async.http.redaction import quiet_http_logs
from postdicom_async.http.retry import Failure
from postdicom_async.http.unreached import refused_by_alert

if TYPE_CHECKING:
    from postdicom_async.http.call import Call
    from postdicom_async.http.link import Link
    from postdicom_async.settings import Settings

__all__ = ["Exchange"]

_AT_ONCE = 64 * 1024  # a body up to this goes out in one piece: what a socket takes without waiting for the other side
_FAILURES = (TimeoutError, httpx.HTTPError, httpx.InvalidURL, ssl.SSLError)


class Exchange:
    """One request of a call.

    Attributes:
        begun: whether it was handed to the transport, so that it may have left.
        met_silence: whether it ended because the archive was silent.
    """

    def __init__(self, link: Link, url: str, call: Call, settings: Settings) -> None:
        self.begun: bool = False
        self.met_silence: bool = False
        self._sent: SentBody | None = None
        self._link = link
        self._url = url
        self._call = call
        self._settings = settings
        timeouts = settings.timeouts
        self._is_small = call.body is not None and call.body.length <= _AT_ONCE and not settings.chunked_upload
        self._answer = min(timeouts.answer, timeouts.search_answer) if call.search else timeouts.answer

    async def run(self, header: str | None, auth: httpx.Auth | None) -> httpx.Response:
        """Send the request and wait for the head of the answer; silence is bounded, the whole is not.

        Raises:
            Problem: there is none.
            LocalFileError: the body cannot be read.
        """
        link, call, timeouts = self._link, self._call, self._settings.timeouts
        watch = Watch(link.clock)
        if call.body is not None:
            self._sent = SentBody(call.body, watch, timeouts, self._answer, whole=self._is_small)
        with translated(_FAILURES, self._problem_of):
            request = request_of(self._url, call, header, self._sent, self._settings)
            self.begun = True
            with watch, quiet_http_logs():
                watch.expect(monotonic() + timeouts.connect + self._answer)
                if auth is None:
                    return await link.transport.handle_async_request(request)
                return await _authenticated(link.transport, request, auth)

    def _problem_of(self, error: Exception) -> Problem:
        operation = self._call.operation
        if isinstance(error, httpx.InvalidURL):
            return Problem(Failure.FINAL, UsageError("the address cannot be used", operation=operation))
        if isinstance(error, ssl.SSLError):  # httpx's own transport lets those through that come after the handshake
            error = refused_by_alert(str(error)) or httpx.ReadError("the connection broke")
        self.met_silence = isinstance(error, TimeoutError | httpx.TimeoutException)
        if isinstance(error, httpx.HTTPError):
            return problem_of_exception(operation, error)
        if self._sent is not None and self._sent.too_slow:
            message = f"the archive takes less than {self._settings.timeouts.least_rate:g} bytes a second"
            return Problem(Failure.LOST, connection_failed(operation, message, sent=True))
        return problem_of_timeout(operation, sending=self._sent is not None and not self._sent.finished)


async def _authenticated(
    transport: httpx.AsyncBaseTransport, request: httpx.Request, auth: httpx.Auth
) -> httpx.Response:
    """Drive the flow of an ``httpx.Auth`` as httpx's client does it, which may take several requests."""
    flow = auth.async_auth_flow(request)
    try:
        request = await anext(flow)
        while True:
            response = await transport.handle_async_request(request)
            response.request = request  # digest authentication looks for cookies, which are told by it
            try:
                try:
                    following = await flow.asend(response)
                except StopAsyncIteration:
                    return _readable(response)
                await response.aread()
            except BaseException:
                await response.aclose()
                raise
            request = following
    finally:
        await flow.aclose()


def _readable(response: httpx.Response) -> httpx.Response:
    """Return an answer whose body can be read, also where the flow has read (and unpacked) it."""
    if not response.is_stream_consumed:
        return response
    unpacked = {b"content-encoding", b"content-length", b"transfer-encoding"}
    headers = [(name, value) for name, value in response.headers.raw if name.lower() not in unpacked]
    return httpx.Response(response.status_code, headers=headers, content=response.content)
