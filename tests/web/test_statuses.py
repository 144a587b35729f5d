"""Errors become statuses: every one of them, and those that a backend wants otherwise."""

from __future__ import annotations

import pytest

from postdicom_async import (
    AuthenticationFailed,
    ConnectionFailed,
    IncompleteDownload,
    LedgerLocked,
    LedgerUnusable,
    LocalFileError,
    NotFound,
    OutcomeUnknown,
    PostdicomError,
    RateLimited,
    TransferError,
    UsageError,
    errors,
)
from postdicom_async.web import STATUSES, answer_to, status_of


def test_every_error_is_in_the_table() -> None:
    assert {getattr(errors, name) for name in errors.__all__} == set(STATUSES)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("no", argument="uid"), 422),
        (NotFound("no"), 404),
        (OutcomeUnknown("no"), 504),
        (ConnectionFailed("no"), 502),
        (LedgerLocked("no"), 409),
        (PostdicomError("no"), 502),
        (type("Later", (NotFound,), {})("no"), 404),
    ],
)
def test_the_nearest_base_decides(error: PostdicomError, status: int) -> None:
    assert status_of(error) == status


def test_a_kind_that_has_no_row_of_its_own() -> None:
    assert IncompleteDownload not in STATUSES
    assert issubclass(IncompleteDownload, TransferError)
    assert status_of(IncompleteDownload.__new__(IncompleteDownload)) == STATUSES[TransferError]


def test_a_backend_s_own_table_is_asked_first() -> None:
    own: dict[type[PostdicomError], int] = {AuthenticationFailed: 401, ConnectionFailed: 500}
    assert status_of(AuthenticationFailed("no"), statuses=own) == 401
    assert status_of(NotFound("no"), statuses=own) == 404
    # The table's row for the kind itself comes before one's own row for its base.
    assert status_of(OutcomeUnknown("no"), statuses=own) == 504


def test_what_is_answered() -> None:
    told = answer_to(RateLimited("wait", operation="search for studies", status=429, retry_after=1.2))
    assert told == (
        503,
        {"detail": "search for studies: wait (status 429)", "temporary": True},
        {"Retry-After": "2"},
    )
    assert answer_to(NotFound("no")).headers == {}


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (LocalFileError("sources: /in/CANARY^JANE: permission denied"), "a file of the backend cannot be used"),
        (LedgerUnusable("/jobs/CANARY: damaged"), "the ledger of the job cannot be used"),
        (LedgerLocked("/jobs/CANARY"), "another process runs this job"),
        (UsageError("/in/CANARY holds a NUL", argument="sources"), "sources: cannot be used"),
        (UsageError("2 have that in their names: CANARY", argument="job"), "job: cannot be used"),
        (UsageError("/etc/CANARY.pem is damaged", argument="tls.ca_file"), "tls.ca_file: cannot be used"),
        (
            UsageError("/home/CANARY/profiles.toml: not TOML"),
            "the backend cannot do this with the arguments it was given",
        ),
        (UsageError("give 1 or more", argument="limit"), "limit: give 1 or more"),
    ],
)
def test_no_path_of_the_backend_is_shown(error: PostdicomError, detail: str) -> None:
    assert answer_to(error).body["detail"] == detail
