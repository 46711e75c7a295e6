"""Retention periods in calendar units."""

import datetime as dt

import pytest

from datavern.contracts.errors import ConfigurationError
from datavern.privacy.retention import Period


@pytest.mark.parametrize(
    ("text", "day", "end"),
    [
        ("30d", "2026-01-31", "2026-03-02"),
        ("6w", "2026-01-01", "2026-02-12"),
        ("18m", "2026-08-31", "2028-02-29"),
        ("5y", "2025-12-31", "2030-12-31"),  # bokføringsloven § 13: a voucher of 2025
        ("3y6m", "2025-12-31", "2029-06-30"),  # the same, secondary documentation
        ("1y", "2024-02-29", "2025-02-28"),
        ("1m", "2026-12-31", "2027-01-31"),
        ("1000y", "9500-01-01", "9999-12-31"),
    ],
)
def test_a_period_ends_on_its_day(text, day, end):
    assert Period.parse(text).after(dt.date.fromisoformat(day)) == dt.date.fromisoformat(end)


@pytest.mark.parametrize("text", ["", "5", "y5", "5 years", "-1y", "0d", "5y0x", "1001y", "6m1y", "99999999999999d"])
def test_what_is_no_period(text):
    with pytest.raises(ConfigurationError, match="expected a period"):
        Period.parse(text)
