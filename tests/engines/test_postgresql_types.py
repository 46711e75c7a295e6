"""PostgreSQL's types through the query family, both ways, on a real server; and what has no exact form in Python."""

from __future__ import annotations

import datetime as dt
import ipaddress
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from asyncpg import BitString, Range

from datavern import ConstraintViolated, Pool, QueryRejected
from datavern.testing import EmptyDatabase

UTC = dt.UTC
TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'Åpen dag');
CREATE TYPE address AS (street text, number int, mood mood);
CREATE TYPE person AS (name text, home address, tags text[]);
CREATE DOMAIN positive AS numeric CHECK (VALUE > 0);
"""


@pytest.fixture
async def admin(postgresql_database: EmptyDatabase) -> AsyncIterator[asyncpg.Connection]:
    """A connection outside the pool."""
    connection = await asyncpg.connect(postgresql_database.settings["url"])
    yield connection
    await connection.close()


@pytest.fixture
async def pg(postgresql_database: EmptyDatabase) -> AsyncIterator[Any]:
    """A pool of one: what a statement leaves behind meets the next."""
    async with postgresql_database.provider(pool=Pool(max=1)) as provider:
        await provider.execute(TYPES)
        yield provider


VALUES: list[tuple[str, Any]] = [
    ("numeric", Decimal("1" * 1000 + "." + "3" * 1000)),
    ("numeric", Decimal("-1.500")),
    ("numeric", Decimal("1E-400")),
    ("numeric", Decimal("Infinity")),
    ("numeric", Decimal("-Infinity")),
    ("numeric[]", [Decimal(1), None, Decimal("0.10")]),
    ("smallint", -(2**15)),
    ("float8", 5e-324),
    ("text", "å" * 2_000_000),
    ("bytea", bytes(range(256)) * 5000),
    ("uuid", uuid.UUID(int=2**128 - 1)),
    ("date", dt.date(1, 1, 2)),
    ("time", dt.time(23, 59, 59, 999999)),
    ("timetz", dt.time(1, 2, 3, 4, tzinfo=dt.timezone(dt.timedelta(hours=-5, minutes=-30)))),
    ("timestamp", dt.datetime(2026, 10, 25, 2, 30, fold=0)),  # noqa: DTZ001  (a type without a zone)
    ("timestamptz", dt.datetime(1900, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
    ("interval", dt.timedelta(days=-3, microseconds=1)),
    ("inet", ipaddress.ip_address("10.0.0.1")),
    ("inet", ipaddress.ip_interface("2001:db8::1/64")),
    ("cidr", ipaddress.ip_network("10.0.0.0/8")),
    ("macaddr", "08:00:2b:01:02:03"),
    ("bit(3)", BitString("101")),
    ("varbit", BitString("1011 0000 1")),
    ("int[]", [[1, None], [3, 4]]),
    ("int[]", [[[1], [2]], [[3], [4]]]),
    ("int[]", []),
    ("text[]", ["", "NULL", None, "{}", 'a"b', "c\\d", "e,f"]),
    ("int4range", Range(1, 5)),
    ("int4range", Range(empty=True)),
    ("numrange", Range(Decimal("1.10"), None, lower_inc=False)),
    ("tstzrange", Range(None, dt.datetime(2026, 1, 1, tzinfo=UTC))),
    ("daterange[]", [Range(dt.date(2026, 1, 1), dt.date(2026, 2, 1)), None]),
    ("int4multirange", [Range(1, 5), Range(7, None)]),
    ("int4multirange", []),
    ("mood", "Åpen dag"),
    ("mood[]", [["ok", None], ["sad", "ok"]]),
    ("positive", Decimal("0.001")),
    ("positive[]", [Decimal("0.001"), None]),
    ("address", ("Storgata", 1, "ok")),
    ("address", (None, None, None)),
    ("address[]", [("a", 1, "ok"), None]),
    ("person", ("Kari", ("Storgata", 1, "sad"), ["x", None])),
    ("jsonpath", '$."a"'),
    ("oid", 2**32 - 1),
]


@pytest.mark.parametrize(("kind", "value"), VALUES)
async def test_a_value_comes_back_as_it_went(pg: Any, kind: str, value: Any) -> None:
    assert await pg.query_value(f"SELECT $1::{kind}", [value]) == value
    assert await pg.query_value(f"SELECT $1::{kind}", [None]) is None
    await pg.execute(f"CREATE TABLE t (a {kind})")
    assert await pg.execute_many("INSERT INTO t VALUES ($1)", [[value], [None]]) == 2
    async with pg.transaction() as tx:
        assert [row["a"] for row in await tx.query("SELECT a FROM t")] == [value, None]
    async with pg.stream("SELECT a FROM t") as rows:
        assert [row["a"] async for row in rows] == [value, None]


async def test_digits_are_kept_and_not_only_the_value(pg: Any) -> None:
    for text in ("1.500", "0.00", "100", "-0.10"):
        assert str(await pg.query_value("SELECT $1::numeric", [Decimal(text)])) == text
    not_a_number = await pg.query_value("SELECT $1::numeric", [Decimal("NaN")])
    assert isinstance(not_a_number, Decimal)
    assert not_a_number.is_nan()
    # A float is sent as what it is exactly, not as what it prints as.
    assert await pg.query_value("SELECT $1::numeric", [0.1]) == Decimal(0.1)  # noqa: RUF032  (the float itself)


async def test_a_composite_is_read_by_name_and_by_place(pg: Any) -> None:
    found = await pg.query_value("SELECT ROW('Kari', ROW('Storgata', 1, 'ok'), '{a}')::person")
    assert found["home"]["number"] == found[1][1] == 1
    assert await pg.query_value("SELECT ($1::address).street", [found["home"]]) == "Storgata", "a record goes back"
    assert await pg.query_value("SELECT ($1::address).mood", [{"street": "x", "mood": "sad"}]) == "sad"
    assert await pg.query_value("SELECT ROW(1, 'a'::text)") == (1, "a")


async def test_infinity(pg: Any) -> None:
    """As asyncpg has it: the first and the last value of the Python type; timestamptz comes without a zone."""
    first, last = dt.datetime.min, dt.datetime.max  # noqa: DTZ901  (that they have no zone is the point)
    row = await pg.query_one(
        "SELECT 'infinity'::date, '-infinity'::date, 'infinity'::timestamp, '-infinity'::timestamp, "
        "'infinity'::timestamptz, '-infinity'::timestamptz"
    )
    assert tuple(row) == (dt.date.max, dt.date.min, last, first, last, first)
    assert await pg.query_value("SELECT $1::date::text", [dt.date.max]) == "infinity"
    assert await pg.query_value("SELECT $1::date::text", [dt.date.min]) == "-infinity"
    for value in (last, last.replace(tzinfo=UTC)):
        assert await pg.query_value("SELECT $1::timestamptz::text", [value]) == "infinity"
    assert await pg.query_value("SELECT $1::timestamp::text", [first]) == "-infinity"


async def test_what_has_another_form_in_python(pg: Any) -> None:
    assert await pg.query_value("SELECT '1 year 1 month'::interval") == dt.timedelta(days=395)
    assert await pg.query_value("SELECT '[0:1]={1,2}'::int[]") == [1, 2]
    assert await pg.query_value("SELECT '1.10000000000000000001'::jsonb") == 1.1
    for cut in (1.5, Decimal("1.5")):  # the driver's way, and docs/postgresql.md says so
        assert await pg.query_value("SELECT $1::int", [cut]) == 1
        assert await pg.query_value("SELECT $1::numeric::int", [cut]) == 2
    assert await pg.query_value("SELECT $1::numeric", [Decimal("1E+131071")]) == Decimal("1E+131071")
    assert await pg.query_value("SELECT $1::numeric", [Decimal("1E+131072")]) == 0
    assert await pg.query_value("SELECT $1::inet", ["10.0.0.1/8"]) == ipaddress.ip_interface("10.0.0.1/8")


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        "'10000-01-01'::date",
        "'0044-03-15 BC'::date",
        "'10000-01-01'::timestamptz",
        "'24:00'::time",
        "'infinity'::interval",
        "('1' || repeat('0', 5000))::jsonb",
        "(repeat('[', 2000) || repeat(']', 2000))::jsonb",
    ],
)
async def test_a_value_that_python_cannot_hold(pg: Any, value: str, alone: bool) -> None:
    with pytest.raises(QueryRejected, match="cast it to text") as caught:
        if alone:
            await pg.query(f"SELECT {value}")
        else:
            async with pg.transaction() as tx:
                await tx.query(f"SELECT {value}")
    assert caught.value.retry == "never"
    assert isinstance(await pg.query_value(f"SELECT ({value})::text"), str)


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        ("uuid", "secret", "fits uuid"),
        ("int[]", "secret", r"fits int4\[\]"),
        ("int[]", [[1], [2, 3]], r"fits int4\[\]"),
        ("address", ("a", "secret", "ok"), "fits address"),
        ("address", ("a",), "does not have the fields of its type"),
        ("mood", "secret", "not a valid value of the type"),
        ("jsonb", float("nan"), "fits jsonb"),
        ("jsonb", {"a": Decimal("1.1")}, "fits jsonb"),
        ("timestamp", dt.datetime(2026, 1, 1, tzinfo=UTC), "fits timestamp"),
        ("nummultirange[]", [[Range(Decimal(1), Decimal(2))], []], "fits nummultirange"),
    ],
)
async def test_a_value_that_does_not_fit(pg: Any, kind: str, value: Any, says: str) -> None:
    with pytest.raises(QueryRejected, match=says) as caught:
        await pg.query(f"SELECT $1::{kind}", [value])
    assert "secret" not in str(caught.value)
    assert await pg.query_value("SELECT 1") == 1


@pytest.mark.parametrize("kind", ["int", "jsonb", "int[]"])
@pytest.mark.parametrize("how", ["execute", "execute_many", "transaction"])
async def test_a_parameter_that_the_driver_cannot_even_quote(pg: Any, kind: str, how: str) -> None:
    """What it is refused for is refused again, while the driver writes the message: nothing was sent all the same."""
    await pg.execute(f"CREATE TABLE huge (v {kind})")
    fits: dict[str, Any] = {"int": 1, "jsonb": [], "int[]": [1]}
    value: Any = 10**5000 if kind == "int" else []
    for _ in range(5000 if kind == "jsonb" else 50 if kind == "int[]" else 0):
        value = [value]
    if kind == "int[]":
        value = [10**5000, value]
    statement = "INSERT INTO huge VALUES ($1)"
    with pytest.raises(QueryRejected, match="a parameter is not a value of the type|fits int4") as caught:
        if how == "execute":
            await pg.execute(statement, [value])
        elif how == "execute_many":
            await pg.execute_many(statement, [[fits[kind]], [value], [fits[kind]]])
        else:
            async with pg.transaction() as tx:
                await tx.execute(statement, [value])
    assert "ran" not in str(caught.value)
    assert caught.value.retry == "never"
    assert await pg.query_value("SELECT count(*) FROM huge") == 0


async def test_a_domain_has_its_constraint(pg: Any) -> None:
    with pytest.raises(ConstraintViolated) as caught:
        await pg.query("SELECT $1::positive", [Decimal(-5)])
    assert caught.value.constraint == "positive_check"


async def test_xml(pg: Any) -> None:
    """Where the server was built with libxml it is text, as it went; where not, the server says so."""
    try:
        assert await pg.query_value("SELECT $1::xml", ["<a>å</a>"]) == "<a>å</a>"
    except QueryRejected as error:
        assert error.code == "0A000"  # noqa: PT017  (either is right: which one is the server's to say)
    assert await pg.query_value("SELECT 1") == 1


# ---- types that change under a pool ---------------------------------------------------------------------------------


async def test_types_made_after_the_connection(pg: Any, admin: asyncpg.Connection) -> None:
    assert await pg.query_value("SELECT 1") == 1
    await admin.execute("CREATE TYPE colour AS ENUM ('red'); CREATE TYPE car AS (colour colour, year int)")
    assert await pg.query_value("SELECT $1::car", [("red", 1999)]) == ("red", 1999)
    assert pg.stats().created == 1


async def test_an_enum_that_grows(pg: Any, admin: asyncpg.Connection) -> None:
    assert await pg.query_value("SELECT $1::mood", ["ok"]) == "ok"
    await admin.execute("ALTER TYPE mood ADD VALUE 'glad'; ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'")
    assert await pg.query_value("SELECT $1::mood", ["glad"]) == "glad"
    assert await pg.query_value("SELECT $1::mood", ["fine"]) == "fine"
    assert pg.stats().created == 1


async def test_an_altered_composite_in_the_answer(pg: Any, admin: asyncpg.Connection) -> None:
    await pg.execute("CREATE TABLE t (a address)")
    insert = "INSERT INTO t VALUES (ROW('x', 1, 'ok')::address)"
    await pg.execute(insert)
    assert len((await pg.query_one("SELECT a FROM t"))["a"]) == 3
    await admin.execute("ALTER TYPE address ADD ATTRIBUTE floor int")
    assert len((await pg.query_one("SELECT a FROM t"))["a"]) == 4, "what only reads is read again"
    await admin.execute("ALTER TYPE address DROP ATTRIBUTE floor")
    # What writes has been written, so it is an error; and so it is inside a transaction.
    with pytest.raises(QueryRejected, match="altered while connections were open; the statement ran"):
        await pg.query("INSERT INTO t VALUES (ROW('y', 1, 'ok')) RETURNING a")
    assert await pg.query_value("SELECT count(*) FROM t") == 2
    assert len((await pg.query_one("SELECT a FROM t"))["a"]) == 3


async def test_an_altered_composite_as_a_parameter(pg: Any, admin: asyncpg.Connection) -> None:
    statement = "SELECT ($1::address).street"
    assert await pg.query_value(statement, [("x", 1, "ok")]) == "x"
    await admin.execute("ALTER TYPE address ADD ATTRIBUTE floor int")
    for now in (("x", 1, "ok", 7), ("x", 1, "ok")):  # too many fields for what the driver knows, and too few
        with pytest.raises(QueryRejected, match=r"fits address|does not have the fields of its type, or"):
            await pg.query_value(statement, [now])
    assert await pg.query_value(statement, [("x", 1, "ok", 7)]) == "x", "once, and not until the connection is old"
    await admin.execute("ALTER TYPE address DROP ATTRIBUTE floor")
    assert await pg.query_value(statement, [("x", 1, "ok")]) == "x"


async def test_a_type_that_is_dropped_and_made_again(pg: Any, admin: asyncpg.Connection) -> None:
    statement = "SELECT $1::mood::text"
    assert await pg.query_value(statement, ["ok"]) == "ok"
    await admin.execute("DROP TYPE person; DROP TYPE address; DROP TYPE mood; CREATE TYPE mood AS ENUM ('new')")
    with pytest.raises(QueryRejected, match="a type that was dropped while the statement was in use"):
        await pg.query_value(statement, ["new"])
    assert await pg.query_value(statement, ["new"]) == "new"
