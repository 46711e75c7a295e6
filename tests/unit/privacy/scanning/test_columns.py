"""What columns seem to hold: people found among what passes every check, and decoys left alone."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from decimal import Decimal

import pytest

from datavern.contracts.identity import control_digits, fodselsnummer
from datavern.privacy.scanning.columns import judge
from datavern.privacy.scanning.kinds import hint, is_iban, numbers_in

TODAY = dt.date(2026, 11, 28)
OFFSETS = {"fodselsnummer": (0, 0), "d-number": (40, 0), "h-number": (0, 40), "tenor": (0, 80), "npid": (0, 20),
           "npid-synthetic": (0, 60)}  # fmt: skip
KINDS = [*OFFSETS, "2032"]


class Makes:
    """Numbers of every sort, the same for the same seed. All pass the date and both control digits."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.banks = [f"{self.random.randrange(10_000):04}" for _ in range(300)]

    def whole(self, nine: Callable[[], str]) -> str:
        while True:
            start = nine()
            control = control_digits(start)
            if control is not None and fodselsnummer(start + control):
                return start + control

    def person(self, kind: str) -> str:
        if kind == "2032":
            return self.of_2032()
        day, month = OFFSETS[kind]

        def nine() -> str:
            born = dt.date(1935, 1, 1) + dt.timedelta(days=self.random.randrange(32_000))
            individual = self.random.randrange(500) + (500 if born.year >= 2000 else 0)
            return f"{born.day + day:02}{born.month + month:02}{born.year % 100:02}{individual:03}"

        return self.whole(nine)

    def of_2032(self) -> str:
        while True:
            born = dt.date(1960, 1, 1) + dt.timedelta(days=self.random.randrange(32_000))
            nine = f"{born.day:02}{born.month:02}{born.year % 100:02}{self.random.randrange(1000):03}"
            for last in range(100):
                found = fodselsnummer(f"{nine}{last:02}")
                if found is not None and found.rule == "2032":
                    return found.number

    def account(self) -> str:
        return self.whole(lambda: f"{self.random.choice(self.banks)}{self.random.randrange(100_000):05}")

    def any_account(self) -> str:
        return self.whole(lambda: f"{self.random.randrange(10**9):09}")

    def timestamp(self) -> str:
        def nine() -> str:
            start = dt.datetime(2016, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=self.random.randrange(340_000_000))
            return f"{start:%d%m%y%H%M}"[:9]

        return self.whole(nine)

    def order(self) -> str:
        def nine() -> str:
            day = dt.date(2021, 1, 1) + dt.timedelta(days=self.random.randrange(1800))
            return f"{day:%d%m%y}{self.random.randrange(400):03}"

        return self.whole(nine)

    def phone(self) -> str:
        return self.whole(lambda: f"047{self.random.choice('12')}{self.random.randrange(10**5):05}")

    def serial(self) -> str:
        return self.whole(lambda: f"2606{self.random.randrange(10**5):05}")


DECOYS = ("account", "any_account", "timestamp", "order", "phone", "serial")


def found(values: list[object], column: str = "c17") -> bool:
    return any(j.kind == "fodselsnummer" and j.confidence >= 0.5 for j in judge(column, values, today=TODAY))


def test_people_among_decoys_that_pass_every_check() -> None:
    """The figure: recall ≥ 0.99 and precision ≥ 0.95, per column, for every kind of number."""
    make = Makes(20261128)
    decoys = {name: [getattr(make, name)() for _ in range(10_000)] for name in DECOYS}
    right = wrong = missed = 0
    for kind in KINDS:
        people: list[object] = [make.person(kind) for _ in range(1_000)]
        for column in (people, [int(str(p)) for p in people], [f"{p[:6]} {p[6:]}" for p in map(str, people)],
                       [f"ring {p} om saken" for p in people]):  # fmt: skip
            right, missed = right + found(column), missed + (not found(column))
        mixed: list[object] = [*people, *(number for name in DECOYS for number in decoys[name][:1_700])]
        make.random.shuffle(mixed)
        right, missed = right + found(mixed), missed + (not found(mixed))
    for name in DECOYS:
        for size in (100, 1_000, 10_000):
            wrong += found(list(decoys[name][:size]))
            wrong += found([int(number) for number in decoys[name][:size]])
    assert right / (right + missed) >= 0.99
    assert right / (right + wrong) >= 0.95


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 3, 30])
def test_few_people(kind: str, count: int) -> None:
    make = Makes(count)
    assert found([make.person(kind) for _ in range(count)])


@pytest.mark.parametrize("count", [30, 300, 3_000])
def test_numbers_of_nobody(count: int) -> None:
    """As they come: few pass by accident, and the accident is reckoned with."""
    numbers = random.Random(count)
    assert not found([f"{numbers.randrange(10**11):011}" for _ in range(count)])
    assert not found([numbers.randrange(10**11) for _ in range(count)])
    assert not found([20_261_100_000 + i for i in range(count)])
    assert not found([1_795_000_000_000 + 1000 * i for i in range(count)])


def test_the_name_of_a_column_counts() -> None:
    number = ["13097248022"]
    (neutral,) = judge("c1", number, today=TODAY)[:1]
    (said,) = judge("fødselsnummer", number, today=TODAY)[:1]
    other = judge("kontonummer", number, today=TODAY)
    assert said.confidence > 0.99 > neutral.confidence > 0.5
    assert next(j for j in other if j.kind == "fodselsnummer").confidence < 0.5


@pytest.mark.parametrize(
    ("kind", "column", "values"),
    [
        ("email", "x", ["kari@example.no", "ola.nordmann@epost.example.org"]),
        ("email", "x", ["skriv til kari@example.no innen fredag", "intet nytt", None]),
        ("account number", "x", ["8601.11.17947"] * 5),
        ("organisation number", "x", ["988077917"] * 4),
        ("iban", "x", ["NO93 8601 1117 947", "NO9386011117947"]),
        ("phone", "Mobil-nr", ["+47 01 23 45 67", "01234567"]),
        ("phone", "tlf", [1234567, 12345678]),
        ("address", "x", ["Storgata 1", "Bjørkeveien 12 B", "Ávjovárgeaidnu 3"]),
        ("ip address", "x", ["192.0.2.1", "198.51.100.7"]),
        ("name", "x", ["Kari Nordmann", "Ole Hansen", "Máret Eira", "Håkon Sæther"]),
        ("name", "fornavn", ["Zxyv", "Qwert"]),
        ("birth date", "fødselsdato", [dt.date(1972, 9, 13), dt.date(2001, 1, 1)]),
        ("birth date", "birth_date", ["1972-09-13"]),
    ],
)
def test_kinds(kind: str, column: str, values: list[object]) -> None:
    judged = judge(column, values, today=TODAY)
    assert judged
    assert judged[0].kind == kind
    assert judged[0].confidence >= 0.5


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("x", []),
        ("x", [None, "", "   "]),
        ("x", [True, 1.5, b"\x00\xff", Decimal("12.50")]),
        ("version", ["10.0.0.1", "10.0.0.2"]),
        ("filename", ["rapport.pdf", "bilde.png"]),
        ("title", ["Årsmelding", "Budsjett for neste år", "Møte om skolevei"]),
        ("created", [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)] * 9),
        ("amount", list(range(100_000, 100_200))),
        ("id", ["01a2225b-5aa2-70de-9847-55beb20edab2"] * 3),
        ("x", ["'; DROP TABLE users; --"]),
    ],
)
def test_what_is_nothing(column: str, values: list[object]) -> None:
    assert [j for j in judge(column, values, today=TODAY) if j.confidence >= 0.5] == []


def test_a_lost_zero_is_known_of() -> None:
    make = Makes(1)
    numbers = [int(n) for n in (make.person("fodselsnummer") for _ in range(300)) if n.startswith("0")]
    assert found(list(numbers))


def test_names_of_columns() -> None:
    assert hint("email", "customerEmail") == 1
    assert hint("fodselsnummer", "FØDSELS_NR") == 1
    assert hint("fodselsnummer", "konto_nr") == -1
    assert hint("name", "file_name") == -1
    assert hint("phone", "c1") == 0


def test_numbers_within_texts() -> None:
    assert numbers_in("født 130972 48022, konto 8601.11.17947, 130972-48022.") == ["13097248022", "13097248022"]
    assert numbers_in("123456789012 1309724802 x13097248022 13097248022,5 +13097248022") == []


def test_iban() -> None:
    assert is_iban("NO9386011117947")
    assert not is_iban("NO9386011117948")


def test_a_judgement_holds_no_value() -> None:
    make = Makes(3)
    numbers = [make.person("tenor") for _ in range(20)]
    assert not any(number in repr(judge("c", list(numbers), today=TODAY)) for number in numbers)
