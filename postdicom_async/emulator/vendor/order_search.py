"""Pure: which orders and folders a search of PostDICOM's own API finds."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.dicomweb.matching import LONGEST_KEY, text_matches

if TYPE_CHECKING:
    from postdicom_async.emulator.operations.parameters import Given
    from postdicom_async.emulator.vendor.orders import Order

__all__ = ["contains", "order_matches", "require_short"]

_IDS = ("PatientId", "OtherPatientId", "AccessionNumber")
_DAYS = (("StudyDateFrom", "StudyDateTo"), ("PatientBirthdateFrom", "PatientBirthdateTo"))


def contains(text: str, part: str) -> bool:
    """Return whether a text holds another, whatever the case and however accents are written."""
    return _folded(part) in _folded(text)


def require_short(given: Given) -> None:
    """Refuse with 400 a text to look for that is longer than anything it could be found in."""
    for name, value in given.values.items():
        if isinstance(value, str) and len(value) > LONGEST_KEY:
            raise Refusal(400, f"{name}: at most {LONGEST_KEY} characters are looked for")


def order_matches(order: Order, given: Given) -> bool:
    """Return whether an order is what all given filters of ``getpatientorderlist`` ask for."""
    return (
        _in_institutions(order, given.items("InstitutionUuidList"))
        and _name_matches(order.fields.get("PatientName", ""), given.text("PatientName"))
        and all(_id_matches(order.fields.get(name, ""), given.text(name)) for name in _IDS)
        and _has_modality(order, given.items("ModalityList"))
        and _in_days(order.study_date, given, *_DAYS[0])
        and _in_days(order.fields.get("PatientBirthdate", ""), given, *_DAYS[1])
    )


def _in_institutions(order: Order, uuids: list[str]) -> bool:
    return not uuids or order.institution_uuid in uuids


def _name_matches(name: str, wanted: str) -> bool:
    """Compare with a pattern, or else look for a part; in the whole name and, a blank for each ``^``, as it is read."""
    if not wanted.strip():
        return True
    names = [name, *name.split("=")]
    names += [form.replace("^", " ") for form in names]
    if "*" in wanted or "?" in wanted:
        pattern = _folded(wanted.strip())
        return any(text_matches(pattern, _folded(form)) for form in names)
    return any(contains(form, wanted.strip()) for form in names)


def _id_matches(value: str, wanted: str) -> bool:
    return not wanted.strip() or text_matches(_folded(wanted.strip()), _folded(value.strip()))


def _has_modality(order: Order, wanted: list[str]) -> bool:
    folded = {_folded(modality.strip()) for modality in wanted}
    return not folded or any(_folded(modality.strip()) in folded for modality in order.modalities)


def _in_days(value: str, given: Given, first: str, last: str) -> bool:
    """Compare a date with bounds, both inclusive; what has no date is outside of any."""
    start, end = given.day(first), given.day(last)
    if start is None and end is None:
        return True
    return bool(value) and (start is None or start.isoformat() <= value) and (end is None or value <= end.isoformat())


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
