"""Reads by key, gathered: each caller's own row, in few requests, on a real connection."""

from __future__ import annotations

import asyncio

import pytest
import sqlglot
from tests.waiting import until

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, DatavernError, QueryRejected
from datavern.engines.azuresql.point_reads import AzureSQLSource
from datavern.engines.azuresql.statements import Effect, effect, places


async def test_each_caller_gets_its_own_row(azuresql):
    read = needs(azuresql, "point_reads").coalesced("people", key="id", columns=["id", "name"])
    keys = [7, 3, 9999, 1, 3, 5]
    found = await asyncio.gather(*(read(key) for key in keys))
    single = [await azuresql.query_one("SELECT id, name FROM people WHERE id = @P1", [key]) for key in keys]
    assert [row and dict(row) for row in found] == [row and dict(row) for row in single]
    assert (read.keys, read.statements) == (6, 1)
    assert dict(await read(2)) == {"id": 2, "name": "Øystein"}
    assert (read.keys, read.statements) == (7, 2)
    assert azuresql.stats().in_use == 0


async def test_no_key_finds_nothing_and_disturbs_nobody(azuresql):
    read = azuresql.coalesced("people", key="name")
    found = await asyncio.gather(read("Kari"), read(None), read("O'Neil"), read("'; DROP TABLE people; --"))
    assert [row and row["id"] for row in found] == [4, None, 5, None]


NO_KEYS = ["a\0b", "\ud800", 2**70, float("nan"), [1], {"a": 1}, object()]


@pytest.mark.parametrize("key", NO_KEYS, ids=range(len(NO_KEYS)))
async def test_a_key_that_is_none_is_its_callers_own_trouble(azuresql, key):
    read = azuresql.coalesced("people", key="id", columns=["id"])
    found = await asyncio.gather(*(outcome(read(k)) for k in (1, key, 2, 9999, 3)))
    assert found == [1, QueryRejected, 2, None, 3]


async def outcome(reading):
    try:
        row = await reading
    except DatavernError as error:
        return type(error)
    return row and row["id"]


async def test_a_table_that_is_not_there_is_told_to_everybody(azuresql):
    read = azuresql.coalesced("nothing_here", key="id")
    found = await asyncio.gather(*(read(n) for n in range(3)), return_exceptions=True)
    assert [type(error) for error in found] == [QueryRejected] * 3
    assert "no such table" in str(found[0])


async def test_many_tasks_and_some_that_leave(azuresql):
    read = azuresql.coalesced("people", key="id", columns=["id"], batch_size=5)
    tasks = [asyncio.create_task(outcome(read(n % 9))) for n in range(200)]
    await asyncio.sleep(0)
    for task in tasks[::10]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    for n, got in enumerate(found):
        assert isinstance(got, asyncio.CancelledError) if n % 10 == 0 else got == (n % 9 if 1 <= n % 9 <= 7 else None)
    assert read.statements < read.keys
    await until(lambda: not azuresql.stats().in_use)


def test_a_wrong_call_is_refused(make):
    for wrong in ({"key": ""}, {"key": "id", "columns": ["name"]}, {"key": "id", "batch_size": 0}):
        with pytest.raises(ConfigurationError):
            make().coalesced("people", **wrong)


def test_what_it_sends_is_t_sql_and_only_reads(make):
    source = AzureSQLSource(make(), 'dbo.Ær "]; --', "nøk]kel", ["a b", "nøk]kel"])
    for size in (1, 2, 64):
        text = source._text(size)
        assert len(sqlglot.parse(text, dialect="tsql")) == size
        assert effect(text) is Effect.READS
        found = places(text)
        assert found is not None
        assert (found.highest, found.missing) == (size, None) or found.highest == size
