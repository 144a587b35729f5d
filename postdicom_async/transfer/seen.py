"""What an upload has met under each SOP Instance UID: enough to tell what comes later apart, in bounded memory.

An upload may have millions of instances, and any of them may come again. What is under way is kept by `Intake`; once
all that was met under a UID is settled it goes here: a few hundred stay in memory, the rest in a private database.
"""

from __future__ import annotations

import marshal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from postdicom_async.disk.scratch_map import Scratch
from postdicom_async.disk.sources import FileBody
from postdicom_async.results import Outcome, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Fate", "Seen", "Version"]

_MARKS = 1 << 23
_RECENT = 256  # UIDs; so many go into the database in one go of about a millisecond
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


class Seen:
    """The settled versions of each UID."""

    def __init__(self) -> None:
        # Tuples: whoever was given the versions of a UID adds one that is under way, and that is not for the database.
        self._recent: dict[str, tuple[Version, ...]] = {}
        self._scratch = Scratch()
        self._marks = bytearray()  # a bit for each UID in the database, and for a few more: most need no look into it

    def put(self, uid: str, versions: Iterable[Version]) -> None:
        """Keep all versions of a UID, each with its fate.

        Raises:
            LocalFileError: the folder for temporary files is full or cannot be written to.
        """
        self._recent[uid] = tuple(versions)
        if len(self._recent) > _RECENT:
            self._write()

    def of(self, uid: str) -> list[Version]:
        """Return the versions of a UID in the order in which they came; none where it is new.

        Raises:
            LocalFileError: the folder for temporary files cannot be read.
        """
        found = self._recent.get(uid)
        if found is not None or not self._marks:
            return list(found or ())
        mark = hash(uid) % _MARKS
        if not self._marks[mark >> 3] & 1 << (mark & 7):
            return []
        rows = self._scratch.rows("SELECT versions FROM seen WHERE uid = ?", (uid,))
        return [_version(*fields) for row in rows for fields in marshal.loads(row[0])]  # noqa: S302 - written below

    def close(self) -> None:
        """Forget everything."""
        self._recent.clear()
        self._marks = bytearray()
        self._scratch.close()

    def _write(self) -> None:
        if not self._marks:
            self._scratch.rows("CREATE TABLE seen (uid TEXT PRIMARY KEY, versions BLOB) WITHOUT ROWID")
            self._marks = bytearray(_MARKS >> 3)
        rows = [(uid, marshal.dumps([_fields(one) for one in versions])) for uid, versions in self._recent.items()]
        for uid in self._recent:
            mark = hash(uid) % _MARKS
            self._marks[mark >> 3] |= 1 << (mark & 7)
        self._scratch.write("INSERT OR REPLACE INTO seen VALUES (?, ?)", rows)
        self._recent.clear()


def _fields(version: Version) -> tuple[Any, ...]:
    content, fate = version.content, version.fate
    assert fate is not None  # noqa: S101 - only what is settled comes here
    kept = (
        content if isinstance(content, bytes) else (str(content.path), content.length, content.identity, content.piece)
    )
    return version.number, version.length, kept, fate.status.value, fate.temporary, fate.patient_order_uuid


def _version(
    number: int, length: int, kept: bytes | tuple[Any, ...], status: str, temporary: bool, order: str | None
) -> Version:
    content = kept if isinstance(kept, bytes) else FileBody(Path(kept[0]), *kept[1:])
    return Version(number, length, content, Fate(Status(status), temporary, order))
