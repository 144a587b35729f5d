"""``share upload``: files to a link in one command, in both of PostDICOM's APIs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, ended

UNTIL = ("--expires", "2031-12-31")


async def test_into_a_new_folder(cli_with_archive: Cli, embedded_archive: Any, study_folder: Path) -> None:
    cli = cli_with_archive
    cli.environment["POSTDICOM_SHARE_PASSWORD"] = "a password"
    ran = await cli.here("share", "upload", study_folder, *UNTIL, "--folder", "Second opinion", "--title", "For Ann")
    assert ran.code == 0
    assert ran.out.startswith("http")
    assert len(ran.out.splitlines()) == 1
    assert "6 stored" in ran.err
    assert "without a password" not in ran.err
    (folder,) = (await cli.here("folders", "search", "--with-orders", "--json")).told
    assert folder["FolderName"] == "Second opinion"
    assert len(folder["PatientOrderList"]) == 1
    again = await cli.here("share", "upload", study_folder, *UNTIL, "--folder-uuid", folder["FolderUuid"], "--json")
    assert (again.code, again.json["summary"]["present"]) == (0, 6)
    assert again.json["folder_uuid"] == folder["FolderUuid"]
    assert again.json["url"].startswith("http")
    assert again.json["patient_order_uuids"] == [one["PatientOrderUuid"] for one in folder["PatientOrderList"]]
    del embedded_archive


async def test_without_a_folder_and_from_a_list(cli_with_archive: Cli, study_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("\0".join(map(str, study_folder.glob("*.dcm"))))
    ran = await cli_with_archive.here("share", "upload", "--files-from", tmp_path / "list", *UNTIL)
    assert ran.code == 0
    assert ran.out.startswith("http")
    assert ran.err.endswith("without a password: whoever has the address may look\n")
    quiet = await cli_with_archive.here("share", "upload", study_folder, *UNTIL, "-q")
    assert (quiet.code, quiet.err, len(quiet.out.splitlines())) == (0, "", 1)


async def test_a_step_that_fails(cli_with_archive: Cli, embedded_archive: Any, study_folder: Path) -> None:
    """What exists by then is said, and the answer that was lost is not asked for again."""
    embedded_archive.fault("sharefolderwithurl", "cut-after")
    ran = await cli_with_archive.here("share", "upload", study_folder, *UNTIL, "--folder", "Monday", "--json")
    assert (ran.code, ran.json["ok"], ran.json["step"], ran.json["url"]) == (1, False, "share", None)
    assert ran.json["folder_uuid"]
    assert ran.json["summary"]["stored"] == 6
    assert ran.error_line.startswith("error: share: ")
    asked = [one.operation for one in embedded_archive.vendor_calls]
    assert asked.count("sharefolderwithurl") == 1


INTERRUPTED = """
import asyncio, os, signal, sys
from postdicom_async.cli.main import main
from postdicom_async.postdicom.facades import Folders

async def share(*_given, **_more):
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(60)

Folders.share = share
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("more", [(), ("--json",)])
async def test_interrupted_it_says_what_exists(
    cli_with_archive: Cli, embedded_archive: Any, study_folder: Path, more: tuple[str, ...]
) -> None:
    words = (*UNTIL, "--folder", "Monday", *more)
    ran = await ended(await cli_with_archive.start("share", "upload", study_folder, *words, code=INTERRUPTED))
    assert (ran.code, ran.err.splitlines()[-1]) == (130, "error: interrupted")
    (folder,) = (await cli_with_archive.here("folders", "search", "--json")).told
    if more:
        assert (ran.json["ok"], ran.json["step"], ran.json["url"]) == (False, "share", None)
        assert ran.json["folder_uuid"] == folder["FolderUuid"]
        assert len(ran.json["patient_order_uuids"]) == 1
    else:
        assert f"\nfolder {folder['FolderUuid']}\n" in ran.err
        assert "share: share uploaded files: cancelled; this step may have been done" in ran.err
        assert ran.out == ""


async def test_what_is_not_stored_is_not_shared(
    cli_with_archive: Cli, embedded_archive: Any, study_folder: Path
) -> None:
    (first, *_) = sorted(study_folder.glob("*.dcm"))
    first.write_bytes(first.read_bytes()[:-100])
    ran = await cli_with_archive.here("share", "upload", study_folder, *UNTIL, "--folder", "Monday")
    assert (ran.code, ran.out) == (1, "")
    assert f"{first}: unreadable: cut off" in ran.err
    assert not embedded_archive.vendor_calls


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Missing option '--expires'"),
        (["--expires", "soon"], "--expires: "),
        ([*UNTIL, "--folder", "a", "--folder-uuid", "0b6a1c52-1111-4222-8333-444455556666"], "not both"),
        ([*UNTIL, "--title", "CANARY"], "--title: only the link to a new folder has one"),
    ],
)
async def test_mistakes(
    cli_with_archive: Cli, embedded_archive: Any, study_folder: Path, words: list[str], says: str
) -> None:
    ran = await cli_with_archive.here("share", "upload", study_folder, *words)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.error_line
    assert "CANARY" not in ran.err
    assert not embedded_archive.vendor_calls
    assert not embedded_archive.store.instances()


async def test_in_the_cloud(cloud_cli: Cli, study_folder: Path) -> None:
    words = ("cloud", "share", "upload", study_folder, *UNTIL, "--institution-uuid", "North")
    ran = await cloud_cli.here(*words, "--folder", "Monday", "--json")
    assert (ran.code, ran.json["summary"]["stored"], len(ran.json["patient_order_uuids"])) == (0, 6, 1)
    assert ran.json["url"].startswith("http")
    cloud_cli.environment["POSTDICOM_SHARE_PASSWORD"] = "a password"
    refused = await cloud_cli.here(*words)
    assert (refused.code, refused.out) == (2, "")
    assert "no password for links to orders" in refused.error_line
