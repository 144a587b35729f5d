"""Blocking iterators over what arrives in the loop: bounded in memory, and over when nobody wants them any more.

A task in the loop, the pump, puts items into a `Channel`; the caller's thread takes them out. The pump pauses while
the caller has more than a few megabytes to take, and then the network waits. It ends when the answer does, when it
breaks, and when the iterator is closed, garbage or interrupted: then the request is given up and its connection free.

Several threads may take. Whatever ends a channel wakes them all; what broke it is kept, and told to each of them.
"""

from __future__ import annotations

import asyncio
import copy
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from postdicom_async.errors import PostdicomError, UsageError
from postdicom_async.face import cut_frames, public_face
from postdicom_async.sync.failures import as_callers_catch_it
from postdicom_async.watching import watch_call

if TYPE_CHECKING:
    from types import TracebackType

    from postdicom_async.dicomweb.client import DicomWeb
    from postdicom_async.sync.portal import Line

_T = TypeVar("_T")
_Item = TypeVar("_Item")

_MOST_BYTES = 8 << 20
_MOST_ITEMS = 256


class Channel(Generic[_Item]):
    """Items on their way from the loop to other threads.

    State: the queue and its size belong to the condition's lock, which is held for moments only; the event that tells
    the pump of room belongs to the loop.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._changed = threading.Condition(threading.Lock())
        self._items: deque[tuple[_Item, int]] = deque()
        self._size = 0
        self._is_over = False
        self._is_given_up = False
        self._error: BaseException | None = None
        self._room = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._ended: Future[None] = Future()

    def begin(self, items: Callable[[DicomWeb], AsyncGenerator[tuple[_Item, int], None]], operation: str) -> None:
        """Start the pump: ``items`` gives each item with its size in bytes.

        Raises:
            UsageError: there is no loop any more.
        """
        portal, archive = self._line.portal, self._line.archive

        async def pump() -> None:
            try:
                await portal.open(archive)
                with watch_call(operation):
                    async with aclosing(items(archive)) as arriving:
                        async for item, size in arriving:
                            await self._put(item, size)
                            del item  # not kept alive while the next one arrives
            except Exception as error:  # noqa: BLE001 - raised again where the items are taken
                self._close(error)
            else:
                self._close(None)

        # A pump may be cancelled before its first step, or never begin: its end closes the channel, whatever it was.
        of_pump = weakref.WeakMethod(self._of_pump)  # whoever waits holds this channel; its own future must not
        self._ended.add_done_callback(lambda ended: (close := of_pump()) and close(ended))
        portal.start(pump, self._ended, self._tasks)

    async def _put(self, item: _Item, size: int) -> None:
        with self._changed:
            if self._is_given_up:  # and this task soon cancelled
                return
            self._items.append((item, size))
            self._size += size
            self._changed.notify()
            is_full = self._is_full()
            if is_full:
                self._room.clear()
        if is_full:
            await self._room.wait()

    def _is_full(self) -> bool:
        return self._size >= _MOST_BYTES or len(self._items) >= _MOST_ITEMS

    def _of_pump(self, ended: Future[None]) -> None:
        error = None if ended.cancelled() else ended.exception()
        self._close(error or UsageError("the client was closed while this was read"))

    def _close(self, error: BaseException | None) -> None:
        """End the channel, unless it has ended."""
        if error is not None:
            cut_frames(error)  # they refer to this channel, which keeps the error
        with self._changed:
            if not self._is_over:
                self._is_over = True
                self._error = None if self._is_given_up else error
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until there is an item, or no more will come.

        Raises:
            BaseException: what broke the stream, if that was before its first item.
        """
        with self._changed:
            while not self._items and not self._is_over:
                self._changed.wait()
            if not self._items and self._error is not None:
                raise _again(self._error)

    def take(self) -> _Item:
        """Return the next item.

        Raises:
            StopIteration: there is none.
            UsageError: the channel was closed during this call.
            BaseException: what broke the stream; each call raises it.
        """
        if not self._line.is_here:  # what would fill it is not here, nor who may hold its lock
            raise UsageError("this iterator was made before the process was forked")
        with self._changed:
            was_given_up = self._is_given_up
            while not self._items and not self._is_over:
                self._changed.wait()
            if not self._items:
                if self._error is not None:
                    raise _again(self._error)
                if self._is_given_up and not was_given_up:
                    raise UsageError("this iterator was closed while it was read")
                raise StopIteration
            was_full = self._is_full()
            item, size = self._items.popleft()
            self._size -= size
            has_room = was_full and not self._is_full()
        if has_room:
            self._line.portal.note(self._room.set)
        return item

    def cancel(self) -> None:
        """End the pump soon. May be called from any thread, a finalizer too; it takes no lock."""
        tasks = self._tasks
        self._line.portal.note(lambda: [task.cancel() for task in tasks])

    def close(self, failure: BaseException | None = None) -> None:
        """End the pump, and wait until its connection is free; what has not been taken is dropped.

        Args:
            failure: why, if nobody wants it so: other threads that take are told of it.
        """
        if not self._line.is_here:
            return
        with self._changed:
            if failure is not None and self._error is None and not self._is_given_up:
                is_told = isinstance(failure, PostdicomError)  # an interrupt is for one thread
                self._error = copy.copy(failure) if is_told else UsageError("this iterator was closed by a failure")
            self._is_given_up = self._is_over = True
            self._items.clear()
            self._size = 0
            self._changed.notify_all()
        self.cancel()
        self._line.portal.wait_for(self._ended)


def _again(error: BaseException) -> BaseException:
    """Return what to raise for an error that is kept: one object cannot be raised in several threads."""
    return copy.copy(error) if isinstance(error, PostdicomError) else error


@public_face
class ItemStream(Iterator[_T], Generic[_T]):
    """An iterator over an answer that is still arriving. Several threads may share one.

    It holds a connection until it is read to its end or closed: read it, use it as ``with``, call `close`, or drop it.
    """

    def __init__(self, channel: Channel[Any], convert: Callable[[Any], _T]) -> None:
        self._channel: Channel[Any] = channel
        self._convert = convert
        weakref.finalize(self, channel.cancel).atexit = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        """Return what comes next; raises as the method that gave this iterator does.

        If it breaks, every thread that reads it is told, at each further call too.
        """
        try:
            with as_callers_catch_it():
                return self._convert(self._channel.take())
        except StopIteration:
            raise
        except BaseException as error:
            self._channel.close(error)
            raise

    def close(self) -> None:
        """Stop the request, if it has not ended. Nothing comes after this."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def stream_over(
    line: Line,
    items: Callable[[DicomWeb], AsyncGenerator[tuple[_Item, int], None]],
    convert: Callable[[_Item], _T],
    operation: str,
) -> ItemStream[_T]:
    """Return an iterator whose request has been made, and whose first item, or refusal, has come.

    ``convert`` runs in the thread that reads.

    Raises:
        PostdicomError: the request failed; in the forms of `as_callers_catch_it`.
    """
    channel: Channel[_Item] = Channel(line)
    channel.begin(items, operation)
    try:
        with as_callers_catch_it():
            channel.wait()
    except BaseException:
        channel.close()
        raise
    return ItemStream(channel, convert)
