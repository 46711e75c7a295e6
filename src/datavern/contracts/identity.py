"""Norwegian identity numbers, organisation numbers and account numbers: which texts are valid ones.

Sources: Skatteetaten's description of the fødselsnummer and of the rules that hold for numbers assigned from 2032;
navikt/fnrvalidator for the offsets of test numbers; Brønnøysundregistrene for organisation numbers.

A number is eleven digits: DDMMYY, three digits (the individual number), two control digits. An offset on the day or the
month tells the series it belongs to.

Every valid fødselsnummer also passes the account number check (the weights are the same), so none of these checks is
proof of what a number is: a finder of personal data needs column names and context too.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "DIGITS",
    "IdentityNumber",
    "Kind",
    "Rule",
    "control_digits",
    "fodselsnummer",
    "is_account_number",
    "is_fodselsnummer",
    "is_organisation_number",
]

Kind = Literal["fodselsnummer", "d-number", "h-number", "tenor", "npid", "npid-synthetic"]
Rule = Literal["today", "2032"]

K1: Final = (3, 7, 6, 1, 8, 9, 4, 5, 2)
K2: Final = (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
ORGANISATION: Final = (3, 2, 7, 6, 5, 4, 3, 2)
RULE_2032: Final = (0, 1, 2, 3)
"""What (Σ k1·d + d10) mod 11 may be in numbers assigned from 2032; before that it is 0."""

DIGITS: Final = 11
"""How many an identity number has."""
D_NUMBER: Final = 40
SERIES: Final[tuple[Kind, ...]] = ("fodselsnummer", "npid", "h-number", "npid-synthetic", "tenor")
"""By the offset on the month, in steps of 20."""

_SHAPE = re.compile(r"([0-9]{6})[ -]?([0-9]{5})")
_LEADING_ZERO_LOST = 10


@dataclass(frozen=True, slots=True)
class IdentityNumber:
    """A valid number. Its `repr` leaves the number out: it is personal data.

    Attributes:
        number: its eleven digits.
        kind: "fodselsnummer"; "d-number" (day + 40); "h-number" (month + 40: an H-number, given by a hospital, or one
            of NAV's synthetic people, which nothing in the number tells apart); "tenor" (month + 80: Skatteetaten's
            synthetic people); "npid" (month + 20) and "npid-synthetic" (month + 60). Where the day is offset as well,
            the month decides and `d_number` is True.
        rule: "today" where the control digits and the individual number fit the rule in force, "2032" where they fit
            only the wider one for numbers assigned from 2032.
        birth_date: None under the rule of 2032, from which no century may be inferred. A number assigned after 2032
            that also fits today's rule cannot be told from an older one.
        d_number: the day is offset by 40.
    """

    number: str
    kind: Kind
    rule: Rule
    birth_date: dt.date | None
    d_number: bool = False

    @property
    def synthetic(self) -> bool | None:
        """True where the number is of a test series, False where it is of a real one, None where it cannot be told.

        An offset of 40 on the month is never proof of test data: H-numbers are real people's.
        """
        if self.kind == "h-number":
            return None
        return self.kind in {"tenor", "npid-synthetic"}

    def __repr__(self) -> str:
        return f"<IdentityNumber {self.kind}, rule {self.rule}>"


def fodselsnummer(text: str) -> IdentityNumber | None:
    """What `text` is as a Norwegian identity number of any series, or None when it is not a valid one.

    Args:
        text: eleven digits, with a space or a hyphen after the sixth if any, and white space around.
    """
    match = _SHAPE.fullmatch(text.strip())
    return None if match is None else _parsed(match[1] + match[2])


def is_fodselsnummer(text: str) -> bool:
    """Whether `text` is a valid Norwegian identity number of any series: see `fodselsnummer`."""
    return fodselsnummer(text) is not None


def lost_its_zero(number: int) -> bool:
    """Whether a whole number is a fødselsnummer under today's rule whose leading zero was lost on the way to `int`."""
    digits = str(number)
    if len(digits) != _LEADING_ZERO_LOST:
        return False
    found = _parsed("0" + digits)
    return found is not None and found.rule == "today"


def control_digits(nine: str) -> str | None:
    """The two control digits under today's rule that make `nine` digits whole, or None when there are none."""
    first = -_weighted(K1, nine) % 11
    if first > 9:  # noqa: PLR2004  (ten is not a digit: such numbers are never assigned)
        return None
    second = -_weighted(K2, f"{nine}{first}") % 11
    return None if second > 9 else f"{first}{second}"  # noqa: PLR2004  (as above)


def is_organisation_number(text: str) -> bool:
    """Whether `text` is a valid organisation number: nine digits, in groups of three if any, the last a control digit.

    Whether one was given to anybody is Enhetsregisteret's to say.
    """
    digits = re.sub(r"(?<=[0-9]) (?=[0-9])", "", text.strip())
    return (
        re.fullmatch(r"[0-9]{9}", digits) is not None and (_weighted(ORGANISATION, digits) + int(digits[8])) % 11 == 0
    )


def is_account_number(text: str) -> bool:
    """Whether `text` is a valid Norwegian account number: eleven digits, as ``1234.56.78903`` if any."""
    digits = re.sub(r"(?<=[0-9])[. ](?=[0-9])", "", text.strip())
    if not re.fullmatch(r"[0-9]{11}", digits):
        return False
    return (_weighted(K2, digits) + int(digits[10])) % 11 == 0


def _weighted(weights: tuple[int, ...], digits: str) -> int:
    return sum(w * int(d) for w, d in zip(weights, digits, strict=False))


def _parsed(digits: str) -> IdentityNumber | None:
    if (_weighted(K2, digits) + int(digits[10])) % 11:
        return None
    remainder = (_weighted(K1, digits) + int(digits[9])) % 11
    if remainder not in RULE_2032:
        return None
    day, month, year, individual = int(digits[:2]), int(digits[2:4]), int(digits[4:6]), int(digits[6:9])
    d_number = day > D_NUMBER
    series, month = divmod(month, 20)
    if series >= len(SERIES):
        return None
    kind = SERIES[series]
    if d_number:
        day -= D_NUMBER
        if kind == "fodselsnummer":
            kind = "d-number"
    century = _century(year, individual) if remainder == 0 else None
    if century is not None and (born := _date(century + year, month, day)):
        return IdentityNumber(digits, kind, "today", born, d_number)
    # Without a century, 29 February is real in every year that 4 divides (2000 + yy: 00 is a leap year there).
    if _date(2000 + year, month, day):
        return IdentityNumber(digits, kind, "2032", None, d_number)
    return None


def _century(year: int, individual: int) -> int | None:
    """The century that the individual number tells, for numbers assigned before 2032."""
    if individual <= 499:  # noqa: PLR2004  (Skatteetaten's table)
        return 1900
    if year <= 39:  # noqa: PLR2004
        return 2000
    if individual >= 900:  # noqa: PLR2004
        return 1900
    if individual <= 749 and year >= 54:  # noqa: PLR2004
        return 1800
    return None


def _date(year: int, month: int, day: int) -> dt.date | None:
    try:
        return dt.date(year, month, day)
    except ValueError:
        return None
