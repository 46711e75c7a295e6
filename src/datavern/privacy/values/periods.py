"""How long the law keeps something: periods such as ``5y``, counted in calendar units."""

from __future__ import annotations

import calendar
import datetime as dt
import re
from dataclasses import dataclass

from datavern.contracts.errors import ConfigurationError

__all__ = ["Period"]

_PERIOD = re.compile(r"(?:(\d+)y)?(?:(\d+)m)?(?:(\d+)w)?(?:(\d+)d)?")
_MONTHS = 12
_LONGEST_YEARS = 1000


@dataclass(frozen=True, slots=True)
class Period:
    """A length of time in calendar units.

    Attributes:
        months: whole months (a year is twelve).
        days: days beside them.
    """

    months: int = 0
    days: int = 0

    @classmethod
    def parse(cls, text: str) -> Period:
        """``30d``, ``6w``, ``18m``, ``5y``, or several of them from long to short: ``3y6m``.

        Raises:
            ConfigurationError: it is none of these, or nothing, or longer than a thousand years.
        """
        match = _PERIOD.fullmatch(text.strip().lower()) if isinstance(text, str) else None
        years, months, weeks, days = (int(part or 0) for part in match.groups()) if match else (0, 0, 0, 0)
        period = cls(months=years * _MONTHS + months, days=weeks * 7 + days)
        if not match or period == cls() or period.months + period.days // 30 > _LONGEST_YEARS * _MONTHS:
            raise ConfigurationError("expected a period such as 30d, 18m, 5y or 3y6m")
        return period

    def after(self, day: dt.date) -> dt.date:
        """The day on which the period that began on `day` ends.

        The same day number of the last month, or that month's last day where it is shorter (Regulation 1182/71
        Art. 3(2)(c)).
        """
        month = day.month - 1 + self.months
        year, month = day.year + month // _MONTHS, month % _MONTHS + 1
        if year > dt.MAXYEAR:
            return dt.date.max
        last = calendar.monthrange(year, month)[1]
        return dt.date(year, month, min(day.day, last)) + dt.timedelta(days=self.days)
