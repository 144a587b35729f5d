"""What an upload has met under each SOP Instance UID: enough to tell what comes later apart, in bounded memory.

An upload may have millions of instances, and any of them may come again. What is under way is kept by `Intake`; once
all that was met under a UID is settled it goes here, and most of it to disk (see `Scratch`).
"""

from __future__ import annotations

import marshal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from postdicom_async.disk.files import FileBody
from postdicom_async.disk.scratch import Scratch, ScratchMap
from postdicom_async.results import Outcome, Status

__all__ = ["Fate", "Seen", "Version"]

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
        self._scratch = Scratch()
        self._versions: ScratchMap[bytes] = ScratchMap(self._scratch)

    def put(self, uid: str, versions: list[Version]) -> None:
        """Keep all versions of a UID, each with its fate.

        Raises:
            LocalFileError: the folder for temporary files is full or cannot be written to.
        """
        self._versions.put((0, uid), marshal.dumps([_fields(one) for one in versions]))

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
