"""``postdicom upload --anonymize``: what is changed on the way, and what is not understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from postdicom_async import Anonymization
from postdicom_async.dicom.anonymize.identities import Patient, keyed_patient_id
from tests.cli.conftest import Cli
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import small_dicom, uid


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


@pytest.mark.parametrize("quiet", [["--quiet"], []])
async def test_another_patient_under_the_same_uids_is_warned_of(
    cli_with_archive: Cli, one_file: Path, tmp_path: Path, quiet: list[str]
) -> None:
    async def warned(*options: str | Path, verb: str = "upload") -> bool:
        ends = [tmp_path / "from", tmp_path / "to"] if verb == "copy" else [one_file]
        ran = await cli_with_archive.here(verb, *ends, *options, *quiet)
        assert ran.code == 0
        return "warning: the copies keep the UIDs of the originals: an archive that holds these may" in ran.err

    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "one").write_bytes(one_file.read_bytes())
    table = tmp_path / "patients.csv"
    table.write_text("PatientID,PatientName\nT-1,A\n")
    cli_with_archive.environment["POSTDICOM_ANONYMIZE_SECRET"] = "a secret of ours"
    for rule in ("PatientID=1", "00100020=", "IssuerOfPatientID-"):
        assert await warned("--anonymize", rule)
        assert not await warned("--anonymize", rule, "--anonymize-uids")
    assert await warned("--anonymize-profile", "vendor")
    assert await warned("--anonymize-patient-ids", "keyed")
    assert await warned("--anonymize-patients", table)
    assert await warned("--anonymize", "PatientID=1", verb="copy")
    assert not await warned("--anonymize-profile", "basic")
    assert not await warned("--anonymize", "PatientName=ANON^1")


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
    assert (ran.code, ran.error_line) == (2, "error: --anonymize: secret: text or bytes, at least 8 of them")


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


# --- by patient -------------------------------------------------------------------------------------------------------


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("a secret of ours\n")
    path.chmod(0o600)
    return path


async def test_a_table_of_patients_and_a_map_of_uids(
    cli_with_archive: Cli, embedded_archive: Any, study_folder: Path, secret_file: Path, tmp_path: Path
) -> None:
    """One patient is in the table, the other is not; the same again under the same secret sends nothing new."""
    olds = {
        str(dcmread(path).SOPInstanceUID) for path in study_folder.iterdir() if path.read_bytes()[128:132] == b"DICM"
    }
    (study_folder / "other").write_bytes(small_dicom(instance=uid(1, 1, 99), patient_id=CANARIES["patient_id"]))
    table, uids = tmp_path / "patients.csv", tmp_path / "uids.csv"
    table.write_text(f"PatientID;PatientID;PatientName\nT-1;S-001;{CANARIES['patient_name']}\n")
    options = ("--anonymize-patients", table, "--anonymize-uids", "--anonymize-secret-file", secret_file)
    for _ in range(2):
        ran = await cli_with_archive("upload", study_folder, *options, "--uid-map", uids, "--json")
        assert ran.code == 1
        assert ran.json["summary"]["stored"] == 6
        (bad,) = [item for item in ran.json["items"] if item["status"] == "unreadable"]
        assert bad["reason"] == "cannot be anonymised: its patient is not in the table of patients"
        watch = CanaryWatch()
        for text in (ran.out, ran.err, uids.read_text()):
            watch.feed_text(text)
        watch.assert_clean()
    stored = embedded_archive.store.instances()
    assert {str(dcmread(one.path).PatientID) for one in stored} == {"S-001"}
    rules = Anonymization(remap_uids=True, secret="a secret of ours")
    assert {one.uids.sop_instance_uid for one in stored} == {rules.new_uid(one) for one in olds}
    assert uids.stat().st_mode & 0o777 == 0o600
    pairs = {tuple(line.split(",")) for line in uids.read_text().splitlines()[1:]}
    assert {(kind, new) for kind, _, new in pairs} >= {("instance", one.uids.sop_instance_uid) for one in stored}
    assert ("study", uid(1), rules.new_uid(uid(1))) in pairs


async def test_patients_who_are_not_in_the_table_are_said_to_be_that(
    cli_with_archive: Cli, study_folder: Path, tmp_path: Path
) -> None:
    for number in range(22):
        file = small_dicom(instance=uid(1, 1, 100 + number), patient_id="OTHER")
        (study_folder / f"other{number:02}").write_bytes(file)
    table = tmp_path / "patients.csv"
    table.write_text("PatientID;PatientName\nT-1;A^1\n")
    upload = ("upload", study_folder, "--anonymize-patients", table, "--anonymize-uids")
    ran = await cli_with_archive.here(*upload)
    assert ran.code == 1
    assert "22 not in the table of patients, not sent" in ran.out
    assert "unreadable" not in ran.out
    assert f"{study_folder / 'other00'}: not sent: its patient is not in the table of patients" in ran.err
    assert "and 2 more; --json lists all" in ran.err
    assert ran.err.splitlines()[-1] == "error: 22 of 29 files were not sent: their patients are not in the table"
    reported = await cli_with_archive.here(*upload, "--report", tmp_path / "report")
    assert "and 2 more; the file of --report lists all" in reported.err


async def test_keyed_patient_ids(
    cli_with_archive: Cli, embedded_archive: Any, one_file: Path, secret_file: Path
) -> None:
    keyed = ("upload", one_file, "--anonymize-patient-ids", "keyed", "--anonymize-profile", "vendor")
    cli_with_archive.environment["POSTDICOM_ANONYMIZE_SECRET"] = "another secret"
    assert (await cli_with_archive.here(*keyed, "--anonymize-secret-file", secret_file)).code == 0
    (stored,) = embedded_archive.store.instances()
    expected = keyed_patient_id(b"a secret of ours", Patient("T-1"))
    assert dcmread(stored.path).PatientID == expected
    ran = await cli_with_archive.here(*keyed, "--anonymize", "PatientID=X")
    assert (ran.code, ran.error_line) == (
        2, "error: --anonymize: PatientID (0010,0020): give a rule, or patient_ids"
    )  # fmt: skip


async def test_mistakes_with_files(cli_with_archive: Cli, one_file: Path, secret_file: Path, tmp_path: Path) -> None:
    async def error(*options: Any) -> str:
        ran = await cli_with_archive.here("upload", one_file, *options)
        assert ran.code in (1, 2)
        return ran.error_line

    uids, table = tmp_path / "uids.csv", tmp_path / "table.csv"
    assert "--uid-map: say what to anonymise" in await error("--uid-map", uids)
    assert "--uid-map: no UID becomes another" in await error("--uid-map", uids, "--anonymize", "PatientID=")
    assert "--anonymize-secret-file: say what" in await error("--anonymize-secret-file", secret_file)
    assert "set POSTDICOM_ANONYMIZE_SECRET, or" in await error("--anonymize-patient-ids", "keyed")
    assert "the table of patients: does not exist" in await error("--anonymize-patients", table)
    table.write_text(f"PatientID,PatientBirthDate\n{CANARIES['patient_id']},yesterday\n")
    assert await error("--anonymize-patients", table) == (
        "error: patients: line 2, column PatientBirthDate (0010,0030): VR DA: YYYYMMDD"
    )
    secret_file.chmod(0o640)
    with_secret = ("--anonymize-uids", "--uid-map", uids, "--anonymize-secret-file", secret_file)
    assert "--anonymize-secret-file: others may read it; chmod 600" in await error(*with_secret)
    secret_file.chmod(0o600)
    secret_file.write_text("short")
    assert "secret: text or bytes, at least 8" in await error(*with_secret)
    secret_file.write_text("\n")
    assert "--anonymize-secret-file: it holds nothing" in await error(*with_secret)
    assert not uids.exists(), "no mistake leaves a file behind"


async def test_a_job_that_anonymises(
    cli_with_archive: Cli, embedded_archive: Any, study_folder: Path, secret_file: Path, tmp_path: Path
) -> None:
    """A dry run writes no map; a copy does; a verification under the same rules finds all, and under none nothing."""
    table, uids = tmp_path / "patients.csv", tmp_path / "uids.csv"
    table.write_text("PatientID,PatientID\nT-1,S-001\n")
    ends = (study_folder, embedded_archive.url.replace("http://", f"http://{embedded_archive.auth[0]}@"))
    rules = ("--anonymize-patients", table, "--anonymize-uids", "--anonymize-secret-file", secret_file)
    cli_with_archive.environment["POSTDICOM_STATE"] = str(tmp_path / "state")
    dry = await cli_with_archive.here("copy", *ends, *rules, "--uid-map", uids, "--dry-run")
    assert dry.code == 0, dry.err
    assert not uids.exists()
    ran = await cli_with_archive.here("copy", *ends, *rules, "--uid-map", uids, "--verify", "bytes")
    assert ran.code == 0, ran.err
    assert len({line.split(",")[1] for line in uids.read_text().splitlines()[1:]}) == 1 + 2 + 6
    stored = embedded_archive.store.instances()
    assert {str(dcmread(one.path).PatientID) for one in stored} == {"S-001"}
    same = await cli_with_archive.here("verify", *ends, *rules, "--level", "bytes")
    assert same.code == 0, same.err
    other = await cli_with_archive.here("verify", *ends, "--level", "bytes")
    assert other.code == 6, other.err
