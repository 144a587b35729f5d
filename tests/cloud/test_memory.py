"""Memory of an upload does not depend on how much is uploaded."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from postdicom_async.emulator import EmbeddedArchive
from tests.cloud.files import PART, study_in
from tests.support.dicom_files import small_dicom, uid
from tests.support.large import large

MIB = 1 << 20
MOST = 48 * MIB
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")


async def uploaded(server: EmbeddedArchive, source: Path, *, anonymize: bool = False) -> dict[str, Any]:
    work = {
        "keys": [server.cloud_api_key, server.cloud_account_key],
        "user": server.cloud_user_uuid,
        "institution": server.institution_uuid,
        "router_url": server.router_url,
        "source": str(source),
        "anonymize": anonymize,
    }
    words = (sys.executable, "-m", "tests.cloud.memory_client", json.dumps(work))
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    out, _ = await process.communicate()
    assert process.returncode == 0
    told: dict[str, Any] = json.loads(out)
    return told


def large_file(path: Path, parts: int) -> None:
    """Write a file in which no two parts are the same."""
    head = small_dicom(uid(9), uid(9, 1), uid(9, 1, 1), pixel_bytes=0)
    with path.open("wb") as file:
        file.write(head + b"\xe0\x7f\x10\x00OW\0\0" + (parts * PART).to_bytes(4, "little"))
        for number in range(parts):
            file.write(number.to_bytes(8) + bytes(PART - 8))


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("parts", [300, large(1200)])
async def test_one_large_file(parts: int, tmp_path: Path) -> None:
    source = tmp_path / "large.dcm"
    large_file(source, parts)
    async with EmbeddedArchive(tmp_path / "archive") as server:
        told = await uploaded(server, source)
        (held,) = server.store.instances()
        assert digest(held.path) == digest(source)
    assert told["stored"] == 1
    assert told["over_idle"] <= MOST


async def test_one_large_file_anonymised(tmp_path: Path) -> None:
    source = tmp_path / "large.dcm"
    large_file(source, 300)
    async with EmbeddedArchive(tmp_path / "archive") as server:
        told = await uploaded(server, source, anonymize=True)
        (held,) = server.store.instances()
        with held.path.open("rb") as one, source.open("rb") as two:
            sent, original = one.read(1000), two.read(1000)
            assert b"TEST^FILE" in original
            assert b"TEST^FILE" not in sent
            for file in (one, two):
                file.seek(-300 * PART, 2)
            assert hashlib.file_digest(one, "sha256").digest() == hashlib.file_digest(two, "sha256").digest()
    assert told["over_idle"] <= MOST


async def test_many_small_files(tmp_path: Path) -> None:
    files = study_in(tmp_path / "files", 800)
    async with EmbeddedArchive(tmp_path / "archive") as server:
        told = await uploaded(server, tmp_path / "files")
        assert {one.uids.sop_instance_uid: one.path.read_bytes() for one in server.store.instances()} == files
    assert told["stored"] == 800
    assert told["over_idle"] <= MOST
