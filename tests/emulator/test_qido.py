from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio
from pydicom.dataset import Dataset

from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from postdicom_async.emulator.samples import PATIENTS, write_samples
from tests.emulator.support import client_of, make_instance, store, values

if TYPE_CHECKING:
    from pathlib import Path

STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"


@cache
def _instances() -> list[bytes]:
    """Return study 1.1 (CT: series .1 with 3, MR: series .2 with 1) and study 1.2 (US: series .1 with 2)."""
    first = {"PatientName": "Doe^John", "PatientID": "P1", "StudyDate": "20200110", "StudyTime": "101500"}
    second = {"PatientName": "Święty^Łukasz", "PatientID": "P2", "StudyDate": "20210305", "StudyTime": "233000.5"}
    mr = {"Modality": "MR", "SeriesNumber": 2, "SeriesDescription": "t2"}
    return [
        *(make_instance("1.1", "1.1.1", f"1.1.1.{n}", SeriesNumber=1, InstanceNumber=n, **first) for n in (1, 2, 3)),
        make_instance("1.1", "1.1.2", "1.1.2.1", InstanceNumber=1, **mr, **first),
        *(make_instance("1.2", "1.2.1", f"1.2.1.{n}", Modality="US", KVP=str(n), **second) for n in (1, 2)),
    ]


@pytest_asyncio.fixture
async def filled(client: httpx.AsyncClient) -> httpx.AsyncClient:
    for part in _instances():
        assert (await store(client, part)).status_code == 200
    return client


async def find(client: httpx.AsyncClient, path: str, **parameters: Any) -> list[dict[str, Any]]:
    answer = await client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom+json"
    found: list[dict[str, Any]] = answer.json()
    return found


async def test_a_study_has_the_attributes_of_table_10_6_3_3(
    embedded_archive: EmbeddedArchive, filled: httpx.AsyncClient
) -> None:
    (study,) = await find(filled, "/studies", PatientID="P2")

    assert study == {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080020": {"vr": "DA", "Value": ["20210305"]},
        "00080030": {"vr": "TM", "Value": ["233000.5"]},
        "00080050": {"vr": "SH"},
        "00080056": {"vr": "CS", "Value": ["ONLINE"]},
        "00080061": {"vr": "CS", "Value": ["US"]},
        "00080090": {"vr": "PN"},
        "00081190": {"vr": "UR", "Value": [f"{embedded_archive.url}/studies/1.2"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Święty^Łukasz"}]},
        "00100020": {"vr": "LO", "Value": ["P2"]},
        "00100030": {"vr": "DA"},
        "00100040": {"vr": "CS"},
        "0020000D": {"vr": "UI", "Value": ["1.2"]},
        "00200010": {"vr": "SH"},
        "00201206": {"vr": "IS", "Value": [1]},
        "00201208": {"vr": "IS", "Value": [2]},
    }


async def test_a_series_names_its_parent_and_counts_its_instances(
    embedded_archive: EmbeddedArchive, filled: httpx.AsyncClient
) -> None:
    first, second = await find(filled, "/studies/1.1/series")

    assert first["0020000E"] == {"vr": "UI", "Value": ["1.1.1"]}
    assert first["0020000D"] == {"vr": "UI", "Value": ["1.1"]}
    assert first["00201209"] == {"vr": "IS", "Value": [3]}
    assert first["00081190"]["Value"] == [f"{embedded_archive.url}/studies/1.1/series/1.1.1"]
    assert second["00080060"] == {"vr": "CS", "Value": ["MR"]}
    assert second["0008103E"] == {"vr": "LO", "Value": ["t2"]}
    assert "00100010" not in first  # the path names the study
    assert "00201208" not in first


async def test_series_of_all_studies_carry_the_study_attributes(filled: httpx.AsyncClient) -> None:
    found = await find(filled, "/series")

    assert values(found, SERIES) == ["1.1.1", "1.1.2", "1.2.1"]
    assert values(found, "00100020") == ["P1", "P1", "P2"]
    assert [one["00080061"]["Value"] for one in found] == [["CT", "MR"], ["CT", "MR"], ["US"]]


async def test_an_instance_has_the_attributes_of_table_10_6_3_5(
    embedded_archive: EmbeddedArchive, filled: httpx.AsyncClient
) -> None:
    found = await find(filled, "/studies/1.1/series/1.1.1/instances")

    assert values(found, INSTANCE) == ["1.1.1.1", "1.1.1.2", "1.1.1.3"]
    assert values(found, "00200013") == [1, 2, 3]
    assert found[0]["00080016"]["Value"] == ["1.2.840.10008.5.1.4.1.1.2"]
    assert found[0]["00081190"]["Value"] == [f"{embedded_archive.url}/studies/1.1/series/1.1.1/instances/1.1.1.1"]
    assert "00100010" not in found[0]
    assert "00080060" not in found[0]


@pytest.mark.parametrize(
    ("path", "tag", "expected"),
    [
        ("/studies", STUDY, ["1.1", "1.2"]),
        ("/studies/", STUDY, ["1.1", "1.2"]),
        ("/studies?0020000D=1.2", STUDY, ["1.2"]),
        ("/studies?00100020=P1", STUDY, ["1.1"]),
        ("/series", SERIES, ["1.1.1", "1.1.2", "1.2.1"]),
        ("/studies/series?0020000D=1.1", SERIES, ["1.1.1", "1.1.2"]),
        ("/studies/series", SERIES, ["1.1.1", "1.1.2", "1.2.1"]),
        ("/studies/1.9/series", SERIES, []),
        ("/instances", INSTANCE, ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.2.1", "1.2.1.1", "1.2.1.2"]),
        ("/studies/1.1/instances", INSTANCE, ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.2.1"]),
        ("/studies/series/instances?0020000E=1.1.2", INSTANCE, ["1.1.2.1"]),
        ("/studies/series/instances/?SeriesInstanceUID=1.1.2", INSTANCE, ["1.1.2.1"]),
        ("/studies/1.2/series/1.1.1/instances", INSTANCE, []),
    ],
)
async def test_the_standards_shapes_and_the_vendors(
    filled: httpx.AsyncClient, path: str, tag: str, expected: list[str]
) -> None:
    answer = await filled.get(path)

    assert answer.status_code == 200
    assert values(answer.json(), tag) == expected


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"PatientName": "doe*"}, ["1.1"]),
        ({"PatientName": "*łukasz"}, ["1.2"]),
        ({"PatientName": "Łuk"}, []),
        ({"PatientName": "Łuk", "fuzzymatching": "true"}, ["1.2"]),
        ({"PatientName": ""}, ["1.1", "1.2"]),
        ({"PatientName": "*"}, ["1.1", "1.2"]),
        ({"00100020": "P?"}, ["1.1", "1.2"]),
        ({"00100020": "p1"}, []),
        ({"StudyDate": "20200101-20201231"}, ["1.1"]),
        ({"StudyDate": "20200110-"}, ["1.1", "1.2"]),
        ({"StudyDate": "-20200109"}, []),
        ({"StudyTime": "23-"}, ["1.2"]),
        ({"ModalitiesInStudy": "MR"}, ["1.1"]),
        ({"ModalitiesInStudy": "US\\CT"}, ["1.1", "1.2"]),
        ({"StudyInstanceUID": "1.2,1.1"}, ["1.1", "1.2"]),
        ({"StudyInstanceUID": "1.2\\1.7"}, ["1.2"]),
        ({"StudyInstanceUID": "' OR 1=1 --"}, []),
        ({"PatientID": "P1", "StudyDate": "20210305"}, []),
        ({"AccessionNumber": "A"}, []),
        ({"NumberOfStudyRelatedInstances": "4"}, ["1.1"]),
    ],
)
async def test_matching(filled: httpx.AsyncClient, parameters: dict[str, str], expected: list[str]) -> None:
    assert values(await find(filled, "/studies", **parameters), STUDY) == expected


async def test_an_instance_matches_by_attributes_of_its_parents_and_of_its_file(filled: httpx.AsyncClient) -> None:
    assert values(await find(filled, "/instances", Modality="MR"), INSTANCE) == ["1.1.2.1"]
    assert values(await find(filled, "/instances", PatientID="P2", KVP="2"), INSTANCE) == ["1.2.1.2"]
    assert values(await find(filled, "/instances", StudyDate="2021-", KVP="9"), INSTANCE) == []


async def test_matched_attributes_are_returned(filled: httpx.AsyncClient) -> None:
    (found,) = await find(filled, "/instances", KVP="2")

    assert found["00180060"] == {"vr": "DS", "Value": [2]}


async def test_attributes_of_a_lower_level_are_ignored_with_a_warning(filled: httpx.AsyncClient) -> None:
    answer = await filled.get("/studies", params={"SeriesNumber": "77"})

    assert len(answer.json()) == 2
    assert answer.headers["warning"].startswith("299 ")
    assert "SeriesNumber" in answer.headers["warning"]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"limit": "2"}, ["1.1.1.1", "1.1.1.2"]),
        ({"limit": "2", "offset": "4"}, ["1.2.1.1", "1.2.1.2"]),
        ({"offset": "5"}, ["1.2.1.2"]),
        ({"offset": "6"}, []),
        ({"limit": "0"}, []),
        ({"Modality": "CT", "limit": "1", "offset": "1"}, ["1.1.1.2"]),
        ({"Modality": "CT", "offset": "2"}, ["1.1.1.3"]),
    ],
)
async def test_pages(filled: httpx.AsyncClient, parameters: dict[str, str], expected: list[str]) -> None:
    answer = await filled.get("/instances", params=parameters)

    assert values(answer.json(), INSTANCE) == expected
    assert "warning" not in answer.headers


@pytest.mark.parametrize("filters", [{}, {"PatientName": "*"}, {"PatientName": "?*"}])
async def test_a_hidden_page_limit_is_announced(filters: dict[str, str]) -> None:
    async with (
        EmbeddedArchive(options=ArchiveOptions(max_page=4)) as archive,
        client_of(archive) as client,
    ):
        await store(client, *_instances())
        pages = [await client.get("/instances", params={"offset": at, **filters}) for at in (0, 4)]
        greedy = await client.get("/instances", params={"limit": 1000, **filters})
        modest = await client.get("/instances", params={"limit": 2, **filters})

    assert [len(page.json()) for page in [*pages, greedy, modest]] == [4, 2, 4, 2]
    assert ["warning" in page.headers for page in [*pages, greedy, modest]] == [True, False, True, False]
    assert len({uid for page in pages for uid in values(page.json(), INSTANCE)}) == 6


@pytest.mark.parametrize(
    "fields",
    [
        "StudyDescription,00100010",
        "studydescription",
        "0008103E",
        "all",
        ["PatientAge", "PatientWeight"],
        "00400275.00400009",
    ],
)
async def test_included_fields(filled: httpx.AsyncClient, fields: str | list[str]) -> None:
    answer = await filled.get("/studies", params={"includefield": fields})

    assert answer.status_code == 200
    assert ("studydescription" in answer.headers.get("warning", "")) is (fields == "studydescription")


async def test_included_fields_come_from_the_index_or_the_file(filled: httpx.AsyncClient) -> None:
    item = Dataset()
    item.ScheduledProcedureStepID = "S1"
    part = make_instance("1.3", "1.3.1", "1.3.1.1", StudyDescription="Łódź", KVP="90", RequestAttributesSequence=[item])
    await store(filled, part)

    (study,) = await find(filled, "/studies", StudyInstanceUID="1.3", includefield="StudyDescription")
    (series,) = await find(filled, "/series", StudyInstanceUID="1.3")
    (plain,) = await find(filled, "/instances", StudyInstanceUID="1.3")
    (wide,) = await find(filled, "/instances", StudyInstanceUID="1.3", includefield="KVP,StudyDescription")
    (whole,) = await find(filled, "/instances", StudyInstanceUID="1.3", includefield="all")

    assert study["00081030"] == {"vr": "LO", "Value": ["Łódź"]}
    assert series["00400275"]["Value"] == [{"00400009": {"vr": "SH", "Value": ["S1"]}}]
    assert "00180060" not in plain
    assert wide["00180060"]["Value"] == [90]
    assert wide["00081030"]["Value"] == ["Łódź"]
    assert whole["00180060"]["Value"] == [90]


@pytest.mark.parametrize(
    "query",
    ["limit=x", "limit=-1", "offset=1.5", "limit=²", "fuzzymatching=maybe"],
)
async def test_what_is_no_query_is_400(filled: httpx.AsyncClient, query: str) -> None:
    answer = await filled.get(f"/studies?{query}")

    assert answer.status_code == 400
    assert answer.headers["x-error-reason"]


async def test_unknown_parameters_are_ignored_with_a_warning(filled: httpx.AsyncClient) -> None:
    plain = await filled.get("/studies")

    answer = await filled.get('/studies?NoSuchKeyword=1&orderby=x"%0d%0a&includefield=Nonsense,StudyDate&_=1')

    assert [one["0020000D"] for one in answer.json()] == [one["0020000D"] for one in plain.json()]
    assert answer.headers["warning"].startswith("299 http://")
    for name in ("NoSuchKeyword", "orderby", "Nonsense", "_"):
        assert name in answer.headers["warning"]
    assert answer.headers["warning"].count('"') == 2
    assert "warning" not in plain.headers


@pytest.mark.parametrize(
    "name", ["-0010010", "+0010010", "0x001001", "0010_010", " 0010010", "0010001\N{ARABIC-INDIC DIGIT ZERO}"]
)
async def test_what_python_takes_for_a_number_is_no_tag(filled: httpx.AsyncClient, name: str) -> None:
    plain = await filled.get("/studies")

    answer = await filled.get("/studies", params={name: "x"})

    assert (answer.status_code, len(answer.json())) == (200, len(plain.json()))
    assert answer.headers["warning"].startswith("299 ")


async def test_a_path_that_is_no_uid_is_400(client: httpx.AsyncClient) -> None:
    assert (await client.get("/studies/abc/series")).status_code == 400


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/dicom+json", 200),
        ("application/json", 200),
        ("*/*", 200),
        ('multipart/related; type="application/dicom+xml"', 406),
    ],
)
async def test_accept(client: httpx.AsyncClient, accept: str, status: int) -> None:
    assert (await client.get("/studies", headers={"Accept": accept})).status_code == status


async def test_no_match_may_be_204() -> None:
    async with (
        EmbeddedArchive(options=ArchiveOptions(no_match_status=204)) as archive,
        client_of(archive) as client,
    ):
        answer = await client.get("/studies")

    assert (answer.status_code, answer.content) == (204, b"")


async def test_names_come_out_in_utf_8_whatever_the_file_was(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    await embedded_archive.add(write_samples(tmp_path, series=1, slices=1, size=64))

    found = await find(client, "/studies")
    japanese = await find(client, "/studies", PatientName="山田^太郎")

    names = {study["00100020"]["Value"][0]: "=".join(study["00100010"]["Value"][0].values()) for study in found}
    assert names == {patient.patient_id: patient.name for patient in PATIENTS}
    assert values(japanese, "00100020") == ["SAMPLE-003"]


async def test_searches_use_the_index(embedded_archive: EmbeddedArchive) -> None:
    plan = embedded_archive.store._database.execute(
        "EXPLAIN QUERY PLAN SELECT * FROM instance_rows WHERE study_uid = '1' AND series_uid = '2' ORDER BY id"
    ).fetchall()

    assert not [step for step in plan if "SCAN" in step[-1]]
