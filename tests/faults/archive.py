"""An archive in memory for a `FaultyServer`: it answers rightly, so that a test only scripts what goes wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO

import pydicom

from postdicom_async import InstanceUids
from tests.support.bodies import Multipart, dicom_json, json_reply, multipart_related, stow_answer
from tests.support.exchange import Reply, Request
from tests.support.tag_names import json_tag_of

__all__ = ["Fault", "MemoryArchive", "asked", "is_search", "name_of", "parts_sent", "uids_of"]

Fault = Callable[[Request], Reply | None]
_PATH = re.compile(r"/studies(?:/(?P<study>[^/]+))?(?:/series/(?P<series>[^/]+))?(?:/instances)?(?:/(?P<one>.+))?")


@lru_cache(maxsize=1024)
def uids_of(file: bytes) -> InstanceUids:
    """Return what a file says it is, by pydicom's reading."""
    dataset = pydicom.dcmread(BytesIO(file), stop_before_pixels=True)
    return InstanceUids(dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)


def name_of(file: bytes) -> str:
    """Return where the default layout puts a file."""
    return "{}/{}/{}.dcm".format(*uids_of(file))


def parts_sent(request: Request) -> list[bytes]:
    """Take a store request apart, strictly."""
    kind = request.header("content-type")
    found = re.fullmatch(r'multipart/related; type="application/dicom"; boundary=([0-9A-Za-z]{16,70})', kind)
    assert found, f"not a Content-Type that every archive takes: {kind}"
    delimiter = b"\r\n--" + found[1].encode()
    first, *parts = (b"\r\n" + request.body).split(delimiter)
    assert first == b""
    assert parts.pop() == b"--\r\n"
    head = b"\r\nContent-Type: application/dicom\r\n\r\n"
    assert all(part.startswith(head) for part in parts)
    return [part[len(head) :] for part in parts]


def is_search(request: Request) -> bool:
    """Whether a request is QIDO-RS."""
    return request.method == "GET" and request.path.rpartition("/")[2] in ("studies", "series", "instances")


def asked(request: Request) -> dict[str, str]:
    """Return the filters of a search by tag, whichever form they came in, and its other parameters by name."""
    return {json_tag_of(name) or name: value for name, value in request.query}


@dataclass
class MemoryArchive:
    """Answers searches for instances, retrieve and store. ``fault`` is asked first; None from it means no fault."""

    files: Iterable[bytes] = ()
    fault: Fault = lambda _: None
    counts: bool = False
    stored: dict[InstanceUids, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stored.update({uids_of(file): file for file in self.files})

    def __call__(self, request: Request) -> Reply:
        """Answer one request."""
        reply = self.fault(request)
        if reply is not None:
            return reply
        found = _PATH.fullmatch(request.path)
        if found is None:
            return Reply(404)
        if request.method == "POST":
            return self.store(request)
        if is_search(request):
            return self.search(request, found["study"], found["series"])
        return self.retrieve(found["study"], found["series"], found["one"])

    def below(self, study: str, series: str | None = None, instance: str | None = None) -> dict[InstanceUids, bytes]:
        """Return what lies in a study, series or instance."""
        wanted = (study, series, instance)
        return {
            uids: file
            for uids, file in self.stored.items()
            if all(one in (None, other) for one, other in zip(wanted, uids, strict=True))
        }

    def search(self, request: Request, study: str, series: str | None) -> Reply:
        """Answer QIDO-RS for instances, paged; and for studies and series with their counts, if it is to give any."""
        if not request.path.endswith("/instances"):
            return self.count(request, study)
        query = dict(request.query)
        first, size = int(query.get("offset", 0)), int(query.get("limit", 1000))
        items = [
            dicom_json(StudyInstanceUID=one[0], SeriesInstanceUID=one[1], SOPInstanceUID=one[2])
            for one in self.below(study, series)
        ]
        return json_reply(items[first : first + size])

    def count(self, request: Request, study: str | None) -> Reply:
        """Answer a search for one study, or one series of it, with the number of its instances."""
        query = asked(request)
        wanted = (study, query.get("0020000E")) if study else (query.get("0020000D"), None)
        if not self.counts or wanted[0] is None:
            return json_reply([])
        number = len(self.below(wanted[0], wanted[1]))
        if wanted[1]:
            return json_reply([dicom_json(SeriesInstanceUID=wanted[1], NumberOfSeriesRelatedInstances=number)])
        return json_reply([dicom_json(StudyInstanceUID=wanted[0], NumberOfStudyRelatedInstances=number)])

    def retrieve(self, study: str, series: str | None, instance: str | None) -> Reply:
        """Answer WADO-RS."""
        found = self.below(study, series, instance)
        return related(found.values()).reply() if found else Reply(404)

    def store(self, request: Request) -> Reply:
        """Answer STOW-RS, having stored everything."""
        files = parts_sent(request)
        self.stored.update({uids_of(file): file for file in files})
        return Reply(
            200,
            {"Content-Type": "application/dicom+json"},
            stow_answer(referenced=[uids_of(file).sop_instance_uid for file in files]),
        )


def related(files: Iterable[bytes]) -> Multipart:
    """Return a retrieve answer."""
    return multipart_related(list(files))
