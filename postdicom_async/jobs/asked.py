"""What a job is asked for, checked and made into what it works with: its ends, the place of its ledger, the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from postdicom_async.dicom.uids import checked_uid
from postdicom_async.disk.background import in_background
from postdicom_async.disk.private import FileLock
from postdicom_async.errors import LedgerLocked, LedgerUnusable, UsageError
from postdicom_async.jobs import places
from postdicom_async.jobs.context import How
from postdicom_async.jobs.ends.end import Feature
from postdicom_async.jobs.ends.profile_limits import fill_in
from postdicom_async.jobs.ends.specs import EndSpec, end_of, spec_of
from postdicom_async.jobs.job import Job, JobParts
from postdicom_async.jobs.ledger.file import is_ledger
from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.pace.pace import Pace

if TYPE_CHECKING:
    import os

    from postdicom_async.jobs.ends.end import End
    from postdicom_async.jobs.ends.specs import EndLike
    from postdicom_async.jobs.machines.scheduling import Scheduler
    from postdicom_async.profiles.secrets import Ask

__all__ = ["KEPT", "Asked", "Ends", "begun", "ends_of", "order_of", "path_of"]

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
class Asked:
    """What `jobs.copy` and its siblings were given."""

    source: EndLike
    target: EndLike
    how: How
    path: Path | None
    new: bool
    pace: Pace
    patience: float
    ask: Ask | None
    scheduler: Scheduler | None = None


class Ends(NamedTuple):
    """What was asked for as far as it can be made without a ledger.

    Attributes:
        specs: the ends as they were named, or what stands for them.
        path: the place of the ledger.
        digest: what tells this pair of ends from every other.
    """

    specs: list[Any]
    path: Path
    digest: str
    source: End
    target: End


async def ends_of(asked: Asked, *, with_index: bool = True) -> Ends:
    """Return the ends, not yet open.

    Args:
        asked: what for.
        with_index: what a folder holds is remembered beside the ledger.

    Raises:
        UsageError: something makes no sense.
    """
    _require_level(asked.how)
    specs = [spec_of(asked.source), spec_of(asked.target)]
    _require_bounds(asked.how, specs)
    path, digest = await in_background(lambda: _place_of(asked, specs))
    named = [spec for spec in specs if isinstance(spec, EndSpec) and spec.kind == "profile"]
    fill_in(asked.pace, await in_background(lambda: [spec.profile() for spec in named]))
    alone = sum(isinstance(spec, EndSpec) and spec.is_archive for spec in specs) == 1
    opened = partial(end_of, alone=alone, ask=asked.ask)
    indexes = [places.beside(path, what) if with_index else None for what in ("source", "target")]
    source = await in_background(lambda: opened(specs[0], index=indexes[0]))
    target = await in_background(lambda: opened(specs[1], index=indexes[1], target=True))
    _require_features(asked.how, source, target)
    return Ends(specs, path, digest, source, target)


async def begun(asked: Asked) -> Job:
    """Return the job, which works."""
    ends = await ends_of(asked)
    elsewhere = None
    if asked.scheduler is not None:
        source, target = ends.specs
        how, pace, patience = asked.how, asked.pace, asked.patience
        elsewhere = asked.scheduler.dispatcher(
            source,
            target,
            (ends.source, ends.target),
            how,
            pace,
            patience=patience,
            tell=lambda line: ledger.note(line),
        )
    if asked.new:
        await in_background(lambda: _forget(ends.path))
    ledger = await _ledger(ends, asked.how)
    try:
        await in_background(lambda: places.Private(ends.path).write(_kept(asked.how, ends.specs)))
    except BaseException:
        await ledger.__aexit__(None, None, None)
        raise
    return Job(JobParts(ledger, ends.source, ends.target, asked.how, asked.pace, asked.patience, elsewhere))


def _require_level(how: How) -> None:
    if how.verify not in ("none", "listed", "bytes"):
        raise UsageError("give 'none', 'listed' or 'bytes'", argument="verify")
    if not isinstance(how.sample, int | float) or not 0 < how.sample <= 1:
        raise UsageError("give a share above 0, at most 1", argument="sample")
    if not isinstance(how.attempts, int) or how.attempts < 1:
        raise UsageError("give a number from 1 on", argument="attempts")
    if how.anonymize is not None and not how.anonymize.is_repeatable:
        raise UsageError(
            "give a secret, so that the job makes the same UIDs and IDs when it goes on", argument="anonymize"
        )


def _require_bounds(how: How, specs: list[Any]) -> None:
    """See that filters of the source bound what is deleted too: what it does not list is not all that it has not."""
    source, target = (set(getattr(spec, "filters", ())) for spec in specs)
    if how.delete == "all" and not source <= target:
        raise UsageError(
            "'all' wants the same filters at source and target, so that nothing outside is deleted", argument="delete"
        )


def _place_of(asked: Asked, specs: list[Any]) -> tuple[Path, str]:
    """Return the file of the ledger, and what tells this pair of ends from every other."""
    source, target = (_identity(spec) for spec in specs)
    if source == target:
        raise UsageError("source and target are the same place")
    filters = [repr(getattr(spec, "filters", "")) for spec in specs]
    rules = asked.how.anonymize
    digest = places.pair_digest(asked.how.verb, source, target, *filters, "" if rules is None else rules.fingerprint())
    if asked.path is not None:
        return asked.path, digest
    return places.job_path(asked.how.verb, _shown(specs[0]), _shown(specs[1]), digest), digest


def _identity(spec: Any) -> str:
    if isinstance(spec, EndSpec):
        return spec.identity()
    return str(end_of(spec).identity)


def _shown(spec: Any) -> str:
    return spec.shown if isinstance(spec, EndSpec) else str(end_of(spec).name)


def _forget(path: Path) -> None:
    """Remove an earlier ledger, unless somebody works with it; a damaged one too, and nothing that is none.

    Raises:
        LedgerLocked: another process does.
        LedgerUnusable: there is a file of that name that is no ledger.
    """
    if not path.exists():
        return
    lock = FileLock(places.beside(path, "lock"))
    if not lock.take():
        raise LedgerLocked("another process runs this job")
    try:
        if not is_ledger(path):
            raise LedgerUnusable("--new: there is a file of that name that is no ledger; it was not touched")
        places.remove_job(path)
    finally:
        lock.let_go()


def _require_features(how: How, source: End, target: End) -> None:
    needed = dict(zip(("source", "target"), _NEEDED[how.verb], strict=True))
    if how.delete:
        needed["target"] |= Feature.DELETES | Feature.LISTS
    for end, name in ((source, "source"), (target, "target")):
        for feature in needed[name]:
            if feature not in end.features:
                raise UsageError(f"{end.name} {_WORDS[feature]}", argument=name)


async def _ledger(ends: Ends, how: How) -> Ledger:
    if await in_background(ends.path.exists):
        return await Ledger.open(ends.path, identity=ends.digest)
    return await Ledger.create(ends.path, facts_of(ends, how))


def facts_of(ends: Ends, how: How) -> dict[str, Any]:
    """Return what a new ledger says of its job."""
    return {
        "verb": how.verb,
        "source": ends.source.name,
        "target": ends.target.name,
        "verify": how.verify,
        "identity": ends.digest,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _kept(how: How, specs: list[Any]) -> dict[str, Any]:
    """Return what `resume` needs; a client has no words for it."""
    ends = [spec.private if isinstance(spec, EndSpec) else None for spec in specs]
    return {
        "source": ends[0],
        "target": ends[1],
        "anonymizes": how.anonymize is not None,
        "first": sorted(how.first, key=lambda uid: how.first[uid]),
        **{name: getattr(how, name) for name in KEPT},
    }


def order_of(first: Iterable[str]) -> dict[str, int]:
    """Return the place of each study that is to come first.

    Raises:
        UsageError: one is no UID.
    """
    return {checked_uid(uid, "first"): number for number, uid in enumerate(first)}


def path_of(job: str | os.PathLike[str] | None) -> Path | None:
    """Return the file that was named for the ledger, None where none was."""
    return None if job is None else Path(job)
