"""dicomweb-client as its user would take it."""

from __future__ import annotations

from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session, create_session_from_user_pass

from benchmarks.measure import Measurement, Task
from benchmarks.sides.duck import move


def run(task: Task) -> Measurement:
    session = create_session_from_user_pass(task.user, task.password) if task.user else create_session()
    session.verify = task.authority or True
    return move(DICOMwebClient(task.url, session=session), task)
