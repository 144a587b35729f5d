"""Several sources with one SOP Instance UID, and cut ones, to the Cloud API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postdicom_async import Status
from tests.cloud.conftest import INSTITUTION, Account
from tests.cloud.files import held_by
from tests.support.dicom_files import small_dicom, uid

if TYPE_CHECKING:
    from pathlib import Path

FILE_PART = (23, 3)
ATTEMPTS = 3  # at a file that is refused
WHOLE = small_dicom(pixel_bytes=4096)
CUT = WHOLE[:-100]
OTHER = small_dicom(pixel_bytes=4096, patient_name="OTHER^ONE")
CUT_OFF = "cut off: its pixel data need 4096 bytes, 3996 are there"


async def test_the_service_refuses_the_first(account: Account, tmp_path: Path) -> None:
    """The next is sent; the cut one is not, and is in nobody's way."""
    for number, data in enumerate([CUT, OTHER, WHOLE]):
        (tmp_path / f"{number}").write_bytes(data)
    account.server.cloud.oddities.refused[FILE_PART] = ATTEMPTS
    report = await account.api.upload(tmp_path, institution_uuid=INSTITUTION, sockets=1)
    assert [one.status for one in report.outcomes] == [Status.UNREADABLE, Status.FAILED, Status.STORED]
    assert report.outcomes[0].reason == CUT_OFF
    assert held_by(account.server) == {uid(1, 1, 1): WHOLE}


async def test_a_cut_one_is_sent_only_when_it_is_wanted(account: Account) -> None:
    report = await account.api.upload(CUT, institution_uuid=INSTITUTION)
    assert [(one.status, one.reason) for one in report.outcomes] == [(Status.UNREADABLE, CUT_OFF)]
    assert account.server.cloud.sent(FILE_PART) == []
    await account.api.upload(CUT, institution_uuid=INSTITUTION, send_truncated=True)
    assert len(account.server.cloud.sent(FILE_PART)) == 1
