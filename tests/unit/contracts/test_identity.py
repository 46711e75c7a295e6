import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datavern.contracts.identity import (
    K1,
    K2,
    control_digits,
    fodselsnummer,
    is_account_number,
    is_fodselsnummer,
    is_organisation_number,
)


def whole(nine: str, remainder: int = 0) -> str | None:
    """Nine digits made whole so that (Σ k1·d + d10) mod 11 is `remainder`; None where no digit does."""
    tenth = (remainder - sum(w * int(d) for w, d in zip(K1, nine, strict=True))) % 11
    ten = f"{nine}{tenth}"
    if tenth > 9:
        return None
    last = -sum(w * int(d) for w, d in zip(K2, ten, strict=True)) % 11
    return None if last > 9 else f"{ten}{last}"


def find(day: int, month: int, year: int, individuals: range, remainder: int = 0) -> str:
    return next(n for i in individuals if (n := whole(f"{day:02}{month:02}{year:02}{i:03}", remainder)))


@pytest.mark.parametrize(
    ("number", "kind", "born"),
    [
        ("13097248022", "fodselsnummer", dt.date(1972, 9, 13)),
        ("53097248016", "d-number", dt.date(1972, 9, 13)),
        ("10915596784", "tenor", dt.date(1955, 11, 10)),
    ],
)
def test_published_numbers(number, kind, born):
    found = fodselsnummer(number)
    assert found is not None
    assert (found.number, found.kind, found.rule, found.birth_date) == (number, kind, "today", born)


@pytest.mark.parametrize(
    "text",
    ["13097248032", "12345678901", "", "1309724802", "130972480222", "1309724802a", "13097248022x",
     "١٣٠٩٧٢٤٨٠٢٢", "1309724-8022", "130972  48022", "00000000000", "13097248022\n13097248022"],
)  # fmt: skip
def test_what_is_no_number(text):
    assert fodselsnummer(text) is None
    assert not is_fodselsnummer(text)


@pytest.mark.parametrize("text", ["130972 48022", "130972-48022", " 13097248022\n"])
def test_as_people_write_it(text):
    found = fodselsnummer(text)
    assert found is not None
    assert found.number == "13097248022"


@pytest.mark.parametrize(
    ("day", "month", "kind", "d_number", "synthetic"),
    [
        (0, 0, "fodselsnummer", False, False),
        (40, 0, "d-number", True, False),
        (0, 20, "npid", False, False),
        (0, 40, "h-number", False, None),
        (0, 60, "npid-synthetic", False, True),
        (0, 80, "tenor", False, True),
        (40, 80, "tenor", True, True),
        (40, 40, "h-number", True, None),
    ],
)
def test_series_by_offset(day, month, kind, d_number, synthetic):
    found = fodselsnummer(find(17 + day, 5 + month, 84, range(500)))
    assert found is not None
    assert (found.kind, found.d_number, found.synthetic) == (kind, d_number, synthetic)
    assert found.birth_date == dt.date(1984, 5, 17)


@pytest.mark.parametrize(
    ("year", "individuals", "born"),
    [
        (72, range(500), 1972),
        (0, range(500), 1900),
        (54, range(500, 750), 1854),
        (99, range(500, 750), 1899),
        (0, range(500, 1000), 2000),
        (39, range(500, 1000), 2039),
        (40, range(900, 1000), 1940),
        (99, range(900, 1000), 1999),
    ],
)
def test_century(year, individuals, born):
    found = fodselsnummer(find(1, 3, year, individuals))
    assert found is not None
    assert found.birth_date == dt.date(born, 3, 1)


@pytest.mark.parametrize("remainder", [1, 2, 3])
def test_rule_of_2032_infers_nothing(remainder):
    found = fodselsnummer(find(1, 3, 35, range(1000), remainder))
    assert found is not None
    assert (found.rule, found.birth_date) == ("2032", None)


@pytest.mark.parametrize("remainder", range(4, 11))
def test_other_remainders(remainder):
    assert fodselsnummer(find(1, 3, 35, range(1000), remainder)) is None


def test_an_individual_number_that_has_no_century_today_can_only_be_of_2032():
    found = fodselsnummer(find(1, 3, 60, range(750, 900)))
    assert found is not None
    assert (found.rule, found.birth_date) == ("2032", None)


@pytest.mark.parametrize(
    "date", [(31, 4, 72), (30, 2, 72), (29, 2, 73), (0, 5, 72), (32, 1, 72), (1, 13, 72), (1, 0, 72)]
)
@pytest.mark.parametrize("remainder", [0, 2])
def test_dates_are_real(date, remainder):
    assert fodselsnummer(find(*date, range(1000), remainder)) is None


def test_leap_day():
    found = fodselsnummer(find(29, 2, 72, range(500)))
    assert found is not None
    assert found.birth_date == dt.date(1972, 2, 29)
    only_later = fodselsnummer(find(29, 2, 0, range(500)))  # there was no 29 February 1900
    assert only_later is not None
    assert only_later.rule == "2032"


def test_repr_does_not_show_the_number():
    assert "13097248022" not in repr(fodselsnummer("13097248022"))


@given(st.from_regex(r"[0-9]{11}", fullmatch=True))
def test_whatever_is_valid_has_a_date_and_passes_as_an_account(text):
    found = fodselsnummer(text)
    if found is not None:
        assert is_account_number(text)
        assert (found.birth_date is None) == (found.rule == "2032")
        if found.birth_date:
            assert found.birth_date.strftime("%y") == text[4:6]


@given(st.dates(dt.date(1940, 1, 1), dt.date(1999, 12, 31)), st.integers(0, 499), st.integers(0, 10), st.integers(0, 9))
def test_one_wrong_digit_is_never_valid_today(born, individual, at, digit):
    nine = f"{born:%d%m%y}{individual:03}"
    control = control_digits(nine)
    if control is None:
        return
    right = nine + control
    found = fodselsnummer(right)
    assert found is not None
    assert (found.rule, found.birth_date) == ("today", born)
    wrong = right[:at] + str(digit) + right[at + 1 :]
    other = fodselsnummer(wrong)
    assert wrong == right or other is None or other.rule == "2032"


@pytest.mark.parametrize(("text", "valid"), [
    ("988077917", True), ("988 077 917", True), ("988077918", False), ("98807791", False), ("98807791x", False),
    ("988  077917", False), ("", False),
])  # fmt: skip
def test_organisation_numbers(text, valid):
    assert is_organisation_number(text) is valid


@pytest.mark.parametrize(("text", "valid"), [
    ("86011117947", True), ("8601.11.17947", True), ("8601 11 17947", True), ("86011117949", False),
    ("8601..1117947", False), ("", False),
])  # fmt: skip
def test_account_numbers(text, valid):
    assert is_account_number(text) is valid
