"""``postdicom orders create --from``: an order for each row, none twice, whatever became of the answers."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from postdicom_async import PatientOrder, UsageError
from tests.cli.conftest import Cli

HEADINGS = "Patient name,PatientID,patient_birthdate,modality,accession-number"
ROWS = ("CANARY^ONE,A-1,1970-01-31,CT,ACC1", "CANARY^TWO,A-2,1970-01-31,MR,ACC2", "CANARY^THREE,A-3,1970-01-31,CT,")

ORDER = "0b6a1c52-1111-4222-8333-444455556666"


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "orders.csv"
    path.write_text("\n".join((HEADINGS, *ROWS)) + "\n")
    return path


class Orders:
    """Makes orders, and tells which the archive was asked to make."""

    def __init__(self, cli: Cli, archive: Any) -> None:
        self._cli, self._archive = cli, archive

    async def __call__(self, sheet: Path, *more: str | Path) -> Any:
        institution = ("--institution-uuid", self._archive.institution_uuid)
        return await self._cli.here("orders", "create", "--from", sheet, *institution, *more)

    @property
    def asked_for(self) -> Counter[str]:
        calls = [one for one in self._archive.vendor_calls if one.operation == "createpatientorder"]
        return Counter(one.parameters["PatientId"] for one in calls)

    async def there(self) -> Counter[str]:
        found = await self._cli.here("orders", "search", "--output", "jsonl")
        return Counter(json.loads(line)["PatientId"] for line in found.out.splitlines())


@pytest.fixture
def orders(cli_with_archive: Cli, embedded_archive: Any) -> Orders:
    return Orders(cli_with_archive, embedded_archive)


async def test_one_order_a_row_and_none_twice(orders: Orders, sheet: Path) -> None:
    ran = await orders(sheet)
    assert (ran.code, ran.out, ran.err) == (0, "3 made\n", "")
    assert await orders.there() == {"A-1": 1, "A-2": 1, "A-3": 1}
    kept = sheet.with_name("orders.csv.results.jsonl")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "CANARY" not in kept.read_text()
    assert "A-1" not in kept.read_text()

    sheet.write_text("\n".join((HEADINGS, "CANARY^NEW,A-4,1970-01-31,CT,ACC4", ROWS[2], *ROWS)) + "\n")
    again = await orders(sheet, "--json")
    assert (again.code, again.json["summary"]) == (0, {"made": 1, "made_before": 3, "duplicate": 1})
    assert [item["line"] for item in again.json["items"]] == [2, 3, 4, 5, 6]
    assert len({item["patient_order_uuid"] for item in again.json["items"]}) == 4 + 1  # the duplicate has none
    assert await orders.there() == {"A-1": 1, "A-2": 1, "A-3": 1, "A-4": 1}


async def test_a_lost_answer_is_searched_for_and_the_order_not_made_again(
    orders: Orders, sheet: Path, embedded_archive: Any
) -> None:
    embedded_archive.fault("createpatientorder", "cut-after")
    ran = await orders(sheet)
    assert (ran.code, ran.out) == (1, "1 unknown, 2 made\n")
    assert "line 2: unknown: " in ran.err
    assert "CANARY" not in ran.err
    again = await orders(sheet, "--json")
    assert (again.code, again.json["summary"]) == (0, {"made": 1, "made_before": 2})
    assert again.json["items"][0]["reason"] == "found by a search"
    assert orders.asked_for == {"A-1": 1, "A-2": 1, "A-3": 1}


async def test_what_may_have_been_made_is_made_again_only_on_request(
    orders: Orders, sheet: Path, embedded_archive: Any
) -> None:
    sheet.write_text("\n".join((HEADINGS, ROWS[2])) + "\n")  # without an accession number: no search tells
    embedded_archive.fault("createpatientorder", "cut-after")
    assert (await orders(sheet)).code == 1
    still = await orders(sheet)
    assert (still.code, still.out) == (1, "1 unknown\n")
    assert "search before" in still.err
    assert orders.asked_for == {"A-3": 1}
    assert (await orders(sheet, "--retry-unknown")).code == 0
    assert orders.asked_for == {"A-3": 2}
    assert (await orders(sheet, "--retry-unknown")).out == "1 made before\n"


async def test_a_process_that_was_killed_while_it_asked(orders: Orders, sheet: Path) -> None:
    """Its last line says that the row was begun, or is cut short: either way the order may be there."""
    kept = sheet.with_name("orders.csv.results.jsonl")
    assert (await orders(sheet)).code == 0
    lines = kept.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 2 * 3
    kept.write_bytes(b"".join(lines[:-1]) + lines[-1][:-9])
    ran = await orders(sheet)
    assert (ran.code, ran.out) == (1, "2 made before, 1 unknown\n")
    kept.write_bytes(b"".join(lines[:3]) + lines[3])  # the second was begun
    ran = await orders(sheet, "--json")
    assert [item["reason"] for item in ran.json["items"]] == [None, "found by a search", None]
    assert orders.asked_for == {"A-1": 1, "A-2": 1, "A-3": 2}  # of the third, that file knows nothing


async def test_rows_that_fail_are_tried_again(orders: Orders, sheet: Path, embedded_archive: Any) -> None:
    embedded_archive.fault("createpatientorder", "success-false")
    sheet.write_text("\n".join((HEADINGS, *ROWS, "CANARY^FOUR,A-4,1970-31-31,CT,", "CANARY^FIVE,A-5,,CT,")) + "\n")
    ran = await orders(sheet)
    assert (ran.code, ran.out) == (1, "3 failed, 2 made\n")
    assert "line 5: failed: create patient order: --patient-birthdate: " in ran.err
    assert "line 6: failed: patient_birthdate is missing" in ran.err
    assert "CANARY" not in ran.err
    again = await orders(sheet)
    assert again.out == "1 made, 2 made before, 2 failed\n"
    assert await orders.there() == {"A-1": 1, "A-2": 1, "A-3": 1}


async def test_refused_credentials_end_it(orders: Orders, sheet: Path, cli_with_archive: Cli) -> None:
    cli_with_archive.environment["POSTDICOM_PASSWORD"] = "wrong"
    ran = await orders(sheet, "--json")
    assert (ran.code, ran.json["summary"], ran.json["ok"]) == (4, {"failed": 1, "not_begun": 2}, False)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "--from: orders.csv: does not exist"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"", "column 1 has no heading"),
        (b"CANARY^ONE,A-1\n", "column 1 has no heading of: institution_uuid, "),
        (b"patient_name,PatientName\n", "patient_name is the heading of two columns"),
        (b"patient_name\na,CANARY\n", "line 2 has more cells"),
        (b'patient_name\n\n"CANARY\nb\nc\n', "--from: line 3 cannot be read"),
        (b"patient_name\n" + b"CANARY" * 30_000 + b"\n", "--from: line 2 cannot be read"),
        (b'"patient_name\n', "--from: line 1 cannot be read"),
    ],
)
async def test_files_that_cannot_be_used(
    orders: Orders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("orders.csv").write_bytes(content)
    ran = await orders(Path("orders.csv"))
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.error_line
    assert "CANARY" not in ran.err
    assert not orders.asked_for
    assert not list(tmp_path.glob("*.jsonl"))


async def test_one_process_at_a_time_and_no_other_file(orders: Orders, sheet: Path, tmp_path: Path) -> None:
    from postdicom_async.cli.bulk_orders import ResultsFile

    kept = tmp_path / "kept"
    with ResultsFile(kept, ("an account",)):
        ran = await orders(sheet, "--results", kept)
    assert (ran.code, "another process works with" in ran.error_line) == (2, True)
    kept.write_text("a letter\n")
    ran = await orders(sheet, "--results", kept)
    assert (ran.code, "is not a file of results" in ran.error_line) == (2, True)
    assert kept.read_text() == "a letter\n"
    assert not orders.asked_for


async def test_somebody_else_s_order_is_not_taken_for_one_s_own(
    orders: Orders, sheet: Path, embedded_archive: Any
) -> None:
    """A search may find more than it was asked for: here the case of letters does not count."""
    assert (await orders(sheet)).code == 0
    other = sheet.with_name("other.csv")
    other.write_text("\n".join((HEADINGS, ROWS[0].replace("ACC1", "acc1"))) + "\n")
    embedded_archive.fault("createpatientorder", "cut-before")
    assert (await orders(other)).code == 1
    again = await orders(other, "--json")
    assert (again.code, again.json["summary"]) == (1, {"unknown": 1})
    assert again.json["items"][0]["patient_order_uuid"] is None


@pytest.mark.parametrize(("told", "uuid"), [({"OrderAccessionNumber": "ACC1"}, ORDER), ({}, None)])
async def test_an_order_must_name_its_accession_number(told: dict[str, str], uuid: str | None) -> None:
    from postdicom_async.cli.bulk_orders import OrderRow, _found

    class Found:
        orders: Any

        async def search(self, **_given: Any) -> AsyncIterator[PatientOrder]:
            yield PatientOrder({"PatientOrderUuid": ORDER, "PatientId": "A-1", **told})

    client = Found()
    client.orders = client
    assert await _found(client, OrderRow(2, {"accession_number": "ACC1", "patient_id": "A-1"})) == uuid


async def test_results_of_another_account_are_refused(
    orders: Orders, sheet: Path, cli_with_archive: Cli, embedded_archive: Any
) -> None:
    assert (await orders(sheet)).code == 0
    kept = sheet.with_name("orders.csv.results.jsonl")
    before = kept.read_bytes()
    assert set(json.loads(before.splitlines()[0])) == {"salt", "account"}
    assert b"demo" not in before
    user = cli_with_archive.environment["POSTDICOM_USERNAME"]
    for name, value in {"POSTDICOM_USERNAME": f"{user}2", "POSTDICOM_URL": "http://127.0.0.1:9/dicomweb"}.items():
        same = cli_with_archive.environment[name]
        cli_with_archive.environment[name] = value
        ran = await orders(sheet)
        cli_with_archive.environment[name] = same
        assert (ran.code, ran.out, "is of another account" in ran.error_line) == (2, "", True)
    assert kept.read_bytes() == before
    cli_with_archive.environment["POSTDICOM_URL"] += "/"  # the same, written in another way
    assert (await orders(sheet)).out == "3 made before\n"
    assert len(embedded_archive.vendor_calls) == 3


async def test_a_new_file_of_results_is_durable_with_its_name(
    orders: Orders, sheet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        fsync(descriptor)
        flushed.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", noting)
    await orders(sheet, "--results", sheet.with_name("kept"))
    assert sheet.parent.stat().st_ino in flushed[:2]


def test_the_file_of_results_is_locked_on_windows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from postdicom_async.cli.bulk_orders import ResultsFile
    from postdicom_async.disk import private_files

    def in_use(*_given: object) -> None:
        raise PermissionError(errno.EACCES, "permission denied")

    windows = SimpleNamespace(locking=in_use, LK_NBLCK=2)
    monkeypatch.setattr(private_files, "msvcrt", windows, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UsageError, match="another process works with"):
        ResultsFile(tmp_path / "kept", ("an account",))


async def test_options_of_files_need_one(cli_with_archive: Cli) -> None:
    ran = await cli_with_archive.here("orders", "create", "--retry-unknown")
    assert (ran.code, ran.error_line) == (2, "error: --results and --retry-unknown: only with --from")
    ran = await cli_with_archive.here("orders", "create", "--patient-name", "CANARY")
    assert (ran.code, ran.error_line) == (2, "error: Missing option '--institution-uuid'")


async def test_in_the_cloud(cloud_cli: Cli, tmp_path: Path) -> None:
    sheet = tmp_path / "orders.csv"
    sheet.write_text("patient_name;patient_id;modality\nA^B;A-1;CT\nC^D;A-2;MR\n")
    ran = await cloud_cli.here("cloud", "orders", "create", "--from", sheet, "--institution-uuid", "North")
    assert (ran.code, ran.out) == (0, "2 made\n")
    assert (await cloud_cli.here("cloud", "orders", "create", "--from", sheet, "--institution-uuid", "North")).out == (
        "2 made before\n"
    )
    cloud_cli.environment["POSTDICOM_ACCOUNT_KEY"] = "0b6a1c52-1111-4222-8333-444455556666"
    ran = await cloud_cli.here("cloud", "orders", "create", "--from", sheet, "--institution-uuid", "North")
    assert (ran.code, "is of another account" in ran.error_line) == (2, True)
