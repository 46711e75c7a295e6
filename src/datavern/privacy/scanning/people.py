"""How many of a column's eleven-digit numbers are people's identity numbers.

A single number is no proof: every account number passes half of the check, and one random number in eighty passes all
of it. A column is. People are born on every day of the year, hold numbers of few series, and are neither 120 years old
nor born next year; the banks' prefixes are few, an order's number begins with its date, a time of day has no 61st
minute, and what is only random is spread over every series evenly. Each of these says how many of the valid numbers it
leaves for people, and the least of them is taken.

Sources: Skatteetaten's rules for the fødselsnummer (see `datavern.contracts.identity`). The shares below follow from
them by counting.
"""

from __future__ import annotations

import datetime as dt
import math
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from datavern.contracts.identity import D_NUMBER, IdentityNumber, fodselsnummer, is_account_number, lost_its_zero

__all__ = ["Evidence", "weigh"]

RANDOM_PASSES = 0.0123
"""Of random eleven-digit numbers, those with a date of any series and control digits under either rule."""
ACCOUNT_PASSES = 0.135
"""Of account numbers with any prefix, those that pass as an identity number: the second control digit is right."""
IMPLAUSIBLE = 0.366
"""Of random numbers that pass today's rule, those whose person would be over 98, unborn, or born in the 1800s."""
LOOKS_LIKE_A_TIME = 0.288
"""Of numbers of people born before 2000, those whose digits 7 to 10 can be read as hours and minutes."""

_DAYS = 366
_SHARE_OF_A_YEAR = 0.06
"""Of people, those born in one year are fewer, in all but a school class."""
_OLDEST = 98
_SERIES = 10
_ENOUGH = 20
"""Below so many valid numbers their distribution says little."""
_FEWEST = 0.05
"""Of the valid numbers: fewer people than that are what is left over of something else."""
_ACCOUNTS = 0.4
"""From this share of right account numbers on, those that are nobody's identity number are taken for accounts."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a column's numbers say.

    Attributes:
        numbers: how many eleven-digit numbers there were.
        valid: how many of them are valid identity numbers of any series, under either rule.
        people: how many of these are left for people.
        chance: how many valid ones to expect among so many numbers that are nobody's.
        kinds: the series of the valid ones.
        accounts: how many of the others pass the account number check.
    """

    numbers: int
    valid: int
    people: float
    chance: float
    kinds: Counter[str]
    accounts: int

    @property
    def log_ratio(self) -> float:
        """How much more likely these numbers are when people are among them: a natural logarithm, 0 for no sign."""
        if self.people <= self.chance or self.people < max(1.0, _FEWEST * self.valid):
            return 0.0
        return self.people * math.log(self.people / max(self.chance, 1e-9)) - (self.people - self.chance)


def weigh(texts: Iterable[str], *, today: dt.date | None = None) -> Evidence:
    """What these numbers are.

    Args:
        texts: each eleven digits, or ten where a leading zero may have been lost on the way to a whole number.
        today: the day to reckon ages from.
    """
    day = today or dt.datetime.now(dt.UTC).date()
    found: list[IdentityNumber] = []
    others = accounts = 0
    for text in texts:
        number = fodselsnummer(text)
        if number is None and len(text) == 10 and lost_its_zero(int(text)):  # noqa: PLR2004  (one digit less)
            number = fodselsnummer("0" + text)
        if number is not None:
            found.append(number)
        elif len(text) != 10:  # noqa: PLR2004  (a number of ten digits is none of ours unless it lost its zero)
            others += 1
            accounts += is_account_number(text)
    valid = len(found)
    passes = ACCOUNT_PASSES if others and accounts >= _ACCOUNTS * others else RANDOM_PASSES
    by_accident = others * passes / (1 - passes)
    left = float(valid)
    if valid >= _ENOUGH:
        left = min(left, _by_days(found), _by_series(found), _by_age(found, day), _by_times(found))
    return Evidence(
        numbers=valid + others,
        valid=valid,
        people=max(0.0, left - by_accident - 2 * math.sqrt(by_accident)) if valid > 1 else left,
        chance=(valid + others) * passes,
        kinds=Counter(number.kind for number in found),
        accounts=accounts,
    )


def _by_days(found: list[IdentityNumber]) -> float:
    """So many people have so many different birthdays. Days that far more numbers share are a prefix, not people."""
    days = Counter((int(n.number[:2]) % D_NUMBER, int(n.number[2:4]) % 20) for n in found)
    empty = max(_DAYS - len(days), 0)
    each = math.log(_DAYS / empty) if empty else max(math.log(_DAYS), statistics.median(days.values()))
    most = each + 3 * math.sqrt(each) + 1
    return float(sum(count for count in days.values() if count <= most))


def _by_series(found: list[IdentityNumber]) -> float:
    """What is spread over all series evenly is random: as much of each is taken away as the rarest ones have."""
    cells = Counter((n.d_number, int(n.number[2]) // 2) for n in found)
    rarest = sorted([*cells.values(), *[0] * (_SERIES - len(cells))])[: _SERIES // 2]
    floor = sum(rarest) / len(rarest)
    return len(found) - _SERIES * (floor + 3 * math.sqrt(floor / len(rarest)))


def _by_age(found: list[IdentityNumber], today: dt.date) -> float:
    """Hardly anybody is older than 98, and nobody is unborn.

    Numbers that fit the rule of 2032 alone tell no age, but people are not born in a few years only.
    """
    oldest = today.year - _OLDEST
    dated = [n.birth_date for n in found if n.birth_date is not None]
    strange = sum(born.year < oldest or born > today for born in dated)
    people = float(len(dated))
    if strange > 1:
        people = max(0.0, people - (strange + 3 * math.sqrt(strange)) / IMPLAUSIBLE)
    undated = Counter(n.number[4:6] for n in found if n.birth_date is None)
    most = _SHARE_OF_A_YEAR * undated.total() if undated.total() >= _ENOUGH else _ENOUGH
    return people + sum(count for count in undated.values() if count <= most)


def _by_times(found: list[IdentityNumber]) -> float:
    """DDMMYYHHMMS: where all could be times of the day, they are."""
    times = sum(int(n.number[6:8]) < 24 and int(n.number[8:10]) < 60 for n in found)  # noqa: PLR2004  (hours, minutes)
    return (len(found) - times) / (1 - LOOKS_LIKE_A_TIME)
