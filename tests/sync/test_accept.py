"""Media types as callers name them, and the Accept headers made of them."""

from __future__ import annotations

from typing import Any

import pytest

from postdicom_async.dicomweb.dialects import FRAME_LADDER
from postdicom_async.errors import UsageError
from postdicom_async.sync.accept import instances_ladder, rendered_accept, values_ladder

PLAIN = 'multipart/related; type="application/dicom"'


def test_instances() -> None:
    assert instances_ladder(None)[0] == PLAIN, "the archive converts, as the incumbent's callers expect"
    assert instances_ladder(None, single=True)[0] == PLAIN + "; transfer-syntax=*"
    assert instances_ladder((("application/dicom", "*"),)) == (PLAIN + "; transfer-syntax=*",)
    two = (("application/dicom", "1.2.840.10008.1.2.4.50"), "application/dicom")
    assert instances_ladder(two) == (f"{PLAIN}; transfer-syntax=1.2.840.10008.1.2.4.50, {PLAIN}",)


def test_values() -> None:
    assert values_ladder(None) == ('multipart/related; type="*/*"', *FRAME_LADDER)
    assert values_ladder([("image/jpeg",)]) == ('multipart/related; type="image/jpeg"',)
    assert values_ladder(("image/",)) == ('multipart/related; type="image/*"',)
    both = (("application/octet-stream", "*"), "video/mp4")
    assert values_ladder(both) == (
        'multipart/related; type="application/octet-stream"; transfer-syntax=*, multipart/related; type="video/mp4"',
    )


def test_rendered() -> None:
    assert rendered_accept(None) == "*/*"
    assert rendered_accept(("image/png", "application/pdf", "text/html")) == "image/png, application/pdf, text/html"


@pytest.mark.parametrize(
    "wrong",
    ["image/jpeg", (), 5, ("image",), ("im age/jpeg",), ("image/jpeg\r\n",), (5,), ((),), (("image/jpeg", "*", "*"),),
     (("image/jpeg", "syntax"),), (("image/jpeg", 5),), ("model/x",)],
)  # fmt: skip
def test_what_is_no_media_type(wrong: Any) -> None:
    for read in (instances_ladder, values_ladder, rendered_accept):
        with pytest.raises(UsageError, match="media_types"):
            read(wrong)


def test_what_a_resource_does_not_come_as() -> None:
    for read, kind in (
        (instances_ladder, "image/jpeg"),
        (values_ladder, "application/dicom"),
        (values_ladder, "text/html"),
        (rendered_accept, "application/dicom"),
        (rendered_accept, ("image/jpeg", "*")),
    ):
        with pytest.raises(UsageError, match=" come as "):
            read((kind,))
