"""The pages of shares over HTTP: who has the link, and the password if there is one, needs no account."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from postdicom_async.emulator.answers import RouteRow, base_url, header_text
from postdicom_async.emulator.context import ArchiveContext
from postdicom_async.emulator.pages.page import Section, message_page, password_page, share_page
from postdicom_async.emulator.pages.style import STYLE_SOURCE
from postdicom_async.emulator.pages.zip_stream import ZipEntry, zip_answer
from postdicom_async.emulator.vendor.folders import StoredFolders
from postdicom_async.emulator.vendor.orders import StoredOrder, StoredOrders
from postdicom_async.emulator.vendor.shares import SHARE_PATH, StoredShare, StoredShares

__all__ = ["SharePages", "share_routes"]

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
    """There is nothing to see; holds the answer that says why."""

    def __init__(self, answer: Response) -> None:
        super().__init__("closed")
        self.answer = answer


def share_routes(context: ArchiveContext) -> list[RouteRow]:
    """Return method, path and handler of the pages."""
    pages = SharePages(context)
    link = f"{SHARE_PATH}/{{token}}"
    return [
        ("GET", link, pages.show),
        ("POST", link, pages.enter),
        ("GET", f"{link}/download", pages.download),
        ("GET", f"{link}/download/{{order}}", pages.download),
    ]


class SharePages:
    """The handlers. A password is compared once; a cookie that only this process can make says so afterwards."""

    def __init__(self, context: ArchiveContext) -> None:
        self._context = context
        self._orders = StoredOrders(context.store, context.options.institution_uuid)
        self._folders = StoredFolders(context.store)
        self._shares = StoredShares(context.store)
        self._secret = secrets.token_bytes(32)

    async def show(self, request: Request) -> Response:
        """Handle the link itself: the list, or the question for the password."""
        try:
            share = await self._share(request)
        except _Closed as closed:
            return closed.answer
        if not self._is_open(share, request):
            return _page(password_page(_path(request), wrong=False))
        title, sections = await self._context.run(self._listing, share)
        download = f"{_path(request)}/download" if share.downloadable else ""
        return _page(share_page(title, share.description, sections, expires=share.expires, download=download))

    async def enter(self, request: Request) -> Response:
        """Handle the form with the password."""
        try:
            share = await self._share(request)
            password = await _password(request)
        except _Closed as closed:
            return closed.answer
        if share.password_hash:
            address, guesses = request.client.host if request.client else "", self._context.share_guesses
            if wait := guesses.begin(address):
                return _slow_down(wait)
            if not await self._context.run(share.opens_with, password):
                return _page(password_page(_path(request), wrong=True), 403, "the password is wrong")
            guesses.right(address)
        answer = RedirectResponse(_path(request), 303, _HEADERS)
        secure = request.url.scheme == "https"
        answer.set_cookie(_COOKIE, self._key(share), path=_path(request), secure=secure, httponly=True, samesite="lax")
        return answer

    async def download(self, request: Request) -> Response:
        """Handle the files of one order, or of all."""
        try:
            share = await self._share(request)
            self._require_download(share, request)
            orders = await self._context.run(self._orders_of, share, request.path_params.get("order"))
        except _Closed as closed:
            return closed.answer
        name = "study.zip" if "order" in request.path_params else "studies.zip"
        headers = {**_HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
        return zip_answer(self._context, self._entries(orders), headers)

    async def _share(self, request: Request) -> StoredShare:
        """Return what the link names.

        Raises:
            _Closed: 404 or 410.
        """
        token = request.path_params["token"]
        share = await self._context.run(self._shares.find, token) if _TOKEN.fullmatch(token) else None
        if share is None:
            raise _Closed(_message(404, "Nothing here", "This link does not exist. Was all of it copied?"))
        if share.has_expired:
            raise _Closed(_message(410, "This link has expired", "Ask the person who sent it to you for a new one."))
        return share

    def _is_open(self, share: StoredShare, request: Request) -> bool:
        given = request.cookies.get(_COOKIE, "").encode("utf-8", "replace")
        return not share.password_hash or hmac.compare_digest(given, self._key(share).encode())

    def _key(self, share: StoredShare) -> str:
        return hmac.new(self._secret, f"{share.token_hash}{share.password_hash}".encode(), hashlib.sha256).hexdigest()

    def _require_download(self, share: StoredShare, request: Request) -> None:
        if not self._is_open(share, request):
            raise _Closed(_page(password_page(_path(request), wrong=False), 403, "the password is needed"))
        if not share.downloadable:
            raise _Closed(_message(403, "No download", "What is shared here may be looked at, not downloaded."))

    def _listing(self, share: StoredShare) -> tuple[str, list[Section]]:
        """Return title and content; blocks. A folder's own orders come first, then those of the folders below."""
        if not share.folder_uuid:
            return "Shared studies", [Section("", self._orders.some(share.order_uuids))]
        folder = self._folders.one(share.folder_uuid)
        places = [(folder.uuid, "")] + [(below.uuid, below.name) for below in self._folders.below(folder.uuid)]
        sections = [Section(name, self._orders.some(self._folders.order_uuids(uuid))) for uuid, name in places]
        return share.title or folder.name, sections

    def _orders_of(self, share: StoredShare, uuid: str | None) -> list[StoredOrder]:
        """Return the orders to hand out, each once; blocks.

        Raises:
            _Closed: 404 when none of them is shared and has files.
        """
        _, sections = self._listing(share)
        shared = {order.uuid: order for section in sections for order in section.orders if order.images_count}
        orders = [order for order in shared.values() if uuid in {None, order.uuid}]
        if not orders:
            raise _Closed(_message(404, "Nothing here", "There are no such images in this share."))
        return orders

    def _entries(self, orders: Sequence[StoredOrder]) -> Iterator[ZipEntry]:
        for number, order in enumerate(orders, 1):
            folder = f"study{number}/" if len(orders) > 1 else ""
            for instance in self._orders.instances(order):
                yield f"{folder}{instance.uids.series_instance_uid}/{instance.uids.sop_instance_uid}.dcm", instance


async def _password(request: Request) -> str:
    """Read the form.

    Raises:
        _Closed: 413 when it is too long, 400 when it is no form.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            raise _Closed(_message(413, "Too long", "That is more than a password."))
    try:
        return parse_qs(body.decode("ascii", "replace"), max_num_fields=5).get("password", [""])[0]
    except ValueError:
        raise _Closed(_message(400, "Not understood", "That is no password form.")) from None


def _path(request: Request) -> str:
    """Return the path of the link, without the archive's host: a browser may know it by another name."""
    return f"{urlsplit(base_url(request)).path}{SHARE_PATH}/{request.path_params['token']}"


def _slow_down(wait: int) -> Response:
    answer = _message(429, "Too many attempts", f"Wait {wait} seconds, then open the link again.")
    answer.headers["Retry-After"] = str(wait)
    return answer


def _message(status: int, title: str, words: str) -> Response:
    return _page(message_page(title, words), status, title)


def _page(html: str, status: int = 200, reason: str = "") -> Response:
    headers = {**_HEADERS, "X-Error-Reason": header_text(reason)} if reason else _HEADERS
    return HTMLResponse(html, status, headers)
