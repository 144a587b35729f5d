"""The archive's folder: who may look into it, what a killed process leaves there, and what a full disk allows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from postdicom_async import CloudApi, UsageError
from postdicom_async.emulator import EmbeddedArchive
from tests.emulator.support import client_of, encode, make_instance, store, with_pixels
from tests.emulator.vendor_support import create_order, refused, told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(params=[0o000, 0o022])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> set[tuple[bool, int]]:
    """Return the permissions of everything in a folder and of itself, files and folders apart."""
    return {(path.is_dir(), path.stat().st_mode & 0o777) for path in (folder, *folder.rglob("*"))}


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.usefixtures("umask")
async def test_nobody_else_may_look(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "archive"
    async with EmbeddedArchive(folder) as archive, client_of(archive) as client:
        await store(client, make_instance(), make_instance(PatientName="Doe^Jane"))
        file = tmp_path / "one.dcm"
        file.write_bytes(make_instance("1.2", "1.2.1", "1.2.1.1"))
        await archive.add([file])
        document = tmp_path / "report.pdf"
        document.write_bytes(b"%PDF-1.7\n%%EOF\n")
        keys = archive.cloud_api_key, archive.cloud_account_key
        async with CloudApi(*keys, router_url=archive.router_url) as api:
            report = await api.upload_documents([document], archive.order_uuid("1.2.3"))
            assert report.ok

        assert {path.name for path in folder.iterdir()} >= {"index.sqlite", "index.sqlite-wal", "studies", "documents"}
        assert modes(folder) == {(True, 0o700), (False, 0o600)}
    assert modes(folder) == {(True, 0o700), (False, 0o600)}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
async def test_an_upload_on_its_way_is_private(tmp_path: Path) -> None:
    async with EmbeddedArchive(tmp_path / "a") as archive, client_of(archive) as client:
        seen: set[int] = set()

        async def slowly() -> AsyncIterator[bytes]:
            body = b"--limit\r\n\r\n" + bytes(3 * 1024 * 1024)
            yield body
            for _ in range(100):
                seen.update(path.stat().st_mode & 0o777 for path in (archive.folder / "incoming").iterdir())
                if seen:
                    break
                yield bytes(1024 * 1024)
            yield b"\r\n--limit--\r\n"

        kind = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=limit'}
        await client.post("/studies", content=slowly(), headers=kind)

    assert seen == {0o600}


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
async def test_what_an_older_archive_left_open_is_closed(tmp_path: Path) -> None:
    async with EmbeddedArchive(tmp_path / "a") as archive, client_of(archive) as client:
        await store(client, make_instance())
    for path in (tmp_path / "a").iterdir():
        path.chmod(0o755 if path.is_dir() else 0o644)

    async with EmbeddedArchive(tmp_path / "a") as archive, client_of(archive) as client:
        left = {path.name: path.stat().st_mode & 0o077 for path in archive.folder.iterdir()}
        assert not any(left.values()), left


KILLED = """
import os, signal, sys
from pathlib import Path
from postdicom_async.emulator.store.archive import ArchiveStore, parse_instance

store = ArchiveStore(Path(sys.argv[1]))
before = getattr(ArchiveStore, sys.argv[2])
def kill(*given):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(ArchiveStore, sys.argv[2], kill)
incoming = store.new_incoming()
incoming.write_bytes(Path(sys.argv[3]).read_bytes())
store.add(incoming, parse_instance(incoming))
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize(
    ("method", "expected"),
    [("_index", b"first"), ("_remove_file", b"later")],
    ids=["before the commit", "after the commit, before the old file goes"],
)
async def test_what_a_killed_process_leaves_is_swept(tmp_path: Path, method: str, expected: bytes) -> None:
    folder, file = tmp_path / "a", tmp_path / "later.dcm"
    first, later = make_instance(PatientComments="first"), make_instance(PatientComments="later")
    file.write_bytes(later)
    async with EmbeddedArchive(folder) as archive, client_of(archive) as client:
        await store(client, first)

    ended = subprocess.run([sys.executable, "-c", KILLED, folder, method, file], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(folder.glob("studies/**/*.dcm"))) == 2

    async with EmbeddedArchive(folder) as archive, client_of(archive) as client:
        assert len(list(folder.glob("studies/**/*.dcm"))) == 1
        whole = await client.get("/studies/series/instances/1.2.3.1.1", headers={"Accept": "application/dicom"})
        assert whole.content == {b"first": first, b"later": later}[expected]


HOLDS = """
import sys
from pathlib import Path
from postdicom_async.emulator.store.archive import ArchiveStore

store = ArchiveStore(Path(sys.argv[1]))
store.new_incoming().write_bytes(b"on its way")
print("open", flush=True)
sys.stdin.read()
"""


async def test_a_folder_is_for_one_archive_at_a_time(tmp_path: Path) -> None:
    """Another one would remove what is on its way; when the first is killed, the folder is free."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout
            assert other.stdout.readline().strip() == b"open"
            with pytest.raises(UsageError, match="in use by another archive"):
                async with EmbeddedArchive(tmp_path):
                    pass
            assert len(list((tmp_path / "incoming").iterdir())) == 1
        finally:
            other.kill()
    async with EmbeddedArchive(tmp_path) as archive, client_of(archive) as client:
        await store(client, make_instance())
        with pytest.raises(UsageError, match="in use by another archive"):
            async with EmbeddedArchive(tmp_path):
                pass
        await store(client, make_instance(PatientName="Doe^Jane"))


async def test_beside_a_lost_index_nothing_is_swept(tmp_path: Path) -> None:
    async with EmbeddedArchive(tmp_path) as archive, client_of(archive) as client:
        await store(client, make_instance())
    for path in tmp_path.glob("index.sqlite*"):
        path.unlink()

    async with EmbeddedArchive(tmp_path):
        assert len(list(tmp_path.glob("studies/**/*.dcm"))) == 1


async def test_what_cannot_be_indexed_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with EmbeddedArchive(tmp_path) as archive, client_of(archive) as client:
        monkeypatch.setattr(archive.store, "_index", lambda *_: 1 / 0)
        await store(client, make_instance())

        assert list(tmp_path.glob("studies/**/*.dcm")) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", place], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk can only be mounted by root on Linux")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


async def test_on_a_full_disk_deleting_works(small_disk: Path) -> None:
    folder = small_disk / "a"
    async with EmbeddedArchive(folder) as archive, client_of(archive) as client:
        order = await create_order(archive, client)
        for number in range(8):
            data = encode(with_pixels("1.2", "1.2.1", f"1.2.1.{number}", rows=256, columns=256))
            assert (await store(client, data)).status_code == 200

    async with EmbeddedArchive(folder) as archive, client_of(archive) as client:  # whose journal begins anew
        fill(small_disk)
        full = await store(client, make_instance("1.3", PatientComments="x" * 9000))
        assert full.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA700]
        assert "full" in refused(
            await client.get("/createfolder", headers={"CreateFolderParameters": '{"FolderName": "x"}'}), 507
        )

        given = {"PatientOrderInstitutionUuid": archive.institution_uuid, "PatientOrderUuid": order}
        assert (await told(client, "deleteorder", **given))["Success"]
        fill(small_disk)
        assert (await client.delete("/studies/1.2/series/1.2.1/instances/1.2.1.0")).status_code == 204
        fill(small_disk)
        (folder / "reserve").unlink(missing_ok=True)
        fill(small_disk)
        assert (await client.delete("/studies/1.2")).status_code == 204
        assert (await client.get("/studies")).json() == []
        assert list(folder.glob("studies/**/*.dcm")) == []
        (small_disk / "filler").unlink()
        assert (await store(client, make_instance())).status_code == 200
