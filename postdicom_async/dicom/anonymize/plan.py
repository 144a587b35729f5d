"""The plan for one file: which of its bytes are kept, and which bytes are written between them.

Only changes are held as bytes; all the rest are ranges of the original, so that pixels are never read and the new
length is known before anything is sent. Lengths of changed sequences and items are rewritten, group lengths of changed
groups are dropped (PS3.5 section 7.2: retired), and that of the file meta is corrected.

Planning reads the file once; sending reads it again, and the sender checks that it has not changed. A file that is not
understood to its last byte is a `DicomProblem` and is not sent: an element skipped by mistake might name the patient. A
plan is bounded in bytes, parts and depth, whatever a file says.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from postdicom_async.dicom import tags
from postdicom_async.dicom.anonymize.identities import ISSUER, PATIENT_ID, Patient
from postdicom_async.dicom.anonymize.pieces import LevelMode, LevelPlan, Segments
from postdicom_async.dicom.anonymize.rules import REMOVE, Change, ChangeKind
from postdicom_async.dicom.anonymize.values import DUMMIES, check_value, encode_value
from postdicom_async.dicom.deflated import Inflated
from postdicom_async.dicom.elements import (
    EXPLICIT_LITTLE,
    FRAGMENTS,
    IMPLICIT_LITTLE,
    DicomProblem,
    Element,
    Encoding,
    Read,
    ReadWindow,
    as_written,
    encode_element,
    encode_header,
    items_encoding,
    read_element,
)  # fmt: skip
from postdicom_async.dicom.tags import ITEM, ITEM_END, SEQUENCE_END, TAG, UNDEFINED, dictionary_vr, tag_text, tags_of
from postdicom_async.dicom.text import decode_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postdicom_async.dicom.anonymize import Anonymization

_DEEPEST = 100
_MOST_HELD = 64 << 20  # bytes rewritten in one file; a plan is held until the file is sent
_PART_COST = 200
_LONGEST_UIDS = 1 << 20
_LONGEST_ID = 1024
_CHARACTER_SET = TAG["SpecificCharacterSet"]
_CODE = tags_of("CodeValue CodingSchemeDesignator CodeMeaning")
_GROUP_LENGTH = TAG["FileMetaInformationGroupLength"]
# Media Storage SOP Class and Instance UID repeat the data set's.
_COPIES = {TAG["MediaStorageSOPClassUID"]: TAG["SOPClassUID"], TAG["MediaStorageSOPInstanceUID"]: TAG["SOPInstanceUID"]}
_ENCODINGS = {
    tags.IMPLICIT_VR_LITTLE_ENDIAN: IMPLICIT_LITTLE,
    tags.EXPLICIT_VR_BIG_ENDIAN: Encoding(little=False, explicit=True),
}


class FilePlan(NamedTuple):
    """The new form of a file.

    Attributes:
        head: everything before the data set.
        data_set: the data set; ranges refer to the inflated data set if the original's is deflated.
        deflated_at: where the original's deflated data set begins; None for another transfer syntax.
    """

    head: Segments
    data_set: Segments
    deflated_at: int | None


def plan_file(read: Read, length: int, anonymization: Anonymization) -> FilePlan:
    """Return the plan for a file of ``length`` bytes.

    Raises:
        DicomProblem: it cannot be understood to its end, or a value does not fit into it.
    """
    window = ReadWindow(read)
    meta, syntax, at = _read_meta(window, length, anonymization)
    deflated_at = None
    if syntax == tags.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        inflated = Inflated(read, at)
        deflated_at, at, length = at, 0, inflated.size()
        window = ReadWindow(inflated.read)
    planner = Planner(window, anonymization)
    data_set = planner.data_set(at, length, as_written(window, at, _ENCODINGS.get(syntax, EXPLICIT_LITTLE)))
    return FilePlan(_finished_head(meta, planner.written), data_set, deflated_at)


def _read_meta(window: ReadWindow, end: int, anonymization: Anonymization) -> tuple[LevelPlan, str, int]:
    """Return the file meta information (PS3.10 section 7.1), the transfer syntax, and where the data set begins."""
    if window.peek(128, 4) != b"DICM":
        raise DicomProblem("no DICOM file (PS3.10)")
    planner = Planner(window, anonymization)
    level = LevelPlan(EXPLICIT_LITTLE, apart=None)
    syntax, at = "", 132
    while at < end and window.peek(at, 2) == b"\x02\0":  # its group length may be wrong
        element = read_element(window, at, end, EXPLICIT_LITTLE)
        if element.tag == TAG["TransferSyntaxUID"]:
            syntax = window.peek(element.value_at, min(element.length, 128)).strip(b"\0 ").decode("latin-1")
        at = planner.element(element, end, level)
    if not syntax:
        raise DicomProblem("it names no transfer syntax")
    return level, syntax, at


def _finished_head(meta: LevelPlan, written: Mapping[int, str]) -> Segments:
    """Return everything before a data set with these new values.

    The preamble becomes zeros: it may hold anything, and a TIFF header's offsets would no longer be right.
    """
    copies = {tag: written[original] for tag, original in _COPIES.items() if original in written}
    meta.chunks[:] = [chunk for chunk in meta.chunks if chunk[0] not in copies and chunk[0] != _GROUP_LENGTH]
    for tag, text in copies.items():
        value = text.encode("latin-1")
        meta.insert(tag, encode_element(tag, "UI", value + b"\0" * (len(value) % 2), EXPLICIT_LITTLE))
    rest = meta.joined()
    head = Segments()
    head.write(b"\0" * 128 + b"DICM")
    head.write(encode_element(_GROUP_LENGTH, "UL", struct.pack("<I", rest.length), EXPLICIT_LITTLE))
    head.extend(rest)
    return head


class Planner:
    """Plans one data set, or the file meta information. Use it once: it remembers what it has seen.

    Attributes:
        written: new values of elements at the top level, as text.
    """

    def __init__(self, window: ReadWindow, anonymization: Anonymization) -> None:
        self._window = window
        self._wanted = anonymization
        self._held = 0
        self._of_patient: dict[int, Change] = {}
        self._places: set[int] = set()
        self.written: dict[int, str] = {}

    def data_set(self, at: int, end: int, encoding: Encoding) -> Segments:
        """Return the anonymised data set between two offsets.

        Raises:
            DicomProblem: it cannot be understood to its end, or a value does not fit into it.
        """
        if self._wanted.is_by_patient:
            self._of_patient = self._wanted.of_patient(self._patient(at, end, encoding))
        inserted = {tag: action for tag, action in self._of_patient.items() if action.insert and not tag >> 16 & 1}
        absent = {tag: action for tag, action in self._wanted.insertions().items() if tag >> 16 > 2} | inserted
        absent = {tag: absent[tag] for tag in sorted(absent) if tag in inserted or tag not in self._of_patient}
        level = LevelPlan(encoding, apart=list(absent))
        while at < end and not self._only_zeros(at, end):
            element = read_element(self._window, at, end, encoding)
            absent.pop(element.tag, None)
            at = self.element(element, end, level)
        for tag, action in absent.items():
            # As if it were there already, empty.
            level.insert(tag, self._replaced(Element(tag, dictionary_vr(tag), 0, 0, 0), action, level))
        return level.joined()

    def _patient(self, at: int, end: int, encoding: Encoding) -> Patient:
        """Return the patient of the file; skips the elements before that."""
        level = LevelPlan(encoding, LevelMode.KEEP)
        found: dict[int, str] = {}
        while at < end and not self._only_zeros(at, end):
            element = read_element(self._window, at, end, encoding)
            if element.tag > ISSUER:
                break
            if element.tag == _CHARACTER_SET:
                level.character_sets = self._character_sets(element)
            if element.tag in (PATIENT_ID, ISSUER) and element.tag not in found:
                found[element.tag] = self._decoded(element, level)
                self._places.add(at)
            at = self._end_of(element, end, level)
        return Patient(found.get(PATIENT_ID, ""), found.get(ISSUER, ""))

    def _decoded(self, element: Element, level: LevelPlan) -> str:
        value = self._value(element, _LONGEST_ID)
        text = decode_text(value, "\\".join(level.character_sets).encode("latin-1"))
        if "\ufffd" in text:  # undecodable texts look alike, so two patients could become one
            raise DicomProblem(f"{tag_text(element.tag)} cannot be decoded")
        return text

    def _only_zeros(self, at: int, end: int) -> bool:
        """Whether only padding is left: some software pads files.

        Raises:
            DicomProblem: there are zeros and then something else, which is not valid in a data set.
        """
        if self._window.peek(at, min(4, end - at)).strip(b"\0"):
            return False
        while at < end:
            piece = self._window.peek(at, min(4096, end - at))
            if piece.strip(b"\0") or not piece:
                raise DicomProblem("zeros stand where an element should begin")
            at += len(piece)
        return True

    # --- one element ----------------------------------------------------------------------------------------------

    def element(self, element: Element, end: int, level: LevelPlan) -> int:
        """Add the anonymised element to its level; return where it ends."""
        if element.tag in (ITEM, ITEM_END, SEQUENCE_END):
            # Parsers disagree about what follows; one of them might find a name that no rule was applied to.
            raise DicomProblem("a delimiter is out of place")
        tells_whose = self._of_patient and level.depth == 0 and element.tag in (PATIENT_ID, ISSUER)
        if tells_whose and element.at not in self._places:  # a second ID, or one out of order: whose file is it?
            raise DicomProblem(f"{tag_text(element.tag)} is not where it belongs")
        action = self._action(element, level)
        if element.tag == _CHARACTER_SET:
            level.character_sets = self._character_sets(element)
        chunk = Segments()
        if action is None or action.kind in (ChangeKind.REMAP, ChangeKind.DUMMY):
            over = self._content(element, end, level, action, chunk)
        else:
            over = self._end_of(element, end, level)
            if action.kind is not ChangeKind.REMOVE:
                chunk.write(self._replaced(element, action, level))
        changed = not chunk.is_range(element.at, over)
        if changed and (element.vr != "SQ" or not chunk.parts):
            self._count(chunk)
        level.add(element.tag, chunk, changed=changed)
        return over

    def _action(self, element: Element, level: LevelPlan) -> Change | None:
        if level.mode is LevelMode.KEEP or element.tag == _CHARACTER_SET:
            return None
        if element.tag == TAG["DataSetTrailingPadding"]:
            return REMOVE  # it has no meaning (PS3.10 section 7.2) and may hold anything
        if level.mode is LevelMode.RULES and element.tag in self._of_patient:
            return self._of_patient[element.tag]
        choose = self._wanted.dummy if level.mode is LevelMode.DUMMY else self._wanted.action
        return choose(element.tag, _true_vr(element))

    def _content(self, element: Element, end: int, level: LevelPlan, action: Change | None, chunk: Segments) -> int:
        """Append an element whose content is kept or changed in parts."""
        inner = items_encoding(self._window, element, level.encoding)
        dummy = action is not None and action.kind is ChangeKind.DUMMY
        if inner is not None and not (dummy and inner is FRAGMENTS):
            mode = LevelMode.DUMMY if dummy else level.mode
            if mode is LevelMode.RULES and not self._wanted.sequences:
                mode = LevelMode.KEEP
            return self._sequence(element, inner, end, level, mode, chunk)
        over = self._end_of(element, end, level)
        if action is None or element.length == 0:
            chunk.keep(element.at, over - element.at)
        elif _true_vr(element) == "UI":
            self._remap(element, level, chunk)
        elif dummy:
            chunk.write(self._dummy(element, level))
        else:
            raise DicomProblem(f"{tag_text(element.tag)} should hold UIDs")
        return over

    def _end_of(self, element: Element, end: int, level: LevelPlan) -> int:
        if element.length != UNDEFINED:
            return element.value_at + element.length
        inner = items_encoding(self._window, element, level.encoding)
        if inner is FRAGMENTS:
            return self._fragments_end(element, end)
        assert inner is not None  # noqa: S101 - what has no length is a sequence, or was refused
        return self._sequence(element, inner, end, level, LevelMode.KEEP, Segments())

    def _fragments_end(self, element: Element, end: int) -> int:
        at = element.value_at
        while True:
            item = read_element(self._window, at, end, IMPLICIT_LITTLE)
            if item.tag not in (ITEM, SEQUENCE_END) or item.length == UNDEFINED:
                raise DicomProblem(f"{tag_text(element.tag)} holds something else than fragments")
            at = item.value_at + item.length
            if item.tag == SEQUENCE_END:
                return at

    # --- sequences ------------------------------------------------------------------------------------------------

    def _sequence(
        self, element: Element, inner: Encoding, end: int, level: LevelPlan, mode: LevelMode, chunk: Segments
    ) -> int:
        """Append a sequence with its anonymised items; return where it ends."""
        if inner is FRAGMENTS:
            over = self._fragments_end(element, end)
            chunk.keep(element.at, over - element.at)
            return over
        if level.depth >= _DEEPEST:
            raise DicomProblem("its sequences are nested too deeply")
        items, over = self._items(element, inner, end, level, mode)
        self._append_held(element, items, level.encoding, chunk)
        return over

    def _append_held(self, element: Element, content: Segments, encoding: Encoding, chunk: Segments) -> None:
        """Append a header and its content; the header is rewritten if the length has changed."""
        if element.length in (UNDEFINED, content.length):
            chunk.keep(element.at, element.value_at - element.at)
        else:
            chunk.write(encode_header(element.tag, element.vr, content.length, encoding))
        chunk.extend(content)

    def _items(
        self, element: Element, inner: Encoding, end: int, level: LevelPlan, mode: LevelMode
    ) -> tuple[Segments, int]:
        items = Segments()
        unknown = element.vr == "UN" and level.encoding.explicit
        at = element.value_at
        until = end if element.length == UNDEFINED else at + element.length
        while at < until or element.length == UNDEFINED:
            item = read_element(self._window, at, until, inner)
            if item.tag == SEQUENCE_END:
                over = item.value_at
                items.keep(at, over - at)
                if element.length != UNDEFINED and over != until:
                    raise DicomProblem(f"{tag_text(element.tag)} goes on after its end")
                return items, over
            if item.tag != ITEM:
                raise DicomProblem(f"{tag_text(element.tag)} holds something else than items")
            # PS3.5 section 6.2.2 wants implicit VR inside VR UN; some software writes explicit VR, or the reverse.
            written = as_written(self._window, item.value_at, EXPLICIT_LITTLE if unknown else inner)
            below = LevelPlan(written, mode, level.character_sets, level.depth + 1, level.above + len(level.chunks))
            at = self._item(item, until, below, items)
        return items, until

    def _item(self, item: Element, end: int, level: LevelPlan, items: Segments) -> int:
        at = item.value_at
        until = end if item.length == UNDEFINED else at + item.length
        delimiter: Element | None = None
        while at < until or item.length == UNDEFINED:
            element = read_element(self._window, at, until, level.encoding)
            if element.tag == ITEM_END and item.length == UNDEFINED:
                delimiter = element
                break
            at = self.element(element, until, level)
        self._append_held(item, level.joined(), level.encoding, items)
        if delimiter is None:
            return until
        items.keep(delimiter.at, delimiter.value_at - delimiter.at)
        return delimiter.value_at

    # --- values ---------------------------------------------------------------------------------------------------

    def _value(self, element: Element, limit: int) -> bytes:
        if element.length > limit:
            raise DicomProblem(f"{tag_text(element.tag)} is too long")
        value = self._window.peek(element.value_at, element.length)
        if len(value) != element.length:
            raise DicomProblem(f"it ends inside {tag_text(element.tag)}")
        return value

    def _character_sets(self, element: Element) -> tuple[str, ...]:
        text = self._value(element, 1024).decode("latin-1")
        return tuple(name.strip(" \0") for name in text.split("\\"))

    def _replaced(self, element: Element, action: Change, level: LevelPlan) -> bytes:
        """Return an element with a new value."""
        tag, vr = element.tag, element.vr
        if action.kind is ChangeKind.EMPTY:
            self._note(tag, "", level)
            return encode_header(tag, vr, 0, level.encoding)
        if action.kind is ChangeKind.CODE:
            return _code(tag, action.text, level)
        self._note(tag, action.text, level)
        return encode_element(tag, vr, self._text(tag, _true_vr(element), vr, action.text, level), level.encoding)

    def _text(self, tag: int, meaning: str, vr: str, text: str, level: LevelPlan) -> bytes:
        problem = check_value(meaning, text)
        if problem is not None:
            raise DicomProblem(f"{tag_text(tag)} cannot hold the value: {problem}")
        encoding = IMPLICIT_LITTLE if vr == "UN" else level.encoding
        try:
            return encode_value(meaning, text, encoding, level.character_sets)
        except DicomProblem as error:
            reason = f"{tag_text(tag)}: {error.reason}"
        raise DicomProblem(reason)

    def _dummy(self, element: Element, level: LevelPlan) -> bytes:
        vr = _true_vr(element)
        if vr == "SQ":
            return encode_header(element.tag, element.vr, 0, level.encoding)
        if vr not in DUMMIES:
            return encode_element(element.tag, element.vr, b"\0" * 8, level.encoding)
        return self._replaced(element, Change(ChangeKind.TEXT, DUMMIES[vr]), level)

    def _remap(self, element: Element, level: LevelPlan, chunk: Segments) -> None:
        value = self._value(element, _LONGEST_UIDS)
        old = [one.strip(" \0\t\r\n") for one in value.decode("latin-1").split("\\")]
        new = [self._wanted.new_uid(one) for one in old]
        if new == old:
            chunk.keep(element.at, element.value_at + element.length - element.at)
            return
        text = "\\".join(new)
        self._note(element.tag, text, level)
        value = text.encode("latin-1")
        value += b"\0" * (len(value) % 2)
        chunk.write(encode_element(element.tag, element.vr, value, level.encoding))

    def _note(self, tag: int, text: str, level: LevelPlan) -> None:
        if level.depth == 0:
            self.written[tag] = text

    def _count(self, chunk: Segments) -> None:
        # Leaving an element out splits a kept range, which costs as much memory as writing one.
        self._held += _PART_COST + sum(len(part) for part in chunk.parts if isinstance(part, bytes))
        if self._held > _MOST_HELD:
            raise DicomProblem("too much of it would change")


def _true_vr(element: Element) -> str:
    """Return a value's VR; if the writer did not know it, the dictionary may."""
    return dictionary_vr(element.tag) if element.vr == "UN" else element.vr


def _code(tag: int, text: str, level: LevelPlan) -> bytes:
    """Return a sequence of one coded entry (PS3.3 table 8.8-1)."""
    item = b"".join(
        encode_element(
            code, dictionary_vr(code), encode_value(dictionary_vr(code), part, level.encoding, ()), level.encoding
        )
        for code, part in zip(_CODE, text.split("\\"), strict=True)
    )
    value = encode_header(ITEM, "", len(item), level.encoding) + item
    return encode_element(tag, "SQ", value, level.encoding)
