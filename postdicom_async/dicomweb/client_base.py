"""What every part of the client stands on: the session, the dialect, opening and closing, checked arguments."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from postdicom_async.dicom.uids import checked_uid
from postdicom_async.dicomweb.dialects import DIALECTS, DICOMWEB, Dialect
from postdicom_async.dicomweb.retrieve import Retrieval, Target
from postdicom_async.dicomweb.url_length import in_pieces
from postdicom_async.errors import UsageError
from postdicom_async.http.endpoint import Unset, origin_of
from postdicom_async.http.session import Session
from postdicom_async.settings import Limits, Retry, Settings, Timeouts

if TYPE_CHECKING:
    from types import TracebackType

    import httpx

    from postdicom_async.http.endpoint import Auth


__all__ = ["ClientBase", "frame_list", "given_uids", "header_value", "ladder_of", "target_of"]


class ClientBase:
    """An archive's session and dialect. `DicomWeb` is what callers use; see there for the arguments."""

    def __init__(
        self,
        url: str,
        *,
        auth: Auth = None,
        settings: Settings | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        dialect: str | Dialect = DICOMWEB,
    ) -> None:
        if not isinstance(settings, Settings | None):
            raise UsageError("settings: give Settings(...), or None")
        self._session = Session(url, auth=auth, settings=settings or Settings(), transport=transport)
        self._dialect = _dialect(dialect)
        self._retrieval = Retrieval(self._session, self._dialect)

    def __repr__(self) -> str:
        if "_retrieval" not in vars(self):  # the constructor refuses an argument, and a crash reporter looks at it
            return f"<{type(self).__name__}>"
        return f"<{type(self).__name__} {origin_of(self._session.url)} {self._dialect.name} {self.transport_name}>"

    @property
    def transport_name(self) -> str:
        """``"aiohttp"``, or ``"custom"`` for one that was passed."""
        return self._session.transport_name

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._session.settings

    async def __aenter__(self) -> Self:
        await self._session.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def with_options(
        self,
        *,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        limits: Limits | None = None,
        fsync: bool | None = None,
        auth: Auth | Unset = Unset.UNSET,
        before_request: Callable[[], Awaitable[None]] | None = None,
    ) -> Self:
        """Return a copy with other settings on the same connections, valid as long as this one is open.

        With ``auth``, every request of the copy is made in that name, and none in another: a web backend makes such a
        copy for each of its users, or requests. They share the connections, so nothing is to be used that authenticates
        a connection instead of a request (NTLM, Negotiate). ``auth=None`` sends no credentials. ``before_request`` is
        that of `Settings`.

        Raises:
            UsageError: ``timeouts.connect``, ``limits.connections`` or ``limits.parallel_searches`` would change;
                ``auth`` is not what the constructor takes, or would travel unencrypted.
        """
        old = self.settings
        settings = replace(
            old,
            timeouts=timeouts or old.timeouts,
            retry=retry or old.retry,
            limits=limits or old.limits,
            fsync=old.fsync if fsync is None else fsync,
            before_request=before_request or old.before_request,
        )
        return self._over(self._session.with_settings(settings, auth=auth))

    def _over(self, session: Session) -> Self:
        """Return a copy with another session on the same connections."""
        other = copy.copy(self)
        other._session = session  # noqa: SLF001 - a copy of this very class
        other._retrieval = self._retrieval.over(session)  # noqa: SLF001
        return other

    def _frame_pieces(self, target: Target, numbers: Sequence[int], tail: str = "") -> list[tuple[int, str]]:
        """Return, for each request that a list of frames takes, how many it asks for and its path."""

        def suffix(some: Sequence[int]) -> str:
            return f"/frames/{frame_list(some)}"

        def path(some: Sequence[int]) -> str:
            return target.path(self._dialect, suffix(some)) + tail

        longest = self._dialect.url_bytes - len(self._session.url)
        frame_list(numbers)
        return [(len(some), suffix(some)) for some in in_pieces(numbers, lambda some: len(path(some)) <= longest)]


# --- arguments ------------------------------------------------------------------------------------------------------


def _dialect(dialect: str | Dialect) -> Dialect:
    if isinstance(dialect, Dialect):
        return dialect
    if dialect not in DIALECTS:
        raise UsageError(f"dialect: give one of {', '.join(DIALECTS)}")
    return DIALECTS[dialect]


def target_of(study: str, series: str | None = None, instance: str | None = None) -> Target:
    """Return the resource that checked UIDs address."""
    return Target(
        checked_uid(study, "study_instance_uid"),
        None if series is None else checked_uid(series, "series_instance_uid"),
        None if instance is None else checked_uid(instance, "sop_instance_uid"),
    )


def given_uids(**uids: str | None) -> dict[str, str]:
    """Return the UIDs that were given, checked, by the placeholders of a dialect."""
    return {name.partition("_")[0]: checked_uid(uid, name) for name, uid in uids.items() if uid is not None}


def frame_list(numbers: Sequence[int]) -> str:
    """Return frame numbers as they stand in a path."""
    is_list = isinstance(numbers, Sequence) and not isinstance(numbers, str | bytes)
    if not is_list or not numbers or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers):
        raise UsageError("frame_numbers: give one or more numbers from 1 on")
    return ",".join(map(str, numbers))


def ladder_of(media_type: str | None, default: tuple[str, ...]) -> tuple[str, ...]:
    """Return the Accept headers to try: the caller's own, or the default ones."""
    return default if media_type is None else (header_value(media_type, "media_type"),)


def header_value(value: str, argument: str) -> str:
    """Return a value that can stand in a header."""
    if not value.isascii() or not value.isprintable():
        raise UsageError(f"{argument}: not a media type")
    return value
