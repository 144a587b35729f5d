"""What begins a job or goes on with one: `copy`, `sync`, `verify`, `resume`, `retry`; and `dry_run`, which shows it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Literal

from postdicom_async.disk.background import in_background
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.jobs import places
from postdicom_async.jobs.asked import KEPT, Asked, begun, order_of, path_of
from postdicom_async.jobs.context import How
from postdicom_async.jobs.ends.specs import EndSpec
from postdicom_async.jobs.job import Job
from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.pace.pace import Pace
from postdicom_async.jobs.pace.weather import Patience
from postdicom_async.jobs.preview import StudyPlan, preview
from postdicom_async.jobs.states import State

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.jobs.ends.specs import EndLike
    from postdicom_async.jobs.machines.scheduling import Scheduler
    from postdicom_async.profiles.secrets import Ask

__all__ = ["copy", "dry_run", "resume", "retry", "sync", "verify"]

PATIENCE = Patience().outage

VerifyLevel = Literal["none", "listed", "bytes"]


@public_face
async def copy(
    source: EndLike,
    target: EndLike,
    *,
    verify: VerifyLevel = "listed",
    sample: float = 1.0,
    full: bool = False,
    first: Iterable[str] = (),
    anonymize: Anonymization | None = None,
    job: str | os.PathLike[str] | None = None,
    new: bool = False,
    attempts: int = 3,
    pace: Pace | None = None,
    patience: float = PATIENCE,
    ask: Ask | None = None,
    scheduler: Scheduler | None = None,
) -> Job:
    """Begin to move what the source has and the target has not; what was begun before goes on where it stopped.

    Args:
        source: a client that is not open, a path, a text such as ``"hospital:?StudyDate=20240101-"``, or a spec.
        target: the same.
        verify: what is proven in the end: ``"none"``; ``"listed"``, every instance is in the target's own list;
            ``"bytes"``, every instance is retrieved again and compared.
        sample: of what is to be compared by bytes, the share that is, 0 to 1: always the same instances.
        full: compare the instances of every study; without it those whose counts are equal are taken for equal.
        first: Study Instance UIDs to begin with. Then the newest come first.
        anonymize: what is changed on the way; with a secret, so that another run makes the same of it.
        job: the file of its ledger; without it one in the user's state folder that belongs to this pair of ends.
        new: forget what an earlier job of this pair came to.
        attempts: how often an item is tried.
        pace: how fast, and when.
        patience: seconds of an outage of either end, after which the job ends and may be gone on with.
        ask: asks somebody for a password that is found nowhere, given the prompt.
        scheduler: whose workers move the chunks, on other machines; without it this process does.

    Raises:
        UsageError: an argument makes no sense, or both ends are one place.
        LedgerUnusable: the ledger is another job's, damaged, or in use (`LedgerLocked`).
    """
    how = How("copy", verify, full, order_of(first), anonymize, attempts, sample=sample)
    return await begun(Asked(source, target, how, path_of(job), new, pace or Pace(), patience, ask, scheduler))


@public_face
async def sync(
    source: EndLike,
    target: EndLike,
    *,
    delete: Literal["", "copied", "all"] = "",
    max_delete: float = 0.01,
    verify: VerifyLevel = "listed",
    sample: float = 1.0,
    full: bool = False,
    first: Iterable[str] = (),
    anonymize: Anonymization | None = None,
    job: str | os.PathLike[str] | None = None,
    new: bool = False,
    attempts: int = 3,
    pace: Pace | None = None,
    patience: float = PATIENCE,
    ask: Ask | None = None,
    scheduler: Scheduler | None = None,
) -> Job:
    """Begin to do what `copy` does, and delete at the target what the source has no more, if that is asked for.

    Nothing is deleted after any error, from a source that lists nothing or contradicts itself, or with ``anonymize``;
    and of each study the source is asked once more right before.

    Args:
        source: see `copy`, as for all that is not named here.
        target: see `copy`.
        delete: ``"copied"`` what this job copied, ``"all"`` everything within the filters that the source has not.
        max_delete: the share of the target's instances, 0 to 1, that may be deleted; more is `LimitReached`.
        verify: see `copy`.
        sample: see `copy`.
        full: see `copy`.
        first: see `copy`.
        anonymize: see `copy`.
        job: see `copy`.
        new: see `copy`.
        attempts: see `copy`.
        pace: see `copy`.
        patience: see `copy`.
        ask: see `copy`.
        scheduler: see `copy`.
    """
    if delete not in ("", "copied", "all"):
        raise UsageError("give 'copied' or 'all', or nothing", argument="delete")
    if not isinstance(max_delete, int | float) or not 0 <= max_delete <= 1:
        raise UsageError("give a share from 0 to 1, such as 0.01", argument="max_delete")
    if delete and anonymize is not None:
        raise UsageError(
            "not with anonymize: what the target holds cannot be told from what was never sent", argument="delete"
        )
    order, most = order_of(first), float(max_delete)
    how = How("sync", verify, full, order, anonymize, attempts, delete=delete, max_delete=most, sample=sample)
    return await begun(Asked(source, target, how, path_of(job), new, pace or Pace(), patience, ask, scheduler))


@public_face
async def verify(
    source: EndLike,
    target: EndLike,
    *,
    level: Literal["listed", "bytes"] = "listed",
    sample: float = 1.0,
    anonymize: Anonymization | None = None,
    job: str | os.PathLike[str] | None = None,
    new: bool = False,
    pace: Pace | None = None,
    patience: float = PATIENCE,
    ask: Ask | None = None,
) -> Job:
    """Begin to compare two ends; nothing is changed at either.

    Every study's instances are listed at both ends, whatever the counts. What the target lacks is FAILED in the end,
    with ``level="bytes"`` also what it holds otherwise. See `copy` for the other arguments and errors.
    """
    how = How("verify", level, True, {}, anonymize, sample=sample)
    return await begun(Asked(source, target, how, path_of(job), new, pace or Pace(), patience, ask))


@public_face
async def dry_run(
    source: EndLike,
    target: EndLike,
    *,
    verb: Literal["copy", "sync"] = "copy",
    delete: Literal["", "copied", "all"] = "",
    full: bool = False,
    first: Iterable[str] = (),
    anonymize: Anonymization | None = None,
    job: str | os.PathLike[str] | None = None,
    new: bool = False,
    pace: Pace | None = None,
    ask: Ask | None = None,
) -> AsyncGenerator[StudyPlan, None]:
    """Yield what `copy` or `sync` would do with each study; nothing is changed. See there for the arguments."""
    how = How(verb, "none", full, order_of(first), anonymize, delete=delete)
    asked = Asked(source, target, how, path_of(job), new, pace or Pace(), 0.0, ask)
    async with aclosing(preview(asked)) as plans:
        async for plan in plans:
            yield plan


@public_face
async def resume(
    job: str | os.PathLike[str],
    *,
    pace: Pace | None = None,
    patience: float = PATIENCE,
    ask: Ask | None = None,
    scheduler: Scheduler | None = None,
) -> Job:
    """Go on with a job that is named by its ledger, as it was begun.

    Args:
        job: the file of its ledger, its name, or a part of it that no other has.
        pace: see `copy`.
        patience: see `copy`.
        ask: see `copy`.
        scheduler: see `copy`.

    Raises:
        NotFound: there is none.
        UsageError: several have that in their names; or it anonymises, whose rules and secret are
            not kept: make the whole call again.
        LedgerUnusable: see `copy`.
    """
    path, ends, how = await _kept_of(job)
    return await begun(Asked(ends[0], ends[1], how, path, False, pace or Pace(), patience, ask, scheduler))


async def _kept_of(job: str | os.PathLike[str]) -> tuple[Path, list[EndSpec], How]:
    path = await in_background(lambda: places.find_job(str(job)))
    kept = await in_background(places.Private(path).read)
    if kept.get("anonymizes"):
        raise UsageError(
            "it anonymises, and rules and secret are not kept; give the whole command again", argument="job"
        )
    ends = [EndSpec.from_private(kept.get(name) or {}) for name in ("source", "target")]
    return path, ends, How(first=order_of(kept.get("first") or ()), **{name: kept[name] for name in KEPT})


@public_face
async def retry(
    job: str | os.PathLike[str],
    *,
    reasons: Iterable[int] | None = None,
    pace: Pace | None = None,
    patience: float = PATIENCE,
    ask: Ask | None = None,
    scheduler: Scheduler | None = None,
) -> Job:
    """Begin to try again what failed or is unconfirmed in a job, and nothing else.

    Args:
        job: see `resume`, as for errors.
        reasons: only what ended so for one of these (`Reason`); all without it.
        pace: see `copy`.
        patience: see `copy`.
        ask: see `copy`.
        scheduler: see `copy`.
    """
    path, _, _ = await _kept_of(job)  # before anything is changed
    chosen = None if reasons is None else list(reasons)
    ledger = await Ledger.open(path)
    async with ledger:
        # First the phase: whoever comes after a kill would pass over what is pending. One that has not found everything
        # finds the rest before it moves.
        if ledger.fact("discovery_complete") or ledger.fact("part"):
            ledger.put("phase", "moving")
        await ledger.reset([State.FAILED, State.UNCONFIRMED], reasons=chosen)
    return await resume(path, pace=pace, patience=patience, ask=ask, scheduler=scheduler)
