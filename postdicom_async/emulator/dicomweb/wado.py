"""WADO-RS: retrieve, in the standard's URL shapes and the vendor's (PS3.18 section 10.4), and delete.

Everything is handed out as it was stored, without transcoding; pictures are made in `rendered`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from postdicom_async.emulator.answers import DICOM_JSON, Refusal, accepted, base_url
from postdicom_async.emulator.context import ArchiveContext
from postdicom_async.emulator.dicomweb.accept import MediaRange, parse_media_type
from postdicom_async.emulator.dicomweb.multipart_writer import AnswerPart, FileSlice, multipart_related, single_part
from postdicom_async.emulator.dicomweb.pixels import bulk_parts, frame_parts
from postdicom_async.emulator.dicomweb.rendered import Pictures
from postdicom_async.emulator.store.archive import StoredInstance
from postdicom_async.emulator.store.attributes import hex_tag, is_uid
from postdicom_async.emulator.store.header import Json, read_header

DICOM = "application/dicom"
_UID_NAMES = {"study": "study_instance_uid", "series": "series_instance_uid", "instance": "sop_instance_uid"}


class Wado:
    """The retrieve transactions, and delete."""

    def __init__(self, context: ArchiveContext) -> None:
        self._context = context
        self._pictures = Pictures(context)

    async def _instances(self, request: Request) -> list[StoredInstance]:
        """Return what the path names.

        Raises:
            Refusal: 400 for what is not a UID, 404 when there is nothing.
        """
        uids = {_UID_NAMES[name]: uid for name, uid in request.path_params.items() if name in _UID_NAMES}
        if not all(is_uid(uid) for uid in uids.values()):
            raise Refusal(400, "a UID in the path is not a UID")
        found = await self._context.run(self._context.store.instances, **uids)
        if not found:
            raise Refusal(404, "the archive holds no such instance")
        return found

    async def retrieve(self, request: Request) -> Response:
        """Handle a study, a series or an instance, as files."""
        found = await self._instances(request)
        parts = [
            AnswerPart(f"{DICOM}; transfer-syntax={one.transfer_syntax}", FileSlice(one.path, 0, one.size))
            for one in found
        ]
        return self._answer(request, parts, single="instance" in request.path_params)

    def _answer(self, request: Request, parts: list[AnswerPart], *, single: bool) -> Response:
        """Return parts in the form that the client accepts.

        Raises:
            Refusal: 406 when it accepts only something other than what is stored.
        """
        kinds = [parse_media_type(kind) for kind in {part.content_type for part in parts}]
        for media in accepted(request):
            multipart = media.covers("multipart/related")
            # What a multipart range says about the parts; some clients leave the type out.
            of_parts = MediaRange(media.parameters.get("type", "*/*").lower(), media.parameters)
            wanted = of_parts if multipart else media
            if all(_satisfies(kind, wanted) for kind in kinds):
                if multipart:
                    return multipart_related(self._context, parts)
                if single and len(parts) == 1:
                    return single_part(self._context, parts[0])
        raise Refusal(406, f"only {parts[0].content_type} is available, as it was stored")

    async def metadata(self, request: Request) -> Response:
        """Handle ``…/metadata``: the DICOM JSON model, large values by ``BulkDataURI``."""
        if not any(media.covers(name) for media in accepted(request) for name in (DICOM_JSON, "application/json")):
            raise Refusal(406, "metadata are application/dicom+json")
        found, base = await self._instances(request), base_url(request)
        first = await self._context.run(_metadata_of, found[0], base)  # while a status can still say what is wrong

        async def pieces() -> AsyncIterator[bytes]:
            yield b"[" + first
            for instance in found[1:]:
                yield b"," + await self._context.run(_metadata_of, instance, base)
            yield b"]"

        return StreamingResponse(pieces(), media_type=DICOM_JSON)

    async def frames(self, request: Request) -> Response:
        """Handle ``…/frames/{numbers}``."""
        numbers = _frame_numbers(request)
        instance = (await self._instances(request))[0]
        parts = await self._context.run(frame_parts, instance, numbers)
        return self._answer(request, parts, single=True)

    async def bulk_data(self, request: Request) -> Response:
        """Handle ``…/bulkdata/{path}``, the addresses that `metadata` gives."""
        instance = (await self._instances(request))[0]
        parts = await self._context.run(bulk_parts, instance, request.path_params["path"])
        return self._answer(request, parts, single=True)

    async def rendered(self, request: Request) -> Response:
        """Handle ``…/rendered`` and ``…/thumbnail``."""
        numbers = _frame_numbers(request) if "numbers" in request.path_params else None
        return await self._pictures.answer(request, await self._instances(request), numbers)

    async def delete(self, request: Request) -> Response:
        """Delete a study, a series or an instance."""
        found = await self._instances(request)
        uids = {_UID_NAMES[name]: uid for name, uid in request.path_params.items()}
        uids.setdefault("study_instance_uid", found[0].uids.study_instance_uid)
        await self._context.run(self._context.store.delete, **uids)
        return Response(status_code=204)


def _frame_numbers(request: Request) -> list[int]:
    numbers = [number.strip() for number in request.path_params["numbers"].split(",")]
    if not all(number.isascii() and number.isdigit() and len(number) < 8 for number in numbers):
        raise Refusal(400, "frame numbers are 1 or more, separated by commas")
    return [int(number) for number in numbers]


def _satisfies(stored: MediaRange, wanted: MediaRange) -> bool:
    syntax = wanted.parameters.get("transfer-syntax", "*")
    return wanted.covers(stored.name) and syntax in {"*", stored.parameters.get("transfer-syntax", "*")}


def _metadata_of(instance: StoredInstance, base: str) -> bytes:
    study, series, uid = instance.uids
    url = f"{base}/studies/{study}/series/{series}/instances/{uid}/bulkdata"
    header = read_header(instance.path)
    attributes: Json = header.json(lambda path: f"{url}/{path}")
    attributes["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}  # the answer's, not the file's
    if header.pixels:
        tag = hex_tag(header.pixels.tag)
        attributes[tag] = {"vr": header.pixels.vr, "BulkDataURI": f"{url}/{tag}"}
    ordered = dict(sorted(attributes.items()))
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()
