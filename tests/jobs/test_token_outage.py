"""A token endpoint that goes away while a job runs: that is an outage of the end, and nothing fails for it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from postdicom_async import ClientCredentials, DicomWeb, jobs
from postdicom_async.jobs import job as job_module
from postdicom_async.jobs.pace.outage_policy import OutagePatience
from postdicom_async.jobs.states import State
from tests.faults.clients import settings
from tests.support.dicom_files import study_files
from tests.support.faulty_server import Reply
from tests.support.token_endpoint import TokenEndpoint, embedded_archive_for


async def test_a_job_waits_for_the_token_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "OutagePatience", partial(OutagePatience, first_step=0.02, last_step=0.05))
    files = study_files(12)
    (tmp_path / "in").mkdir()
    for number, file in enumerate(files.values()):
        (tmp_path / "in" / f"{number}.dcm").write_bytes(file)
    endpoint = TokenEndpoint(uses=4)
    using = settings(batch_instances=1, parallel_stores=1, max_attempts=2)
    async with embedded_archive_for(endpoint) as (embedded, tokens):
        client = DicomWeb(embedded.url, auth=ClientCredentials(f"{tokens.url}/token", "me", "s3cret"), settings=using)
        endpoint.script = [None, *[Reply(503)] * 12]
        job = await jobs.copy(tmp_path / "in", client, job=tmp_path / "job")
        summary = await job.wait()
        stored = [path.read_bytes() for path in embedded.folder.rglob("*.dcm")]
    assert sorted(stored) == sorted(files.values())
    assert {state: count.instances for state, count in summary.counts.items()} == {State.DONE: len(files)}
    (waiting, *_) = [note for note in summary.notes if "waiting for it" in note]
    assert "there are no credentials for it at the moment" in waiting
    assert len(tokens.requests) == endpoint.issued + 12
