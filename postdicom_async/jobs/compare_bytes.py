"""Verification by bytes: the target's instances are retrieved again and compared with what was sent.

The ledger keeps a digest of what was sent. The source is asked again only for instances without a digest and for those
whose digest differs; the latter are compared element by element, and the differing tags reported. Memory is flat:
digests are computed from streams, and only a few differing instances are held at a time.
"""

from __future__ import annotations

from contextlib import aclosing
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from postdicom_async.dicom.digest import DataSetDigest
from postdicom_async.dicom.sameness import Difference
from postdicom_async.disk.anonymized import anonymized
from postdicom_async.disk.files import Unusable
from postdicom_async.disk.sources import Usable
from postdicom_async.errors import LocalFileError
from postdicom_async.jobs.ends.end import ListedInstance, Selection
from postdicom_async.jobs.states import Reason
from postdicom_async.results import InstanceUids
from postdicom_async.transfer.comparing import compared

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence

    from postdicom_async.bodies import Body
    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.jobs.ends.end import End, Identified
    from postdicom_async.jobs.ledger.schema import ItemRow


_MOST_KEPT: Final = 16  # differing instances held until the source's copies are read
_MOST_KEPT_BYTES: Final = 32 << 20


class VerifyFinding(Enum):
    """The result of verifying one instance."""

    SAME = "same"
    COERCED = "coerced"
    """Present, with elements coerced that a target may change (`sameness.is_coercible`).

    None of these was anonymised; ``tags`` names them.
    """
    DIFFERENT = "different"
    CANNOT_COMPARE = "cannot compare"
    """It differs and is in another transfer syntax, unreadable, or too large to be compared element by element."""
    MISSING = "missing"
    """The target does not give it."""
    GONE = "gone"
    """There is no digest or it differs, and the source no longer has the instance to compare with."""

    @property
    def ok(self) -> bool:
        """Whether the target holds what was sent."""
        return self in (VerifyFinding.SAME, VerifyFinding.COERCED)

    @property
    def reason(self) -> Reason:
        """The reason that the ledger records for it."""
        return _REASONS.get(self, Reason.NONE)


_REASONS: Final = {
    VerifyFinding.DIFFERENT: Reason.DIFFERENT,
    VerifyFinding.CANNOT_COMPARE: Reason.CANNOT_COMPARE,
    VerifyFinding.MISSING: Reason.NOT_CONFIRMED,
    VerifyFinding.GONE: Reason.GONE,
}
_FINDINGS: Final = {
    Difference.SAME: VerifyFinding.SAME,
    Difference.COERCED: VerifyFinding.COERCED,
    Difference.DIFFERENT: VerifyFinding.DIFFERENT,
    Difference.CANNOT_COMPARE: VerifyFinding.CANNOT_COMPARE,
}


class Verified(NamedTuple):
    """An instance and its finding.

    Attributes:
        uid: its SOP Instance UID at the source.
        tags: the top-level elements that differ (``"00100020"``), where elements could be compared; never values.
    """

    uid: str
    finding: VerifyFinding
    tags: tuple[str, ...] = ()


async def digest_of(body: Body) -> bytes:
    """Return the digest of an instance's data set and transfer syntax, 16 bytes; see `DataSetDigest`.

    Raises:
        LocalFileError: the body's file changed, or is gone.
    """
    digest = DataSetDigest()
    async with aclosing(body.open()) as pieces:
        async for piece in pieces:
            digest.update(piece)
    return digest.digest()


async def verify_bytes(
    source: End,
    target: End,
    study: str,
    instances: Sequence[ItemRow],
    *,
    whole: bool = False,
    anonymize: Anonymization | None = None,
    at_target: Callable[[InstanceUids], InstanceUids] | None = None,
) -> AsyncGenerator[Verified, None]:
    """Compare instances of one study at the target with what was sent; yield one finding per instance.

    Args:
        source: is opened for instances without a digest, and for those that differ.
        target: is opened for all of them.
        study: the Study Instance UID at the source.
        instances: which ones, by their UIDs at the source. A UID that comes twice is verified once.
        whole: these are all the instances that the target has of the study.
        anonymize: the rules under which they were sent: the same rules and secret reproduce what was sent.
        at_target: maps UIDs at the source to those at the target. Without it they are the same, or with ``anonymize``
            those of `Anonymization.uids_after`.

    Raises:
        PostdicomError: an end fails; the findings yielded so far are valid.
    """
    at_target = at_target or (anonymize.uids_after if anonymize is not None else lambda uids: uids)
    check = _Check(source, study, {item.uid: item for item in instances}, anonymize)
    async for verified in check.without_digest():
        yield verified
    there = {item.uid: at_target(InstanceUids(study, item.series, item.uid)) for item in check.left()}
    if there:
        sizes = {uids.sop_instance_uid: check.items[uid].size for uid, uids in there.items()}
        wanted = _wanted(there.values(), sizes, whole=whole)
        names = {uids.sop_instance_uid: uid for uid, uids in there.items()}
        async with aclosing(target.open(wanted)) as given:
            async for verified in check.given(given, names):
                yield verified
    for item in check.left():
        yield Verified(item.uid, VerifyFinding.MISSING)


def _wanted(uids: Collection[InstanceUids], sizes: Mapping[str, int], *, whole: bool) -> Selection:
    study, *_ = studies = {one.study_instance_uid for one in uids}
    assert len(studies) == 1  # noqa: S101 - all belong to one
    instances = [ListedInstance(one.series_instance_uid, uid := one.sop_instance_uid, sizes[uid]) for one in uids]
    series = {one.series for one in instances}
    return Selection(study, series.pop() if len(series) == 1 else None, instances, whole)


class _Check:
    """What is known about the instances while they are verified.

    Attributes:
        items: by SOP Instance UID at the source.
        seen: instances the target has delivered, or that already have a finding.
    """

    def __init__(self, source: End, study: str, items: dict[str, ItemRow], anonymize: Anonymization | None) -> None:
        self.items = items
        self.seen: set[str] = set()
        self._source = source
        self._study = study
        self._anonymize = anonymize
        self._digests = {uid: item.digest for uid, item in items.items() if item.digest}
        self._kept: dict[str, Usable] = {}

    def left(self) -> list[ItemRow]:
        """Return the instances that were not seen."""
        return [item for uid, item in self.items.items() if uid not in self.seen]

    async def without_digest(self) -> AsyncGenerator[Verified, None]:
        """Compute missing digests from the source; yield findings for instances it does not deliver."""
        wanted = [uid for uid in self.items if uid not in self._digests]
        async with aclosing(self._from_source(wanted)) as sources:
            async for uid, sent in sources:
                self._digests[uid] = digest = await _digest_or_none(sent)
                if not digest:
                    self.seen.add(uid)
                    yield Verified(uid, VerifyFinding.CANNOT_COMPARE)
        for uid in wanted:
            if uid not in self._digests:
                self.seen.add(uid)
                yield Verified(uid, VerifyFinding.GONE)

    async def given(self, given: AsyncIterator[Identified], names: Mapping[str, str]) -> AsyncGenerator[Verified, None]:
        """Compare what the target delivers; ``names`` maps the UIDs asked for to those at the source."""
        async for received in given:
            uid = names.get(received.label)
            if uid is None or uid in self.seen:
                continue  # not asked for, or a second copy
            self.seen.add(uid)
            digest = await _digest_or_none(received)
            if digest == self._digests[uid]:
                yield Verified(uid, VerifyFinding.SAME)
            elif not digest or isinstance(received, Unusable):
                yield Verified(uid, VerifyFinding.CANNOT_COMPARE)
            else:
                self._kept[uid] = received
            if self._is_full():
                async for verified in self._compare_kept():
                    yield verified
        async for verified in self._compare_kept():
            yield verified

    def _is_full(self) -> bool:
        """Whether as many differing instances are held as may be."""
        size = sum(one.body.length for one in self._kept.values())
        return len(self._kept) >= _MOST_KEPT or size >= _MOST_KEPT_BYTES

    async def _compare_kept(self) -> AsyncGenerator[Verified, None]:
        """Compare the held instances element by element with the source, which is opened again."""
        kept, self._kept = self._kept, {}
        async with aclosing(self._from_source(list(kept))) as sources:
            async for uid, sent in sources:
                verified = await _compared(uid, sent, kept.pop(uid))
                if verified.finding is VerifyFinding.COERCED and self._touches_rules(verified.tags):
                    verified = verified._replace(finding=VerifyFinding.DIFFERENT)
                yield verified
        for uid in kept:
            yield Verified(uid, VerifyFinding.GONE)

    def _touches_rules(self, tags: Iterable[str]) -> bool:
        """Whether one of them was anonymised: the archive may have put back the very value that was to be hidden."""
        return self._anonymize is not None and any(self._anonymize.changes(int(tag, 16)) for tag in tags)

    async def _from_source(self, uids: Sequence[str]) -> AsyncGenerator[tuple[str, Identified], None]:
        """Yield each instance once as it was sent, that is anonymised where rules apply."""
        if not uids:
            return
        left = {uid: InstanceUids(self._study, self.items[uid].series, uid) for uid in uids}
        wanted = _wanted(left.values(), {uid: self.items[uid].size for uid in uids}, whole=False)
        async with aclosing(self._source.open(wanted)) as sources:
            async for one in sources:
                if left.pop(one.label, None) is not None:
                    yield one.label, one if self._anonymize is None else await anonymized(one, self._anonymize)


async def _compared(uid: str, sent: Identified, received: Usable) -> Verified:
    if isinstance(sent, Unusable):
        return Verified(uid, VerifyFinding.CANNOT_COMPARE)
    try:
        async with aclosing(received.body.open()) as pieces:
            found = await compared(sent.body, pieces)
    except LocalFileError:  # one of the two copies changed, or is gone
        return Verified(uid, VerifyFinding.CANNOT_COMPARE)
    return Verified(uid, _FINDINGS[found.kind], found.tags)


async def _digest_or_none(instance: Identified) -> bytes:
    """Return the digest, empty for an unreadable instance."""
    if isinstance(instance, Unusable):
        return b""
    try:
        return await digest_of(instance.body)
    except LocalFileError:
        return b""
