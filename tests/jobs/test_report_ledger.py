"""Reports and pages of real jobs: what their ledgers hold, and nothing of what must not be shown."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from postdicom_async import jobs
from postdicom_async.emulator import EmbeddedArchive
from postdicom_async.jobs.ends.end import ListedStudy
from postdicom_async.jobs.ledger.ledger import Ledger
from postdicom_async.jobs.ledger.reader import LedgerReader
from postdicom_async.jobs.ledger.schema import ItemRow, Stage
from postdicom_async.jobs.pages.eta import Eta
from postdicom_async.jobs.pages.report import write_report
from postdicom_async.jobs.pages.serve import LivePage
from postdicom_async.jobs.pages.terminal import line
from postdicom_async.jobs.plan import ItemEnd
from postdicom_async.jobs.states import Reason, State
from tests.jobs.ledgers import FACTS
from tests.jobs.test_serve import visitor
from tests.jobs.test_watch import drawn
from tests.support.canaries import CANARIES, canary_watch
from tests.support.dicom_files import small_dicom, uid


async def mixed(path: Path) -> None:
    """Make a ledger with everything: listed studies, one equal by count, one that was listed and then equal."""
    ledger = await Ledger.create(path, FACTS)
    async with ledger:
        listed = [ListedStudy(f"1.{number}", "20240115" if number else "", 4) for number in range(4)]
        await ledger.note_studies(listed, at_target=False, run=1)
        found = {study.uid: study for study in await ledger.studies(Stage.FOUND)}
        for name in ("1.0", "1.1"):
            rows = [ItemRow(f"{name}.5", f"{name}.5.{n}", State.PENDING, size=100) for n in range(4)]
            ledger.plan(found[name].id, rows)
            ledger.set_stage(found[name].id, Stage.PLANNED, planned=4)
            ledger.run_items(found[name].id, [(row.series, row.uid) for row in rows])
            ends = [
                ItemEnd(rows[0].series, rows[0].uid, State.DONE, size=100),
                ItemEnd(rows[1].series, rows[1].uid, State.FAILED, 0x1A700),
                ItemEnd(rows[2].series, rows[2].uid, State.UNCONFIRMED, Reason.NOT_CONFIRMED),
            ]
            ledger.settle(found[name].id, ends)
        ledger.set_stage(found["1.2"].id, Stage.EQUAL, planned=4)
        ledger.plan(found["1.3"].id, [ItemRow("1.3.5", "1.3.5.1", State.DONE, size=7)])
        ledger.set_stage(found["1.3"].id, Stage.EQUAL, planned=4)
        await ledger.commit()


async def test_the_lines_are_what_the_ledger_counts(tmp_path: Path) -> None:
    path = tmp_path / "one.ledger"
    await mixed(path)

    with closing(LedgerReader(path)) as reader:
        for form in ("jsonl", "csv", "html"):
            write_report(tmp_path / f"report.{form}", reader, version="9.9")

    *lines, last = map(json.loads, (tmp_path / "report.jsonl").read_text().splitlines())
    seen: Counter[str] = Counter()
    for one in lines:
        seen[one["state"]] += one["instances"]
    assert seen == {"done": 3, "failed": 2, "unconfirmed": 2, "running": 2, "present": 7}
    assert last["discovered"] == seen.total() == 16
    assert last["adds_up"] is True
    assert {(one["study"], one["instances"]) for one in lines if one["kind"] == "study"} == {("1.2", 4), ("1.3", 3)}
    assert "does not add up" not in (tmp_path / "report.html").read_text()


async def test_a_report_of_a_job_that_runs_on_adds_up_all_the_same(tmp_path: Path) -> None:
    """It is of one moment, whatever is written while its lines are."""
    path = tmp_path / "one.ledger"
    await mixed(path)

    async with await Ledger.open(path) as ledger:
        reader = LedgerReader(path)
        real = reader.items

        def slowly(**more: Any) -> Any:
            for number, item in enumerate(real(**more)):
                if number == 1:
                    asyncio.run_coroutine_threadsafe(change(), loop).result(60)
                yield item

        async def change() -> None:
            await ledger.reset([State.FAILED, State.UNCONFIRMED])
            await ledger.commit()

        loop = asyncio.get_running_loop()
        reader.items = slowly  # type: ignore[method-assign]
        await asyncio.to_thread(write_report, tmp_path / "report.jsonl", reader, version="9.9")
        reader.close()

    last = json.loads((tmp_path / "report.jsonl").read_text().splitlines()[-1])
    assert last["adds_up"] is True
    assert last["counts"]["failed"]["instances"] == 2


async def test_items_for_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "one.ledger"
    await mixed(path)
    with closing(LedgerReader(path)) as reader:
        found = {
            (line.uid, line.state) for line in reader.items(states=[State.FAILED, State.UNCONFIRMED], reasons=[0x1A700])
        }
        assert found == {("1.0.5.1", State.FAILED), ("1.1.5.1", State.FAILED)}
        assert [line.uid for line in reader.items(study="1.1", reasons=[0x1A700, 7])] == ["1.1.5.1", "1.1.5.2"]
        assert list(reader.items(reasons=[])) == []


async def test_nothing_private_is_shown(tmp_path: Path, archive: EmbeddedArchive) -> None:
    """Names, numbers and dates of patients, the folder and its files, what the archive said."""
    folder = tmp_path / CANARIES["path"]
    folder.mkdir()
    for number in range(3):
        data = small_dicom(instance=uid(1, 1, number + 1), patient_name=CANARIES["patient_name"],
                           patient_id=CANARIES["patient_id"])  # fmt: skip
        (folder / f"{CANARIES['patient_id']}-{number}.dcm").write_bytes(data if number else data[:-100])
    (folder / f"{CANARIES['patient_name']}.txt").write_text("no DICOM")
    summary = await (await jobs.copy(folder, archive.url)).wait()
    assert summary.discovered == 4
    [path] = (tmp_path / "state").rglob("*.ledger")

    with canary_watch() as watch:
        with closing(LedgerReader(path)) as reader:
            for form in ("jsonl", "csv", "html"):
                write_report(tmp_path / f"report.{form}", reader, version="9.9")
                watch.feed_text((tmp_path / f"report.{form}").read_text(), form)
        watch.feed_text(drawn(summary), "terminal")
        watch.feed_text(line(summary, Eta().note(summary, 0)), "line")
        async with LivePage(lambda: LedgerReader(path)) as page, visitor(page) as client:
            await client.get(page.address)
            study = f"/studies/{uid(1)}"
            for place in ("/", "/studies", "/studies/-", "/studies/-/-", study, f"{study}/{uid(1, 1)}", "/metrics",
                          "/items?state=failed&reason=3", "/items?state=excluded&reason=1"):  # fmt: skip
                answer = await client.get(place)
                assert answer.status_code == 200
                watch.feed_text(answer.text, place)
    assert uid(1, 1, 2) in (tmp_path / "report.jsonl").read_text()


async def test_a_job_that_is_begun_afresh_is_shown_afresh(tmp_path: Path) -> None:
    path = tmp_path / "one.ledger"
    await mixed(path)
    async with LivePage(lambda: LedgerReader(path)) as page, visitor(page) as client:
        await client.get(page.address)
        assert "2 failed" in (await client.get("/")).text
        for left in tmp_path.glob("one.ledger*"):
            left.unlink()
        async with await Ledger.create(path, FACTS):
            pass
        async with asyncio.timeout(30):
            while "2 failed" in (await client.get("/")).text:
                await asyncio.sleep(0.2)
        assert "0\N{NO-BREAK SPACE}items in 0" in (await client.get("/")).text


KILLED = """
import os, signal, sys
from pathlib import Path
from postdicom_async.jobs.pages import report
from postdicom_async.jobs.ledger.reader import LedgerReader
path, to, point = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
class Reader(LedgerReader):
    def items(self, **more):
        for number, item in enumerate(super().items(**more)):
            if point == "half written" and number == 3:
                die()
            yield item
if point == "before fsync":
    os.fsync = die
elif point == "before rename":
    Path.replace = die
elif point == "after rename":
    real = Path.replace
    Path.replace = lambda *given: (real(*given), die())
report.write_report(to, Reader(path), version="9.9")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
@pytest.mark.parametrize("point", ["half written", "before fsync", "before rename", "after rename"])
async def test_a_killed_report_is_whole_or_was_not(tmp_path: Path, point: str) -> None:
    path, to = tmp_path / "one.ledger", tmp_path / "report.jsonl"
    await mixed(path)
    to.write_text("the old one")

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, path, to, point)
    assert await process.wait() == -signal.SIGKILL

    if point == "after rename":
        assert json.loads(to.read_text().splitlines()[-1])["adds_up"] is True
    else:
        assert to.read_text() == "the old one"
    with closing(LedgerReader(path)) as reader:
        write_report(to, reader, version="9.9")
    assert json.loads(to.read_text().splitlines()[-1])["adds_up"] is True
    assert not list(tmp_path.glob(".*part"))
