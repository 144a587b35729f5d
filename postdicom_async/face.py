"""The boundary to the caller: what an exception may still carry when it leaves this package.

A traceback keeps every frame it passed through, and a frame keeps its variables: filters, passwords, keys, the URL of a
request. Error trackers send those. So one rule holds for every public call, enforced by the decorator `public_face`:

* Frames of this package, and of the libraries that it calls, are cut out of the traceback of whatever leaves. The
  caller's own stay, including those of a callback that raised, with everything that the callback called.
* Exceptions caught in this package on the way are not attached as cause or context.

It holds for cancellations too: ``asyncio.timeout`` passes one on as the cause of its ``TimeoutError``. The reason is
not lost: ``PostdicomError.origin`` names the places that were cut out, without any value.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Generic, TypeVar, overload

from postdicom_async.errors import PostdicomError

_Thing = TypeVar("_Thing", bound="type | Callable[..., Any]")
_Wrapped = Callable[..., Any]
_Error = TypeVar("_Error", bound=BaseException)
_Other = TypeVar("_Other", bound=BaseException)

_PACKAGE = __name__.partition(".")[0]
_LIBRARIES = sys.stdlib_module_names | {
    "aiofiles", "aiohappyeyeballs", "aiohttp", "aiohttp_socks", "aiosignal", "anonymizer", "anyio", "azure", "botocore",
    "certifi", "dicomanonymizer", "google", "h11", "h2", "httpcore", "httpx", "idna", "keyring", "multidict",
    "multipart", "numpy", "opentelemetry", "PIL", "platformdirs", "pydicom", "python_socks", "requests", "rich",
    "sniffio", "socksio", "starlette", "typer", "typing_extensions", "tzdata", "urllib3", "uvicorn", "uvloop",
    "websockets", "yarl", "zipstream",
}  # fmt: skip
"""The libraries this package calls. Their frames count as the caller's if the caller's own code called them."""

_PROTOCOL = frozenset({"__init__", "__aenter__", "__aexit__", "__aiter__", "__anext__", "__enter__", "__exit__"})
_MARK = "_postdicom_face"


def public_face(thing: _Thing) -> _Thing:
    """Clean exceptions that leave a function, or the public methods and properties of a class, as described above.

    Methods inherited from bases in this package are included. Signatures stay as they are.
    """
    if not isinstance(thing, type):
        return _faced(thing)  # type: ignore[return-value]  # the same to callers
    done: set[str] = set()
    for kind in thing.__mro__:
        if kind.__module__.partition(".")[0] != _PACKAGE:
            continue
        for name, member in list(vars(kind).items()):
            if name not in done and (not name.startswith("_") or name in _PROTOCOL):
                done.add(name)
                faced = _member(member)
                if faced is not member:
                    setattr(thing, name, faced)
    return thing


def _member(member: Any) -> Any:
    if isinstance(member, classmethod | staticmethod):
        function = _faced(member.__func__)
        return member if function is member.__func__ else type(member)(function)
    if isinstance(member, property):
        getter = member.fget and _faced(member.fget)
        return member if getter is member.fget else property(getter, member.fset, member.fdel, member.__doc__)
    return _faced(member) if inspect.isfunction(member) else member


def _faced(function: _Wrapped) -> _Wrapped:
    if hasattr(function, _MARK):
        return function
    if inspect.isasyncgenfunction(function):
        made = _of_generator(function)
    elif inspect.iscoroutinefunction(function):
        made = _of_coroutine(function)
    else:
        made = _of_function(function)
    setattr(made, _MARK, True)
    return made


# A bare ``raise`` does not add its own frame to the traceback again, so these three wrappers are not in it either.


def _of_function(function: _Wrapped) -> _Wrapped:
    @functools.wraps(function)
    def face(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            cut_frames(error)
            raise

    return face


def _of_coroutine(function: _Wrapped) -> _Wrapped:
    @functools.wraps(function)
    async def face(*args: Any, **kwargs: Any) -> Any:
        try:
            return await function(*args, **kwargs)
        except BaseException as error:
            cut_frames(error)
            raise

    return face


def _of_generator(function: _Wrapped) -> _Wrapped:
    @functools.wraps(function)
    async def face(*args: Any, **kwargs: Any) -> Any:
        try:
            inner = function(*args, **kwargs)
            try:
                async for item in inner:
                    yield item
            finally:
                await inner.aclose()
        except BaseException as error:
            cut_frames(error)
            raise

    return face


# --- one exception for another --------------------------------------------------------------------------------------


class translated(Generic[_Error]):  # noqa: N801 - used as a statement: ``with translated(...)``
    """``with translated(OSError, to):`` - an exception of these kinds raised inside leaves as ``to(error)``.

    Nothing of the original is attached to the new one, neither its frames nor itself as context: it may hold a URL or a
    header. ``raise ... from None`` in a handler only hides it. If ``to`` returns None, or the error itself, the error
    passes unchanged. An object may be used repeatedly, but not concurrently.
    """

    @overload
    def __init__(self, kinds: type[_Error], to: Callable[[_Error], BaseException | None]) -> None: ...
    @overload  # otherwise type checkers join two kinds to Exception
    def __init__(
        self: translated[_Error | _Other],
        kinds: tuple[type[_Error], type[_Other]],
        to: Callable[[_Error | _Other], BaseException | None],
    ) -> None: ...
    @overload
    def __init__(self, kinds: tuple[type[_Error], ...], to: Callable[[_Error], BaseException | None]) -> None: ...
    def __init__(self, kinds: Any, to: Callable[[Any], BaseException | None]) -> None:
        self._kinds = kinds
        self._to = to
        self._behind: BaseException | None = None

    def __enter__(self) -> None:
        self._behind = sys.exc_info()[1]  # an exception the caller is already handling stays as the context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        behind, self._behind = self._behind, None
        new = self._to(error) if isinstance(error, self._kinds) else None
        if new is None or new is error:
            return
        del kind, error, trace  # this frame will be in the new exception's traceback, and must hold nothing
        try:
            raise new
        finally:
            new.__context__ = behind


# --- tracebacks -----------------------------------------------------------------------------------------------------


def cut_frames(error: BaseException) -> None:
    """Cut this package's frames out of an exception and of its causes and contexts."""
    waiting, seen = [error], {id(error)}
    while waiting:
        one = waiting.pop()
        _cut(one)
        _drop_what_was_caught_here(one)
        members = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        for other in (one.__cause__, one.__context__, *members):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)


def _cut(error: BaseException) -> None:
    kept: list[TracebackType] = []
    places: list[str] = []
    inside = False
    for step in _steps(error.__traceback__):
        home = _home(step.tb_frame)
        if home == _PACKAGE:
            inside = True
            places += _place(step)
        elif not (inside and home in _LIBRARIES):
            inside = False
            kept.append(step)
    if not places and not inside:
        return
    error.__traceback__ = functools.reduce(_before, reversed(kept), None)
    if isinstance(error, PostdicomError):
        error.origin = (*places, *error.origin)
    elif places and not kept and isinstance(error, Exception):
        error.add_note(f"raised in {' > '.join(places)}")


def _drop_what_was_caught_here(error: BaseException) -> None:
    if error.__cause__ is not None and _was_caught_here(error.__cause__, error):
        error.__cause__ = None
    if error.__context__ is not None and _was_caught_here(error.__context__, error):
        error.__context__ = None


def _was_caught_here(other: BaseException, error: BaseException) -> bool:
    """Whether a cause or context was caught inside this package: a traceback begins where it was caught.

    A cancellation stays, without its frames: anyio looks for it there.
    """
    if not isinstance(other, Exception):
        return False
    if other.__traceback__ is None:
        return isinstance(error, PostdicomError)
    return _home(other.__traceback__.tb_frame) in {_PACKAGE, *_LIBRARIES}


def _steps(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _before(below: TracebackType | None, step: TracebackType) -> TracebackType:
    return TracebackType(below, step.tb_frame, step.tb_lasti, step.tb_lineno)


def _home(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _place(step: TracebackType) -> Iterator[str]:
    """Yield the position of a frame of ours: module, function and line, and never a value."""
    module = str(step.tb_frame.f_globals.get("__name__", ""))
    if module != __name__:
        yield f"{module.removeprefix(_PACKAGE + '.')}:{step.tb_frame.f_code.co_qualname}:{step.tb_lineno}"
