"""Whether the service has a file already (23/2), asked as rarely as the JavaScript library does.

After "no" for the first file of a study none of its others is asked for; after "yes" each of them is, and always each
that is anonymised under its original's UID.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from postdicom_async.cloud.frames import FileUploadType
from postdicom_async.cloud.identity import read_identity
from postdicom_async.cloud.upload_session import order_in

if TYPE_CHECKING:
    from postdicom_async.cloud.upload_session import UploadSession
    from postdicom_async.disk.sources import Usable

__all__ = ["Existence", "Held"]

_MOST_STUDIES = 10_000  # whose answer is remembered; of one that is forgotten another file is asked for


@dataclass(frozen=True, slots=True)
class Held:
    """A file that the service has; the order it lies in and that order's institution, where the answer names them."""

    patient_order_uuid: str | None
    institution_uuid: str


class Existence:
    """What the service has answered during one upload, by study."""

    def __init__(self, session: UploadSession, folder_uuid: str | None, *, names_as_bytes: bool) -> None:
        self._session = session
        self._names_as_bytes = names_as_bytes
        self._folder = {} if folder_uuid is None else {"FolderUuid": folder_uuid}
        self._known: dict[str, bool] = {}
        self._asking: dict[str, anyio.Lock] = {}

    async def of(self, instance: Usable) -> Held | None:
        """Return what is said of this file; None where its study is known to be new.

        Raises:
            LocalFileError: the file cannot be read any more.
            PostdicomError: the service cannot be reached.
        """
        study = instance.header.uids.study_instance_uid
        if instance.keeps_uid:  # its original may be the only one there, and would pass for it later
            return await self.asked(instance)
        if study not in self._known:
            async with self._asking.setdefault(study, anyio.Lock()):
                if study not in self._known:  # the first file of a study is asked for; the others wait for its answer
                    return await self._noted(study, instance)
        return await self._noted(study, instance) if self._known[study] else None

    async def _noted(self, study: str, instance: Usable) -> Held | None:
        held = await self.asked(instance)
        self._asking.pop(study, None)  # whoever still waits for it finds the answer
        self._known.pop(study, None)
        self._known[study] = held is not None
        if len(self._known) > _MOST_STUDIES:
            del self._known[next(iter(self._known))]
        return held

    async def asked(self, instance: Usable) -> Held | None:
        """Ask; an answer that does not say yes is a no. Raises as `of` does."""
        study, series, sop = instance.header.uids
        identity = await read_identity(instance.body)
        name, number = identity.patient_name, identity.patient_id
        if self._names_as_bytes:
            name, number = identity.name_bytes, identity.id_bytes
        fields: Mapping[str, Any] = {
            **self._folder,
            "StudyInstanceUid": study,
            "PatientName": name,
            "PatientId": number,
            "SeriesInstanceUid": series,
            "SopInstanceUid": sop,
        }
        given = {name: value for name, value in fields.items() if value}
        envelope = await self._session.ask(FileUploadType.CHECK_FILE_EXIST, given)
        if envelope.refusal is not None or not _is_yes(envelope.in_message("FileIfExist")):
            return None
        order = order_in(envelope)
        institution = order.institution_uuid if order else None
        return Held(
            order.patient_order_uuid if order and order.is_named else None,
            institution or self._session.institution_uuid,
        )


def _is_yes(value: object) -> bool:
    return str(value).strip().lower() in {"true", "1"}
