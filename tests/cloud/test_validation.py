"""Arguments, checked as the vendor's library does (and more clearly), before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from postdicom_async import CloudApi, UsageError
from postdicom_async.vendor.values import ValueKind, check_value
from tests.cloud.forms import FORMS, ONE, Form
from tests.cloud.service import ACCOUNT, INSTITUTION, USER, CloudService
from tests.support.large import examples

ZERO = "00000000-0000-0000-0000-000000000000"

# What the vendor's library accepts and refuses (its public copy).
GUIDS = [ZERO, ONE, ONE.upper(), "aaaaaaaa-bbbb-5ccc-bddd-eeeeeeeeeeee", "AAAAAAAA-BBBB-1CCC-8DDD-EEEEEEEEEEEE"]
NO_GUIDS = [
    "aaaaaaaa-bbbb-6ccc-bddd-eeeeeeeeeeee", "aaaaaaaa-bbbb-0ccc-bddd-eeeeeeeeeeee",
    "aaaaaaaa-bbbb-4ccc-7ddd-eeeeeeeeeeee", "aaaaaaaa-bbbb-4ccc-cddd-eeeeeeeeeeee", f"{{{ONE}}}", f"{ONE}0", ONE[1:],
    ONE.replace("-", ""), "g" + ONE[1:], f"{ONE}\n{ONE}", "\uff11" + ONE[1:],
]  # fmt: skip
MAILS = [
    "a@b.co", "a.b.c@d-e.f.example", "o'neill+x@example.org", '"any thing"@example.org', "a@[1.2.3.4]", "ä@example.org",
    "a@[999.1.1.1]", "A_B@EXAMPLE.ORG",
]  # fmt: skip
NO_MAILS = [
    "a", "@example.org", "a@", "a@b", "a@b.c", "a@b.c1", ".a@example.org", "a.@example.org", "a..b@example.org",
    "a b@example.org", "a@exämple.org", "a@example.org\nb", "a@example.org x", "a,b@example.org", '""@example.org',
    "a@b@example.org", "a@[1.2.3]", "a@example..org", "a@.org",
]  # fmt: skip
DATES = ["2020-02-29", "0001-01-01", date(2020, 1, 2), datetime(2020, 1, 2, 3, 4)]  # noqa: DTZ001 - a calendar date
NO_DATES = [
    "2019-02-29",
    "2020-02-30",
    "2020-13-01",
    "20200101",
    "2020/01/01",
    "01-01-2020",
    "2020-01-01T00:00",
    20200101,
]


def accepts(kind: ValueKind, value: object) -> bool:
    try:
        check_value("argument", kind, value)
    except UsageError:
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (ValueKind.GUID, GUIDS, NO_GUIDS),
        (ValueKind.MAIL, MAILS, NO_MAILS),
        (ValueKind.DATE, DATES, NO_DATES),
        (ValueKind.FLAG_ID, [0, 1, -1, 2**40, "5", "a"], [1.5, True, 1.0, " ", None]),
        (ValueKind.BOOLEAN, [True, False], [0, 1, "true", None]),
        (ValueKind.GUID_LIST, [[ONE], (ONE, ZERO), {ONE}], [ONE, [], [ONE, "no"], {ONE: 1}, 5, [None]]),
    ],
)
def test_values(kind: ValueKind, good: list[object], bad: list[object]) -> None:
    assert [value for value in good if not accepts(kind, value)] == []
    assert [value for value in bad if accepts(kind, value)] == []


@hypothesis_settings(max_examples=examples(300), deadline=None, derandomize=True, database=None)
@given(st.text() | st.sampled_from(MAILS).flatmap(lambda mail: st.text(max_size=2).map(lambda more: mail + more)))
def test_what_is_accepted_as_mail_has_no_end_of_line(text: str) -> None:
    if accepts(ValueKind.MAIL, text):
        assert "\n" not in text.strip()


def tomorrow(days: int) -> date:
    return datetime.now(UTC).date() + timedelta(days=days)


CALLS: list[tuple[Callable[[CloudApi], Any], str]] = [
    (lambda a: a.orders.properties("no", ONE), "institution_uuid: not in the account"),
    (lambda a: a.orders.properties(ONE, NO_GUIDS[0]), "patient_order_uuid: a UUID, but not one that the service gives"),
    (lambda a: a.orders.delete(ONE, ""), "patient_order_uuid: must be given"),
    (lambda a: a.orders.create(patient_name="", patient_id="1", modality="CT"), "patient_name: must be given"),
    (
        lambda a: a.orders.create(patient_name="X", patient_id="1", modality="CT", patient_sex="female"),
        "patient_sex: give 'M', 'F' or 'O'",
    ),
    (
        lambda a: a.orders.create(
            patient_name="X", patient_id="1", modality="CT", order_scheduled_datetime="2030-01-01 6"
        ),
        "order_scheduled_datetime: give a datetime or a date, or text as YYYY-MM-DD HH:MM or YYYY-MM-DD",
    ),
    (
        lambda a: a.orders.create(patient_name="X", patient_id="1", modality="CT", accession_number="1" * 17),
        "accession_number: at most 16 characters",
    ),
    (lambda a: a.orders.create_from_json({"PatientName": "X", "Nme": 1}), "Nme: no such field of an order; give "),
    (lambda a: a.orders.create_from_json({"PatientsBirthDate": "1.1.1970"}), "PatientsBirthDate: give a date"),
    (lambda a: a.orders.search(institution_uuids=["no"]).all(), "institution_uuids: not a UUID"),
    (lambda a: a.orders.search(study_date_from="2019-02-29").all(), "study_date_from: give a date"),
    (
        lambda a: a.orders.search(study_date_from="2020-01-01", patient_birthdate_to="2020-01-01").all(),
        "study_date_from: the Cloud API searches by study dates or by birth dates, not by both",
    ),
    (lambda a: a.orders.search_in_folder("no").all(), "folder_uuid: not a UUID"),
    (lambda a: a.folders.create(""), "name: must be given"),
    (lambda a: a.folders.create("X", parent_folder_uuid="no"), "parent_folder_uuid: not a UUID"),
    (lambda a: a.folders.add_order(ONE, []), "folder_uuids: the list is empty"),
    (lambda a: a.folders.remove_orders(ONE, "no"), "patient_order_uuids: give a list"),
    (lambda a: a.folders.share(ONE), "expires: must be given"),
    (lambda a: a.folders.share(ONE, expires="2020-01-01"), "expires: the date is in the past"),
    (lambda a: a.folders.share(ONE, expires="31.12.2999"), "expires: give a date"),
    (lambda a: a.folders.share_by_email(ONE, "no", expires="2999-12-31"), "email: not an e-mail address"),
    (
        lambda a: a.folders.share_by_email(ONE, MAILS[0], password_email="no", expires="2999-12-31"),
        "password_email: not an e-mail address",
    ),
    (lambda a: a.folders.share_with_users(ONE, [], expires="2999-12-31"), "user_uuids: the list is empty"),
    (lambda a: a.folders.share_with_groups(ONE, ["no"], expires="2999-12-31"), "user_group_uuids: not a UUID"),
    (lambda a: a.shares.share_by_email([ONE], ""), "email: must be given"),
    (lambda a: a.shares.create_link([ONE], expires=tomorrow(-3)), "expires: the date is in the past"),
    (lambda a: a.flags.set(ONE, group_id=True, flag_id=1), "group_id: give a whole number"),
    (lambda a: a.view.patient("Doe", patient_birthdate="no"), "patient_birthdate: give a date"),
    (lambda a: a.groups.create([ONE], institution_uuid="Nowhere"), "institution_uuid: not in the account"),
]


@pytest.mark.parametrize(("call", "message"), CALLS, ids=[message for _, message in CALLS])
async def test_mistakes_name_the_argument_and_send_nothing(call: Callable[[CloudApi], Any], message: str) -> None:
    async with CloudService() as service, service.client() as api:
        with pytest.raises(UsageError) as caught:
            await call(api)
        assert message in str(caught.value)
        assert not service.sent()


SOUTH = "0f0f0f0f-6666-4666-8666-ffffffffffff"
ANOTHER = {"UserUuid": ONE, "FullName": "Another", "UserName": "another@example.org", "InstitutionList": []}
TWO_INSTITUTIONS = [{"InstitutionUuid": INSTITUTION, "InstitutionName": "North"},
                    {"InstitutionUuid": SOUTH, "InstitutionName": "South"}]  # fmt: skip


async def used(account: dict[str, Any], user: Any, call: Callable[[CloudApi], Any]) -> dict[str, Any]:
    async with CloudService() as service:
        service.account = account
        async with service.client(user=user) as api:
            await call(api)
        return service.sent()[0].fields


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (USER, USER),
        (USER.upper(), USER),
        ("somebody@example.org", USER),
        (" SOMEBODY Somewhere ", USER),
        ("Another", ONE),
    ],
)
async def test_the_user(user: str, expected: str) -> None:
    account = {"UserList": [*ACCOUNT["UserList"], ANOTHER]}
    fields = await used(account, user, lambda api: api.view.order(ONE))
    assert fields["UserUuid"] == expected
    for wrong in (None, "Nobody", ""):
        with pytest.raises(UsageError, match="user: "):
            await used(account, wrong, lambda api: api.view.order(ONE))
    twins = {"UserList": [ANOTHER, {**ANOTHER, "UserUuid": USER}]}
    with pytest.raises(UsageError, match="user: several in the account have that name"):
        await used(twins, "another", lambda api: api.view.order(ONE))
    with pytest.raises(UsageError, match="user: give a UUID or a name"):
        await used(account, 5, lambda api: api.view.order(ONE))


@pytest.mark.parametrize(("given_one", "expected"), [("south", SOUTH), (SOUTH, SOUTH), (ONE, ONE), (None, None)])
async def test_the_institution(given_one: str | None, expected: str | None) -> None:
    """A UUID may be any: that of an order's institution need not be one the user works in."""
    account = {"UserList": [{**ACCOUNT["UserList"][0], "InstitutionList": TWO_INSTITUTIONS}]}

    def call(api: CloudApi) -> Any:
        return api.groups.create([ONE], institution_uuid=given_one)

    if expected is None:
        with pytest.raises(UsageError, match="institution_uuid: the account has 2; name one by its UUID or its name"):
            await used(account, None, call)
    else:
        assert (await used(account, None, call))["PatientOrderInstitutionUuid"] == expected


@pytest.mark.parametrize("form", [form for form in FORMS if form.lists], ids=str)
async def test_an_answer_without_a_list_is_no_empty_list(form: Form) -> None:
    from postdicom_async import ProtocolError

    async with CloudService() as service, service.client() as api:
        with pytest.raises(ProtocolError, match="the service answered with something other than a list"):
            await form.call(api)


@pytest.mark.parametrize("form", FORMS, ids=str)
async def test_what_changes_is_never_sent_twice(form: Form) -> None:
    from postdicom_async import ConnectionFailed, OutcomeUnknown
    from tests.faults.clients import settings

    async with CloudService(lambda _request: None) as service:
        async with service.client(settings=settings(answer=0.05, max_attempts=2)) as api:
            with pytest.raises(OutcomeUnknown if form.changes else ConnectionFailed) as caught:
                await form.call(api)
        assert len(service.sent()) == (1 if form.changes else 2)
        assert isinstance(caught.value, OutcomeUnknown) == form.changes
