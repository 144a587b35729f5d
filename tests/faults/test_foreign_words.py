"""A server names a patient that no request held: nothing of it is shown anywhere, and all of it is there when asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async import CloudApi, DicomWeb, PostDicom, PostdicomError, diagnose
from tests.cloud.forms import ONE
from tests.cloud.service import CloudService, envelope_frame, success
from tests.faults.clients import settings
from tests.support.canaries import CanaryWatch, canary_watch
from tests.support.dicom_files import small_dicom
from tests.support.faulty_server import FaultyServer, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Cli
    from tests.faults.clients import Connect

# None of them is in any request, or has a shape that gives it away.
FOREIGN = {"family name": "Thistlewood", "given name": "Perpetua", "accession": "QZX-7731", "number": "0004711"}
WORDS = "Study not found: Perpetua Thistlewood, accession QZX-7731, patient 0004711"
SHOWN = "Study not found: […], accession […], patient [number]"
STUDY = "1.2.3"
TEXT = {"Content-Type": "text/plain"}
QUICK = settings(max_attempts=1)
REPLIES = {
    "reason header": Reply(400, {"X-Error-Reason": WORDS}),
    "warning header": Reply(500, {"Warning": f'299 pacs "{WORDS}"'}),
    "text": Reply(409, TEXT, WORDS.encode()),
    "JSON": Reply(404, {"Content-Type": "application/json"}, json.dumps({"Message": WORDS}).encode()),
    "not permitted": Reply(403, TEXT, WORDS.encode()),
}
CALLS: dict[str, Callable[[PostDicom, Path], Any]] = {
    "search": lambda a, _: a.search_for_studies({"PatientID": "9"}).all(),
    "metadata": lambda a, _: a.retrieve_study_metadata(STUDY).first(),
    "bulk data": lambda a, _: a.retrieve_bulkdata("bulk/1"),
    "download": lambda a, folder: a.download_study(STUDY, to=folder),
    "delete": lambda a, _: a.delete_study(STUDY),
    "upload": lambda a, _: a.upload(small_dicom()),
    "store": lambda a, _: a.store_instances([small_dicom()]),
    "orders": lambda a, _: a.orders.search(patient_id="9").all(),
    "folder": lambda a, _: a.folders.create("new"),
}


@pytest.fixture(name="watch")
def _watch() -> Iterator[CanaryWatch]:
    with canary_watch(FOREIGN) as watch:
        yield watch


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("call", CALLS)
async def test_errors_and_outcomes(call: str, reply: str, watch: CanaryWatch, tmp_path: Path) -> None:
    problem: PostdicomError | None = None
    found: Any = None
    async with (
        FaultyServer(lambda _: REPLIES[reply]) as server,
        PostDicom(server.url, "user", "word", settings=QUICK) as archive,
    ):
        try:
            found = await CALLS[call](archive, tmp_path)
        except PostdicomError as error:
            problem, found = error, error.report
    outcomes = found if isinstance(found, tuple) else getattr(found, "outcomes", ())
    for one in (problem, found, *outcomes):
        watch.feed(one)
    reasons = [problem.reason if problem else None, *(outcome.reason for outcome in outcomes)]
    # What is asked again in another way, or looked for afterwards, ends with words of our own.
    assert any(SHOWN in (reason or "") for reason in reasons) or call in {"download", "upload", "store"}
    assert problem is None or problem.reason is None or WORDS in (problem.server_words or "")


async def test_warnings_of_a_search(connect: Connect, watch: CanaryWatch) -> None:
    reply = Reply(200, {"Content-Type": "application/json", "Warning": f'299 pacs "{WORDS}"'}, b"[]")
    async with FaultyServer(reply) as server, connect(server.url) as archive:
        results = archive.search_for_studies()
        await results.all()
    assert results.warnings == [f"299 {SHOWN}"]
    watch.feed(results.warnings)


async def test_a_refusal_of_the_cloud_api(watch: CanaryWatch) -> None:
    def no(request: Any) -> bytes:
        return envelope_frame(request, {"ResponseCode": 1, "ResponseMessage": {"Success": False, "Message": WORDS}})

    async with CloudService(no) as service, service.client(settings=QUICK) as api:
        with pytest.raises(PostdicomError) as caught:
            await api.orders.properties(ONE, ONE)
    watch.feed(caught.value)
    assert caught.value.reason == SHOWN
    assert caught.value.server_words == WORDS


async def test_outcomes_of_the_cloud_api(watch: CanaryWatch) -> None:
    def answer(request: Any) -> bytes:
        refused = envelope_frame(request, {"ResponseCode": 1, "ResponseMessage": {"Message": WORDS}})
        return refused if request.message_type == 23 else success(request)

    async with CloudService(answer) as service, service.client(settings=QUICK) as api:
        assert isinstance(api, CloudApi)
        try:
            left: Any = await api.upload(small_dicom())
        except PostdicomError as error:
            left = error
    watch.feed(left)
    for outcome in getattr(left, "outcomes", ()):
        watch.feed(outcome)


async def test_a_diagnosis(watch: CanaryWatch) -> None:
    async with FaultyServer(REPLIES["text"]) as server, DicomWeb(server.url, settings=QUICK) as archive:
        found = await diagnose(archive)
    watch.feed(found)
    watch.feed(found.problem)
    watch.feed(json.dumps(found.document()))


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "studies"),
        ("search", "studies", "--json"),
        ("upload", "{file}"),
        ("upload", "{file}", "--json"),
        ("download", "study", STUDY, "--to", "{folder}"),
        ("orders", "search"),
        ("doctor",),
    ],
)
async def test_the_command(arguments: tuple[str, ...], watch: CanaryWatch, tmp_path: Path, foreign_cli: Cli) -> None:
    file = tmp_path / "one.dcm"
    file.write_bytes(small_dicom())
    given = [one.format(file=file, folder=tmp_path / "to") for one in arguments]
    async with FaultyServer(lambda _: REPLIES["text"]) as server:
        foreign_cli.environment |= {"POSTDICOM_URL": server.url}
        ran = await foreign_cli.here(*given)
    assert ran.code
    watch.feed(ran.out + ran.err)
    if arguments[0] in {"search", "orders"}:
        assert "Study not found: […]" in ran.err


@pytest.fixture
def foreign_cli(tmp_path: Path) -> Cli:
    from tests.cli.conftest import Cli

    made = Cli(tmp_path)
    made.environment |= {"POSTDICOM_USERNAME": "user", "POSTDICOM_PASSWORD": "word"}
    return made
