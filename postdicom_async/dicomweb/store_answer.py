"""What a store answer says about each instance (PS3.18 section 10.5.3, table I.1-1 and I.2-1). Pure.

Success is per instance: an instance that the answer does not name is unconfirmed, whatever the HTTP status.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from postdicom_async.dicom.json_reading import (
    DicomJson,
    NotDicomJson,
    first_value,
    items_of,
    objects_in,
)
from postdicom_async.dicom.native_xml import objects_in_xml
from postdicom_async.dicom.tags import JSON_TAG
from postdicom_async.dicomweb.dialects import parse_media_type
from postdicom_async.results import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

_REFERENCED_SOP_SEQUENCE = JSON_TAG["ReferencedSOPSequence"]
_FAILED_SOP_SEQUENCE = JSON_TAG["FailedSOPSequence"]
_REFERENCED_SOP_INSTANCE_UID = JSON_TAG["ReferencedSOPInstanceUID"]
_FAILURE_REASON = JSON_TAG["FailureReason"]
_WARNING_REASON = JSON_TAG["WarningReason"]

# PS3.18 tables I.2-1 (warnings) and I.2-2 (failures), with the PS3.7 annex C codes that servers also send.
_CODES: Final[tuple[tuple[range, str], ...]] = (
    (range(0x0107, 0x0108), "attribute list error"),
    (range(0x0110, 0x0111), "processing failure"),
    (range(0x0111, 0x0112), "duplicate SOP instance"),
    (range(0x0112, 0x0113), "no such SOP instance"),
    (range(0x0117, 0x0118), "invalid SOP instance"),
    (range(0x0122, 0x0123), "referenced SOP class not supported"),
    (range(0x0124, 0x0125), "not authorized"),
    (range(0x0131, 0x0132), "duplicate transaction UID"),
    (range(0x0132, 0x0133), "resource limitation"),
    (range(0x0212, 0x0213), "mistyped argument"),
    (range(0xA700, 0xA800), "out of resources"),
    (range(0xA900, 0xAA00), "data set does not match SOP class"),
    (range(0xB000, 0xB001), "coercion of data elements"),
    (range(0xB006, 0xB007), "elements discarded"),
    (range(0xB007, 0xB008), "data set does not match SOP class"),
    (range(0xB00E, 0xB00F), "already stored"),
    (range(0xC000, 0xD000), "cannot understand"),
)
_SAYS_NOTHING = "the archive's answer does not say what became of it"
_TRANSFER_SYNTAX_CODE = 0xC122
_OUT_OF_RESOURCES: Final = frozenset({0x0132, *range(0xA700, 0xA800)})
KEPT_WHAT_IT_HAD: Final = frozenset({0x0111, 0xB00E})
"""Reason codes of an archive that has an instance with that UID, and keeps it unchanged."""


TWO_PATIENTS: Final = "the archive lists its study under more than one Patient ID"
"""How the ``reason`` begins where an archive such as Orthanc, which files by Patient ID, may return neither."""


@dataclass(frozen=True, slots=True)
class StoreVerdict:
    """What became of one instance; ``temporary`` if sending it again later may succeed."""

    status: Status
    reason_code: int | None = None
    reason: str | None = None
    temporary: bool = False


def failure_name(code: int) -> str:
    """Return the PS3.18 name of a Failure Reason or Warning Reason."""
    if code == _TRANSFER_SYNTAX_CODE:
        return "referenced transfer syntax not supported"
    return next((name for codes, name in _CODES if code in codes), f"reason {code:#06x}")


def verdicts_of(content_type: str, body: bytes, sent: Iterable[str]) -> dict[str, StoreVerdict]:
    """Return a verdict for each SOP Instance UID sent, from an answer of any status, with or without a body.

    The body is JSON or XML, one data set or a list; instances in an unreadable one stay unconfirmed.
    """
    found: dict[str, list[StoreVerdict]] = {}
    for item in _data_sets(content_type, body):
        told = [(entry, _stored(entry)) for entry in items_of(item, _REFERENCED_SOP_SEQUENCE)]
        told += [(entry, _refused(entry)) for entry in items_of(item, _FAILED_SOP_SEQUENCE)]
        for entry, verdict in told:
            uid = str(first_value(entry, _REFERENCED_SOP_INSTANCE_UID) or "").strip("\0 ")
            found.setdefault(uid, []).append(verdict)
    return {uid: _joined(found.get(uid, [])) for uid in sent}


def _data_sets(content_type: str, body: bytes) -> list[DicomJson]:
    kind = parse_media_type(content_type)
    looks_like_xml = kind.is_xml or (not kind.is_json and body.lstrip()[:1] == b"<")
    try:
        return objects_in_xml(body) if looks_like_xml and body.strip() else objects_in(body)
    except NotDicomJson:
        return []


def _stored(entry: DicomJson) -> StoreVerdict:
    if _code(entry, _FAILURE_REASON):  # stored and failed at once
        return StoreVerdict(Status.UNCONFIRMED, reason=_SAYS_NOTHING)
    code = _code(entry, _WARNING_REASON)
    if not code:
        return StoreVerdict(Status.STORED)
    return StoreVerdict(Status.WARNED, code, failure_name(code))


def _refused(entry: DicomJson) -> StoreVerdict:
    code = _code(entry, _FAILURE_REASON)
    if code is None:
        return StoreVerdict(Status.FAILED, None, "refused without a reason")
    status = Status.WARNED if code in KEPT_WHAT_IT_HAD else Status.FAILED
    return StoreVerdict(status, code, failure_name(code), temporary=code in _OUT_OF_RESOURCES)


def _code(entry: DicomJson, tag: str) -> int | None:
    value: Any = first_value(entry, tag)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        return int(value)
    except ValueError:
        return None


def _joined(verdicts: list[StoreVerdict]) -> StoreVerdict:
    """Return one verdict; an answer that does not name an instance, or contradicts itself, confirms nothing."""
    stored = [verdict for verdict in verdicts if verdict.status is not Status.FAILED]
    if not verdicts or 0 < len(stored) < len(verdicts):
        return StoreVerdict(Status.UNCONFIRMED, reason=_SAYS_NOTHING)
    return next((verdict for verdict in verdicts if verdict.status is not Status.STORED), verdicts[0])
