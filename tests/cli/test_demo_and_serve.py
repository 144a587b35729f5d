from __future__ import annotations

import asyncio
import signal
import tempfile
from pathlib import Path

from tests.cli.conftest import Cli, ended
from tests.support.dicom_files import uid


async def test_demo(cli: Cli, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    ran = await cli("demo", env={"TMPDIR": str(temporary), "NO_COLOR": "1"})
    assert ran.code == 0
    for words in ("make samples", "upload", "download", "every byte identical", "Święty", "山田", "byte for byte"):
        assert words in ran.out
    assert "NOT FOUND" not in ran.out
    assert "\x1b" not in ran.out + ran.err
    assert not list(temporary.iterdir())


async def test_demo_that_is_kept(cli: Cli, tmp_path: Path) -> None:
    ran = await cli("demo", "--keep", tmp_path / "kept", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    assert list((tmp_path / "kept" / "downloads").rglob("*.dcm"))
    again = await cli("demo", "--keep", tmp_path / "kept")
    assert again.code == 2
    assert "not empty" in again.error_line


CORRUPT = """
import postdicom_async.emulator.wado as wado
from postdicom_async.cli import demo
real = demo.compare
def compare(sources, saved):
    path = saved[0].path
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    return real(sources, saved)
demo.compare = compare
from postdicom_async.cli.main import run
run()
"""


async def test_demo_notices_a_wrong_byte(cli: Cli) -> None:
    ran = await cli("demo", "--quiet", code=CORRUPT)
    assert ran.code == 1
    assert "differs" in ran.error_line
    assert "FAILED" in ran.out


async def test_serve(cli: Cli, one_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = await cli.start("serve", "--port", "0", "--data", data, "--username", "me")
    assert process.stdout is not None
    assert process.stderr is not None
    password = (await process.stderr.readline()).decode().removeprefix("password: ").strip()
    address, user = (await process.stdout.readline()).decode().split("  user ")
    assert user == "me\n"
    cli.environment |= {"POSTDICOM_URL": address, "POSTDICOM_USERNAME": "me", "POSTDICOM_PASSWORD": password}
    taken = await cli("serve", "--port", address.rpartition(":")[2])
    assert taken.code == 2
    assert "cannot listen" in taken.error_line
    sent, _ = await asyncio.gather(cli("upload", one_file), asyncio.sleep(0))
    assert sent.code == 0
    process.send_signal(signal.SIGINT)
    ran = await ended(process)
    assert ran.code == 0
    assert password not in ran.err
    assert any(path.read_bytes() == one_file.read_bytes() for path in data.rglob("*") if path.is_file())
    assert uid(9)


def test_temporary_folder_is_the_default() -> None:
    assert not list(Path(tempfile.gettempdir()).glob("postdicom-demo-none-*"))
