from __future__ import annotations

import signal
from pathlib import Path
from uuid import UUID

import httpx

from tests.cli.conftest import Cli, ended
from tests.support.plain_http import NO_AUTHORITIES


async def test_demo(cli: Cli, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    ran = await cli("demo", env={"TMPDIR": str(temporary), "NO_COLOR": "1"})
    assert ran.code == 0
    for words in (
        "samples",
        "search by name",
        "upload",
        "download",
        "every byte identical",
        "Święty",
        "山田",
        "byte for byte",
    ):
        assert words in ran.out
    assert "NOT FOUND" not in ran.out
    assert "\x1b" not in ran.out + ran.err
    assert not list(temporary.iterdir())


CORRUPT = """
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


async def test_demo_notices_a_wrong_byte_and_keeps_it(cli: Cli, tmp_path: Path) -> None:
    ran = await cli("demo", "--quiet", "--keep", tmp_path / "kept", code=CORRUPT)
    assert ran.code == 1
    assert "differs" in ran.error_line
    assert "FAILED" in ran.out
    assert list((tmp_path / "kept" / "downloads").rglob("*.dcm"))
    again = await cli.here("demo", "--keep", tmp_path / "kept")
    assert again.code == 2
    assert "not empty" in again.error_line


FULL = """
import errno
from postdicom_async.cli import demo
def make_samples(folder):
    raise OSError(errno.ENOSPC, "No space left on device", str(folder / "a-name"))
demo.make_samples = make_samples
from postdicom_async.cli.main import run
run()
"""


async def test_demo_on_a_full_disk(cli: Cli, tmp_path: Path) -> None:
    ran = await cli("demo", "--quiet", "--keep", tmp_path / "kept", code=FULL)
    assert (ran.code, ran.error_line) == (8, "error: the disk is full")


async def test_serve(cli: Cli, one_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = await cli.start("serve", "--port", "0", "--data", data, "--username", "me")
    assert process.stdout is not None
    assert process.stderr is not None
    password = (await process.stderr.readline()).decode().removeprefix("password: ").strip()
    address, user = (await process.stdout.readline()).decode().split("  user ")
    assert user == "me\n"
    router, what = (await process.stdout.readline()).decode().split("  ")
    assert (router, what) == (f"{address}/wssShellService/", "router of the Cloud API\n")
    keys = [(await process.stderr.readline()).decode().strip().partition(": ") for _ in range(2)]
    assert [name for name, _, _ in keys] == ["API key", "account key"]
    assert len({UUID(key) for _, _, key in keys}) == 2
    cli.environment |= {"POSTDICOM_URL": address, "POSTDICOM_USERNAME": "me", "POSTDICOM_PASSWORD": password}
    taken = await cli("serve", "--port", address.rpartition(":")[2])
    assert taken.code == 2
    assert "cannot listen" in taken.error_line
    assert (await cli("upload", one_file)).code == 0
    process.send_signal(signal.SIGINT)
    ran = await ended(process)
    assert ran.code == 0
    assert password not in ran.err
    assert any(path.read_bytes() == one_file.read_bytes() for path in data.rglob("*") if path.is_file())


async def test_serve_takes_a_token(cli: Cli) -> None:
    cli.environment["POSTDICOM_TOKEN"] = "no token"
    ran = await cli("serve", "--port", "0")
    assert (ran.code, ran.error_line) == (2, "error: POSTDICOM_TOKEN: a token is printable ASCII without spaces")
    cli.environment["POSTDICOM_TOKEN"] = "a.token"
    process = await cli.start("serve", "--port", "0")
    assert process.stdout is not None
    cli.environment["POSTDICOM_URL"] = (await process.stdout.readline()).decode().split("  ")[0]
    known = await cli("search", "studies", "--count")
    cli.environment["POSTDICOM_TOKEN"] = "another"
    unknown = await cli("search", "studies", "--count")
    process.send_signal(signal.SIGINT)
    ran = await ended(process)
    assert (known.code, known.out, unknown.code) == (0, "0\n", 4)
    assert "a.token" not in ran.err


async def test_serve_lets_pages_and_names_in_that_it_is_told_of(cli: Cli, tmp_path: Path) -> None:
    page = "http://localhost:3000"
    process = await cli.start("serve", "--port", "0", "--allow-origin", page, "--allow-host", "archive.example")
    assert process.stdout is not None
    address = (await process.stdout.readline()).decode().split("  ")[0]
    async with httpx.AsyncClient(verify=NO_AUTHORITIES, trust_env=False) as client:
        asked = {"Origin": page, "Access-Control-Request-Method": "GET"}
        before = await client.options(f"{address}/studies", headers=asked)
        named = await client.get(f"{address}/studies", headers={"Host": "archive.example"})
        strange = await client.get(f"{address}/studies", headers={"Host": "evil.example"})
    process.send_signal(signal.SIGINT)
    await ended(process)

    assert before.headers["access-control-allow-origin"] == page
    assert (named.status_code, strange.status_code) == (401, 421)


async def test_serve_refuses_what_is_no_origin_or_name(cli: Cli) -> None:
    for option, wrong in (("--allow-origin", "viewer.example"), ("--allow-host", "archive.example:80")):
        ran = await cli("serve", "--port", "0", option, wrong)
        assert ran.code == 2
        assert option in ran.error_line
