"""A row, with what tells of it, under conditions: all of it or nothing, in one go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConstraintViolated
from datavern.testing.contract.base import Contract, asks
from datavern.testing.contract.errors import PLANTED, nothing_planted
from datavern.testing.contract.speech import Speech

__all__ = ["GuardedContract"]


class Told:
    """An entry of the plainest kind: a row of a table ``told``."""

    def __init__(self, sql: Speech, id_: str) -> None:
        self._sql = sql
        self.id = id_

    def statement(self, provider: Any, *, source: str | None = None) -> tuple[str, list[Any]]:  # noqa: ARG002  (as Entry)
        """As `datavern.contracts.fused.Entry` has it."""
        values = "VALUES ($1)" if source is None else f"SELECT $1 FROM {source}"
        text = f"INSERT INTO told (id) {values}"
        return self._sql(text), [self.id]


class GuardedContract(Contract):
    """Inserts that stand under conditions."""

    capability: ClassVar[str | None] = "guarded"

    @pytest_asyncio.fixture(loop_scope="function")
    async def stores(self, provider: Any, sql: Speech) -> Any:
        """The provider, with a store, what tells of its rows, and keys to ask for."""
        await provider.execute(sql("CREATE TABLE people (id {integer} PRIMARY KEY, name {text} UNIQUE, n {integer})"))
        await provider.execute(sql("CREATE TABLE told (id {text} PRIMARY KEY)"))
        await provider.execute(sql("CREATE TABLE keys (id {text} PRIMARY KEY, state {text})"))
        await provider.execute_many(
            sql("INSERT INTO keys VALUES ($1, $2)"), [("living", "living"), ("other", "living"), ("dead", "dead")]
        )
        return provider

    async def insert(self, provider: Any, sql: Speech, id_: int, *keys: str, **more: Any) -> Any:
        """A person of that id, if all of those keys live."""
        text = sql("SELECT id FROM keys WHERE id = $1 AND state = $2")
        guards: Sequence[Any] = [(text, [key, "living"]) for key in keys]
        row = {"id": id_, "name": f"n{id_}", **more}
        return await needs(provider, "guarded").insert("people", row, guards=guards, audit=Told(sql, f"t{id_}"))

    async def there(self, provider: Any, sql: Speech) -> tuple[set[str], set[str]]:
        """What was written, and what tells of it."""
        rows = await provider.query(sql("SELECT id FROM people"))
        told = await provider.query(sql("SELECT id FROM told"))
        return {f"t{row[0]}" for row in rows}, {row[0] for row in told}

    async def test_where_every_condition_holds_all_of_it_is_written(self, stores: Any, sql: Speech) -> None:
        assert await self.insert(stores, sql, 1) is True
        assert await self.insert(stores, sql, 2, "living") is True
        assert await self.insert(stores, sql, 3, "living", "other") is True
        assert await self.insert(stores, sql, 4, "living", name=None, n=7) is True
        assert await self.there(stores, sql) == ({"t1", "t2", "t3", "t4"},) * 2
        row = await stores.query_one(sql("SELECT name, n FROM people WHERE id = 4"))
        assert tuple(row) == (None, 7)

    @pytest.mark.parametrize(
        "keys", [("dead",), ("nobody",), ("living", "dead"), ("dead", "living"), ("'; DROP TABLE people; --",)]
    )
    async def test_where_one_does_not_nothing_is(self, stores: Any, sql: Speech, keys: tuple[str, ...]) -> None:
        assert await self.insert(stores, sql, 1, *keys) is False
        assert await self.there(stores, sql) == (set(), set())
        assert await self.insert(stores, sql, 1, "living") is True

    async def test_values_are_values(self, stores: Any, sql: Speech) -> None:
        odd = "'; DROP TABLE people; --\" blåbær ? $1 %s"
        assert await self.insert(stores, sql, 1, "living", name=odd) is True
        assert await stores.query_value(sql("SELECT name FROM people WHERE id = 1")) == odd

    async def test_a_row_that_is_refused_leaves_nothing_that_tells_of_it(self, stores: Any, sql: Speech) -> None:
        assert await self.insert(stores, sql, 1, "living", name=PLANTED) is True
        for n, name in ((2, PLANTED), (1, "other")):
            with pytest.raises(ConstraintViolated) as refused:
                await self.insert(stores, sql, n, "living", name=name)
            nothing_planted(refused.value)
        assert await self.there(stores, sql) == ({"t1"}, {"t1"})

    async def test_what_tells_of_it_is_refused_and_so_is_the_row(self, stores: Any, sql: Speech) -> None:
        await stores.execute(sql("INSERT INTO told VALUES ($1)"), ["t1"])
        with pytest.raises(ConstraintViolated):
            await self.insert(stores, sql, 1, "living")
        assert await self.there(stores, sql) == (set(), {"t1"})

    async def test_many_at_once_each_for_itself(self, stores: Any, sql: Speech) -> None:
        keys = ["living", "dead", "nobody", "other"]
        done = await asyncio.gather(*(self.insert(stores, sql, n, keys[n % 4]) for n in range(60)))
        assert done == [n % 4 in {0, 3} for n in range(60)]
        expected = {f"t{n}" for n in range(60) if n % 4 in {0, 3}}
        assert await self.there(stores, sql) == (expected, expected)

    async def test_cancelled_at_any_moment_all_of_it_or_nothing(self, stores: Any, sql: Speech) -> None:
        moments = random.Random(7)  # noqa: S311  (the same moments each time)

        async def cancelled(n: int) -> bool:
            task = asyncio.create_task(self.insert(stores, sql, n, "living"))
            for _ in range(moments.randrange(12)):
                await asyncio.sleep(0)
            task.cancel()
            try:
                return bool(await task)
            except asyncio.CancelledError:
                return False

        done = await asyncio.gather(*(cancelled(n) for n in range(50)))
        before = after = await self.there(stores, sql)
        while before is after or before != after:  # one that was cancelled may yet run, between the two reads of a look
            before, after = after, await self.there(stores, sql)
        rows, told = after
        assert {f"t{n}" for n, was in enumerate(done) if was} <= rows
        assert rows == told

    @asks("transactions")
    async def test_a_condition_is_asked_of_what_is_committed(self, stores: Any, sql: Speech) -> None:
        with pytest.raises(ZeroDivisionError):
            async with stores.transaction() as tx:
                await tx.execute(sql("UPDATE keys SET state = $1 WHERE id = $2"), ["dead", "living"])
                raise ZeroDivisionError
        assert await self.insert(stores, sql, 1, "living") is True
        async with stores.transaction() as tx:
            await tx.execute(sql("UPDATE keys SET state = $1 WHERE id = $2"), ["dead", "living"])
        assert await self.insert(stores, sql, 2, "living") is False
