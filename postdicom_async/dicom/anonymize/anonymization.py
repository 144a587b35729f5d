"""`Anonymization`: which elements are replaced, emptied or removed, and how UIDs and patients become others.

It holds the rules, checked once, and the key that new UIDs and IDs are derived from. Nothing of it changes after it was
made, so that any thread may plan with it. The key is the one secret: it is in no ``repr``, pickle, fingerprint or
error, and rules that go to another machine are sent without it. What is only sent there must not be taken for rules
that need none, so `_Elsewhere` keeps what they were made from, and planning with it fails.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Protocol

from postdicom_async.dicom.anonymize.identities import (
    ISSUED_BY,
    PATIENT_ID,
    Patient,
    PatientRows,
    key_of,
    keyed_patient_id,
    new_uid,
    says_which,
)
from postdicom_async.dicom.anonymize.rules import (
    DUMMY,
    REMAP,
    REMOVE,
    Change,
    ChangeKind,
    action_of,
    actions_of,
    over_vendor_tags,
    profile_actions,
)
from postdicom_async.dicom.tags import dictionary_vr, tag_text, tags_of
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.results import InstanceUids


class UidRecorder(Protocol):
    """Writes down which UIDs became which others; see `UidMap`."""

    def record(self, old: InstanceUids, new: InstanceUids) -> None:
        """Write it down, durably, before the instance is sent.

        Raises:
            LocalFileError: it cannot be written; then the instance is not sent.
        """
        ...


class _Elsewhere(NamedTuple):
    """What rules were made from whose secret is on another machine; ``table`` tells its table of patients."""

    fingerprint: str
    table: str
    description: Mapping[str, Any]


@public_face
@dataclass(frozen=True, repr=False, eq=False)
class Anonymization:
    r"""What to change in every file before it is sent. Originals are never touched.

    ::

        Anonymization({"PatientName": "ANON^1", "PatientID": "", "00101040": None})

    A key is a DICOM keyword, ``GGGGEEEE``, ``0xGGGGEEEE``, ``GGGG,EEEE`` or ``(GGGG,EEEE)``. A text replaces the value
    (several values stand apart by ``\``), ``""`` empties it, ``None`` removes the element. Values are checked against
    their VR (PS3.5 section 6.2) here, and again with the VR and the character set that a file has. The preamble is
    always zeroed: it may hold anything (PS3.10 section 7.1), and one that makes a file a TIFF as well points to places
    that have moved. Padding after the data set is dropped. Burned-in text stays: pixels are never changed. Digital
    signatures stay too, and are not valid any more, unless a rule removes them.

    Attributes:
        rules: see above.
        insert_absent: also add what is absent, at the top level; never private elements or file meta information.
        sequences: also inside sequences, however deep; else only at the top level, ``remap_uids`` and
            ``remove_private`` included, so that references no longer fit.
        remap_uids: replace all UIDs of instances, series, studies, frames of reference and the like, the same one
            always by the same one; without it an archive may take the copy for its original. UIDs of PS3.6, of classes
            and of coding schemes stay, as do private ones in implicit VR, which nobody can tell from other values; see
            ``remove_private``.
        remove_private: remove all private elements; no rule can keep one then.
        secret: what the new UIDs are derived from: ``2.25.`` and the number of a UUID from HMAC-SHA256(secret, UID)
            (PS3.5 annex B.2). Give the same one (at least 8 bytes) to get the same UIDs in another upload; without one
            they are consistent only within this object.
        patient_ids: ``"keyed"`` gives every patient another Patient ID, the same one always to the same one: 20
            letters and digits from HMAC-SHA256(secret, Issuer of Patient ID and Patient ID). Whoever has none keeps
            none.
        patients: what each patient's elements become, from a table; see `PatientTable`. They go before ``rules`` and
            ``patient_ids``, and what is absent is added at the top level. Of a patient who is not in it nothing is
            sent.
        uid_map: where it is written down which UIDs became which; see `UidMap`.

    Where a patient gets another ID by ``patient_ids`` or ``patients``, Issuer of Patient ID and its qualifiers are
    removed unless something names them too: the new ID is none of theirs.

    Raises:
        UsageError: a key or value is wrong; the message names the tag.
    """

    rules: Mapping[str, str | None] = field(default_factory=dict)
    insert_absent: bool = field(default=False, kw_only=True)
    sequences: bool = field(default=True, kw_only=True)
    remap_uids: bool = field(default=False, kw_only=True)
    remove_private: bool = field(default=False, kw_only=True)
    secret: str | bytes | None = field(default=None, kw_only=True)
    patient_ids: Literal["keyed"] | None = field(default=None, kw_only=True)
    patients: PatientRows | None = field(default=None, kw_only=True)
    uid_map: UidRecorder | None = field(default=None, kw_only=True)
    _exact: Mapping[int, Change] = field(init=False)
    _masked: tuple[tuple[int, int, Change], ...] = field(init=False, default=())
    _key: bytes = field(init=False)
    _given: frozenset[int] = field(init=False)
    _elsewhere: _Elsewhere | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        actions = actions_of(self.rules, insert=self.insert_absent)
        if self.patient_ids not in (None, "keyed"):
            raise UsageError('patient_ids: "keyed", or None', argument="anonymize")
        if self.patients is not None and not isinstance(self.patients, PatientRows):
            raise UsageError("patients: give a PatientTable, or None", argument="anonymize")
        if self.patient_ids is not None and PATIENT_ID in actions:
            raise UsageError("PatientID (0010,0020): give a rule, or patient_ids", argument="anonymize")
        kept = [tag for tag, action in actions.items() if action is not REMOVE]
        for tag in (*kept, *(self.patients.columns if self.patients is not None else ())):
            if self.remove_private and tag >> 16 & 1:
                raise UsageError(f"{tag_text(tag)}: all private elements are removed", argument="anonymize")
        object.__setattr__(self, "_given", frozenset(actions))
        object.__setattr__(self, "_exact", actions)
        object.__setattr__(self, "rules", MappingProxyType(dict(self.rules)))
        object.__setattr__(self, "_key", key_of(self.secret))

    def __repr__(self) -> str:
        """Show how much is changed, but no value: the replacement of a name may be a name."""
        flags = [name for name in _FLAGS if getattr(self, name)]
        return f"Anonymization({', '.join([f'{len(self._exact)} rules', *flags])})"

    # --- for other machines, and for whoever goes on later ----------------------------------------------------------

    def __copy__(self) -> Anonymization:
        """Return itself: nothing of it changes."""
        return self

    def __deepcopy__(self, memo: object) -> Anonymization:
        """Return itself: nothing of it changes."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle: never a secret or a table of patients."""
        if self._key:
            raise UsageError("its secret does not travel; send what without_secret() returns", argument="anonymize")
        return {**vars(self), "rules": dict(self.rules)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make one of what was pickled."""
        vars(self).update({**state, "rules": MappingProxyType(state["rules"])})

    @property
    def is_repeatable(self) -> bool:
        """Whether another object with the same arguments makes the same copies: new UIDs and IDs need a secret."""
        return self.secret is not None or self._elsewhere is not None or not self._derives

    @property
    def _derives(self) -> bool:
        return self.remap_uids or self.patient_ids == "keyed"

    def without_secret(self) -> Anonymization:
        """Return the same rules to be sent to other machines: no secret, no table of patients, no map of UIDs.

        Raises:
            UsageError: new UIDs or IDs are derived from a secret, and none was given that others could be told.
        """
        if not self.is_repeatable:
            raise UsageError("give a secret, so that other machines make the same UIDs and IDs", argument="anonymize")
        return self._with(secret=None, patients=None, uid_map=None, _key=b"", _elsewhere=self._marks())

    def with_secret(
        self, secret: str | bytes | None, *, patients: PatientRows | None = None, uid_map: UidRecorder | None = None
    ) -> Anonymization:
        """Return the rules with what `without_secret` took away.

        Raises:
            UsageError: it is not the same secret, or not the same table, as where they come from.
        """
        made = self._with(secret=secret, patients=patients, uid_map=uid_map, _key=key_of(secret), _elsewhere=None)
        if made._marks() != self._marks():  # noqa: SLF001 - another one of this class
            raise UsageError(
                "another secret, or another table of patients, than where the rules come from", argument="anonymize"
            )
        return made

    def _with(self, **changed: Any) -> Anonymization:
        made = object.__new__(type(self))
        vars(made).update({**vars(self), **changed})
        return made

    @property
    def is_complete(self) -> bool:
        """Whether it can be used as it is; otherwise the parts that `without_secret` removed are needed first."""
        return self._elsewhere is None or not (self._derives or self.is_by_patient)

    def _marks(self) -> _Elsewhere:
        if self._elsewhere is not None:
            return self._elsewhere
        table = self.patients.digest if self.patients is not None else b""
        return _Elsewhere(
            self.fingerprint(), hmac.digest(self._key_of_marks, table, "sha256").hex(), self.description()
        )

    @property
    def _key_of_marks(self) -> bytes:
        return self._key if self._derives or self.secret is not None else b"no secret"

    def description(self) -> Mapping[str, Any]:
        """Return what is changed, as JSON can hold it: tags and what is done to them, and never a value."""
        if self._elsewhere is not None:
            return self._elsewhere.description
        done = {ChangeKind.TEXT: "replace", ChangeKind.EMPTY: "empty", ChangeKind.REMOVE: "remove"}
        table = None
        if self.patients is not None:
            columns = [f"{tag:08X}" for tag in self.patients.columns]
            table = {"columns": columns, "by_issuer": self.patients.by_issuer}
        return {
            "rules": {f"{tag:08X}": done[self._exact[tag].kind] for tag in sorted(self._given)},
            "basic_profile": bool(self._masked),
            **{name: getattr(self, name) for name in _FLAGS},
            "patient_ids": self.patient_ids,
            "patients": table,
        }

    def fingerprint(self) -> str:
        """Return 32 hexadecimal digits that tell these rules, values and secret from others, and give none away.

        Where a secret was given it is keyed with it, so that nobody else can try values out. Where one is needed and
        none was given, every object has another fingerprint, as it makes other UIDs. Of a table of patients only the
        columns count: patients who were missing may be added to it while a job goes on.
        """
        if self._elsewhere is not None:
            return self._elsewhere.fingerprint
        rules = {f"{tag:08X}": self._exact[tag].text for tag in sorted(self._given)}
        whole = json.dumps(["Anonymization", self.description(), rules], sort_keys=True)
        return hmac.digest(self._key_of_marks, whole.encode(), "sha256").hex()[:32]

    @classmethod
    def vendor_tags(
        cls,
        rules: Mapping[str, str | None] | None = None,
        *,
        insert_absent: bool = False,
        sequences: bool = True,
        remap_uids: bool = False,
        remove_private: bool = False,
        secret: str | bytes | None = None,
        patient_ids: Literal["keyed"] | None = None,
        patients: PatientRows | None = None,
        uid_map: UidRecorder | None = None,
    ) -> Anonymization:
        """Return rules for the nine tags that PostDICOM's own uploader anonymises.

        PatientName and PatientID become ``ANONYMOUS``; OtherPatientIDs, OtherPatientNames, StudyDescription,
        ReferringPhysicianName, InstitutionName, InstitutionAddress and AccessionNumber are emptied. ``rules`` come on
        top. Much stays that identifies a patient (birth date, UIDs, dates); see `basic_profile`.
        """
        return cls(
            over_vendor_tags(rules, keyed=patient_ids is not None),
            insert_absent=insert_absent,
            sequences=sequences,
            remap_uids=remap_uids,
            remove_private=remove_private,
            secret=secret,
            patient_ids=patient_ids,
            patients=patients,
            uid_map=uid_map,
        )

    @classmethod
    def basic_profile(
        cls,
        rules: Mapping[str, str | None] | None = None,
        *,
        secret: str | bytes | None = None,
        patient_ids: Literal["keyed"] | None = None,
        patients: PatientRows | None = None,
        uid_map: UidRecorder | None = None,
    ) -> Anonymization:
        """Return the Basic Application Level Confidentiality Profile of PS3.15 annex E (table E.1-1), no options.

        Private elements are removed, UIDs remapped, dates emptied or made dummies, and PatientIdentityRemoved,
        DeidentificationMethod, its code and LongitudinalTemporalInformationModified are set. ``rules`` go before
        it, say to give patients numbers: ``{"PatientID": "S-001"}``; what they name is also inserted. Without such
        numbers, ``patient_ids`` or ``patients`` all patients have one and the same ID, and an archive takes them for
        one. Pixels are not looked at.

        Raises:
            UsageError: the extra ``anonymize`` is not installed, or as for `Anonymization`.
        """
        made = cls(
            rules or {},
            insert_absent=True,
            remap_uids=True,
            remove_private=True,
            secret=secret,
            patient_ids=patient_ids,
            patients=patients,
            uid_map=uid_map,
        )
        exact, masked = profile_actions()
        object.__setattr__(made, "_exact", exact | dict(made._exact))
        object.__setattr__(made, "_masked", masked)
        return made

    # --- for the planner ------------------------------------------------------------------------------------------

    def action(self, tag: int, vr: str) -> Change | None:
        """Return the action for an element; None to keep it."""
        found = self._exact.get(tag)
        if found is not None:
            return found
        for mask, wanted, action in self._masked:
            if tag & mask == wanted:
                return action
        if self.remove_private and tag >> 16 & 1:
            return REMOVE
        return REMAP if self.remap_uids and vr == "UI" and says_which(tag) else None

    def dummy(self, tag: int, vr: str) -> Change | None:
        """Return what is done to an element of a sequence that is made a dummy."""
        if self.remove_private and tag >> 16 & 1:
            return REMOVE
        if vr == "UI":
            return REMAP if says_which(tag) else None
        return DUMMY

    @property
    def is_by_patient(self) -> bool:
        """Whether the actions depend on the patient of the file."""
        # A table left on another machine counts: otherwise files would be sent as if there were none.
        elsewhere = self._elsewhere is not None and self._elsewhere.description["patients"] is not None
        return elsewhere or self.patients is not None or self.patient_ids is not None

    def of_patient(self, patient: Patient) -> dict[int, Change]:
        """Return what is done to elements because of whose file it is; it goes before everything else.

        Raises:
            DicomProblem: the patient is not in the table.
            UsageError: the secret, or the table, is on another machine.
        """
        self._require_here()
        actions: dict[int, Change] = {}
        if self.patient_ids is not None:
            actions[PATIENT_ID] = action_of(keyed_patient_id(self._key, patient), insert=bool(patient.patient_id))
        if self.patients is not None:
            actions |= self.patients.values_of(patient)
        if PATIENT_ID in actions:
            removed = {tag: REMOVE for tag in ISSUED_BY if tag not in self._given}
            actions = removed | actions
        return actions

    def _require_here(self) -> None:
        if self._elsewhere is not None:
            raise UsageError("the secret is not here; give it by with_secret()", argument="anonymize")

    def changes(self, tag: int) -> bool:
        """Return whether an element outside sequences may be changed."""
        by_patient = {PATIENT_ID, *ISSUED_BY} if self.is_by_patient else set[int]()
        columns = self.patients.columns if self.patients is not None else ()
        return tag in by_patient or tag in columns or self.action(tag, dictionary_vr(tag)) is not None

    def insertions(self) -> dict[int, Change]:
        """Return what is added where it is absent, by tag; of private elements nobody could tell whose they are."""
        return {tag: action for tag, action in self._exact.items() if action.insert and not tag >> 16 & 1}

    def uids_after(self, uids: InstanceUids) -> InstanceUids:
        """Return the UIDs that an instance has after anonymisation."""
        tags = tags_of("StudyInstanceUID SeriesInstanceUID SOPInstanceUID")
        return InstanceUids(*(self._uid_after(tag, uid) for tag, uid in zip(tags, uids, strict=True)))

    def _uid_after(self, tag: int, old: str) -> str:
        action = self.action(tag, "UI")
        if action is None:
            return old
        return self.new_uid(old) if action.kind is ChangeKind.REMAP else action.text

    def new_uid(self, old: str) -> str:
        """Return the UID that replaces one; those of PS3.6 replace themselves."""
        self._require_here()
        return new_uid(self._key, old)


_FLAGS: Final = ("insert_absent", "sequences", "remap_uids", "remove_private")
