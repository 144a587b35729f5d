"""``download patient`` and ``download -f``: what a search finds; and layouts with values of the header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.faults.odd_archives import make_odd
from tests.support.dicom_files import small_dicom, uid
from tests.support.faulty_server import FaultyServer

PATIENTS = {1: "A-1", 2: "A-1", 3: "B/2", 4: "C-3"}


def content(study: int, series: int, number: int) -> bytes:
    return small_dicom(
        uid(study), uid(study, series), uid(study, series, number), patient_id=PATIENTS[study], number=number,
        patient_name=f"CANARY^{study}",
    )  # fmt: skip


@pytest.fixture
async def held(cli_with_archive: Cli, embedded_archive: Any, tmp_path: Path) -> Cli:
    """Give four studies of three patients, each of two series with an instance each."""
    folder = tmp_path / "held"
    folder.mkdir()
    for study in PATIENTS:
        for series in (1, 2):
            (folder / f"{study}-{series}").write_bytes(content(study, series, 1))
    await embedded_archive.add(sorted(folder.iterdir()))
    return cli_with_archive


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


async def test_every_study_of_a_patient(held: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    ran = await held.here("download", "patient", "A-1", "--to", to)
    assert (ran.code, ran.err) == (0, "to download: 2 studies, 4 instances\n")
    assert ran.out.startswith("4 saved; ")
    expected = {uid(study, series, 1): content(study, series, 1) for study in (1, 2) for series in (1, 2)}
    assert {path.stem: path.read_bytes() for path in to.rglob("*.dcm")} == expected
    again = await held.here("download", "patients", "A-1", "--to", to, "--json", "--error-if-nothing")
    assert (again.code, again.json["summary"]["already_present"]) == (9, 4)


async def test_patients_who_are_not_there(held: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    ran = await held.here("download", "patient", "CANARY-ID", "--to", to)
    assert (ran.code, ran.out) == (3, "")
    assert "the archive shows no study of that patient" in ran.error_line
    assert not to.exists()
    two = await held.here("download", "patient", "CANARY-ID", "C-3", "--to", to, "--json")
    assert (two.code, two.json["summary"]["saved"], two.json["ok"]) == (1, 2, False)
    assert "patient 1 of 2: the archive shows no study" in two.err
    assert "CANARY" not in ran.err + two.err + two.out


async def test_what_a_search_finds(held: Cli, tmp_path: Path) -> None:
    studies = await held.here("download", "-f", "PatientID=A*", "--to", tmp_path / "a", "--json")
    assert (studies.code, studies.json["summary"]["saved"]) == (0, 4)
    series = await held.here("download", "series", "-f", f"SeriesInstanceUID={uid(3, 2)}", "--to", tmp_path / "b")
    assert (series.code, series.err) == (0, "to download: 1 series, 1 instance\n")
    assert names_in(tmp_path / "b") == {f"{uid(3)}/{uid(3, 2)}/{uid(3, 2, 1)}.dcm"}
    one = await held.here("download", "instances", "-f", f"SOPInstanceUID={uid(4, 1, 1)}", "--to", tmp_path / "c", "-q")
    assert (one.code, one.err, len(names_in(tmp_path / "c"))) == (0, "", 1)
    of_one = await held.here(
        "download", "patient", "A-1", "-f", f"StudyInstanceUID={uid(2)}", "--to", tmp_path / "d", "--json"
    )
    assert of_one.json["summary"]["saved"] == 2


async def test_a_search_that_finds_nothing(held: Cli, tmp_path: Path) -> None:
    ran = await held.here("download", "-f", "PatientID=nobody", "--to", tmp_path / "to")
    assert (ran.code, ran.out, ran.err) == (0, "", "nothing matches\n")
    wanted = await held.here("download", "-f", "PatientID=nobody", "--to", tmp_path / "to", "--error-if-nothing", "-q")
    assert (wanted.code, wanted.error_line) == (9, "error: nothing to download: nothing matches")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    "words", [["patient", "T-1"], ["-f", f"StudyInstanceUID={uid(1)}"]], ids=["of a patient", "by a filter"]
)
async def test_an_archive_that_ignores_filters_is_not_downloaded(cli: Cli, tmp_path: Path, words: list[str]) -> None:
    async with FaultyServer(make_odd("ignores all filters")) as server:
        ran = await cli.here("download", *words, "--url", server.url, "--to", tmp_path / "to", "--attempts", "1")
    assert (ran.code, ran.out) == (1, "")
    assert ran.error_line.endswith("nothing was downloaded")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "missing argument 'patient|study|series|instance'"),
        (["study"], "give one or more Study Instance UIDs"),
        (["patient"], "give one or more Patient IDs"),
        (["patient", "CANARY*"], "give whole Patient IDs"),
        (["patient", ""], "give whole Patient IDs"),
        (["patient", "CANARY", "-f", "patientid=X"], "--filter: the Patient ID is given already"),
        (["study", "1.2", "-f", "PatientID=CANARY"], "give UIDs or --filter, not both"),
        (["-f", "PatientID"], "--filter: give KEY=VALUE"),
        (["patients-of", "1.2"], "patient, study, series, instance"),
    ],
)
async def test_mistakes(cli: Cli, words: list[str], says: str, tmp_path: Path) -> None:
    ran = await cli.here("download", *words, "--to", tmp_path / "to", "--url", "http://127.0.0.1:1")
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.error_line
    assert "CANARY" not in ran.err


# --- layouts ----------------------------------------------------------------------------------------------------------


async def test_values_of_the_header_in_paths(held: Cli, tmp_path: Path, embedded_archive: Any) -> None:
    to, layout = tmp_path / "to", "{PatientID}/{Modality}-{InstanceNumber}/{instance}.dcm"
    ran = await held.here("download", "-f", "PatientID=*", "--to", to, "--layout", layout, "--json")
    assert ran.code == 0
    expected = {
        f"{PATIENTS[study].replace('/', '_')}/CT-1/{uid(study, series, 1)}.dcm": content(study, series, 1)
        for study in PATIENTS
        for series in (1, 2)
    }
    assert {name: (to / name).read_bytes() for name in names_in(to)} == expected

    (to / f"A-1/CT-1/{uid(1, 1, 1)}.dcm").write_bytes(content(1, 1, 1)[:-1])  # cut off
    (to / f"A-1/CT-1/{uid(1, 2, 1)}.dcm").rename(to / f"A-1/{uid(1, 2, 1)}.dcm")  # where the layout puts none
    again = await held.here("download", "-f", "PatientID=*", "--to", to, "--layout", layout, "--json")
    assert (again.json["summary"]["saved"], again.json["summary"]["already_present"]) == (2, 6)
    assert {name: (to / name).read_bytes() for name in names_in(to) if "CT" in name} == expected
    del embedded_archive


async def test_a_large_instance_is_named_too(held: Cli, tmp_path: Path, embedded_archive: Any) -> None:
    large = small_dicom(uid(5), uid(5, 1), uid(5, 1, 1), pixel_bytes=3 << 20, patient_id="L-1")
    (tmp_path / "large").write_bytes(large)
    await embedded_archive.add([tmp_path / "large"])
    ran = await held.here("download", "study", uid(5), "--to", tmp_path / "to", "--layout", "{PatientID}_{instance}")
    assert ran.code == 0
    assert (tmp_path / "to" / f"L-1_{uid(5, 1, 1)}").read_bytes() == large


async def test_no_error_shows_a_path_with_patient_data(held: Cli, tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.mkdir()
    (to / "CANARY^1").write_text("a file where a folder should be")
    ran = await held.here("download", "study", uid(1), "--to", to, "--layout", "{PatientName}/{instance}.dcm")
    assert ran.code == 1
    assert str(to) in ran.error_line
    assert "CANARY" not in ran.err + ran.out


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("{SeriesNumber}.dcm", "must contain {instance}, such as {InstanceNumber}-{instance}.dcm"),
        ("x.dcm", "must contain {instance}"),
        ("{PatientID}{instance}", "put a letter or a dash"),
        ("{Foo}", "'Foo'"),
        ("{PatientID}-{instance}-{Modality}", "{PatientID} and {Modality} must be on one side of {instance}"),
    ],
)
async def test_layouts_that_are_refused(held: Cli, tmp_path: Path, layout: str, words: str) -> None:
    ran = await held.here("download", "study", uid(1), "--to", tmp_path / "to", "--layout", layout)
    assert (ran.code, ran.out) == (2, "")
    assert ran.error_line.startswith("error: --layout: ")
    assert words in ran.error_line
    held.environment["POSTDICOM_URL"] = "http://127.0.0.1:1"  # where nobody is
    found = await held.here("download", "-f", "PatientID=*", "--to", tmp_path / "to", "--layout", layout)
    assert (found.code, found.error_line) == (2, ran.error_line)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only where there is /proc")
async def test_a_folder_that_cannot_be_made(held: Cli) -> None:
    ran = await held.here("download", "study", uid(1), "--to", "/proc/nowhere/to")
    assert ran.code != 0
    words = ("/proc/nowhere/to: no folder can be made there", "/proc cannot be written to")  # root, and others
    assert ran.error_line.endswith(words)


async def test_a_download_without_uids_says_which_it_needs(cli: Cli, tmp_path: Path) -> None:
    where = ("--to", tmp_path / "to", "--url", "http://127.0.0.1:1")
    ran = await cli.here("download", "study", *where)
    assert ran.error_line == "error: download study: give one or more Study Instance UIDs"
    ran = await cli.here("download", "series", "1.2", *where)
    assert ran.error_line == "error: download series: give the UIDs of study and series, in this order"
