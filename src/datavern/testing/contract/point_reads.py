"""Rows by key, read by many tasks at once."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, DatavernError
from datavern.testing.contract.base import Contract, asks
from datavern.testing.contract.errors import PLANTED, nothing_planted
from datavern.testing.contract.speech import Speech

__all__ = ["PointReadsContract"]

ROWS = 100


class PointReadsContract(Contract):
    """What `PointReads.coalesced` gives is what the statement for one key gives, however many ask at once."""

    capability: ClassVar[str | None] = "point_reads"

    @pytest_asyncio.fixture(loop_scope="function")
    async def people(self, provider: Any, sql: Speech) -> Any:
        """The provider, with a hundred people."""
        await provider.execute(sql("CREATE TABLE people (id {integer} PRIMARY KEY, name {text}, country {text})"))
        rows = [(n, f"name {n}", "Norge" if n % 2 else None) for n in range(ROWS)]
        await provider.execute_many(sql("INSERT INTO people VALUES ($1, $2, $3)"), rows)
        return provider

    def read(self, provider: Any, **options: Any) -> Any:
        """A read of people by id."""
        return needs(provider, "point_reads").coalesced("people", **{"key": "id", **options})

    async def test_each_caller_gets_its_own_row(self, people: Any, sql: Speech) -> None:
        read = self.read(people, columns=["name", "id"])
        keys = [7, 3, 9999, 99, 3, None, 0]
        rows = await asyncio.gather(*(read(key) for key in keys))
        single = [
            None if key is None else await people.query_one(sql("SELECT name, id FROM people WHERE id = $1"), [key])
            for key in keys
        ]
        assert [None if row is None else dict(row) for row in rows] == [
            None if row is None else dict(row) for row in single
        ]
        assert (rows[0][0], rows[0]["name"], list(rows[0].keys())) == ("name 7", "name 7", ["name", "id"])

    async def test_all_columns_where_none_is_named(self, people: Any) -> None:
        row = await self.read(people)(4)
        assert dict(row) == {"id": 4, "name": "name 4", "country": None}

    @pytest.mark.parametrize("batch_size", [1, 3, 1000])
    async def test_many_at_once_in_batches_of_any_size(self, people: Any, batch_size: int) -> None:
        read = self.read(people, columns=["id"], batch_size=batch_size)
        rows = await asyncio.gather(*(read(n % (ROWS + 5)) for n in range(400)))
        assert [None if row is None else row[0] for row in rows] == [
            n % (ROWS + 5) if n % (ROWS + 5) < ROWS else None for n in range(400)
        ]
        assert read.keys == 400
        assert 0 < read.statements <= 400

    async def test_a_key_that_cannot_be_is_its_callers_own_trouble(self, people: Any, sql: Speech) -> None:
        async def outcome(asked: Any) -> Any:
            try:
                row = await asked
            except DatavernError as error:
                nothing_planted(error)
                return type(error)
            return None if row is None else dict(row)

        read = self.read(people, columns=["id"])
        for key in (PLANTED, object(), {PLANTED}, 2**70, "a\0b"):
            alone = await outcome(people.query_one(sql("SELECT id FROM people WHERE id = $1"), [key]))
            found = await asyncio.gather(*(outcome(read(k)) for k in (1, key, 2, 9999, 3)))
            assert found == [{"id": 1}, alone, {"id": 2}, None, {"id": 3}]

    async def test_what_was_committed_before_the_call_is_seen(self, people: Any, sql: Speech) -> None:
        read = self.read(people, columns=["name", "id"])
        for n in range(20):
            others = [asyncio.create_task(read(key)) for key in (1, 2)]
            await people.execute(sql("UPDATE people SET name = $1 WHERE id = 1"), [f"new {n}"])
            assert (await read(1))[0] == f"new {n}"
            await asyncio.gather(*others)

    async def test_a_cancelled_call_leaves_the_others_alone(self, people: Any) -> None:
        read = self.read(people, columns=["id"])
        for turns in range(12):
            calls = [asyncio.create_task(read(key)) for key in range(30)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for call in calls[::3]:
                call.cancel()
            done: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
            for key, row in enumerate(done):
                if key % 3 or not isinstance(row, asyncio.CancelledError):
                    assert row[0] == key
        assert (await read(5))[0] == 5

    async def test_what_cannot_be_read_is_refused(self, people: Any) -> None:
        wrong: dict[str, Any]
        for wrong in ({"key": ""}, {"columns": []}, {"columns": ["name"]}, {"columns": "id"}, {"batch_size": 0}):
            with pytest.raises(ConfigurationError):
                self.read(people, **wrong)
        no_table: Any
        for no_table in ("", None):
            with pytest.raises(ConfigurationError):
                needs(people, "point_reads").coalesced(no_table, key="id")
        for wrong in ({"key": "nothing_here"}, {"columns": ["id", "nothing_here"]}):
            with pytest.raises(DatavernError):
                await self.read(people, **wrong)(1)

    @asks("quoted names")
    async def test_names_stand_for_themselves(self, provider: Any, sql: Speech) -> None:
        await provider.execute(sql('CREATE TABLE "Ær lig" ("Nøk kel" {integer} PRIMARY KEY, "order" {text})'))
        await provider.execute(sql('INSERT INTO "Ær lig" VALUES ($1, $2)'), [1, "x"])
        reads: Any = needs(provider, "point_reads")
        read = reads.coalesced("Ær lig", key="Nøk kel", columns=["Nøk kel", "order"])
        assert dict(await read(1)) == {"Nøk kel": 1, "order": "x"}
