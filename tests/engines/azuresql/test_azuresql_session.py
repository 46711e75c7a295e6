"""Statements, rows, values, transactions as connections see them: against a TDS server that writes to nothing."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import enum
import pickle
import uuid

import pytest
from tests.waiting import until

from datavern.contracts.errors import ConfigurationError, ConstraintViolated, PrivacyError, QueryRejected
from datavern.engines.azuresql.rows import maker
from datavern.engines.azuresql.statements import Effect
from datavern.engines.azuresql.values import bound
from datavern.engines.azuresql.wire import Refused

PLANTED = "13097248022-PLANTED-blåbær"


# ---- rows ------------------------------------------------------------------------------------------------------------


async def test_a_row_answers_by_name_and_by_position_and_makes_a_dict(azuresql):
    rows = await azuresql.query("SELECT id, name FROM people WHERE id <= @P1 ORDER BY id", [2])
    assert [row["name"] for row in rows] == ["Åse", "Øystein"]
    assert rows[0][0] == 1
    assert rows[0][-1] == "Åse"
    assert dict(rows[0]) == {"id": 1, "name": "Åse"}
    assert list(rows[0].keys()) == ["id", "name"]
    assert (len(rows[0]), list(rows[0])) == (2, [1, "Åse"])
    assert rows[0].get("none", 5) == 5
    assert rows[0].get("name") == "Åse"
    with pytest.raises(KeyError):
        rows[0]["none"]
    assert "Åse" not in repr(rows[0])
    again = pickle.loads(pickle.dumps(rows[0]))
    assert (again["name"], again == rows[0]) == ("Åse", True)


def test_two_columns_of_one_name_are_both_there():
    row = maker(["a", "a", ""])([1, 2, 3])
    assert (row["a"], row[1], row[""], tuple(row)) == (1, 2, 3, (1, 2, 3))
    assert maker(["a", "a", ""]) is maker(("a", "a", ""))


async def test_no_rows_one_row_one_value(azuresql):
    assert list(await azuresql.query("SELECT * FROM people WHERE id = @P1", [99])) == []
    assert await azuresql.query_one("SELECT * FROM people WHERE id = @P1", [99]) is None
    assert await azuresql.query_value("SELECT name FROM people WHERE id = @P1", [99]) is None
    assert (await azuresql.query_one("SELECT name FROM people WHERE id = @P1", [4]))["name"] == "Kari"
    assert await azuresql.query_value("SELECT COUNT(*) FROM people") == 7
    assert await azuresql.query_value("SELECT NULL") is None
    assert await azuresql.execute("SELECT * FROM people") == 0


async def test_the_first_of_several_result_sets(azuresql):
    assert [tuple(r) for r in await azuresql.query("SELECT 1 AS a; SELECT 2 AS b; SELECT name FROM people")] == [(1,)]
    assert await azuresql.query_value("DECLARE @x int = 5; SELECT @x") == 5


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "blåbærsyltetøy",
        "😀 \u200d \U0010ffff",
        "",
        "'; DROP TABLE people; --",
        "100% %s %(a)s ? $1 :x @P1",
        "x" * 2001,
        "x" * 4001,
        "😀" * 2000,
        "x" * 1_000_000,
        2**63 - 1,
        -(2**63),
        2**31,
        -(2**31),
        0,
        0.1,
        -1e308,
        True,
        False,
        None,
    ],
    ids=lambda v: repr(v)[:20],
)
async def test_a_value_comes_back_as_it_went_in(azuresql, value):
    found = await azuresql.query_value("SELECT @P1 AS v", [value])
    assert found == value
    assert type(found) is type(value)


async def test_nothing_among_the_parameters(azuresql):
    """NULL is written into the text: no type of a parameter would fit every column."""
    row = await azuresql.query_one("SELECT @P1 AS a, @P2 AS b, @P3 AS c, @P2 AS d, '@P2' AS e", [None, "x", None])
    assert tuple(row) == (None, "x", None, "x", "@P2")
    assert await azuresql.query_value("SELECT COUNT(*) FROM people WHERE name = @P1", [None]) == 0
    assert await azuresql.query_value("SELECT CASE WHEN @P1 IS NULL THEN 1 ELSE 0 END", [None]) == 1


async def test_parameters_stand_in_any_order_and_more_than_once(azuresql):
    assert await azuresql.query_value("SELECT @P2 - @P1 + @P1 - @P1", [3, 10]) == 7
    twelve = ", ".join(f"@P{n}" for n in range(1, 13))
    assert tuple(await azuresql.query_one(f"SELECT {twelve}", list(range(12)))) == tuple(range(12))


class Colour(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    SEVEN = 7


def test_values_that_are_more_than_they_seem_go_in_as_what_they_are():
    moment, day = dt.datetime(2026, 11, 28, 12, 0, tzinfo=dt.UTC), dt.date(2026, 11, 28)
    given = [Colour.RED, Number.SEVEN, bytearray(b"x"), memoryview(b"y"), moment, day, dt.time(1), uuid.UUID(int=1)]
    found = bound(given, name="main")
    assert found == ["red", 7, b"x", b"y", moment, day, dt.time(1), uuid.UUID(int=1)]
    assert [type(v) for v in found[:4]] == [str, int, bytes, bytes]
    assert bound([decimal.Decimal("1E+5"), True, None, 1.5], name="main") == [decimal.Decimal("1E+5"), True, None, 1.5]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (f"{PLANTED}\0", "holds a NUL character"),
        (f"{PLANTED}\ud800", "half a surrogate pair"),
        (2**63, "more than 64 bits"),
        (-(2**63) - 1, "more than 64 bits"),
        (float("nan"), "not a finite number"),
        (float("inf"), "not a finite number"),
        (decimal.Decimal("NaN"), "not a finite number"),
        (decimal.Decimal(10) ** 38, "more than 38 digits"),
        (decimal.Decimal("1E-39"), "more than 38 digits"),
        ([PLANTED], "is a list, which has no counterpart in T-SQL"),
        ({PLANTED: 1}, "is a dict"),
        (object(), "is a object"),
    ],
)
async def test_a_value_that_cannot_be_encoded_is_refused_and_not_shown(azuresql, value, says):
    for call in (
        azuresql.query("SELECT @P1, @P2", ["fine", value]),
        azuresql.execute_many("SELECT @P1, @P2", [["fine", "fine"], ["fine", value]]),
    ):
        with pytest.raises(QueryRejected, match=says) as caught:
            await call
        assert "@P2" in str(caught.value)
        assert PLANTED not in str(caught.value)
    assert "of set 2" in str(caught.value)


@pytest.mark.parametrize("parameters", [[], [1, 2, 3]])
async def test_too_few_and_too_many(azuresql, parameters):
    with pytest.raises(QueryRejected, match=f"takes 2 parameters, {len(parameters)} were given"):
        await azuresql.query("SELECT @P1, @P2", parameters)


async def test_what_are_no_parameters(azuresql):
    for wrong in ({"a": 1}, "ab", b"ab", 5):
        with pytest.raises(QueryRejected, match="expected a list or a tuple"):
            await azuresql.query("SELECT @P1, @P2", wrong)
    with pytest.raises(QueryRejected, match="@P1 is not among them"):
        await azuresql.query("SELECT @P2", [1, 2])
    with pytest.raises(QueryRejected, match="at most 2098 parameters"):
        many = ", ".join(f"@P{n}" for n in range(1, 2102))
        await azuresql.query(f"SELECT {many}", list(range(2101)))
    with pytest.raises(QueryRejected, match="is not closed"):
        await azuresql.query("SELECT 'open, @P1", [1])


# ---- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        (5, "a statement is a str, not int"),
        ("SELECT 'a\0b'", "holds a NUL character, at character 10"),
        ("SELECT '\ud800'", "half a surrogate pair"),
        ("  -- nothing", "holds no statement"),
        ("COMMIT", "use transaction()"),
        ("BEGIN TRAN; SELECT 1", "use transaction()"),
    ],
)
async def test_a_text_that_is_never_sent(azuresql, sql, says):
    with pytest.raises(QueryRejected, match=says.replace("(", r"\(").replace(")", r"\)")):
        await azuresql.query(sql)
    async with azuresql.transaction() as tx:
        with pytest.raises(QueryRejected):
            await tx.query(sql)
        assert await tx.query_value("SELECT 1") == 1


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        (f"SELECT name FROM people WHERE WHERE name = '{PLANTED}'", "156"),
        (f"SELECT * FROM no_such_table WHERE a = '{PLANTED}'", "208"),
        (f"SELECT no_such_column FROM people WHERE name = '{PLANTED}'", "207"),
        (f"SELECT CAST('{PLANTED}' AS int)", "245"),
        (f"SELECT '{PLANTED}", "105"),
        ("SELECT 1/0", "8134"),
        (f"EXEC no_such_procedure '{PLANTED}'", "2812"),
    ],
)
async def test_an_error_of_the_servers_is_a_number_in_our_words(azuresql, sql, code, caplog):
    caplog.set_level(1)
    with pytest.raises(QueryRejected) as caught:
        await azuresql.query(sql)
    error = caught.value
    assert error.provider == "main"
    assert error.code in {code, "102"}
    told = [str(error), repr(error.__cause__), repr(error.__context__), caplog.text]
    assert not [text for text in told if PLANTED in text]
    assert await azuresql.query_value("SELECT 1") == 1
    assert azuresql.stats().in_use == 0


async def test_an_error_in_the_middle_of_a_batch_leaves_the_connection_in_step(azuresql):
    for _ in range(3):
        with pytest.raises(QueryRejected, match="division by zero"):
            await azuresql.query("SELECT 1 AS a; SELECT 1/0; SELECT name FROM people")
        assert await azuresql.query_value("SELECT 7") == 7
    assert azuresql.stats().discarded == 0


# ---- many at once ----------------------------------------------------------------------------------------------------


async def test_fifty_tasks_each_get_their_own_answer(azuresql):
    async def work(n: int) -> None:
        for i in range(4):
            assert await azuresql.query_value("SELECT @P1", [n * 100 + i]) == n * 100 + i

    await asyncio.gather(*(work(n) for n in range(50)))
    stats = azuresql.stats()
    assert stats.size <= azuresql.settings.pool.max
    assert (stats.in_use, stats.waiting) == (0, 0)


# ---- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 6, 7, 8, 1000])
async def test_a_stream_gives_every_row_in_order(azuresql, batch_size):
    async with azuresql.stream("SELECT id FROM people ORDER BY id", batch_size=batch_size) as rows:
        assert [row["id"] async for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    async with azuresql.stream("SELECT id FROM people WHERE id > @P1 ORDER BY id", [5], batch_size=batch_size) as rows:
        assert [row[0] async for row in rows] == [6, 7]
    async with azuresql.stream("SELECT id FROM people WHERE id > 50", batch_size=batch_size) as rows:
        assert [row async for row in rows] == []


async def test_a_stream_that_is_left_early_gives_its_connection_back_as_new(azuresql):
    for _ in range(5):
        async with azuresql.stream("SELECT id FROM people ORDER BY id", batch_size=1) as rows:
            async for row in rows:
                assert row["id"] == 1
                break
        with pytest.raises(KeyError):
            async with azuresql.stream("SELECT id FROM people", batch_size=1) as rows:
                async for _row in rows:
                    raise KeyError
        assert await azuresql.query_value("SELECT COUNT(*) FROM people") == 7
    await until(lambda: azuresql.stats().in_use == 0)
    assert azuresql.stats().discarded == 0


async def test_a_wrong_stream_says_so(azuresql):
    with pytest.raises(QueryRejected, match="no such table"):
        async with azuresql.stream("SELECT * FROM no_such_table"):
            pass
    with pytest.raises(ConfigurationError, match="from 1 to"):
        azuresql.stream("SELECT 1", batch_size=0)
    assert await azuresql.query_value("SELECT 1") == 1


# ---- the session -----------------------------------------------------------------------------------------------------


async def test_what_a_statement_leaves_behind_is_gone_for_the_next_borrower(make):
    async with make(pool={"max": 1}) as azuresql:
        await azuresql.execute("CREATE TABLE #scratch (id int, name nvarchar(50))")
        with pytest.raises(QueryRejected, match="no such table"):
            await azuresql.query("SELECT * FROM #scratch")
        assert azuresql.stats().reset >= 1
        before = azuresql.stats().reset
        assert await azuresql.query_value("SELECT COUNT(*) FROM people") == 7
        await azuresql.query("SELECT 1")
        assert azuresql.stats().reset == before  # what only reads costs no reset
        assert azuresql.stats().created == 1


# ---- transactions ----------------------------------------------------------------------------------------------------


async def test_a_transaction_is_begun_and_ended(make):
    async with make(pool={"max": 1}) as azuresql:
        async with azuresql.transaction() as tx:
            assert tx.provider is azuresql
            assert await tx.query_value("SELECT @@TRANCOUNT") == 1
            assert (await tx.query_one("SELECT name FROM people WHERE id = @P1", [4]))["name"] == "Kari"
        assert await azuresql.query_value("SELECT @@TRANCOUNT") == 0
        with pytest.raises(KeyError):
            async with azuresql.transaction():
                raise KeyError
        assert await azuresql.query_value("SELECT @@TRANCOUNT") == 0
        with pytest.raises(QueryRejected, match="not open"):
            await tx.query("SELECT 1")
        with pytest.raises(ConfigurationError, match="expected one of read committed, repeatable read, snapshot"):
            azuresql.transaction(isolation="chaos")


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "snapshot", "serializable"])
@pytest.mark.parametrize("read_only", [False, True])
async def test_each_isolation_is_taken_and_left_behind_by_nobody(make, isolation, read_only):
    async with make(pool={"max": 1}) as azuresql:
        async with azuresql.transaction(isolation=isolation, read_only=read_only) as tx:
            assert await tx.query_value("SELECT @@TRANCOUNT") == 1
        assert await azuresql.query_value("SELECT @@TRANCOUNT") == 0
        assert azuresql.stats().reset == 1


async def test_a_read_only_transaction_refuses_what_may_write(azuresql):
    for statement in ("DELETE FROM people", "CREATE TABLE x (i int)", "SELECT * INTO #x FROM people", "EXEC p"):
        async with azuresql.transaction(read_only=True) as tx:
            with pytest.raises(QueryRejected, match="only reads"):
                await tx.execute(statement)
            assert await tx.query_value("SELECT 1") == 1


async def test_inside_a_transaction_a_temporary_table_holds_what_is_put_in(azuresql, monkeypatch):
    monkeypatch.setattr(azuresql._subjects, "quoted_store", str)  # pysqlbridge knows no temporary table in brackets
    async with azuresql.transaction() as tx:
        await tx.execute("CREATE TABLE #kept (id int, name nvarchar(50), data varbinary(50))")
        await tx.execute("INSERT INTO #kept (id, name) VALUES (@P1, @P2)", [1, "Åse"])
        assert await tx.execute_many("INSERT INTO #kept (id, name) VALUES (@P1, @P2)", [(2, "b"), (3, None)]) == 2
        rows = [(4, "x"), [5, "'; DROP TABLE people; --"], (6, None)]
        assert await tx.bulk_insert("#kept", ["id", "name"], rows) == 3
        found = [tuple(r) for r in await tx.query("SELECT id, name FROM #kept ORDER BY id")]
        assert [(int(number), name) for number, name in found] == [
            (1, "Åse"), (2, "b"), (3, None), (4, "x"), (5, "'; DROP TABLE people; --"), (6, None),
        ]  # fmt: skip


async def test_savepoints_go_around_what_may_fail(azuresql):
    async with azuresql.transaction() as tx:
        with pytest.raises(QueryRejected, match="no such table"):
            async with tx.savepoint():
                await tx.query("SELECT * FROM no_such_table")
        async with tx.savepoint() as inner:
            assert inner is tx
            assert await tx.query_value("SELECT COUNT(*) FROM people") == 7
        with pytest.raises(KeyError):
            async with tx.savepoint():
                raise KeyError
        assert await tx.query_value("SELECT @@TRANCOUNT") == 1


async def test_one_statement_at_a_time(azuresql):
    async with azuresql.transaction() as tx:
        async with tx.stream("SELECT id FROM people ORDER BY id", batch_size=2) as rows:
            assert (await anext(rows))["id"] == 1
            with pytest.raises(QueryRejected, match="a stream of this transaction is open"):
                await tx.query("SELECT 1")
        assert await tx.query_value("SELECT COUNT(*) FROM people") == 7
        results = await asyncio.gather(*(tx.query_value("SELECT 1") for _ in range(3)), return_exceptions=True)
        assert results[0] == 1
        assert all(isinstance(r, QueryRejected) for r in results[1:])


async def test_what_the_server_rolls_back_does_not_go_on_without_a_transaction(azuresql):
    """Some errors end the transaction. What came next would be kept, each by itself."""
    async with azuresql.transaction() as tx:
        connection = tx._slot.connection
        await connection.call(connection.wire.run, "ROLLBACK TRANSACTION", ())
        with pytest.raises(QueryRejected, match="no such table"):
            await tx.query("SELECT * FROM no_such_table")
        with pytest.raises(QueryRejected, match="has rolled the transaction back"):
            await tx.execute("INSERT INTO people VALUES (1, 'x')")
        tx._over = True
        with pytest.raises(QueryRejected, match="was rolled back: the server ended it"):
            await tx.__aexit__(None)
    assert await azuresql.query_value("SELECT @@TRANCOUNT") == 0


async def test_run_in_transaction_repeats_a_deadlock_whole(azuresql, monkeypatch):
    from datavern.contracts.errors import SerializationConflict

    runs = []

    async def work(tx):
        runs.append(await tx.query_value("SELECT @@TRANCOUNT"))
        if len(runs) < 3:
            raise SerializationConflict("made up", code="1205")
        return "done"

    assert await azuresql.run_in_transaction(work) == "done"
    assert runs == [1, 1, 1]


async def test_a_procedure_that_leaves_a_transaction_open_is_told_of(azuresql, monkeypatch):
    from datavern.engines.azuresql.tds import TDSWire

    monkeypatch.setattr(TDSWire, "in_transaction", True)
    with pytest.raises(QueryRejected, match="main: the statement left a transaction open"):
        await azuresql.execute("SET LANGUAGE us_english")


# ---- trying a statement again ----------------------------------------------------------------------------------------


async def test_a_statement_that_passed_by_is_tried_again(azuresql, monkeypatch):
    from datavern.engines.azuresql import session as module

    real, tried = module._plain, []

    def flaky(wire, sql, values):
        tried.append(sql)
        if len(tried) < 3:
            raise Refused("driver.Error", 49918)
        return real(wire, sql, values)

    monkeypatch.setattr(module, "_plain", flaky)
    monkeypatch.setattr(module, "backoff", lambda *_, **__: 0.0)
    assert await azuresql.query_value("SELECT 5") == 5
    assert len(tried) == 3


async def test_a_constraint_is_not_tried_again(azuresql, monkeypatch):
    from datavern.engines.azuresql import session as module

    tried = []

    def refusing(wire, sql, values):
        tried.append(sql)
        raise Refused("driver.Error", 2627, constraint="pk")

    monkeypatch.setattr(module, "_plain", refusing)
    assert azuresql._effect_of("INSERT INTO people VALUES (1)") is Effect.WRITES
    with pytest.raises(ConstraintViolated):
        await azuresql.execute("INSERT INTO people VALUES (1)")
    assert len(tried) == 1


async def test_a_batch_of_changes_is_all_or_nothing(azuresql, monkeypatch):
    from datavern.engines.azuresql import session as module
    from datavern.engines.azuresql.wire import Answer

    sent = []

    def plain(wire, sql, values):
        sent.append(sql)
        return Answer(count=1)

    monkeypatch.setattr(module, "_plain", plain)
    await azuresql.execute("INSERT INTO a VALUES (1); DELETE FROM b")
    await azuresql.execute("DELETE FROM b;")
    batch, alone = sent
    assert batch.startswith("SET XACT_ABORT ON; BEGIN TRANSACTION;\nINSERT INTO a VALUES (1); DELETE FROM b\n;")
    assert batch.endswith("COMMIT TRANSACTION; SET XACT_ABORT OFF")
    assert alone == "DELETE FROM b;"


# ---- tables with personal data ---------------------------------------------------------------------------------------


class Mapping:
    """What a manager gives its providers, as far as this goes."""

    keys = None

    def mapped(self, _):
        return frozenset({"people"})

    async def store_personal_data(self, *_):
        raise NotImplementedError


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT people (id) VALUES (1)",
        "UPDATE TOP (1) dbo.People SET name = 'x'",
        "DELETE p FROM other o JOIN [people] AS p ON p.id = o.id",
        "MERGE people t USING x s ON t.id = s.id WHEN MATCHED THEN DELETE",
        "TRUNCATE TABLE people",
        "SELECT 1; WITH gone AS (SELECT 1 AS a) DELETE FROM people",
        "INSERT INTO people SELECT 'left open",
    ],
)
async def test_compliance_nsm_refuses_unaudited_writes_to_personal_data(make, sql):
    async with make(compliance=["nsm"]) as azuresql:
        azuresql.attach(Mapping())
        for call in (azuresql.execute(sql), azuresql.query(sql), azuresql.execute_many(sql, [[]])):
            with pytest.raises(PrivacyError, match=r"NSM 3\.2\.4"):
                await call
        async with azuresql.transaction() as tx:
            with pytest.raises(PrivacyError, match="people"):
                await tx.execute(sql)
        assert await azuresql.query_value("SELECT COUNT(*) FROM people") == 7
        assert azuresql._effect_of("DELETE FROM people", audited=True) is Effect.WRITES
        own, _ = azuresql._subjects.insert_statement("people", {"id": 1})
        assert azuresql._effect_of(own) is Effect.WRITES
        assert azuresql._effect_of("DELETE FROM other") is Effect.WRITES
