"""Synthetic people: the same ones for the same seed, on every machine and every version of Python.

Nobody here exists. The personal numbers are of the series that Skatteetaten keeps for synthetic people (Tenor: month +
80), with right control digits; the telephone numbers begin with +47 01, which the Norwegian numbering plan reserves and
gives to nobody; the mail domains are for examples. Names, streets, postcodes and municipalities are common ones, put
together at random.
"""

from __future__ import annotations

import csv
import datetime as dt
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from datavern.contracts.errors import ConfigurationError
from datavern.privacy.values.fakes import PLACES, STREETS, synthetic_number
from datavern.privacy.values.names import FAMILY, GIVEN

__all__ = ["LARGEST", "Person", "people", "read_csv", "write_csv"]


@dataclass(frozen=True, slots=True)
class Person:
    """One synthetic person.

    Attributes:
        id: "p-000001", "p-000002", … in order: an id that says nothing about anybody.
        personal_number: eleven digits, of the Tenor series; nobody else in the same sequence has it.
        name: given and family names, with æ, ø, å and the letters of Northern Sámi.
        email: ASCII; nobody else in the same sequence has it.
        phone: +47 and eight digits.
        address: street and house number.
        postcode: four digits.
        municipality: the postcode's.
        birth_date: as the personal number says.
        consent_purpose: what the person agreed to.
        consent_date: when.
    """

    id: str
    personal_number: str
    name: str
    email: str
    phone: str
    address: str
    postcode: str
    municipality: str
    birth_date: dt.date
    consent_purpose: str
    consent_date: dt.date


FIRST_BIRTH: Final = dt.date(1940, 1, 1).toordinal()
LAST_BIRTH: Final = dt.date(2010, 12, 31).toordinal()
NUMBERS_A_DAY: Final = 500
SPACE: Final = (LAST_BIRTH - FIRST_BIRTH + 1) * NUMBERS_A_DAY
LARGEST: Final = 10_000_000
"""How many people there can be: more would run out of valid personal numbers."""

FIRST_CONSENT: Final = dt.date(2023, 1, 2).toordinal()
CONSENT_DAYS: Final = 1300
PURPOSE: Final = "customer-account"
YEAR_2000: Final = dt.date(2000, 1, 1).toordinal()

FOLD: Final = str.maketrans(
    {"æ": "ae", "ø": "o", "å": "a", "á": "a", "ä": "a", "ö": "o", "č": "c", "đ": "d", "ŋ": "n", "š": "s", "ŧ": "t",
     "ž": "z", "é": "e", " ": ".", "-": "."}
)  # fmt: skip


def people(count: int, seed: int = 1) -> Iterator[Person]:
    """`count` people, one after the other, in constant memory.

    The first ones of a longer sequence are the shorter sequence: ``people(10)`` begins ``people(1000)``.

    Args:
        count: how many, at most `LARGEST`.
        seed: another number gives other people.

    Raises:
        ValueError: `count` is negative or above `LARGEST`.
    """
    if not 0 <= count <= LARGEST:
        raise ValueError(f"count is {count}: expected 0 to {LARGEST}")
    return _people(count, seed)


def _people(count: int, seed: int) -> Iterator[Person]:
    bits = random.Random(seed).getrandbits  # noqa: S311  (a seeded sequence is the purpose; nothing here is a secret)
    # (step · i + start) mod SPACE visits every day and individual number once: unique without a set that grows.
    step = SPACE // 4 + bits(64) % (SPACE // 2)
    while math.gcd(step, SPACE) != 1:
        step += 1
    at = bits(64) % SPACE
    index = 0
    while index < count:
        at = (at + step) % SPACE
        day, individual = divmod(at, NUMBERS_A_DAY)
        day += FIRST_BIRTH
        born = dt.date.fromordinal(day)
        if day >= YEAR_2000:
            individual += 500
        number = synthetic_number(born, individual)
        if number is None:
            continue
        index += 1
        yield _person(index, number, born, bits(128))


def _person(index: int, number: str, born: dt.date, draw: int) -> Person:
    """One person from 128 random bits, taken off piece by piece."""
    draw, given = divmod(draw, len(GIVEN))
    draw, family = divmod(draw, len(FAMILY))
    draw, second = divmod(draw, len(GIVEN))
    draw, form = divmod(draw, 8)
    draw, street = divmod(draw, len(STREETS))
    draw, house = divmod(draw, 120)
    draw, place = divmod(draw, len(PLACES))
    draw, phone = divmod(draw, 1_000_000)
    draw, consent = divmod(draw, CONSENT_DAYS)
    first, last = GIVEN[given], FAMILY[family]
    if form == 0 and second != given:
        first = f"{first} {GIVEN[second]}"
    elif form == 1:
        last = f"{FAMILY[(family + 1 + second) % len(FAMILY)]} {last}"
    mailbox = f"{first} {last}".lower().translate(FOLD)
    postcode, municipality = PLACES[place]
    return Person(
        id=f"p-{index:06}",
        personal_number=number,
        name=f"{first} {last}",
        email=f"{mailbox}.{index}@example.{'no' if form & 2 else 'org'}",
        phone=f"+4701{phone:06}",
        address=f"{STREETS[street]} {house + 1}",
        postcode=postcode,
        municipality=municipality,
        birth_date=born,
        consent_purpose=PURPOSE,
        consent_date=dt.date.fromordinal(FIRST_CONSENT + consent),
    )


COLUMNS: Final = tuple(f.name for f in fields(Person))


def write_csv(path: str | Path, count: int, seed: int = 1) -> None:
    """Write `count` people to `path`, with a header: UTF-8, commas, dates as ``2026-11-23``. Overwrites the file."""
    _write(Path(path), people(count, seed))


def _write(path: Path, rows: Iterable[Person]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([getattr(person, name) for name in COLUMNS] for person in rows)


def read_csv(path: str | Path) -> Iterator[Person]:
    """The people of such a file, one after the other; columns in any order, others are left alone.

    Raises:
        ConfigurationError: a column is missing, or a row does not fit; with the line's number, and no value.
    """
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise ConfigurationError(f"{Path(path).name}: missing column {', '.join(missing)}")
        at = [header.index(name) for name in COLUMNS]
        for row in rows:
            person = _read(row, at) if len(row) == len(header) else None
            if person is None:
                raise ConfigurationError(
                    f"{Path(path).name}, line {rows.line_num}: expected {len(header)} fields, and dates as YYYY-MM-DD"
                )
            yield person


def _read(row: list[str], at: list[int]) -> Person | None:
    texts = dict(zip(COLUMNS, (row[i] for i in at), strict=True))
    try:
        dates = {name: dt.date.fromisoformat(texts.pop(name)) for name in ("birth_date", "consent_date")}
    except ValueError:
        return None
    return Person(**texts, **dates)  # type: ignore[arg-type]  # the names are the dataclass's own
