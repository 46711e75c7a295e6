"""COPY: every row or none, and which row it was."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import traceback
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest

from datavern import (
    ConfigurationError,
    ConnectionFailed,
    ConstraintViolated,
    DatavernError,
    Pool,
    PostgreSQLProvider,
    QueryRejected,
)
from datavern.engines.postgresql import copying
from datavern.testing import EmptyDatabase
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.proxy import TCPProxy

PEOPLE = """
CREATE TABLE people (id int PRIMARY KEY, name text, born date, score numeric(6, 2), extra jsonb,
                     added timestamptz DEFAULT now(), age int CHECK (age >= 0))
"""
COLUMNS = ["id", "name", "born"]
DAY = dt.date(1997, 9, 13)
SECRET = "13097248022"


@pytest.fixture
async def people(postgresql: Any) -> Any:
    await postgresql.execute(PEOPLE)
    return postgresql


async def count(pg: Any) -> int:
    return int(await pg.query_value("SELECT count(*) FROM people"))


async def refused(pg: Any, columns: list[str], rows: Any, kind: type[DatavernError] = QueryRejected) -> str:
    """What the error says, which quotes nothing that was planted; nothing is kept, and the connection serves on."""
    before = await count(pg)
    with pytest.raises(kind) as caught:
        await pg.copy_in("people", columns, rows)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert await count(pg) == before
    return str(caught.value)


# ---- rows -----------------------------------------------------------------------------------------------------------


async def test_rows_of_every_kind(people: Any) -> None:
    async def slowly() -> AsyncIterator[tuple[Any, ...]]:
        for i in range(3000, 5000):
            yield i, None, DAY

    assert await people.copy_in("people", COLUMNS, [(1, "Åse", DAY), [2, "Østby", None]]) == 2
    assert await people.copy_in("people", COLUMNS, ((i, f"n{i}", DAY) for i in range(10, 2010))) == 2000
    assert await people.copy_in("people", COLUMNS, slowly()) == 2000
    again = await people.query("SELECT id + 10000, name, born FROM people WHERE id < 100")
    assert await people.copy_in("public.people", COLUMNS, again) == len(again)
    assert await people.copy_in("people", COLUMNS, []) == 0
    assert tuple(await people.query_one("SELECT id, name, born, added IS NOT NULL FROM people WHERE id = 1")) == (
        1, "Åse", DAY, True,
    )  # fmt: skip
    assert await count(people) == 2 + 2000 + 2000 + len(again)


async def test_copying_leaves_nothing_behind(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(min=1, max=1)) as pg:
        await pg.execute(PEOPLE)
        assert await count(pg) == 0
        before = pg.stats().reset
        await pg.copy_in("people", COLUMNS, [(1, "a", DAY)])
        assert await count(pg) == 1
        assert (pg.stats().reset, pg.stats().discarded) == (before, 0)
        with pytest.raises(QueryRejected):
            await pg.copy_in("people", COLUMNS, [(1, "a")])
        slot = await pg._pool.acquire()
        transport = slot.connection._transport
        assert "write" not in vars(transport), "what watches the transport is gone"
        assert transport.get_write_buffer_limits() == (16_384, 65_536)
        pg._pool.give(slot)


async def test_values_come_back_as_they_went(people: Any) -> None:
    await people.execute(
        "CREATE TYPE mood AS ENUM ('god', 'dårlig'); CREATE TYPE place AS (x int, y text); CREATE TABLE kinds "
        "(a mood, b place, c text[], d jsonb[], e json, f numeric, g int4range, h uuid, i bytea, j interval, k xid8)"
    )
    row = ("dårlig", (1, "ø"), ["a", None], [{"x": [1]}, None], {"å": 1.5}, Decimal("1.10"), None, None, b"\0\xff",
           dt.timedelta(days=2, seconds=3), 7)  # fmt: skip
    assert await people.copy_in("kinds", list("abcdefghijk"), [row]) == 1
    (back,) = await people.query("SELECT * FROM kinds")
    assert tuple(back)[:1] + tuple(back)[2:] == row[:1] + row[2:]
    assert tuple(back["b"]) == row[1]


async def test_names_stand_for_themselves(postgresql: Any) -> None:
    await postgresql.execute(
        'CREATE SCHEMA "Min ""skjema"; CREATE TABLE "Min ""skjema"."Ærlig; --" ("Å b" int, "$1" text)'
    )
    assert await postgresql.copy_in('Min "skjema.Ærlig; --', ["$1", "Å b"], [("x", 1)]) == 1
    assert tuple(await postgresql.query_one('SELECT * FROM "Min ""skjema"."Ærlig; --"')) == (1, "x")
    with pytest.raises(QueryRejected, match=r"no such column \(copy_in: table .*: column Å B\)"):
        await postgresql.copy_in('Min "skjema.Ærlig; --', ["Å B"], [(1,)])
    with pytest.raises(QueryRejected, match="no such table"):
        await postgresql.copy_in("nobody.there", ["a"], [(1,)])


async def test_columns_that_the_server_fills(postgresql: Any) -> None:
    await postgresql.execute(
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, a int, b int GENERATED ALWAYS AS (a * 2) STORED)"
    )
    assert await postgresql.copy_in("t", ["id", "a"], [(7, 1)]) == 1, "as COPY does: the given number counts"
    assert await postgresql.copy_in("t", ["a"], [(2,)]) == 1
    assert [tuple(r) for r in await postgresql.query("SELECT * FROM t ORDER BY a")] == [(7, 1, 2), (1, 2, 4)]
    with pytest.raises(QueryRejected, match="428C9"):
        await postgresql.copy_in("t", ["b"], [(2,)])


async def test_a_column_that_the_server_works_out_is_named(postgresql: Any) -> None:
    await postgresql.execute('CREATE TABLE t (a int, "twice å" int GENERATED ALWAYS AS (a * 2) STORED)')
    with pytest.raises(QueryRejected, match="column twice å out by itself.*leave it out"):
        await postgresql.copy_in("t", ["a", "twice å"], [(1, 2)])
    assert await postgresql.copy_in("t", ["a"], [(1,)]) == 1


async def test_a_view_is_no_table_to_copy_into(postgresql: Any) -> None:
    await postgresql.execute("CREATE TABLE t (a int); CREATE VIEW v AS SELECT a FROM t")
    with pytest.raises(QueryRejected, match="is a view or has row-level security: use execute_many"):
        await postgresql.copy_in("v", ["a"], [(1,)])
    assert await postgresql.execute_many("INSERT INTO v VALUES ($1)", [(1,)]) == 1


async def test_a_composite_of_too_few_fields_is_named(postgresql: Any) -> None:
    await postgresql.execute("CREATE TYPE place AS (street text, number int); CREATE TABLE t (a int, at place)")
    with pytest.raises(QueryRejected, match="in row 3, column at; no row was kept"):
        await postgresql.copy_in("t", ["a", "at"], [(1, ("x", 1)), (2, {"number": 2}), (3, ("y",))])
    assert await postgresql.query_value("SELECT count(*) FROM t") == 0


async def test_a_column_that_was_altered_is_not_misread(postgresql: Any) -> None:
    """A ``bigint`` and a ``double precision`` are both eight bytes: types that are out of date would go unseen."""
    await postgresql.execute("CREATE TABLE t (a bigint)")
    await postgresql.copy_in("t", ["a"], [(1,)])
    await postgresql.execute("ALTER TABLE t ALTER a TYPE float8")
    await postgresql.copy_in("t", ["a"], [(2,)])
    assert [r[0] for r in await postgresql.query("SELECT a FROM t ORDER BY a")] == [1.0, 2.0]


async def test_without_a_statement_cache(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(statement_cache=0) as pg:
        await pg.execute(PEOPLE)
        assert await pg.copy_in("people", COLUMNS, [(1, "x", DAY)]) == 1
        assert "row 2, column born: expected a value that fits date" in await refused(
            pg, COLUMNS, [(2, "x", DAY), (3, "x", SECRET)]
        )


# ---- rows that do not fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, "a", DAY), (2, SECRET)], "row 2 has 2 values, and there are 3 columns"),
        ([(1, "a", DAY, SECRET)], "row 1 has 4 values, and there are 3 columns"),
        ([()], "row 1 has 0 values"),
        ([(1, "a", DAY), "abc"], "row 2 is of type str: expected a tuple or a list of 3 values"),
        ([{"id": 1, "name": SECRET, "born": DAY}], "row 1 is of type dict"),
        ([b"abc"], "row 1 is of type bytes"),
        ([17], "row 1 is of type int"),
        ([(1, "a", DAY), (SECRET, "a", DAY)], "row 2, column id: expected a value that fits int4, and this str"),
        ([(2**31, "a", DAY)], "row 1, column id: expected a value that fits int4"),
        ([(1, 13097248022, DAY)], "row 1, column name: expected a value that fits text, and this int"),
        ([(1, "a", SECRET)], "row 1, column born: expected a value that fits date, and this str"),
        ([(1, "\ud800" + SECRET, DAY)], "row 1, column name: expected a value that fits text"),
        ([(1, "a", DAY), (2, SECRET + "\0", DAY)], "encoding (SQLSTATE 22021), in row 2, column name"),
    ],
)
async def test_a_row_that_does_not_fit(people: Any, rows: list[Any], message: str) -> None:
    for number in (0, 1500):
        good = [(i, "x", DAY) for i in range(100, 100 + number)]
        expected = message.replace("row 1", f"row {number + 1}").replace("row 2", f"row {number + 2}")
        assert expected in await refused(people, COLUMNS, [*good, *rows])

        async def slowly(good: list[Any] = good) -> AsyncIterator[Any]:
            for row in [*good, *rows]:
                yield row

        assert expected in await refused(people, COLUMNS, slowly())
    assert await people.copy_in("people", COLUMNS, [(1, "a", DAY)]) == 1


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [
        (["id", "age"], (7, -1), "people_age_check of table people violated (SQLSTATE 23514), in row 3"),
        (["id", "age"], (0, 1), "people_pkey of table people violated (SQLSTATE 23505), in row 3"),
        (["age", "id"], (1, None), "not-null constraint on column id"),
        (["id", "score"], (7, Decimal(13097248022)), "out of range (SQLSTATE 22003), in row 3, column score"),
        (["id", "extra"], (7, {SECRET: {1, 2}}), "row 3, column extra: expected a value that fits jsonb"),
        (["id", "extra"], (7, float("nan")), "row 3, column extra: expected a value that fits jsonb, and this float"),
        (["id", "extra"], (7, SECRET + "\0"), "(SQLSTATE 22P05), in row 3, column extra"),
    ],
)  # fmt: skip
async def test_a_row_that_the_table_refuses(people: Any, columns: list[str], row: Any, message: str) -> None:
    place = columns.index("id")
    good = [tuple(i if k == place else None for k in range(2)) for i in range(2)]
    kind = ConstraintViolated if "SQLSTATE 23" in message or "constraint" in message else QueryRejected
    assert message in await refused(people, columns, [*good, row, *good], kind)


@pytest.mark.parametrize("kind", ["text", "date"])
@pytest.mark.parametrize(
    "row",
    ["ab", b"ab", {"a": 1, "b": 2}, {"x", "y"}, 5, None, (x for x in "ab"), bytearray(b"ab")],
    ids=lambda row: type(row).__name__,
)
async def test_what_is_no_row_is_refused_whichever_types_the_columns_have(postgresql: Any, kind: str, row: Any) -> None:
    """Where a column is of a type that no character and no number fits, only the widths are looked at beforehand."""
    await postgresql.execute(f"CREATE TABLE t (a text, b {kind})")
    good = ("x", DAY if kind == "date" else "y")
    for position in (0, 600):
        rows = [good] * 700
        rows[position] = row
        with pytest.raises(
            QueryRejected, match=f"row {position + 1} is of type {type(row).__name__}: expected a tuple"
        ):
            await postgresql.copy_in("t", ["a", "b"], rows)
    assert await postgresql.copy_in("t", ["a", "b"], [good, list(good)] * 300) == 600
    assert await postgresql.query_value("SELECT count(*) FROM t") == 600


async def test_the_server_refuses_and_no_further_row_is_asked_for(people: Any) -> None:
    """A source that never ends, with a row that the server refuses."""
    given = 0

    def endless() -> Iterator[tuple[int, str, dt.date]]:
        nonlocal given
        for given in itertools.count(1):
            yield given, "\0" if given == 5 else "x" * 1000, DAY

    async def endlessly() -> AsyncIterator[tuple[int, str, dt.date]]:
        for row in endless():
            yield row

    for source in (endless(), endlessly()):
        async with asyncio.timeout(20):
            assert "in row 5, column name" in await refused(people, COLUMNS, source)
        assert given < 1_000_000


class Counted(Sequence[Any]):
    """One row that stands for many: it counts how often its first value was taken."""

    def __init__(self, *values: Any) -> None:
        self.values = values
        self.taken = 0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, at: Any) -> Any:
        self.taken += at == 0
        return self.values[at]


async def test_no_more_is_taken_of_a_list_that_the_server_refused(people: Any) -> None:
    counted = Counted(2, "x" * 1000, DAY)
    rows = [(1, "x", DAY), (1, "\0", DAY), *[counted] * 1_000_000]
    async with asyncio.timeout(20):
        assert "in row 2, column name" in await refused(people, COLUMNS, rows)
    assert 0 < counted.taken < 500_000


@pytest.mark.parametrize("place", [0, 12_345, 19_999])
@pytest.mark.parametrize("kind", [list, tuple, iter])
@pytest.mark.parametrize("wrong", [(-1, "x", DAY, None), (-1, "x"), "abc", {0: 1, 1: "x", 2: DAY, 3: None}])
async def test_one_row_among_many_is_found_before_the_copy_ends(people: Any, place: int, kind: Any, wrong: Any) -> None:
    rows: list[Any] = [(i, "x" * 200, DAY) for i in range(20_000)]
    rows[place] = wrong
    with pytest.raises(QueryRejected, match="was rolled back"):
        async with people.transaction() as tx:
            with pytest.raises(QueryRejected, match=f"row {place + 1} (has|is of type)"):
                await tx.copy_in("people", COLUMNS, kind(rows))
    assert await count(people) == 0


async def test_the_first_of_two_wrong_rows_is_named(people: Any) -> None:
    rows = [(1, "x", DAY), (2, "x", DAY, "too many"), (3, "x", "no day")]
    for source in (rows, iter(rows)):
        assert "row 2 has 4 values" in await refused(people, COLUMNS, source)


async def test_a_type_that_has_no_binary_form(postgresql: Any) -> None:
    await postgresql.execute("CREATE TABLE t (a int, b aclitem)")
    with pytest.raises(QueryRejected, match="column b of type aclitem has no binary form that the driver knows"):
        await postgresql.copy_in("t", ["a", "b"], [(1, "x")])
    assert await postgresql.query_value("SELECT 1") == 1


@pytest.mark.parametrize(
    ("columns", "rows"),
    [("id", []), ([], []), ([""], []), (["a\0"], []), ([1], []), (["id"], "abc"), (["id"], {"id": 1}), (["id"], 7)],
)
async def test_calls_that_cannot_be_meant(people: Any, columns: Any, rows: Any) -> None:
    with pytest.raises(ConfigurationError, match="copy_in"):
        await people.copy_in("people", columns, rows)
    with pytest.raises(ConfigurationError, match="copy_in: the table's name"):
        await people.copy_in(None, ["id"], [])


async def test_what_the_source_raises_is_its_own(people: Any) -> None:
    class Mine(Exception):
        pass

    def broken() -> Iterator[tuple[int, str, dt.date]]:
        yield 1, "x", DAY
        raise Mine("my own words")

    async def broken_slowly() -> AsyncIterator[tuple[int, str, dt.date]]:
        yield 1, "x", DAY
        raise TypeError("my own words")

    with pytest.raises(Mine, match="my own words"):
        await people.copy_in("people", COLUMNS, broken())
    with pytest.raises(TypeError, match="my own words"):
        await people.copy_in("people", COLUMNS, broken_slowly())
    assert await count(people) == 0


# ---- transactions, cancellation, memory -----------------------------------------------------------------------------


async def test_in_a_transaction(people: Any) -> None:
    async with people.transaction() as tx:
        await tx.execute("INSERT INTO people (id) VALUES (1)")
        assert await tx.copy_in("people", COLUMNS, [(2, "a", DAY), (3, "b", DAY)]) == 2
        with pytest.raises(QueryRejected, match="row 2, column born: expected a value that fits date"):
            async with tx.savepoint():
                await tx.copy_in("people", COLUMNS, [(4, "a", DAY), (5, "b", SECRET)])
        assert await tx.query_value("SELECT count(*) FROM people") == 3
        await tx.copy_in("people", COLUMNS, [(6, "c", DAY)])
    assert await count(people) == 4
    with pytest.raises(LookupError):
        async with people.transaction() as tx:
            await tx.copy_in("people", COLUMNS, [(7, "c", DAY)])
            raise LookupError
    assert await count(people) == 4


async def test_a_statement_beside_the_copy_is_refused(people: Any) -> None:
    async with people.transaction() as tx:

        async def rows() -> AsyncIterator[tuple[int, str, dt.date]]:
            yield 1, "x", DAY
            with pytest.raises(QueryRejected, match="one statement at a time"):
                await tx.query("SELECT 1")
            yield 2, "x", DAY

        assert await tx.copy_in("people", COLUMNS, rows()) == 2


async def test_cancelled_in_the_middle(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(min=1, max=1)) as pg:
        await pg.execute(PEOPLE)
        for wait_for_ever in (True, False):
            under_way = asyncio.Event()

            async def rows(ever: bool = wait_for_ever, under_way: asyncio.Event = under_way) -> AsyncIterator[Any]:
                for i in itertools.count():
                    if i == 2000:
                        under_way.set()
                        if ever:
                            await asyncio.Event().wait()
                    yield i, "x" * 100, DAY

            task = asyncio.ensure_future(pg.copy_in("people", COLUMNS, rows()))
            await under_way.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await count(pg) == 0
            assert pg.stats().in_use == 0


async def test_the_network_is_cut_in_the_middle(
    postgresql_database: EmptyDatabase, postgresql_server: PostgreSQLServer
) -> None:
    with TCPProxy(postgresql_server.host, postgresql_server.port) as proxy:
        url = postgresql_database.settings["url"].replace(f":{postgresql_server.port}/", f":{proxy.port}/")
        async with PostgreSQLProvider.from_url(url, pool=Pool(min=1, max=2)) as pg:
            await pg.execute(PEOPLE)

            def rows() -> Iterator[tuple[int, str, dt.date]]:
                for i in itertools.count():
                    if i == 1000:
                        proxy.cut()
                    yield i, "x", DAY

            async with asyncio.timeout(20):
                with pytest.raises(ConnectionFailed) as caught:
                    await pg.copy_in("people", COLUMNS, rows())
            assert caught.value.retry == "transaction"
            assert await count(pg) == 0


async def test_the_network_is_cut_while_the_socket_is_full(
    postgresql_database: EmptyDatabase, postgresql_server: PostgreSQLServer
) -> None:
    """The driver by itself would wait for ever."""
    with TCPProxy(postgresql_server.host, postgresql_server.port) as proxy:
        url = postgresql_database.settings["url"].replace(f":{postgresql_server.port}/", f":{proxy.port}/")
        async with PostgreSQLProvider.from_url(url, pool=Pool(min=1, max=2)) as pg:
            await pg.execute(PEOPLE)
            seen = 0

            def rows() -> Iterator[tuple[int, str, dt.date]]:
                nonlocal seen
                for seen in itertools.count(1):
                    if seen == 1000:
                        proxy.freeze()
                    yield seen, "x" * 1000, DAY

            task = asyncio.ensure_future(pg.copy_in("people", COLUMNS, rows()))
            async with asyncio.timeout(20):
                before = -1
                while seen != before or seen < 1000:  # until nothing moves any more
                    before = seen
                    await asyncio.sleep(0.2)
                assert not task.done()
                proxy.cut()
                proxy.thaw()
                with pytest.raises(ConnectionFailed):
                    await task


async def test_memory_stays_what_it_is(people: Any) -> None:
    rows = ((i, "x" * 1000, DAY) for i in range(60_000))
    tracemalloc.start()
    try:
        assert await people.copy_in("people", COLUMNS, rows) == 60_000
        assert tracemalloc.get_traced_memory()[1] < 16_000_000, "of sixty megabytes"
    finally:
        tracemalloc.stop()


async def test_others_get_their_turn(people: Any) -> None:
    """A million rows from a list never wait for anything by themselves."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.ensure_future(other())
    await people.copy_in("people", ["id"], [(i,) for i in range(20_000)])
    task.cancel()
    assert turns > 20


async def test_others_get_their_turn_in_the_middle_of_a_list(people: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_TURN", 0.0)
    counted, seen = Counted(None, "x" * 1000, DAY), [0]
    await people.execute("ALTER TABLE people DROP CONSTRAINT people_pkey, ALTER id DROP NOT NULL")

    async def other() -> None:
        while True:
            seen.append(counted.taken)
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    assert await people.copy_in("people", COLUMNS, [counted] * 20_000) == 20_000
    task.cancel()
    assert max(after - before for before, after in itertools.pairwise(seen)) < 5_000
