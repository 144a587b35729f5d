"""What names a tag is the same everywhere: one table of spellings for filters, fields, rules and tables of patients."""

from __future__ import annotations

from typing import Any

import pytest

from postdicom_async import Anonymization, UsageError
from postdicom_async.dicom import tags
from postdicom_async.dicom.anonymize.identities import PatientRows
from postdicom_async.dicomweb.filters import filter_pairs, include_pairs
from tests.support.canaries import CANARIES
from tests.support.ids import shown
from tests.support.tag_names import NO_TAGS, SPELLINGS, json_tag_of

NAME = CANARIES["patient_name"]
SAYS = r"^{}: .* is neither a DICOM keyword nor a tag \(GGGGEEEE\)$"


@pytest.mark.parametrize(("name", "tag"), SPELLINGS.items())
def test_what_names_a_tag(name: str, tag: str) -> None:
    assert json_tag_of(name) == tag
    assert filter_pairs({name: ""}) == [(tag, "")]
    assert filter_pairs({f"RequestAttributesSequence.{name}": ""}) == [(f"00400275.{tag}", "")]
    assert include_pairs([name]) == [("includefield", tag)]
    if tag != "0020000D":  # no instance is without it
        assert Anonymization({name: None}).description()["rules"] == {tag: "remove"}
        table = [b"PatientID;PatientID;" + name.encode() + b"\n", b"1;2;\n"]
        assert f"00100020, {tag}" in repr(PatientRows(table))


@pytest.mark.parametrize("name", NO_TAGS, ids=lambda name: shown(name)[:20])
def test_what_names_none(name: Any) -> None:
    for argument, call in (
        ("filters", lambda: filter_pairs({name: NAME})),
        ("fields", lambda: include_pairs([name])),
        ("anonymize", lambda: Anonymization({"PatientID": "7", name: NAME})),
        ("anonymize", lambda: Anonymization.vendor_tags({name: NAME})),
    ):
        with pytest.raises(UsageError, match=SAYS.format(argument)) as caught:
            call()
        assert NAME not in str(caught.value)
        assert len(str(caught.value)) < 160
    assert not isinstance(name, str) or tags.tag_of(name) is None


@pytest.mark.parametrize("name", [NAME, "DOE^JANE", "4711 / Ward 7", "Grüße", "x" * 65])
def test_what_may_be_a_value_in_the_place_of_a_name_is_not_shown(name: str) -> None:
    for make in (lambda: filter_pairs({name: "x"}), lambda: Anonymization({name: "x"})):
        with pytest.raises(UsageError, match=": a name is neither"):
            make()


def test_value_representations() -> None:
    assert [tags.vr_of_tag(tag) for tag in (0x7FE00010, 0x60000010, 0x00091001)] == ["OB or OW", "US", ""]
    assert [tags.dictionary_vr(tag) for tag in (0x00100000, 0x00090010, 0x00091001, 0x7FE00010, 0x00100010)] == [
        "UL", "LO", "UN", "OW", "PN",
    ]  # fmt: skip
    assert not tags.SHORT_VRS & tags.LONG_VRS
