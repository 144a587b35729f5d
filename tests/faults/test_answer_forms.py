"""The same study in every form servers give it, and in forms that must be refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import pytest

from postdicom_async import (
    ConnectionFailed,
    IncompleteDownload,
    InstanceUids,
    NotFound,
    PostdicomError,
    ProtocolError,
    Status,
    UsageError,
)
from tests.faults.archive import MemoryArchive, is_search, name_of, uids_of
from tests.faults.clients import files_below
from tests.support.bodies import Multipart, dicom_json, json_reply, multipart_related
from tests.support.dicom_files import small_dicom, study_files, uid
from tests.support.exchange import ReplyFraming
from tests.support.faulty_server import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.clients import Connect

pytestmark = pytest.mark.above_the_transport

FILES = list(study_files(3, pixel_bytes=1280).values())
STUDY = uid(1)
UIDS = [uids_of(file) for file in FILES]
FRAMINGS = get_args(ReplyFraming)
STRANGER = small_dicom(uid(9), uid(9, 1), uid(9, 1, 1), patient_name="OTHER^PATIENT")
TRAP = b"\r\n\r\n--b0undary-of-the-test\r\nContent-Type: text/plain\r\n\r\n--\r\n\r"


def only_retrieve(reply: Reply, files: list[bytes] | None = None) -> MemoryArchive:
    """Search is answered rightly, the retrieve of the study with this, and nothing else is there."""

    def fault(request: Request) -> Reply | None:
        if is_search(request):
            return None
        return reply if request.path == f"/studies/{STUDY}" else Reply(404)

    return MemoryArchive(FILES if files is None else files, fault)


async def saved_by(connect: Connect, script: Any, folder: Path, **arguments: Any) -> tuple[Any, dict[str, bytes]]:
    """Download the study; return the report, of the error too, and the files there are."""
    async with FaultyServer(script) as server, connect(server.url) as archive:
        try:
            report: Any = await archive.download_study(STUDY, to=folder, **arguments)
        except IncompleteDownload as error:
            report = error.report
            assert not report.ok or report.missing == ()
    return report, files_below(folder)


def expected(*files: bytes) -> dict[str, bytes]:
    return {name_of(file): file for file in files}


# --- forms that are right ---------------------------------------------------------------------------------------------

BOUNDARIES = [
    "DICOM DATA BOUNDARY",
    "----=_Part_1_2",
    "'()+_,-./:=?",
    "x" * 70,
    "1",
    "a.b*c[d]|e^f$g",
    "-",
]


def unquoted_type(kind: Multipart) -> Multipart:
    return replace(kind, content_type=kind.content_type.replace('"', ""))


FORMS: dict[str, Multipart] = {
    "plain": multipart_related(FILES),
    "unquoted": multipart_related(FILES, quoted=False),
    "preamble": multipart_related(FILES, preamble=b"This is a multipart message.\r\nIgnore this line."),
    "leading CRLF": multipart_related(FILES, leading_crlf=True),
    "missing final CRLF": multipart_related(FILES, final_crlf=False),
    "epilogue": multipart_related(FILES, epilogue=b"epilogue\r\n--b0undary-of-the-tests\r\nno more"),
    "Orthanc's extra part headers": multipart_related(
        FILES,
        part_headers=lambda _, part: {
            "Content-Type": "application/dicom",
            "Content-Length": str(len(part)),
            "MIME-Version": "1.0",
        },
    ),
    "part headers in odd case": multipart_related(FILES, part_headers={"cOnTeNt-tYpE": "Application/DICOM;x=y"}),
    "no part headers": multipart_related(FILES, part_headers={}),
    "transfer-syntax=* in the parts": multipart_related(
        FILES, part_headers={"Content-Type": "application/dicom; transfer-syntax=*"}
    ),
    "20 extra part headers": multipart_related(FILES, part_headers=[(f"X-{n}", "y" * 100) for n in range(20)]),
    "no boundary parameter": replace(multipart_related(FILES), content_type="multipart/related"),
    "no boundary parameter, leading CRLF": replace(
        multipart_related(FILES, leading_crlf=True), content_type='multipart/related; type="application/dicom"'
    ),
    "start parameter": replace(
        multipart_related(FILES),
        content_type='Multipart/Related;start="<1@x>";TYPE=application/dicom;Boundary="b0undary-of-the-tests"',
    ),
    "multipart/mixed": replace(
        multipart_related(FILES), content_type="multipart/mixed; boundary=b0undary-of-the-tests"
    ),
} | {f"boundary {text[:20]}": multipart_related(FILES, boundary=text) for text in BOUNDARIES}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_study_in_every_form(form: str, framing: ReplyFraming, connect: Connect, tmp_path: Path) -> None:
    script = only_retrieve(FORMS[form].reply(framing=framing))
    report, files = await saved_by(connect, script, tmp_path)
    assert files == expected(*FILES)
    assert (report.ok, report.refused, report.bytes_received) == (True, 0, sum(map(len, FILES)))


@pytest.mark.parametrize("form", ["plain", "preamble", "no boundary parameter", "boundary DICOM DATA BOUNDARY"])
@pytest.mark.parametrize("chunk_size", [1, 2, 7, 1000])
async def test_a_study_byte_by_byte(form: str, chunk_size: int, connect: Connect, tmp_path: Path) -> None:
    script = only_retrieve(FORMS[form].reply(framing="chunked", chunk_size=chunk_size))
    report, files = await saved_by(connect, script, tmp_path)
    assert files == expected(*FILES)
    assert report.ok


async def test_what_looks_like_a_delimiter_inside_pixels(connect: Connect, tmp_path: Path) -> None:
    trapped = [file + TRAP * 3 + b"\r" for file in FILES]
    for chunk_size in (13, 65536):
        reply = multipart_related(trapped).reply(framing="chunked", chunk_size=chunk_size)
        _, files = await saved_by(connect, only_retrieve(reply), tmp_path / str(chunk_size))
        assert list(files.values()) == trapped


async def test_the_order_of_the_parts_does_not_matter(connect: Connect, tmp_path: Path) -> None:
    script = only_retrieve(multipart_related([FILES[2], FILES[0], FILES[1]]).reply())
    report, files = await saved_by(connect, script, tmp_path)
    assert files == expected(*FILES)
    assert report.ok


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
@pytest.mark.parametrize(
    "content_type", ["application/dicom", "application/octet-stream", "", "application/dicom; x=y"]
)
async def test_a_single_part_without_multipart(
    framing: ReplyFraming, content_type: str, connect: Connect, tmp_path: Path
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    script = only_retrieve(Reply(200, headers, FILES[0], framing), FILES[:1])
    report, files = await saved_by(connect, script, tmp_path)
    assert files == expected(FILES[0])
    assert report.ok


async def test_a_single_part_whose_end_nothing_marks_is_refused(connect: Connect, tmp_path: Path) -> None:
    reply = Reply(200, {"Content-Type": "application/dicom"}, FILES[0], "until-close")
    report, files = await saved_by(connect, only_retrieve(reply, FILES[:1]), tmp_path)
    assert files == {}
    assert report.missing == (UIDS[0],)


# --- forms that are wrong -------------------------------------------------------------------------------------------

LF_ONLY = Multipart(
    "multipart/related; boundary=b",
    b"".join(b"--b\nContent-Type: application/dicom\n\n" + file + b"\n" for file in FILES) + b"--b--\n",
)
DAMAGED: dict[str, Multipart] = {
    "LF only": LF_ONLY,
    "another boundary than announced": replace(multipart_related(FILES), content_type="multipart/related; boundary=z"),
    "no boundary anywhere": Multipart("multipart/related", b"\0" * 5000),
    "boundary too long": multipart_related(FILES, boundary="x" * 300),
    "empty": Multipart("multipart/related; boundary=b", b""),
    "no parts": multipart_related([]),
    "part header without end": Multipart(
        "multipart/related; boundary=b", b"--b\r\nContent-Type: " + b"x" * 20000 + b"\r\n\r\n" + FILES[0] + b"\r\n--b--"
    ),
    "1000 part headers": multipart_related(FILES, part_headers=[(f"X-{n}", "y") for n in range(1000)]),
    "parts longer than they say": multipart_related(FILES, part_headers={"Content-Length": "3"}),
    "parts shorter than they say": multipart_related(FILES, part_headers={"Content-Length": "30000"}),
    "not a header": Multipart("multipart/related; boundary=b", b"--b\r\nno colon\r\n\r\nx\r\n--b--\r\n"),
}


@pytest.mark.parametrize("form", DAMAGED)
@pytest.mark.parametrize("listed", [True, False])
async def test_damage_is_an_error(form: str, listed: bool, connect: Connect, tmp_path: Path) -> None:
    script = only_retrieve(DAMAGED[form].reply())
    async with FaultyServer(script) as server, connect(server.url) as archive:
        with pytest.raises(IncompleteDownload) as caught:
            await archive.download_study(STUDY, to=tmp_path, compare_with_search=listed)
        with pytest.raises(ProtocolError):
            _ = [await part.read() async for part in archive.iter_study(STUDY)]
    assert caught.value.report.missing == (tuple(UIDS) if listed else ())
    assert not caught.value.report.saved
    assert files_below(tmp_path) == {}


MESSAGES = {
    "HTML": Reply(200, {"Content-Type": "text/html"}, b"<html>Please log in</html>"),
    "JSON": Reply(200, {"Content-Type": "application/json"}, b'{"message": "quota used up"}'),
    "DICOM JSON": Reply(200, {"Content-Type": "application/dicom+json"}, b"[]"),
    "XML": Reply(200, {"Content-Type": "application/xml; charset=utf-8"}, b"<error/>"),
    "plain text": Reply(200, {"Content-Type": "text/plain"}, b"quota used up"),
    "nothing": Reply(200, {"Content-Type": "application/dicom"}),
    "nothing at all": Reply(204),
    "HTML called DICOM": Reply(200, {"Content-Type": "application/dicom"}, b"<html>Please log in</html>"),
    "HTML in a part": multipart_related([b"<html>"], part_type="text/html").reply(),
}


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("listed", [True, False])
async def test_a_message_with_200_is_not_a_study(message: str, listed: bool, connect: Connect, tmp_path: Path) -> None:
    refused = 0
    async with FaultyServer(only_retrieve(MESSAGES[message])) as server, connect(server.url) as archive:
        try:
            report = await archive.download_study(STUDY, to=tmp_path, compare_with_search=listed)
        except IncompleteDownload as error:
            refused = 1 + error.report.refused
        else:
            assert not report.ok
            refused = report.refused
    assert refused
    assert files_below(tmp_path) == {}


@pytest.mark.parametrize("message", ["HTML", "JSON", "plain text", "nothing", "nothing at all"])
async def test_a_message_with_200_is_not_a_stream_of_parts(message: str, connect: Connect) -> None:
    async with FaultyServer(MESSAGES[message]) as server, connect(server.url) as archive:
        with pytest.raises(ProtocolError) as caught:
            _ = [await part.read() async for part in archive.iter_study(STUDY)]
    if message in ("JSON", "plain text"):
        assert caught.value.reason == "quota used up"


# --- parts that are not wanted ---------------------------------------------------------------------------------------

ODD_PARTS = {
    "an appended error text": multipart_related(
        [*FILES, b"Failed to fetch"],
        part_headers=lambda n, _: {"Content-Type": "text/plain" if n == 3 else "application/dicom"},
    ),
    "another patient's instance": multipart_related([FILES[0], STRANGER, *FILES[1:]]),
    "the same instance twice": multipart_related([FILES[0], FILES[0], *FILES[1:]]),
    "an empty part": multipart_related([FILES[0], b"", *FILES[1:]]),
    "a part of one byte": multipart_related([FILES[0], b"x", *FILES[1:]]),
    "a part cut inside its header": multipart_related([FILES[0], STRANGER[:300], *FILES[1:]]),
}


@pytest.mark.parametrize("odd", ODD_PARTS)
@pytest.mark.parametrize("listed", [True, False])
async def test_an_odd_part_is_refused_and_counted(odd: str, listed: bool, connect: Connect, tmp_path: Path) -> None:
    script = only_retrieve(ODD_PARTS[odd].reply())
    report, files = await saved_by(connect, script, tmp_path, compare_with_search=listed)
    assert files == expected(*FILES)
    assert (report.ok, report.refused, len(report.saved), report.missing) == (False, 1, 3, ())


async def test_swapped_answers_are_refused(connect: Connect, tmp_path: Path) -> None:
    """Each instance's address gives the other instance."""
    swap = {UIDS[0]: FILES[1], UIDS[1]: FILES[0]}

    def fault(request: Request) -> Reply | None:
        wanted = [one for one in swap if request.path.endswith(f"/instances/{one.sop_instance_uid}")]
        return multipart_related([swap[wanted[0]]]).reply() if wanted else None

    async with FaultyServer(MemoryArchive(FILES, fault)) as server, connect(server.url) as archive:
        with pytest.raises(IncompleteDownload) as caught:
            await archive.download_instance(*UIDS[0], to=tmp_path)
        with pytest.raises(ProtocolError):
            await archive.retrieve_instance(*UIDS[1])
    assert caught.value.report.refused
    assert caught.value.report.missing == (UIDS[0],)
    assert files_below(tmp_path) == {}


async def test_another_series_of_the_study_is_refused(connect: Connect, tmp_path: Path) -> None:
    other = small_dicom(STUDY, uid(1, 2), uid(1, 2, 1))
    reply = multipart_related([FILES[0], other]).reply()
    async with FaultyServer(reply) as server, connect(server.url) as archive:
        report = await archive.download_series(STUDY, uid(1, 1), to=tmp_path, compare_with_search=False)
    assert (report.ok, report.refused) == (False, 1)
    assert files_below(tmp_path) == expected(FILES[0])


# --- what is missing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [None, 3, 1], ids=["no count", "count", "count of fewer"])
async def test_what_the_server_skipped_is_asked_for_by_name(
    count: int | None, connect: Connect, tmp_path: Path
) -> None:
    """A whole answer with two of three: whatever the count says, unless it is two, the list decides."""

    def fault(request: Request) -> Reply | None:
        if request.path == "/studies" and count is not None:
            return counted(count)
        return multipart_related(FILES[:2]).reply() if request.path == f"/studies/{STUDY}" else None

    async with FaultyServer(MemoryArchive(FILES, fault)) as server, connect(server.url) as archive:
        report = await archive.download_study(STUDY, to=tmp_path)
    assert report.ok
    assert files_below(tmp_path) == expected(*FILES)
    assert server.requests[-1].path == "/studies/{}/series/{}/instances/{}".format(*UIDS[2])
    assert [request.path for request in server.requests].count(f"/studies/{STUDY}") == 1


def counted(count: int) -> Reply:
    return json_reply([dicom_json(StudyInstanceUID=STUDY, NumberOfStudyRelatedInstances=count)])


@pytest.mark.parametrize("listing", ["all it sends", "unavailable"])
async def test_less_than_the_archive_counts_is_never_success(listing: str, connect: Connect, tmp_path: Path) -> None:
    """Neither an undamaged answer nor a list that is capped stands against the archive's own count."""

    def fault(request: Request) -> Reply | None:
        if request.path == "/studies":
            return counted(7)
        return Reply(501) if listing == "unavailable" and request.path.endswith("/instances") else None

    async with FaultyServer(MemoryArchive(FILES, fault)) as server, connect(server.url) as archive:
        for _ in ("first", "into the same folder again"):
            with pytest.raises(IncompleteDownload, match="3 instances are here, the archive counts 7"):
                await archive.download_study(STUDY, to=tmp_path)
    assert files_below(tmp_path) == expected(*FILES)


async def test_a_layout_that_names_two_alike_loses_neither(connect: Connect, tmp_path: Path) -> None:
    async with FaultyServer(MemoryArchive(FILES)) as server, connect(server.url) as archive:
        with pytest.raises(UsageError, match="layout: it gives two instances the same name"):
            await archive.download_study(STUDY, to=tmp_path, layout=lambda uids: f"{uids.series_instance_uid}.dcm")


# Values that look like the name of another instance: with them on both sides of {instance} the names would be the same.
COLLIDING = [
    small_dicom("1.2.1", "1.2.1.1", "1.4", patient_id="A", patient_name="b-1.5-c"),
    small_dicom("1.2.2", "1.2.2.1", "1.5", patient_id="A-1.4-b", patient_name="c"),
]
BOTH_SIDES = "{PatientID}-{instance}-{PatientName}.dcm"


@pytest.mark.parametrize("layout", ["{PatientID}-{PatientName}-{instance}.dcm", "{instance}-{PatientID}-{PatientName}"])
async def test_values_that_pretend_to_be_another_instance(connect: Connect, tmp_path: Path, layout: str) -> None:
    async with FaultyServer(MemoryArchive(COLLIDING)) as server, connect(server.url) as archive:
        for study in ("1.2.1", "1.2.2", "1.2.1"):
            with pytest.raises(UsageError, match=r"on one side of \{instance\}"):
                await archive.download_study(study, to=tmp_path, layout=BOTH_SIDES)
            assert (await archive.download_study(study, to=tmp_path, layout=layout)).ok
    assert sorted(files_below(tmp_path).values()) == sorted(COLLIDING)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("layout", ["a function", "values on both sides"])
async def test_another_instance_of_that_name_is_not_replaced(
    connect: Connect, tmp_path: Path, layout: str, listed: bool, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever gave two instances of two studies one name: one of them is there, and the other is not said to be."""
    monkeypatch.setattr("postdicom_async.dicom.layout._check_apart", lambda _pieces: None)
    told: list[str] = []
    further = small_dicom("1.2.2", "1.2.2.1", "1.6", patient_id="B")
    named = BOTH_SIDES if layout == "values on both sides" else lambda uids: uids[2].replace("1.5", "1.4")

    async def download(archive: Any, study: str) -> Any:
        arguments = {"layout": named, "compare_with_search": listed}
        try:
            return await archive.download_study(study, to=tmp_path, **arguments)
        except IncompleteDownload as error:
            told.append(str(error))
            return error.report

    async with FaultyServer(MemoryArchive([*COLLIDING, further])) as server, connect(server.url) as archive:
        if at_once:
            reports = await asyncio.gather(*(download(archive, study) for study in ("1.2.1", "1.2.2")))
        else:
            reports = [await download(archive, study) for study in ("1.2.1", "1.2.2")]
    assert ["under the name of another instance's file" in words for words in told] == [True] * listed
    saved = {one.uids for report in reports for one in report.saved}
    assert {uids_of(file) for file in files_below(tmp_path).values()} == saved
    assert len(saved) == 2
    assert uids_of(further) in saved  # one that cannot have its name does not keep out the others
    assert sorted(report.ok for report in reports) == [False, True]
    (bad,) = (report for report in reports if not report.ok)
    assert bad.refused == bad.counts[Status.REFUSED] > 0
    assert bool(bad.missing) is listed


async def test_a_count_that_agrees_saves_the_list(connect: Connect, tmp_path: Path) -> None:
    def fault(request: Request) -> Reply | None:
        if request.path != "/studies":
            return None
        return counted(len(FILES))

    async with FaultyServer(MemoryArchive(FILES, fault)) as server, connect(server.url) as archive:
        report = await archive.download_study(STUDY, to=tmp_path)
    assert (report.ok, report.listing) == (True, "counted")
    assert files_below(tmp_path) == expected(*FILES)
    assert sorted(request.path for request in server.requests) == ["/studies", f"/studies/{STUDY}"]


async def test_a_second_download_fetches_only_what_is_missing(connect: Connect, tmp_path: Path) -> None:
    async with FaultyServer(MemoryArchive(FILES)) as server, connect(server.url) as archive:
        await archive.download_study(STUDY, to=tmp_path)
        (tmp_path / name_of(FILES[1])).unlink()
        (tmp_path / name_of(FILES[2])).write_bytes(FILES[2][:-1])
        before = len(server.requests)
        report = await archive.download_study(STUDY, to=tmp_path)
        third = await archive.download_study(STUDY, to=tmp_path)
    again = [one.path for one in server.requests[before:] if not is_search(one)]
    assert again == ["/studies/{}/series/{}/instances/{}".format(*one) for one in UIDS[1:]]
    assert report.already_present == (UIDS[0],)
    assert {one.uids for one in report.saved} == set(UIDS[1:])
    assert third.already_present == tuple(UIDS)
    assert files_below(tmp_path) == expected(*FILES)


async def test_study_retrieve_absent_goes_on_by_series_and_instance(connect: Connect, tmp_path: Path) -> None:
    for refused in (f"/studies/{STUDY}", f"/studies/{STUDY}/series/{uid(1, 1)}"):

        def fault(request: Request, refused: str = refused) -> Reply | None:
            return Reply(501) if refused.startswith(request.path) else None

        async with FaultyServer(MemoryArchive(FILES, fault)) as server, connect(server.url) as archive:
            report = await archive.download_study(STUDY, to=tmp_path / refused.replace("/", "_"))
        assert report.ok


async def test_unknown_study(connect: Connect, tmp_path: Path) -> None:
    async with FaultyServer(MemoryArchive([])) as server, connect(server.url) as archive:
        with pytest.raises(NotFound):
            await archive.download_study(STUDY, to=tmp_path / "out")
        with pytest.raises(NotFound):
            await archive.download_instance(*UIDS[0], to=tmp_path / "out")
    assert files_below(tmp_path) == {}


async def test_accept_ladder(connect: Connect, tmp_path: Path) -> None:
    """``transfer-syntax=*`` refused with 400, the quoted form with 406: the unquoted one is taken and remembered."""

    def fault(request: Request) -> Reply | None:
        accept = request.header("accept")
        if not accept.startswith("multipart/"):
            return None
        return Reply(400) if "transfer-syntax" in accept else Reply(406) if '"' in accept else None

    async with FaultyServer(MemoryArchive(FILES, fault)) as server, connect(server.url) as archive:
        report = await archive.download_study(STUDY, to=tmp_path)
        before = len(server.requests)
        await archive.retrieve_instance(*UIDS[0])
    assert (report.ok, report.transfer_syntax_as_stored) == (True, False)
    assert len(server.requests) == before + 1


async def test_reading_a_part_again_after_the_cut_still_raises(connect: Connect) -> None:
    """A caller who catches the error and reads on does not take what is there for the whole."""
    cut = multipart_related(FILES).reply(cut_after=700)
    async with FaultyServer(cut) as server, connect(server.url) as archive, archive.iter_study(STUDY) as parts:
        part = await anext(parts)
        for _ in range(2):
            with pytest.raises(PostdicomError):
                await part.read()


async def test_what_was_not_read_of_a_part_is_passed_over(connect: Connect) -> None:
    async with FaultyServer(multipart_related(FILES).reply()) as server, connect(server.url) as archive:
        async with archive.iter_study(STUDY) as parts:
            first = await anext(parts)
            second = await anext(parts)
            assert await second.read() == FILES[1]
            assert await first.read() == b""
        with pytest.raises((ConnectionFailed, ProtocolError)):
            await archive.retrieve_instance(*InstanceUids(*UIDS[0]))


ODD_COUNTS = [0, 3, -1, "3", "x", None, 10**30]


# A count that is wrong by as much as is missing cannot be told from a right one.
@pytest.mark.parametrize(("counted", "skipped"), [(2, 0), *((count, n) for count in ODD_COUNTS for n in (0, 1))])
async def test_a_count_of_fewer_or_of_nonsense_changes_nothing(
    counted: Any, skipped: int, connect: Connect, tmp_path: Path
) -> None:
    """The archive counts rightly or too few and sends all or less: in the end everything that it lists is there."""
    numbers = {"0020000D": {"vr": "UI", "Value": [STUDY]}, "00201208": {"vr": "IS", "Value": [counted]}}

    def fault(request: Request) -> Reply | None:
        if request.path == "/studies":
            return json_reply([numbers])
        return multipart_related(FILES[skipped:]).reply() if request.path == f"/studies/{STUDY}" else None

    async with FaultyServer(MemoryArchive(FILES, fault)) as server, connect(server.url) as archive:
        report = await archive.download_study(STUDY, to=tmp_path)
    assert report.ok
    assert files_below(tmp_path) == expected(*FILES)


@pytest.mark.parametrize("fault", [Reply(400), Reply(404), Reply(501), Reply(200, body=b"<html>"), Reply(204)])
async def test_an_archive_that_cannot_count(fault: Reply, connect: Connect, tmp_path: Path) -> None:
    def answer(request: Request) -> Reply | None:
        return fault if request.path in ("/studies", f"/studies/{STUDY}/series") else None

    async with FaultyServer(MemoryArchive(FILES, answer)) as server, connect(server.url) as archive:
        assert (await archive.download_study(STUDY, to=tmp_path / "a")).listing == "compared"
        assert (await archive.download_series(STUDY, uid(1, 1), to=tmp_path / "b")).listing == "compared"
