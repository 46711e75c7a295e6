"""Legal deadlines: months by Regulation (EEC, Euratom) 1182/71, Norwegian public holidays, and clocks in hours."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from datavern.contracts.errors import ConfigurationError
from datavern.privacy.values.periods import Period

__all__ = [
    "BREACH_HOURS",
    "EXTENSION_MONTHS",
    "INCIDENT_HOURS",
    "breach_deadline",
    "deadline",
    "easter",
    "extended_deadline",
    "holidays",
    "incident_deadline",
    "is_working_day",
]

ANSWER_MONTHS: Final = 1
EXTENSION_MONTHS: Final = 2
BREACH_HOURS: Final = 72
INCIDENT_HOURS: Final = 24
_SATURDAY: Final = 5

_FIXED: Final = (
    (1, 1, "New Year's Day"),
    (5, 1, "Labour Day"),
    (5, 17, "Constitution Day"),
    (12, 25, "Christmas Day"),
    (12, 26, "Boxing Day"),
)
_MOVING: Final = (
    (-3, "Maundy Thursday"),
    (-2, "Good Friday"),
    (0, "Easter Sunday"),
    (1, "Easter Monday"),
    (39, "Ascension Day"),
    (49, "Whit Sunday"),
    (50, "Whit Monday"),
)


def easter(year: int) -> dt.date:
    """Easter Sunday by the Gregorian calendar (the algorithm of Meeus, Jones and Butcher)."""
    a, (b, c) = year % 19, divmod(year, 100)
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return dt.date(year, month, day + 1)


@lru_cache(maxsize=64)
def holidays(year: int) -> Mapping[dt.date, str]:
    """Norway's public holidays of a year: date → name (lov om helligdager § 2; lov om 1 og 17 mai).

    24 December is none.
    """
    sunday = easter(year)
    moving = {sunday + dt.timedelta(days=days): name for days, name in _MOVING}
    fixed = {dt.date(year, month, day): name for month, day, name in _FIXED}
    return MappingProxyType(dict(sorted((moving | fixed).items())))


def is_working_day(day: dt.date) -> bool:
    """Whether `day` is no Saturday, no Sunday and no public holiday in Norway."""
    return day.weekday() < _SATURDAY and day not in holidays(day.year)


def deadline(received: dt.date, months: int = ANSWER_MONTHS) -> dt.date:
    """The last day to answer a request: GDPR Art. 12(3), counted as Regulation 1182/71 Art. 3 says.

    The day of receipt does not count (Art. 3(1)). The period ends on the day of the same number in the last month, or
    on that month's last day where there is none (Art. 3(2)(c)); if that is a Saturday, a Sunday or a public holiday, on
    the next working day (Art. 3(4)).

    Args:
        received: the day on which the request arrived, in Norwegian time.
        months: length of the period in calendar months, at least one.

    Raises:
        ConfigurationError: `months` is less than one.
    """
    if months < 1:
        raise ConfigurationError(f"a deadline of {months} months: expected at least one")
    day = Period(months=months).after(received)
    while not is_working_day(day):
        day += dt.timedelta(days=1)
    return day


def extended_deadline(received: dt.date) -> dt.date:
    """The last day when the answer was extended by two further months, for complexity or number (GDPR Art. 12(3)).

    Counted from receipt, three months in all. The person is told of the extension within the first month.
    """
    return deadline(received, ANSWER_MONTHS + EXTENSION_MONTHS)


def breach_deadline(aware: dt.datetime) -> dt.datetime:
    """When a personal data breach must have been notified to Datatilsynet: 72 hours after awareness (GDPR Art. 33(1)).

    Hours run through nights, weekends and holidays. They are counted exactly from the moment; that Regulation 1182/71
    Art. 3(1) leaves out the hour in which it fell is not made use of.

    Args:
        aware: the moment, with its time zone.

    Raises:
        ConfigurationError: it has no time zone.
    """
    return _hours_after(aware, BREACH_HOURS)


def incident_deadline(aware: dt.datetime) -> dt.datetime:
    """When a provider of an essential service must have given notice of a serious incident: after 24 hours.

    Digitalsikkerhetsloven, in force from 2025-10-01. Counted as `breach_deadline` counts.

    Raises:
        ConfigurationError: the moment has no time zone.
    """
    return _hours_after(aware, INCIDENT_HOURS)


def _hours_after(moment: dt.datetime, hours: int) -> dt.datetime:
    if moment.tzinfo is None:
        raise ConfigurationError("a clock in hours needs a moment with its time zone")
    # In UTC, and back: added to local time, the hour that daylight saving takes or gives would be missed.
    return (moment.astimezone(dt.UTC) + dt.timedelta(hours=hours)).astimezone(moment.tzinfo)
