"""Search and metadata, on every archive."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from postdicom_async import DICOMWEB, DicomWeb, Limits, NotFound, Retry, Timeouts, UsageError
from postdicom_async.emulator.samples import PATIENTS
from tests.live.conftest import EMBEDDED, Server
from tests.live.support import require_stored
from tests.support.dicom_files import small_dicom, study_files, uid


def patient(number: int) -> bytes:
    """Make an instance of a study of its own."""
    names = {1: "DOE^JANE", 2: "DOE^JOHN", 3: "ROE^RICHARD", 4: "DO^X", 5: "AB CD^E"}
    return small_dicom(
        uid(number), uid(number, 1), uid(number, 1, 1), patient_name=names[number], patient_id=f"P-{number}"
    )


@pytest.fixture
async def five(archive: DicomWeb) -> DicomWeb:
    """Give an archive with five studies."""
    require_stored(await archive.upload([patient(number) for number in range(1, 6)]), 5)
    return archive


FILTERS: list[tuple[dict[str, Any], set[int]]] = [
    ({}, {1, 2, 3, 4, 5}),
    ({"PatientName": "DOE^JANE"}, {1}),
    ({"PatientName": "DOE*"}, {1, 2}),
    ({"PatientName": "*JOHN"}, {2}),
    ({"PatientName": "DO*"}, {1, 2, 4}),
    ({"PatientName": "?OE^*"}, {1, 2, 3}),
    ({"PatientName": "NOBODY*"}, set()),
    ({"PatientID": "P-3"}, {3}),
    ({"PatientID": "P-?"}, {1, 2, 3, 4, 5}),
    ({"00100020": "P-4"}, {4}),
    ({"StudyInstanceUID": uid(2)}, {2}),
    ({"StudyInstanceUID": [uid(2), uid(4)]}, {2, 4}),
    ({"PatientID": ["P-1", "P-3"]}, {1, 3}),
    ({"PatientName": ["DOE*", "ROE*"], "StudyDate": ["2020-01-02", "20200103"]}, {1, 2, 3}),
    ({"PatientID": ["P-4"], "StudyInstanceUID": [uid(2), uid(4)]}, {4}),
    ({"StudyDate": "20200102"}, {1, 2, 3, 4, 5}),
    ({"StudyDate": date(2020, 1, 2)}, {1, 2, 3, 4, 5}),
    ({"StudyDate": date(2020, 1, 3)}, set()),
    ({"StudyDate": "2020"}, {1, 2, 3, 4, 5}),
    ({"StudyDate": "2020-01-02"}, {1, 2, 3, 4, 5}),
    ({"StudyDate": "202001-202003"}, {1, 2, 3, 4, 5}),
    ({"StudyDate": ("2021", None)}, set()),
    ({"StudyTime": "03:04:05"}, {1, 2, 3, 4, 5}),
    ({"StudyDate": "20200101-20200103"}, {1, 2, 3, 4, 5}),
    ({"StudyDate": (date(2020, 1, 2), None)}, {1, 2, 3, 4, 5}),
    ({"StudyDate": (None, date(2020, 1, 1))}, set()),
    ({"StudyDate": (date(2020, 1, 1), date(2020, 1, 2)), "PatientName": "ROE*"}, {3}),
    ({"PatientName": "DOE*", "PatientID": "P-2"}, {2}),
    ({"AccessionNumber": "A-1", "PatientID": "P-1"}, {1}),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERS, ids=repr)
async def test_filters(five: DicomWeb, filters: dict[str, Any], expected: set[int]) -> None:
    results = five.search_for_studies(filters)
    found = await results.all()
    assert {study.StudyInstanceUID for study in found} == {uid(number) for number in expected}
    assert all(isinstance(study, Dataset) for study in found)
    assert results.warnings == [], "no false alarm"


@pytest.mark.parametrize(("filters", "expected"), FILTERS, ids=repr)
async def test_filters_in_the_other_form(
    five: DicomWeb, archive_server: Server, filters: dict[str, Any], expected: set[int]
) -> None:
    """Both archives take tags as well as keywords."""
    dialect = replace(DICOMWEB, filter_form="tag")
    async with DicomWeb(archive_server.url, auth=archive_server.auth, dialect=dialect) as client:
        found = await client.search_for_studies(filters, fields=["StudyDescription"]).all()
    assert {study.StudyInstanceUID for study in found} == {uid(number) for number in expected}
    assert all("StudyDescription" in study for study in found)


async def test_a_space_in_a_value(five: DicomWeb, archive_server: Server) -> None:
    """Orthanc 1.10 does not decode the values it matches."""
    found = await five.search_for_studies({"PatientName": "AB CD^E"}).all()
    assert [study.StudyInstanceUID for study in found] == ([uid(5)] if archive_server.name == EMBEDDED else [])


async def test_raw_first_all_and_fields(five: DicomWeb) -> None:
    results = five.search_for_studies({"PatientName": "DOE^JANE"}, fields=["StudyDescription", "PatientBirthDate"])
    first, (whole,), (raw,) = await results.first(), await results.all(), await results.raw.all()
    assert first is not None
    assert first.StudyInstanceUID == whole.StudyInstanceUID == raw["0020000D"]["Value"][0] == uid(1)
    assert whole.StudyDescription == "Study of the tests"
    assert str(whole.PatientName) == raw["00100010"]["Value"][0]["Alphabetic"] == "DOE^JANE"
    assert await five.search_for_studies({"PatientName": "NOBODY"}).first() is None
    assert [study.PatientID async for study in results] == ["P-1"]


async def test_names_of_the_world(archive: DicomWeb, archive_server: Server, samples: Path) -> None:
    await archive.upload(samples)
    found = await archive.search_for_studies(fields=["PatientName", "PatientID"]).all()
    names = {study.PatientID: str(study.PatientName) for study in found}
    expected = {patient.patient_id: patient.name.split("=")[0] for patient in PATIENTS}
    assert set(names) == set(expected)
    if archive_server.name == EMBEDDED:  # Orthanc answers in its default encoding, Latin-1
        assert {key: name.split("=")[0] for key, name in names.items()} == expected
    else:
        assert names["SAMPLE-005"] == "Müller^Jérôme"


async def test_search_for_foreign_names(embedded_server: Server, samples: Path) -> None:
    async with embedded_server.client() as client:
        await client.upload(samples)
        for name in ("Święty^Łukasz", "Müller*", "قباني*", "Yamada*"):
            assert len(await client.search_for_studies({"PatientName": name}).all()) == 1, name


@pytest.mark.parametrize(
    ("limit", "offset"), [(None, 0), (1, 0), (7, 0), (8, 0), (100, 0), (None, 5), (10, 13), (3, 29), (None, 30)]
)
async def test_paging(archive: DicomWeb, limit: int | None, offset: int) -> None:
    files = study_files(30, series=3, pixel_bytes=64)
    await archive.upload(list(files.values()))
    results = archive.search_for_instances(study_instance_uid=uid(1), limit=limit, offset=offset)
    found = [item.SOPInstanceUID for item in await results.all()]
    wanted = len(range(30)[offset:][:limit])
    assert len(found) == len(set(found)) == wanted
    assert set(found) <= set(files)


async def test_series_and_instances(archive: DicomWeb) -> None:
    await archive.upload([*study_files(9, series=3).values(), *study_files(4, study=2, series=2).values()])
    assert len(await archive.search_for_series().all()) == 5
    of_study = await archive.search_for_series(study_instance_uid=uid(1)).all()
    assert {series.SeriesInstanceUID for series in of_study} == {uid(1, 1), uid(1, 2), uid(1, 3)}
    assert len(await archive.search_for_series({"Modality": "CT"}, study_instance_uid=uid(2)).all()) == 2
    assert await archive.search_for_series({"Modality": "MR"}, study_instance_uid=uid(2)).all() == []
    assert len(await archive.search_for_instances().all()) == 13
    assert len(await archive.search_for_instances(study_instance_uid=uid(1)).all()) == 9
    of_series = archive.search_for_instances(study_instance_uid=uid(1), series_instance_uid=uid(1, 2))
    assert {item.SOPInstanceUID for item in await of_series.all()} == {uid(1, 2, n) for n in (2, 5, 8)}
    (one,) = await archive.search_for_instances({"InstanceNumber": 5}, study_instance_uid=uid(1)).all()
    assert one.SOPInstanceUID == uid(1, 2, 5)


async def test_searches_in_the_vendors_shapes(any_archive: DicomWeb, any_server: Server) -> None:
    await any_archive.upload(list(study_files(20, series=2).values()))
    (study,) = await any_archive.search_for_studies({"PatientID": "T-1"}).all()
    series = await any_archive.search_for_series(study_instance_uid=study.StudyInstanceUID).all()
    assert {one.SeriesInstanceUID for one in series} == {uid(1, 1), uid(1, 2)}
    found = await any_archive.search_for_instances(study_instance_uid=uid(1), series_instance_uid=uid(1, 2)).all()
    assert len(found) == 10
    if any_server.dialect == "postdicom":
        assert len(await any_archive.search_for_instances(series_instance_uid=uid(1, 2)).all()) == 10
        for missing in (any_archive.search_for_series, any_archive.search_for_instances):
            with pytest.raises(UsageError, match="give "):
                missing()
    else:
        with pytest.raises(UsageError, match="study_instance_uid"):
            any_archive.search_for_instances(series_instance_uid=uid(1, 2))


async def test_nothing_below_an_unknown_study(archive: DicomWeb) -> None:
    found: list[Dataset] = []
    with suppress(NotFound):  # Orthanc says so
        found = await archive.search_for_instances(study_instance_uid=uid(99)).all()
    assert found == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"filters": {"NoSuch": "x"}},
        {"limit": 0},
        {"offset": -1},
        {"fields": ["NoSuch"]},
        {"filters": {"PatientID": None}},
    ],
)
async def test_wrong_arguments(archive: DicomWeb, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        await archive.search_for_studies(**arguments).all()


# --- metadata ---------------------------------------------------------------------------------------------------------


async def test_metadata_at_three_levels(archive: DicomWeb) -> None:
    files = study_files(4, series=2)
    await archive.upload(list(files.values()))
    study = await archive.retrieve_study_metadata(uid(1)).all()
    series = await archive.retrieve_series_metadata(uid(1), uid(1, 2)).all()
    (instance,) = await archive.retrieve_instance_metadata(uid(1), uid(1, 2), uid(1, 2, 4)).all()
    assert {item.SOPInstanceUID for item in study} == set(files)
    assert {item.SOPInstanceUID for item in series} == {uid(1, 2, 2), uid(1, 2, 4)}
    assert instance.SOPInstanceUID == uid(1, 2, 4)
    assert (instance.Rows, instance.Columns, str(instance.PatientName)) == (32, 32, "TEST^FILE")
    first = await archive.retrieve_study_metadata(uid(1)).raw.first()
    assert first is not None
    assert first["00080018"]["vr"] == "UI"


async def test_metadata_of_nothing(archive: DicomWeb) -> None:
    with pytest.raises(NotFound):
        await archive.retrieve_study_metadata(uid(99)).all()


# --- options ----------------------------------------------------------------------------------------------------------


async def test_with_options(archive: DicomWeb) -> None:
    await archive.upload(list(study_files(10).values()))
    other = archive.with_options(limits=Limits(page_size=3), timeouts=Timeouts(answer=20), retry=Retry(max_attempts=1))
    assert len(await other.search_for_instances(study_instance_uid=uid(1)).all()) == 10
    assert other.settings.limits.page_size == 3
    assert archive.settings.limits.page_size == 7
    assert other.transport_name == archive.transport_name
    with pytest.raises(UsageError, match="with_options"):
        archive.with_options(limits=Limits(connections=2))


async def test_the_session_must_be_open(archive_server: Server) -> None:
    client = archive_server.client()
    with pytest.raises(UsageError, match="not open"):
        await client.search_for_studies().all()
    async with client:
        await client.search_for_studies().all()
        with pytest.raises(UsageError, match="open already"):
            await client.__aenter__()
    with pytest.raises(UsageError, match="session is closed"):
        await client.search_for_studies().all()
