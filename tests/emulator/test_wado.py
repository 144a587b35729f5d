from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.emulator.samples import write_benchmark_series
from tests.emulator.support import TEST_FILES, encode, make_instance, parts_of, store, with_pixels

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO, THREE = (make_instance("1.2", f"1.2.{n}", f"1.2.{n}.1", InstanceNumber=n) for n in (1, 2, 3))
INSTANCE_PATH = "/studies/1.2/series/1.2.1/instances/1.2.1.1"
DICOM = f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/studies/1.2", [ONE, TWO, THREE]),
        ("/studies/1.2/", [ONE, TWO, THREE]),
        ("/studies/1.2/series/1.2.2", [TWO]),
        (INSTANCE_PATH, [ONE]),
        ("/studies/series/1.2.2", [TWO]),
        ("/studies/series/instances/1.2.3.1", [THREE]),
        ("/studies/series/instances/1.2.3.1/", [THREE]),
    ],
)
async def test_both_shapes_give_the_stored_bytes(client: httpx.AsyncClient, path: str, expected: list[bytes]) -> None:
    for part in (ONE, TWO, THREE):
        await store(client, part)

    answer = await client.get(path)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert int(answer.headers["content-length"]) == len(answer.content)
    parts = parts_of(answer)
    assert [part.body for part in parts] == expected
    assert {part.headers["Content-Type"] for part in parts} == {DICOM}


async def test_all_of_pydicoms_files_come_back_byte_for_byte(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient
) -> None:
    files = {path.read_bytes() for path in TEST_FILES}
    for path in TEST_FILES:
        assert (await store(client, path.read_bytes())).status_code == 200, path.name

    answers = [await client.get(study["00081190"]["Value"][0]) for study in (await client.get("/studies")).json()]

    assert {part.body for answer in answers for part in parts_of(answer)} == files
    for found in (await client.get("/instances", params={"includefield": "all"})).json():
        metadata = await client.get(found["00081190"]["Value"][0] + "/metadata")
        assert metadata.json()[0]["00080018"] == found["00080018"]


async def test_large_files_go_in_pieces(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    sizes = [3_500_000, 1_048_576, 2_000, 2_097_152]
    files = [write_benchmark_series(tmp_path / str(n), 1, size, seed=n)[0] for n, size in enumerate(sizes)]
    await embedded_archive.add(files)

    for path in files:
        uid = dcmread(path, stop_before_pixels=True).SOPInstanceUID
        (part,) = parts_of(await client.get(f"/studies/series/instances/{uid}"))
        assert part.body == path.read_bytes()


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "multipart/related"),
        ("*/*", "multipart/related"),
        ("multipart/related", "multipart/related"),
        ('multipart/related; type="application/dicom"', "multipart/related"),
        ('multipart/related; type="application/dicom"; transfer-syntax=*', "multipart/related"),
        ("multipart/related;type=application/dicom;transfer-syntax=1.2.840.10008.1.2.1", "multipart/related"),
        ("application/dicom", "application/dicom"),
        ("application/dicom; transfer-syntax=*", "application/dicom"),
        ('application/dicom, multipart/related; type="application/dicom";q=0.5', "application/dicom"),
        ("application/dicom;q=0.1, multipart/related", "multipart/related"),
        ('multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.50', None),
        ("application/dicom; transfer-syntax=1.2.840.10008.1.2.4.50", None),
        ('multipart/related; type="application/octet-stream"', None),
        ("image/jpeg", None),
        ("text/html", None),
    ],
)
async def test_accept_is_honoured_or_406(client: httpx.AsyncClient, accept: str, content_type: str | None) -> None:
    await store(client, ONE)

    answer = await client.get(INSTANCE_PATH, headers={"Accept": accept})
    by_parameter = await client.get(INSTANCE_PATH, params={"accept": accept}, headers={"Accept": "nothing/else"})

    assert answer.status_code == (200 if content_type else 406)
    if content_type:
        assert answer.headers["content-type"].startswith(content_type)
        assert ONE in answer.content
    else:
        assert answer.headers["x-error-reason"]
    if accept:
        assert by_parameter.status_code == answer.status_code


async def test_a_single_part_is_exactly_the_file(client: httpx.AsyncClient) -> None:
    await store(client, ONE)

    answer = await client.get(INSTANCE_PATH, headers={"Accept": "application/dicom"})

    assert answer.content == ONE
    assert answer.headers["content-type"] == DICOM
    assert answer.headers["content-length"] == str(len(ONE))


async def test_a_study_never_comes_as_a_single_part(client: httpx.AsyncClient) -> None:
    await store(client, ONE)

    assert (await client.get("/studies/1.2", headers={"Accept": "application/dicom"})).status_code == 406


@pytest.mark.parametrize(
    "path",
    [
        "/studies/9.9",
        "/studies/9.9/series/1.2.1",
        "/studies/1.2/series/9.9",
        "/studies/1.2/series/1.2.2/instances/1.2.1.1",
        "/studies/series/9.9",
        "/studies/series/instances/9.9",
        "/studies/9.9/metadata",
        f"{INSTANCE_PATH}/frames/1",
        f"{INSTANCE_PATH}/bulkdata/7FE00010",
        f"{INSTANCE_PATH}/bulkdata/nonsense",
        f"{INSTANCE_PATH}/bulkdata/00081115/1",
        "/nothing/here",
    ],
)
async def test_what_is_not_there_is_404(client: httpx.AsyncClient, path: str) -> None:
    await store(client, ONE)

    answer = await client.get(path)

    assert answer.status_code == 404
    assert answer.headers["x-error-reason"]


@pytest.mark.parametrize(
    "path",
    [
        "/studies/..%2F..%2Fetc",
        "/studies/%2e%2e/%2e%2e/index.sqlite",
        "/studies/1.2%00",
        "/studies/1.2%0A",
        "/studies/" + "1" * 65,
        "/studies/1..2",
        "/studies/\uff11.\uff12",
        "/studies/series/instances/..%5C..%5Cindex.sqlite",
        "/studies/1.2/series/1.2.1/instances/*",
    ],
)
async def test_no_path_leaves_the_archive(client: httpx.AsyncClient, path: str) -> None:
    await store(client, ONE)

    for method in ("GET", "DELETE"):
        answer = await client.request(method, path)
        assert answer.status_code in {400, 404, 405}
        assert b"SQLite" not in answer.content


async def test_metadata_hold_every_value_and_addresses_for_large_ones(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient
) -> None:
    item = Dataset()
    item.add_new(0x00282000, "OB", b"i" * 3000)
    ds = with_pixels("1.2", "1.2.1", "1.2.1.1", PatientName="Święty^Łukasz", OpticalPathSequence=[item])
    ds.add_new(0x00282000, "OB", b"p" * 2000)
    ds.add_new(0x00091001, "OB", b"q" * 200_000)
    ds.add_new(0x00091002, "OB", b"small!")
    data = encode(ds)
    await store(client, data)

    (found,) = (await client.get(f"{INSTANCE_PATH}/metadata")).json()

    base = f"{embedded_archive.url}{INSTANCE_PATH}/bulkdata"
    assert found["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Święty^Łukasz"}]}
    assert found["00091002"] == {"vr": "OB", "InlineBinary": "c21hbGwh"}
    assert found["7FE00010"] == {"vr": "OW", "BulkDataURI": f"{base}/7FE00010"}
    assert found["00282000"] == {"vr": "OB", "BulkDataURI": f"{base}/00282000"}
    nested = found["00480105"]["Value"][0]["00282000"]["BulkDataURI"]
    expected = {
        found["7FE00010"]["BulkDataURI"]: ds.PixelData,
        found["00282000"]["BulkDataURI"]: b"p" * 2000,
        found["00091001"]["BulkDataURI"]: b"q" * 200_000,
        nested: b"i" * 3000,
    }
    for uri, value in expected.items():
        (part,) = parts_of(await client.get(uri))
        assert part.body == value
        single = await client.get(uri, headers={"Accept": "application/octet-stream"})
        assert single.content == value


async def test_metadata_of_a_study_and_a_series(client: httpx.AsyncClient) -> None:
    for part in (ONE, TWO, THREE):
        await store(client, part)

    study = (await client.get("/studies/1.2/metadata")).json()
    series = (await client.get("/studies/1.2/series/1.2.3/metadata/")).json()
    refused = await client.get("/studies/1.2/metadata", headers={"Accept": "application/dicom+xml"})

    assert [one["00080018"]["Value"][0] for one in study] == ["1.2.1.1", "1.2.2.1", "1.2.3.1"]
    assert series == [study[2]]
    assert refused.status_code == 406


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
async def test_native_frames_are_cut_out(client: httpx.AsyncClient, syntax: UID) -> None:
    ds = with_pixels("1.2", "1.2.1", "1.2.1.1", frames=3)
    pixels = ds.PixelData
    await store(client, encode(ds, syntax))

    parts = parts_of(await client.get(f"{INSTANCE_PATH}/frames/3,1"))
    single = await client.get(f"{INSTANCE_PATH}/frames/2", headers={"Accept": "application/octet-stream"})

    assert [part.body for part in parts] == [pixels[64:96], pixels[:32]]
    assert parts[0].headers["Content-Type"] == f"application/octet-stream; transfer-syntax={syntax}"
    assert single.content == pixels[32:64]


async def test_encapsulated_frames_are_taken_apart(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient
) -> None:
    by_name = {path.name: path for path in TEST_FILES}
    path = by_name["examples_ybr_color.dcm"]
    await embedded_archive.add([path])
    ds = dcmread(path)
    frames = list(generate_frames(ds.PixelData, number_of_frames=ds.NumberOfFrames))
    base = f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"

    parts = parts_of(await client.get(f"{base}/frames/2,1,{len(frames)}"))
    bulk = parts_of(await client.get(f"{base}/bulkdata/7FE00010"))

    assert [part.body for part in parts] == [frames[1], frames[0], frames[-1]]
    assert parts[0].headers["Content-Type"].startswith("image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50")
    assert [part.body for part in bulk] == frames


@pytest.mark.parametrize(
    ("numbers", "status"),
    [("0", 404), ("4", 404), ("1,9", 404), ("x", 400), ("1,,2", 400), ("-1", 400), ("99999999", 400)],
)
async def test_frames_that_are_not_there(client: httpx.AsyncClient, numbers: str, status: int) -> None:
    await store(client, encode(with_pixels("1.2", "1.2.1", "1.2.1.1", frames=3)))

    assert (await client.get(f"{INSTANCE_PATH}/frames/{numbers}")).status_code == status


async def test_pixel_data_shorter_than_the_header_says_are_no_frames(client: httpx.AsyncClient) -> None:
    ds = with_pixels("1.2", "1.2.1", "1.2.1.1", frames=3)
    ds.Rows = 512
    await store(client, encode(ds))

    answer = await client.get(f"{INSTANCE_PATH}/frames/1")

    assert answer.status_code == 500
    assert answer.headers["x-error-reason"]


@pytest.mark.parametrize(
    "path",
    [
        "/studies",
        "/instances?limit=1",
        "/studies/1.2",
        INSTANCE_PATH,
        f"{INSTANCE_PATH}/metadata",
        f"{INSTANCE_PATH}/frames/1",
        f"{INSTANCE_PATH}/bulkdata/7FE00010",
        f"{INSTANCE_PATH}/frames/9",
        "/studies/9",
        "/studies/x/metadata",
    ],
)
async def test_head_tells_what_get_does(client: httpx.AsyncClient, path: str) -> None:
    await store(client, encode(with_pixels("1.2", "1.2.1", "1.2.1.1", frames=3)))

    get, head = await client.get(path), await client.head(path)

    assert head.content == b""
    assert head.status_code == get.status_code
    for name in ("content-length", "x-error-reason"):
        assert head.headers.get(name) == get.headers.get(name)
    for name in ("content-type",):
        assert head.headers[name].partition("boundary=")[0] == get.headers[name].partition("boundary=")[0]


async def test_head_reads_no_file(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    await store(client, ONE)
    (stored,) = embedded_archive.store.instances()
    stored.path.unlink()

    assert (await client.head("/studies/1.2")).status_code == 200


async def test_delete_takes_what_is_named_and_no_more(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient
) -> None:
    more = make_instance("1.2", "1.2.1", "1.2.1.2")
    for part in (ONE, TWO, THREE, more):
        await store(client, part)

    assert (await client.delete(INSTANCE_PATH)).status_code == 204
    assert (await client.delete(INSTANCE_PATH)).status_code == 404
    assert [part.body for part in parts_of(await client.get("/studies/1.2/series/1.2.1"))] == [more]
    assert (await client.delete("/studies/1.2/series/1.2.1")).status_code == 204
    assert len((await client.get("/studies/1.2/series")).json()) == 2
    assert (await client.delete("/studies/1.2/")).status_code == 204
    assert (await client.get("/studies")).json() == []
    assert (await client.get("/series")).json() == []
    assert list((embedded_archive.folder / "studies").iterdir()) == []


async def test_a_file_replaced_during_its_download_is_never_mixed(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    first, second = (write_benchmark_series(tmp_path / str(n), 1, 24_000_000)[0] for n in (1, 2))
    changed = bytearray(second.read_bytes())
    changed[-20_000_000:] = bytes(20_000_000)
    second.write_bytes(changed)
    (stored,) = await embedded_archive.add([first])
    path = f"/studies/series/instances/{stored.uids.sop_instance_uid}"
    received = bytearray()

    try:
        async with client.stream("GET", path, headers={"Accept": "application/dicom"}) as answer:
            async for chunk in answer.aiter_raw():
                if not received:
                    await embedded_archive.add([second])
                received += chunk
    except httpx.RemoteProtocolError:
        assert first.read_bytes().startswith(received)  # cut, and the client is told
    else:
        assert received == first.read_bytes()


async def test_many_downloads_at_once(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    files = write_benchmark_series(tmp_path, 24, 200_000)
    (study, *_rest) = {stored.uids.study_instance_uid for stored in await embedded_archive.add(files)}

    answers = await asyncio.gather(*(client.get(f"/studies/{study}") for _ in range(8)))

    expected = [path.read_bytes() for path in files]
    assert all([part.body for part in parts_of(answer)] == expected for answer in answers)
