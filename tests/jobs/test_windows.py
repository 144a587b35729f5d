"""Windows are open while the clock on the wall shows a time within them, in every zone, whatever happens to clocks."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from postdicom_async.errors import UsageError
from postdicom_async.jobs.pace.windows import Windows
from tests.support.large import examples

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
NIGHTS = "Mon-Fri 20:00-06:00, Sat-Sun 00:00-24:00"
MINUTE = timedelta(minutes=1)


def at(text: str, zone: ZoneInfo = BERLIN, *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def nights() -> Windows:
    return Windows.parse(NIGHTS, zone="Europe/Berlin")


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-30T19:59:59", False),  # a Monday
        ("2026-11-30T20:00", True),
        ("2026-12-01T00:00", True),
        ("2026-12-01T05:59:59", True),
        ("2026-12-01T06:00", False),
        ("2026-12-04T23:00", True),  # Friday
        ("2026-12-05T00:00", True),
        ("2026-12-05T12:00", True),
        ("2026-12-06T23:59:59", True),
        ("2026-12-07T00:00", False),  # Monday: Sunday's window ended, and its own begins in the evening
        ("2026-12-07T05:00", False),
    ],
)
def test_a_window_past_midnight_belongs_to_the_day_it_begins(moment: str, is_open: bool) -> None:
    assert nights().is_open(at(moment)) is is_open


def test_the_weekend_is_one_window() -> None:
    assert nights().next_change(at("2026-12-04T21:00")) == at("2026-12-07T00:00")
    assert nights().next_change(at("2026-12-07T00:00")) == at("2026-12-07T20:00")


def test_moments_of_any_zone_are_taken() -> None:
    assert nights().is_open(at("2026-11-30T14:00", NEW_YORK))  # 20:00 in Berlin
    assert not nights().is_open(at("2026-11-30T13:59", NEW_YORK))


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("Mo-Fr 20:00-06:00", "Mon-Fri 20:00-06:00"),
        ("monday-FRIDAY 20:00-06:00", "Mon-Fri 20:00-06:00"),
        ("Fri-Mon 8:00-9:30", "Fri-Mon 08:00-09:30"),
        ("Mon, Wed, Fri 20:00-06:00", "Mon, Wed, Fri 20:00-06:00"),
        ("Mon,Wed-Thu 20:00-06:00,Sun 00:00-24:00", "Mon, Wed-Thu 20:00-06:00, Sun 00:00-24:00"),
        ("Mon 08:00-12:00 14:00-18:00", "Mon 08:00-12:00 14:00-18:00"),
        ("20:00-06:00", "Mon-Sun 20:00-06:00"),
        ("01:00-02:00, 03:00-04:00", "Mon-Sun 01:00-02:00, Mon-Sun 03:00-04:00"),
        ("daily 20:00\N{EN DASH}06:00", "Mon-Sun 20:00-06:00"),
        ("Tue 20:00-00:00", "Tue 20:00-00:00"),
        ("", "always"),
        ("  always ", "always"),
        ("Mon 20:00-06:00 Europe/Berlin", "Mon 20:00-06:00 Europe/Berlin"),
        ("Mon 20:00-06:00 UTC", "Mon 20:00-06:00 UTC"),
        ("Mon 20:00-06:00 Etc/GMT+5", "Mon 20:00-06:00 Etc/GMT+5"),
        ("America/New_York", "always America/New_York"),
    ],
)
def test_texts(text: str, means: str) -> None:
    windows = Windows.parse(text)
    assert str(windows) == means
    assert Windows.parse(str(windows)) == windows


def test_a_zone_in_the_text_outranks_the_other() -> None:
    assert Windows.parse("Mon 20:00-06:00 UTC", zone="Europe/Berlin").zone == "UTC"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Foo 20:00-06:00", "Foo"),
        ("M 20:00-06:00", "M"),
        ("Mon-Tue-Wed 20:00-06:00", "Mon-Tue-Wed"),
        ("Mon- 20:00-06:00", "Mon-"),
        ("Mon", "no times"),
        ("Mon-Fri 20:00-06:00, Sat-Sun", "Sat-Sun"),
        ("Mon 20:00", "20:00"),
        ("Mon 20-06", "20-06"),
        ("Mon 25:00-06:00", "25:00-06:00"),
        ("Mon 24:00-06:00", "24:00-06:00"),
        ("Mon 20:00-24:01", "20:00-24:01"),
        ("Mon 20:60-21:00", "20:60-21:00"),
        ("Mon 06:00-06:00", "06:00-06:00"),
        ("Mon 20:00-06:00 Tue", "Tue"),
        ("Mon 20:00-06:00,", "comma"),
        (", Mon 20:00-06:00", "comma"),
        ("Mon 08:00-09:00, 10:00-11:00", "10:00-11:00"),
        ("Mon 20:00-06:00 Europe/Atlantis", "Europe/Atlantis"),
        ("Mon 20:00-06:00 Berlin", "Berlin"),
        ("Mon 20:00-06:00 Europe", "Europe"),
        ("Mon 20:00-06:00 ../../etc/passwd", "../../etc/passwd"),
    ],
)
def test_a_bad_text_is_refused_by_its_part(text: str, named: str) -> None:
    with pytest.raises(UsageError) as raised:
        Windows.parse(text)
    message = str(raised.value)
    assert named in message
    assert "\n" not in message
    assert "00:00-24:00" in message or "Europe/Berlin" in message  # an example
    assert raised.value.__context__ is None


def test_what_is_no_text_or_no_moment_is_refused() -> None:
    with pytest.raises(UsageError):
        Windows.parse(5)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        Windows().is_open(datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(UsageError):
        Windows().next_change(datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    "text",
    ["", "00:00-24:00", "Mon-Sun 00:00-24:00", "12:00-11:59, 11:59-12:00", "Mon-Fri 00:00-24:00, Sat-Sun 00:00-24:00"],
)
def test_what_never_closes_never_changes(text: str) -> None:
    windows = Windows.parse(text)
    assert windows.is_always_open
    assert windows.is_open(at("2026-11-30T12:00"))
    assert windows.next_change(at("2026-11-30T12:00")) is None


def test_overlaps_are_one_window() -> None:
    windows = Windows.parse("Mon 08:00-12:00, Mon-Tue 11:00-13:00, Mon 13:00-14:00 UTC")
    assert windows.next_change(at("2026-11-30T08:00", ZoneInfo("UTC"))) == at("2026-11-30T14:00", ZoneInfo("UTC"))


def test_a_leap_day_is_a_day() -> None:
    windows = Windows.parse("Thu 22:00-02:00 Europe/Berlin")
    assert windows.next_change(at("2024-02-28T12:00")) == at("2024-02-29T22:00")
    assert windows.next_change(at("2024-02-29T23:00")) == at("2024-03-01T02:00")


# --- the change of the clocks -----------------------------------------------------------------------------------------


def test_an_hour_that_does_not_exist_is_not_open() -> None:
    windows = Windows.parse("02:00-03:00 Europe/Berlin")
    assert windows.next_change(at("2026-03-28T12:00")) == at("2026-03-30T02:00")  # the 29th has no such hour
    noon = at("2026-03-28T12:00").astimezone(UTC)
    assert not any(windows.is_open(noon + MINUTE * count) for count in range(24 * 60))


def test_an_hour_that_exists_twice_is_open_twice() -> None:
    windows = Windows.parse("02:00-03:00 Europe/Berlin")
    opens = windows.next_change(at("2026-10-25T00:00"))
    assert opens == datetime(2026, 10, 25, 0, 0, tzinfo=UTC)
    closes = windows.next_change(opens)
    assert closes == datetime(2026, 10, 25, 2, 0, tzinfo=UTC)


def test_half_of_an_hour_that_exists_twice_is_open_twice() -> None:
    windows = Windows.parse("02:30-02:45 Europe/Berlin")
    moment: datetime | None = at("2026-10-25T00:00")
    changes = []
    for _ in range(5):
        moment = windows.next_change(moment) if moment else None
        changes.append(f"{moment:%d %H:%M}" if moment else "")
    assert changes == ["25 00:30", "25 00:45", "25 01:30", "25 01:45", "26 01:30"]  # in UTC


def test_a_window_that_begins_in_the_missing_hour_opens_with_the_jump() -> None:
    windows = Windows.parse("02:30-06:00 Europe/Berlin")
    assert windows.next_change(at("2026-03-28T22:00")) == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)


def test_a_weekly_window_that_is_skipped_is_found_a_week_later() -> None:
    windows = Windows.parse("Sun 02:00-03:00 Europe/Berlin")
    assert windows.next_change(at("2026-03-22T12:00")) == at("2026-04-05T02:00")


def test_a_day_that_an_island_skipped_is_skipped() -> None:
    apia = ZoneInfo("Pacific/Apia")  # 2011-12-30, a Friday, did not exist there
    windows = Windows.parse("Fri 00:00-24:00 Pacific/Apia")
    assert windows.next_change(at("2011-12-29T12:00", apia)) == at("2012-01-06T00:00", apia)


@pytest.fixture
def machine_in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("machine_in_new_york")
def test_without_a_zone_it_is_the_machines() -> None:
    assert os.environ["TZ"] == "America/New_York"
    windows = Windows.parse("20:00-06:00")
    assert windows.is_open(at("2026-07-01T20:00", NEW_YORK))
    assert not windows.is_open(at("2026-07-01T19:59", NEW_YORK))
    assert windows.next_change(at("2026-07-01T19:59", NEW_YORK)) == at("2026-07-01T20:00", NEW_YORK)
    early = Windows.parse("02:30-06:00")
    assert early.next_change(at("2026-03-07T22:00", NEW_YORK)) == datetime(2026, 3, 8, 7, 0, tzinfo=UTC)


# --- the rule itself, minute by minute --------------------------------------------------------------------------------

ZONES = st.sampled_from(
    [
        "UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Casablanca",
        "Pacific/Apia", "America/St_Johns", "Asia/Tehran",
    ]
)  # fmt: skip
CLOCK_CHANGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
    datetime(2011, 12, 30, 10, tzinfo=UTC),
    datetime(2024, 2, 29, 12, tzinfo=UTC),
]
MOMENTS = st.builds(
    lambda near, seconds: near + timedelta(seconds=seconds),
    st.sampled_from(CLOCK_CHANGES),
    st.integers(-2 * 24 * 3600, 2 * 24 * 3600),
)
MINUTES = st.integers(0, 24 * 60 - 1)


@st.composite
def texts(draw: st.DrawFn) -> str:
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        first, last = (draw(st.sampled_from(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"])) for _ in range(2))
        start = draw(MINUTES)
        end = draw(st.one_of(st.just((start + draw(st.integers(1, 120))) % (24 * 60)), st.integers(1, 24 * 60)))
        if start == end:
            end = 24 * 60
        parts.append(f"{first}-{last} {start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}")
    return ", ".join(parts)


def opens_by_hand(text: str, wall: datetime) -> bool:
    """Say it without minutes of the week: by today's windows and yesterday's."""
    days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    now = f"{wall:%H:%M}"
    for part in text.split(", "):
        names, times = part.split()
        first, last = (days.index(name) for name in names.split("-"))
        start, end = times.split("-")
        chosen = {(first + more) % 7 for more in range((last - first) % 7 + 1)}
        today, yesterday = wall.weekday() in chosen, (wall.weekday() - 1) % 7 in chosen
        if start < end:
            if today and start <= now < end:
                return True
        elif (today and now >= start) or (yesterday and now < end):
            return True
    return False


@settings(max_examples=examples(60), deadline=None)
@given(texts(), ZONES, MOMENTS)
@example("Sun-Sun 02:00-03:00", "Europe/Berlin", datetime(2026, 3, 28, tzinfo=UTC))
@example("Sun-Sun 02:15-02:20", "Europe/Berlin", datetime(2026, 10, 24, 23, tzinfo=UTC))
@example("Sun-Sun 01:45-02:10", "Australia/Lord_Howe", datetime(2026, 4, 3, tzinfo=UTC))
def test_the_next_change_is_where_a_scan_finds_it(text: str, zone: str, moment: datetime) -> None:
    windows = Windows.parse(text, zone=zone)
    now = windows.is_open(moment)
    assert now == opens_by_hand(text, moment.astimezone(ZoneInfo(zone)))
    change = windows.next_change(moment)
    step = moment.replace(second=0, microsecond=0) + MINUTE
    limit = moment + timedelta(days=2)
    while step < limit and windows.is_open(step) == now:
        assert windows.is_open(step) == opens_by_hand(text, step.astimezone(ZoneInfo(zone)))
        step += MINUTE
    if step < limit:
        assert change == step
    elif change is not None:
        assert change >= limit
        assert windows.is_open(change) != now
        assert windows.is_open(change - timedelta(seconds=1)) == now
    else:
        assert windows.is_always_open


@settings(deadline=None)
@given(texts(), ZONES)
def test_a_text_comes_back(text: str, zone: str) -> None:
    windows = Windows.parse(f"{text} {zone}")
    assert Windows.parse(str(windows)) == windows
    assert pickle.loads(pickle.dumps(windows)) == windows


@settings(max_examples=examples(300), deadline=None)
@given(st.text(alphabet=st.sampled_from("MonTuesaFri0123456789:-, /ABCäé\n\x00"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(UsageError):
        Windows.parse(text).next_change(at("2026-03-28T22:00"))
