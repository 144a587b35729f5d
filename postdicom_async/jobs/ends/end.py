"""What a job moves between: an end lists, opens, stores, confirms or deletes, each as far as it can.

Three kinds exist: a folder, a DICOMweb archive of either dialect, PostDICOM's Cloud API. A job asks an end for what it
needs by `Feature`, and never for its kind.
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
    """Says which studies and instances it has."""
    OPENS = auto()
    """Gives instances: it can be a source."""
    STORES = auto()
    """Takes instances: it can be a target."""
    CONFIRMS = auto()
    """Says of an instance whether it has it."""
    DELETES = auto()
    UNLISTED = auto()
    """Opens a whole study whose instances were not listed: `Selection` with ``whole`` and no instances."""
    PASSES = auto()
    """Stores what comes as it comes: reads each body once, so that one may be given that can be read only once."""


class ListedStudy(NamedTuple):
    """A study as an end lists it.

    Attributes:
        uid: its Study Instance UID.
        date: StudyDate as YYYYMMDD, "" where it has none.
        instances: how many instances it has, None where the end does not say.
    """

    uid: str
    date: str = ""
    instances: int | None = None


class ListedInstance(NamedTuple):
    """An instance as an end lists it.

    Attributes:
        size: its bytes, 0 where the end does not say.
        place: where it lies in a folder, relative to it; empty elsewhere.
        flaw: why it cannot be moved as it is, a number of `states.Reason`; 0 where nothing is wrong.
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
        instances: which ones.
        whole: they are all that the source has of the study, or of that series; without any in ``instances``, all that
            comes is wanted (`Feature.UNLISTED`).
        once: each body will be read once at most, and soon: a large one need not be kept until it is whole.
    """

    study: str
    series: str | None
    instances: Sequence[ListedInstance]
    whole: bool = False
    once: bool = False


class End(Protocol):
    """One end of a job. Use it inside ``async with``; every method may be called by several tasks at once.

    Attributes:
        name: how it is shown: a profile's name, an origin (``https://host``), or ``folder``. Never a path or a user.
        identity: what tells it from every other end, private: address and path of the service, or the real path of a
            folder. Two ends with one identity are the same place.
        features: what it can do.
    """

    name: str
    identity: str
    features: Feature

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def studies(self, *, since: str = "", until: str = "") -> AsyncGenerator[list[ListedStudy], None]:
        """Yield every study within the end's filters, some at a time, each once; undated ones too.

        With ``since`` and ``until`` (YYYYMMDD) only those that are dated within, and undated ones.

        Raises:
            PostdicomError: it cannot be listed, or contradicts itself: then nothing may be concluded from what came.
        """
        ...

    async def study(self, study: str) -> ListedStudy | None:
        """Return what it says of one study, None where it says that it has none of it.

        Raises:
            PostdicomError: it cannot be asked.
        """
        ...

    def instances(self, study: str) -> AsyncGenerator[list[ListedInstance], None]:
        """Yield every instance of a study, some at a time, each once; nothing where it has none of it.

        Raises:
            PostdicomError: they cannot be listed, or the list contradicts what was asked for.
        """
        ...

    def open(self, wanted: Selection) -> AsyncGenerator[Identified, None]:
        """Yield what is wanted, each once and in any order; ``label`` is the SOP Instance UID as it was wanted.

        What the source does not give is not yielded. Memory is bounded: the next is received when the one before is
        taken, with a little ahead.

        Raises:
            PostdicomError: the end cannot be worked with; what came before counts.
        """
        ...

    def store(
        self, sources: AsyncIterator[Identified], *, anonymize: Anonymization | None = None
    ) -> AsyncGenerator[Outcome, None]:
        """Store what comes, and yield one outcome each as it ends; its ``where`` is the source's label.

        Raises:
            PostdicomError: the end cannot be worked with. Outcomes of everything that was taken come before.
        """
        ...

    async def delete(self, study: str, instances: Sequence[InstanceUids] | None) -> None:
        """Delete instances of a study, or with None all of it.

        Raises:
            PostdicomError: it was not done, or is not known to be.
        """
        ...

    async def probe(self) -> None:
        """Ask the cheapest question there is.

        Raises:
            PostdicomError: what is wrong with it now.
        """
        ...
