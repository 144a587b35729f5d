"""The doctor's requests to PostDICOM's own operations: the three that read, and the form that they accept."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from postdicom_async.dicom.json_reading import first_value
from postdicom_async.dicom.tags import JSON_TAG
from postdicom_async.doctor.examination import ANY_STATUS, Examination, Probe, Verdict, known_type, results_text
from postdicom_async.http.exchange import Call
from postdicom_async.http.retry import Repeat
from postdicom_async.postdicom.operations import OPERATIONS, encode
from postdicom_async.vendor.answers import Content, PatientOrder, list_in, parse, refusal_in
from postdicom_async.vendor.fields import check
from postdicom_async.vendor.wire import Wire

if TYPE_CHECKING:
    from postdicom_async.http.answer import Answer

READS: Final = ("folders.search", "orders.search", "orders.properties")
"""All that is ever sent. Tag content is a read too, but only some accounts may."""

_ANSWER_BYTES = 64 << 20
_IN_MANY_SCRIPTS = "Łukasz 山田 قباني"
_FOLDER_NAMES: Final = frozenset({"FolderUuid", "FolderName", "FolderDescription", "IsShared", "OrderCount"})
_ORDER_NAMES: Final = frozenset({"PatientOrderUuid", "PatientName", "OtherPatientId", "OrderModality", "OrderStatus"})


class OperationProbes:
    """Probes for PostDICOM's service only."""

    def __init__(self, examination: Examination, wire: Wire) -> None:
        self._exam = examination
        self._note = examination.note
        self._wire = wire
        self._order = PatientOrder()

    @property
    def probes(self) -> list[Probe]:
        """The probes, in order."""
        return [
            Probe(self._folders),
            Probe(self._names),
            Probe(self._orders),
            Probe(self._properties),
            Probe(self._long),
        ]

    async def _folders(self) -> None:
        """List the folders at the root; if that is refused, try the other ways of writing it."""
        status, kind, found = await self._call("folders.search", {"with_orders": False})
        worked = _is_fine(status, found)
        self._note("folders", worked, _told(status, kind, found))
        if worked:
            self._note("folder answer", *_names_of(found, _FOLDER_NAMES))
            self._note("wire false", Verdict.AS_ASSUMED, "taken")
            self._note("wire sends_empty", Verdict.AS_ASSUMED, "taken")
            return
        for key, words, wire in _other_ways(self._wire):
            status, kind, found = await self._call("folders.search", {"with_orders": False}, wire)
            if _is_fine(status, found):
                self._note(key, Verdict.OTHERWISE, f"refused; taken with {words}")
                return

    async def _names(self) -> None:
        """Search for a nonexistent folder, by a name in several scripts, and with a true boolean."""
        name = f"{_IN_MANY_SCRIPTS} {uuid4()}"
        status, kind, found = await self._call("folders.search", {"name": name, "with_orders": True})
        worked = _is_fine(status, found)
        self._note("ascii", worked, f"taken; without a match: {_told(status, kind, found)}" if worked else "refused")
        self._note("wire true", worked or Verdict.UNKNOWN, "taken" if worked else "not told")

    async def _orders(self) -> None:
        """Search for the orders of one day: the date of the known study."""
        day = _day_of(first_value(self._exam.study, JSON_TAG["StudyDate"]))
        given = {"study_date_from": day, "study_date_to": day} if day else {"patient_id": str(uuid4())}
        status, kind, found = await self._call("orders.search", given)
        worked = _is_fine(status, found)
        self._note("orders", worked, _told(status, kind, found))
        if self._wire.sends_empty:  # otherwise absent lists are left out
            self._note("wire absent_list", *await self._absent_list(given, taken=worked))
        if worked:
            self._note("order answer", *_names_of(found, _ORDER_NAMES))
            self._order = PatientOrder(next(iter(list_in(found) or ()), {}))

    async def _absent_list(self, given: dict[str, Any], *, taken: bool) -> tuple[Verdict, str]:
        """Return whether absent lists were accepted; if not, whether another way of writing them is."""
        if taken:
            return Verdict.AS_ASSUMED, "taken"
        for text in ("[]", '[""]', ""):
            if text != self._wire.absent_list:
                status, _, found = await self._call("orders.search", given, replace(self._wire, absent_list=text))
                if _is_fine(status, found):
                    return Verdict.OTHERWISE, f"refused; taken with absent_list={text!r}"
        return Verdict.UNKNOWN, "not told"

    async def _properties(self) -> None:
        institution = self._order.institution_uuid
        order = self._order.patient_order_uuid if self._order.is_named else ""
        if not institution or not order:
            self._note("properties", Verdict.UNKNOWN, "not tried: no order was found to ask about")
            return
        status, kind, found = await self._call(
            "orders.properties", {"institution_uuid": institution, "patient_order_uuid": order}
        )
        worked = _is_fine(status, found, listing=False)
        self._note("properties", worked, _told(status, kind, found, counts=False))

    async def _long(self) -> None:
        """Search for the orders of nonexistent institutions, as many as fit in one header."""
        room = self._wire.header_bytes - 600
        uuids = [str(uuid4()) for _ in range(max(1, room // 42))]
        status, kind, found = await self._call("orders.search", {"institution_uuids": uuids})
        size = len(uuids) * 42
        worked = _is_fine(status, found)
        self._note("wire header_bytes", worked, f"about {size}: {_told(status, kind, found)}")

    async def _call(self, name: str, given: dict[str, Any], wire: Wire | None = None) -> tuple[int, str, Content]:
        """Call one read operation; any status is an answer."""
        operation = OPERATIONS[name]
        if name not in READS or operation.repeat is not Repeat.READ:
            raise AssertionError(name)
        values = check(operation, given, first_day=lambda: datetime.now(UTC).date())
        headers = {operation.header: encode(operation, values, wire or self._wire), "Cache-Control": "no-store"}
        call = Call("doctor", "GET", operation.path, Repeat.READ, headers=headers, accepted=ANY_STATUS)
        answer: Answer = await self._exam.once.fetch(call, cap=_ANSWER_BYTES)
        reason = ", with X-Error-Reason" if answer.headers.get("x-error-reason") else ""
        return answer.status, known_type(answer.content_type) + reason, parse(answer.body)


def _is_fine(status: int, found: Content, *, listing: bool = True) -> bool:
    usable = list_in(found) is not None if listing else isinstance(found, dict)
    return status < HTTPStatus.MULTIPLE_CHOICES and usable and refusal_in(found) is None


def _told(status: int, kind: str, found: Content, *, counts: bool = True) -> str:
    """Describe an answer in our own words."""
    form = {dict: "a JSON object", list: "a JSON list"}.get(type(found), "text" if found else "nothing")
    words = [str(status), kind, form]
    if status < HTTPStatus.MULTIPLE_CHOICES and refusal_in(found) is not None:
        words.append("Success is false")
    elif status < HTTPStatus.MULTIPLE_CHOICES and counts:
        listed = list_in(found)
        words.append("no list" if listed is None else results_text(len(listed)))
    return ", ".join(words)


def _names_of(found: Content, expected: frozenset[str]) -> tuple[Verdict, str]:
    """Compare the names of fields with the expected ones; others are only counted."""
    item = next(iter(list_in(found) or ()), None)
    if item is None:
        return Verdict.UNKNOWN, "not told: the list is empty"
    there = expected & item.keys()
    verdict = Verdict.AS_ASSUMED if there == expected else Verdict.OTHERWISE
    missing = f"; not there: {', '.join(sorted(expected - there))}" if expected - there else ""
    return verdict, f"{len(there)} of {len(expected)} expected names, {len(item) - len(there)} others{missing}"


def _other_ways(wire: Wire) -> list[tuple[str, str, Wire]]:
    """Return other ways of writing the parameters: for each the check it answers, its description and its wire."""
    other = replace(wire, sends_empty=not wire.sends_empty)
    node = "the Node sample's booleans, true and false"
    return [
        ("wire sends_empty", f"sends_empty={other.sends_empty}", other),
        ("wire false", node, replace(wire, true="true", false="false")),
        ("wire sends_empty", f"sends_empty={other.sends_empty} and {node}", replace(other, true="true", false="false")),
    ]


def _day_of(value: object) -> str | None:
    text = str(value or "")
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdecimal() else None
