"""The signatures that are written out for the type checker say what the table of fields says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from postdicom_async import CloudApi, PostDicom
from postdicom_async.cloud.operations import OPERATIONS as CLOUD
from postdicom_async.postdicom.operations import OPERATIONS as DICOMWEB
from postdicom_async.vendor import fields
from postdicom_async.vendor.fields import Field, Operation, Parameter
from postdicom_async.vendor.values import ValueKind

TABLES: dict[type, Mapping[str, Operation]] = {PostDicom: DICOMWEB, CloudApi: CLOUD}
OPERATIONS = [
    pytest.param(client, name, operation, id=f"{client.__name__}.{name}")
    for client, table in TABLES.items()
    for name, operation in table.items()
]
ACCEPTED = {
    ValueKind.TEXT: {"str"},
    ValueKind.PERSON_NAME: {"str", "PersonName"},
    ValueKind.SEX: {"str"},
    ValueKind.UUID: {"UUID", "str"},
    ValueKind.GUID: {"UUID", "str"},
    ValueKind.DATE: {"date", "str"},
    ValueKind.FUTURE_DATE: {"date", "str"},
    ValueKind.DATETIME: {"datetime", "str"},
    ValueKind.DATE_OR_DATETIME: {"datetime", "date", "str"},
    ValueKind.BOOLEAN: {"bool"},
    ValueKind.UUID_LIST: {"Sequence[UUID | str]"},
    ValueKind.GUID_LIST: {"Sequence[UUID | str]"},
    ValueKind.ORDER_INFO_LIST: {"Sequence[UUID | str]"},
    ValueKind.TEXT_LIST: {"Sequence[str]"},
    ValueKind.MAIL: {"str"},
    ValueKind.FLAG_ID: {"int", "str"},
}
# What a method takes that is no parameter of its operation, and the other way round.
BESIDES: dict[tuple[type, str], set[str]] = {
    (CloudApi, "orders.create_from_json"): {"fields"},  # the vendor's own names, in ORDER_FIELDS
    (CloudApi, "shares.create_link"): {"password"},  # taken so that code moves between the APIs, and refused
}
OPTIONAL_IN_PYTHON = {(CloudApi, "folders.share", "expires")}  # as in the DICOMweb API; the check asks for it


def method(client: type, name: str) -> Callable[..., Any]:
    facade, _, found = name.partition(".")
    kind = inspect.get_annotations(getattr(client, facade).fget, eval_str=True)["return"]
    made: Callable[..., Any] = getattr(kind, found)
    return made


def types_in(annotation: str) -> set[str]:
    whole = annotation.removesuffix(" | None")
    return {whole} if whole.startswith("Sequence[") else set(whole.split(" | "))


@pytest.mark.parametrize(("client", "name", "operation"), OPERATIONS)
def test_a_signature_agrees_with_the_table(client: type, name: str, operation: Operation) -> None:
    signature = dict(list(inspect.signature(method(client, name)).parameters.items())[1:])
    table = {one.argument: one for one in operation.parameters}
    assert set(signature) - BESIDES.get((client, name), set()) == set(table)
    for argument, one in table.items():
        written = signature[argument]
        assert types_in(written.annotation) == ACCEPTED[one.kind], argument
        must_be_given = one.must_be_given and (client, name, argument) not in OPTIONAL_IN_PYTHON
        assert must_be_given == (written.default is inspect.Parameter.empty), argument
        # A flag is off by default; None says nothing of it.
        assert written.default in (inspect.Parameter.empty, None, False), argument


@pytest.mark.parametrize(("client", "name", "operation"), OPERATIONS)
def test_every_parameter_can_be_an_option(client: type, name: str, operation: Operation) -> None:
    for one in operation.parameters:
        assert one.wire
        assert one.help.endswith("."), one.argument
        assert one.metavar
        assert one.takes_several == (one.argument in {"tags", "modalities"} or one.argument.endswith("uuids"))


def declared() -> list[Field]:
    found: list[Field] = []
    for one in vars(fields).values():
        found += [each for each in (one if isinstance(one, tuple) else (one,)) if isinstance(each, Field)]
    return found


def test_every_declared_field_is_used() -> None:
    used = {one.argument for table in TABLES.values() for operation in table.values() for one in operation.parameters}
    assert {one.argument for one in declared()} - {""} == used


def test_the_same_argument_holds_the_same_in_both_apis() -> None:
    as_uuid = {ValueKind.GUID: ValueKind.UUID, ValueKind.GUID_LIST: ValueKind.UUID_LIST}
    for name in DICOMWEB.keys() & CLOUD.keys():
        both: dict[str, list[Parameter]] = {}
        for table in (DICOMWEB, CLOUD):
            for one in table[name].parameters:
                both.setdefault(one.argument, []).append(one)
        for argument, kinds in both.items():
            lists = {one.takes_several for one in kinds}
            assert len(lists) == 1, (name, argument)
            simple = {as_uuid.get(one.kind, one.kind) for one in kinds}
            assert len(simple) == 1 or argument in {"order_scheduled_datetime", "patient_order_uuids"}


def test_what_only_some_values_can_be() -> None:
    by_name = {one.argument: one for one in CLOUD["orders.create"].parameters}
    assert by_name["patient_sex"].choices == ("M", "F", "O")
    assert by_name["modality"].choices == ()


def test_what_the_cloud_api_says_of_an_institution() -> None:
    found, given = (CLOUD[name].parameters[0] for name in ("groups.create", "orders.delete"))
    assert (found.must_be_given, given.must_be_given) == (False, True)
    assert found.help == f"{given.help} Not needed if the user has only one."
    assert {found.metavar, given.metavar} == {"UUID|NAME"}
    assert "by UUID or name" in given.help
    assert "name" not in DICOMWEB["orders.delete"].parameters[0].help
