"""The event loop behind the synchronous client: one thread that all clients of a process share.

A blocking call hands a coroutine to the loop and waits for it. What can go wrong, and what is done about it:

* **Ctrl-C while a call waits**: the call is cancelled in the loop, and waited for until it has given its connection
  back; then the interrupt goes on.
* **Nobody closes**: what a garbage client had open is closed in the loop (`Line.drop`; a collector may call it in any
  thread, inside any lock, so it only leaves a note for the loop). The thread ends with its last client.
* **The interpreter ends** with clients open: the thread is a daemon, and so are those that it starts. When the threads
  that the interpreter waits for have ended, and nobody can call any more, the loop is told to end, and waited for.
* **fork**: the child has no such thread. It forgets the loop, without touching it: closing the child's copy would take
  the parent's sockets out of the parent's own selector. Clients connect anew at their next call (`Line.is_here`).
* **The loop cannot be made**, for want of descriptors or threads: every call that waits for it is told, and the next
  one tries again.

Whatever a thread waits for is a future in `Portal._waited_for`, from before the loop hears of it until it is done. What
is left in there when the loop has been closed is cancelled: nobody waits for a loop that is no more.

State: ``_current`` and `Portal.lines` belong to ``_lock``, which nobody holds while waiting for the loop. Tasks and
archives belong to the loop.
"""

from __future__ import annotations

import asyncio
import atexit
import copy
import os
import selectors
import socket
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from postdicom_async.errors import ConnectionFailed, UsageError
from postdicom_async.face import translated

if TYPE_CHECKING:
    from postdicom_async.dicomweb.client import DicomWeb

_T = TypeVar("_T")

_GRACE = 10.0  # seconds that a cancelled call, or a loop that is ended, may take to clean up

_lock = threading.Lock()
_current: Portal | None = None
_left_behind: list[Portal] = []  # of parent processes: never closed, see above


class Portal:
    """A thread with an event loop.

    Attributes:
        lines: how many clients use it.
        process: the process it belongs to.
        is_over: whether it begins nothing any more: it is told to end, has ended, or could not begin.

    Raises:
        ConnectionFailed: the system gives no thread.
    """

    def __init__(self) -> None:
        self.lines: int = 0
        self.process: int = os.getpid()
        self.is_over: bool = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._open: set[DicomWeb] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()
        self._started: Future[None] = Future()
        self._waited_for: set[Future[Any]] = {self._started}
        self._thread = threading.Thread(target=self._run, name="postdicom-sync", daemon=True)
        with translated(RuntimeError, lambda _: ConnectionFailed("the system gives no thread for the connections")):
            self._thread.start()

    # --- for the threads that call ------------------------------------------------------------------------------------

    def wait_for_start(self) -> None:
        """Wait until there is a loop.

        Raises:
            ConnectionFailed: it could not be made.
        """
        error: BaseException | None
        try:
            error = self._started.exception()
        except CancelledError:
            error = ConnectionFailed("the thread for the connections ended before it began")
        if error is not None:
            raise copy.copy(error)  # several threads may wait

    def run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine in the loop, with the caller's context, and return its result.

        Raises:
            UsageError: called in the loop's own thread, as a callback is, or the client was closed meanwhile.
            BaseException: whatever the coroutine raises.
        """
        if self._is_own_thread():
            raise UsageError("a callback of this client runs in the thread that would do the work; call from another")
        ended: Future[_T] = Future()
        tasks: list[asyncio.Task[_T]] = []
        try:
            self.start(work, ended, tasks)
            return ended.result()
        except CancelledError:
            pass
        except BaseException as interrupt:
            if not ended.done() and self._note(lambda: _give_up(ended, tasks)):  # the wait itself was interrupted
                _wait_for(ended)
                _carry(tasks, interrupt)
            raise
        raise UsageError("the client was closed while this call waited")

    def start(
        self, work: Callable[[], Coroutine[Any, Any, _T]], ended: Future[_T], tasks: list[asyncio.Task[_T]]
    ) -> None:
        """Begin a coroutine in the loop; ``tasks`` gets its task, ``ended`` its result.

        ``ended`` comes to an end whatever happens to the loop: it is cancelled if the coroutine cannot run to its own.

        Raises:
            UsageError: there is no loop any more.
        """
        context = copy_context()
        self._waited_for.add(ended)
        ended.add_done_callback(self._waited_for.discard)

        def begin() -> None:
            if self.is_over:  # nobody would end the task
                ended.cancel()
                return
            task = asyncio.get_running_loop().create_task(work(), context=context)
            tasks.append(task)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda done: _tell(done, ended))

        if not self._note(begin):
            ended.cancel()
            raise UsageError("the client is closed")

    def wait_for(self, ended: Future[Any]) -> None:
        """Wait until something that was cancelled has cleaned up. Another interrupt ends this wait."""
        if not self._is_own_thread():
            _wait_for(ended)

    def _is_own_thread(self) -> bool:
        return threading.current_thread() is self._thread  # its number may be another's when it has ended

    def _note(self, what: Callable[[], object]) -> bool:
        """Have the loop do something; return whether there is a loop. It takes no lock of ours."""
        if self._loop is None:
            return False
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # closed
            return False
        return True

    def note(self, what: Callable[[], object]) -> None:
        """Have the loop do something soon, if it still runs. May be called from any thread, a finalizer too."""
        if self.process == os.getpid():
            self._note(what)

    def release(self) -> bool:
        """Count one client less; return whether it was the last, so that the loop is to end."""
        global _current
        with _lock:
            self.lines -= 1
            if self.lines:
                return False
            if _current is self:
                _current = None
            return True

    def stop(self) -> None:
        """End the loop, with what still runs in it, and its thread."""
        _wait_for(self._started)
        self._note(self._end.set)
        if not self._is_own_thread():
            self._thread.join(_GRACE)

    # --- in the loop --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        runner = asyncio.Runner()
        try:
            if self._has_loop(runner):
                runner.run(self._main())
        finally:
            self.is_over = True
            # The runner waits for threads of the loop's executor, in a thread: at its end the interpreter starts none.
            with suppress(RuntimeError):
                runner.close()
            for ended in list(self._waited_for):  # what the loop was told and did not come to
                ended.cancel()

    def _has_loop(self, runner: asyncio.Runner) -> bool:
        """Make the loop, and say so to those who wait for it."""
        try:
            self._loop = _loop_of(runner)
        except OSError as error:
            self.is_over = True  # before anybody hears of it and tries again
            why = f"the system gives no event loop for the connections: {error.strerror or 'no reason given'}"
            self._started.set_exception(ConnectionFailed(why.lower()))
            return False
        self._started.set_result(None)
        return True

    async def _main(self) -> None:
        await self._end.wait()
        self.is_over = True  # from here on, what begins is not swept any more
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        while self._leaving:
            await asyncio.wait(self._leaving)
        for archive in list(self._open):
            await self.close(archive)

    async def open(self, archive: DicomWeb) -> None:
        """Open an archive, unless it is."""
        if archive not in self._open:
            await archive.__aenter__()
            self._open.add(archive)

    async def close(self, archive: DicomWeb) -> None:
        """Close an archive, if it is open."""
        if archive in self._open:
            self._open.discard(archive)
            await archive.__aexit__(None, None, None)

    def leave(self, archive: DicomWeb) -> None:
        """Close what a dropped client had open, and end with the last client."""
        task = asyncio.get_running_loop().create_task(self._leave(archive))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave(self, archive: DicomWeb) -> None:
        await self.close(archive)
        if self.release():
            self._end.set()


class Line:
    """What one client holds while it is open: its archive, in a loop that runs.

    Attributes:
        portal: where the archive is.
        archive: the archive; opened by the first call.
        drop: closes it without waiting, when nobody holds this line any more: neither its client nor an iterator.
    """

    drop: weakref.finalize[..., Line]

    def __init__(self, portal: Portal, archive: DicomWeb) -> None:
        self.portal: Portal = portal
        self.archive: DicomWeb = archive

    @property
    def is_here(self) -> bool:
        """Whether it was made in this process, rather than before a fork."""
        return self.portal.process == os.getpid()

    def run(self, work: Callable[[DicomWeb], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine over the open archive; raises as `Portal.run` does."""

        async def opened() -> _T:
            await self.portal.open(self.archive)
            return await work(self.archive)

        return self.portal.run(opened)

    def hang_up(self) -> None:
        """Close the archive and, with the last client, the loop and its thread."""
        if self.drop.detach() is None or not self.is_here:
            return
        archive, portal = self.archive, self.portal
        try:
            portal.run(lambda: portal.close(archive))
        except UsageError:
            if not portal.is_over:  # else the loop has closed it
                raise
        finally:
            if portal.release():
                portal.stop()


def connect(archive: DicomWeb) -> Line:
    """Return a line for one more client, over the process's loop.

    Raises:
        ConnectionFailed: the system gives no thread, or no loop.
    """
    global _current
    with _lock:
        if _current is None or _current.is_over:
            _current = Portal()
        portal = _current
        portal.lines += 1
    try:
        portal.wait_for_start()
    except BaseException:
        if portal.release():
            portal.stop()
        raise
    line = Line(portal, archive)
    line.drop = weakref.finalize(line, portal.note, lambda: portal.leave(archive))
    line.drop.atexit = False  # the loop knows of the end by itself
    return line


def _loop_of(runner: asyncio.Runner) -> asyncio.AbstractEventLoop:
    """Return the runner's loop, made now.

    Raises:
        OSError: the system has not the descriptors that it takes.
    """
    # Tried before: a loop of asyncio that is half made cannot be closed, and complains of it on standard error.
    one, other = socket.socketpair()
    with one, other, selectors.DefaultSelector():
        pass
    return runner.get_loop()


def _give_up(ended: Future[Any], tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel what was to begin; in the loop, which has begun it by now if it was asked to."""
    for task in tasks:
        task.cancel()
    if not tasks:
        ended.cancel()


def _carry(tasks: list[asyncio.Task[Any]], interrupt: BaseException) -> None:
    """Give an interrupt the attributes by which a cancelled call tells what it has done, such as ``shared``."""
    for task in tasks:
        if task.cancelled():
            try:
                task.result()
            except asyncio.CancelledError as cancelled:
                vars(interrupt).update(vars(cancelled))


def _tell(task: asyncio.Task[_T], ended: Future[_T]) -> None:
    if task.cancelled():
        ended.cancel()
        return
    error = task.exception()
    if error is None:
        ended.set_result(task.result())
    else:
        ended.set_exception(error)


def _wait_for(ended: Future[Any]) -> None:
    """Wait until a cancelled call has cleaned up. Another interrupt ends this wait."""
    try:
        ended.exception(_GRACE)
    except (CancelledError, TimeoutError):
        return


# --- the end of the process, and its children -------------------------------------------------------------------------


def _stop() -> None:
    if _current is not None:
        _current.stop()


def _forget() -> None:
    global _current, _lock
    if _current is not None:
        _left_behind.append(_current)
    _current, _lock = None, threading.Lock()  # somebody may have held it when the process was forked


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
