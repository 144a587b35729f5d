"""``postdicom upload --anonymize``: what is changed on the way, and what is not understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from tests.cli.conftest import Cli
from tests.support.dicom_files import uid


async def test_values_are_replaced_emptied_and_removed(
    cli_with_archive: Cli, embedded_archive: Any, study_folder: Path
) -> None:
    before = {path: path.read_bytes() for path in study_folder.iterdir()}
    options = ("PatientName=ANON^1", "0010,0020=", "(0010,0030)-", "x00081030=a=b")
    words = [word for option in options for word in ("--anonymize", option)]
    ran = await cli_with_archive("upload", study_folder, *words, "--json")
    assert ran.code == 0
    assert ran.json["summary"]["stored"] == 6
    for stored in embedded_archive.store.instances():
        dataset = dcmread(stored.path)
        assert (dataset.PatientName, dataset.PatientID, dataset.StudyDescription) == ("ANON^1", "", "a=b")
        assert "PatientBirthDate" not in dataset
        assert b"TEST^FILE" not in stored.path.read_bytes()
    assert {path: path.read_bytes() for path in study_folder.iterdir()} == before


async def test_profiles(cli_with_archive: Cli, embedded_archive: Any, study_folder: Path) -> None:
    vendor = await cli_with_archive.here("upload", study_folder, "--anonymize-profile", "vendor")
    assert vendor.code == 0
    stored = embedded_archive.store.instances()
    assert {str(dcmread(one.path).PatientName) for one in stored} == {"ANONYMOUS"}
    assert {one.uids.study_instance_uid for one in stored} == {uid(1)}
    basic = await cli_with_archive.here(
        "upload", study_folder, "--anonymize-profile", "basic", "--anonymize", "PatientID=S-001", "--json"
    )
    assert basic.code == 0
    made = [dcmread(one.path) for one in embedded_archive.store.instances() if one not in stored]
    assert len(made) == 6
    assert {one.PatientID for one in made} == {"S-001"}
    assert {one.PatientIdentityRemoved for one in made} == {"YES"}
    assert len({one.StudyInstanceUID for one in made}) == 1
    assert uid(1) not in {one.StudyInstanceUID for one in made}


async def test_uids(cli_with_archive: Cli, embedded_archive: Any, one_file: Path) -> None:
    async def sent(*options: str) -> str:
        ran = await cli_with_archive.here("upload", one_file, "--json", *options)
        assert ran.code == 0
        (item,) = ran.json["items"]
        return str(item["sop_instance_uid"])

    uids = [await sent("--anonymize-uids") for _ in range(2)]
    cli_with_archive.environment["POSTDICOM_ANONYMIZE_SECRET"] = "a secret of ours"
    same = [await sent(*options) for options in (["--anonymize-uids"], ["--anonymize-profile", "basic"])]
    assert len({uid(1, 1, 1), *uids, *same}) == 4
    assert len(embedded_archive.store.instances()) == 3
    cli_with_archive.environment["POSTDICOM_ANONYMIZE_SECRET"] = "short"
    ran = await cli_with_archive.here("upload", one_file, "--anonymize-uids")
    assert (ran.code, ran.error_line) == (2, "error: anonymize: secret: text or bytes, at least 8 of them")


async def test_what_cannot_be_anonymised_is_not_sent(
    cli_with_archive: Cli, embedded_archive: Any, one_file: Path
) -> None:
    ran = await cli_with_archive.here("upload", one_file, "--anonymize", "PatientName=Łukasz")
    assert ran.code == 1
    assert "cannot be anonymised" in ran.err
    assert not embedded_archive.store.instances()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("PatientName", "--anonymize: write TAG=VALUE, TAG= or TAG-"),
        ("Nobody=X", "anonymize: 'Nobody' is neither a DICOM keyword nor a tag (GGGGEEEE)"),
        ("PatientBirthDate=yesterday", "anonymize: PatientBirthDate (0010,0030): VR DA: YYYYMMDD"),
        ("SOPInstanceUID-", "no instance is without it"),
        ("TransferSyntaxUID=1.2", "says how a file is written; it is kept right by itself"),
    ],
)
async def test_mistakes(cli_with_archive: Cli, one_file: Path, option: str, message: str) -> None:
    ran = await cli_with_archive.here("upload", one_file, "--anonymize", option)
    assert ran.code == 2
    assert message in ran.error_line
    assert "yesterday" not in ran.error_line


async def test_a_tag_given_twice(cli_with_archive: Cli, one_file: Path) -> None:
    twice = ("--anonymize", "PatientName=A", "--anonymize", "PatientName=B")
    ran = await cli_with_archive.here("upload", one_file, *twice)
    assert (ran.code, ran.error_line) == (2, "error: --anonymize: a tag is given twice")
