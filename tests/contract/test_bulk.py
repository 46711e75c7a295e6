"""Rows in bulk on a named Azure SQL: the one engine with `bulk_insert`, and the one that installs nowhere."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal

import pytest

from datavern.contracts.errors import ConstraintViolated, QueryRejected

pytestmark = [
    pytest.mark.not_on("sqlite", "execute_many is as quick: one transaction, prepared once"),
    pytest.mark.not_on("postgresql", "it has copy_in"),
]
TABLE = """
CREATE TABLE kept (
    id int PRIMARY KEY, name nvarchar(50) COLLATE Latin1_General_100_BIN2, code varchar(10), note nvarchar(max),
    data varbinary(max), amount decimal(12, 2) CONSTRAINT positive CHECK (amount > 0), size float, yes bit,
    day date, at datetime2(6), zoned datetimeoffset(6), who uniqueidentifier, made datetime2 DEFAULT sysdatetime()
)
"""
NAMES = ["id", "name", "code", "note", "data", "amount", "size", "yes", "day", "at", "zoned", "who"]
MOMENT = dt.datetime(2026, 5, 6, 7, 8, 9, 10, tzinfo=dt.timezone(dt.timedelta(hours=2)))


def row(number: int) -> tuple:
    return (
        number, f"blåbær {number} 😀", "abc", "x" * 5000, bytes([number % 256]) * 300, Decimal("12.34"), 0.1, True,
        MOMENT.date(), MOMENT.replace(tzinfo=None), MOMENT, uuid.UUID(int=number),
    )  # fmt: skip


@pytest.fixture
async def kept(provider):
    await provider.execute(TABLE)
    return provider


async def test_what_goes_in_comes_out(kept):
    rows = [row(n) for n in range(12_000)] + [(12_000, *[None] * (len(NAMES) - 1))]
    assert await kept.bulk_insert("kept", NAMES, rows) == 12_001
    listed = ", ".join(NAMES)
    found = await kept.query(f"SELECT {listed} FROM kept WHERE id IN (0, 11999, 12000) ORDER BY id")
    assert [tuple(one) for one in found] == [rows[0], rows[11_999], rows[12_000]]
    assert await kept.query_value("SELECT count(*) FROM kept WHERE made IS NULL") == 0


async def test_all_or_none(kept):
    rows = [row(n) for n in range(7000)]
    with pytest.raises(ConstraintViolated):
        await kept.bulk_insert("kept", NAMES, [*rows, row(0)])
    with pytest.raises(ConstraintViolated) as refused:
        await kept.bulk_insert("kept", NAMES, [*rows, (*row(7000)[:5], Decimal(-1), *row(7000)[6:])])
    assert refused.value.constraint == "positive"
    with pytest.raises(ZeroDivisionError):
        await kept.bulk_insert("kept", NAMES, (row(n) for n in range(7000) if 1 / (6999 - n)))
    assert await kept.query_value("SELECT count(*) FROM kept") == 0
    async with kept.transaction() as tx:
        assert await tx.bulk_insert("kept", NAMES, [row(1)]) == 1
        with pytest.raises(ConstraintViolated):
            await tx.bulk_insert("kept", NAMES, [row(2), row(1)])
        assert await tx.bulk_insert("kept", NAMES, [row(3)]) == 1
    assert [r[0] for r in await kept.query("SELECT id FROM kept ORDER BY id")] == [1, 3]


async def test_what_the_server_converts_it_converts(kept):
    assert await kept.bulk_insert("kept", ["id", "amount", "code"], [("10", Decimal("1.239"), "åå")]) == 1
    assert tuple(await kept.query_one("SELECT id, amount FROM kept")) == (10, Decimal("1.24"))
    with pytest.raises(QueryRejected):
        await kept.bulk_insert("kept", ["id", "name"], [(1, "x" * 51)])


async def test_triggers_fire_unless_they_are_not_wanted(kept):
    await kept.execute("CREATE TABLE told (n int)")
    await kept.execute("CREATE TRIGGER tell ON kept AFTER INSERT AS INSERT INTO told SELECT id FROM inserted")
    await kept.bulk_insert("kept", NAMES, [row(1), row(2)])
    assert await kept.query_value("SELECT count(*) FROM told") == 2
    if kept.settings.driver == "python-tds":
        await kept.bulk_insert("kept", NAMES, [row(3)], triggers=False, constraints=False, lock_table=True)
        assert await kept.query_value("SELECT count(*) FROM told") == 2
