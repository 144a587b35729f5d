r"""The text form of an end, ``hospital:?StudyDate=20240101-``, parsed into an `EndSpec`, which opens the end.

A spec holds no secret and may be pickled: a worker on another machine opens it with its own profile and secrets. Its
places and filters are private all the same, and appear in no ``repr``.

===============================  =====================================================================================
``./x``, ``/data``, ``C:\x``        a folder; ``x`` too, where no colon follows two characters or more
``NAME:``                        a profile, of a DICOMweb archive or an account of the Cloud API
``https://host/dicom-web``       a DICOMweb archive without a profile; ``user@`` before the host says as whom
``postdicom+https://host/...``   the same in PostDICOM's own URL shapes
===============================  =====================================================================================

All but folders may end in ``?KEY=VALUE&KEY=VALUE``: search filters, percent-encoded where necessary.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast
from urllib.parse import unquote

from postdicom_async.dicomweb.filters import filter_pairs
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.http.endpoint import checked_url, origin_of
from postdicom_async.profiles.model import Profile, checked_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from postdicom_async.cloud.client import CloudApi
    from postdicom_async.dicomweb.client import DicomWeb
    from postdicom_async.jobs.ends.end import End
    from postdicom_async.profiles.secrets import Ask


EndLike: TypeAlias = "DicomWeb | CloudApi | str | os.PathLike[str] | EndSpec | End"
"""What may stand for an end: a client, text as `parse_end` takes it, a path, a spec, an end."""

SpecKind: TypeAlias = Literal["folder", "profile", "dicomweb", "postdicom"]
_KINDS: Final = ("folder", "profile", "dicomweb", "postdicom")

_ADDRESS = re.compile(r"(?:(?P<dialect>[A-Za-z0-9.-]+)\+)?(?P<scheme>[A-Za-z][A-Za-z0-9.-]*)://", re.ASCII)
_NAMED = re.compile(r"(?P<name>[^:/\\?]{2,}):(?P<rest>.*)", re.DOTALL)


@public_face
@dataclass(frozen=True, slots=True)
class EndSpec:
    """One end of a job as the user named it. Made by `parse_end`.

    Attributes:
        kind: ``"folder"``, ``"profile"``, or for an address the family of the archive.
        place: an absolute path, a profile's name, or an address.
        username: the user to log in as, if the address names one.
        filters: the tags and values that a study must match, as in a search; sorted.
    """

    kind: SpecKind
    place: str = field(repr=False)
    username: str = field(default="", repr=False)
    filters: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def shown(self) -> str:
        """The name to show: a profile's name, an origin, or ``folder``; no filter, path or user."""
        if self.kind == "folder":
            return "folder"
        return self.place if self.kind == "profile" else origin_of(self.place)

    @property
    def is_archive(self) -> bool:
        """Whether it is reached over the network."""
        return self.kind != "folder"

    def identity(self) -> str:
        """Return the identity of its place, the same for every way to name it; private.

        Raises:
            UsageError: there is no such profile, or it cannot be used.
        """
        if self.kind == "folder":
            return os.path.normcase(os.path.realpath(self.place))
        from postdicom_async.profiles.opening import address_of

        profile = self.profile()
        if profile.kind != "cloud":
            return address_of(profile)
        where = [profile.institution_uuid, profile.folder_uuid, profile.username]
        return " ".join(["cloud", address_of(profile), *map(str.lower, where)])

    def profile(self) -> Profile:
        """Return the profile it names, read from the file, or for an address a nameless one.

        Raises:
            UsageError: there is none of that name, it cannot be used, or this is a folder.
        """
        if self.kind == "profile":
            from postdicom_async.profiles.file import load_profile

            return load_profile(self.place)
        if self.kind == "folder":
            raise UsageError("a folder has no profile")
        return Profile("", kind=self.kind, url=self.place, username=self.username)

    def user(self, *, alone: bool) -> str:
        """Return the user or client that it logs in as; empty without one, and where the identity names it; private.

        Raises:
            UsageError: see `profile`.
        """
        if self.kind == "folder" or (profile := self.profile()).kind == "cloud":
            return ""
        from postdicom_async.profiles.secrets import plain_counts, with_login

        profile = with_login(profile) if plain_counts(profile, alone=alone) else profile
        return profile.username or profile.client_id

    def open(
        self, index: Path | None = None, *, target: bool = False, alone: bool = False, ask: Ask | None = None
    ) -> End:
        """Return the end, not yet entered. May ask the keyring: it blocks up to ten seconds.

        Args:
            index: a folder's index, kept beside the job.
            target: a missing folder counts as empty.
            alone: no other archive takes part, so variables such as ``POSTDICOM_PASSWORD`` belong to this one.
            ask: called with a prompt when a secret is found nowhere; returns it.

        Raises:
            UsageError: a profile or a secret is missing or unusable, or the end does not support a filter.
        """
        if self.kind == "folder":
            from postdicom_async.jobs.ends.folder import FolderEnd

            return FolderEnd(Path(self.place), index=index, filters=dict(self.filters) or None, target=target)
        from postdicom_async.jobs.pace.presets import limited_settings
        from postdicom_async.profiles.opening import client_of
        from postdicom_async.profiles.secrets import plain_counts, with_login

        profile = self.profile()
        alone = plain_counts(profile, alone=alone)
        profile = with_login(profile) if alone else profile
        if profile.kind == "cloud" and self.filters:
            raise UsageError(f"{self.shown}: the Cloud API is not searched by filters")
        settings = limited_settings(profile, alone=alone)
        return _end_of_client(client_of(profile, settings=settings, alone=alone, ask=ask), self, profile)

    @property
    def private(self) -> dict[str, Any]:
        """All of it as JSON values, to be stored where nobody else can read it."""
        return {"kind": self.kind, "place": self.place, "username": self.username, "filters": dict(self.filters)}

    @classmethod
    def from_private(cls, kept: Mapping[str, Any]) -> EndSpec:
        """Return the spec from which `private` was made.

        Raises:
            UsageError: the value is not a stored spec.
        """
        filters = kept.get("filters")
        texts = [kept.get("place"), kept.get("username"), *(filters.values() if isinstance(filters, dict) else ())]
        if (
            not isinstance(filters, dict)
            or kept.get("kind") not in _KINDS
            or not all(isinstance(one, str) for one in texts)
        ):
            raise UsageError("what is kept of this job's ends cannot be used")
        return cls(kept["kind"], kept["place"], kept["username"], tuple(sorted(filters.items())))


@public_face
def parse_end(text: str, *, filters: Mapping[str, str] | None = None) -> EndSpec:
    """Parse the text form of an end; see above. ``filters`` are added to those in the text, for folders too.

    Neither disk nor network is touched. A path becomes absolute.

    Raises:
        UsageError: the text has none of these forms; the message quotes no filter value.
    """
    if not isinstance(text, str) or not text:
        raise UsageError("an end is empty; give a folder, a profile as NAME:, or an address")
    if "\0" in text or not _is_encodable(text):
        raise UsageError("an end holds a character that no path and no address has")
    if address := _ADDRESS.match(text):
        return _of_address(text, address, filters)
    if named := _NAMED.fullmatch(text):
        rest = named["rest"]
        if rest and not rest.startswith("?"):
            raise UsageError(
                f"after a profile's {_shown(named['name'])}: only ?KEY=VALUE may follow; a folder is ./..."
            )
        return EndSpec("profile", checked_name(named["name"]), filters=_filters(rest[1:], filters))
    return EndSpec("folder", os.path.abspath(text), filters=_filters("", filters))  # noqa: PTH100 - symbolic links stay


def _is_encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _shown(name: str) -> str:
    return name if name.isprintable() and len(name) < 40 else "NAME"


def _of_address(text: str, address: re.Match[str], filters: Mapping[str, str] | None) -> EndSpec:
    dialect, scheme = (address["dialect"] or "dicomweb").lower(), address["scheme"].lower()
    if scheme not in {"http", "https"} or dialect not in {"dicomweb", "postdicom"}:
        raise UsageError(
            "an end's address begins with https://, http:// or postdicom+https://; a path has no such thing"
        )
    url, _, query = text[address.start("scheme") :].partition("?")
    head, at, tail = url.partition("@")
    username = ""
    if at and "/" not in head.partition("://")[2]:
        username, colon, _ = head.partition("://")[2].partition(":")
        if colon:
            raise UsageError(
                "an end's address holds a password, which every user of this machine can read; leave it out"
            )
        url = f"{scheme}://{tail}"
    return EndSpec(
        "postdicom" if dialect == "postdicom" else "dicomweb",
        checked_url(url),
        unquote(username),
        _filters(query, filters),
    )


def _filters(query: str, more: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Return the filters of a query string, checked like a search's, and by tag, so that each attribute has one name.

    Raises:
        UsageError: one is not ``KEY=VALUE``, occurs twice, or cannot be matched.
    """
    found: dict[str, str] = {}
    for part in query.split("&") if query else ():
        key, equals, value = part.partition("=")
        key = unquote(key)
        if not equals or not key or not value:
            shown = _shown(key) if key.isalnum() and equals else "a filter"
            raise UsageError(f"{shown}: give filters as KEY=VALUE, with & between them")
        if key in found:
            raise UsageError(f"the filter {_shown(key)} is given twice")
        found[key] = unquote(value)
    pairs = [*filter_pairs(found), *filter_pairs(more)]
    if len({tag for tag, _ in pairs}) != len(pairs):
        raise UsageError("a filter is given twice: by its keyword and its tag, or in two places")
    return tuple(sorted(pairs))


def spec_of(given: EndLike, *, filters: Mapping[str, str] | None = None) -> EndLike:
    """Return a spec for text and paths, anything else as it is.

    Raises:
        UsageError: the text has no form of an end.
    """
    if isinstance(given, str):
        return parse_end(given, filters=filters)
    if isinstance(given, os.PathLike):
        place = os.path.abspath(os.fspath(given))  # noqa: PTH100 - symbolic links stay
        return EndSpec("folder", place, filters=_filters("", filters))
    return given


def is_alone(specs: Sequence[object]) -> bool:
    """Whether only one of the ends is an archive that is named, see `EndSpec.open`."""
    return sum(isinstance(spec, EndSpec) and spec.is_archive for spec in specs) == 1


def users_of(specs: Sequence[object]) -> list[str]:
    """Return who logs in at each end, see `EndSpec.user`; of a client object that is not known."""
    alone = is_alone(specs)
    return [spec.user(alone=alone) if isinstance(spec, EndSpec) else "" for spec in specs]


# --- whatever stands for an end --------------------------------------------------------------------------------------


@public_face
def end_of(
    given: EndLike,
    *,
    index: Path | None = None,
    target: bool = False,
    filters: Mapping[str, str] | None = None,
    alone: bool = False,
    ask: Ask | None = None,
) -> End:
    """Return the end for a client, a path, a text or a spec; an end is returned as it is.

    Raises:
        UsageError: it is none of these, or cannot be opened; see `EndSpec.open`.
    """
    given = spec_of(given, filters=filters)
    if isinstance(given, EndSpec):
        return given.open(index, target=target, alone=alone, ask=ask)
    if all(hasattr(given, name) for name in ("identity", "features", "studies")):
        return cast("End", given)  # a caller's own end needs no base class
    return _end_of_client(given, None, None, filters=dict(filters or {}))


def _end_of_client(
    client: object, spec: EndSpec | None, profile: Profile | None, *, filters: dict[str, str] | None = None
) -> End:
    from postdicom_async.cloud.client import CloudApi
    from postdicom_async.dicomweb.client import DicomWeb

    name = spec.shown if spec is not None else None
    filters = dict(spec.filters) if spec is not None else filters
    if isinstance(client, DicomWeb):
        from postdicom_async.jobs.ends.archive import ArchiveEnd

        return ArchiveEnd(client, name=name, filters=filters or None)
    if isinstance(client, CloudApi):
        from postdicom_async.jobs.ends.cloud import CloudEnd

        institution = profile.institution_uuid or None if profile else None
        folder = profile.folder_uuid or None if profile else None
        return CloudEnd(client, name=name, institution_uuid=institution, folder_uuid=folder)
    raise UsageError("an end: give a client, a path, text such as 'hospital:', or a spec")
