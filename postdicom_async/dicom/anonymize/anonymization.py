"""`Anonymization`: which elements are replaced, emptied or removed, and how UIDs and patients are replaced.

It holds the rules, checked once, and the key that new UIDs and IDs are derived from. It never changes once
made, so that any thread may plan with it. The key is the only secret: it is in no ``repr``, pickle, fingerprint or
error, and rules are sent to other machines without it. There they must not pass for rules that need no secret, so
`_Elsewhere` marks what is missing, and planning with them fails.
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
    """Records which UID replaced which; see `UidMap`."""

    def record(self, old: InstanceUids, new: InstanceUids) -> None:
        """Record the pair durably, before the instance is sent.

        Raises:
            LocalFileError: it cannot be written; then the instance is not sent.
        """
        ...


class _Elsewhere(NamedTuple):
    """Marks rules whose secret is on another machine; ``table`` identifies their table of patients."""

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
    (``\`` separates several values), ``""`` empties it, ``None`` removes the element. Values are checked against
    their VR (PS3.5 section 6.2) here, and again with the VR and the character set that a file has. The preamble is
    always zeroed: it may hold anything (PS3.10 section 7.1), and in a file that is also a TIFF its offsets would no
    longer be right. Padding after the data set is dropped. Burned-in text stays: pixels are never changed. Digital
    signatures stay too, though no longer valid, unless a rule removes them.

    Attributes:
        rules: see above.
        insert_absent: also add what is absent, at the top level; never private elements or file meta information.
        sequences: apply the rules inside sequences too, at any depth; otherwise only at the top level, also for
            ``remap_uids`` and ``remove_private``, so that references no longer match.
        remap_uids: replace all UIDs of instances, series, studies, frames of reference and the like, consistently;
            without it an archive may take the copy for its original: one that holds the originals may mix or lose
            them when the copies name another patient (`may_displace_originals`). UIDs of PS3.6, of classes
            and of coding schemes stay, as do private ones in implicit VR, which cannot be told from other values; see
            ``remove_private``.
        remove_private: remove all private elements; no rule can keep one then.
        secret: what the new UIDs are derived from: ``2.25.`` and the number of a UUID from HMAC-SHA256(secret, UID)
            (PS3.5 annex B.2). Give the same one (at least 8 bytes) to get the same UIDs in another upload; without one
            they are consistent only within this object.
        patient_ids: ``"keyed"`` gives every patient a new Patient ID, always the same one: 20 letters and digits from
            HMAC-SHA256(secret, Issuer of Patient ID and Patient ID). A patient without an ID gets none.
        patients: new values for each patient's elements, from a table; see `PatientTable`. They override ``rules`` and
            ``patient_ids``, and absent elements are added at the top level. Nothing is sent of a patient who is
            not in the table.
        uid_map: where old and new UIDs are recorded; see `UidMap`.

    Where a patient gets another ID by ``patient_ids`` or ``patients``, Issuer of Patient ID and its qualifiers are
    removed unless a rule or the table names them too: that issuer did not assign the new ID.

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
        """Show how much is changed, but no values: the replacement of a name may be a name."""
        flags = [name for name in (*_FLAGS, "patient_ids") if getattr(self, name)]
        return f"Anonymization({', '.join([f'{len(self._exact)} rules', *flags])})"

    # --- for other machines, and for continuing later ---------------------------------------------------------------

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
        """Restore the pickled state."""
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
            UsageError: new UIDs or IDs need a secret, and none was given that could be shared with others.
        """
        if not self.is_repeatable:
            raise UsageError("give a secret, so that other machines make the same UIDs and IDs", argument="anonymize")
        return self._with(secret=None, patients=None, uid_map=None, _key=b"", _elsewhere=self._marks())

    def with_secret(
        self, secret: str | bytes | None, *, patients: PatientRows | None = None, uid_map: UidRecorder | None = None
    ) -> Anonymization:
        """Return the rules with the parts that `without_secret` removed.

        Raises:
            UsageError: the secret or the table is not the one the rules were made with.
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
        """Return the changes, ready for JSON: tags and what is done to them, but never a value."""
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
        """Return 32 hexadecimal digits that identify these rules, values and secret without revealing any.

        A given secret keys it, so that nobody else can try values out. Where a secret is needed and none was given,
        every object has a different fingerprint, as it makes different UIDs. Of a table of patients only the columns
        count: missing patients may be added to it while a job is running.
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
        ReferringPhysicianName, InstitutionName, InstitutionAddress and AccessionNumber are emptied. ``rules`` override
        these. Much that identifies a patient stays (birth date, UIDs, dates); see `basic_profile`.
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
        DeidentificationMethod, its code and LongitudinalTemporalInformationModified are set. ``rules`` override
        it, say to give patients numbers: ``{"PatientID": "S-001"}``; absent elements that they name are inserted.
        Without such numbers, ``patient_ids`` or ``patients``, all patients have the same ID, and an archive takes
        them for one. Pixels are not examined.

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
        """Return the action for an element inside a sequence that becomes a dummy."""
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

    @property
    def may_displace_originals(self) -> bool:
        """Whether copies have another patient than their originals, but the same UIDs.

        An archive that holds the originals may then mix both, or lose the originals.
        """
        columns = self.patients.columns if self.patients is not None else ()
        names_patient = any(tag in self._given or tag in columns for tag in (PATIENT_ID, *ISSUED_BY))
        return not self.remap_uids and (self.is_by_patient or names_patient)

    def of_patient(self, patient: Patient) -> dict[int, Change]:
        """Return the actions that depend on the patient; they override all others.

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
        """Return what is added if absent, by tag; never private elements, whose creator would be unknown."""
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
