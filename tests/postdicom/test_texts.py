"""Whatever the text, the service reads what was meant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.valuerep import PersonName

from postdicom_async import PostDicom, UsageError
from tests.postdicom.forms import ONE, TWO
from tests.postdicom.service import NOTHING, Service, as_json
from tests.support.faulty_server import FaultyServer, Reply
from tests.support.large import examples

pytestmark = pytest.mark.above_the_transport

LATER = "2999-12-31"
ORDER: dict[str, Any] = {
    "institution_uuid": ONE,
    "patient_name": "X",
    "patient_id": "1",
    "patient_birthdate": "2000-01-01",
    "modality": "CT",
}

Call = Callable[[PostDicom, dict[str, Any]], Any]

# Every parameter that holds text: the call, the Python argument, its name on the wire, whether it must be given.
CALLS: dict[str, Call] = {
    "createsharelink": lambda a, texts: a.shares.create_link([ONE], expires=LATER, **texts),
    "sharepatientorderwithurl": lambda a, texts: a.shares.share_orders([ONE], expires=LATER, **texts),
    "createfolder": lambda a, texts: a.folders.create(**{"name": "X", **texts}),
    "searchfolder": lambda a, texts: a.folders.search(**texts).all(),
    "sharefolderwithurl": lambda a, texts: a.folders.share(ONE, **texts),
    "createpatientorder": lambda a, texts: a.orders.create(**{**ORDER, **texts}),
    "getpatientorderlist": lambda a, texts: a.orders.search(**texts).all(),
    "getdicomtagcontent": lambda a, texts: a.orders.tag_content(ONE, TWO, **texts),
}
TEXTS = [
    ("createsharelink", "password", "SharePassword", False),
    ("sharepatientorderwithurl", "password", "SharePassword", False),
    ("createfolder", "name", "FolderName", True),
    ("createfolder", "description", "FolderDescription", False),
    ("searchfolder", "name", "FolderName", False),
    ("sharefolderwithurl", "password", "SharePassword", False),
    ("sharefolderwithurl", "title", "ShareTitle", False),
    ("sharefolderwithurl", "description", "ShareDescription", False),
    ("createpatientorder", "patient_name", "PatientName", True),
    ("createpatientorder", "patient_id", "PatientId", True),
    ("createpatientorder", "modality", "Modality", True),
    ("createpatientorder", "other_patient_id", "OtherPatientId", False),
    ("createpatientorder", "study_description", "StudyDescription", False),
    ("createpatientorder", "accession_number", "AccessionNumber", False),
    ("createpatientorder", "patient_complaints", "PatientComplaints", False),
    ("createpatientorder", "requested_procedure_id", "RequestedProcedureId", False),
    ("createpatientorder", "requested_procedure_description", "RequestedProcedureDescription", False),
    ("createpatientorder", "requesting_physician", "RequestingPhysician", False),
    ("createpatientorder", "referring_physicians_name", "ReferringPhysiciansName", False),
    ("getpatientorderlist", "patient_name", "PatientName", False),
    ("getpatientorderlist", "patient_id", "PatientId", False),
    ("getpatientorderlist", "other_patient_id", "OtherPatientId", False),
    ("getpatientorderlist", "accession_number", "AccessionNumber", False),
]
LISTS = [
    ("getpatientorderlist", "modalities", "ModalityList"),
    ("getdicomtagcontent", "tags", "DicomTagIdList"),
]

NAMES = {
    "Polish": "Łukasz^Święty=Zażółć gęślą jaźń",
    "Arabic": "قباني^لنزار",
    "Hebrew with marks": "שָׁלוֹם‏",
    "Japanese": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "Korean, decomposed": "김희중",
    "combining": "e\u0301 and é",
    "quotes": 'O\'Neil "Jack" `x` «y»',
    "backslashes": 'C:\\new\\table\\u0041 \\" \\\\',
    "newlines": "one\r\ntwo\nthree\rfour\u2028five\u2029six\u0085seven",
    "header injection": "x\r\nX-Evil: 1\r\n\r\nGET /deleteorder HTTP/1.1",
    "controls": "\x00\x01\x1b[31m\x7f\x9f",
    "emoji": "👩‍⚕️ 🩻 🏳️‍🌈",
    "beyond the BMP": "𝔄𠮷\U0010ffff",
    "JSON": '{"PatientOrderUuid": ["\\u0000"]}',
    "percent": "100%41 %0d%0a + & = ? #",
    "blanks around": "  x\t",
    "markup": "</script><img src=x onerror=alert(1)>",
    "long": "ź" * 1000,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_the_same_name_arrives(name: str, connect: Callable[..., PostDicom]) -> None:
    async with FaultyServer(Reply(body=json.dumps(NOTHING).encode())) as server, connect(server.url) as archive:
        await archive.folders.create(name)
        await archive.orders.create(**{**ORDER, "patient_name": PersonName(name) if "^" in name else name})
        await archive.shares.create_link([ONE], expires=LATER, password=name)
        await archive.orders.search(modalities=[name, "CT"]).all()
    sent = [
        json.loads(request.all_headers(header)[0]) for request, header in zip(server.requests, HEADERS, strict=True)
    ]
    assert sent[0]["FolderName"] == sent[1]["PatientName"] == sent[2]["SharePassword"] == name
    assert json.loads(sent[3]["ModalityList"]) == [name, "CT"]
    assert {request.target for request in server.requests} == PATHS


HEADERS = (
    "CreateFolderParameters",
    "CreatePatientOrderParameters",
    "ShareParameters",
    "GetPatientOrderListParameters",
)
PATHS = {"/createfolder", "/createpatientorder", "/createsharelink", "/getpatientorderlist"}


# --- generated -------------------------------------------------------------------------------------------------------

SPECIAL = st.sampled_from('"\\/\r\n\t\x00\x1f\x7f\x80\x85\u2028{}[]:,^=é٣山😀\ud800\udfff\ufeff ')
ANY_TEXT = st.one_of(st.text(), st.text(st.characters()), st.text(SPECIAL), st.text(st.characters(max_codepoint=127)))
TWENTY = st.lists(ANY_TEXT, min_size=20, max_size=20)
EXAMPLES = 22  # times 20 texts, times the parameters above: more than 10,000


class Wired:
    """A client, its service, and a loop that stays, so that thousands of calls take seconds."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.service = Service(as_json(NOTHING))
        self.archive = self.service.client()
        self._runner = runner
        runner.run(self.archive.__aenter__())

    def close(self) -> None:
        self._runner.run(self.archive.__aexit__(None, None, None))

    def sent(self, operation: str, texts: dict[str, Any]) -> dict[str, Any] | None:
        """Make the call; return what the service understood, or None if nothing was sent."""
        self.service.requests.clear()
        refused = self._runner.run(_refusal(CALLS[operation], self.archive, texts))
        if refused is not None:
            assert not self.service.requests
            assert next(iter(texts)) in str(refused)
            return None
        (request,) = self.service.requests
        assert request.url.raw_path == b"/dicomweb/" + operation.encode()
        for _, value in request.headers.raw:
            assert all(0x20 <= byte < 0x7F for byte in value)
        return self.service.parameters()


async def _refusal(call: Call, archive: PostDicom, texts: dict[str, Any]) -> UsageError | None:
    try:
        await call(archive, texts)
    except UsageError as error:
        return error
    return None


@pytest.fixture(scope="module")
def wired() -> Iterator[Wired]:
    with asyncio.Runner() as runner:
        it = Wired(runner)
        yield it
        it.close()


def can_be_sent(text: str) -> bool:
    return bool(text.strip()) and not any("\ud800" <= char <= "\udfff" for char in text)


@pytest.mark.parametrize(("operation", "argument", "wire", "required"), TEXTS, ids=lambda value: str(value))
@settings(max_examples=examples(EXAMPLES))
@given(texts=TWENTY)
def test_any_text(wired: Wired, operation: str, argument: str, wire: str, required: bool, texts: list[str]) -> None:
    for text in texts:
        sent = wired.sent(operation, {argument: text})
        if can_be_sent(text) or (text == "" and not required):
            assert sent is not None
            assert sent[wire] == text
        else:
            assert sent is None


@pytest.mark.parametrize(("operation", "argument", "wire"), LISTS)
@settings(max_examples=examples(10 * EXAMPLES))
@given(texts=st.lists(ANY_TEXT, max_size=6))
def test_any_list_of_texts(wired: Wired, operation: str, argument: str, wire: str, texts: list[str]) -> None:
    sent = wired.sent(operation, {argument: texts})
    if all(map(can_be_sent, texts)):
        assert sent is not None
        assert json.loads(sent[wire]) == list(dict.fromkeys(texts))
    else:
        assert sent is None
