"""Instances of a study from an archive, for another end of a job: each whole, none twice, and only those wanted.

What is wanted is asked for in one request where it is all of a study or series, or most of a series; else one by one,
several at once. What a large answer lacks is asked for once more, one by one. An instance is given when its part has
come to its end undamaged, so that an answer that breaks gives what came before; see `HoldingSink` for those that are
handed on while they come.

State of an `Opening`: what is wanted and has not come (``left``), what is arriving in some answer, and how many
instances in a row were asked for in vain. What can go wrong is to ask a broken archive for each of thousands of
instances: so after a few in vain, with nothing given so far, the problem is raised.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING

from postdicom_async.dicomweb.dialects import Route
from postdicom_async.dicomweb.listing import count_by_series, count_instances
from postdicom_async.dicomweb.receive import Receiver
from postdicom_async.dicomweb.retrieve import Target
from postdicom_async.disk.threads import outlasting
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
_MANY = 8  # of one series: it is worth asking how many it has
_MOST_SERIES = 1000  # of a study with more, single instances are asked for
_MOST_DROPPED = 2  # times what is wanted, all that comes with a series; each request more costs about an instance
_END_ALL = (AuthenticationFailed, LocalFileError, RateLimited, UsageError)
_MOST_IN_VAIN = 3  # instances in a row


class Retrieves:
    """The retrieve requests at one archive: how many run at once, over all openings that share this.

    Attributes:
        policy: how many.
        turnstile: lets them begin.
        retrieval: makes them; what the archive refuses is told to the policy.
    """

    def __init__(self, retrieval: Retrieval) -> None:
        self.policy: AtOnce = AtOnce(retrieval.session.settings.limits.parallel_retrieves, first=_FIRST_AT_ONCE)
        self.turnstile: Turnstile = Turnstile(self.policy)
        self.retrieval: Retrieval = retrieval.telling(self.policy)


class Opening:
    """What is wanted of one study, as it comes. Use it once.

    Args:
        retrieves: what makes the requests.
        within: the study, or the series that all that is wanted belongs to.
        wanted: Series and SOP Instance UIDs.
        whole: it is all that the archive has there. With nothing in ``wanted``, all that comes is: it was not listed,
            and an answer that breaks is not made good, since nobody knows what it lacks.
        once: bodies may be given that can be read only once.
        probe: asks the archive the cheapest question, and raises where it cannot be worked with.
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
        self._retrieval = retrieves.retrieval.over(self._session)
        self._within = within
        self._whole = whole
        self._probe = probe
        self._gave = False
        self._in_vain = 0
        self._is_gone = False  # the study or series, as it seems
        self._problem: PostdicomError | None = None
        self._sink = HoldingSink(self._given, passes=once)
        self.left: dict[tuple[str, str], None] = dict.fromkeys(wanted)
        self.arriving: set[tuple[str, str]] = set()
        self.everything: bool = whole and not self.left
        self.came: set[tuple[str, str]] = set()  # of everything

    async def each(self) -> AsyncGenerator[IdentifiedSource, None]:
        """Yield what comes.

        Raises:
            PostdicomError: the archive cannot be worked with, or it gave nothing; what came before counts.
        """
        with self._sink as sink:
            fetching = asyncio.ensure_future(self._fetch_all())
            fetching.add_done_callback(lambda _: sink.finish())
            try:
                while (one := await sink.next()) is not None:
                    yield one
                    del one  # so that it is not kept while the next is awaited
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

    # --- what is asked for --------------------------------------------------------------------------------------------

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
        """Find out whether the archive works at all after something went wrong that may pass.

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
        study, counts = self._within.study, dict[str, int]()  # of instances, as far as the archive says
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
                return  # the archive does not give whole studies, or it has none of this one: the latter
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
        """Note what went wrong with one request; raise what ends them all.

        A server may fail at a large answer and give the small ones, and at one instance and give the others.
        """
        is_for_one = problem.status == HTTPStatus.FORBIDDEN
        if isinstance(problem, _END_ALL) and not (isinstance(problem, AuthenticationFailed) and is_for_one):
            raise problem
        self._problem = problem
        if problem.temporary:
            self._retrieves.policy.refused(time.monotonic())
        is_gone = isinstance(problem, NotFound)
        if target.instance is None:
            self._is_gone = is_gone  # or the archive does not give whole studies: single instances will tell
            return
        self._in_vain += 1
        if self._in_vain >= _MOST_IN_VAIN and not (self._gave or is_gone):
            raise problem


class _Answer:
    """What learns of one answer's parts.

    Attributes:
        taken: what it brings that is wanted.
        saved: how many of them were whole.
    """

    def __init__(self, opening: Opening, retrieves: Retrieves) -> None:
        self.taken: set[tuple[str, str]] = set()
        self.saved: int = 0
        self._opening = opening
        self._retrieves = retrieves
        self._since = time.monotonic()

    def take(self, uids: InstanceUids) -> Taken:
        """Say whether a part is wanted: what is not, or is here, is dropped without a word."""
        key = uids.series_instance_uid, uids.sop_instance_uid
        opening = self._opening
        is_wanted = key not in opening.came if opening.everything else key in opening.left
        if not is_wanted or key in opening.arriving:
            return Taken.BEFORE
        self._opening.arriving.add(key)
        self.taken.add(key)
        return Taken.NEW

    def has(self, _uids: InstanceUids) -> bool:
        """Say that nobody counts its bytes."""
        return True

    def note_saved(self, outcome: Outcome, _uids: InstanceUids) -> bool:
        """Tell the policy how fast instances come."""
        now = time.monotonic()
        self._retrieves.policy.done(self._since, now, outcome.size)
        self._retrieves.turnstile.look()
        self._since = now
        self.saved += 1
        return False

    def note_refused(self, uids: InstanceUids | None, reason: str) -> None:
        """Do nothing: it is dropped."""

    async def room(self) -> None:
        """Return at once: the sink tells when there is room."""
