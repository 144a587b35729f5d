"""What the phases of a run share: the ledger, the ends and the options; and how an end is asked, with retries.

A `Context` does not change during a run; the objects it points to do. An end that fails is asked again where
`pace.outages` says that this makes sense. A list is then read again from its beginning: a partial list proves nothing,
since the instances it lacks would be taken as deleted, or would never be moved. When a list fails although the end
works, `Unlisted` is raised: that one study fails, and the job continues.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from postdicom_async.dicom.header import checked_uid
from postdicom_async.errors import LimitReached, PostdicomError
from postdicom_async.jobs.ends.end import Feature
from postdicom_async.jobs.ledger.schema import BEFORE_ALL, ItemRow, Stage
from postdicom_async.jobs.pace.outage_policy import RetryWaves
from postdicom_async.jobs.plan import Comparison, planned_items
from postdicom_async.jobs.states import Reason, State, reason_code

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.jobs.ends.end import End
    from postdicom_async.jobs.ledger.ledger import Ledger
    from postdicom_async.jobs.ledger.schema import StudyRow
    from postdicom_async.jobs.pace.outages import Outages
    from postdicom_async.jobs.summary import ItemLine


_T = TypeVar("_T")

_LIST = "list"  # the placeholder item that fails when a study's instances cannot be listed; no instance has such a UID
_REFUSED = 400
_MOST_VAIN = 12  # attempts at a list, each after its end worked again, that got no further than an earlier one


class Unlisted(Exception):
    """A list failed at an end that works.

    Attributes:
        problem: why.
    """

    def __init__(self, problem: PostdicomError) -> None:
        super().__init__()
        self.problem: PostdicomError = problem


@dataclass(frozen=True, slots=True)
class JobOptions:
    """The options of a job.

    Attributes:
        verb: ``"copy"``, ``"sync"`` or ``"verify"``.
        verify: ``"none"``, ``"listed"`` or ``"bytes"``.
        full: list the instances of every study, even where the counts agree.
        first: the studies to move first, with their positions.
        anonymize: what is changed on the way.
        attempts: how often an item is tried in a run.
        chunk: instances in a chunk.
        delete: which instances that the source no longer has are deleted at the target: ``""`` none, ``"copied"`` those
            this job copied, or ``"all"``.
        max_delete: the share of the target's instances that may be deleted, 0 to 1.
        sample: the share of instances that is compared by bytes, 0 to 1; every run chooses the same ones.
        wave: seconds to wait before failed items are tried again, given the number of attempts made.
    """

    verb: str = "copy"
    verify: str = "listed"
    full: bool = False
    first: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    anonymize: Anonymization | None = None
    attempts: int = 3
    chunk: int = 500
    delete: str = ""
    max_delete: float = 0.01
    sample: float = 1.0
    wave: Callable[[int], float] = lambda attempts: RetryWaves().wait(attempts, random.random())  # noqa: S311 - jitter

    @property
    def needs_digests(self) -> bool:
        """Whether digests of what is sent are kept.

        Not with anonymisation: verification anonymises the source's copy again.
        """
        return self.verify == "bytes" and self.anonymize is None


def order_of(first: Iterable[str]) -> dict[str, int]:
    """Return the position of each study that was asked to come first.

    Raises:
        UsageError: one is no UID.
    """
    return {checked_uid(uid, "first"): number for number, uid in enumerate(first)}


@dataclass(frozen=True, slots=True)
class Context:
    """One run of a job."""

    ledger: Ledger
    source: End
    target: End
    options: JobOptions
    outages: Outages
    tell: Callable[[ItemLine], None]

    @property
    def run(self) -> int:
        """Which run this is, from 1 on."""
        return int(self.ledger.fact("run") or 1)

    @property
    def comparison(self) -> Comparison:
        """How the ends are compared."""
        rules = self.options.anonymize
        moves = self.options.verb != "verify"  # which asks whether it is there at all, and by ``bytes`` what it is
        return Comparison(
            self.run,
            target_lists=Feature.LISTS in self.target.features,
            full=self.options.full or self.options.verb == "verify",
            maps_uids=rules is not None and rules.remap_uids,
            keeps_uids=moves and rules is not None and not rules.remap_uids,
        )

    def uid_at_target(self, uid: str) -> str:
        """Return the UID that a UID of the source has at the target."""
        rules = self.options.anonymize
        return rules.new_uid(uid) if rules is not None and rules.remap_uids else uid

    async def listing(
        self, end: End, pages: Callable[[], AsyncGenerator[list[_T], None]]
    ) -> AsyncGenerator[list[_T], None]:
        """Yield what an end lists; after an outage, all of it again from the beginning.

        So entries may be yielded twice; `whole_list` avoids that.

        Raises:
            PostdicomError: it cannot be listed.
        """
        furthest = vain = 0
        for made in itertools.count(1):
            problem: PostdicomError | None = None
            try:
                async with aclosing(pages()) as parts:
                    number = 0
                    async for part in parts:
                        number += 1
                        if number > furthest:
                            furthest, vain = number, 0
                        self.outages.succeeded(end)
                        yield part
            except PostdicomError as error:
                problem = error
            if problem is None:
                self.outages.succeeded(end)
                return
            # The list of a huge archive may break at some page each time and yet get further: that does not count as a
            # failure.
            vain += 1
            if not await self.outages.to_be_repeated(end, problem, made) or vain >= _MOST_VAIN:
                raise problem

    async def whole_list(self, end: End, pages: Callable[[], AsyncGenerator[list[_T], None]]) -> list[_T]:
        """Return the complete list of an end, from a single attempt; partial results of broken attempts are discarded.

        Raises:
            Unlisted: the list failed although the end works.
            PostdicomError: the end cannot be worked with.
        """

        async def listed() -> list[_T]:
            async with aclosing(pages()) as parts:
                return [one async for part in parts for one in part]

        return await self.ask(end, listed, most=_MOST_VAIN, failed=Unlisted)

    async def ask(
        self,
        end: End,
        question: Callable[[], Awaitable[_T]],
        *,
        most: int | None = None,
        failed: Callable[[PostdicomError], Exception] = lambda problem: problem,
    ) -> _T:
        """Ask an end a question and return the answer; ask again after an outage or a failure that may be temporary.

        Args:
            end: which one.
            question: asks once; partial results of a failed call must be discarded.
            most: the limit of attempts, even if every failure is an outage.
            failed: makes the exception to raise from the last failure when the end works.

        Raises:
            LimitReached: raised by the question itself.
            PostdicomError: the end cannot be worked with.
        """
        made = 0
        while True:
            made += 1
            problem: PostdicomError | None = None
            try:
                answer = await question()
            except LimitReached:
                raise
            except PostdicomError as error:
                problem = error
            if problem is None:
                self.outages.succeeded(end)
                return answer
            if not await self.outages.to_be_repeated(end, problem, made) or made == most:
                raise failed(problem)

    async def studies(
        self, *stages: Stage, unseen: bool = False, of_any_run: bool = False
    ) -> AsyncGenerator[StudyRow, None]:
        """Yield the ledger's studies in order, stage by stage; a study that changes meanwhile may or may not come.

        Args:
            stages: only those; all without.
            unseen: those that the source listed in an earlier run and not in this one. Without it those that it lists
                now.
            of_any_run: all, whichever run listed them.
        """
        run = None if of_any_run else self.run
        for stage in stages or (None,):
            after = BEFORE_ALL
            while some := await self.ledger.studies(stage, after=after, run=run, unseen=unseen):
                for study in some:
                    if study.uid:
                        yield study
                after = some[-1].position, some[-1].id


# --- studies one by one ----------------------------------------------------------------------------------------------


async def plan_study(context: Context, study: StudyRow) -> list[ItemRow]:
    """List the instances of a study at both ends, record the planned state of each, and return them.

    Raises:
        Unlisted: an end works but cannot list this study.
        PostdicomError: an end cannot be asked.
    """
    listed = await context.whole_list(context.source, lambda: context.source.instances(study.uid))
    known = {(row.series, row.uid): row for row in await context.ledger.items(study.id)}
    if known.pop(("", _LIST), None) is not None:
        context.ledger.forget(study.id, [("", _LIST)])  # from now on its items are counted one by one
    was_moved = any(row.state is State.DONE for row in known.values())  # since the target's studies were listed
    held = await held_at_target(context, study, afresh=was_moved)
    rows = sorted(planned_items(listed, held, known, context.comparison, context.uid_at_target))
    context.ledger.plan(study.id, rows)
    context.ledger.set_stage(study.id, Stage.PLANNED, planned=len({(one.series, one.uid) for one in listed}))
    return rows


async def plan_study_or_fail(context: Context, study: StudyRow) -> list[ItemRow]:
    """As `plan_study`; a study that cannot be listed although the ends work gets a failed placeholder item.

    Raises:
        PostdicomError: an end cannot be worked with.
    """
    try:
        return await plan_study(context, study)
    except Unlisted as unlisted:
        problem = unlisted.problem
    context.ledger.note(f"the study {study.uid} could not be listed: {problem.message}")
    reason = reason_code(status=problem.status) if problem.status and problem.status >= _REFUSED else Reason.CANNOT_LIST
    rows = await context.ledger.items(study.id)
    failed = ItemRow("", _LIST, State.FAILED, int(reason))
    context.ledger.plan(study.id, [failed])
    context.ledger.set_stage(study.id, Stage.PLANNED, planned=len(rows))
    return [*(row for row in rows if row.series), failed]


def could_not_be_listed(items: Iterable[ItemRow]) -> bool:
    """Whether the study's failed item is the placeholder for a list that has to be tried again."""
    return any(one.uid == _LIST and one.state is State.PENDING for one in items if not one.series)


async def held_at_target(context: Context, study: StudyRow, *, afresh: bool = False) -> set[str] | None:
    """Return the SOP Instance UIDs that the target lists in a study, None where it cannot be asked.

    The target is not asked about a study that is missing from its complete list of studies, unless ``afresh``.

    Raises:
        Unlisted: it works but cannot list this study.
        PostdicomError: it cannot be asked.
    """
    how = context.comparison
    if not how.target_lists:
        return None
    if not afresh and study.seen_at_target != how.run and not how.full:
        return set()
    uid = context.uid_at_target(study.uid)
    listed = await context.whole_list(context.target, lambda: context.target.instances(uid))
    return {one.uid for one in listed}
