"""What was asked under a key, as check digits."""

import datetime as dt
import ipaddress
import random
import uuid
from decimal import Decimal

import pytest

from datavern.contracts.errors import IdempotencyKeyReused
from datavern.engines.idempotency import WORK, asked, count_of, mark_of

STATEMENT = "UPDATE cases SET state = 'closed' WHERE id = $1"
LAST = 1 << 24
RELEASED = (6670482, 6670338, 575628, 6670525)


def test_released_digits_are_the_same_for_ever():
    """They lie in tables that other versions read: a change here makes every repetition an error."""
    day = dt.date(2026, 3, 2)
    assert asked("key", STATEMENT, [1]) == RELEASED[0]
    values = [None, True, -7, 1.5, "æøå \ud800 \"'", b"\0\xff", day, Decimal("1.50"), [1, [2]], {"b": 1, "a": None}]
    assert asked("key", STATEMENT, values) == RELEASED[1]
    moment = dt.datetime(2026, 3, 2, 12, 30, 1, 5, tzinfo=dt.UTC)
    others = [moment, moment.replace(tzinfo=None), dt.time(1, 2), dt.timedelta(1, 2, 3), uuid.UUID(int=7)]
    assert asked("nøkkel", "", {"x": others, "y": ipaddress.ip_address("::1")}) == RELEASED[2]
    assert asked("key", STATEMENT, ["x" * 100_000]) == RELEASED[3]


def test_what_differs_is_told_apart():
    base = asked("k", STATEMENT, [1, "a"])
    for values in ([1, "b"], [2, "a"], [1], [1, "a", None], ["1", "a"], [[1, "a"]], {"1": "a"}, [1, b"a"]):
        assert asked("k", STATEMENT, values) != base
        assert (asked("k", STATEMENT, values) - 1) >> 8 == (base - 1) >> 8
    assert (asked("k", STATEMENT + " AND true", [1, "a"]) - 1) >> 8 != (base - 1) >> 8
    assert asked("l", STATEMENT, [1, "a"]) != base
    long = "x" * 200_000
    assert len({asked("k", STATEMENT, [v]) for v in (long, long + "x", "y" + long[1:], long[1:] + "y")}) == 4


def test_what_says_the_same_is_the_same():
    base = asked("k", "SELECT  1\n WHERE\ttrue", (1, dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)))
    other = dt.datetime(2026, 1, 1, 13, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    assert asked("k", "SELECT 1 WHERE true ", [1, other]) == base
    assert asked("k", "", {"a": 1, "b": 2}) == asked("k", "", {"b": 2, "a": 1})
    assert asked("k", "", [object()]) == asked("k", "", [object()])  # nobody knows how to compare them


def test_a_value_is_not_found_by_its_digits():
    """Many values have the digits of one: who holds the table and knows the rest is left with a 256th of them."""
    number = 10915596784
    of_number = asked("key", STATEMENT, [number])
    same = sum(asked("key", STATEMENT, [n]) == of_number for n in range(number, number + 20_000))
    assert 40 < same < 120
    assert len({asked(f"{n}", STATEMENT, [number]) for n in range(50)}) > 45  # nor are two rows known for the same


@pytest.mark.parametrize(
    "given",
    ["text", b"bytes", 7, None, object(), [object], [{1: 1, "a": 2}], [memoryview(b"abcd")[::2]], iter([1]), [10**400]],
)
def test_what_no_engine_takes_is_no_concern_here(given):
    assert 1 <= asked("k", STATEMENT, given) <= LAST
    assert 1 <= asked("k", None, given) <= LAST


def test_a_list_in_itself_ends():
    endless = []
    endless.append(endless)
    assert 1 <= asked("k", STATEMENT, endless) <= LAST


def test_an_iterator_is_left_alone():
    given = iter([1, 2])
    asked("k", STATEMENT, given)
    assert list(given) == [1, 2]


def test_no_digits_are_those_of_a_transaction():
    random.seed(1)
    assert all(asked(f"{random.random()}", STATEMENT, [1]) > WORK for _ in range(1000))


def test_keys_of_an_earlier_version_are_as_they_were():
    assert count_of((3, None), 5, provider="main") == 3
    assert count_of((0, None), 5, provider="main") == 0
    assert mark_of((0, None), provider="main") == 0
    assert mark_of((-9, None), provider="main") == 9
    with pytest.raises(IdempotencyKeyReused):
        count_of((-3, None), 5, provider="main")
    with pytest.raises(IdempotencyKeyReused):
        mark_of((3, None), provider="main")
