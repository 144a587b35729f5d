"""Rules that go to other machines, or are gone on with later: without their secret, and known by a fingerprint."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from typing import Any

import pytest

from postdicom_async import Anonymization, UsageError
from postdicom_async.dicom.anonymize.identities import PatientRows
from postdicom_async.results import InstanceUids
from tests.support.anonymizing import anonymize, read, result_of
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import small_dicom, uid

SECRET = "a secret of the tests"
DATA = small_dicom()


def rows(*lines: str) -> PatientRows:
    return PatientRows([f"{line}\n".encode() for line in lines])


def rules(secret: str | None = SECRET, **how: Any) -> Anonymization:
    return Anonymization(
        {"PatientName": "ANON", "StudyDescription": ""}, **{"remap_uids": True, "secret": secret, **how}
    )


def test_rules_do_not_travel_with_their_secret() -> None:
    for made in (rules(), rules(None), Anonymization(), rules().with_secret(SECRET)):
        with pytest.raises(UsageError, match="its secret does not travel; send what without_secret"):
            pickle.dumps(made)


@pytest.mark.parametrize("made", [rules(), rules(patient_ids="keyed"), Anonymization.basic_profile(secret=SECRET)])
def test_with_the_same_secret_the_same_bytes_come_out(made: Anonymization) -> None:
    sent = pickle.dumps(made.without_secret())
    assert SECRET.encode() not in sent
    there = pickle.loads(sent)
    assert there.fingerprint() == made.fingerprint()
    assert there.description() == made.description()
    assert there.without_secret().fingerprint() == made.fingerprint()
    assert anonymize(DATA, there.with_secret(SECRET)) == anonymize(DATA, made)
    with pytest.raises(UsageError, match="another secret"):
        there.with_secret("another secret of the tests")
    with pytest.raises(UsageError, match="another secret"):
        there.with_secret(None)
    with pytest.raises(UsageError, match="the secret is not here"):
        result_of(DATA, there)


OTHER_PROCESS = """
import pickle, sys
from tests.support.anonymizing import anonymize
rules, data = pickle.loads(sys.stdin.buffer.read())
sys.stdout.buffer.write(anonymize(data, rules.with_secret(sys.argv[1])))
"""


def test_another_process_goes_on_with_them() -> None:
    made = rules(patient_ids="keyed")
    given = pickle.dumps((made.without_secret(), DATA))
    command = [sys.executable, "-c", OTHER_PROCESS, SECRET]
    assert subprocess.run(command, input=given, capture_output=True, check=True, timeout=60).stdout == anonymize(
        DATA, made
    )


def test_without_a_secret_nobody_could_make_the_same() -> None:
    with pytest.raises(UsageError, match="give a secret, so that other machines"):
        rules(None).without_secret()
    plain = Anonymization({"PatientName": "ANON"})
    there = pickle.loads(pickle.dumps(plain.without_secret()))
    assert there.is_complete
    assert anonymize(DATA, there) == anonymize(DATA, plain), "nothing is derived from a secret"
    assert anonymize(DATA, there.with_secret(None)) == anonymize(DATA, plain)


def test_a_table_stays_where_it_is() -> None:
    table = rows("PatientID,PatientID,PatientName", f"T-1,S-1,{CANARIES['patient_name']}")
    made = rules(patients=table)
    sent = pickle.dumps(made.without_secret())
    watch = CanaryWatch()
    watch.feed_text(sent)
    watch.assert_clean()
    there = pickle.loads(sent)
    assert there.description() == made.description()
    assert not there.is_complete
    with pytest.raises(UsageError, match="the secret is not here"):
        result_of(DATA, there)
    alone = pickle.loads(pickle.dumps(Anonymization(patients=table).without_secret()))
    with pytest.raises(UsageError, match="the secret is not here"):
        result_of(DATA, alone)
    assert anonymize(DATA, alone.with_secret(None, patients=table)) == anonymize(DATA, Anonymization(patients=table))
    for other in (None, rows("PatientID,PatientID,PatientName", "T-1,S-1,OTHER")):
        with pytest.raises(UsageError, match="another table of patients"):
            there.with_secret(SECRET, patients=other)
    assert anonymize(DATA, there.with_secret(SECRET, patients=table)) == anonymize(DATA, made)
    with pytest.raises(UsageError, match="a table stays on its machine"):
        pickle.dumps(table)


def test_the_fingerprint_tells_rules_apart() -> None:
    table = rows("PatientID,PatientName", "T-1,ONE")
    made = {
        "rules": rules(),
        "another secret": rules("another secret of the tests"),
        "no UIDs": rules(remap_uids=False),
        "no sequences": rules(sequences=False),
        "absent ones": rules(insert_absent=True),
        "no private": rules(remove_private=True),
        "keyed": rules(patient_ids="keyed"),
        "table": rules(patients=table),
        "another table": rules(patients=rows("PatientID,PatientComments", "T-1,ONE")),
        "another value": Anonymization(
            {"PatientName": "ANON2", "StudyDescription": ""}, remap_uids=True, secret=SECRET
        ),
        "another tag": Anonymization({"PatientName": "ANON", "StudyID": ""}, remap_uids=True, secret=SECRET),
        "removed": Anonymization({"PatientName": "ANON", "StudyDescription": None}, remap_uids=True, secret=SECRET),
        "vendor": Anonymization.vendor_tags(secret=SECRET, remap_uids=True),
        "basic": Anonymization.basic_profile(secret=SECRET),
        "nothing known": rules(None),
        "nothing known again": rules(None),
    }
    prints = {name: one.fingerprint() for name, one in made.items()}
    assert len({*prints.values()}) == len(made)
    assert all(len(one) == 32 and int(one, 16) for one in prints.values())
    assert prints["rules"] == rules().fingerprint()
    reordered = Anonymization({"00081030": "", "(0010,0010)": "ANON"}, remap_uids=True, secret=SECRET)
    assert reordered.fingerprint() == prints["rules"], "the same, written otherwise"
    more = rows("PatientID,PatientName", "T-1,ONE", "T-2,TWO")
    assert rules(patients=more).fingerprint() == prints["table"], "patients may be added while a job goes on"
    plain = [Anonymization({"PatientName": name}).fingerprint() for name in ("A", "A", "B")]
    assert plain[0] == plain[1] != plain[2], "what needs no secret is the same the next time"


def test_the_description_is_json_and_says_no_value() -> None:
    table = rows("PatientID;PatientName", f"{CANARIES['patient_id']};{CANARIES['patient_name']}")
    made = Anonymization(
        {"PatientName": CANARIES["patient_name"], "PatientBirthDate": None, "00080050": ""},
        remap_uids=True,
        secret=CANARIES["password"],
        patients=table,
        patient_ids="keyed",
    )
    text = json.dumps(made.description())
    watch = CanaryWatch()
    for thing in (text, repr(made), made.fingerprint(), pickle.dumps(made.without_secret())[:0]):
        watch.feed_text(thing)
    watch.assert_clean()
    assert json.loads(text) == {
        "rules": {"00080050": "empty", "00100010": "replace", "00100030": "remove"},
        "basic_profile": False,
        "insert_absent": False,
        "sequences": True,
        "remap_uids": True,
        "remove_private": False,
        "patient_ids": "keyed",
        "patients": {"columns": ["00100010"], "by_issuer": False},
    }


def test_a_copy_is_the_same() -> None:
    made = rules()
    assert copy.copy(made) is made
    assert copy.deepcopy({"a": made})["a"] is made


UIDS = InstanceUids(uid(1), uid(1, 1), uid(1, 1, 1))


@pytest.mark.parametrize(
    "made",
    [
        rules(),
        rules(remap_uids=False),
        Anonymization.basic_profile(secret=SECRET),
        Anonymization({"StudyInstanceUID": "1.2.3"}, remap_uids=True),
    ],
)
def test_the_uids_that_an_instance_will_have(made: Anonymization) -> None:
    out = read(anonymize(DATA, made))
    assert made.uids_after(UIDS) == (out.StudyInstanceUID, out.SeriesInstanceUID, out.SOPInstanceUID)
