"""Every call of the incumbent's user guide, made with its client and with ours: the same answers."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient as Incumbent
from dicomweb_client.session_utils import create_session_from_user_pass
from pydicom.uid import JPEGBaseline8Bit

from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.errors import ServerError
from postdicom_async.sync import DICOMwebClient
from tests.support.dicom_files import small_dicom
from tests.sync.conftest import UIDS
from tests.sync.slides import SERIES as SLIDE_SERIES
from tests.sync.slides import STUDY as SLIDE
from tests.sync.slides import slide_files

STUDY, SERIES, INSTANCE = UIDS[0]
FRAMES = (SLIDE, SLIDE_SERIES, f"{SLIDE_SERIES}.1")
J2K = "1.2.840.10008.1.2.4.90"

Call = Callable[[Any], Any]

# The guide's calls in its order, then others, with everything that there is an argument for.
SEARCHES: dict[str, Call] = {
    "studies": lambda client: client.search_for_studies(),
    "by keyword": lambda client: client.search_for_studies(search_filters={"PatientID": "P-1"}),
    "by tag": lambda client: client.search_for_studies(search_filters={"00100020": "P-2"}),
    "nothing": lambda client: client.search_for_studies(search_filters={"PatientID": "ABC123"}),
    "limit": lambda client: client.search_for_studies(limit=2),
    "offset": lambda client: client.search_for_studies(offset=1),
    "both": lambda client: client.search_for_studies(limit=1, offset=1),
    "remaining": lambda client: client.search_for_studies(get_remaining=True),
    "remaining by twos": lambda client: client.search_for_studies(limit=2, get_remaining=True),
    "fields": lambda client: client.search_for_studies(fields=["StudyDescription", "00081030"]),
    "not fuzzy": lambda client: client.search_for_studies(fuzzymatching=False, search_filters={"PatientName": "TEST*"}),
    "dates": lambda client: client.search_for_studies(search_filters={"StudyDate": "20200101-20201231"}),
    "additional": lambda client: client.search_for_studies(additional_params={"PatientID": "P-3", "limit": 5}),
    "all series": lambda client: client.search_for_series(),
    "series": lambda client: client.search_for_series(STUDY),
    "accession": lambda client: client.search_for_series(search_filters={"AccessionNumber": "A-1"}),
    "wildcard ?": lambda client: client.search_for_series(search_filters={"AccessionNumber": "A-?"}),
    "wildcard *": lambda client: client.search_for_series(search_filters={"SeriesDescription": "Series*"}),
    "modality": lambda client: client.search_for_series(search_filters={"Modality": "SM"}),
    "a number": lambda client: client.search_for_series(search_filters={"SeriesNumber": 1}),
    "all instances": lambda client: client.search_for_instances(),
    "instances of a study": lambda client: client.search_for_instances(STUDY),
    "instances of a series": lambda client: client.search_for_instances(
        study_instance_uid=STUDY, series_instance_uid=SERIES
    ),
    "class": lambda client: client.search_for_instances(search_filters={"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}),
    "one of a list": lambda client: client.search_for_instances(search_filters={"SeriesInstanceUID": [SERIES]}),
}
RETRIEVALS: dict[str, Call] = {
    "study": lambda client: client.retrieve_study(STUDY),
    "study, iterated": lambda client: list(client.iter_study(STUDY)),
    "series": lambda client: client.retrieve_series(study_instance_uid=STUDY, series_instance_uid=SERIES),
    "series, iterated": lambda client: list(client.iter_series(STUDY, SERIES)),
    "series as stored": lambda client: client.retrieve_series(STUDY, SERIES, (("application/dicom", "*"),)),
    "instance": lambda client: client.retrieve_instance(STUDY, SERIES, INSTANCE),
    "instance in a syntax": lambda client: client.retrieve_instance(
        *FRAMES, media_types=(("application/dicom", JPEGBaseline8Bit),)
    ),
    "metadata of a study": lambda client: client.retrieve_study_metadata(STUDY),
    "metadata of a series": lambda client: client.retrieve_series_metadata(STUDY, SERIES),
    "metadata of an instance": lambda client: client.retrieve_instance_metadata(STUDY, SERIES, INSTANCE),
    "frames as JPEG": lambda client: client.retrieve_instance_frames(
        *FRAMES, frame_numbers=[1, 2], media_types=("image/jpeg",)
    ),
    "frames in a syntax": lambda client: client.retrieve_instance_frames(
        *FRAMES, frame_numbers=[1, 2], media_types=(("image/jpeg", JPEGBaseline8Bit),)
    ),
    "a frame": lambda client: client.retrieve_instance_frames(STUDY, SERIES, INSTANCE, [1]),
    "bulk data": lambda client: client.retrieve_bulkdata(pixels_of(client)),
    "bulk data, iterated": lambda client: list(client.iter_bulkdata(pixels_of(client))),
    "rendered": lambda client: client.retrieve_instance_rendered(STUDY, SERIES, INSTANCE),
    "rendered as PNG": lambda client: client.retrieve_instance_rendered(STUDY, SERIES, INSTANCE, ("image/png",)),
    "a frame rendered": lambda client: client.retrieve_instance_frames_rendered(
        STUDY, SERIES, INSTANCE, [1], ("image/jpeg",)
    ),
}
OF_THE_EMBEDDED: dict[str, Call] = {  # Orthanc refuses these to both
    "frames, iterated": lambda client: list(
        client.iter_instance_frames(*FRAMES, [3, 4], media_types=(("image/jpeg", "*"),))
    ),
    "frames of any kind": lambda client: client.retrieve_instance_frames(
        *FRAMES, frame_numbers=[1, 2], media_types=("image/*",)
    ),
    "frames, several kinds": lambda client: client.retrieve_instance_frames(
        *FRAMES,
        [1],
        media_types=(("image/jpeg", JPEGBaseline8Bit), ("image/jp2", J2K), ("image/jls", "1.2.840.10008.1.2.4.80")),
    ),
    "a range of bulk data": lambda client: client.retrieve_bulkdata(pixels_of(client), byte_range=(2, 9)),
    "rendered with a quality": lambda client: client.retrieve_instance_rendered(
        STUDY, SERIES, INSTANCE, ("image/jpeg",), {"quality": 40, "viewport": "16,16"}
    ),
}

# What the incumbent does not get from Orthanc, and this client does: Orthanc does not decode an encoded asterisk, makes
# addresses of a Host header that lacks the port, and takes no type="*/*".
ONLY_OURS = {"wildcard *", "wildcard ?", "not fuzzy", "bulk data", "bulk data, iterated", "a frame"}


def pixels_of(client: Any) -> str:
    address: str = client.retrieve_instance_metadata(STUDY, SERIES, INSTANCE)["7FE00010"]["BulkDataURI"]
    return address


Pair = tuple[Incumbent, DICOMwebClient]


@pytest.fixture(scope="module")
def of_embedded(running_archive: EmbeddedArchive) -> Iterator[Pair]:
    with DICOMwebClient(running_archive.url, create_session_from_user_pass("demo", "demo")) as ours:
        ours.upload(slide_files(JPEGBaseline8Bit)).raise_for_failures()
        yield Incumbent(running_archive.url, create_session_from_user_pass("demo", "demo")), ours
        ours.delete_study(SLIDE)


@pytest.fixture(scope="module")
def of_orthanc(orthanc_process: Any) -> Iterator[Pair]:
    orthanc_process.wipe()
    session = create_session_from_user_pass(orthanc_process.username, orthanc_process.password)
    with DICOMwebClient(orthanc_process.url, session) as ours:
        files = [small_dicom(*uids, patient_id=f"P-{uids[0][-1]}") for uids in UIDS]
        ours.upload([*files, *slide_files(JPEGBaseline8Bit)]).raise_for_failures()
        yield Incumbent(orthanc_process.url, session), ours


def same(client: DICOMwebClient, theirs: Any, ours: Any) -> None:
    """Compare answers. The incumbent leaves the port out of its Host header, and Orthanc makes addresses of that."""
    if isinstance(theirs, pydicom.Dataset) and hasattr(theirs, "file_meta"):
        assert (ours, ours.file_meta) == (theirs, theirs.file_meta)
    elif isinstance(theirs, list) and theirs and isinstance(theirs[0], pydicom.Dataset):
        for one, other in zip(theirs, ours, strict=True):
            same(client, one, other)
    elif isinstance(theirs, bytes) or (
        isinstance(theirs, list) and theirs and isinstance(theirs[0], bytes | bytearray)
    ):
        assert ours == theirs
    else:
        without = f'"http://{client.host}/'
        texts = [json.dumps(each, default=pydicom.Dataset.to_json_dict, sort_keys=True) for each in (theirs, ours)]
        assert texts[1] == texts[0].replace(without, f'"http://{client.host}:{client.port}/')


@pytest.mark.parametrize("name", [*SEARCHES, *RETRIEVALS, *OF_THE_EMBEDDED])
def test_the_embedded_archive(of_embedded: Pair, name: str) -> None:
    call = (SEARCHES | RETRIEVALS | OF_THE_EMBEDDED)[name]
    same(of_embedded[1], *map(call, of_embedded))


@pytest.mark.parametrize("name", [*SEARCHES, *RETRIEVALS])
def test_orthanc(of_orthanc: Pair, name: str) -> None:
    call = (SEARCHES | RETRIEVALS)[name]
    if name in ONLY_OURS:
        assert call(of_orthanc[1])
    else:
        same(of_orthanc[1], *map(call, of_orthanc))


@pytest.mark.parametrize("which", ["of_embedded", "of_orthanc"])
def test_stores(request: pytest.FixtureRequest, which: str) -> None:
    theirs, ours = request.getfixturevalue(which)
    datasets = ours.retrieve_series(STUDY, SERIES)
    answers = [client.store_instances(datasets=datasets) for client in (theirs, ours)]
    assert len(answers[1].ReferencedSOPSequence) == 2
    same(ours, *answers)
    same(ours, *(client.store_instances(datasets, STUDY) for client in (theirs, ours)))


def test_every_name_and_argument_of_theirs_is_there() -> None:
    for name, theirs in inspect.getmembers(Incumbent, inspect.isfunction):
        if name.startswith("_") and name != "__init__":
            continue
        wanted = list(inspect.signature(theirs).parameters)
        ours = list(inspect.signature(getattr(DICOMwebClient, name)).parameters)
        assert ours[: len(wanted)] == wanted, name


def test_what_a_client_says_of_itself(archive: EmbeddedArchive) -> None:
    url = "https://archive.example/dicom/web"
    arguments: dict[str, Any] = {"qido_url_prefix": "qidors", "wado_url_prefix": "wadors", "stow_url_prefix": "stowrs"}
    theirs, ours = Incumbent(url, **arguments), DICOMwebClient(url, **arguments)
    names = ("base_url", "scheme", "protocol", "host", "port", "url_prefix", *arguments, "delete_url_prefix")
    assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names]
    other = "http://localhost:8042"
    assert (DICOMwebClient(other).port, DICOMwebClient("http://localhost").port) == (8042, 80)


@pytest.mark.parametrize("tag", ["00100020", 0x00100020, (0x0010, 0x0020), pydicom.tag.Tag(0x0010, 0x0020)])
def test_names_of_attributes(tag: Any) -> None:
    assert DICOMwebClient.lookup_keyword(tag) == Incumbent.lookup_keyword(tag) == "PatientID"
    assert DICOMwebClient.lookup_tag("PatientID") == Incumbent.lookup_tag("PatientID") == "00100020"
    for client in (Incumbent, DICOMwebClient):
        with pytest.raises(KeyError):
            client.lookup_tag("NoSuchThing")


def test_a_page_at_a_time_as_the_guide_has_it(of_embedded: Pair) -> None:
    for client in of_embedded:
        found: list[Any] = []
        while subset := client.search_for_instances(offset=len(found), limit=5):
            found += subset
        assert len(found) == len(UIDS) + 2


def test_deletions_and_prefixes(archive: EmbeddedArchive) -> None:
    """A prefix stands between the address and the resource, for each service its own."""
    prefixes: dict[str, Any] = dict.fromkeys(("qido_url_prefix", "wado_url_prefix", "stow_url_prefix"), "nowhere")
    with DICOMwebClient(archive.url, auth=archive.auth, **prefixes) as elsewhere:
        for call in (elsewhere.search_for_studies, lambda: elsewhere.retrieve_study(STUDY)):
            with pytest.raises(Exception, match="404"):
                call()
        elsewhere_uid = f"{STUDY}.9"
        with DICOMwebClient(archive.url, auth=archive.auth) as plain:
            data = pydicom.dcmread(BytesIO(small_dicom(elsewhere_uid, f"{SERIES}.9", f"{INSTANCE}.9")))
            plain.store_instances([data])
            assert plain.retrieve_study(elsewhere_uid)
            elsewhere.delete_instance(elsewhere_uid, f"{SERIES}.9", f"{INSTANCE}.9")
            assert plain.search_for_studies(search_filters={"StudyInstanceUID": elsewhere_uid}) == []


def test_frames_that_are_not_there_as_wanted(of_embedded: Pair) -> None:
    theirs, ours = of_embedded
    with pytest.raises(Exception, match="406"):
        theirs.retrieve_instance_frames(*FRAMES, [1], media_types=(("image/jp2", J2K),))
    with pytest.raises(ServerError, match="406"):
        ours.retrieve_instance_frames(*FRAMES, [1], media_types=(("image/jp2", J2K),))


def test_thumbnails_and_series(of_embedded: Pair) -> None:
    """The incumbent has no thumbnails; a rendered series comes with a new boundary each time."""
    _, ours = of_embedded
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ours.retrieve_study_thumbnail(STUDY).startswith(b"\xff\xd8")
        assert ours.retrieve_series_thumbnail(STUDY, SERIES, ("image/png",)).startswith(b"\x89PNG")
        assert ours.retrieve_instance_thumbnail(STUDY, SERIES, INSTANCE).startswith(b"\xff\xd8")
        assert b"image/" in ours.retrieve_series_rendered(STUDY, SERIES)
