"""Where instances go as they arrive: into a folder (`FolderSink`), or on to another archive (`HoldingSink`).

A sink takes bytes without waiting and says later what became of them, so that taking an answer apart never waits for
each part. Whoever feeds it awaits `Sink.room` in between: so a slow disk, or a slow reader, holds back the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from postdicom_async.dicom.header import InstanceHeader

__all__ = ["Arrival", "Arriving", "Ended", "Pieces", "Sink"]

Pieces: TypeAlias = Sequence[bytes | memoryview]

Ended: TypeAlias = Callable[[BaseException | None], None]
"""Called once for each arrival, in the event loop: with None when it was kept, or dropped as it was told to; with the
error otherwise. It must not raise."""


class Arriving(NamedTuple):
    """An instance that begins to arrive.

    Attributes:
        header: what it says it is.
        length: how many bytes it will have, None where the archive has not said.
    """

    header: InstanceHeader
    length: int | None


class Arrival(Protocol):
    """One instance on its way into a sink. No call waits; `Ended` tells how it went."""

    @property
    def where(self) -> str:
        """The file it will be, empty where it is none."""
        ...

    def write(self, pieces: Pieces, size: int, /) -> None:
        """Take its next bytes, ``size`` in all."""
        ...

    def end(self, pieces: Pieces, size: int, /) -> None:
        """Take its last bytes: it is whole."""
        ...

    def drop(self) -> None:
        """Leave nothing of it: the rest will not come."""
        ...


class Sink(Protocol):
    """Takes instances, from several answers at once.

    Attributes:
        piece: how many bytes of a large instance are gathered before they are handed over. A smaller one comes whole.
    """

    piece: int

    def open(self, arriving: Arriving, ended: Ended, /) -> Arrival:
        """Begin to take an instance.

        Raises:
            UsageError: it cannot have a place there.
        """
        ...

    def is_full(self) -> bool:
        """Whether `room` would wait."""
        ...

    async def room(self) -> None:
        """Wait until more may come."""
        ...
