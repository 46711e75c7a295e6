"""Retention periods in calendar units."""

import datetime as dt

import pytest

from datavern.contracts.errors import ConfigurationError
from datavern.privacy.datamap.dataset import Dataset
from datavern.privacy.retention.run import first_kept
from datavern.privacy.values.periods import Period


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


@pytest.mark.parametrize(
    ("retention", "year_end", "today", "kept"),
    [
        ("5y", False, "2026-11-28", "2021-11-28"),  # the last day still counts: it ends on the day after
        ("5y", True, "2030-12-31", "2025-01-01"),  # a voucher of 2025 is kept to 2030-12-31 …
        ("5y", True, "2031-01-01", "2026-01-01"),  # … and not a day longer
        ("30d", False, "2026-03-03", "2026-02-01"),
        ("1m", False, "2026-03-01", "2026-02-01"),  # all of January's last days end with February, on the 28th
        ("1m", False, "2026-02-28", "2026-01-28"),
        ("1y", False, "2025-03-01", "2024-03-01"),
        ("1000y", False, "2026-11-28", "1026-11-28"),
        ("3y6m", True, "2029-06-30", "2025-01-01"),
    ],
)
def test_the_first_date_that_is_kept(retention, year_end, today, kept):
    dataset = Dataset(
        "d", database="m", subject="s", retention=retention, retention_from="at", retention_from_year_end=year_end
    )
    day = dt.date.fromisoformat(today)
    first = first_kept(dataset, day)
    for start, over in ((first - dt.timedelta(days=1), True), (first, False)):
        end = dt.date(start.year, 12, 31) if year_end else start
        assert (Period.parse(retention).after(end) < day) is over
    assert first == dt.date.fromisoformat(kept)
