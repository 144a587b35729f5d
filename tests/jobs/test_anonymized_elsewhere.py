"""Rules of anonymisation as workers on other machines get them: nothing of them is lost, and no secret travels."""

from __future__ import annotations

import pickle
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import Anonymization, PatientTable, UidMap, UsageError
from tests.support.anonymizing import anonymize
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import small_dicom

pytest.importorskip("distributed")
remote = import_module("postdicom_async.jobs.machines.remote")

SECRET = CANARIES["password"]
DATA = small_dicom()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "patients.csv"
    path.write_text(f"PatientID,PatientID,PatientName\nT-1,S-1,{CANARIES['patient_name']}\n")
    return path


def travelled(rules: Anonymization) -> Any:
    packed = pickle.dumps(remote.WorkOptions(rules=remote.packed_rules(rules)))
    watch = CanaryWatch()
    watch.feed_text(packed)
    watch.assert_clean()
    return pickle.loads(packed).rules


@pytest.mark.parametrize(
    "how",
    [
        {"patient_ids": "keyed"},
        {"remap_uids": True, "remove_private": True},
        {"rules": {"PatientName": "ANON"}, "insert_absent": True, "sequences": False, "patient_ids": "keyed"},
    ],
)
def test_a_worker_makes_the_same_bytes(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Anonymization(**how, secret=SECRET)
    there = travelled(rules)
    for other, words in ((None, "has no secret"), ("another secret", "has another secret")):
        monkeypatch.setenv(remote.SECRET, other) if other else monkeypatch.delenv(remote.SECRET, raising=False)
        with pytest.raises(UsageError, match=f"this machine {words}.*: set POSTDICOM_ANONYMIZE_SECRET"):
            remote.unpacked_rules(there)
    monkeypatch.setenv(remote.SECRET, SECRET)
    assert anonymize(DATA, remote.unpacked_rules(there)) == anonymize(DATA, rules)


def test_the_basic_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Anonymization.basic_profile({"PatientName": "ANON"}, patient_ids="keyed", secret=SECRET)
    monkeypatch.setenv(remote.SECRET, SECRET)
    assert anonymize(DATA, remote.unpacked_rules(travelled(rules))) == anonymize(DATA, rules)


@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_table_is_each_machines_own(
    secret: str | None, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = Anonymization(patients=PatientTable.from_csv(table), secret=secret)
    there = travelled(rules)
    monkeypatch.setenv(remote.SECRET, SECRET)
    with pytest.raises(UsageError, match="POSTDICOM_ANONYMIZE_PATIENTS to the file of a table"):
        remote.unpacked_rules(there)
    monkeypatch.setenv(remote.PATIENTS, str(tmp_path / CANARIES["path"]))
    watch = CanaryWatch()
    with pytest.raises(UsageError, match="this machine has no table where") as caught:
        remote.unpacked_rules(there)
    watch.feed(caught.value)
    watch.assert_clean()
    monkeypatch.setenv(remote.PATIENTS, str(table))
    assert anonymize(DATA, remote.unpacked_rules(there)) == anonymize(DATA, rules)
    table.write_text("PatientID,PatientID,PatientName\nT-1,S-1,OTHER\n")
    with pytest.raises(UsageError, match="to the file of a table"):
        remote.unpacked_rules(there)


def test_without_a_secret_only_what_needs_none_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rules in (Anonymization(remap_uids=True), Anonymization(patient_ids="keyed")):
        with pytest.raises(UsageError, match="give a secret, so that other machines make the same"):
            remote.packed_rules(rules)
    plain = Anonymization({"PatientName": "ANON"})
    monkeypatch.setenv(remote.SECRET, "of another job")
    assert anonymize(DATA, remote.unpacked_rules(travelled(plain))) == anonymize(DATA, plain)
    with UidMap(tmp_path / "uids.csv") as uids, pytest.raises(UsageError, match="is written on one machine"):
        remote.packed_rules(Anonymization(remap_uids=True, secret=SECRET, uid_map=uids))
