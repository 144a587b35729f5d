"""The Orthanc that the fixture starts really is a DICOMweb archive."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.support.bodies import Multipart, multipart_related
from tests.support.dicom_files import study_files, uid
from tests.support.orthanc import OrthancServer
from tests.support.plain_http import NO_AUTHORITIES

JSON = {"Accept": "application/dicom+json"}
DICOM = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}


def store(client: httpx.Client, server: OrthancServer, made: Multipart) -> httpx.Response:
    headers = {**JSON, "Content-Type": made.content_type}
    return client.post(f"{server.url}/studies", content=made.body, headers=headers)


def test_store_search_and_retrieve(orthanc: OrthancServer) -> None:
    files = study_files(3, series=2)
    with orthanc.client() as client:
        stored = store(client, orthanc, multipart_related(list(files.values())))
        assert stored.status_code == 200
        assert len(stored.json()["00081199"]["Value"]) == 3
        found = client.get(f"{orthanc.url}/studies/{uid(1)}/instances", headers=JSON)
        assert {each["00080018"]["Value"][0] for each in found.json()} == set(files)
        study = client.get(f"{orthanc.url}/studies/{uid(1)}", headers=DICOM)
        assert all(content in study.content for content in files.values())
    assert orthanc.instance_uids() == set(files)
    assert orthanc.file(uid(1, 1, 1)) == files[uid(1, 1, 1)]


def test_is_empty_for_each_test(orthanc: OrthancServer) -> None:
    assert orthanc.instance_uids() == set()


def test_wants_credentials(orthanc: OrthancServer) -> None:
    with httpx.Client(verify=NO_AUTHORITIES, trust_env=False) as client:
        assert client.get(f"{orthanc.url}/studies").status_code == 401


@pytest.mark.usefixtures("orthanc_process")  # which says what is missing
def test_keeps_its_files_over_a_restart(tmp_path: Path) -> None:
    files = study_files(1)
    with OrthancServer(tmp_path) as orthanc:  # its own: one that a test starts ends with the test
        with orthanc.client() as client:
            store(client, orthanc, multipart_related(list(files.values())))
        orthanc.stop()
        with pytest.raises(httpx.ConnectError):
            orthanc.instance_uids()
        orthanc.start()
        assert orthanc.instance_uids() == set(files)
