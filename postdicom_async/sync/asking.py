"""What every call of the synchronous client does: find the archive, address something, wait for the answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import nullcontext
from operator import index
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from postdicom_async.dicomweb.dialects import Dialect, Route
from postdicom_async.dicomweb.filters import in_pieces, query_string
from postdicom_async.dicomweb.retrieve import Parts, Target, target_of
from postdicom_async.errors import UsageError
from postdicom_async.sync.failures import as_callers_catch_it
from postdicom_async.sync.streams import ItemStream, stream_over
from postdicom_async.watching import watch_call

if TYPE_CHECKING:
    from postdicom_async.dicomweb.client import DicomWeb
    from postdicom_async.dicomweb.retrieve import Opener
    from postdicom_async.settings import Retry
    from postdicom_async.sync.portal import Line

_T = TypeVar("_T")

Params: TypeAlias = Mapping[str, object]
"""Parameters of a query: each a value, or several in a list, tuple or set."""


class Asking:
    """Part of `DICOMwebClient`, which documents its arguments and errors."""

    _routes: Dialect
    _deletions: Dialect
    _permissive_uid: bool
    _retry: Retry | None

    def _line(self) -> Line:
        raise NotImplementedError

    def _run(self, work: Callable[[DicomWeb], Coroutine[Any, Any, _T]], operation: str | None = None) -> _T:
        """Run a coroutine over the archive and return its result; ``operation`` names what is no public call of it."""
        line, tuned = self._line(), self._tuned()

        async def watched(archive: DicomWeb) -> _T:
            with watch_call(operation) if operation is not None else nullcontext():
                return await work(tuned(archive))

        with as_callers_catch_it():
            return line.run(watched)

    def _stream_of(
        self,
        requests: Callable[[DicomWeb], Sequence[tuple[int | None, str]]],
        ladder: tuple[str, ...],
        operation: str,
        convert: Callable[[bytes], _T],
        headers: dict[str, str] | None = None,
    ) -> ItemStream[_T]:
        """Return an iterator over the parts of the answers to requests: how many parts each must have, and its path."""
        tuned = self._tuned()

        async def items(archive: DicomWeb) -> AsyncGenerator[tuple[bytes, int], None]:
            archive = tuned(archive)
            limits, retrieval = archive.settings.limits, archive.internals

            def opener(path: str) -> Opener:
                return lambda: retrieval.open_path(path, ladder=ladder, operation=operation, headers=headers)

            wanted = requests(archive)
            # The last of a known number is given when its answer has ended: whoever wants no more may drop the iterator
            # then, and the connection is kept.
            left = sum(count or 0 for count, _ in wanted) if all(count for count, _ in wanted) else -1
            answers = [(opener(path), count) for count, path in wanted]
            last = b""
            async with Parts(answers, operation=operation, max_parts=limits.parts) as parts:
                async for part in parts:
                    data = await part.read(limits.in_memory_bytes)
                    left -= 1
                    if left == 0:
                        last = data
                    else:
                        yield data, len(data)
            if left == 0:
                yield last, len(last)

        return stream_over(self._line(), items, convert, operation)

    def _tuned(self) -> Callable[[DicomWeb], DicomWeb]:
        """Return what gives an open archive the retry that was set since it was opened."""
        retry = self._retry
        return lambda archive: archive if retry is None else archive.with_options(retry=retry)

    # --- addresses ----------------------------------------------------------------------------------------------------

    def _target(self, study: str, series: str | None = None, instance: str | None = None) -> Target:
        """Return the resource that UIDs address.

        Raises:
            UsageError: one is invalid.
        """
        if not self._permissive_uid:
            return target_of(study, series, instance)
        names = ("study_instance_uid", "series_instance_uid", "sop_instance_uid")
        for name, uid in zip(names, (study, series, instance), strict=True):
            if uid is not None and (not isinstance(uid, str) or not uid or set(uid) & set("/@?#\\ ")):
                raise UsageError("not a UID, even permissively", argument=name)
        return Target(study, series, instance)

    def _instance(self, study: str, series: str, instance: str) -> Target:
        """Return an instance, of which all three UIDs must be given; raises as `_target` does."""
        series, instance = required("series_instance_uid", series), required("sop_instance_uid", instance)
        return self._target(required("study_instance_uid", study), series, instance)

    def _path(self, target: Target, suffix: str = "", params: Params | None = None) -> str:
        return with_query(target.path(self._routes, suffix), params)

    def _frame_paths(
        self, archive: DicomWeb, path: Callable[[str], str], numbers: Sequence[int]
    ) -> list[tuple[int | None, str]]:
        """Return, for each request that a list of frames needs, how many it asks for and its path."""
        longest = self._routes.url_bytes - len(archive.internals.session.url)

        def one(some: Sequence[int]) -> str:
            return path(f"/frames/{','.join(map(str, some))}")

        return [(len(some), one(some)) for some in in_pieces(numbers, lambda some: len(one(some)) <= longest)]


def required(name: str, uid: str | None) -> str:
    """Return an identifier that must be given.

    Raises:
        UsageError: it is None.
    """
    if uid is None:
        raise UsageError("is required", argument=name)
    return uid


def frames_wanted(frame_numbers: Iterable[int]) -> list[int]:
    """Return frame numbers, which begin with 1.

    Raises:
        UsageError: they are none.
    """
    try:
        numbers = [index(number) for number in frame_numbers]
    except TypeError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise UsageError("give one or more numbers from 1 on", argument="frame_numbers")
    return numbers


def pairs_of(params: Params | None, argument: str = "additional_params") -> list[tuple[str, str]]:
    """Return parameters of a query as pairs.

    Raises:
        UsageError: they are no mapping, or a name cannot be written as it is.
    """
    if params is not None and not isinstance(params, Mapping):
        raise UsageError("give a mapping of names to values", argument=argument)
    found: list[tuple[str, str]] = []
    for name, value in (params or {}).items():
        if not isinstance(name, str) or not name or not name.isascii() or set(name) & set("&=#?/% "):
            raise UsageError("a name is not that of a parameter", argument=argument)
        values = value if isinstance(value, list | tuple | set | frozenset) else [value]
        found += [(name, str(one)) for one in values]
    return found


def with_query(path: str, params: Params | None, argument: str = "additional_params") -> str:
    """Return a path with parameters appended to its query."""
    query = query_string(pairs_of(params, argument))
    return path + ("&" if "?" in path else "?") + query if query else path


def prefixed(dialect: Dialect, prefixes: Mapping[Route, str]) -> dict[Route, str]:
    """Return the routes of a dialect, each behind a prefix of its own."""
    return {route: prefixes.get(route, "") + path for route, path in dialect.routes.items()}


def path_prefix(prefix: str | None, argument: str) -> str:
    """Return a prefix as it stands before a route: empty, or with a slash at its beginning.

    Raises:
        UsageError: it is empty text, or no path.
    """
    if prefix is None:
        return ""
    if not isinstance(prefix, str) or not prefix.strip("/") or set(prefix) & set("?#{} "):
        raise UsageError("give a path such as qido, or None", argument=argument)
    return "/" + prefix.strip("/")
