from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import httpx
import pytest
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.uid import CTImageStorage, MRImageStorage

from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from tests.emulator.support import (
    FAILED,
    STORED,
    STOW_TYPE,
    client_of,
    encode,
    make_dataset,
    make_instance,
    reasons_in,
    related,
    store,
    uids_in,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

INSTANCE = make_instance()


async def stored_files(archive: EmbeddedArchive) -> list[bytes]:
    return [found.path.read_bytes() for found in archive.store.instances()]


def left_incoming(archive: EmbeddedArchive) -> list[str]:
    return [path.name for path in (archive.folder / "incoming").iterdir()]


@pytest.mark.parametrize("path", ["/", "", "/studies", "/studies/", "/studies/1.2.3"])
async def test_an_instance_is_stored_byte_for_byte(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, path: str
) -> None:
    answer = await store(client, INSTANCE, path=path)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    assert answer.json() == {
        "00081190": {"vr": "UR", "Value": [f"{embedded_archive.url}/studies/1.2.3"]},
        "00081199": {
            "vr": "SQ",
            "Value": [
                {
                    "00081150": {"vr": "UI", "Value": [CTImageStorage]},
                    "00081155": {"vr": "UI", "Value": ["1.2.3.1.1"]},
                    "00081190": {
                        "vr": "UR",
                        "Value": [f"{embedded_archive.url}/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1"],
                    },
                }
            ],
        },
    }
    assert await stored_files(embedded_archive) == [INSTANCE]
    assert left_incoming(embedded_archive) == []


@pytest.mark.parametrize("boundary", ["DICOM DATA BOUNDARY", "a", "x'()+_,-./:=?y", "b" * 70])
async def test_a_boundary_may_hold_what_the_standard_allows(client: httpx.AsyncClient, boundary: str) -> None:
    answer = await store(client, INSTANCE, boundary=boundary)

    assert answer.status_code == 200


async def test_a_body_may_come_in_any_pieces(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    body = b"\r\n" + related([INSTANCE, make_instance(instance="1.2.3.1.2")])

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 7):
            yield body[at : at + 7]

    answer = await client.post("/studies", content=pieces(), headers={"Content-Type": STOW_TYPE.format("limit")})

    assert answer.status_code == 200
    assert uids_in(answer) == ["1.2.3.1.1", "1.2.3.1.2"]
    assert len(await stored_files(embedded_archive)) == 2


async def test_outcomes_come_in_the_order_of_the_parts(client: httpx.AsyncClient) -> None:
    uids = [f"1.2.3.1.{number}" for number in range(40)]

    answer = await store(client, *(make_instance(instance=uid) for uid in uids))

    assert uids_in(answer) == uids


async def test_some_failed_is_202_and_each_failure_has_its_reason(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient
) -> None:
    answer = await store(
        client,
        INSTANCE,
        b"not DICOM at all",
        b"",
        INSTANCE[:200],
        make_instance("9.9", "9.9.1", "9.9.1.1"),
        make_instance(instance="1.2.3.1.4"),
        path="/studies/1.2.3",
    )

    assert answer.status_code == 202
    assert uids_in(answer, STORED) == ["1.2.3.1.1", "1.2.3.1.4"]
    assert uids_in(answer, FAILED) == ["", "", "", "9.9.1.1"]
    assert reasons_in(answer) == [0xC000, 0xC000, 0xC000, 0xA900]
    assert left_incoming(embedded_archive) == []


async def test_none_stored_is_409(client: httpx.AsyncClient) -> None:
    answer = await store(client, b"rubbish")

    assert answer.status_code == 409
    assert answer.headers["x-error-reason"]
    assert reasons_in(answer) == [0xC000]
    assert STORED not in answer.json()


@pytest.mark.filterwarnings("ignore:.* VR UI")  # while writing the file
@pytest.mark.parametrize("uid", ["1.2.3.", "../../escape", "1.2/3", "1..2", "1.2.", "1" * 65, "abc", "1.2\\1.3"])
async def test_a_malformed_uid_is_refused_and_nothing_leaves_the_folder(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, uid: str
) -> None:
    ds = make_dataset()
    ds["SOPInstanceUID"] = DataElement("SOPInstanceUID", "UI", uid, validation_mode=IGNORE)
    part = encode(ds)

    answer = await store(client, part)

    assert answer.status_code == 409
    assert reasons_in(answer) == [0xC000]
    assert uids_in(answer, FAILED) == [""]
    assert embedded_archive.store.instances() == []
    assert not list(embedded_archive.folder.rglob("*.dcm"))


async def test_refused_sop_classes_get_0122() -> None:
    async with (
        EmbeddedArchive(options=ArchiveOptions(refused_sop_classes=[CTImageStorage])) as archive,
        client_of(archive) as client,
    ):
        answer = await store(client, INSTANCE, make_instance(instance="1.2.3.1.9", SOPClassUID=MRImageStorage))

    assert answer.status_code == 202
    assert reasons_in(answer) == [0x0122]


async def test_the_same_bytes_again_change_nothing(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient
) -> None:
    await store(client, INSTANCE)
    before = embedded_archive.store.instances()[0].path.stat()

    answer = await store(client, INSTANCE)

    after = embedded_archive.store.instances()[0].path.stat()
    assert answer.status_code == 200
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


async def test_other_bytes_replace_the_file(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    await store(client, INSTANCE)
    changed = make_instance(PatientName="New^Name")

    answer = await store(client, changed)

    assert answer.status_code == 200
    assert await stored_files(embedded_archive) == [changed]
    assert len(list(embedded_archive.folder.rglob("*.dcm"))) == 1
    (study,) = (await client.get("/studies")).json()
    assert study["00100010"]["Value"] == [{"Alphabetic": "New^Name"}]


async def test_an_instance_may_move_to_another_study(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient
) -> None:
    await store(client, INSTANCE)

    await store(client, make_instance("1.2.4", "1.2.4.1", "1.2.3.1.1"))

    studies = (await client.get("/studies")).json()
    assert [study["0020000D"]["Value"] for study in studies] == [["1.2.4"]]
    assert not (embedded_archive.folder / "studies" / "1.2.3").exists()


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("", 400),
        ("multipart/related", 400),
        ("multipart/related; type=application/dicom", 400),
        ('multipart/related; type="application/dicom"; boundary=""', 400),
        ("application/dicom", 415),
        ("application/json", 415),
        ("multipart/form-data; boundary=limit", 415),
        ('multipart/related; type="application/dicom+json"; boundary=limit', 415),
        ("multipart/related; boundary=limit", 200),
        ("Multipart/Related;Type=APPLICATION/DICOM;Boundary=limit", 200),
    ],
)
async def test_the_content_type_decides(client: httpx.AsyncClient, content_type: str, status: int) -> None:
    answer = await client.post("/studies", content=related([INSTANCE]), headers={"Content-Type": content_type})

    assert answer.status_code == status
    assert bool(answer.headers.get("x-error-reason")) == (status != 200)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary anywhere",
        b"--limit--\r\n",
        related([INSTANCE])[:-12],
        related([INSTANCE], "other"),
        b"--limit\r\nContent-Type application/dicom\r\n\r\nx\r\n--limit--\r\n",
        b"--limit\r\n" + b"X: " + b"y" * 100_000,
        b"--limit\r\nContent-Length: 5\r\n\r\nx\r\n--limit--\r\n",
    ],
    ids=range(8),
)
async def test_a_broken_multipart_body_is_400(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, body: bytes
) -> None:
    answer = await client.post("/studies", content=body, headers={"Content-Type": STOW_TYPE.format("limit")})

    assert answer.status_code == 400
    assert answer.headers["x-error-reason"]
    assert left_incoming(embedded_archive) == []


async def test_a_study_in_the_path_that_is_no_uid_is_400(client: httpx.AsyncClient) -> None:
    answer = await store(client, INSTANCE, path="/studies/abc")

    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/dicom+json", "application/dicom+json"),
        ("application/json", "application/dicom+json"),
        ("*/*", "application/dicom+json"),
        ("application/dicom+xml", "application/dicom+xml"),
        ("application/dicom+xml, application/dicom+json;q=0.1", "application/dicom+json"),
    ],
)
async def test_the_answer_is_json_unless_only_xml_is_accepted(
    client: httpx.AsyncClient, accept: str, media_type: str
) -> None:
    answer = await store(client, INSTANCE, Accept=accept)

    assert answer.headers["content-type"] == media_type


async def test_the_xml_answer_is_a_native_dicom_model(client: httpx.AsyncClient) -> None:
    answer = await store(client, INSTANCE, b"rubbish", Accept="application/dicom+xml")

    space = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
    root = ET.fromstring(answer.content)
    by_keyword = {element.get("keyword"): element for element in root}
    stored = {item.get("keyword"): item[0].text for item in by_keyword["ReferencedSOPSequence"][0]}
    failed = {item.get("keyword"): item[0].text for item in by_keyword["FailedSOPSequence"][0]}
    assert root.tag == f"{space}NativeDicomModel"
    assert stored["ReferencedSOPInstanceUID"] == "1.2.3.1.1"
    assert failed == {"FailureReason": str(0xC000)}


async def test_a_client_that_goes_away_leaves_nothing(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient
) -> None:
    started = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"--limit\r\n\r\n" + INSTANCE
        for _ in range(1000):
            yield bytes(256 * 1024)
            started.set()
            await asyncio.sleep(0.001)

    sending = asyncio.create_task(
        client.post("/studies", content=endless(), headers={"Content-Type": STOW_TYPE.format("limit")})
    )
    await started.wait()
    await asyncio.sleep(0.05)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)

    async with asyncio.timeout(3):
        while left_incoming(embedded_archive):
            await asyncio.sleep(0.01)
    assert embedded_archive.store.instances() == []


async def test_many_uploads_at_once(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    parts = [make_instance("1.2.3", f"1.2.3.{n % 5}", f"1.2.3.{n % 5}.{n}", InstanceNumber=n) for n in range(120)]

    answers = await asyncio.gather(*(store(client, *parts[at : at + 3]) for at in range(0, 120, 3)))

    assert {answer.status_code for answer in answers} == {200}
    assert sorted(await stored_files(embedded_archive)) == sorted(parts)
    (study,) = (await client.get("/studies")).json()
    assert study["00201208"]["Value"] == [120]
    assert study["00201206"]["Value"] == [5]


async def test_the_same_instance_uploaded_many_times_at_once_is_there_once(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient
) -> None:
    versions = [make_instance(PatientID=f"P{n}") for n in range(12)]

    answers = await asyncio.gather(*(store(client, version) for version in versions))

    assert {answer.status_code for answer in answers} == {200}
    (kept,) = await stored_files(embedded_archive)
    assert kept in versions
    assert len(list(embedded_archive.folder.rglob("*.dcm"))) == 1
