"""The words that a command ends an upload with: what was left out did not fail."""

from __future__ import annotations

from postdicom_async import Outcome, Status
from postdicom_async.cli.anonymize import Anonymizing
from postdicom_async.cli.upload import upload_counts

LEFT_OUT = "cannot be anonymised: its patient is not in the table of patients"


def test_what_never_left_is_not_sent_and_what_was_refused_failed() -> None:
    outcomes = [
        Outcome("a", Status.STORED),
        Outcome("b", Status.FAILED, reason="not sent: cancelled"),
        Outcome("c", Status.FAILED, reason="not sent: gone"),
        Outcome("d", Status.FAILED, reason="refused without a reason"),
        Outcome("e", Status.UNREADABLE, reason=LEFT_OUT),
        Outcome("f", Status.UNCONFIRMED),
    ]
    counts = {Status.STORED: 1, Status.FAILED: 3, Status.UNREADABLE: 1, Status.UNCONFIRMED: 1}
    said = "1 stored, 1 failed, 2 not sent, 1 not in the table of patients, not sent, 1 unconfirmed"
    assert upload_counts(counts, outcomes) == said
    assert upload_counts(counts, [one for one in outcomes if not one.ok]) == said


def test_where_not_all_outcomes_are_kept_nothing_is_told_apart() -> None:
    kept = [Outcome("b", Status.FAILED, reason="not sent: cancelled")]
    assert upload_counts({Status.FAILED: 2}, kept) == "2 failed"
    assert upload_counts({}) == "nothing"


def test_the_way_to_send_only_the_rest_is_named_where_it_works() -> None:
    once_more = "sends everything once more"
    assert Anonymizing().again(skips_existing=False) == f"{once_more}, with --existing skip only the rest"
    same_uids = Anonymizing(anonymize=["PatientID=1"])
    assert same_uids.again(skips_existing=False) == once_more
    assert same_uids.again(skips_existing=False, knows_copies=True).endswith("with --existing skip only the rest")
