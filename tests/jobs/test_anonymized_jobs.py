"""Jobs that anonymise on the way: the same copies in every run, proved by their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from pydicom import dcmread

from postdicom_async import Anonymization, PatientTable, UidMap, UsageError, jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs.states import Reason, State
from postdicom_async.jobs.summary import Summary
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import small_dicom, uid

SECRET = "a secret of the tests"


def counts(summary: Summary) -> dict[State, int]:
    return {state: count.instances for state, count in summary.counts.items() if count.instances}


def stored(archive: EmbeddedArchive) -> dict[str, Path]:
    return {one.uids.sop_instance_uid: one.path for one in archive.store.instances()}


@pytest.mark.parametrize("verify", ["listed", "bytes"])
async def test_copies_are_the_same_in_every_run(
    verify: str, folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes]
) -> None:
    def rules() -> Anonymization:
        return Anonymization.vendor_tags(remap_uids=True, patient_ids="keyed", secret=SECRET)

    for run in (1, 2):
        summary = await (await jobs.copy(folder, archive.url, anonymize=rules(), verify=verify)).wait()  # type: ignore[arg-type]
        assert counts(summary) == {State.DONE: 15, State.EXCLUDED: 1}
        assert (summary.facts.run, summary.verified, summary.mismatches, dict(summary.coerced)) == (run, 15, 0, {})
    afresh = await (await jobs.copy(folder, archive.url, anonymize=rules(), new=True, full=True)).wait()
    assert counts(afresh) == {State.PRESENT: 15, State.EXCLUDED: 1}
    assert set(stored(archive)) == {rules().new_uid(name) for name in files}
    assert len({str(dcmread(path).PatientID) for path in stored(archive).values()}) == 1


async def test_bytes_that_changed_at_the_target_are_found(
    folder: Path, archive: EmbeddedArchive, files: Mapping[str, bytes]
) -> None:
    rules = Anonymization({"PatientName": "ANON^1"}, remap_uids=True, secret=SECRET)
    await (await jobs.copy(folder, archive.url, anonymize=rules)).wait()
    at_target = stored(archive)
    flipped, original, moved, *_ = [rules.new_uid(name) for name in files]
    data = bytearray(at_target[flipped].read_bytes())
    data[-3] ^= 1
    at_target[flipped].write_bytes(data)
    at_target[original].write_bytes(at_target[original].read_bytes().replace(b"ANON^1", b"JOHN^1"))
    at_target[moved].write_bytes(at_target[moved].read_bytes().replace(b"T-1 ", b"T-2 "))
    summary = await (await jobs.verify(folder, archive.url, anonymize=rules, level="bytes")).wait()
    assert counts(summary) == {State.PRESENT: 13, State.FAILED: 2, State.EXCLUDED: 1}
    (failed,) = [one for one in summary.reasons if one.state is State.FAILED]
    assert failed.reason == Reason.DIFFERENT
    assert set(failed.examples) == set([*files][:2]), "a name that the rules changed is for no archive to change"
    assert dict(summary.coerced)["00100020"] == 1


async def test_patients_who_are_not_in_the_table_are_not_sent_until_they_are(
    folder: Path, archive: EmbeddedArchive, tmp_path: Path
) -> None:
    name, patient = CANARIES["patient_name"], CANARIES["patient_id"]
    other = small_dicom(uid(4), uid(4, 1), uid(4, 1, 1), patient_id=patient, patient_name=name)
    (folder / "other.dcm").write_bytes(other)
    table = tmp_path / "table.csv"
    table.write_text("PatientID,PatientID,PatientName\nT-1,S-1,ANON^1\n")

    async def copied() -> Summary:
        with UidMap(tmp_path / "uids.csv") as uids:
            patients = PatientTable.from_csv(table)
            rules = Anonymization(remap_uids=True, patients=patients, secret=SECRET, uid_map=uids)
            return await (await jobs.copy(folder, archive.url, anonymize=rules)).wait()

    watch = CanaryWatch()
    first = await copied()
    assert counts(first) == {State.DONE: 15, State.FAILED: 1, State.EXCLUDED: 1}
    (failed,) = [one for one in first.reasons if one.state is State.FAILED]
    assert (failed.reason, failed.examples) == (Reason.ANONYMIZE, (uid(4, 1, 1),))
    assert first.mismatches == 0
    watch.feed(first)
    with table.open("a") as file:
        file.write(f"{patient},S-2,ANON^2\n")
    second = await copied()
    assert (second.facts.job, second.facts.run) == (first.facts.job, 2), "the same job, with one patient more"
    watch.feed(second)
    for path in [*(tmp_path / "state").rglob("*"), tmp_path / "uids.csv"]:
        if path.is_file():
            watch.feed_text(path.read_bytes(), path.name)
    watch.assert_clean()
    assert counts(second) == {State.DONE: 16, State.EXCLUDED: 1}
    assert {str(dcmread(path).PatientID) for path in stored(archive).values()} == {"S-1", "S-2"}


async def test_without_a_secret_no_job_begins(folder: Path, archive: EmbeddedArchive) -> None:
    for rules in (Anonymization(remap_uids=True), Anonymization(patient_ids="keyed"), Anonymization.basic_profile()):
        with pytest.raises(UsageError, match="give a secret, so that it makes the same UIDs"):
            await jobs.copy(folder, archive.url, anonymize=rules)
    summary = await (await jobs.copy(folder, archive.url, anonymize=Anonymization({"PatientName": "A"}))).wait()
    assert summary.of(State.DONE).instances == 15


async def test_other_rules_are_another_job(folder: Path, archive: EmbeddedArchive) -> None:
    names = set()
    for rules in (None, *(Anonymization({"PatientName": name}) for name in ("A", "B", "A"))):
        job = await jobs.copy(folder, archive.url, anonymize=rules)
        names.add((await job.wait()).facts.job)
    assert len(names) == 3
