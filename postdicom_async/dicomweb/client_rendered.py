"""Retrieve rendered: pictures and videos that an archive makes of its instances."""

from __future__ import annotations

from collections.abc import Mapping
from secrets import token_hex
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from postdicom_async.dicomweb.client_base import ClientBase, header_value, target_of
from postdicom_async.dicomweb.multipart import MultipartDamage
from postdicom_async.dicomweb.rendered import RenderedPiece, joined
from postdicom_async.errors import ProtocolError, UsageError
from postdicom_async.face import translated
from postdicom_async.http.retry import Repeat
from postdicom_async.http.session import Call
from postdicom_async.results import Rendered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postdicom_async.dicomweb.retrieve import Target


__all__ = ["ClientRendered"]


class ClientRendered(ClientBase):
    """WADO-RS rendered resources and thumbnails."""

    async def retrieve_study_rendered(
        self, study_instance_uid: str, *, media_type: str = "image/jpeg", parameters: Mapping[str, str] | None = None
    ) -> Rendered:
        """Return a study rendered (PS3.18 section 10.4.1.1.3).

        Args:
            study_instance_uid: which study.
            media_type: the form wanted, for example ``image/png`` or ``video/mp4``.
            parameters: of the rendering, for example ``{"viewport": "256,256", "quality": "90"}`` (section 8.3.5).
        """
        return await self._rendered(target_of(study_instance_uid), "/rendered", media_type, parameters)

    async def retrieve_series_rendered(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        *,
        media_type: str = "image/jpeg",
        parameters: Mapping[str, str] | None = None,
    ) -> Rendered:
        """Return a series rendered; see `retrieve_study_rendered`."""
        target = target_of(study_instance_uid, series_instance_uid)
        return await self._rendered(target, "/rendered", media_type, parameters)

    async def retrieve_instance_rendered(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        *,
        media_type: str = "image/jpeg",
        parameters: Mapping[str, str] | None = None,
    ) -> Rendered:
        """Return an instance rendered; see `retrieve_study_rendered`."""
        target = target_of(study_instance_uid, series_instance_uid, sop_instance_uid)
        return await self._rendered(target, "/rendered", media_type, parameters)

    async def retrieve_instance_frames_rendered(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        frame_numbers: Sequence[int],
        *,
        media_type: str = "image/jpeg",
        parameters: Mapping[str, str] | None = None,
    ) -> Rendered:
        """Return frames rendered; see `retrieve_study_rendered`.

        Several frames come as an archive makes them: mostly as multipart/related with a picture for each. More than
        fit into one URL (``dialect.url_bytes``) are asked for in several requests and come as that, in order.

        Raises:
            ProtocolError: several requests were needed, and an answer is not one picture for each frame.
        """
        target = target_of(study_instance_uid, series_instance_uid, sop_instance_uid)
        tail = "/rendered" + _query(parameters)
        pieces = self._frame_pieces(target, frame_numbers, tail)
        answers: list[RenderedPiece] = []
        left = self.settings.limits.in_memory_bytes
        for count, suffix in pieces:
            one = await self._rendered(target, suffix + "/rendered", media_type, parameters, left)
            if len(pieces) == 1:
                return one
            answers.append(RenderedPiece(count, one.media_type, one.content))
            left -= len(one.content)
        with translated(MultipartDamage, _too_many):
            return joined(answers, token_hex(16))

    async def retrieve_study_thumbnail(self, study_instance_uid: str, *, media_type: str = "image/jpeg") -> Rendered:
        """Return a picture that stands for a study (PS3.18 section 10.4.1.1.4)."""
        return await self._rendered(target_of(study_instance_uid), "/thumbnail", media_type, None)

    async def retrieve_series_thumbnail(
        self, study_instance_uid: str, series_instance_uid: str, *, media_type: str = "image/jpeg"
    ) -> Rendered:
        """Return a picture that stands for a series."""
        target = target_of(study_instance_uid, series_instance_uid)
        return await self._rendered(target, "/thumbnail", media_type, None)

    async def retrieve_instance_thumbnail(
        self,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
        *,
        media_type: str = "image/jpeg",
    ) -> Rendered:
        """Return a picture that stands for an instance."""
        target = target_of(study_instance_uid, series_instance_uid, sop_instance_uid)
        return await self._rendered(target, "/thumbnail", media_type, None)

    async def _rendered(
        self,
        target: Target,
        suffix: str,
        media_type: str,
        parameters: Mapping[str, str] | None,
        cap: int | None = None,
    ) -> Rendered:
        path = target.path(self._dialect, suffix)
        path += _query(parameters, "&" if "?" in path else "?")
        operation = f"retrieve {suffix.rpartition('/')[2]} {target.route}"
        call = Call(operation, "GET", path, Repeat.READ, headers={"Accept": header_value(media_type, "media_type")})
        answer = await self._session.fetch(call, cap=self.settings.limits.in_memory_bytes if cap is None else cap)
        return Rendered(answer.body, answer.content_type)


def _too_many(damage: MultipartDamage) -> ProtocolError:
    return ProtocolError(f"{damage}; ask for fewer frames at a time", operation="retrieve rendered frames")


def _query(parameters: Mapping[str, str] | None, joint: str = "?") -> str:
    if parameters is not None and not isinstance(parameters, Mapping):
        raise UsageError("give a mapping of names to text", argument="parameters")
    return joint + urlencode(dict(parameters), safe=",") if parameters else ""
