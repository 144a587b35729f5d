"""Anonymisation: which elements are replaced, emptied or removed, and how UIDs become others."""

from __future__ import annotations

import hmac
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from postdicom_async.dicom.anonymize_profile import profile_actions
from postdicom_async.dicom.anonymize_rules import DUMMY, REMAP, REMOVE, Action, Kind, actions_of, tag_of
from postdicom_async.dicom.elements import tag_text
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.results import InstanceUids

__all__ = ["Anonymization"]

# The nine tags that PostDICOM's own uploader offers, with values that leave a valid study.
_VENDOR_TAGS: dict[str, str | None] = {
    "PatientName": "ANONYMOUS",
    "PatientID": "ANONYMOUS",
    "OtherPatientIDs": "",
    "OtherPatientNames": "",
    "StudyDescription": "",
    "ReferringPhysicianName": "",
    "InstitutionName": "",
    "InstitutionAddress": "",
    "AccessionNumber": "",
}

# UIDs that say what something is, not which one it is.
_KINDS = re.compile(
    r"ClassUID|SOPClass|TransferSyntax|CodingSchemeUID|ContextUID|MappingResource|TemplateUID|ImplementationClass"
    r"|PrivateDataElement"
)
_LEAST_SECRET = 8  # bytes


@public_face
@dataclass(frozen=True, repr=False, eq=False)
class Anonymization:
    r"""What to change in every file before it is sent. Originals are never touched.

    ::

        Anonymization({"PatientName": "ANON^1", "PatientID": "", "00101040": None})

    A key is a DICOM keyword, ``GGGGEEEE``, ``xGGGGEEEE``, ``GGGG,EEEE`` or ``(GGGG,EEEE)``. A text replaces the value
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

    Raises:
        UsageError: a key or value is wrong; the message names the tag.
    """

    rules: Mapping[str, str | None] = field(default_factory=dict)
    insert_absent: bool = field(default=False, kw_only=True)
    sequences: bool = field(default=True, kw_only=True)
    remap_uids: bool = field(default=False, kw_only=True)
    remove_private: bool = field(default=False, kw_only=True)
    secret: str | bytes | None = field(default=None, kw_only=True)
    _exact: Mapping[int, Action] = field(init=False)
    _masked: tuple[tuple[int, int, Action], ...] = field(init=False, default=())
    _key: bytes = field(init=False)

    def __post_init__(self) -> None:
        actions = actions_of(self.rules, insert=self.insert_absent)
        if self.remove_private:
            _require_no_private(actions)
        object.__setattr__(self, "_exact", actions)
        object.__setattr__(self, "rules", MappingProxyType(dict(self.rules)))
        object.__setattr__(self, "_key", _key_of(self.secret))

    def __repr__(self) -> str:
        """Show how much is changed and no value: what replaces a name may be a name."""
        flags = [name for name in ("insert_absent", "sequences", "remap_uids", "remove_private") if getattr(self, name)]
        return f"Anonymization({', '.join([f'{len(self._exact)} rules', *flags])})"

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
    ) -> Anonymization:
        """Return rules for the nine tags that PostDICOM's own uploader anonymises.

        PatientName and PatientID become ``ANONYMOUS``; OtherPatientIDs, OtherPatientNames, StudyDescription,
        ReferringPhysicianName, InstitutionName, InstitutionAddress and AccessionNumber are emptied. ``rules`` come on
        top. Much stays that identifies a patient (birth date, UIDs, dates); see `basic_profile`.
        """
        return cls(
            _over_vendor_tags(rules),
            insert_absent=insert_absent,
            sequences=sequences,
            remap_uids=remap_uids,
            remove_private=remove_private,
            secret=secret,
        )

    @classmethod
    def basic_profile(
        cls, rules: Mapping[str, str | None] | None = None, *, secret: str | bytes | None = None
    ) -> Anonymization:
        """Return the Basic Application Level Confidentiality Profile of PS3.15 annex E (table E.1-1), no options.

        Private elements are removed, UIDs remapped, dates emptied or made dummies, and PatientIdentityRemoved,
        DeidentificationMethod, its code and LongitudinalTemporalInformationModified are set. ``rules`` go before
        it, say to give patients numbers: ``{"PatientID": "S-001"}``; what they name is also inserted. Without such
        numbers all patients have one and the same ID, and an archive takes them for one. Pixels are not looked at.

        Raises:
            UsageError: the extra ``anonymize`` is not installed, or as for `Anonymization`.
        """
        made = cls(rules or {}, insert_absent=True, remap_uids=True, remove_private=True, secret=secret)
        exact, masked = profile_actions()
        object.__setattr__(made, "_exact", exact | dict(made._exact))
        object.__setattr__(made, "_masked", masked)
        return made

    # --- for the planner ------------------------------------------------------------------------------------------

    def action(self, tag: int, vr: str) -> Action | None:
        """Return what is done to an element; None to leave it."""
        found = self._exact.get(tag)
        if found is not None:
            return found
        for mask, wanted, action in self._masked:
            if tag & mask == wanted:
                return action
        if self.remove_private and tag >> 16 & 1:
            return REMOVE
        return REMAP if self.remap_uids and vr == "UI" and _says_which(tag) else None

    def dummy(self, tag: int, vr: str) -> Action | None:
        """Return what is done to an element of a sequence that is made a dummy."""
        if self.remove_private and tag >> 16 & 1:
            return REMOVE
        if vr == "UI":
            return REMAP if _says_which(tag) else None
        return DUMMY

    def insertions(self) -> list[tuple[int, Action]]:
        """Return what is added where it is absent, by tag."""
        return sorted(
            ((tag, action) for tag, action in self._exact.items() if action.insert and not tag >> 16 & 1),
            key=lambda pair: pair[0],
        )

    def uids_after(self, uids: InstanceUids) -> InstanceUids:
        """Return the UIDs that an instance has when it was anonymised."""
        tags = (0x0020000D, 0x0020000E, 0x00080018)
        return InstanceUids(*(self._uid_after(tag, uid) for tag, uid in zip(tags, uids, strict=True)))

    def _uid_after(self, tag: int, old: str) -> str:
        action = self.action(tag, "UI")
        if action is None:
            return old
        return self.new_uid(old) if action.kind is Kind.REMAP else action.text

    def new_uid(self, old: str) -> str:
        """Return the UID that replaces one; those of PS3.6 replace themselves."""
        if not old or _is_registered(old):
            return old
        digest = hmac.digest(self._key, old.encode("utf-8", "surrogateescape"), "sha256")
        return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"


def _require_no_private(actions: Mapping[int, Action]) -> None:
    for tag, action in actions.items():
        if tag >> 16 & 1 and action is not REMOVE:
            raise UsageError(f"anonymize: {tag_text(tag)}: all private elements are removed")


def _over_vendor_tags(rules: Mapping[str, str | None] | None) -> Mapping[str, str | None]:
    """Return the vendor's rules with others on top, which may name the tags in another way."""
    if not isinstance(rules, Mapping):
        return _VENDOR_TAGS if rules is None else rules
    named = {tag_of(key) for key in rules}
    return {key: value for key, value in _VENDOR_TAGS.items() if tag_of(key) not in named} | dict(rules)


def _key_of(secret: object) -> bytes:
    if secret is None:
        return uuid.uuid4().bytes + uuid.uuid4().bytes  # fresh for each object, so that nobody can guess the UIDs
    key = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
    if not isinstance(key, bytes) or len(key) < _LEAST_SECRET:
        raise UsageError(f"anonymize: secret: text or bytes, at least {_LEAST_SECRET} of them")
    return key


@lru_cache(maxsize=4096)
def _says_which(tag: int) -> bool:
    from pydicom.datadict import keyword_for_tag

    return tag >> 16 > 2 and not _KINDS.search(keyword_for_tag(tag))  # file meta follows the data set


def _is_registered(value: str) -> bool:
    from pydicom._uid_dict import UID_dictionary

    return value in UID_dictionary
