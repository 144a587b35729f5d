"""Our synchronous client in the same program as dicomweb-client, or with the calls that only ours has."""

from __future__ import annotations

from importlib import import_module

from benchmarks.measure import Measurement, Meter, Task, files_in
from benchmarks.sides.duck import move
from postdicom_async import Status
from postdicom_async.sync import DICOMwebClient
from postdicom_async.sync.session_utils import create_session, create_session_from_user_pass

import_module("postdicom_async.http.aiohttp_transport")  # as in ``ours``: it would come with the first request


def run(task: Task) -> Measurement:
    session = create_session_from_user_pass(task.user, task.password) if task.user else create_session()
    session.verify = task.authority or True
    with DICOMwebClient(task.url, session=session) as client:
        return _whole(client, task) if task.each else move(client, task)


def _whole(client: DICOMwebClient, task: Task) -> Measurement:
    """Do it in one call: ``upload`` and ``download_study``."""
    with Meter() as meter:
        if task.action == "download":
            moved = len(client.download_study(task.studies[0], to=task.target).saved)
        else:
            moved = client.upload(task.sources).counts[Status.STORED]
    _, size = files_in(task.target if task.action == "download" else task.sources[0])
    return meter.result(moved, size)
