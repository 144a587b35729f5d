"""Counts what has moved and tells the caller."""

from __future__ import annotations

from collections.abc import Hashable

from postdicom_async.results import (
    BytesMoved,
    InstanceFinished,
    OnProgress,
    Outcome,
    ProgressEvent,
    Totals,
)

__all__ = ["Meter"]


class Meter:
    """Totals of one transfer. Without a listener it only counts.

    Attributes:
        problem: what the listener raised; it is called no more. Where bytes move it is raised at once. Where an
            instance has ended it must not hide what became of others: `check` raises it, when that is noted.
    """

    def __init__(self, listener: OnProgress | None) -> None:
        self.problem: Exception | None = None
        self._listener = listener
        self._instances_done = 0
        self._bytes_done = 0
        self._instances_total: int | None = None
        self._bytes_total: int | None = None
        self._reached: dict[Hashable, int] = {}

    def expect(self, instances: int, size: int | None) -> None:
        """Note how much there will be, once it is known."""
        self._instances_total = instances
        self._bytes_total = size

    def expect_fewer_bytes(self, size: int) -> None:
        """Note bytes that turned out not to be for sending."""
        if self._bytes_total is not None:
            self._bytes_total -= size

    def moved(self, size: int) -> None:
        """Count bytes that went over the wire for the first time."""
        self._bytes_done += size
        if self._listener is not None:
            self._say(BytesMoved(self._totals()))
            self.check()

    def reached(self, what: Hashable, size: int) -> None:
        """Count the bytes of an instance up to ``size``; those counted in an earlier attempt at it are not again."""
        before = self._reached.get(what, 0)
        if size > before:
            self._reached[what] = size
            self.moved(size - before)

    def finished(self, outcome: Outcome, what: Hashable = None) -> None:
        """Count an instance that reached its end; ``what`` it was called while its bytes were counted."""
        self._instances_done += 1
        self._reached.pop(what, None)
        if self._listener is not None:
            self._say(InstanceFinished(self._totals(), outcome))

    def check(self) -> None:
        """Raise what the listener raised."""
        if self.problem is not None:
            raise self.problem

    def _say(self, event: ProgressEvent) -> None:
        if self._listener is None or self.problem is not None:
            return
        try:
            self._listener(event)
        except Exception as error:  # noqa: BLE001 - the caller's code; raised by `check`
            self.problem = error

    @property
    def bytes_done(self) -> int:
        """Bytes moved so far."""
        return self._bytes_done

    def _totals(self) -> Totals:
        return Totals(self._instances_done, self._instances_total, self._bytes_done, self._bytes_total)
