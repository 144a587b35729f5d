"""The answers of PostDICOM's operations: typed views over whatever came. Pure.

Answers are not documented. The field names are those of the service's other API for the same objects (JavaScript
library), so an accessor may return None, every field that came is in ``raw``, and plain text is in ``text``. Only the
UUID of an object is never None: without it nothing more can be done with the object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias, TypeVar
from uuid import UUID

from postdicom_async.dicom.json_reading import read_json
from postdicom_async.errors import ProtocolError, UsageError
from postdicom_async.face import public_face

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_Answer = TypeVar("_Answer", bound="VendorAnswer")
_URL = re.compile(r"https?://[^\s\"'<>]+")


@public_face
@dataclass(frozen=True, slots=True)
class VendorAnswer:
    """Any answer. Its ``repr`` shows nothing of it but the UUID of what it is about.

    Attributes:
        raw: the JSON object; empty if the answer was not one.
        text: the answer as text, if it was not a JSON object.
    """

    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    text: str = field(default="", repr=False)
    _inside: ClassVar[tuple[str, ...]] = ("result",)
    """Fields that may hold the object itself, in lower case."""
    _named_by: ClassVar[tuple[str, ...]] = ()
    """Fields that may hold the object's own UUID."""

    def __repr__(self) -> str:
        """Return the class, and the object's own UUID."""
        return f"{type(self).__name__}({(self._named_by and self.get_uuid(*self._named_by)) or ''})"

    def get(self, *names: str) -> Any:
        """Return the first of these fields that is there, whatever the case of its name; else None.

        Searched at the top level and inside ``Result`` or a field named after the object, such as ``PatientOrder``.
        """
        for name in names:  # as they are documented, which is the usual case
            if (found := self.raw.get(name)) is not None:
                return found
        inner = [value for key, value in self.raw.items() if key.lower() in self._inside]
        for place in (self.raw, *inner):
            if isinstance(place, Mapping):
                fields = {key.lower(): value for key, value in place.items()}
                found = next((fields[name.lower()] for name in names if fields.get(name.lower()) is not None), None)
                if found is not None:
                    return found
        return None

    def get_text(self, *names: str) -> str | None:
        """Return the first of these fields as text; None when there is none."""
        value = self.get(*names)
        return None if value is None or isinstance(value, Mapping | list) else str(value)

    def get_number(self, *names: str) -> int | None:
        """Return the first of these fields as a number; None when it is none."""
        text = self.get_text(*names)
        return int(text) if text is not None and text.strip().isdecimal() and len(text) < 20 else None

    def get_uuid(self, *names: str) -> str | None:
        """Return the first of these fields, or else the UUID that is the value of ``Result`` or the plain text."""
        found = self.get_text(*names) or self.get_text("Result") or self.text.strip().strip('"')
        return found if _UUID.fullmatch(found) else None

    @property
    def is_named(self) -> bool:
        """Whether the answer names its object, where it has one, by a UUID."""
        return not self._named_by or self.get_uuid(*self._named_by) is not None

    def _objects(self, kind: Callable[..., _Answer], *names: str) -> list[_Answer]:
        found = self.get(*names)
        return [kind(item) for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []

    def _own_uuid(self) -> str:
        found = self.get_uuid(*self._named_by)
        if found is None:
            raise ProtocolError(f"the service gave an object without its {self._named_by[0]}; what it gave is in .raw")
        return found


class PatientOrder(VendorAnswer):
    """A patient order: the service's record of one study of one patient."""

    __slots__ = ()
    _inside = ("result", "patientorder")
    _named_by = ("PatientOrderUuid", "OrderUuid")

    @property
    def patient_order_uuid(self) -> str:
        """``PatientOrderUuid``, also spelled ``PatientOrderUUID`` or ``OrderUuid``.

        Raises:
            ProtocolError: the service gave none.
        """
        return self._own_uuid()

    @property
    def institution_uuid(self) -> str | None:
        """The institution that the order belongs to."""
        return self.get_text("PatientOrderInstitutionUuid", "InstitutionUuid")

    @property
    def patient_name(self) -> str | None:
        """``PatientName``."""
        return self.get_text("PatientName")

    @property
    def patient_id(self) -> str | None:
        """``PatientId``."""
        return self.get_text("PatientId")

    @property
    def other_patient_id(self) -> str | None:
        """``OtherPatientId``."""
        return self.get_text("OtherPatientId")

    @property
    def accession_number(self) -> str | None:
        """``OrderAccessionNumber`` or ``AccessionNumber``."""
        return self.get_text("OrderAccessionNumber", "AccessionNumber")

    @property
    def modality(self) -> str | None:
        """``OrderModality`` or ``Modality``."""
        return self.get_text("OrderModality", "Modality")

    @property
    def study_description(self) -> str | None:
        """``StudyDescription``."""
        return self.get_text("StudyDescription")

    @property
    def study_instance_uid(self) -> str | None:
        """``StudyInstanceUid``, when the order has images."""
        return self.get_text("StudyInstanceUid")

    @property
    def order_status(self) -> str | None:
        """``OrderStatus``."""
        return self.get_text("OrderStatus")


class Folder(VendorAnswer):
    """A folder of patient orders."""

    __slots__ = ()
    _inside = ("result", "folder")
    _named_by = ("FolderUuid",)

    @property
    def folder_uuid(self) -> str:
        """``FolderUuid``.

        Raises:
            ProtocolError: the service gave none, as for the root.
        """
        return self._own_uuid()

    @property
    def folder_name(self) -> str | None:
        """``FolderName``."""
        return self.get_text("FolderName")

    @property
    def folder_description(self) -> str | None:
        """``FolderDescription``."""
        return self.get_text("FolderDescription")

    @property
    def is_shared(self) -> bool | None:
        """``IsShared``."""
        text = self.get_text("IsShared")
        return None if text is None else text.strip().lower() in ("true", "1")

    @property
    def order_count(self) -> int | None:
        """``OrderCount``."""
        return self.get_number("OrderCount")

    @property
    def sub_folder_count(self) -> int | None:
        """``SubFolderCount``."""
        return self.get_number("SubFolderCount")

    @property
    def folders(self) -> list[Folder]:
        """The folders in it, when they came."""
        return self._objects(Folder, "SubFolderList")

    @property
    def orders(self) -> list[PatientOrder]:
        """The orders in it, when they were asked for and came."""
        return self._objects(PatientOrder, "PatientOrderList", "OrderList", "Orders")


class ShareLink(VendorAnswer):
    """A link that opens what was shared."""

    __slots__ = ()

    @property
    def url(self) -> str | None:
        """The address: ``Result``, ``ShareUrl``, ``Url`` or ``Link``, or the plain text that is one."""
        for text in (self.get_text("ShareUrl", "Url", "Link"), self.get_text("Result"), self.text):
            found = _URL.search(text or "")
            if found:
                # Punctuation at the end of a sentence is not part of the address.
                return found[0] if found[0] == text else found[0].rstrip(".,;)")
        return None


class TagContent(VendorAnswer):
    """The content of DICOM tags of an order, in ``raw`` or, if the service answers with a list, in ``items``."""

    __slots__ = ()

    @property
    def items(self) -> list[Any]:
        """The entries, when the answer is a list or holds one."""
        return next((entries for entries in _lists(self.raw) if entries), [])


# --- the account of a Cloud API session (JavaScript library) ---------------------------------------------------------


class Institution(VendorAnswer):
    """An institution ("location"): orders and their images belong to one."""

    __slots__ = ()
    _named_by = ("InstitutionUuid",)

    @property
    def institution_uuid(self) -> str:
        """``InstitutionUuid``.

        Raises:
            ProtocolError: the service gave none.
        """
        return self._own_uuid()

    @property
    def institution_name(self) -> str | None:
        """``InstitutionName``."""
        return self.get_text("InstitutionName")

    @property
    def identity(self) -> str:
        """Its UUID, empty when the service gave none."""
        return self.get_text("InstitutionUuid") or ""

    @property
    def names(self) -> tuple[str | None, ...]:
        """Its names, for finding it by name."""
        return (self.institution_name,)


class User(VendorAnswer):
    """A user of an account."""

    __slots__ = ()
    _named_by = ("UserUuid",)

    @property
    def user_uuid(self) -> str:
        """``UserUuid``.

        Raises:
            ProtocolError: the service gave none.
        """
        return self._own_uuid()

    @property
    def user_name(self) -> str | None:
        """``UserName``, by which the user logs in."""
        return self.get_text("UserName")

    @property
    def full_name(self) -> str | None:
        """``FullName``."""
        return self.get_text("FullName")

    @property
    def institutions(self) -> list[Institution]:
        """The institutions the user may work in."""
        return self._objects(Institution, "InstitutionList")

    @property
    def identity(self) -> str:
        """The user's UUID, empty when the service gave none."""
        return self.get_text("UserUuid") or ""

    @property
    def names(self) -> tuple[str | None, ...]:
        """The user's names, for finding the user by name."""
        return (self.user_name, self.full_name)

    @property
    def private(self) -> tuple[str, ...]:
        """What must not show in the service's words."""
        return tuple(name for name in self.names if name)


class Account(VendorAnswer):
    """The account the keys belong to."""

    __slots__ = ()

    @property
    def users(self) -> list[User]:
        """Its users."""
        return self._objects(User, "UserList")


_OfAccount = TypeVar("_OfAccount", Institution, User)


def choose(argument: str, known: Sequence[_OfAccount], wanted: object) -> _OfAccount:
    """Return the one with this UUID or name; without either, the only one there is.

    Raises:
        UsageError: none or several could be meant; the message names the argument.
    """
    if wanted is None:
        if len(known) == 1:
            return known[0]
        raise UsageError(f"the account has {len(known)}; name one by its UUID or its name", argument=argument)
    if not isinstance(wanted, str | UUID):
        raise UsageError("give a UUID or a name", argument=argument)
    text = str(wanted).strip().lower()
    by_uuid = [one for one in known if one.identity.lower() == text and text]
    found = by_uuid or [one for one in known if text and text in [name.strip().lower() for name in one.names if name]]
    if len(found) == 1:
        return found[0]
    raise UsageError("several in the account have that name" if found else "not in the account", argument=argument)


# --- what came -------------------------------------------------------------------------------------------------------

Content: TypeAlias = dict[str, Any] | list[Any] | str
"""The content of an answer: a JSON object or list, or text, which is empty if there was none."""


def parse(body: bytes) -> Content:
    """Return the content of a body, whatever its Content-Type: some frameworks label JSON as ``text/html``.

    JSON inside a JSON string is parsed too, as the service often nests it.
    """
    return parse_text(body.decode("utf-8", "replace").removeprefix("\ufeff"))


def parse_text(text: str) -> Content:
    """Do what `parse` does, for text."""
    text = text.strip()
    found = _json(text)
    if isinstance(found, str):
        inner = _json(found)
        return inner if isinstance(inner, dict | list) else found
    return found if isinstance(found, dict | list) else text


def is_web_page(found: Content) -> bool:
    """Return whether it is an HTML page, which comes from a proxy in between, not from the service."""
    return isinstance(found, str) and found[:200].lstrip().lower().startswith(("<!doctype html", "<html"))


def view(kind: Callable[..., _Answer], found: Content) -> _Answer:
    """Return content as a typed answer, losing nothing."""
    if isinstance(found, dict):
        return kind(found)
    return kind({"List": found}) if isinstance(found, list) else kind({}, found)


def list_in(found: Content) -> list[dict[str, Any]] | None:
    """Return the objects in a search's answer, None if it contains no list of objects.

    The list may be bare, or in any field of an object or of its ``Result``; an empty answer is an empty list.
    """
    if found == "":
        return []
    lists = [_objects(entries) for entries in _lists(found)]
    usable = [entries for entries in lists if entries is not None]
    return next((entries for entries in usable if entries), usable[0] if usable else None)


def _lists(found: Any) -> list[list[Any]]:
    """Return every list in an answer: the answer itself, or in a field of it or of its ``Result``."""
    places = [found, _result_of(found)]
    inside = [value for place in places if isinstance(place, dict) for value in place.values()]
    return [value for value in (*places, *inside) if isinstance(value, list)]


def _result_of(found: Any) -> Any:
    result = next((v for k, v in found.items() if k.lower() == "result"), None) if isinstance(found, dict) else None
    return _json(result) if isinstance(result, str) else result


def _objects(entries: list[Any]) -> list[dict[str, Any]] | None:
    found = [_json(entry) if isinstance(entry, str) else entry for entry in entries if entry is not None]
    return found if all(isinstance(entry, dict) for entry in found) else None


_NO = frozenset({"false", "0"})


def refusal_in(found: Content) -> str | None:
    """Return why an answer of status 200 is a refusal (``Success`` false, or just ``false``), None if it is not."""
    if isinstance(found, str):
        return "no reason given" if found.lower() == "false" else None
    if isinstance(found, list) or found.get("Success") is True:
        return None
    fields = {key.lower(): value for key, value in found.items()}
    if str(fields.get("success", "")).strip().lower() not in _NO:
        return None
    texts = [fields.get(name) for name in ("message", "responsemessage", "result")]
    return next((text for text in texts if isinstance(text, str) and text), "no reason given")


def _json(text: str) -> Any:
    """Return parsed JSON, None if the text is not JSON, or is too deep or too large."""
    try:
        # Lists and objects are read by a bounded reader that, in a thread, lets other threads run.
        is_compound = text.lstrip()[:1] in ("[", "{")
        return read_json(text.encode("utf-8", "surrogatepass")) if is_compound else json.loads(text)
    except (ValueError, RecursionError):
        return None
