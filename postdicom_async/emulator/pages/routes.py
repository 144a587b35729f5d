"""The pages of shares over HTTP: whoever has the link, and the password if there is one, needs no account."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from postdicom_async.emulator.answers import RouteHandler, RouteRow, base_url, header_text
from postdicom_async.emulator.context import ArchiveContext
from postdicom_async.emulator.pages.page import STYLE_SOURCE, Section, message_page, password_page, share_page
from postdicom_async.emulator.pages.zip_stream import ZipEntry, zip_answer
from postdicom_async.emulator.vendor.account import VendorAccount
from postdicom_async.emulator.vendor.orders import StoredOrder
from postdicom_async.emulator.vendor.shares import SHARE_PATH, StoredShare

_COOKIE = "share"
_FORM_BYTES = 8 * 1024
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {STYLE_SOURCE}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}


class _Closed(Exception):
    """The share cannot be opened; holds the page that says why."""

    def __init__(self, status: int, title: str, words: str, wait: int = 0) -> None:
        super().__init__("closed")
        self.answer = _page(message_page(title, words), status, title)
        if wait:
            self.answer.headers["Retry-After"] = str(wait)


def share_routes(context: ArchiveContext) -> list[RouteRow]:
    """Return method, path and handler of the pages."""
    pages = _SharePages(context)

    def handler(show: Callable[[Request, StoredShare], Awaitable[Response]]) -> RouteHandler:
        async def handle(request: Request) -> Response:
            try:
                return await show(request, await pages.share(request))
            except _Closed as closed:
                return closed.answer

        return handle

    link = f"{SHARE_PATH}/{{token}}"
    return [
        ("GET", link, handler(pages.show)),
        ("POST", link, handler(pages.enter)),
        ("GET", f"{link}/download", handler(pages.download)),
        ("GET", f"{link}/download/{{order}}", handler(pages.download)),
    ]


class _SharePages:
    """The handlers. A password is checked once; afterwards a cookie signed by this process proves it."""

    def __init__(self, context: ArchiveContext) -> None:
        self._context = context
        self._account = VendorAccount(context)
        self._secret = secrets.token_bytes(32)

    async def share(self, request: Request) -> StoredShare:
        """Return the share that the link opens, unless there is none or it has expired."""
        token = request.path_params["token"]
        share = await self._context.run(self._account.shares.find, token) if _TOKEN.fullmatch(token) else None
        if share is None:
            raise _Closed(404, "Nothing here", "This link does not exist. Was all of it copied?")
        if share.has_expired:
            raise _Closed(410, "This link has expired", "Ask the person who sent it to you for a new one.")
        return share

    async def show(self, request: Request, share: StoredShare) -> Response:
        """Handle the link itself: the list, or the question for the password."""
        if not self._is_open(share, request):
            return _page(password_page(_path(request), wrong=False))
        title, sections = await self._context.run(self._listing, share)
        download = f"{_path(request)}/download" if share.downloadable else ""
        return _page(share_page(title, share.description, sections, expires=share.expires, download=download))

    async def enter(self, request: Request, share: StoredShare) -> Response:
        """Handle the form with the password."""
        password = await _password(request)
        if share.password_hash:
            address, guesses = request.client.host if request.client else "", self._context.share_guesses
            if wait := guesses.begin(address):
                raise _Closed(429, "Too many attempts", f"Wait {wait} seconds, then open the link again.", wait)
            if not await self._context.run(share.opens_with, password):
                return _page(password_page(_path(request), wrong=True), 403, "the password is wrong")
            guesses.right(address)
        # A redirect, so that reloading the page does not send the password again.
        answer = RedirectResponse(_path(request), 303, _HEADERS)
        secure = request.url.scheme == "https"
        answer.set_cookie(_COOKIE, self._key(share), path=_path(request), secure=secure, httponly=True, samesite="lax")
        return answer

    async def download(self, request: Request, share: StoredShare) -> Response:
        """Handle the files of one order, or of all."""
        if not self._is_open(share, request):
            return _page(password_page(_path(request), wrong=False), 403, "the password is needed")
        if not share.downloadable:
            raise _Closed(403, "No download", "What is shared here may be looked at, not downloaded.")
        uuid = request.path_params.get("order")
        _, sections = await self._context.run(self._listing, share)
        shared = {order.uuid: order for section in sections for order in section.orders if order.images_count}
        orders = [order for order in shared.values() if uuid in {None, order.uuid}]
        if not orders:
            raise _Closed(404, "Nothing here", "There are no such images in this share.")
        name = "studies.zip" if uuid is None else "study.zip"
        headers = {**_HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
        return zip_answer(self._context, self._entries(orders), headers)

    def _is_open(self, share: StoredShare, request: Request) -> bool:
        given = request.cookies.get(_COOKIE, "").encode("utf-8", "replace")
        return not share.password_hash or hmac.compare_digest(given, self._key(share).encode())

    def _key(self, share: StoredShare) -> str:
        # Never the password, nor its hash: what only this process can make, and for this share alone.
        return hmac.new(self._secret, f"{share.token_hash}{share.password_hash}".encode(), hashlib.sha256).hexdigest()

    def _listing(self, share: StoredShare) -> tuple[str, list[Section]]:
        """Return title and content; blocks. A folder's own orders come first, then those of the folders below."""
        orders, folders = self._account.orders, self._account.folders
        if not share.folder_uuid:
            return "Shared studies", [Section("", orders.some(share.order_uuids))]
        folder = folders.one(share.folder_uuid)
        places = [(folder.uuid, "")] + [(below.uuid, below.name) for below in folders.below(folder.uuid)]
        sections = [Section(name, orders.some(folders.order_uuids(uuid))) for uuid, name in places]
        return share.title or folder.name, sections

    def _entries(self, orders: list[StoredOrder]) -> Iterator[ZipEntry]:
        for number, order in enumerate(orders, 1):
            folder = f"study{number}/" if len(orders) > 1 else ""
            for instance in self._account.orders.instances(order):
                yield f"{folder}{instance.uids.series_instance_uid}/{instance.uids.sop_instance_uid}.dcm", instance


async def _password(request: Request) -> str:
    """Read the form, within bounds: it comes from anybody."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            raise _Closed(413, "Too long", "That is more than a password.")
    try:
        return parse_qs(body.decode("ascii", "replace"), max_num_fields=5).get("password", [""])[0]
    except ValueError:
        raise _Closed(400, "Not understood", "That is no password form.") from None


def _path(request: Request) -> str:
    """Return the path of the link, without the archive's host: a browser may know it by another name."""
    return f"{urlsplit(base_url(request)).path}{SHARE_PATH}/{request.path_params['token']}"


def _page(html: str, status: int = 200, reason: str = "") -> Response:
    headers = {**_HEADERS, "X-Error-Reason": header_text(reason)} if reason else _HEADERS
    return HTMLResponse(html, status, headers)
