"""Archives that do what PS3.18 lets them do, and what some do besides: filters ignored, lists not offered or empty."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import pydicom

from tests.faults.archive import MemoryArchive, is_search
from tests.support.bodies import dicom_json, json_reply, multipart_related
from tests.support.dicom_files import small_dicom, uid
from tests.support.exchange import Reply
from tests.support.tag_names import json_tag_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.exchange import Request

__all__ = ["FILES", "ODD", "STUDY", "OddArchive", "make_odd", "searches"]

_FRAMES = re.compile(r"(?P<instance>.*)/frames/(?P<numbers>[0-9,]+)(?P<rendered>/rendered)?")
_UIDS: Final = ("0020000D", "0020000E", "00080018")
_MATCHED: Final = {*_UIDS, "00100010", "00100020", "00080020"}


@dataclass
class OddArchive(MemoryArchive):
    """A whole archive, in the URL shapes of the standard and in those that name parents by filters.

    Attributes:
        odd: in words, as in `ODD`.
        heeds: the forms of filters that it does not ignore.
        pages: whether it knows ``limit`` and ``offset``.
        no_study_list: status for a list of all instances of a study, None where it is given.
        finds_nothing: every search is answered with ``[]``.
        longest: the longest request target taken; longer ones are answered with 414.
        frames: how many frames each instance has.
        one_picture: several frames are rendered to one picture.
    """

    odd: str = ""
    heeds: frozenset[str] = frozenset({"keyword", "tag"})
    pages: bool = True
    no_study_list: int | None = None
    finds_nothing: bool = False
    longest: int = 8000
    frames: int = 0
    one_picture: bool = False

    def __call__(self, request: Request) -> Reply:
        """Answer one request."""
        if len(request.target) > self.longest:
            return Reply(414)
        if found := _FRAMES.fullmatch(request.path):
            return self.fault(request) or self.give_frames(found["numbers"], is_rendered=bool(found["rendered"]))
        if request.path in {"/series", "/instances"}:
            return self.fault(request) or self.search(request, "", None)
        return super().__call__(request)

    def search(self, request: Request, study: str | None, series: str | None) -> Reply:
        """Answer any search."""
        level = request.path.rpartition("/")[2]
        if request.path.startswith("/studies/series"):  # parents by filters
            study = series = None
        if self.no_study_list and study and not series and level == "instances":
            return Reply(self.no_study_list)
        if self.finds_nothing:
            return json_reply([])
        depth = ("studies", "series", "instances").index(level) + 1
        filters = self.heeded(request)
        grouped: dict[tuple[str, ...], list[bytes]] = {}
        for uids, file in self.stored.items():
            if (study or uids[0], series or uids[1]) == uids[:2]:
                grouped.setdefault(uids[:depth], []).append(file)
        items = [self.item(uids, files) for uids, files in grouped.items()]
        found = [item for item in items if all(_matches(item, tag, value) for tag, value in filters.items())]
        query = dict(request.query) if self.pages else {}
        first, size = int(query.get("offset", 0)), int(query.get("limit", 1000))
        return json_reply(found[first : first + size])

    def heeded(self, request: Request) -> dict[str, str]:
        """Return the filters that are not ignored, by tag."""
        filters: dict[str, str] = {}
        for name, value in request.query:
            tag = json_tag_of(name)
            if tag in _MATCHED and ("tag" if name == tag else "keyword") in self.heeds:
                filters[tag] = value
        return filters

    def item(self, uids: tuple[str, ...], files: list[bytes]) -> dict[str, Any]:
        """Return a result."""
        read = pydicom.dcmread(BytesIO(files[0]), stop_before_pixels=True)
        item = dicom_json(PatientName=read.PatientName, PatientID=read.PatientID, StudyDate=read.StudyDate)
        item |= {tag: {"vr": "UI", "Value": [uid]} for tag, uid in zip(_UIDS, uids, strict=False)}
        count = {1: "00201208", 2: "00201209"}.get(len(uids))
        if self.counts and count:
            item[count] = {"vr": "IS", "Value": [len(files)]}
        return item

    def give_frames(self, numbers: str, *, is_rendered: bool) -> Reply:
        """Answer with frames, each of which holds its number."""
        wanted = [int(number) for number in numbers.split(",")]
        if max(wanted) > self.frames:
            return Reply(404)
        if is_rendered and self.one_picture:
            return Reply(200, {"Content-Type": "image/gif"}, numbers.encode())
        kind = "image/jpeg" if is_rendered else "application/octet-stream"
        return multipart_related([b"frame %d" % number for number in wanted], part_type=kind).reply()


def _matches(item: dict[str, Any], tag: str, wanted: str) -> bool:
    if tag not in item:
        return True
    value = item[tag]["Value"][0]
    text = str(value["Alphabetic"] if isinstance(value, dict) else value)
    if tag == "00080020" and "-" in wanted:
        first, _, last = wanted.partition("-")
        return (first or "0") <= text <= (last or "9")
    patterns = wanted.split(",") if tag in _UIDS else [wanted]
    return any(fnmatchcase(text, pattern) for pattern in patterns)


ODD: Final[dict[str, dict[str, Any]]] = {
    "ignores filters written as tags": {"heeds": frozenset({"keyword"})},
    "ignores filters written as keywords": {"heeds": frozenset({"tag"})},
    "ignores all filters": {"heeds": frozenset()},
    "ignores all filters and paging": {"heeds": frozenset(), "pages": False},
    "has no list of a study's instances": {"no_study_list": 404},
    "answers [] to every search": {"finds_nothing": True},
}
"""The archives by what is odd about them; each is right in all else."""


STUDY: Final = uid(1)
FILES: Final = [
    small_dicom(STUDY, uid(1, n), uid(1, n, m), patient_name="DOE^JANE", patient_id="P-1", pixel_bytes=64)
    for n in (1, 2, 3)
    for m in (1, 2)
]
"""The first study: two instances in each of three series."""

_OTHERS: Final = [
    small_dicom(uid(n), uid(n, 1), uid(n, 1, 1), patient_name=name, patient_id=f"P-{n}", pixel_bytes=64)
    for n, name in ((2, "DOE^JOHN"), (3, "ROE^RICHARD"))
]


def make_odd(odd: str = "", **changed: Any) -> OddArchive:
    """Make an archive by what is odd about it, with the first study between two of other patients."""
    return OddArchive([_OTHERS[0], *FILES, _OTHERS[1]], **{"counts": True, "odd": odd, **ODD.get(odd, {}), **changed})


def searches(requests: Iterable[Request]) -> list[str]:
    """Return the paths of the searches, in order."""
    return [request.path for request in requests if is_search(request)]
