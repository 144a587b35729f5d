"""What the page about the synchronous client shows, run from its first block to its last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from postdicom_async.emulator import EmbeddedArchive, archive_in_thread
from tests.docs.pages import blocks_of
from tests.sync.slides import STUDY, slide_files

PAGE = "docs/howto/synchronous.md"


@pytest.mark.filterwarnings("ignore:No bulk data URI handler:UserWarning")
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from pydicom.uid import JPEGBaseline8Bit

    monkeypatch.chdir(tmp_path)
    Path("to-send").mkdir()
    for number, data in enumerate(slide_files(JPEGBaseline8Bit)):
        Path(f"to-send/{number}.dcm").write_bytes(data)
    with archive_in_thread(EmbeddedArchive(username="user", password="password")) as archive:
        names: dict[str, Any] = {"url": archive.url, "username": "user", "password": "password"}
        archive.add_files(sorted(Path("to-send").iterdir()))
        for block in blocks_of("python"):
            if block.page == PAGE:
                text = block.text.replace("https://archive.example/dicom-web", archive.url).replace("P-1", "SLIDE-1")
                exec(compile(text, str(block), "exec"), names)
        names["client"].close()
        names["account"].close()
    assert [order.patient_id for order in names["orders"]] == ["SLIDE-1"]
    assert names["rendered"].media_type == "image/jpeg"
    assert names["study_uid"] == STUDY
    assert names["region"].size == (256, 256)
    assert capsys.readouterr().out.split()[-4:] == ["True", "2", "[]", "404"]
