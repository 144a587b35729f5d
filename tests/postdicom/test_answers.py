"""Typed views over whatever the service answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from postdicom_async import (
    Folder,
    Institution,
    PatientOrder,
    ProtocolError,
    ShareLink,
    TagContent,
    User,
    VendorAnswer,
)
from postdicom_async.vendor.answers import is_web_page, list_in, parse, refusal_in, view
from tests.postdicom.forms import ONE, TWO

LINK = "https://share.example/v/x?y=1#z"


@pytest.mark.parametrize(
    ("raw", "uuid"),
    [
        ({"PatientOrderUuid": ONE}, ONE),
        ({"PatientOrderUUID": ONE}, ONE),
        ({"patientorderuuid": ONE, "Result": TWO}, ONE),
        ({"OrderUuid": ONE}, ONE),
        ({"Result": ONE}, ONE),
        ({"Result": {"PatientOrderUuid": ONE}}, ONE),
        ({"result": {"orderuuid": ONE}}, ONE),
        ({"PatientOrderUuid": None, "Result": ONE}, ONE),
        ({"PatientOrderUuid": 17}, None),
        ({"PatientOrderUuid": [ONE]}, None),
        ({"Result": "created"}, None),
        ({"Result": [ONE]}, None),
        ({}, None),
    ],
)
def test_the_uuid_of_an_order(raw: dict[str, Any], uuid: str | None) -> None:
    order = PatientOrder(raw)
    assert order.is_named == (uuid is not None)
    if uuid is None:
        with pytest.raises(ProtocolError, match=r"an object without its PatientOrderUuid; what it gave is in \.raw"):
            assert order.patient_order_uuid
    else:
        assert order.patient_order_uuid == uuid


@pytest.mark.parametrize(
    ("thing", "name"), [(Folder, "folder_uuid"), (User, "user_uuid"), (Institution, "institution_uuid")]
)
def test_what_a_thing_is_named_by_is_never_none(thing: type[VendorAnswer], name: str) -> None:
    field = "".join(part.capitalize() for part in name.split("_"))
    assert getattr(thing({field: ONE}), name) == ONE
    with pytest.raises(ProtocolError, match=field):
        getattr(thing({}), name)


@pytest.mark.parametrize("text", [ONE, f'"{ONE}"', f" {ONE}\n"])
def test_a_text_may_be_the_uuid(text: str) -> None:
    assert view(Folder, parse(text.encode())).folder_uuid == ONE


def test_an_order() -> None:
    order = PatientOrder(
        {
            "PatientOrderInstitutionUuid": TWO,
            "PatientName": "Święty^Łukasz",
            "PatientId": 17,
            "OtherPatientId": "",
            "OrderModality": "CT",
            "StudyDescription": "Head",
            "StudyInstanceUid": "1.2.3",
            "OrderStatus": True,
            "Unheard": 1,
        }
    )
    assert order.institution_uuid == TWO
    assert (order.patient_name, order.patient_id, order.other_patient_id) == ("Święty^Łukasz", "17", "")
    assert (order.modality, order.study_description, order.study_instance_uid) == ("CT", "Head", "1.2.3")
    assert order.order_status == "True"
    assert (order.raw["Unheard"], order.get("unheard"), order.get("nothing")) == (1, 1, None)


def test_nothing_is_known_of_an_empty_answer() -> None:
    order, folder = PatientOrder({}), Folder({})
    known = {name for name in dir(PatientOrder) if isinstance(getattr(PatientOrder, name), property)}
    assert {getattr(order, name) for name in known - {"patient_order_uuid", "is_named"}} == {None}
    assert (folder.folder_name, folder.folder_description, folder.is_shared, folder.orders) == (None, None, None, [])
    assert ShareLink({}).url is None
    assert TagContent({}).items == []


@pytest.mark.parametrize(
    ("value", "number"), [(3, 3), ("3", 3), (" 3 ", 3), ("-1", None), ("3.5", None), ("x", None), (None, None),
                          ([3], None), ("9" * 30, None), ("", None)]
)  # fmt: skip
def test_counts(value: object, number: int | None) -> None:
    folder = Folder({"OrderCount": value, "SubFolderCount": value})
    assert folder.order_count == folder.sub_folder_count == number


@pytest.mark.parametrize(
    ("value", "shared"),
    [(True, True), ("True", True), ("true", True), (1, True), (False, False), ("0", False), (None, None)],
)
def test_is_shared(value: object, shared: bool | None) -> None:
    assert Folder({"IsShared": value}).is_shared is shared


@pytest.mark.parametrize("name", ["PatientOrderList", "OrderList", "orders"])
def test_the_orders_of_a_folder(name: str) -> None:
    folder = Folder({name: [{"PatientOrderUuid": ONE}, "odd", {"PatientOrderUuid": TWO}]})
    assert [order.patient_order_uuid for order in folder.orders] == [ONE, TWO]
    assert Folder({name: "none"}).orders == []


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"Success": True, "Result": LINK}),
        json.dumps({"ShareUrl": LINK, "Result": "https://other.example"}),
        json.dumps({"Result": {"url": LINK}}),
        json.dumps({"Link": LINK}),
        json.dumps(LINK),
        json.dumps(json.dumps({"Result": LINK})),
        LINK,
        f"  {LINK}\r\n",
        f"The link is {LINK}.",
    ],
)
def test_a_link(body: str) -> None:
    assert view(ShareLink, parse(body.encode())).url == LINK


@pytest.mark.parametrize("body", ["{}", '{"Result": "done"}', '{"Url": "javascript:alert(1)"}', "ftp://x", "", "[]"])
def test_no_link(body: str) -> None:
    assert view(ShareLink, parse(body.encode())).url is None


@pytest.mark.parametrize(
    ("body", "items"),
    [
        ('[{"Tag": 1}]', [{"Tag": 1}]),
        ('{"Warnings": [], "TagList": ["a"]}', ["a"]),
        ('{"Result": "[1, 2]"}', [1, 2]),
        ('{"Result": {"Tags": [1]}}', [1]),
        ("plain", []),
    ],
)
def test_tag_content(body: str, items: list[Any]) -> None:
    assert view(TagContent, parse(body.encode())).items == items


def test_a_repr_shows_nothing() -> None:
    link = ShareLink({"Result": LINK, "SharePassword": "s3cret"}, "text")
    assert repr(link) == "ShareLink()"
    uuid = "0b6a1c52-1111-4222-8333-444455556666"
    assert repr(PatientOrder({"PatientOrderUuid": uuid, "PatientName": "X"})) == f"PatientOrder({uuid})"
    assert repr(Folder({"FolderUuid": uuid, "FolderName": "X"})) == f"Folder({uuid})"
    assert repr(Folder({"FolderUuid": "DOE^JANE"})) == "Folder()"
    assert repr([PatientOrder({"PatientName": "X"}), VendorAnswer()]) == "[PatientOrder(), VendorAnswer()]"


def test_answers_are_frozen_and_compare() -> None:
    one = Folder({"FolderUuid": ONE})
    answers: list[VendorAnswer] = [Folder({"FolderUuid": ONE}), PatientOrder({"FolderUuid": ONE})]
    assert [one == other for other in answers] == [True, False]
    with pytest.raises(AttributeError):
        one.text = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"", []),
        (b" \r\n", []),
        (b"[]", []),
        (b'[{"A": 1}]', [{"A": 1}]),
        (b'{"Errors": [], "Result": [{"A": 1}]}', [{"A": 1}]),
        (b'{"Warnings": ["w"], "Orders": [{"A": 1}]}', [{"A": 1}]),
        (b'{"Warnings": [], "Result": {"Orders": [{"A": 1}], "Total": 1}}', [{"A": 1}]),
        (b'{"Result": "[{\\"A\\": 1}]"}', [{"A": 1}]),
        (b'{"Result": ["{\\"A\\": 1}"]}', [{"A": 1}]),
        (b'"[{\\"A\\": 1}]"', [{"A": 1}]),
        (b'{"Success": true, "Result": []}', []),
        (b'\xef\xbb\xbf[{"A": 1}]', [{"A": 1}]),
        (b"No orders", None),
        (b"{}", None),
        (b'{"Result": null}', None),
        (b'["a", {"A": 1}]', None),
        (b"[1]", None),
        (b"17", None),
        (b"[" * 100_000, None),
        (b"\xff\xfe\x00", None),
    ],
)
def test_lists(body: bytes, found: list[Any] | None) -> None:
    assert list_in(parse(body)) == found


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"Success": false, "Message": "why"}', "why"),
        ('{"success": "FALSE", "responseMessage": "why"}', "why"),
        ('{"SUCCESS": 0, "Result": "why"}', "why"),
        ('{"Success": " False ", "Message": {"a": 1}}', "no reason given"),
        ("false", "no reason given"),
        ('"False"', "no reason given"),
        ('{"Success": true, "Message": "x"}', None),
        ('{"Success": null}', None),
        ('{"Success": "yes"}', None),
        ('{"Message": "Success is false"}', None),
        ('[{"Success": false}]', None),
        ("true", None),
        ("0", None),
        ("", None),
    ],
)
def test_refusals(body: str, reason: str | None) -> None:
    assert refusal_in(parse(body.encode())) == reason


@pytest.mark.parametrize(
    ("body", "page"),
    [("<!DOCTYPE html><p>", True), ("\n <HTML>", True), ("<p>done</p>", False), ('"<html>"', True), ("{}", False)],
)
def test_web_pages(body: str, page: bool) -> None:
    assert is_web_page(parse(body.encode())) is page
