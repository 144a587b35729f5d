"""``postdicom doctor``: what it finds, that it only reads, and that its report holds nothing private."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from postdicom_async import POSTDICOM, Dialect, DicomWeb, PostDicom, Wire, diagnose
from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from tests.cli.conftest import Cli, Ran
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import small_dicom, uid
from tests.support.exchange import Reply, Request
from tests.support.faulty_server import FaultyServer, unused_port

READS = {"/searchfolder", "/getpatientorderlist", "/getpatientorderproperties"}
MARKS = {"documented", "C# sample", "Node sample", "PS3.18", "assumed"}
ORDER, INSTITUTION = "0b6a1c52-1111-4222-8333-444455556666", "0b6a1c52-7777-4222-8333-444455556666"


async def _fill(archive: EmbeddedArchive, folder: Path, studies: int = 3) -> None:
    paths = [folder / f"{number}.dcm" for number in range(studies)]
    for number, path in enumerate(paths, 50):
        path.write_bytes(small_dicom(uid(number), uid(number, 1), uid(number, 1, 1)))
    await archive.add(paths)


def found_in(document: Any) -> dict[str, str]:
    """Return what was found, by check, with the verdict in front."""
    return {one["check"]: f"{one['verdict']}: {one['found']}" for one in document["findings"]}


@pytest.mark.parametrize("dialect", ["dicomweb", "postdicom"])
async def test_a_good_archive(cli_with_archive: Cli, embedded_archive: Any, tmp_path: Path, dialect: str) -> None:
    await _fill(embedded_archive, tmp_path)
    ran = await cli_with_archive.here("doctor", "--json", "--dialect", dialect)
    assert ran.code == 0
    document = ran.json
    assert document["usable"] is True
    assert document["about"]["dialect"] == dialect
    found = found_in(document)
    assert found["limit"] == found["offset"] == "ok: honoured"
    assert found["results a page"] == "ok: 3 results for 1000"
    assert found["instance"] == "ok: 200, multipart/related, DICOM"
    assert found["Accept header"].startswith("ok: the first")
    assert found["reason of a failure"] == "ok: X-Error-Reason"
    assert found["search without a match"] == "ok: 200, application/dicom+json, 0 results"
    assert set(document["findings"][0]) == {"area", "check", "verdict", "found", "assumed", "marks", "switch"}
    assert {mark for one in document["findings"] for mark in one["marks"]} <= MARKS
    people = await cli_with_archive.here("doctor", "--dialect", dialect)
    assert "URL shapes" in people.out
    assert people.err == "this archive can be used with these settings\n"
    assert all(check in people.out for check in found)


@pytest.mark.parametrize("dialect", ["dicomweb", "postdicom"])
async def test_what_changes_an_assumption_is_said_in_options(
    cli_with_archive: Cli, embedded_archive: Any, dialect: str
) -> None:
    """And the options are taken: those that name a value as they stand."""
    shown = (await cli_with_archive.here("doctor", "--dialect", dialect)).out.partition("is changed by")[2]
    given = dict(re.findall(r"-o (\w+)=(\S+)", shown))
    assert set(given) >= {"filter_form", "url_bytes"}
    assert "replace(DICOMWEB" not in shown
    options = [f"--option={name}={value}" for name, value in given.items() if value != "…"]
    assert options
    ran = await cli_with_archive.here("search", "studies", "--dialect", dialect, *options)
    assert ran.code == 0, ran.err


async def test_every_assumption_is_in_the_report(embedded_archive: Any) -> None:
    """Routes and fields of the dialect, and fields of Wire; each with a mark and with how to switch it."""
    async with PostDicom(embedded_archive.url, *embedded_archive.auth) as archive:
        report = await diagnose(archive)
    switches = "\n".join(one.switch for one in report.findings)
    for name in [f"Route.{route.name}:" for route in POSTDICOM.routes] + [
        f"Wire({field.name}=" for field in fields(Wire)
    ]:
        assert switches.count(name) == 1
    for field in fields(Dialect):
        assert field.name == "name" or f"{field.name}=" in switches
    assert all(one.marks and one.switch for one in report.findings if one.assumed)
    assert all(one.found for one in report.findings)


async def test_operations(cli_with_archive: Cli, embedded_archive: Any, tmp_path: Path) -> None:
    await _fill(embedded_archive, tmp_path)
    await cli_with_archive.here("folders", "create", "--name", "a")
    before = len(embedded_archive.vendor_calls)
    found = found_in((await cli_with_archive.here("doctor", "--json", "--dialect", "postdicom")).json)
    assert {f"/{call.operation}" for call in embedded_archive.vendor_calls[before:]} == READS
    assert found["searchfolder"] == "ok: 200, application/json, a JSON object, 1 result"
    assert found["getpatientorderproperties"].startswith("ok: 200")
    assert found["answer of searchfolder"].startswith("ok: 5 of 5")
    assert found["names in any script"].startswith("ok")
    assert found["bytes of parameters"].startswith("ok: about 7")
    assert found["the other eight"].startswith("unknown: not tried")
    assert found["deleteorder"].startswith("unknown: not tried")
    assert found["a list not given"] == "ok: taken"


# --- other habits ---------------------------------------------------------------------------------------------------


async def test_a_hidden_page_limit_and_204(cli: Cli, tmp_path: Path) -> None:
    async with EmbeddedArchive(
        tmp_path / "archive", options=ArchiveOptions(max_page=2, no_match_status=204)
    ) as archive:
        await _fill(archive, tmp_path)
        cli.use(archive)
        found = found_in((await cli.here("doctor", "--json")).json)
    assert found["results a page"] == "ok: hidden: 2 where 1000 were asked for, with a Warning header"
    assert found["search without a match"] == "ok: 204, 0 results"


def _study(number: int = 1) -> dict[str, Any]:
    return {"0020000D": {"vr": "UI", "Value": [uid(number)]}, "00080020": {"vr": "DA", "Value": ["20240131"]}}


def _json(items: list[Any]) -> Reply:
    return Reply(200, headers={"Content-Type": "application/dicom+json"}, body=json.dumps(items).encode())


async def _examine(cli: Cli, script: Callable[[Request], Reply], *arguments: str) -> tuple[Ran, dict[str, str]]:
    cli.environment |= {"POSTDICOM_USERNAME": "u", "POSTDICOM_PASSWORD": "p"}
    async with FaultyServer(script) as server:
        ran = await cli.here("doctor", "--json", "--url", server.url, "--attempts", "1", *arguments)
    return ran, found_in(ran.json)


async def test_paging_that_is_ignored_and_keys_too(cli: Cli) -> None:
    def everything(request: Request) -> Reply:
        return _json([_study(1), _study(2), _study(3)]) if request.path == "/studies" else Reply(404)

    ran, found = await _examine(cli, everything)
    assert ran.code == 1
    assert found["limit"] == "differs: ignored: 3 results for 2"
    assert found["offset"] == "differs: ignored, or the order changes"
    assert found["search by keyword"].startswith("differs: ignored")
    assert found["search by tag"].startswith("note: ignored")
    assert found["filters are written as"] == "differs: neither keywords nor tags are heeded"
    assert found["reason of a failure"] == "note: none"


async def test_an_empty_archive_that_answers_without_a_body(cli: Cli) -> None:
    ran, found = await _examine(cli, lambda _: Reply(204))
    assert ran.code == 0
    assert found["type of a search's answer"].startswith("unknown")
    assert found["search without a match"] == "ok: 204, 0 results"


async def test_paging_that_is_refused(cli: Cli) -> None:
    def no_paging(request: Request) -> Reply:
        return Reply(400) if "limit" in request.target else _json([])

    ran, found = await _examine(cli, no_paging)
    assert ran.code == 0
    assert found["limit"] == "ok: refused with 400; an answer without"
    assert found["instance"] == "unknown: not tried: nothing was found to ask about"


async def test_the_other_dialect(cli: Cli) -> None:
    def standard_only(request: Request) -> Reply:
        level = {
            "/studies": _study(),
            f"/studies/{uid(1)}/series": {"0020000E": {"vr": "UI", "Value": [uid(1, 1)]}},
        }.get(request.path)
        return _json([level]) if level else Reply(404)

    ran, found = await _examine(cli, standard_only, "--dialect", "postdicom")
    assert ran.code == 1
    assert "postdicom dialect" in ran.err
    assert "it does in those of dicomweb" in ran.err
    assert found["search series of a study"].startswith("differs: 404")
    assert found["search series of a study, as in the dicomweb dialect"].startswith("note: 200")
    assert uid(1) not in ran.out + ran.err


async def test_ways_of_writing_parameters(cli: Cli) -> None:
    def wants_none_left_empty(request: Request) -> Reply:
        if request.path == "/searchfolder":
            fine = '""' not in request.header("SearchFolderParameters")
            return Reply(200, body=b'{"FolderList": []}') if fine else Reply(400)
        return _json([]) if request.path == "/studies" else Reply(404)

    _, found = await _examine(cli, wants_none_left_empty, "--dialect", "postdicom")
    assert found["parameters not given go out empty"] == "differs: refused; taken with sends_empty=False"


@pytest.mark.parametrize("taken", ["[]", '[""]', ""])
async def test_ways_of_writing_a_list_that_is_not_given(cli: Cli, taken: str) -> None:
    def wants_one_way(request: Request) -> Reply:
        if request.path == "/getpatientorderlist":
            found = json.loads(request.header("GetPatientOrderListParameters"))
            return Reply(200, body=b"[]") if found["ModalityList"] == taken else Reply(400)
        return _json([]) if request.path in ("/studies", "/searchfolder") else Reply(404)

    _, found = await _examine(cli, wants_one_way, "--dialect", "postdicom")
    other = f"differs: refused; taken with absent_list={taken!r}"
    assert found["a list not given"] == ("ok: taken" if taken == "[]" else other)
    assert found["parameters not given go out empty"] == "ok: taken"


async def test_the_doctor_names_the_sample_that_shows_an_operation(embedded_archive: Any) -> None:
    """The Node sample has neither orders, properties, tags nor delete."""
    async with PostDicom(embedded_archive.url, *embedded_archive.auth) as archive:
        report = await diagnose(archive)
    marks = {one.check: set(map(str, one.marks)) for one in report.findings}
    for one in ("getpatientorderlist", "getpatientorderproperties", "getdicomtagcontent", "deleteorder"):
        assert marks[one] == {"C# sample", "documented"}
    assert marks["searchfolder"] == marks["the other eight"] == {"C# sample", "Node sample", "documented"}


@pytest.mark.parametrize(
    ("reply", "code", "check", "text"),
    [
        (Reply(401), 4, "credentials", "differs: refused, 401"),
        (Reply(404), 3, "search studies", "differs: no search result, 404"),
        (Reply(503), 5, "search studies", "differs: no search result, 503"),
        (Reply(200, body=b"<html>"), 1, "search studies", "differs: no search result, 200"),
        (Reply(drop_after_request=True), 5, "the service answers", "differs: no: the connection broke"),
    ],
)
async def test_what_cannot_be_used(cli: Cli, reply: Reply, code: int, check: str, text: str) -> None:
    ran, found = await _examine(cli, lambda _request: reply)
    assert ran.code == code
    assert found[check] == text
    assert ran.error_line
    assert ran.json["usable"] is False


async def test_nobody_there(cli: Cli) -> None:
    ran = await cli.here("doctor", "--url", f"http://127.0.0.1:{unused_port()}", "--attempts", "1")
    assert ran.code == 5
    assert "refused" in ran.out
    assert "refused" in ran.error_line


async def test_encryption(cli: Cli, tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    async with FaultyServer(_json([]), ssl_context=context) as server:
        good = await cli.here("doctor", "--json", "--url", server.url, "--ca-file", ca_file)
        unknown = await cli.here("doctor", "--json", "--url", server.url)
    assert found_in(good.json)["encryption"].startswith("ok: TLSv1.3, certificate good for ")
    assert unknown.code == 1
    assert "--ca-file" in unknown.error_line
    assert "could not be verified" in found_in(unknown.json)["the service answers"]


# --- private, and only reading --------------------------------------------------------------------------------------


def _leaky(request: Request) -> Reply:
    """Answer everything, and put canaries wherever they fit."""
    said = {"X-Error-Reason": " ".join(CANARIES.values()), "Warning": f'299 - "{CANARIES["server_reason"]}"'}
    path = request.path.removeprefix(f"/{CANARIES['path']}")
    name = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": CANARIES["patient_name"]}]}}
    items = {
        "/studies": {**_study(), **name, CANARIES["patient_id"]: {"vr": CANARIES["patient_id"]}},
        "/studies/series": {"0020000E": {"vr": "UI", "Value": [uid(1, 1)]}, **name},
        "/studies/series/instances": {"00080018": {"vr": "UI", "Value": [uid(1, 1, 1)]}, **name},
    }
    order = {"PatientOrderUuid": ORDER, "InstitutionUuid": INSTITUTION, "PatientName": CANARIES["patient_name"]}
    if path in READS:
        content = {"Message": CANARIES["server_reason"], "List": [{**order, CANARIES["accession"]: 1}]}
        return Reply(200, headers=said, body=json.dumps(content).encode())
    if path in items:
        kind = {"Content-Type": f"application/dicom+json; x={CANARIES['header']}"}
        return Reply(200, headers=said | kind, body=json.dumps([items[path]]).encode())
    if path.endswith(uid(1, 1, 1)):
        kind = {"Content-Type": f"multipart/related; boundary={CANARIES['header']}"}
        return Reply(200, headers=said | kind, body=b"DICM" + CANARIES["patient_name"].encode())
    return Reply(
        404, headers=said | {"Content-Type": f"text/{CANARIES['header']}"}, body=said["X-Error-Reason"].encode()
    )


@pytest.mark.parametrize("dialect", ["dicomweb", "postdicom"])
async def test_the_report_is_clean_and_nothing_is_changed(cli: Cli, dialect: str) -> None:
    cli.environment |= {"POSTDICOM_USERNAME": CANARIES["username"], "POSTDICOM_PASSWORD": CANARIES["password"]}
    watch = CanaryWatch()
    async with FaultyServer(_leaky) as server:
        address = f"{server.url}/{CANARIES['path']}"
        runs = [await cli.here("doctor", *form, "--dialect", dialect, "--url", address) for form in ([], ["--json"])]
        requests = server.requests
    for ran in runs:
        watch.feed_text(ran.out, "the report")
        assert not [
            one for one in (uid(), ORDER, INSTITUTION, "127.0.0.1", str(urlsplit(address).port)) if one in ran.out
        ]
    watch.assert_clean()

    assert {request.method for request in requests} == {"GET"}
    assert not any(request.body for request in requests)
    paths = {request.path.removeprefix(f"/{CANARIES['path']}") for request in requests}
    operations = {path for path in paths if not path.startswith("/studies")}
    assert operations == (READS if dialect == "postdicom" else set())
    named = {name for request in requests for name, _ in request.headers if name.lower().endswith("parameters")}
    assert len(named) == (3 if dialect == "postdicom" else 0)


async def test_a_dialect_of_the_callers_own_stays_out() -> None:
    own = Dialect(CANARIES["path"], {**POSTDICOM.routes})
    async with FaultyServer(_leaky) as server, DicomWeb(server.url, dialect=own) as archive:
        report = await diagnose(archive)
    watch = CanaryWatch()
    watch.feed_text(json.dumps(report.document()))
    watch.assert_clean()
    assert report.about["dialect"] == "custom"
