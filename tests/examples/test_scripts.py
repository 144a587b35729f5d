"""The small examples, run as a user runs them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from postdicom_async import PostDicom
from postdicom_async.emulator import EmbeddedArchive
from tests.examples.running import EXAMPLES, account
from tests.support.dicom_files import small_dicom, uid
from tests.support.plain_http import NO_AUTHORITIES


@pytest.fixture
async def archive() -> AsyncIterator[EmbeddedArchive]:
    async with EmbeddedArchive() as running:
        yield running


async def run(name: str, *arguments: str | Path, url: str, **environment: str) -> tuple[int, str, str]:
    """Run an example; return its exit code and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)),
        env={**account(url), **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_new_order(archive: EmbeddedArchive) -> None:
    order = (archive.institution_uuid, "Święty^Łukasz", "P-17", "1970-02-03", "CT")
    code, out, err = await run("new_order.py", *order, url=archive.url, SHARE_PASSWORD="cnry-s3cret")
    assert (code, err) == (0, "")
    link = out.strip()
    async with httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False) as browser:
        assert (await browser.post(link, data={"password": "cnry-s3cret"})).status_code == 303
    async with PostDicom(archive.url, "demo", "demo") as own:
        (folder,) = await own.folders.search(name="New orders", with_orders=True).all()
    assert [one.patient_name for one in folder.orders] == ["Święty^Łukasz"]


async def test_new_order_whose_answer_is_lost(archive: EmbeddedArchive) -> None:
    archive.fault("createpatientorder", "cut-after")
    code, out, err = await run("new_order.py", archive.institution_uuid, "X", "1", "1970-02-03", "CT", url=archive.url)
    assert (code, out) == (1, "")
    assert "outcome unknown" in err
    assert "before you run this again" in err
    assert [call.operation for call in archive.vendor_calls] == ["createpatientorder"]


async def test_archive_study(archive: EmbeddedArchive, tmp_path: Path) -> None:
    scans = {
        f"{number}.dcm": small_dicom(uid(9), uid(9, 1), uid(9, 1, number), number=number) for number in range(1, 4)
    }
    (tmp_path / "scans").mkdir()
    for name, content in scans.items():
        (tmp_path / "scans" / name).write_bytes(content)
    code, out, err = await run("archive_study.py", tmp_path / "scans", tmp_path / "copies", url=archive.url)
    assert (code, err) == (0, "")
    assert "stored: 3" in out
    assert f"{uid(9)}: 3 saved, 0 here already" in out
    assert sorted(path.read_bytes() for path in (tmp_path / "copies").rglob("*.dcm")) == sorted(scans.values())


async def test_second_opinion(archive: EmbeddedArchive, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for number in range(1, 4):
        data = small_dicom(
            uid(number), uid(number, 1), uid(number, 1, 1), patient_name=f"Doe^{number}", patient_id=str(number)
        )
        (tmp_path / "scans" / f"{number}.dcm").write_bytes(data)
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.7\nDear colleague")
    keys = {
        "POSTDICOM_API_KEY": archive.cloud_api_key,
        "POSTDICOM_ACCOUNT_KEY": archive.cloud_account_key,
        "POSTDICOM_ROUTER_URL": archive.router_url,
        "POSTDICOM_CLOUD_USER": archive.cloud_user_uuid,
    }
    words = (tmp_path / "scans", tmp_path / "letter.pdf", "--institution", archive.institution_uuid)
    code, out, err = await run("second_opinion.py", *words, url=archive.url, **keys)
    assert (code, err) == (0, "CASE-001: 1 files\nCASE-002: 1 files\nCASE-003: 1 files\n")
    async with httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False, follow_redirects=True) as browser:
        page = await browser.get(out.strip())
    assert "CASE-001" in page.text
    assert "Doe" not in page.text
    assert all(b"Doe^" not in stored.path.read_bytes() for stored in archive.store.instances())
    async with PostDicom(archive.url, "demo", "demo") as own:
        (folder,) = await own.folders.search(name="Second opinion", with_orders=True).all()
    assert {one.patient_id for one in folder.orders} == {"CASE-001", "CASE-002", "CASE-003"}
    assert all(len(archive.cloud.documents(str(one.patient_order_uuid))) == 1 for one in folder.orders)


async def test_migrate(archive: EmbeddedArchive, tmp_path: Path) -> None:
    scans = {uid(8, 1, n): small_dicom(uid(8), uid(8, 1), uid(8, 1, n), number=n) for n in range(1, 5)}
    (tmp_path / "scans").mkdir()
    for name, content in scans.items():
        (tmp_path / "scans" / name).write_bytes(content)
    report, state = tmp_path / "report.jsonl", str(tmp_path / "state")
    words = (tmp_path / "scans", f"postdicom+{archive.url}", "--report", report)
    code, out, err = await run("migrate.py", *words, url=archive.url, POSTDICOM_STATE=state)
    assert (code, err) == (0, "")
    assert out.endswith("4 instances: 4 done\n")
    assert sorted(one.path.read_bytes() for one in archive.store.instances()) == sorted(scans.values())
    *items, last = map(json.loads, report.read_text().splitlines())
    assert {one["instance"]: one["symbol"] for one in items} == dict.fromkeys(scans, "+")
    assert last["adds_up"] is True

    (tmp_path / "scans" / "cut").write_bytes(small_dicom(uid(7), uid(7, 1), uid(7, 1, 1), pixel_bytes=5000)[:-700])
    code, out, err = await run("migrate.py", *words, url=archive.url, POSTDICOM_STATE=state)
    assert (code, err) == (1, "")
    assert out.endswith("5 instances: 4 done, 1 failed\n")


async def test_migrate_with_another_password(archive: EmbeddedArchive, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    words = (tmp_path / "scans", f"postdicom+{archive.url}", "--report", tmp_path / "report.html")
    wrong = {"POSTDICOM_STATE": str(tmp_path / "state"), "POSTDICOM_PASSWORD": "cnry-wr0ng"}
    (tmp_path / "scans" / "1").write_bytes(small_dicom(uid(7), uid(7, 1), uid(7, 1, 1)))
    code, out, err = await run("migrate.py", *words, url=archive.url, **wrong)
    assert code == 4
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert "cnry-wr0ng" not in out + err


async def test_archive_study_that_is_not_there(archive: EmbeddedArchive, tmp_path: Path) -> None:
    code, out, err = await run("archive_study.py", tmp_path / "nothing", tmp_path / "copies", url=archive.url)
    assert (code, out) == (1, "")
    assert "Traceback" not in err
