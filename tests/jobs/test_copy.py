"""Whole archives copied, verified and synced: what both ends hold in the end, and what the ledger says of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from postdicom_async import jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs.specs import EndLike, end_of
from postdicom_async.jobs.states import State
from postdicom_async.jobs.summary import Summary


def counts(summary: Summary) -> dict[State, int]:
    return {state: count.instances for state, count in summary.counts.items() if count.instances}


async def held(what: EndLike) -> dict[str, set[str]]:
    """Return the SOP Instance UIDs that an end lists, by study."""
    async with end_of(what) as end:
        return {
            study.uid: {one.uid async for some in end.instances(study.uid) for one in some}
            async for listed in end.studies()
            for study in listed
        }


async def test_a_folder_is_copied_into_an_archive_and_a_second_run_sends_nothing(
    folder: Path, archive: EmbeddedArchive
) -> None:
    summary = await (await jobs.copy(folder, archive.url)).wait()
    assert counts(summary) == {State.DONE: 15, State.EXCLUDED: 1}
    assert summary.discovered == 16
    assert summary.verified == 15
    assert await held(archive.url) == await held(folder)
    again = await (await jobs.copy(folder, archive.url)).wait()
    assert counts(again) == {State.DONE: 15, State.EXCLUDED: 1}
    assert again.facts.run == 2


async def test_from_archive_to_archive_to_a_folder_every_byte_stays(
    folder: Path, archive: EmbeddedArchive, other_archive: EmbeddedArchive, tmp_path: Path, files: Mapping[str, bytes]
) -> None:
    await (await jobs.copy(folder, archive.url)).wait()
    await (await jobs.copy(archive.url, f"postdicom+{other_archive.url}", verify="bytes")).wait()
    summary = await (await jobs.copy(f"postdicom+{other_archive.url}", tmp_path / "out")).wait()
    assert counts(summary) == {State.DONE: 15}
    assert {path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")} == set(files.values())
