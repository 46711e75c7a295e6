import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datavern.contracts.errors import ConfigurationError
from datavern.privacy.values.deadlines import (
    breach_deadline,
    deadline,
    easter,
    extended_deadline,
    holidays,
    incident_deadline,
    is_working_day,
)

D = dt.date.fromisoformat


@pytest.mark.parametrize(
    ("received", "due"),
    [
        ("2026-01-31", "2026-03-02"),  # there is no 31 February; the 28th is a Saturday
        ("2026-03-02", "2026-04-07"),  # Maundy Thursday to Easter Monday
        ("2025-11-24", "2025-12-24"),  # not a holiday
        ("2025-11-25", "2025-12-29"),  # both days of Christmas, then a weekend
        ("2026-11-23", "2026-12-23"),
        ("2024-01-31", "2024-02-29"),
        ("2026-04-01", "2026-05-04"),  # Labour Day on a Friday
        ("2026-04-17", "2026-05-18"),  # Constitution Day on a Sunday
        ("2025-12-01", "2026-01-02"),
    ],
)
def test_one_month(received, due):
    assert deadline(D(received)) == D(due)


def test_two_further_months_count_from_receipt():
    assert extended_deadline(D("2026-01-31")) == D("2026-04-30")
    assert extended_deadline(D("2026-11-23")) == deadline(D("2026-11-23"), 3) == D("2027-02-23")


@pytest.mark.parametrize("months", [0, -1])
def test_no_deadline_before_receipt(months):
    with pytest.raises(ConfigurationError, match="at least one"):
        deadline(D("2026-01-01"), months)


@pytest.mark.parametrize(
    "sunday",
    ["1961-04-02", "2000-04-23", "2008-03-23", "2011-04-24", "2019-04-21", "2024-03-31", "2025-04-20", "2026-04-05",
     "2027-03-28", "2028-04-16", "2038-04-25", "2285-03-22"],
)  # fmt: skip
def test_easter(sunday):
    assert easter(D(sunday).year) == D(sunday)


def test_norwegian_holidays():
    assert [day.isoformat()[5:] for day in holidays(2026)] == [
        "01-01", "04-02", "04-03", "04-05", "04-06", "05-01", "05-14", "05-17", "05-24", "05-25", "12-25", "12-26",
    ]  # fmt: skip
    assert not is_working_day(D("2026-05-14"))
    assert is_working_day(D("2026-12-24"))
    assert not is_working_day(D("2026-11-22"))


def test_holidays_that_meet_on_one_day_are_one():
    assert len(holidays(2008)) == 11  # Ascension Day was 1 May
    assert D("2008-05-01") in holidays(2008)


@given(st.dates(dt.date(1990, 1, 1), dt.date(2200, 1, 1)), st.integers(1, 12))
def test_a_deadline_is_a_working_day_in_time(received, months):
    due = deadline(received, months)
    assert is_working_day(due)
    assert 28 * months <= (due - received).days <= 31 * months + 7
    assert deadline(received + dt.timedelta(days=1), months) >= due


def test_clocks_run_through_weekends_and_daylight_saving():
    oslo = ZoneInfo("Europe/Oslo")
    friday = dt.datetime(2026, 3, 27, 16, 30, tzinfo=oslo)  # the clock goes forward on Sunday
    assert breach_deadline(friday) == dt.datetime(2026, 3, 30, 17, 30, tzinfo=oslo)
    assert breach_deadline(friday).utcoffset() == dt.timedelta(hours=2)
    assert breach_deadline(friday).astimezone(dt.UTC) - friday.astimezone(dt.UTC) == dt.timedelta(hours=72)
    assert incident_deadline(friday) == dt.datetime(2026, 3, 28, 16, 30, tzinfo=oslo)


@pytest.mark.parametrize("clock", [breach_deadline, incident_deadline])
def test_a_clock_needs_a_time_zone(clock):
    with pytest.raises(ConfigurationError, match="time zone"):
        clock(dt.datetime(2026, 3, 27, 16, 30))  # noqa: DTZ001  (the mistake under test)
