"""How long the law keeps something: periods such as ``5y``, counted in calendar units."""

from __future__ import annotations

import calendar
import datetime as dt
import re
from dataclasses import dataclass
from typing import Any

from datavern.contracts.errors import ConfigurationError

__all__ = ["Period", "units_of"]

_PERIOD = re.compile(r"(?:(\d+)y)?(?:(\d+)m)?(?:(\d+)w)?(?:(\d+)d)?")
_UNITS = "ymwd"
_MONTHS = 12
_LONGEST_YEARS = 1000


def units_of(text: Any) -> list[tuple[str, int]]:
    """A period as it is written: unit ("y", "m", "w", "d") and how many, from long to short; nothing for no period."""
    match = _PERIOD.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    return [(u, int(part)) for u, part in zip(_UNITS, match.groups(), strict=True) if part] if match else []


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
        of = dict.fromkeys(_UNITS, 0) | dict(units_of(text))
        period = cls(months=of["y"] * _MONTHS + of["m"], days=of["w"] * 7 + of["d"])
        if period == cls() or period.months + period.days // 30 > _LONGEST_YEARS * _MONTHS:
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
