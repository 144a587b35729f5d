"""What downloads came to, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postdicom_async import Status
from postdicom_async.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postdicom_async import DownloadReport, Outcome, PostdicomError
    from postdicom_async.cli.progress import Progress

__all__ = ["Result", "document", "failure_text", "summary_text", "was_contradicted", "was_unchecked"]

_LISTINGS: tuple[str, ...] = ("unavailable", "not asked", "compared", "counted")
"""The weakest check first: several downloads together are checked as well as the one that was checked least."""


@dataclass(frozen=True)
class Result:
    """The end of one study, series or instance that was asked for.

    Attributes:
        target: its UIDs, from the study down.
        report: what the library says; None where it did not come so far.
        error: why it failed, None if it did not.
        seen: the progress of it, for when there is no report.
    """

    target: tuple[str, ...]
    report: DownloadReport | None
    error: PostdicomError | None = None
    seen: Progress | None = None

    @property
    def saved(self) -> tuple[Outcome, ...]:
        """The instances written by this command; none with ``--report``, where they are in that file."""
        if self.report is not None:
            return self.report.saved
        return tuple(one for one in self.seen.finished if one.status is Status.SAVED) if self.seen is not None else ()

    @property
    def saved_count(self) -> int:
        """How many instances this command wrote."""
        return self.count(Status.SAVED)

    @property
    def size(self) -> int:
        """Their bytes."""
        if self.report is not None:
            return self.report.bytes_received
        return sum(one.size for one in self.saved) or (self.seen.bytes_done if self.seen and self.saved_count else 0)

    def count(self, status: Status) -> int:
        """Return how many instances came to an end."""
        counts = self.report.counts if self.report is not None else self.seen.counts if self.seen is not None else {}
        return counts.get(status, 0)


def summary_text(results: Iterable[Result]) -> str:
    """Return one line on all of them."""
    numbers = _numbers(results)
    words = [f"{numbers['saved']} saved"]
    words += [f"{numbers[name]} {name}" for name in ("already present", "missing", "refused") if numbers[name]]
    size, seconds = numbers["bytes"], numbers["seconds"]
    pace = f" in {output.time_text(seconds)}, {output.rate_text(size, seconds)}" if seconds else ""
    return f"{', '.join(words)}; {output.size_text(size)}{pace}"


def failure_text(results: Iterable[Result]) -> str:
    """Return one line on what did not go well."""
    results = list(results)
    numbers = _numbers(results)
    failed = sum(result.error is not None for result in results)
    words = [f"{failed} of {len(results)} downloads failed"] if failed else []
    words += [f"{numbers['missing']} instances are missing"] if numbers["missing"] else []
    words += [f"{numbers['refused']} parts of the answer were refused"] if numbers["refused"] else []
    if was_contradicted(results):
        words.append("what the archive lists contradicts what it sent, so that this is all cannot be told")
    return ", ".join(words) or "it is not known whether everything arrived"


def was_contradicted(results: Iterable[Result]) -> bool:
    """Return whether the archive's own list or count contradicts what came, so that nothing shows that it is all."""
    return any(result.report.contradicted for result in results if result.report is not None)


def was_unchecked(results: Iterable[Result]) -> bool:
    """Return whether something came of which the archive could not be asked whether it is all."""
    return _listing(result for result in results if result.error is None) == "unavailable"


def document(results: Iterable[Result]) -> dict[str, Any]:
    """Return what a JSON document says of all of them."""
    results = list(results)
    items = [item for result in results for item in _items(result)]
    return {
        "summary": {
            **{name.replace(" ", "_"): value for name, value in _numbers(results).items()},
            "listing": _listing(results),
        },
        "items": items,
    }


def _numbers(results: Iterable[Result]) -> dict[str, Any]:
    results = list(results)
    reports = [result.report for result in results if result.report is not None]
    return {
        "saved": sum(result.saved_count for result in results),
        "already present": sum(result.count(Status.PRESENT) for result in results),
        "missing": sum(result.count(Status.MISSING) for result in results),
        "refused": sum(report.refused for report in reports),
        "bytes": sum(result.size for result in results),
        "seconds": sum(report.seconds for report in reports),
    }


def _listing(results: Iterable[Result]) -> str | None:
    found = [result.report.listing for result in results if result.report is not None]
    return min(found, key=_LISTINGS.index, default=None)


def _items(result: Result) -> list[dict[str, Any]]:
    items = [_item("saved", one.uids or (), path=one.where, size=one.size) for one in result.saved]
    if result.report is not None:
        items += [_item("already present", uids) for uids in result.report.already_present]
        items += [_item("missing", uids, reason="it did not arrive") for uids in result.report.missing]
    if result.error is not None and not items:
        items.append(_item("failed", result.target, reason=output.clean(result.error)))
    return items


def _item(
    status: str,
    uids: tuple[str, ...],
    *,
    path: str | None = None,
    size: int | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    study, series, instance = (*uids, None, None, None)[:3]
    return {
        "status": status,
        "study_instance_uid": study,
        "series_instance_uid": series,
        "sop_instance_uid": instance,
        "path": path,
        "bytes": size,
        "reason": reason,
    }
