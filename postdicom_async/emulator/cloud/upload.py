"""Files over the Cloud API: parts, in any order and over any number of sockets, put together on disk. Methods block.

A part is written to its place in a file of the archive's folder at once; nothing of it stays in memory. The last one
to come, whichever that is, finishes the file. A part that comes again changes nothing and gets the same answer.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from uuid import uuid4
from zlib import crc32

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.cloud.orders import listed_orders, require
from postdicom_async.emulator.store.archive import parse_instance
from postdicom_async.emulator.store.header import TooLarge, UnreadableHeader
from postdicom_async.emulator.store.private_files import make_file
from postdicom_async.emulator.vendor.folders import Folders
from postdicom_async.emulator.vendor.orders import Orders
from postdicom_async.emulator.vendor.schema import order_uuid_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from postdicom_async.emulator.cloud.parameters import Parameters
    from postdicom_async.emulator.cloud.state import Cloud

__all__ = ["PART", "CloudUpload"]

PART = 512 * 1024
"""The length of every part but the last."""

_MOST_PARTS = 2**24

FileKey: TypeAlias = "tuple[Literal['file', 'document'], str, int]"
Finish: TypeAlias = "Callable[[Path], Finished]"

_REMEMBERED = 1_000


@dataclass(frozen=True)
class Finished:
    """A file that is whole: the order it went to, and where it is."""

    order_uuid: str
    path: Path


@dataclass
class _Assembly:
    """One file on its way, or one that is whole and stored or refused; of its parts the checksums are kept."""

    path: Path
    total: int
    received: dict[int, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    outcome: Finished | Refusal | None = None

    def write(self, index: int, data: memoryview) -> None:
        """Put a part at its place."""
        with self.path.open("r+b") as file:
            file.seek(index * PART)
            file.write(data)
        self.received[index] = crc32(data)

    def had(self, index: int, total: int, data: memoryview) -> bool:
        """Return whether the file, if it is still there, was made of this part among others."""
        is_there = not isinstance(self.outcome, Finished) or self.outcome.path.exists()
        return is_there and self.total == total and self.received.get(index) == crc32(data)


class _Files:
    """The files on their way, and the latest that are whole, to know a repeated part by."""

    def __init__(self, cloud: Cloud) -> None:
        self._store = cloud.context.store
        self._lock = threading.Lock()
        self._open: dict[FileKey, _Assembly] = {}
        self._whole: dict[FileKey, _Assembly] = {}

    def take(self, key: FileKey, index: int, total: int, data: memoryview, finish: Finish) -> Finished | None:
        """Take a part; return what its file has become, None while others are missing.

        Raises:
            Refusal: the part is none, or the file that it made whole is refused.
        """
        _require_part(index, total, len(data))
        assembly = self._assembly(key, index, total, data)
        with assembly.lock:
            if assembly.outcome is None:
                assembly.write(index, data)
                if len(assembly.received) == total:
                    self._finish(key, assembly, finish)
            outcome = assembly.outcome
        if isinstance(outcome, Refusal):
            raise Refusal(outcome.status_code, outcome.detail)
        return outcome

    def forget_whole(self, sessions: set[str]) -> None:
        """Take what comes in these sessions from now on for new."""
        with self._lock:
            self._whole = {key: value for key, value in self._whole.items() if key[1] not in sessions}

    def _assembly(self, key: FileKey, index: int, total: int, data: memoryview) -> _Assembly:
        with self._lock:
            assembly, whole = self._open.get(key), self._whole.get(key)
            if assembly is None and whole and whole.had(index, total, data):
                return whole
            if assembly is None or assembly.total != total:
                assembly = self._open[key] = _Assembly(self._store.new_incoming(), total)
                make_file(assembly.path)
            return assembly

    def _finish(self, key: FileKey, assembly: _Assembly, finish: Finish) -> None:
        try:
            assembly.outcome = finish(assembly.path)
        except Refusal as refused:
            assembly.outcome = refused
        finally:
            assembly.path.unlink(missing_ok=True)
            with self._lock:
                if self._open.get(key) is assembly:
                    del self._open[key]
                if assembly.outcome:
                    self._whole[key] = assembly
                for old in list(self._whole)[:-_REMEMBERED]:
                    del self._whole[old]


class CloudUpload:
    """The upload requests; each takes the parameters and the raw bytes and returns the fields of its envelope."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._store = cloud.context.store
        self._options = cloud.context.options
        self._orders = Orders(self._store, self._options.institution_uuid)
        self._folders = Folders(self._store)
        self._files = _Files(cloud)
        self._uploads: set[str] = set()

    def initialize(self, given: Parameters, _data: memoryview, session: str) -> dict[str, Any]:
        """Begin an upload."""
        require(given.text("InstitutionUuid"), self._options.institutions, "institution")
        kind = self._cloud.oddities.upload_session
        uuid = str(uuid4()) if kind == "new" else session
        self._uploads.add(uuid)
        self._files.forget_whole({uuid, session})
        fields: dict[str, Any] = {"ResponseMessage": {"Success": True, "Message": ""}}
        return fields if kind == "missing" else {**fields, "SessionUniqueUuid": uuid}

    def check(self, given: Parameters, _data: memoryview, _session: str) -> dict[str, Any]:
        """Tell whether a file is here."""
        self._require_upload(given)
        study = given.text("StudyInstanceUid")
        known = self._store.instances(study, given.text("SeriesInstanceUid"), given.text("SopInstanceUid"))
        exists = bool(study and "SopInstanceUid" in given and known)
        told = {
            "Success": True,
            "Message": "",
            "FileIfExist": exists,
            "PatientOrder": self._order(order_uuid_of(study)),
        }
        return {"ResponseMessage": told, "StudyInstanceUid": study}

    def part(self, given: Parameters, data: memoryview, _session: str) -> dict[str, Any]:
        """Take a part of a DICOM file."""
        session = self._require_upload(given)
        for folder in given.items("FolderUuidList"):
            self._folders.one(folder)
        key: FileKey = ("file", session, given.number("FileIndex"))
        index, total = given.number("CurrentFilePartIndex"), given.number("CurrentFileTotalPartCount")
        return self._told(self._files.take(key, index, total, data, lambda path: self._store_file(path, given)))

    def document(self, given: Parameters, data: memoryview, _session: str) -> dict[str, Any]:
        """Take a part of a document: its bytes are in ``FileBuffer`` if there is one."""
        session = self._require_upload(given)
        order = self._orders.one(given.text("PatientOrderUuid"))
        total = given.number("CurrentFileTotalPartCount")
        if total == 0:  # a closing message
            return self._told(Finished(order.uuid, self._store.folder))
        piece = memoryview(given.values["FileBuffer"]) if "FileBuffer" in given else data
        key: FileKey = ("document", session, given.number("FileIndex"))
        index = given.number("CurrentFilePartIndex")
        return self._told(self._files.take(key, index, total, piece, lambda path: self._attach(path, given)))

    def _require_upload(self, given: Parameters) -> str:
        session = given.text("SessionUniqueUuid")
        if session not in self._uploads | self._cloud.sessions:
            raise Refusal(404, "no such upload session")
        require(given.text("InstitutionUuid"), self._options.institutions, "institution")
        return session

    def _told(self, finished: Finished | None) -> dict[str, Any]:
        order = self._order(finished.order_uuid) if finished else None
        return {"ResponseMessage": {"Success": True, "Message": "", "PatientOrder": order}}

    def _order(self, uuid: str) -> dict[str, Any] | None:
        return next(iter(listed_orders(self._store, self._options, self._orders.some([uuid]))), None)

    def _store_file(self, path: Path, given: Parameters) -> Finished:
        """Take a whole file into the archive, as a STOW request would, and its order into the folders."""
        try:
            parsed = parse_instance(path)
        except TooLarge as problem:
            raise Refusal(413, str(problem)) from None
        except UnreadableHeader:
            raise Refusal(400, "the file is not DICOM") from None
        if parsed.sop_class_uid in self._options.refused_sop_classes:
            raise Refusal(400, "this SOP class is not stored")
        uuid = order_uuid_of(parsed.uids.study_instance_uid)
        is_new = not self._orders.some([uuid])
        try:
            stored = self._store.add(path, parsed)
        except ValueError:
            raise Refusal(400, "the file has no valid UIDs") from None
        if is_new:
            with self._store.transaction() as database:
                institution = given.text("InstitutionUuid")
                database.execute("UPDATE orders SET institution_uuid = ? WHERE uuid = ?", (institution, uuid))
        self._folders.add_order(uuid, given.items("FolderUuidList"))
        return Finished(uuid, stored.path)

    def _attach(self, path: Path, given: Parameters) -> Finished:
        """Attach a whole document to its order."""
        uuid, size = given.text("PatientOrderUuid"), path.stat().st_size
        kept = self._store.folder / "documents" / uuid / uuid4().hex
        row = (
            uuid,
            given.text("FileName"),
            given.text("FileType"),
            size,
            kept.relative_to(self._store.folder).as_posix(),
        )
        with self._store.placing(path, lambda: kept) as (database, _):
            database.execute(
                "INSERT INTO cloud_documents (order_uuid, name, type, size, path) VALUES (?, ?, ?, ?, ?)", row
            )
        return Finished(uuid, kept)


def _require_part(index: int, total: int, length: int) -> None:
    if not index < total <= _MOST_PARTS:
        raise Refusal(400, "there is no such part")
    if length > PART or (index < total - 1 and length != PART):
        raise Refusal(400, "the part has another length than 512 KiB")
    if not length:
        raise Refusal(400, "the part is empty")
