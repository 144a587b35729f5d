"""The verification phase: after everything was moved, items that are done or present are looked up at the target.

Level ``listed`` asks the target for its list of each study; ``bytes`` retrieves every instance and compares it.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from postdicom_async.errors import PostdicomError
from postdicom_async.jobs.compare_bytes import Verified, VerifyFinding, verify_bytes
from postdicom_async.jobs.context import Unlisted, held_at_target, plan_study_or_fail
from postdicom_async.jobs.ends.end import Feature
from postdicom_async.jobs.ledger.schema import Stage
from postdicom_async.jobs.plan import ItemEnd, is_sampled
from postdicom_async.jobs.states import Reason, State
from postdicom_async.jobs.summary import ItemLine
from postdicom_async.transfer.at_once import for_each

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postdicom_async.jobs.context import Context
    from postdicom_async.jobs.ledger.schema import ItemRow, StudyRow


_AT_ONCE = 4
_LOOKS = (0.0, 2.0, 8.0)  # seconds before a study is listed again: archives index stored instances with a delay
_AT_TARGET = (State.DONE, State.PRESENT)
_MAY_BE_THERE = frozenset({Reason.CONNECTION, Reason.NOT_ARRIVED, Reason.NOT_CONFIRMED})
_ABSENT_OR_OTHER = frozenset({Reason.NOT_LISTED, Reason.NOT_CONFIRMED, Reason.DIFFERENT})


class VerifyPhase:
    """The verification of one run. Use it once."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        """Verify everything that was moved.

        Raises:
            PostdicomError: the target cannot be asked.
        """
        context = self._context
        if context.options.verify == "none":
            return
        if Feature.LISTS not in context.target.features:
            context.ledger.note("the target cannot be asked what it has: its own answers are the proof")
            return
        await for_each(self._context.studies(Stage.MOVED), self._verify, at_once=_AT_ONCE)

    async def compare(self) -> None:
        """List the instances of every study at both ends: what the target does not list has failed (verify)."""

        async def compare(study: StudyRow) -> None:
            rows = await plan_study_or_fail(self._context, study)
            self._settle(study, {row for row in rows if row.state is State.PENDING}, Reason.NOT_LISTED)
            self._context.ledger.set_stage(study.id, Stage.MOVED)

        await for_each(self._context.studies(Stage.FOUND, Stage.PLANNED), compare, at_once=_AT_ONCE)

    async def _verify(self, study: StudyRow) -> None:
        ledger = self._context.ledger
        rows = await ledger.items(study.id, states=(*_AT_TARGET, State.UNCONFIRMED, State.FAILED))
        known = [row for row in rows if row.state in _AT_TARGET]
        unsure = [row for row in rows if row.state not in _AT_TARGET and row.reason in _MAY_BE_THERE]
        try:
            listed = await self._listed(study, known, unsure)
            is_twofold = await self._is_twofold(study, listed)
        except Unlisted as unlisted:
            ledger.note(f"the study {study.uid} could not be listed: {unlisted.problem.message}")
            self._settle(study, known, Reason.NOT_CONFIRMED, state=State.UNCONFIRMED)
            ledger.note_verified(study.id, 0)
            ledger.set_stage(study.id, Stage.VERIFIED)
            return
        self._settle(study, [row for row in known if row not in listed], Reason.NOT_LISTED)
        if is_twofold:  # what is listed of it cannot be retrieved, and proves nothing
            self._settle(study, listed.intersection(known), Reason.TWO_PATIENTS)
            listed = set()
        # The target may have stored instances whose request broke off: if it lists them now, they need not be sent
        # again.
        for state, there in ((State.UNCONFIRMED, State.DONE), (State.FAILED, State.PRESENT)):
            settled = [row for row in unsure if row.state is state and row in listed]
            self._settle(study, settled, Reason.NONE, state=there)
        found = [row for row in rows if row in listed]
        if self._context.options.verify == "bytes":
            chosen = [row for row in found if is_sampled(row.uid, self._context.options.sample)]
            found = [row for row in found if row not in chosen] + await self._equal(study, chosen)
        ledger.note_verified(study.id, len(found))
        ledger.set_stage(study.id, Stage.VERIFIED)

    async def _listed(self, study: StudyRow, known: list[ItemRow], unsure: list[ItemRow]) -> set[ItemRow]:
        """Return the rows that the target lists; unconfirmed items are settled here too."""
        context = self._context
        if context.options.verb == "verify":  # both ends have just been listed
            return set(known)
        if context.comparison.keeps_uids:  # the listed instance may be the original
            unsure = []
        listed: set[ItemRow] = set()
        for wait in _LOOKS if known or unsure else ():
            await asyncio.sleep(wait)
            held = await held_at_target(context, study, afresh=True) or set()
            listed = {row for row in (*known, *unsure) if context.uid_at_target(row.uid) in held}
            if listed.issuperset(known):
                break
        return listed

    async def _is_twofold(self, study: StudyRow, listed: set[ItemRow]) -> bool:
        """Whether the target lists the study under two Patient IDs: Orthanc lists it whole then, and returns neither.

        Raises:
            Unlisted: the target works, but cannot answer.
            PostdicomError: it cannot be asked.
        """
        if not listed:
            return False
        context = self._context
        uid = context.uid_at_target(study.uid)
        found = await context.ask(context.target, lambda: context.target.study(uid), failed=Unlisted)
        return found is not None and found.patients > 1

    async def _equal(self, study: StudyRow, rows: list[ItemRow]) -> list[ItemRow]:
        """Compare a study's items by bytes.

        Return those that are equal, or differ only as an archive may change them.
        """
        context = self._context
        by_uid = {row.uid: row for row in rows}
        equal: list[ItemRow] = []
        at = 0
        while at < len(rows):  # in chunks, so that an outage repeats only one of them
            some = rows[at : at + context.options.chunk]
            found: dict[str, Verified] = {}
            problem: PostdicomError | None = None
            checks = verify_bytes(context.source, context.target, study.uid, some, anonymize=context.options.anonymize)
            try:
                async with aclosing(checks) as each:
                    async for verified in each:
                        found[verified.uid] = verified
            except PostdicomError as error:
                problem = error
            if problem is not None:
                waited = [await context.outages.outlasted(end, problem) for end in (context.source, context.target)]
                if any(waited):
                    continue
                found |= {
                    row.uid: Verified(row.uid, VerifyFinding.CANNOT_COMPARE) for row in some if row.uid not in found
                }
            else:  # both ends work: otherwise an outage would be assumed until the next chunk fails
                for end in (context.source, context.target):
                    context.outages.succeeded(end)
            at += len(some)
            for verified in found.values():
                if verified.finding is VerifyFinding.COERCED:
                    context.ledger.note_coerced(verified.tags)
                if verified.finding.ok:
                    equal.append(by_uid[verified.uid])
                else:
                    self._settle(study, {by_uid[verified.uid]}, verified.finding.reason)
        return equal

    def _settle(self, study: StudyRow, rows: Iterable[ItemRow], reason: int, *, state: State | None = None) -> None:
        if state is None:
            state = State.FAILED if reason in _ABSENT_OR_OTHER else State.UNCONFIRMED
        chosen = sorted(rows)
        if not chosen:
            return
        ends = [ItemEnd(row.series, row.uid, state, reason, size=row.size) for row in chosen]
        self._context.ledger.settle(study.id, ends)
        for row in chosen:
            self._context.tell(ItemLine(study.uid, row.series, row.uid, state, reason, row.attempts, row.size))
