"""How a job begins: its ends are made, its ledger is found or made, and what makes no sense is refused before anything.

`copy`, `sync`, `verify` and `resume` are what callers have; each gives a `Job` that runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from postdicom_async.dicom.uids import checked_uid
from postdicom_async.disk.background import in_background
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.jobs import places
from postdicom_async.jobs.context import How
from postdicom_async.jobs.ends import Feature
from postdicom_async.jobs.job import Job, JobParts
from postdicom_async.jobs.ledger import Ledger
from postdicom_async.jobs.outage import PATIENCE
from postdicom_async.jobs.pace import Pace
from postdicom_async.jobs.specs import EndSpec, end_of, spec_of
from postdicom_async.jobs.states import State

if TYPE_CHECKING:
    import os

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.jobs.ends import End
    from postdicom_async.jobs.specs import EndLike
    from postdicom_async.profiles.secrets import Ask

__all__ = ["copy", "resume", "retry", "sync", "verify"]

VerifyLevel = Literal["none", "listed", "bytes"]

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


@public_face
async def copy(
    source: EndLike,
    target: EndLike,
    *,
    verify: VerifyLevel = "listed",
    full: bool = False,
    first: Iterable[str] = (),
    anonymize: Anonymization | None = None,
    job: str | os.PathLike[str] | None = None,
    new: bool = False,
    attempts: int = 3,
    pace: Pace | None = None,
    patience: float = PATIENCE,
    ask: Ask | None = None,
) -> Job:
    """Begin to move what the source has and the target has not; what was begun before goes on where it stopped.

    Args:
        source: a client that is not open, a path, a text such as ``"hospital:?StudyDate=20240101-"``, or a spec.
        target: the same.
        verify: what is proven in the end: ``"none"``; ``"listed"``, every instance is in the target's own list;
            ``"bytes"``, every instance is retrieved again and compared.
        full: compare the instances of every study; without it those whose counts are equal are taken for equal.
        first: Study Instance UIDs to begin with. Then the newest come first.
        anonymize: what is changed on the way; with a secret, so that another run makes the same of it.
        job: the file of its ledger; without it one in the user's state folder that belongs to this pair of ends.
        new: forget what an earlier job of this pair came to.
        attempts: how often an item is tried.
        pace: how fast, and when.
        patience: seconds of an outage of either end, after which the job ends and may be gone on with.
        ask: asks somebody for a password that is found nowhere, given the prompt.

    Raises:
        UsageError: an argument makes no sense, or both ends are one place.
        LedgerUnusable: the ledger is another job's, damaged, or in use (`LedgerLocked`).
    """
    how = How("copy", verify, full, _places(first), anonymize, attempts)
    return await _begun(_Asked(source, target, how, _path(job), new, pace or Pace(), patience, ask))


@public_face
async def sync(
    source: EndLike,
    target: EndLike,
    *,
    delete: Literal["", "copied", "all"] = "",
    max_delete: float = 0.01,
    verify: VerifyLevel = "listed",
    full: bool = False,
    first: Iterable[str] = (),
    anonymize: Anonymization | None = None,
    job: str | os.PathLike[str] | None = None,
    new: bool = False,
    attempts: int = 3,
    pace: Pace | None = None,
    patience: float = PATIENCE,
    ask: Ask | None = None,
) -> Job:
    """Begin to do what `copy` does, and delete at the target what the source has no more, if that is asked for.

    Nothing is deleted after any error, from a source that lists nothing or contradicts itself, or with ``anonymize``;
    and of each study the source is asked once more right before.

    Args:
        source: see `copy`, as for all that is not named here.
        target: see `copy`.
        delete: ``"copied"`` what this job copied, ``"all"`` everything within the filters that the source has not.
        max_delete: the share of the target's instances, 0 to 1, that may be deleted; more is `LimitReached`, and then
            nothing is.
        verify: see `copy`.
        full: see `copy`.
        first: see `copy`.
        anonymize: see `copy`.
        job: see `copy`.
        new: see `copy`.
        attempts: see `copy`.
        pace: see `copy`.
        patience: see `copy`.
        ask: see `copy`.
    """
    if delete not in ("", "copied", "all"):
        raise UsageError("delete: give 'copied' or 'all', or nothing")
    if not isinstance(max_delete, int | float) or not 0 <= max_delete <= 1:
        raise UsageError("max_delete: give a share from 0 to 1, such as 0.01")
    if delete and anonymize is not None:
        raise UsageError("delete: not with anonymize: what the target holds cannot be told from what was never sent")
    how = How("sync", verify, full, _places(first), anonymize, attempts, delete=delete, max_delete=float(max_delete))
    return await _begun(_Asked(source, target, how, _path(job), new, pace or Pace(), patience, ask))


@public_face
async def verify(
    source: EndLike,
    target: EndLike,
    *,
    level: Literal["listed", "bytes"] = "listed",
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
    how = How("verify", level, True, {}, anonymize)
    return await _begun(_Asked(source, target, how, _path(job), new, pace or Pace(), patience, ask))


@public_face
async def resume(
    job: str | os.PathLike[str], *, pace: Pace | None = None, patience: float = PATIENCE, ask: Ask | None = None
) -> Job:
    """Go on with a job that is named by its ledger, as it was begun.

    Args:
        job: the file of its ledger, its name, or a part of it that no other has.
        pace: see `copy`.
        patience: see `copy`.
        ask: see `copy`.

    Raises:
        UsageError: there is none; or it anonymises, whose rules and secret are not kept: make the whole call again.
        LedgerUnusable: see `copy`.
    """
    path = await in_background(lambda: places.find_job(str(job)))
    kept = await in_background(places.Private(path).read)
    if kept.get("anonymizes"):
        raise UsageError("job: it anonymises, and rules and secret are not kept; give the whole command again")
    ends = [EndSpec.from_private(kept.get(name) or {}) for name in ("source", "target")]
    how = How(first=_places(kept.get("first") or ()), **{name: kept[name] for name in _KEPT})
    return await _begun(_Asked(ends[0], ends[1], how, path, False, pace or Pace(), patience, ask))


@public_face
async def retry(
    job: str | os.PathLike[str],
    *,
    reasons: Iterable[int] | None = None,
    pace: Pace | None = None,
    patience: float = PATIENCE,
    ask: Ask | None = None,
) -> Job:
    """Begin to try again what failed or is unconfirmed in a job, and nothing else.

    Args:
        job: see `resume`, as for errors.
        reasons: only what ended so for one of these (`Reason`); all without it.
        pace: see `copy`.
        patience: see `copy`.
        ask: see `copy`.
    """
    path = await in_background(lambda: places.find_job(str(job)))
    chosen = None if reasons is None else list(reasons)
    ledger = await Ledger.open(path)
    async with ledger:
        await ledger.reset([State.FAILED, State.UNCONFIRMED], reasons=chosen)
        ledger.put("phase", "moving")
    return await resume(path, pace=pace, patience=patience, ask=ask)


# --- within ---------------------------------------------------------------------------------------------------------

_KEPT = ("verb", "verify", "full", "attempts", "delete", "max_delete")


@dataclass(frozen=True, slots=True)
class _Asked:
    source: EndLike
    target: EndLike
    how: How
    path: Path | None
    new: bool
    pace: Pace
    patience: float
    ask: Ask | None


async def _begun(asked: _Asked) -> Job:
    _require_level(asked.how)
    specs = [spec_of(asked.source), spec_of(asked.target)]
    path, digest = await in_background(lambda: _place_of(asked, specs))
    if asked.new:
        await _forget(path)
    alone = sum(isinstance(spec, EndSpec) and spec.is_archive for spec in specs) == 1
    opened = partial(end_of, alone=alone, ask=asked.ask)
    source = await in_background(lambda: opened(specs[0], index=places.beside(path, "source")))
    target = await in_background(lambda: opened(specs[1], index=places.beside(path, "target"), target=True))
    _require_features(asked.how, source, target)
    ledger = await _ledger(path, asked.how, source, target, digest)
    try:
        await in_background(lambda: places.Private(path).write(_kept(asked.how, specs)))
    except BaseException:
        await ledger.__aexit__(None, None, None)
        raise
    return Job(JobParts(ledger, source, target, asked.how, asked.pace, asked.patience))


def _require_level(how: How) -> None:
    if how.verify not in ("none", "listed", "bytes"):
        raise UsageError("verify: give 'none', 'listed' or 'bytes'")
    if not isinstance(how.attempts, int) or how.attempts < 1:
        raise UsageError("attempts: give a number from 1 on")


def _place_of(asked: _Asked, specs: list[Any]) -> tuple[Path, str]:
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


async def _forget(path: Path) -> None:
    """Remove an earlier ledger, unless somebody works with it.

    Raises:
        LedgerLocked: another process does.
    """
    if await in_background(path.exists):
        ledger = await Ledger.open(path)
        await ledger.__aexit__(None, None, None)
        await in_background(lambda: places.remove_job(path))


def _require_features(how: How, source: End, target: End) -> None:
    needed = dict(zip(("source", "target"), _NEEDED[how.verb], strict=True))
    if how.delete:
        needed["target"] |= Feature.DELETES | Feature.LISTS
    for end, name in ((source, "source"), (target, "target")):
        for feature in needed[name]:
            if feature not in end.features:
                raise UsageError(f"{name}: {end.name} {_WORDS[feature]}")


async def _ledger(path: Path, how: How, source: End, target: End, digest: str) -> Ledger:
    if await in_background(path.exists):
        return await Ledger.open(path, identity=digest)
    facts = {
        "verb": how.verb,
        "source": source.name,
        "target": target.name,
        "verify": how.verify,
        "identity": digest,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return await Ledger.create(path, facts)


def _kept(how: How, specs: list[Any]) -> dict[str, Any]:
    """Return what `resume` needs; a client has no words for it."""
    ends = [spec.private if isinstance(spec, EndSpec) else None for spec in specs]
    return {
        "source": ends[0],
        "target": ends[1],
        "anonymizes": how.anonymize is not None,
        "first": sorted(how.first, key=lambda uid: how.first[uid]),
        **{name: getattr(how, name) for name in _KEPT},
    }


def _places(first: Iterable[str]) -> dict[str, int]:
    return {checked_uid(uid, "first"): number for number, uid in enumerate(first)}


def _path(job: str | os.PathLike[str] | None) -> Path | None:
    return None if job is None else Path(job)
