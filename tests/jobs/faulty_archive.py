"""An archive whose every fifth answer or so is wrong, by a seed: what a job must survive."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from postdicom_async import InstanceUids
from tests.faults.archive import is_search, parts_sent, related, uids_of
from tests.support.bodies import dicom_json, json_reply, stow_answer
from tests.support.faulty_server import FaultyServer, Reply, Request
from tests.support.tag_names import json_tag_of

__all__ = ["FaultyArchive", "Stored"]

_PATH = re.compile(r"/studies(?:/(?P<study>[^/]+))?(?:/series/(?P<series>[^/]+))?(?:/instances)?(?:/(?P<one>.+))?")
_JSON = {"Content-Type": "application/dicom+json"}
_HTML = {"Content-Type": "text/html"}

Stored = dict[InstanceUids, bytes]


@dataclass
class FaultyArchive:
    """Holds instances by study; answers rightly, but for a share of its requests.

    Attributes:
        share: of requests that go wrong, 0 to 1.
        chance: what decides which, and how.
        fault: is asked first; None from it means no fault of the test's own.
        faults: how many went wrong, by kind.
        requests: how many there were, by kind.
    """

    files: Iterable[bytes] = ()
    share: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    fault: Callable[[Request], Reply | None] = lambda _: None
    by_study: dict[str, Stored] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._keep(self.files)

    def serve(self) -> FaultyServer:
        """Return a server of it, which keeps nothing of what it read."""
        server = FaultyServer(self._answer, on_head=self._before, keep_bodies=True)
        server.requests = _Nothing()
        return server

    @property
    def held(self) -> Stored:
        """All that it holds."""
        return {uids: file for some in self.by_study.values() for uids, file in some.items()}

    def _keep(self, files: Iterable[bytes]) -> None:
        for file in files:
            uids = uids_of(file)
            self.by_study.setdefault(uids.study_instance_uid, {})[uids] = file

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def _before(self, request: Request) -> Reply | None:
        """Return what goes wrong before a request was read."""
        if self.chance.random() >= self.share / 4:
            return None
        return self._wrong(
            {
                "reset in the request": Reply(drop_mid_request_after=self.chance.choice([0, 300]), reset=True),
                "closed in the request": Reply(drop_mid_request_after=200),
                "503 before the body": Reply(503, {"Retry-After": "0"}, answer_before_body=True),
            }
        )

    def _answer(self, request: Request) -> Reply:
        kind = "store" if request.method == "POST" else "search" if is_search(request) else "retrieve"
        self.requests[kind] = self.requests.get(kind, 0) + 1
        if (own := self.fault(request)) is not None:
            return own
        if self.chance.random() >= self.share * 3 / 4:
            return self._right(request)
        stores = kind == "store"
        refused = {
            "500": Reply(500),
            "502": Reply(502, _HTML, b"<html><title>502 Bad Gateway</title></html>"),
            "503": Reply(503),
            "503, wait": Reply(503, {"Retry-After": "0"}),
            "429": Reply(429),
            "429, wait": Reply(429, {"Retry-After": "0"}),
            "no answer": Reply(drop_after_request=True, reset=True),
            "nobody named": Reply(200, _JSON, b"{}" if stores else b"") if stores or kind == "search" else Reply(204),
            "a page of a proxy": Reply(200, _HTML, b"<html><title>Sign in</title></html>"),
        }
        if self.chance.random() < 0.5:
            return self._wrong(refused)
        right = self._right(request)
        half = len(right.body) // 2 if isinstance(right.body, bytes) else 0
        return self._wrong(
            {
                "504, having done it": Reply(504),
                "no answer, having done it": Reply(drop_after_request=True),
                "cut": replace(right, cut_after=half),
                "reset": replace(right, cut_after=half, reset=True),
                "slow": replace(right, delay_before=0.05),
                "in small pieces": replace(right, chunk_size=max(1, half // 4), pause=0.01),
            }
        )

    def _wrong(self, ways: dict[str, Reply]) -> Reply:
        name = self.chance.choice(sorted(ways))
        self.faults[name] = self.faults.get(name, 0) + 1
        return ways[name]

    # --- what is right ------------------------------------------------------------------------------------------------

    def _right(self, request: Request) -> Reply:
        if request.method == "POST":
            files = parts_sent(request)
            self._keep(files)
            return Reply(200, _JSON, stow_answer(referenced=[uids_of(file).sop_instance_uid for file in files]))
        found = _PATH.fullmatch(request.path)
        if found is None:
            return Reply(404)
        if is_search(request):
            return self._search(request, found["study"], found["series"])
        files = [
            file
            for uids, file in self.by_study.get(found["study"], {}).items()
            if found["series"] in (None, uids[1]) and found["one"] in (None, uids[2])
        ]
        return related(files).reply() if files else Reply(404)

    def _search(self, request: Request, study: str | None, series: str | None) -> Reply:
        query = {json_tag_of(name) or name: value for name, value in request.query}
        level = request.path.rpartition("/")[2]
        first, size = int(query.get("offset", 0)), int(query.get("limit", 1000))
        study = study or query.get("0020000D")
        if level == "studies":
            chosen = [study] if study in self.by_study else [] if study else list(self.by_study)
            items: list[dict[str, Any]] = [
                dicom_json(
                    StudyInstanceUID=one, StudyDate="20200102", NumberOfStudyRelatedInstances=len(self.by_study[one])
                )
                for one in chosen
                if one
            ]
            return json_reply(items[first : first + size])
        held = [uids for uids in self.by_study.get(study or "", {}) if series in (None, uids[1])]
        if level == "series":
            held = [uids for uids in held if query.get("0020000E") in (None, uids[1])]
            numbers: dict[str, int] = {}
            for uids in held:
                numbers[uids[1]] = numbers.get(uids[1], 0) + 1
            items = [
                dicom_json(StudyInstanceUID=study, SeriesInstanceUID=one, NumberOfSeriesRelatedInstances=number)
                for one, number in numbers.items()
            ]
        else:
            wanted = query.get("00080018")
            items = [
                dicom_json(StudyInstanceUID=one[0], SeriesInstanceUID=one[1], SOPInstanceUID=one[2])
                for one in held
                if wanted is None or one[2] in wanted.split(",")
            ]
        return json_reply(items[first : first + size])


class _Nothing(list[Request]):
    """Keeps no request."""

    def append(self, _: Request) -> None:
        return
