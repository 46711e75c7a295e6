"""Statements one by one: query, query_one, query_value, execute, execute_many."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from datavern.contracts.errors import ConstraintViolated, QueryRejected
from datavern.testing.contract.base import Contract, asks
from datavern.testing.contract.speech import Speech

__all__ = ["PEOPLE", "SessionContract", "make_people"]

PEOPLE = [(1, "Åse", "Norway"), (2, "Øystein", "Norway"), (3, "Ægir", "Ísland")]

VALUES = [
    pytest.param("text", "blåbærsyltetøy", id="letters"),
    pytest.param("text", "😀 \u200d \U0010ffff", id="beyond the basic plane"),
    pytest.param("text", "", id="empty text"),
    pytest.param("text", "'; DROP TABLE people; --", id="a statement"),
    pytest.param("text", "line\nline\r\n\ttab\\ %s $1 ? :x", id="placeholders"),
    pytest.param("text", "x" * 1_000_000, id="a million characters"),
    pytest.param("bytes", b"\x00\xff\x00 bytes", id="bytes"),
    pytest.param("bytes", b"", id="no bytes"),
    pytest.param("bigint", 2**63 - 1, id="largest"),
    pytest.param("bigint", -(2**63), id="smallest"),
    pytest.param("bigint", 0, id="zero"),
    pytest.param("real", 0.1, id="a tenth"),
    pytest.param("real", -1e308, id="a large double"),
    pytest.param("text", None, id="nothing"),
]


async def make_people(provider: Any, sql: Speech) -> Any:
    """The provider, with a table of three people in its database."""
    await provider.execute(sql("CREATE TABLE people (id {integer} PRIMARY KEY, name {text} UNIQUE, country {text})"))
    await provider.execute_many(sql("INSERT INTO people (id, name, country) VALUES ($1, $2, $3)"), PEOPLE)
    return provider


async def count(provider: Any, sql: Speech) -> Any:
    """How many people there are."""
    return await provider.query_value(sql("SELECT count(*) FROM people"))


class SessionContract(Contract):
    """Statements, each in a transaction of its own."""

    capability: ClassVar[str | None] = "session"

    @pytest_asyncio.fixture(loop_scope="function")
    async def people(self, provider: Any, sql: Speech) -> Any:
        """The provider, with three people."""
        return await make_people(provider, sql)

    # ---- rows -------------------------------------------------------------------------------------------------------

    async def test_a_row_answers_by_name_and_by_position_and_makes_a_dict(self, people: Any, sql: Speech) -> None:
        rows = await people.query(sql("SELECT id, name FROM people WHERE country = $1 ORDER BY id"), ["Norway"])
        assert [row["name"] for row in rows] == ["Åse", "Øystein"]
        assert rows[0][0] == 1
        assert dict(rows[0]) == {"id": 1, "name": "Åse"}
        assert list(rows[0].keys()) == ["id", "name"]
        assert len(rows[0]) == 2
        assert list(rows[0]) == [1, "Åse"]

    async def test_no_rows_are_an_empty_sequence_and_none(self, people: Any, sql: Speech) -> None:
        assert list(await people.query(sql("SELECT * FROM people WHERE id = $1"), [9])) == []
        assert await people.query_one(sql("SELECT * FROM people WHERE id = $1"), [9]) is None
        assert await people.query_value(sql("SELECT name FROM people WHERE id = $1"), [9]) is None

    async def test_query_one_and_query_value_take_the_first(self, people: Any, sql: Speech) -> None:
        row = await people.query_one(sql("SELECT id, name FROM people ORDER BY id DESC"))
        assert dict(row) == {"id": 3, "name": "Ægir"}
        assert await people.query_value(sql("SELECT name, id FROM people ORDER BY id")) == "Åse"
        assert await people.query_value(sql("SELECT NULL")) is None

    # ---- changes ----------------------------------------------------------------------------------------------------

    async def test_execute_tells_how_many_rows_were_changed(self, people: Any, sql: Speech) -> None:
        insert, update = "INSERT INTO people VALUES ($1, $2, $3)", "UPDATE people SET country = $1 WHERE country = $2"
        assert await people.execute(sql(insert), [4, "Kari", "Norway"]) == 1
        assert await people.execute(sql(update), ["Noreg", "Norway"]) == 3
        assert await people.execute(sql("UPDATE people SET country = 'x' WHERE id = 77")) == 0
        assert await people.execute(sql("DELETE FROM people WHERE id > 3")) == 1
        assert await people.execute(sql("DELETE FROM people")) == 3
        assert await people.execute(sql("CREATE TABLE other (id {integer})")) == 0
        assert await people.execute(sql("DROP TABLE other")) == 0

    @asks("insert select")
    async def test_execute_counts_what_a_select_inserts(self, people: Any, sql: Speech) -> None:
        insert = sql("INSERT INTO people SELECT id + 10, name || '+', country FROM people")
        assert await people.execute(insert) == 3
        assert await people.execute(sql("DELETE FROM people WHERE id > 10")) == 3

    @asks("with", "insert select")
    async def test_execute_counts_what_a_with_clause_changes(self, people: Any, sql: Speech) -> None:
        statement = (
            "WITH m AS (SELECT id + 10 AS id, name FROM people) INSERT INTO people (id, country) SELECT id, name FROM m"
        )
        assert await people.execute(sql(statement)) == 3
        assert await count(people, sql) == 6

    @asks("returning")
    async def test_execute_counts_rows_that_are_returned_and_not_read(self, people: Any, sql: Speech) -> None:
        assert await people.execute(sql("UPDATE people SET country = 'x' RETURNING id")) == 3

    @asks("returning")
    async def test_a_change_that_returns_rows_is_kept(self, people: Any, sql: Speech) -> None:
        insert = sql("INSERT INTO people VALUES ($1, $2, $3), ($4, $5, $6) RETURNING id")
        rows = await people.query(insert, [7, "a", "b", 8, "c", "d"])
        assert [row["id"] for row in rows] == [7, 8]
        one = await people.query_one(sql("UPDATE people SET name = $1 WHERE id = $2 RETURNING name"), ["New", 7])
        assert one["name"] == "New"
        assert await people.query_value(sql("DELETE FROM people WHERE id = 8 RETURNING name")) == "c"
        assert await count(people, sql) == 4

    @asks("returning", "with", "insert select")
    async def test_a_with_clause_that_returns_rows_is_kept(self, people: Any, sql: Speech) -> None:
        insert = sql("WITH x AS (SELECT 20 AS id) INSERT INTO people (id, name) SELECT id, 'w' FROM x RETURNING id")
        assert await people.query_value(insert) == 20
        assert await count(people, sql) == 4

    async def test_execute_many_runs_every_set_or_none(self, people: Any, sql: Speech) -> None:
        insert = sql("INSERT INTO people VALUES ($1, $2, $3)")
        assert await people.execute_many(insert, [(n, f"n{n}", "x") for n in range(10, 60)]) == 50
        assert await people.execute_many(insert, []) == 0
        with pytest.raises(ConstraintViolated):
            await people.execute_many(insert, [(100, "new", "x"), (101, "newer", "x"), (1, "again", "x")])
        with pytest.raises(QueryRejected):
            await people.execute_many(insert, [(100, "new", "x"), (101, "newer")])
        assert await count(people, sql) == 53

    # ---- values and names -------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("kind", "value"), VALUES)
    async def test_a_value_comes_back_as_it_went_in(self, provider: Any, sql: Speech, kind: str, value: Any) -> None:
        await provider.execute(sql("CREATE TABLE kept (v {" + kind + "})"))
        await provider.execute(sql("INSERT INTO kept VALUES ($1)"), [value])
        found = await provider.query_value(sql("SELECT v FROM kept"))
        assert found == value
        assert type(found) is type(value)

    @asks("quoted names")
    async def test_names_with_quotes_and_letters_are_only_names(self, provider: Any, sql: Speech) -> None:
        table = '"\'; DROP TABLE people; --"'
        await provider.execute(sql(f'CREATE TABLE {table} ("blå ""bær""" {{integer}})'))
        await provider.execute(sql(f"INSERT INTO {table} VALUES ($1)"), [3])
        row = await provider.query_one(sql(f"SELECT * FROM {table}"))
        assert dict(row) == {'blå "bær"': 3}

    @asks("alter")
    async def test_a_new_column_is_seen_by_a_statement_that_ran_before(self, people: Any, sql: Speech) -> None:
        star = sql("SELECT * FROM people WHERE id = 1")
        assert "email" not in dict(await people.query_one(star))
        await people.execute(sql("ALTER TABLE people ADD COLUMN email {text}"))
        assert dict(await people.query_one(star))["email"] is None

    # ---- many at once -----------------------------------------------------------------------------------------------

    async def test_fifty_tasks_at_once_each_get_their_own_answer(self, people: Any, sql: Speech) -> None:
        select = sql("SELECT name FROM people WHERE id = $1")
        insert = sql("INSERT INTO people VALUES ($1, $2, $3)")

        async def work(n: int) -> None:
            for i in range(5):
                key = 1000 + n * 5 + i
                await people.execute(insert, [key, f"name {key}", "x"])
                assert await people.query_value(select, [key]) == f"name {key}"

        await asyncio.gather(*(work(n) for n in range(50)))
        assert await count(people, sql) == 253

    async def test_a_failure_among_many_is_its_callers_alone(self, people: Any, sql: Speech) -> None:
        insert = sql("INSERT INTO people VALUES ($1, $2, $3)")
        results = await asyncio.gather(
            *(people.execute(insert, [100 + n // 2, f"n{n}", "x"]) for n in range(60)), return_exceptions=True
        )
        kept = [r for r in results if r == 1]
        refused = [r for r in results if isinstance(r, ConstraintViolated)]
        assert (len(kept), len(refused)) == (30, 30)
        assert await count(people, sql) == 33
