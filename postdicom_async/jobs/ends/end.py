"""The protocol of an end, a source or target of a job: it lists, opens, stores, confirms or deletes, as far as it can.

Three kinds exist: a folder, a DICOMweb archive of either dialect, PostDICOM's Cloud API. A job checks an end's
`Feature` flags, never its kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from types import TracebackType

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.disk.files import Unusable
    from postdicom_async.disk.sources import Usable
    from postdicom_async.results import InstanceUids, Outcome


Identified: TypeAlias = "Usable | Unusable"


class Feature(Flag):
    """What an end can do."""

    LISTS = auto()
    """Lists its studies and instances."""
    OPENS = auto()
    """Opens instances for reading: it can be a source."""
    STORES = auto()
    """Stores instances: it can be a target."""
    CONFIRMS = auto()
    """Can tell whether it has an instance."""
    DELETES = auto()
    UNLISTED = auto()
    """Opens a whole study without a list of its instances: `Selection` with ``whole`` and no instances."""
    PASSES = auto()
    """Stores bodies as a stream: it reads each only once, so it takes bodies that cannot be read again."""


class ListedStudy(NamedTuple):
    """A study as an end lists it.

    Attributes:
        uid: its Study Instance UID.
        date: StudyDate as YYYYMMDD, "" where it has none.
        instances: how many instances it has, None where the end does not say.
        patients: 2 or more where the end is seen to have it under more than one Patient ID, and so may give it under
            none.
    """

    uid: str
    date: str = ""
    instances: int | None = None
    patients: int = 1


class ListedInstance(NamedTuple):
    """An instance as an end lists it.

    Attributes:
        size: its bytes, 0 where the end does not say.
        place: its path relative to the folder; empty for other ends.
        flaw: why it cannot be moved, a number of `states.Reason`; 0 if nothing is wrong.
    """

    series: str
    uid: str
    size: int = 0
    place: str = ""
    flaw: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """Instances of one study, to be opened.

    Attributes:
        study: its Study Instance UID.
        series: the one series they all belong to; None where there are several.
        instances: the ones wanted.
        whole: ``instances`` are all that the source has of the study, or of that series; if empty, everything the study
            has is wanted (`Feature.UNLISTED`).
        once: each body will be read at most once, and soon: a large one may be streamed instead of buffered whole.
    """

    study: str
    series: str | None
    instances: Sequence[ListedInstance]
    whole: bool = False
    once: bool = False


class End(Protocol):
    """One end of a job. Use it inside ``async with``; every method may be called by several tasks at once.

    Attributes:
        name: the name to show: a profile's name, an origin (``https://host``), or ``folder``. Never a path or a user.
        identity: private; the address and path of the service, or the real path of a folder. Ends with equal identities
            are the same place.
        features: what this end can do.
    """

    name: str
    identity: str
    features: Feature

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def studies(self, *, since: str = "", until: str = "") -> AsyncGenerator[list[ListedStudy], None]:
        """Yield every study within the end's filters, in pages, each once; undated ones too.

        One that the end lists under a second Patient ID is yielded again, without a count: none is believed of it.

        With ``since`` and ``until`` (YYYYMMDD) only those dated within that range, and undated ones.

        Raises:
            PostdicomError: it cannot be listed, or its list contradicts itself: no conclusion may be drawn from what
                was yielded.
        """
        ...

    async def study(self, study: str) -> ListedStudy | None:
        """Return the end's entry for one study, None if the end answers that it has none of it.

        Raises:
            PostdicomError: it cannot be asked.
        """
        ...

    def instances(self, study: str) -> AsyncGenerator[list[ListedInstance], None]:
        """Yield every instance of a study, in pages, each once; nothing if the end has none of it.

        Raises:
            PostdicomError: they cannot be listed, or the list contradicts the query.
        """
        ...

    def open(self, wanted: Selection) -> AsyncGenerator[Identified, None]:
        """Yield the wanted instances, each once, in any order; ``label`` is the SOP Instance UID as in ``wanted``.

        Instances that the source does not deliver are not yielded. Memory is bounded: only a few are received ahead of
        the consumer.

        Raises:
            PostdicomError: the end fails; instances yielded before are valid.
        """
        ...

    def store(
        self, sources: AsyncIterator[Identified], *, anonymize: Anonymization | None = None
    ) -> AsyncGenerator[Outcome, None]:
        """Store instances, and yield one outcome for each as it ends; its ``where`` is the source's label.

        Raises:
            PostdicomError: the end fails; raised after the outcomes of all sources that were taken.
        """
        ...

    async def delete(self, study: str, instances: Sequence[InstanceUids] | None) -> None:
        """Delete the given instances of a study, or with None the whole study.

        Raises:
            PostdicomError: it was not deleted, or this is uncertain.
        """
        ...

    async def probe(self) -> None:
        """Make the cheapest request that shows whether the end works.

        Raises:
            PostdicomError: it does not work at present.
        """
        ...
