"""Instances of a study from an archive, for the other end of a job: each whole, none twice, and only those wanted.

The wanted instances are fetched in one request if they are all of a study or series, or most of a series; otherwise one
by one, several in parallel. Instances missing from a large answer are requested once more, one by one. An instance is
yielded when its part has ended undamaged, so that an answer that breaks still gives what came before; see `HoldingSink`
for those passed on while they arrive.

State of an `Opening`: what is wanted and has not arrived (``left``), what is arriving in some answer, and how many
requests in a row failed. The risk is asking a broken archive for each of thousands of instances: so after a few
failures in a row, with nothing yielded so far, the error is raised.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from postdicom_async.dicomweb.dialects import Route
from postdicom_async.dicomweb.receive import Receiver
from postdicom_async.dicomweb.retrieve import Target
from postdicom_async.dicomweb.search import count_by_series, count_instances
from postdicom_async.disk.files import outlasting
from postdicom_async.errors import (
    AuthenticationFailed,
    LocalFileError,
    NotFound,
    PostdicomError,
    RateLimited,
    UsageError,
)
from postdicom_async.transfer.adaptive import AtOnce
from postdicom_async.transfer.arrivals import Taken
from postdicom_async.transfer.at_once import Turnstile, for_each_in_turn
from postdicom_async.transfer.holding_sink import HoldingSink, Side
from postdicom_async.transfer.outcomes import Meter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from postdicom_async.dicomweb.retrieve import Retrieval
    from postdicom_async.disk.sources import IdentifiedSource
    from postdicom_async.results import InstanceUids, Outcome

_FIRST_AT_ONCE = 2
_MANY = 8  # wanted instances of one series from which on it is worth asking how many it has
_MOST_SERIES = 1000  # of a study with more series, single instances are requested
# a whole series may bring this many times what is wanted; another request costs about as much as an instance
_MOST_DROPPED = 2
_END_ALL = (AuthenticationFailed, LocalFileError, RateLimited, UsageError)
_MOST_IN_VAIN = 3  # instances in a row


class Retrieves:
    """The retrieve requests at one archive: how many run in parallel, over all openings that share this.

    Attributes:
        policy: how many.
        turnstile: lets them start.
        retrieval: makes them; it tells the policy what the archive refuses.
    """

    def __init__(self, retrieval: Retrieval) -> None:
        self.policy: AtOnce = AtOnce(retrieval.session.settings.limits.parallel_retrieves, first=_FIRST_AT_ONCE)
        self.turnstile: Turnstile = Turnstile(self.policy)
        self.retrieval: Retrieval = retrieval.telling(self.policy)


class Opening:
    """The wanted instances of one study, as they arrive. Use it once.

    Args:
        retrieves: makes the requests.
        within: the study, or the series that all wanted instances belong to.
        wanted: pairs of Series and SOP Instance UID.
        whole: the wanted instances are all that the archive has there. With an empty ``wanted``, everything that
            arrives is
            wanted: it was not listed, and an answer that breaks is not completed, since nobody knows what it lacks.
        once: bodies that can be read only once may be yielded.
        probe: makes the cheapest request, and raises if the archive cannot be worked with.
    """

    def __init__(
        self,
        retrieves: Retrieves,
        within: Target,
        wanted: Iterable[tuple[str, str]],
        *,
        whole: bool,
        once: bool,
        probe: Callable[[], Awaitable[None]],
    ) -> None:
        self._retrieves = retrieves
        self._session = retrieves.retrieval.session.one_call(at_once=True)
        self._retrieval = replace(retrieves.retrieval, session=self._session)
        self._within = within
        self._whole = whole
        self._probe = probe
        self._gave = False
        self._in_vain = 0
        self._is_gone = False  # whether the study or series seems to be gone
        self._problem: PostdicomError | None = None
        self._sink = HoldingSink(self._given, passes=once)
        self.left: dict[tuple[str, str], None] = dict.fromkeys(wanted)
        self.arriving: set[tuple[str, str]] = set()
        self.everything: bool = whole and not self.left
        self.came: set[tuple[str, str]] = set()  # of everything

    async def each(self) -> AsyncGenerator[IdentifiedSource, None]:
        """Yield the instances as they arrive.

        Raises:
            PostdicomError: the archive cannot be worked with, or it gave nothing; instances yielded before remain
                valid.
        """
        with self._sink as sink:
            fetching = asyncio.ensure_future(self._fetch_all())
            fetching.add_done_callback(lambda _: sink.finish())
            try:
                while (one := await sink.next()) is not None:
                    yield one
                    del one  # not kept alive while the next is awaited
                await fetching
            finally:
                sink.close()
                fetching.cancel()
                await outlasting(fetching)

    def _given(self, uids: InstanceUids) -> None:
        key = uids.series_instance_uid, uids.sop_instance_uid
        self.left.pop(key, None)
        if self.everything:
            self.came.add(key)
        self._gave = True
        self._in_vain = 0

    # --- planning -----------------------------------------------------------------------------------------------------

    async def _fetch_all(self) -> None:
        first = [self._within] if self.everything else await self._targets()
        await self._fetch(first)
        if self.everything and self._problem is not None:
            raise self._problem
        if self.left and any(target.instance is None for target in first):
            await self._work_on()
            await self._fetch(self._one_by_one(self.left))
        await self._work_on()

    async def _work_on(self) -> None:
        """After a temporary error, find out whether the archive works at all.

        Raises:
            PostdicomError: it does not.
        """
        if self._problem is not None and self._problem.temporary:
            await self._probe()

    async def _targets(self) -> list[Target]:
        routes = self._retrieval.dialect.routes
        if self._whole and len(self.left) > 1 and self._within.route in routes:
            return [self._within]
        by_series: dict[str, list[tuple[str, str]]] = {}
        for key in self.left:
            by_series.setdefault(key[0], []).append(key)
        many = [series for series, keys in by_series.items() if len(keys) >= _MANY and Route.SERIES in routes]
        study, counts = self._within.study, dict[str, int]()  # instances by series, as far as the archive says
        if len(many) > 1:
            counts = await count_by_series(self._retrieval, study, _MOST_SERIES) or {}
        elif many:
            counts[many[0]] = await count_instances(self._retrieval, Target(study, many[0])) or 0
        targets: list[Target] = []
        for series, keys in by_series.items():
            if 0 < counts.get(series, 0) <= len(keys) * _MOST_DROPPED:  # most of it is wanted
                targets.append(Target(study, series))
            else:
                targets += self._one_by_one(keys)
        return targets

    def _one_by_one(self, keys: Iterable[tuple[str, str]]) -> list[Target]:
        return [Target(self._within.study, *key) for key in keys]

    # --- requests -----------------------------------------------------------------------------------------------------

    async def _fetch(self, targets: list[Target]) -> None:
        async with aclosing(self._still_to_ask(targets)) as asked:
            await for_each_in_turn(asked, self._fetch_one, self._retrieves.turnstile)

    async def _still_to_ask(self, targets: list[Target]) -> AsyncGenerator[Target, None]:
        for target in targets:
            if self._is_gone and self._in_vain >= _MOST_IN_VAIN:
                # 404: the archive does not return whole studies, or has nothing of this one; take it for the latter
                return
            yield target

    async def _fetch_one(self, target: Target) -> None:
        told = _Answer(self, self._retrieves)
        receiver = Receiver(Side(self._sink), target, told, meter=Meter(None))
        problem: PostdicomError | None = None
        try:
            async with self._retrieval.open(target) as answer:
                await receiver.receive(answer, self._session.settings.limits.parts)
        except PostdicomError as error:
            problem = error
        finally:
            self.arriving -= told.taken
            if told.saved:
                self._session.has_moved()
        if problem is not None:
            self._note(problem, target)

    def _note(self, problem: PostdicomError, target: Target) -> None:
        """Note the error of one request; raise one that ends them all.

        A server may fail at a large answer and return small ones, and at one instance and return others.
        """
        is_for_one = problem.status == HTTPStatus.FORBIDDEN
        if isinstance(problem, _END_ALL) and not (isinstance(problem, AuthenticationFailed) and is_for_one):
            raise problem
        self._problem = problem
        if problem.temporary:
            self._retrieves.policy.refused(time.monotonic())
        is_gone = isinstance(problem, NotFound)
        if target.instance is None:
            # or the archive does not return whole studies: requests for single instances will show
            self._is_gone = is_gone
            return
        self._in_vain += 1
        if self._in_vain >= _MOST_IN_VAIN and not (self._gave or is_gone):
            raise problem


class _Answer:
    """Is told of the parts of one answer.

    Attributes:
        taken: instances in it that are wanted.
        saved: how many of them were whole.
    """

    def __init__(self, opening: Opening, retrieves: Retrieves) -> None:
        self.taken: set[tuple[str, str]] = set()
        self.saved: int = 0
        self._opening = opening
        self._retrieves = retrieves
        self._since = time.monotonic()

    def take(self, uids: InstanceUids) -> Taken:
        """Return whether a part is wanted; one that is not, or is already here, is dropped silently."""
        key = uids.series_instance_uid, uids.sop_instance_uid
        opening = self._opening
        is_wanted = key not in opening.came if opening.everything else key in opening.left
        if not is_wanted or key in opening.arriving:
            return Taken.BEFORE
        self._opening.arriving.add(key)
        self.taken.add(key)
        return Taken.NEW

    def has(self, _uids: InstanceUids) -> bool:
        """Return False: bytes are not counted here."""
        return True

    def note_saved(self, outcome: Outcome, _uids: InstanceUids) -> bool:
        """Tell the policy how fast instances arrive."""
        now = time.monotonic()
        self._retrieves.policy.done(self._since, now, outcome.size)
        self._retrieves.turnstile.look()
        self._since = now
        self.saved += 1
        return False

    def note_refused(self, uids: InstanceUids | None, reason: str) -> None:
        """Do nothing: the part is dropped."""

    async def room(self) -> None:
        """Return at once: the sink knows when there is room."""
