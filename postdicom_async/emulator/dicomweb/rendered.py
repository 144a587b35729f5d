"""Pictures over HTTP: ``rendered`` and ``thumbnail`` of a study, a series, an instance, frames (PS3.18 10.4.1.1.3).

An instance and a frame are one picture unless ``multipart/related`` is asked for by name: the first frame. A study and
a series are all their pictures in parts, or the first where only a picture is accepted. A thumbnail is always one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from postdicom_async.emulator.answers import Refusal, accepted
from postdicom_async.emulator.context import ArchiveContext
from postdicom_async.emulator.dicomweb.accept import MediaRange
from postdicom_async.emulator.dicomweb.rendering import JPEG, PNG, PictureLook, PictureWindow, frame_count, render
from postdicom_async.emulator.store.archive import StoredInstance

_AT_ONCE = 2
"""Pictures that are made at once; each may need much memory."""

_LARGEST = 8192
_THUMBNAIL = (128, 128)
_FUNCTIONS = {"linear": "LINEAR", "linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}


class Pictures:
    """Makes the answers."""

    def __init__(self, context: ArchiveContext) -> None:
        self._context = context
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def answer(self, request: Request, found: Sequence[StoredInstance], numbers: list[int] | None) -> Response:
        """Return what is wanted of some instances, or of frames of one.

        Raises:
            Refusal: 400 for malformed parameters, 404 without an image, 406 for another kind of picture.
        """
        is_thumbnail = request.url.path.rstrip("/").endswith("/thumbnail")
        media_type, in_parts = _wanted(accepted(request), is_one=is_thumbnail or "instance" in request.path_params)
        look = replace(look_of(request.query_params, is_thumbnail=is_thumbnail), media_type=media_type)
        in_parts = in_parts and not is_thumbnail
        if numbers and len(numbers) > 1 and not in_parts and not is_thumbnail:
            raise Refusal(406, "several frames come as multipart/related")
        frames = await self._context.run(_frames, found, numbers, only_first=not in_parts)
        first = await self._render(*frames[0], look)  # the first picture is made before the status is sent
        if not in_parts:
            return Response(first, media_type=media_type)
        boundary = secrets.token_hex(20)

        async def parts() -> AsyncIterator[bytes]:
            for place, frame in enumerate(frames):
                picture = await self._render(*frame, look) if place else first
                lines = (f"--{boundary}", f"Content-Type: {media_type}", f"Content-Length: {len(picture)}", "", "")
                yield "\r\n".join(lines).encode() + picture + b"\r\n"
            yield f"--{boundary}--\r\n".encode()

        kind = f'multipart/related; type="{media_type}"; boundary={boundary}'
        return StreamingResponse(parts(), headers={"Content-Type": kind})

    async def _render(self, instance: StoredInstance, number: int, look: PictureLook) -> bytes:
        async with self._room:
            return await self._context.run(render, instance, number, look)


def _frames(
    found: Sequence[StoredInstance], numbers: list[int] | None, *, only_first: bool
) -> list[tuple[StoredInstance, int]]:
    """Return instances and frame numbers of the pictures; blocks."""
    frames: list[tuple[StoredInstance, int]] = []
    for instance in found:
        count = frame_count(instance)
        if count and numbers and not all(1 <= number <= count for number in numbers):
            raise Refusal(404, f"the instance has {count} frame(s)")
        frames += [(instance, number) for number in numbers or range(1, count + 1) if count]
        if frames and only_first:
            break
    if not frames:
        raise Refusal(404, "there is no image here")
    return frames


def _wanted(accept: list[MediaRange], *, is_one: bool) -> tuple[str, bool]:
    """Return the kind of picture, and whether all are wanted, in parts."""
    for media in accept:
        if media.name.startswith("multipart/") or (media.name == "*/*" and not is_one):
            part = media.parameters.get("type", JPEG).lower()
            if part in {JPEG, PNG}:
                return part, True
        for kind in (JPEG, PNG):
            if media.covers(kind):
                return kind, False
    raise Refusal(406, f"pictures are {JPEG} or {PNG}")


def look_of(parameters: Mapping[str, str], *, is_thumbnail: bool = False) -> PictureLook:
    """Read ``quality``, ``viewport`` and ``window`` (PS3.18 section 8.3.5.1); others are ignored.

    Raises:
        Refusal: 400 for malformed values.
    """
    quality = parameters.get("quality", "90")
    if not (quality.isascii() and quality.isdigit() and len(quality) < 4 and 1 <= int(quality) <= 100):
        raise Refusal(400, "quality is a number from 1 to 100")
    window = _window(parameters["window"]) if "window" in parameters else None
    look = PictureLook(quality=int(quality), viewport=_THUMBNAIL if is_thumbnail else None, window=window)
    if "viewport" not in parameters:
        return look
    sizes = _numbers(parameters["viewport"])
    if len(sizes) not in {2, 6} or not all(1 <= size <= _LARGEST for size in sizes[:2]) or min(sizes) < 0:
        raise Refusal(400, f"viewport is a width and a height up to {_LARGEST}, and perhaps left, upper, width, height")
    width, height, *region = sizes
    return replace(look, viewport=(int(width), int(height)), region=region or None)


def _window(text: str) -> PictureWindow:
    *sizes, function = text.split(",") if text.count(",") == 2 else (*text.split(","), "linear")
    values, name = _numbers(",".join(sizes)), _FUNCTIONS.get(function.strip().lower())
    if len(values) != 2 or name is None or values[1] < (1 if name == "LINEAR" else 1e-9):
        raise Refusal(400, f"window is a centre, a width of at least 1 and one of {', '.join(_FUNCTIONS)}")
    return PictureWindow(values[0], values[1], name)


def _numbers(text: str) -> list[float]:
    """Return the finite numbers between commas, 0 for an empty place; an empty list when one is not a number."""
    try:
        numbers = [float(part) if part.strip() else 0.0 for part in text.split(",")]
    except ValueError:
        return []
    return numbers if all(abs(number) < 1e12 for number in numbers) else []
