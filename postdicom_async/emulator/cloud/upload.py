"""File uploads over the Cloud API: parts, in any order and over any number of sockets, assembled on disk. Blocks.

A part is written at its offset in a file at once and not kept in memory. Whichever part arrives last completes the
file. A repeated part changes nothing and gets the same answer.

Two kinds of lock: that of `_Files` guards the table of files and is held briefly; that of an `_Assembly` is held while
one of its parts is written, so that parts of one file wait for each other but not for other files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias
from uuid import uuid4
from zlib import crc32

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.cloud.orders import listed_orders
from postdicom_async.emulator.cloud.state import Cloud
from postdicom_async.emulator.store.archive import ArchiveStore, parse_instance
from postdicom_async.emulator.store.files import TooLarge, UnreadableHeader, make_file
from postdicom_async.emulator.store.header import Json
from postdicom_async.emulator.store.schema import order_uuid_of
from postdicom_async.emulator.vendor.account import require
from postdicom_async.emulator.vendor.parameters import Given

PART = 512 * 1024
"""The length of every part but the last."""

_MOST_PARTS = 2**24
_UPLOAD = "SessionUniqueUuid InstitutionUuid UserUuid"
_DOCUMENT = "PatientOrderUuid FileName FileType? IsDocument"
_PART_NUMBERS = "CurrentFilePartIndex CurrentFileTotalPartCount"
_FIELDS = {
    1: "UserUuid InstitutionUuid TotalFileSize UploaderUuid UploaderName",
    2: f"{_UPLOAD} FolderUuid? StudyInstanceUid? PatientName? PatientId? SeriesInstanceUid? SopInstanceUid?",
    3: f"{_UPLOAD} FileIndex {_PART_NUMBERS} FolderUuidList?",
    4: f"{_UPLOAD} FileIndex TotalFileCount? {_PART_NUMBERS} FileBuffer? {_DOCUMENT}",
}
UPLOAD_FIELDS = {kind: tuple(fields.split()) for kind, fields in _FIELDS.items()}
"""Fields of the upload requests by management type; those that may be missing end in ``?``."""

FileKey: TypeAlias = tuple[Literal["file", "document"], str, int]

_REMEMBERED = 1_000


@dataclass(frozen=True)
class FinishedFile:
    """A complete file: the order it belongs to, and where it is."""

    order_uuid: str
    path: Path


Finish: TypeAlias = Callable[[Path], FinishedFile]


@dataclass
class _Assembly:
    """A file that is being put together, or is complete and stored or refused; its parts' checksums are kept."""

    path: Path
    total: int
    received: dict[int, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    outcome: FinishedFile | Refusal | None = None

    def had(self, index: int, total: int, data: memoryview) -> bool:
        """Return whether the file, if it is still there, was made of this part among others."""
        is_there = not isinstance(self.outcome, FinishedFile) or self.outcome.path.exists()
        return is_there and self.total == total and self.received.get(index) == crc32(data)


class _Files:
    """The files being put together, and the latest complete ones, by which a repeated part is recognised."""

    def __init__(self, store: ArchiveStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._open: dict[FileKey, _Assembly] = {}
        self._whole: dict[FileKey, _Assembly] = {}

    def take(self, key: FileKey, given: Given, data: memoryview, finish: Finish) -> FinishedFile | None:
        """Take a part; return what became of its file, None while parts are missing.

        Raises:
            Refusal: there is no such part, or the file that it completed is refused.
        """
        index, total = given.number("CurrentFilePartIndex"), given.number("CurrentFileTotalPartCount")
        if not index < total <= _MOST_PARTS:
            raise Refusal(400, "there is no such part")
        if len(data) > PART or (index < total - 1 and len(data) != PART):
            raise Refusal(400, "the part has another length than 512 KiB")
        if not data:
            raise Refusal(400, "the part is empty")
        assembly = self._assembly(key, index, total, data)
        with assembly.lock:
            if assembly.outcome is None:
                with assembly.path.open("r+b") as file:
                    file.seek(index * PART)
                    file.write(data)
                assembly.received[index] = crc32(data)
                if len(assembly.received) == total:
                    self._finish(key, assembly, finish)
            outcome = assembly.outcome
        if isinstance(outcome, Refusal):
            raise Refusal(outcome.status_code, outcome.detail)  # one exception is not raised in two threads
        return outcome

    def forget_whole(self, sessions: set[str]) -> None:
        """Take what comes in these sessions from now on as new: a further upload counts its files from 0 again."""
        with self._lock:
            self._whole = {key: value for key, value in self._whole.items() if key[1] not in sessions}

    def _assembly(self, key: FileKey, index: int, total: int, data: memoryview) -> _Assembly:
        with self._lock:
            assembly, whole = self._open.get(key), self._whole.get(key)
            # Repeated after a lost answer: the file exists already and must not be created again.
            if assembly is None and whole and whole.had(index, total, data):
                return whole
            if assembly is None or assembly.total != total:  # a different number or length of parts means another file
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


class UploadRequests:
    """The upload requests; each takes the fields and the raw bytes and returns the fields of its envelope."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._account = cloud.vendor
        self._store = cloud.context.store
        self._files = _Files(self._store)
        self._uploads: set[str] = set()

    def initialize(self, given: Given, _data: memoryview, session: str) -> Json:
        """Begin an upload."""
        require(given.text("InstitutionUuid"), self._account.options.institutions, "institution")
        kind = self._cloud.oddities.upload_session
        uuid = str(uuid4()) if kind == "new" else session
        self._uploads.add(uuid)
        self._files.forget_whole({uuid, session})
        fields: Json = {"ResponseMessage": {"Success": True, "Message": ""}}
        return fields if kind == "missing" else {**fields, "SessionUniqueUuid": uuid}

    def check(self, given: Given, _data: memoryview, _session: str) -> Json:
        """Tell whether the archive has a file."""
        self._require_upload(given)
        study = given.text("StudyInstanceUid")
        known = self._store.instances(study, given.text("SeriesInstanceUid"), given.text("SopInstanceUid"))
        exists = bool(study and "SopInstanceUid" in given and known)
        return {**self._told(order_uuid_of(study), FileIfExist=exists), "StudyInstanceUid": study}

    def part(self, given: Given, data: memoryview, _session: str) -> Json:
        """Take a part of a DICOM file."""
        session = self._require_upload(given)
        for folder in given.items("FolderUuidList"):
            self._account.folders.one(folder)
        key: FileKey = ("file", session, given.number("FileIndex"))
        finished = self._files.take(key, given, data, lambda path: self._store_file(path, given))
        return self._told(finished.order_uuid if finished else "")

    def document(self, given: Given, data: memoryview, _session: str) -> Json:
        """Take a part of a document: its bytes are in ``FileBuffer`` if there is one."""
        session = self._require_upload(given)
        order = self._account.orders.one(given.text("PatientOrderUuid"))
        if given.number("CurrentFileTotalPartCount") == 0:  # a closing message
            return self._told(order.uuid)
        piece = memoryview(given.values["FileBuffer"]) if "FileBuffer" in given else data
        key: FileKey = ("document", session, given.number("FileIndex"))
        finished = self._files.take(key, given, piece, lambda path: self._attach(path, given))
        return self._told(finished.order_uuid if finished else "")

    def _require_upload(self, given: Given) -> str:
        session = given.text("SessionUniqueUuid")
        if session not in self._uploads | self._cloud.sessions:
            raise Refusal(404, "no such upload session")
        require(given.text("InstitutionUuid"), self._account.options.institutions, "institution")
        return session

    def _told(self, order_uuid: str, **more: object) -> Json:
        """Return the answer of success, with the order once there is one."""
        listed = listed_orders(self._account, self._account.orders.some([order_uuid]))
        told = {"Success": True, "Message": "", **more, "PatientOrder": next(iter(listed), None)}
        return {"ResponseMessage": told}

    def _store_file(self, path: Path, given: Given) -> FinishedFile:
        """Take a whole file into the archive, as a STOW request would, and its order into the folders."""
        try:
            parsed = parse_instance(path)
        except TooLarge as problem:
            raise Refusal(413, str(problem)) from None
        except UnreadableHeader:
            raise Refusal(400, "the file is not DICOM") from None
        if parsed.sop_class_uid in self._account.options.refused_sop_classes:
            raise Refusal(400, "this SOP class is not stored")
        uuid = order_uuid_of(parsed.uids.study_instance_uid)
        is_new = not self._account.orders.some([uuid])
        try:
            stored = self._store.add(path, parsed)
        except ValueError:
            raise Refusal(400, "the file has no valid UIDs") from None
        if is_new:
            self._account.orders.change(uuid, "institution_uuid", given.text("InstitutionUuid"))
        self._account.folders.add_order(uuid, given.items("FolderUuidList"))
        return FinishedFile(uuid, stored.path)

    def _attach(self, path: Path, given: Given) -> FinishedFile:
        """Attach a whole document to its order."""
        uuid, size = given.text("PatientOrderUuid"), path.stat().st_size
        kept = self._store.folder / "documents" / uuid / uuid4().hex
        place = kept.relative_to(self._store.folder).as_posix()
        row = (uuid, given.text("FileName"), given.text("FileType"), size, place)
        sql = "INSERT INTO cloud_documents (order_uuid, name, type, size, path) VALUES (?, ?, ?, ?, ?)"
        with self._store.placing(path, lambda: kept) as (database, _):
            database.execute(sql, row)
        return FinishedFile(uuid, kept)
