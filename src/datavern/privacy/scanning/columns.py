"""What a column seems to hold, from a sample of its values and its name. Pure: no I/O, and no value leaves it."""

from __future__ import annotations

import datetime as dt
import decimal
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from datavern.privacy.scanning.kinds import SIGNS, Kind, Sign, hint, numbers_in
from datavern.privacy.scanning.people import weigh
from datavern.privacy.values.names import is_name

__all__ = ["Judgement", "judge"]

_LONGEST = 20_000
"""Characters of one text that are read."""
_PRIOR = {1: 0.8, 0: 0.1, -1: 0.02}
"""Before a value was seen: how likely a column of such a name is of the kind."""
_PRIOR_KNOWN = {1: 0.9, 0: 0.2, -1: 0.03}
_MOSTLY = 0.5


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a column seems to hold.

    Attributes:
        kind: the kind of personal data.
        confidence: 0 to 1.
        matches: in how many of the values it was found (of identity numbers: how many are people's).
        values: how many values there were, without NULL and empty ones.
        within: whether it stands within longer texts.
        kinds: of identity numbers: how many of each series.
    """

    kind: Kind
    confidence: float
    matches: int
    values: int
    within: bool = False
    kinds: dict[str, int] = field(default_factory=dict)


def judge(column: str, values: Iterable[Any], *, today: dt.date | None = None) -> list[Judgement]:
    """What a column holds, the surest first; empty when it shows no sign of personal data.

    Args:
        column: its name (of a document: the path).
        values: as the driver gives them; NULL, bytes and flags are passed over.
        today: the day to reckon ages from.
    """
    texts = [text for value in values for text in _texts(value)]
    if not texts:
        return []
    found = [judgement for judgement in _all(column, texts, today) if judgement is not None]
    return sorted(found, key=lambda j: -j.confidence)


def _all(column: str, texts: list[str], today: dt.date | None) -> Iterator[Judgement | None]:
    people = _people(column, texts, today)
    yield people
    for kind, sign in SIGNS.items():
        if kind == "account number" and people is not None and people.matches >= _MOSTLY * people.values:
            continue  # every identity number passes as an account number
        yield _signed(kind, sign, column, texts)


def _people(column: str, texts: list[str], today: dt.date | None) -> Judgement | None:
    numbers: list[str] = []
    whole = 0
    for text in texts:
        inside = numbers_in(text) or ([text] if len(text) == 10 and text.isdecimal() else [])  # noqa: PLR2004  (a lost zero)
        numbers += inside
        whole += len(inside) == 1 and len(text) - len(inside[0]) <= 1
    seen = weigh(numbers, today=today)
    if not seen.log_ratio:
        return None
    confidence = _confidence(_PRIOR[hint("fodselsnummer", column)], seen.log_ratio)
    return Judgement(
        "fodselsnummer", confidence, round(seen.people), len(texts), whole < _MOSTLY * len(numbers), dict(seen.kinds)
    )


def _signed(kind: Kind, sign: Sign, column: str, texts: list[str]) -> Judgement | None:
    said = hint(kind, column)
    if said < (1 if sign.needs_name else 0):
        return None
    check: Any = sign.check
    looked = matched = whole = 0
    for text in texts:
        found = (
            list(sign.pattern.finditer(text)) if kind != "name" else [m for m in [sign.pattern.fullmatch(text)] if m]
        )
        right = [m for m in found if (check is None or check(m[0])) and (kind != "name" or said > 0 or is_name(m[0]))]
        looked += len(found) if check is not None else 1
        matched += bool(right)
        whole += any(len(m[0]) == len(text) for m in right)
    if not matched:
        return None
    chance = max(looked * sign.chance, sign.chance)
    if matched <= chance:
        return None
    ratio = matched * math.log(matched / chance) - (matched - chance)
    confidence = _confidence(_PRIOR_KNOWN[said], ratio)
    return Judgement(kind, confidence, matched, len(texts), whole < _MOSTLY * matched)


def _confidence(prior: float, log_ratio: float) -> float:
    odds = math.log(prior / (1 - prior)) + log_ratio
    return round(1 / (1 + math.exp(-min(max(odds, -30.0), 30.0))), 3)


def _texts(value: Any) -> Iterator[str]:
    if value is None or isinstance(value, bool | bytes | bytearray | memoryview | float):
        return
    if isinstance(value, str):
        text = value.strip()[:_LONGEST]
        if text:
            yield text
    elif isinstance(value, int | decimal.Decimal):
        yield str(value)
    elif isinstance(value, dt.date):
        yield value.isoformat()[:10]
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    else:
        yield str(value)[:_LONGEST]
