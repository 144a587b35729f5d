"""Files the service already has: asked for by UIDs and patient (23/2), and added to the upload's folder (17/8).

An upload asks as rarely as the JavaScript library does. After "no" for the first file of a study it does not
ask for the others; after "yes" it asks for each. Files anonymised under their original UIDs are always asked for.
`Existence` holds the answers for the last 10,000 studies; for a forgotten one it asks again. A yes says nothing about
the content: the service may have a different file with this UID.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from postdicom_async.cloud.caller import CloudCaller
from postdicom_async.cloud.frames import FileUploadType
from postdicom_async.cloud.upload_session import order_in, uuid_of
from postdicom_async.dicom.header import HEADER_LIMIT, read_values
from postdicom_async.dicom.tags import tags_of
from postdicom_async.dicom.text import decode_text
from postdicom_async.errors import PostdicomError
from postdicom_async.face import translated
from postdicom_async.http.problems import Problem
from postdicom_async.http.retry import Failure, Repeat
from postdicom_async.vendor.answers import VendorAnswer
from postdicom_async.vendor.values import private_texts

if TYPE_CHECKING:
    from uuid import UUID

    from postdicom_async.bodies import Body
    from postdicom_async.cloud.connection import Connection
    from postdicom_async.cloud.upload_session import UploadSession
    from postdicom_async.disk.sources import Usable

_MOST_STUDIES = 10_000


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
        """Return the answer for this file; None if its study is known to be new.

        Raises:
            LocalFileError: the file cannot be read any more.
            PostdicomError: the service cannot be reached.
        """
        study = instance.header.uids.study_instance_uid
        if instance.keeps_uid:  # only the original may be there, and would later pass for the copy
            return await self.asked(instance)
        if study not in self._known:
            async with self._asking.setdefault(study, anyio.Lock()):
                if study not in self._known:  # ask for the first file of a study; the others wait for that answer
                    return await self._noted(study, instance)
        return await self._noted(study, instance) if self._known[study] else None

    async def _noted(self, study: str, instance: Usable) -> Held | None:
        held = await self.asked(instance)
        self._asking.pop(study, None)  # those still waiting for it find the answer
        self._known.pop(study, None)
        self._known[study] = held is not None
        if len(self._known) > _MOST_STUDIES:
            del self._known[next(iter(self._known))]
        return held

    async def asked(self, instance: Usable) -> Held | None:
        """Ask; any answer but yes is a no. Raises like `of`."""
        study, series, sop = instance.header.uids
        identity = await read_identity(instance.body)
        fields: Mapping[str, Any] = {
            **self._folder,
            "StudyInstanceUid": study,
            "PatientName": identity.name_bytes if self._names_as_bytes else identity.patient_name,
            "PatientId": identity.id_bytes if self._names_as_bytes else identity.patient_id,
            "SeriesInstanceUid": series,
            "SopInstanceUid": sop,
        }
        given = {name: value for name, value in fields.items() if value}
        envelope = await self._session.ask(FileUploadType.CHECK_FILE_EXIST, given)
        is_there = str(envelope.in_message("FileIfExist")).strip().lower() in {"true", "1"}
        if envelope.refusal is not None or not is_there:
            return None
        order = order_in(envelope)
        return Held(uuid_of(order), order.institution_uuid or self._session.institution_uuid)


# --- whose file it is ------------------------------------------------------------------------------------------------


_CHARACTER_SET, _PATIENT_NAME, _PATIENT_ID = tags_of("SpecificCharacterSet PatientName PatientID")
# Elements that may identify a patient and are short enough for a refusal to quote them.
_PRIVATE = frozenset(
    tags_of(
        "AccessionNumber InstitutionName InstitutionAddress ReferringPhysicianName StudyDescription PatientName"
        " PatientID PatientBirthDate OtherPatientIDs OtherPatientNames PatientAddress PatientTelephoneNumbers"
    )
)
_SCRIPT_SPACE = "\t\n\v\f\r \xa0"  # the characters of Latin-1 that JavaScript trims


@dataclass(frozen=True, slots=True)
class Identity:
    """Patient's Name and Patient ID, empty where there is none.

    Attributes:
        name_bytes: Patient's Name as the JavaScript library reads it: bytes as Latin-1, whatever the character set.
        id_bytes: Patient ID, likewise.
        private: texts that must not appear in messages of the service.
    """

    patient_name: str = field(repr=False)
    patient_id: str = field(repr=False)
    name_bytes: str = field(repr=False)
    id_bytes: str = field(repr=False)
    private: tuple[str, ...] = field(repr=False)


async def read_identity(body: Body) -> Identity:
    """Return whose file it is, read from the beginning of the data to be sent.

    Raises:
        LocalFileError: it cannot be read, or has changed.
    """
    beginning, values = b"", dict[int, bytes]()
    async with aclosing(body.open()) as pieces:
        async for piece in pieces:
            beginning += piece
            values, more = read_values(beginning, _PRIVATE | {_CHARACTER_SET})
            if not more or len(beginning) >= HEADER_LIMIT:
                break
    characters = values.get(_CHARACTER_SET, b"")
    texts = {tag: decode_text(values[tag], characters) for tag in _PRIVATE if tag in values}
    # As the script's DICOM parser reads them: up to a zero byte, without white space around them.
    name_bytes, id_bytes = (
        values.get(tag, b"").partition(b"\0")[0].decode("latin-1").strip(_SCRIPT_SPACE)
        for tag in (_PATIENT_NAME, _PATIENT_ID)
    )
    # Bytes read as Latin-1 may be control characters, which a refusal's reason shows as spaces.
    as_lines = [
        " ".join("".join([char if char.isprintable() else " " for char in text]).split())
        for text in (name_bytes, id_bytes)
    ]
    spelled = [*texts.values(), name_bytes, id_bytes, *as_lines]
    private = private_texts({str(at): text.split("\\") for at, text in enumerate(spelled) if text})
    return Identity(texts.get(_PATIENT_NAME, ""), texts.get(_PATIENT_ID, ""), name_bytes, id_bytes, private)


# --- into the folder -------------------------------------------------------------------------------------------------


_OPERATION = "add order to folder"
_MOST_TRIES = 3


class FolderEntry:
    """The folder of one upload: orders whose files need not be sent are added to it too, each once."""

    def __init__(self, connection: Connection, user: UUID | str | None, folder_uuid: str) -> None:
        self._connection = connection
        self._user = user
        self._folder_uuid = folder_uuid
        self._asking = anyio.Lock()
        self._ends: dict[str, PostdicomError | None] = {}

    async def add_order(self, held: Held) -> PostdicomError | None:
        """Add the order of an existing file to the folder; return the error if that failed."""
        order = held.patient_order_uuid or ""
        given = {
            "institution_uuid": held.institution_uuid,
            "patient_order_uuid": held.patient_order_uuid,
            "folder_uuids": [self._folder_uuid],
        }
        caller = CloudCaller(self._connection, self._user)

        async def attempt() -> None:
            with translated(PostdicomError, lambda error: Problem(Failure.REFUSED, error)):
                await caller.call("folders.add_order", VendorAnswer, given)

        async with self._asking:
            if order not in self._ends:
                # Repeated like a read: adding an order to a folder twice changes nothing.
                try:
                    await self._connection.repeated(_OPERATION, Repeat.READ, attempt, at_most=_MOST_TRIES)
                    self._ends[order] = None
                except PostdicomError as error:
                    self._ends[order] = error
            return self._ends[order]
