"""One set of files through every kind of end: nothing is lost on the way, and a second run of each sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from postdicom_async import CloudApi, DicomWeb, jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.emulator.context import INSTITUTIONS, USERS
from postdicom_async.jobs.ends.cloud import CloudEnd
from postdicom_async.jobs.ends.specs import EndLike
from postdicom_async.jobs.states import State
from tests.faults.clients import FAST
from tests.support.orthanc import OrthancServer

SECOND_RUN = 40  # requests at most, for three studies at two archives: lists of studies, and of what was sent


class Counted(jobs.Pace):
    """A pace that counts the requests of a job."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0

    async def request(self) -> None:
        self.requests += 1
        await super().request()


async def moved(source: EndLike, target: EndLike) -> int:
    """Copy, and copy again; return how many requests the second run made."""
    first = await (await jobs.copy(source, target)).wait()
    assert first.of(State.DONE).instances == 15
    assert first.discovered == 15 + first.of(State.EXCLUDED).instances
    pace = Counted()
    again = await (await jobs.copy(source, target, pace=pace)).wait()
    assert {state: count.instances for state, count in again.counts.items()} == {
        state: count.instances for state, count in first.counts.items()
    }
    return pace.requests


async def test_from_end_to_end(
    folder: Path,
    files: Mapping[str, bytes],
    orthanc: OrthancServer,
    archive: EmbeddedArchive,
    other_archive: EmbeddedArchive,
    tmp_path: Path,
) -> None:
    auth = orthanc.username, orthanc.password
    first = other_archive
    assert await moved(folder, DicomWeb(orthanc.url, auth=auth)) <= SECOND_RUN
    assert await moved(DicomWeb(orthanc.url, auth=auth), archive.url) <= SECOND_RUN
    assert await moved(archive.url, f"postdicom+{first.url}") <= SECOND_RUN
    out = tmp_path / "out"
    assert await moved(f"postdicom+{first.url}", out) <= SECOND_RUN
    assert sorted(path.read_bytes() for path in out.rglob("*.dcm")) == sorted(files.values())

    async with EmbeddedArchive(tmp_path / "cloud", username=None, password=None) as cloud:

        def end() -> CloudEnd:
            keys = cloud.cloud_api_key, cloud.cloud_account_key
            api = CloudApi(*keys, user=next(iter(USERS)), router_url=cloud.router_url, settings=FAST)
            return CloudEnd(api, institution_uuid=next(iter(INSTITUTIONS)))

        job = await jobs.copy(out, end())
        summary = await job.wait()
        assert {state: count.instances for state, count in summary.counts.items()} == {State.DONE: 15}
        again = await (await jobs.copy(out, end())).wait()
        assert {state: count.instances for state, count in again.counts.items()} == {State.DONE: 15}
        held = {name: cloud.store.instance(name) for name in files}
        assert {name: one.path.read_bytes() for name, one in held.items() if one} == dict(files)
