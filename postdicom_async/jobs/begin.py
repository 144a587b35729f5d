"""What begins a job or resumes one: `copy`, `sync`, `verify`, `resume`, `retry`; and `dry_run`, which shows it.

What was asked for is checked first, before a ledger is made or removed; then the ends are made, the ledger is opened or
made, and what `resume` needs is written beside it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from postdicom_async.disk.files import in_background
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.jobs import job_files
from postdicom_async.jobs.context import JobOptions, order_of
from postdicom_async.jobs.ends.end import Feature
from postdicom_async.jobs.ends.specs import EndSpec, end_of, is_alone, spec_of, users_of
from postdicom_async.jobs.job import Job, JobParts, pace_ends
from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.pace.first_look import ENDS, look_at_ends
from postdicom_async.jobs.pace.outage_policy import OutagePatience
from postdicom_async.jobs.pace.pace import Pace
from postdicom_async.jobs.pace.presets import fill_in
from postdicom_async.jobs.preview import StudyPlan, preview
from postdicom_async.jobs.states import State

if TYPE_CHECKING:
    import os

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.events import OnEvent
    from postdicom_async.jobs.ends.end import End
    from postdicom_async.jobs.ends.specs import EndLike
    from postdicom_async.jobs.machines.scheduler import Scheduler
    from postdicom_async.profiles.secrets import Ask


PATIENCE = OutagePatience().outage

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
    on_event: OnEvent | None = None,
) -> Job:
    """Start copying what the source has and the target lacks.

    An earlier job of the same pair continues where it stopped.

    Args:
        source: a client that is not open, a path, a text such as ``"hospital:?StudyDate=20240101-"``, or a spec.
        target: the same.
        verify: what is checked after the move: ``"none"``; ``"listed"``, every instance is in the target's own list;
            ``"bytes"``, every instance is retrieved again and compared.
        sample: the share of instances that is compared by bytes, 0 to 1; every run chooses the same instances.
        full: list and compare the instances of every study; otherwise studies with equal instance counts are taken as
            equal.
        first: Study Instance UIDs to move first. The others follow, newest first.
        anonymize: rules applied to each instance on the way; they need a secret, so that another run gives the same
            result.
        job: the ledger file; by default one in the user's state folder that belongs to this pair of ends.
        new: discard the ledger of an earlier job of this pair and start over.
        attempts: how often an item is tried.
        pace: how fast, and when.
        patience: seconds of an outage of either end, after which the job ends and can be resumed.
        ask: called with a prompt when a password is found nowhere; returns the password.
        scheduler: the scheduler whose workers, on other machines, move the chunks; by default this process moves them.
        on_event: called with the job's events, and with those of its archives' requests, see `events`.

    Raises:
        UsageError: an argument makes no sense, or both ends are one place.
        LedgerUnusable: the ledger is another job's, damaged, or in use (`LedgerLocked`).
        PostdicomError: a new job's first look at an end met what somebody has to correct: address, credentials,
            certificate, folder. There is no ledger then.
    """
    options = JobOptions("copy", verify, full, order_of(first), anonymize, attempts, sample=sample)
    return await begin_job(
        JobRequest(source, target, options, path_of(job), new, pace or Pace(), patience, ask, scheduler, on_event)
    )


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
    on_event: OnEvent | None = None,
) -> Job:
    """Start a copy that can also delete from the target what the source no longer has.

    Nothing is deleted after any error, when the source lists nothing or contradicts itself, or with ``anonymize``; and
    the source is asked about each study once more right before its deletion.

    Args:
        source: see `copy`.
        target: see `copy`.
        delete: ``"copied"``: only what this job copied; ``"all"``: everything within the filters that the source lacks.
        max_delete: the share of the target's instances, 0 to 1, that may be deleted; more raises `LimitReached`.
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
        on_event: see `copy`.
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
    options = JobOptions(
        "sync", verify, full, order, anonymize, attempts, delete=delete, max_delete=most, sample=sample
    )
    return await begin_job(
        JobRequest(source, target, options, path_of(job), new, pace or Pace(), patience, ask, scheduler, on_event)
    )


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
    on_event: OnEvent | None = None,
) -> Job:
    """Start comparing two ends; nothing is changed at either.

    Every study's instances are listed at both ends, even where the counts agree. Instances that the target lacks end as
    FAILED; with ``level="bytes"`` so do those whose content differs. See `copy` for the other arguments and errors.
    """
    options = JobOptions("verify", level, True, {}, anonymize, sample=sample)
    asked = JobRequest(source, target, options, path_of(job), new, pace or Pace(), patience, ask, on_event=on_event)
    return await begin_job(asked)


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
    """Yield what `copy` or `sync` would do with each study; nothing is changed. Arguments are as there."""
    options = JobOptions(verb, "none", full, order_of(first), anonymize, delete=delete)
    asked = JobRequest(source, target, options, path_of(job), new, pace or Pace(), 0.0, ask)
    ends = await prepare_ends(asked, with_index=False)
    async with aclosing(preview(ends, options, asked.pace, facts_of(ends, options), new=new)) as plans:
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
    on_event: OnEvent | None = None,
) -> Job:
    """Resume the job of a ledger, with the options it was started with.

    Args:
        job: the file of its ledger, its name, or a part of the name that no other job has.
        pace: see `copy`.
        patience: see `copy`.
        ask: see `copy`.
        scheduler: see `copy`.
        on_event: see `copy`.

    Raises:
        NotFound: there is none.
        UsageError: several jobs match the name; or the job anonymises: its rules and secret are not stored, so repeat
            the original call instead.
        LedgerUnusable: see `copy`.
    """
    path, ends, options = await _kept_of(job)
    asked = JobRequest(ends[0], ends[1], options, path, False, pace or Pace(), patience, ask, scheduler, on_event)
    return await begin_job(asked)


async def _kept_of(job: str | os.PathLike[str]) -> tuple[Path, list[EndSpec], JobOptions]:
    path = await in_background(lambda: job_files.find_job(str(job)))
    kept = await in_background(job_files.ResumeFile(path).read)
    if kept.get("anonymizes"):
        raise UsageError("it anonymises, and its rules are not kept; give the whole command again", argument="job")
    ends = _ends_in(kept)
    return path, ends, JobOptions(first=order_of(kept.get("first") or ()), **{name: kept[name] for name in KEPT})


def _ends_in(kept: dict[str, Any]) -> list[EndSpec]:
    return [EndSpec.from_private(kept.get(name) or {}) for name in ENDS]


@public_face
async def retry(
    job: str | os.PathLike[str],
    *,
    reasons: Iterable[int] | None = None,
    pace: Pace | None = None,
    patience: float = PATIENCE,
    ask: Ask | None = None,
    scheduler: Scheduler | None = None,
    on_event: OnEvent | None = None,
) -> Job:
    """Start to retry the failed and unconfirmed items of a job, and nothing else.

    Args:
        job: see `resume`, as for errors.
        reasons: retry only items with one of these reasons (`Reason`); by default all.
        pace: see `copy`.
        patience: see `copy`.
        ask: see `copy`.
        scheduler: see `copy`.
        on_event: see `copy`.
    """
    path, _, _ = await _kept_of(job)  # before anything is changed
    chosen = None if reasons is None else list(reasons)
    ledger = await Ledger.open(path)
    async with ledger:
        # Set the phase first: if the process were killed in between, the next one would skip the pending items. A job
        # that has not discovered everything finishes discovery before it moves.
        if ledger.fact("discovery_complete") or ledger.fact("part"):
            ledger.put("phase", "moving")
        await ledger.reset([State.FAILED, State.UNCONFIRMED], reasons=chosen)
    return await resume(path, pace=pace, patience=patience, ask=ask, scheduler=scheduler, on_event=on_event)


# --- what was asked for, checked and made ----------------------------------------------------------------------------


_NEEDED = {
    "copy": (Feature.LISTS | Feature.OPENS, Feature.STORES),
    "sync": (Feature.LISTS | Feature.OPENS, Feature.STORES),
    "verify": (Feature.LISTS, Feature.LISTS),
}
_WORDS = {
    Feature.LISTS: "cannot say what it has",
    Feature.OPENS: "gives no instances",
    Feature.STORES: "takes no instances",
    Feature.DELETES: "deletes nothing",
}

KEPT = ("verb", "verify", "full", "attempts", "delete", "max_delete", "sample")


@dataclass(frozen=True, slots=True)
class JobRequest:
    """The arguments of `jobs.copy`, `jobs.sync` or `jobs.verify`."""

    source: EndLike
    target: EndLike
    options: JobOptions
    path: Path | None
    new: bool
    pace: Pace
    patience: float
    ask: Ask | None
    scheduler: Scheduler | None = None
    on_event: OnEvent | None = None


class PreparedEnds(NamedTuple):
    """Whatever of a request can be prepared without a ledger.

    Attributes:
        specs: the ends as the caller gave them: specs, clients or ends.
        path: the ledger file.
        digest: identifies this pair of ends.
    """

    specs: tuple[Any, Any]
    path: Path
    digest: str
    source: End
    target: End


async def prepare_ends(asked: JobRequest, *, with_index: bool = True) -> PreparedEnds:
    """Return the ends, not yet open.

    Args:
        asked: the request.
        with_index: keep the index of a folder beside the ledger.

    Raises:
        UsageError: an argument makes no sense.
    """
    _require_level(asked.options)
    specs = (spec_of(asked.source), spec_of(asked.target))
    _require_bounds(asked.options, specs)
    path, digest = await in_background(lambda: _place_of(asked, specs))
    named = [spec for spec in specs if isinstance(spec, EndSpec) and spec.kind == "profile"]
    fill_in(asked.pace, await in_background(lambda: [spec.profile() for spec in named]))
    opened = partial(end_of, alone=is_alone(specs), ask=asked.ask)
    indexes = [job_files.beside(path, what) if with_index else None for what in ENDS]
    source = await in_background(lambda: opened(specs[0], index=indexes[0]))
    target = await in_background(lambda: opened(specs[1], index=indexes[1], target=True))
    _require_features(asked.options, source, target)
    return PreparedEnds(specs, path, digest, source, target)


async def begin_job(asked: JobRequest) -> Job:
    """Return the job, already running. Raises as `copy` does."""
    ends = await prepare_ends(asked)
    elsewhere = None
    if asked.scheduler is not None:
        elsewhere = asked.scheduler.dispatcher(
            *ends.specs,
            (ends.source, ends.target),
            asked.options,
            asked.pace,
            patience=asked.patience,
            tell=lambda line: ledger.note(line),
        )
    async with AsyncExitStack() as stack:
        opened: AsyncExitStack | None = None
        facts = facts_of(ends, asked.options)
        is_there = await in_background(ends.path.exists)
        # Before the old ledger is forgotten or a new one made: a job that cannot begin must lose none and leave none.
        if (asked.new or not is_there) and asked.pace.is_open:
            pace_ends(ends.source, ends.target, asked.pace, elsewhere, asked.on_event)
            opened = await stack.enter_async_context(AsyncExitStack())
            for end in (ends.source, ends.target):
                await opened.enter_async_context(end)
            writes = elsewhere is None and Feature.STORES in _NEEDED[asked.options.verb][1]
            reached = await look_at_ends(ends.source, ends.target, writes=writes)
            facts |= {f"reached_{name}": True for name in reached}
        if asked.new:
            await in_background(lambda: job_files.forget_job(ends.path))
            is_there = False
        ledger = await (Ledger.open(ends.path, identity=ends.digest) if is_there else Ledger.create(ends.path, facts))
        stack.push_async_exit(ledger)
        await in_background(lambda: job_files.ResumeFile(ends.path).write(_kept(asked.options, ends.specs)))
        stack.pop_all()  # from now on the job closes them
    how = (asked.options, asked.pace, asked.patience, elsewhere, asked.on_event)
    return Job(JobParts(ledger, ends.source, ends.target, *how, opened=opened))


def _require_level(options: JobOptions) -> None:
    if options.verify not in ("none", "listed", "bytes"):
        raise UsageError("give 'none', 'listed' or 'bytes'", argument="verify")
    if not isinstance(options.sample, int | float) or not 0 < options.sample <= 1:
        raise UsageError("give a share above 0, at most 1", argument="sample")
    if not isinstance(options.attempts, int) or options.attempts < 1:
        raise UsageError("give a number from 1 on", argument="attempts")
    if options.anonymize is not None and not options.anonymize.is_repeatable:
        raise UsageError("give a secret, so that it makes the same UIDs and IDs when it goes on", argument="anonymize")


def _require_bounds(options: JobOptions, specs: tuple[Any, Any]) -> None:
    """Require the target to have the source's filters: what those leave out is not missing, and must not be deleted."""
    source, target = (set(getattr(spec, "filters", ())) for spec in specs)
    if options.delete == "all" and not source <= target:
        raise UsageError(
            "'all' wants the same filters at source and target, so that nothing outside is deleted", argument="delete"
        )


def _place_of(asked: JobRequest, specs: tuple[Any, Any]) -> tuple[Path, str]:
    """Return the ledger file and the digest that identifies this pair of ends."""
    source, target = (_identity(spec) for spec in specs)
    if source == target:
        raise UsageError("source and target are the same place")
    filters = [repr(getattr(spec, "filters", "")) for spec in specs]
    rules = asked.options.anonymize
    digest = job_files.pair_digest(
        asked.options.verb, source, target, *filters, "" if rules is None else rules.fingerprint()
    )
    if asked.path is not None:
        return asked.path, digest
    shown, users = [_shown(spec) for spec in specs], users_of(specs)
    path = job_files.default_path(asked.options.verb, shown, digest, users, lambda kept: users_of(_ends_in(kept)))
    return path, digest


def _identity(spec: Any) -> str:
    if isinstance(spec, EndSpec):
        return spec.identity()
    return str(end_of(spec).identity)


def _shown(spec: Any) -> str:
    return spec.shown if isinstance(spec, EndSpec) else str(end_of(spec).name)


def _require_features(options: JobOptions, source: End, target: End) -> None:
    needed = dict(zip(ENDS, _NEEDED[options.verb], strict=True))
    if options.delete:
        needed["target"] |= Feature.DELETES | Feature.LISTS
    for end, name in ((source, "source"), (target, "target")):
        for feature in needed[name]:
            if feature not in end.features:
                raise UsageError(f"{end.name} {_WORDS[feature]}", argument=name)


def facts_of(ends: PreparedEnds, options: JobOptions) -> dict[str, Any]:
    """Return the facts that a new ledger records about its job."""
    return {
        "verb": options.verb,
        "source": ends.source.name,
        "target": ends.target.name,
        "verify": options.verify,
        "sample": options.sample,
        "identity": ends.digest,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _kept(options: JobOptions, specs: tuple[Any, Any]) -> dict[str, Any]:
    """Return the options that `resume` needs; None where an end is a client object, which cannot be stored."""
    ends = [spec.private if isinstance(spec, EndSpec) else None for spec in specs]
    return {
        "source": ends[0],
        "target": ends[1],
        "anonymizes": options.anonymize is not None,
        "first": sorted(options.first, key=lambda uid: options.first[uid]),
        **{name: getattr(options, name) for name in KEPT},
    }


def path_of(job: str | os.PathLike[str] | None) -> Path | None:
    """Return the ledger file that the caller named, or None."""
    return None if job is None else Path(job)
