"""What an upload has met under each SOP Instance UID: enough to tell later sources apart, in bounded memory.

An upload may have millions of instances, and any of them may come again. What is under way is kept by `Intake`; once
everything met under a UID is settled it comes here, and most of it goes to disk (see `Scratch`). A version never holds
the bytes of an instance, only its file or a digest: else a stream of data sets would fill the memory.
"""

from __future__ import annotations

import hashlib
import marshal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio.lowlevel
import anyio.to_thread

from postdicom_async.bodies import BytesBody
from postdicom_async.disk.anonymized import AnonymizedBody
from postdicom_async.disk.files import FileBody, HeldFile
from postdicom_async.disk.scratch import Scratch, ScratchMap
from postdicom_async.disk.spool import SpooledFile
from postdicom_async.errors import LocalFileError
from postdicom_async.results import Outcome, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postdicom_async.bodies import Body

__all__ = ["Fate", "SettledVersions", "Version", "alike", "digest_of", "held_by", "original_of"]

_HASHED_ASIDE = 128 * 1024  # a larger piece is hashed in a thread, so that the event loop goes on
_REFUSED = frozenset({Status.FAILED, Status.UNREADABLE})


class Fate(NamedTuple):
    """What became of a source, as far as those like it share it."""

    status: Status
    temporary: bool
    patient_order_uuid: str | None

    @classmethod
    def of(cls, outcome: Outcome) -> Fate:
        """Return the fate of a source with that outcome."""
        return cls(outcome.status, outcome.temporary, outcome.patient_order_uuid)

    @property
    def in_archive(self) -> bool:
        """Whether the archive is known to hold it."""
        return Outcome("", self.status).in_archive

    @property
    def refused(self) -> bool:
        """Whether it is known not to be in the archive, so that another source of its UID may be tried."""
        return self.status in _REFUSED


@dataclass(slots=True, eq=False)
class Version:
    """One of the contents met under a UID; never its bytes, or a stream of data sets would fill the memory.

    Attributes:
        number: the source's place in the report.
        length: its bytes as they are sent.
        content: a file, or the digest of what was in memory; as it was before it was anonymised.
        fate: None while it is under way or waits.
    """

    number: int
    length: int
    content: FileBody | bytes = field(repr=False)
    fate: Fate | None = None


class SettledVersions:
    """The settled versions of each UID."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._versions: ScratchMap[bytes] = ScratchMap(self._scratch)

    def put(self, uid: str, versions: list[Version]) -> None:
        """Keep all versions of a UID, each with its fate.

        Raises:
            LocalFileError: the folder for temporary files is full or cannot be written to.
        """
        self._versions.put(
            (0, uid), marshal.dumps([_fields(one, one.fate) for one in versions if one.fate is not None])
        )

    def of(self, uid: str) -> list[Version]:
        """Return the versions of a UID in the order in which they came; none where it is new.

        Raises:
            LocalFileError: as `put`.
        """
        found = self._versions.get((0, uid))
        return [] if found is None else [_version(*fields) for fields in marshal.loads(found)]  # noqa: S302 - by `put`

    def close(self) -> None:
        """Forget everything."""
        self._scratch.close()
        self._versions = ScratchMap(self._scratch)


def _fields(version: Version, fate: Fate) -> tuple[Any, ...]:
    content = version.content
    kept = (
        content if isinstance(content, bytes) else (str(content.path), content.length, content.identity, content.piece)
    )
    return version.number, version.length, kept, fate.status.value, fate.temporary, fate.patient_order_uuid


def _version(
    number: int, length: int, kept: bytes | tuple[Any, ...], status: str, temporary: bool, order: str | None
) -> Version:
    content = kept if isinstance(kept, bytes) else FileBody(Path(kept[0]), *kept[1:])
    return Version(number, length, content, Fate(Status(status), temporary, order))


# --- contents ---------------------------------------------------------------------------------------------------------


def held_by(body: Body) -> int:
    """Return the bytes of a body that are in memory."""
    if isinstance(body, AnonymizedBody):
        parts = sum(len(part) for part in (*body.parts, *body.deflated_parts) if isinstance(part, bytes))
        return parts + held_by(body.original)
    return 0 if isinstance(body, FileBody | SpooledFile) else body.length


def original_of(body: Body) -> Body:
    """Return what an anonymised body is made from: two originals are not one because they look alike now.

    Of a file that is held it is the file: what is kept of an instance is never its bytes.
    """
    original = body.original if isinstance(body, AnonymizedBody) else body
    return original.file if isinstance(original, HeldFile) else original


async def alike(body: Body, known: Iterable[Version]) -> Version | None:
    """Return the one with the same bytes as ``body``; one that cannot be read is like no other."""
    own: bytes | None = None
    for one in known:
        if one.length == body.length:
            try:
                own = own or await digest_of(original_of(body))
                if own == (one.content if isinstance(one.content, bytes) else await digest_of(one.content)):
                    return one
            except LocalFileError:
                continue
    return None


async def digest_of(body: Body) -> bytes:
    """Return what tells the bytes of a body from others."""
    if isinstance(body, BytesBody) and body.length <= _HASHED_ASIDE:
        return hashlib.sha256(body.data).digest()
    digest = hashlib.sha256()
    async for piece in body.open():
        if len(piece) > _HASHED_ASIDE:
            await anyio.to_thread.run_sync(digest.update, piece)
        else:
            digest.update(piece)
            await anyio.lowlevel.checkpoint()
    return digest.digest()
