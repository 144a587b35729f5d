"""What goes wrong with an archive or a disk: the exit code, and one line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.support.canaries import CANARIES, CanaryWatch
from tests.support.dicom_files import small_dicom, uid
from tests.support.faulty_server import FaultyServer, Reply, unused_port

DICOM_JSON = {"Content-Type": "application/dicom+json"}


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        (Reply(401), 4, "credentials"),
        (Reply(403), 4, ""),
        (Reply(404), 3, ""),
        (Reply(429, headers={"Retry-After": "9999"}), 5, "wait"),
        (Reply(503), 5, ""),
        (Reply(400), 1, ""),
        (Reply(200, headers={"Content-Type": "text/html"}, body=b"<html>"), 1, "DICOM JSON"),
        (Reply(302, headers={"Location": "/login"}), 1, "redirect"),
        (Reply(drop_after_request=True), 5, ""),
    ],
)
async def test_answers(cli: Cli, reply: Reply, code: int, words: str) -> None:
    async with FaultyServer(reply) as server:
        ran = await cli.here("search", "studies", "--url", server.url, "--attempts", "1")
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.error_line


async def test_nobody_there(cli: Cli) -> None:
    ran = await cli("search", "studies", "--url", f"http://127.0.0.1:{unused_port()}", "--attempts", "1", "--json")
    assert ran.code == 5
    assert (ran.json["ok"], ran.json["items"]) == (False, [])
    assert "refused" in ran.json["error"]
    assert "refused" in ran.error_line


async def test_wrong_password(cli_with_archive: Cli, one_file: Path) -> None:
    cli = cli_with_archive
    cli.environment["POSTDICOM_PASSWORD"] = CANARIES["password"]
    runs = await asyncio.gather(cli("upload", one_file), cli("upload", one_file, "--json"))
    assert [ran.code for ran in runs] == [4, 4]
    assert runs[0].error_line
    assert runs[1].json["ok"] is False
    assert runs[1].json["error"]
    _assert_clean(*runs)


async def test_no_canary_in_any_output(cli: Cli, tmp_path: Path) -> None:
    """The archive repeats everything it was sent, and more; the file holds a patient."""
    private = tmp_path / "private.dcm"
    private.write_bytes(small_dicom(patient_name=CANARIES["patient_name"], patient_id=CANARIES["patient_id"]))
    cli.environment |= {"POSTDICOM_USERNAME": CANARIES["username"], "POSTDICOM_PASSWORD": CANARIES["password"]}
    filters = [f"PatientName={CANARIES['patient_name']}", f"PatientID={CANARIES['patient_id']}"]
    filters += [f"AccessionNumber={CANARIES['accession']}", f"PatientBirthDate={CANARIES['birth_date']}"]
    pairs = [word for one in filters for word in ("-f", one)]
    reply = Reply(500, headers={"X-Error-Reason": " ".join(f.partition("=")[2] for f in filters)})
    async with FaultyServer(reply) as server:
        connection = ["--url", server.url, "--attempts", "1"]
        runs = await asyncio.gather(
            cli("search", "studies", *pairs, *connection), cli("upload", private, "--json", *connection)
        )
        assert server.requests
    assert {ran.code for ran in runs} <= {1, 5}
    _assert_clean(*runs)


async def test_credentials_stay_off_open_roads(cli: Cli) -> None:
    cli.environment |= {"POSTDICOM_USERNAME": "u", "POSTDICOM_PASSWORD": CANARIES["password"]}
    ran = await cli.here("search", "studies", "--url", "http://192.0.2.1/")
    assert ran.code == 2
    assert "--allow-http" in ran.error_line
    _assert_clean(ran)
    cli.environment["POSTDICOM_TOKEN"] = CANARIES["token"]
    both = await cli.here("search", "studies", "--url", "http://127.0.0.1:1")
    assert both.code == 2
    assert "POSTDICOM_TOKEN" in both.error_line


async def test_token(cli: Cli) -> None:
    async with FaultyServer(Reply(204)) as server:
        assert (await cli.here("search", "studies", "--url", server.url)).code == 0
        cli.environment["POSTDICOM_TOKEN"] = "abc.def"
        assert (await cli.here("search", "studies", "--url", server.url)).code == 0
        assert [request.header("authorization") for request in server.requests] == ["", "Bearer abc.def"]


async def test_hostile_text_is_shown_as_text(cli: Cli) -> None:
    study = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Evil\x1b[31m^[red]Bold[/red]"}]},
        "00100020": {"vr": "LO", "Value": ["\x9b2J\u202egnp"]},
        "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    }
    reply = Reply(200, headers=DICOM_JSON, body=json.dumps([study]).encode())
    async with FaultyServer(reply) as server:
        search = ["search", "studies", "--limit", "1", "--url", server.url]
        shown, raw = await asyncio.gather(cli(*search), cli(*search, "--json"))
    assert shown.code == 0
    assert "[red]Bold[/red]" in shown.out
    for text in (shown.out, shown.err, raw.out):
        assert not {char for char in text if not char.isprintable() and char not in "\n"}
    assert raw.json["items"] == [study]


async def test_certificates(cli: Cli, tmp_path: Path) -> None:
    """An unknown authority is nothing that a repeat would mend; a file that names it is."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file, junk = tmp_path / "ca.pem", tmp_path / "junk.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    junk.write_text("junk")
    async with FaultyServer(Reply(204), ssl_context=context) as server:
        search = ["search", "studies", "--url", server.url]
        unknown = await cli.here(*search)
        assert unknown.code == 1
        assert "certificate" in unknown.error_line
        assert (await cli.here(*search, "--ca-file", ca_file)).code == 0
    for option in ("--ca-file", "--client-cert"):
        for file in (junk, tmp_path / "missing.pem"):
            ran = await cli.here("search", "studies", "--url", "https://127.0.0.1:1", option, file)
            assert ran.code == 2
            assert option in ran.error_line


# --- the disk -------------------------------------------------------------------------------------------------------


async def test_file_too_large_for_the_file_system(cli_with_archive: Cli, one_file: Path, tmp_path: Path) -> None:
    await cli_with_archive.here("upload", one_file)
    to = tmp_path / "back"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))

    unmeasured = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}  # what it measures has no room either
    ran = await cli_with_archive("download", "study", uid(9), "--to", to, preexec=limit, env=unmeasured)
    assert ran.code == 1
    assert "larger than" in ran.error_line
    assert not [path for path in to.rglob("*") if path.is_file()]


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
async def test_full_disk(cli_with_archive: Cli, tmp_path: Path) -> None:
    large = tmp_path / "large.dcm"
    large.write_bytes(small_dicom(uid(9), uid(9, 1), uid(9, 1, 1), pixel_bytes=100_000))
    await cli_with_archive.here("upload", large)
    with _small_disk(tmp_path / "disk") as to:
        ran = await cli_with_archive("download", "study", uid(9), "--to", to)
        assert ran.code == 8
        assert "the disk is full" in ran.error_line
        assert not [path for path in to.rglob("*") if path.is_file()]


def _assert_clean(*runs: Any) -> None:
    watch = CanaryWatch()
    for ran in runs:
        watch.feed_text(ran.out, "stdout")
        watch.feed_text(ran.err, "stderr")
    watch.assert_clean()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    ("closed", "words", "code", "said"),
    [
        ("<&-", "scan", 0, ""),
        (">&-", "scan", 0, ""),
        ("2>&-", "scan", 0, ""),
        ("<&- >&- 2>&-", "scan", 0, ""),
        (">&-", "--help", 0, ""),
        (">/dev/full", "scan", 8, "error: standard output: no space left on device"),
        (">/dev/full", "--help", 8, "error: the disk is full"),
    ],
)
def test_streams_that_are_closed_or_full(one_file: Path, closed: str, words: str, code: int, said: str) -> None:
    """As some schedulers start a command; uvloop does not bear what takes the streams' places."""
    given = ["scan", "--quiet", str(one_file)] if words == "scan" else [words]
    command = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-m", "postdicom_async.cli", *given]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == code
    assert (ran.stderr.splitlines() or [""])[-1] == said
    assert "Traceback" not in ran.stderr
