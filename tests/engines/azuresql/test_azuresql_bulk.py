"""Rows in bulk: what is sent, read back by the driver's own reader; and when they go as parameters instead."""

from __future__ import annotations

import datetime as dt
import struct
import uuid
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
import sqlglot
from pytds import tds_base
from pytds.tds_session import _TdsSession

from datavern.contracts.errors import ConfigurationError, ConnectionFailed, QueryRejected
from datavern.engines.azuresql import bulk
from datavern.engines.azuresql.loading import COLUMNS, LoadColumn, Unlike, load_columns, loadable
from datavern.engines.azuresql.provider import AzureSQLProvider
from datavern.engines.azuresql.statements import Effect, effect
from datavern.engines.azuresql.tds_bulk import described

UTC, OSLO = dt.UTC, dt.timezone(dt.timedelta(hours=2))
NAIVE = dt.datetime(2026, 5, 6, 7, 8, 9)  # noqa: DTZ001  (what a column without a zone holds)
A_UUID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")


def column(kind: str, name: str = "c", *, length: int = 0, precision: int = 0, scale: int = 0, **more: Any) -> Any:
    """A column as `COLUMNS` tells of it."""
    row = {"name": name, "type": kind, "length": length, "precision": precision, "scale": scale, "nullable": 1,
           "counted": 0, "computed": 0, **more}  # fmt: skip
    found = load_columns([row], [name])
    return found[0] if found else None


THERE = [
    {"name": "id", "type": "int", "length": 4, "precision": 10, "scale": 0, "nullable": 0, "counted": 0, "computed": 0},
    {"name": "Na]me", "type": "nvarchar", "length": 20, "precision": 0, "scale": 0, "nullable": 1, "counted": 0,
     "computed": 0},
]  # fmt: skip


# ---- which columns, which values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "declaration"),
    [
        (column("nvarchar", length=100), "nvarchar(50)"),
        (column("nvarchar", length=-1), "nvarchar(max)"),
        (column("varchar", length=400), "nvarchar(400)"),
        (column("varbinary", length=8000), "varbinary(8000)"),
        (column("varbinary", length=-1), "varbinary(max)"),
        (column("decimal", precision=10, scale=2), "decimal(10,2)"),
        (column("numeric", precision=38, scale=0), "decimal(38,0)"),
        (column("datetime2", scale=7), "datetime2(7)"),
        (column("time", scale=0), "time(0)"),
        (column("bit"), "bit"),
    ],
)
def test_a_column_is_declared_as_it_is(made, declaration):
    assert made.declaration == declaration


@pytest.mark.parametrize(
    "kind", ["char", "nchar", "text", "xml", "money", "datetime", "timestamp", "geography", "json"]
)
def test_other_columns_are_not_loaded(kind):
    assert column(kind, length=10) is None


def test_what_is_counted_or_computed_or_not_there_is_not_loaded():
    assert column("int", counted=1) is None
    assert column("int", computed=1) is None
    assert column("varchar", length=8000) is None  # as nvarchar it would have no bound
    assert column("int", "\U0001f600") is None  # the driver counts its letters wrong
    rows = [{**THERE[0], "name": name} for name in "aB"]
    assert [c.name for c in load_columns(rows, ["b", "A"]) or ()] == ["B", "a"]
    assert load_columns(rows, ["a", "x"]) is None
    assert load_columns(rows, ["a", "A"]) is None
    assert load_columns([], ["a"]) is None


KEPT: list[tuple[Any, Any, Any]] = [
    (column("nvarchar", length=8), "blå😀", None),  # 5 units of 2 bytes are one too many
    (column("nvarchar", length=10), "blå😀", "blå😀"),
    (column("nvarchar", length=-1), "", ""),
    (column("nvarchar", length=-1), "x" * 70_000, "x" * 70_000),
    (column("nvarchar", length=10), 5, None),
    (column("varchar", length=10), "abc", "abc"),
    (column("varchar", length=10), "å", None),
    (column("varchar", length=2), "abc", None),
    (column("varbinary", length=3), b"\x00\xff", b"\x00\xff"),
    (column("varbinary", length=3), b"1234", None),
    (column("varbinary", length=-1), b"x" * 9000, b"x" * 9000),
    (column("tinyint"), 255, 255),
    (column("tinyint"), -1, None),
    (column("smallint"), -(2**15), -(2**15)),
    (column("int"), 2**31, None),
    (column("int"), True, 1),
    (column("int"), "1", None),
    (column("bigint"), -(2**63), -(2**63)),
    (column("bit"), True, True),
    (column("bit"), 2, None),
    (column("float"), 5e-324, 5e-324),
    (column("float"), 2**53 + 1, None),
    (column("real"), 0.5, 0.5),
    (column("real"), 1e300, None),
    (column("decimal", precision=5, scale=2), Decimal("-123.45"), Decimal("-123.45")),
    (column("decimal", precision=5, scale=2), Decimal("123.456"), None),
    (column("decimal", precision=5, scale=2), Decimal(1234), None),
    (column("decimal", precision=38, scale=10), Decimal("1234567890123456789012345678.0123456789"),
     Decimal("1234567890123456789012345678.0123456789")),
    (column("decimal", precision=38, scale=0), 10**38 - 1, Decimal(10**38 - 1)),
    (column("decimal", precision=38, scale=0), 0, Decimal(0)),
    (column("decimal", precision=5, scale=2), 1.5, None),
    (column("date"), dt.date(1, 1, 1), dt.date(1, 1, 1)),
    (column("date"), NAIVE, None),
    (column("time", scale=7), dt.time(23, 59, 59, 999_999), dt.time(23, 59, 59, 999_999)),
    (column("time", scale=3), dt.time(0, 0, 0, 1), None),
    (column("datetime2", scale=6), NAIVE.replace(year=9999, microsecond=999_999),
     NAIVE.replace(year=9999, microsecond=999_999)),
    (column("datetime2", scale=0), dt.datetime(2026, 5, 6, 7, 8, 9, tzinfo=OSLO), NAIVE),
    (column("datetimeoffset", scale=6), dt.datetime(2026, 5, 6, 7, 8, 9, 10, tzinfo=OSLO),
     dt.datetime(2026, 5, 6, 7, 8, 9, 10, tzinfo=OSLO)),
    (column("datetimeoffset", scale=6), NAIVE, NAIVE.replace(tzinfo=UTC)),
    (column("datetimeoffset", scale=6), dt.datetime(1, 1, 1, tzinfo=OSLO), None),
    (column("uniqueidentifier"), A_UUID, A_UUID),
    (column("uniqueidentifier"), str(A_UUID), None),
]  # fmt: skip


@pytest.mark.parametrize(("made", "value", "kept"), KEPT)
def test_a_value_is_sent_as_it_is_or_not_at_all(made, value, kept):
    if kept is None:
        with pytest.raises(Unlike) as unlike:
            loadable([made], [(None,), (value,)])
        assert unlike.value.args == (1, 0)
    else:
        assert loadable([made], [(value,)]) == [(kept,)]


def test_null_goes_where_it_may():
    assert loadable([column("int")], [(None,)]) == [(None,)]
    with pytest.raises(Unlike):
        loadable([column("int", nullable=0)], [(None,)])


# ---- the bytes -------------------------------------------------------------------------------------------------------


class Pipe:
    """What is written to it, for the driver's reader: its requests and its answers are in the same packets."""

    def __init__(self) -> None:
        self.written, self.at = bytearray(), 0

    def send(self, data: Any) -> int:
        self.written += data
        return len(data)

    sendall = send

    def recv(self, size: int) -> bytes:
        found = bytes(self.written[self.at : self.at + size])
        self.at += len(found)
        return found

    def recv_into(self, buffer: Any, size: int = 0) -> int:
        found = self.recv(min(size or len(buffer), len(buffer)))
        buffer[: len(found)] = found
        return len(found)

    def is_connected(self) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def there_and_back(server, make):
    """Sends rows as the driver does, and reads the packets as if they were an answer: the format is the same."""

    async def run(columns: list[LoadColumn], rows: list[tuple[Any, ...]]) -> tuple[list[Any], list[Any]]:
        async with make() as provider, borrowed(provider) as connection:
            session = connection.wire._session
            pipe = Pipe()
            there = _TdsSession(tds=session._tds, transport=pipe, tzinfo_factory=None, env=session._env, bufsize=4096)
            there._tds = session._tds
            there.state = tds_base.TDS_IDLE
            there.submit_bulk(described(columns), rows)
            at = 0
            while at < len(pipe.written):  # each packet says that it is one of a bulk load: as an answer it is another
                assert pipe.written[at] == tds_base.PacketType.BULK
                pipe.written[at] = tds_base.PacketType.REPLY
                at += struct.unpack_from(">H", pipe.written, at + 2)[0]
            there.begin_response()
            there.find_result_or_done()
            names = [c.column_name for c in there.res_info.columns]
            found = []
            while (row := there.fetchone()) is not None:
                found.append(tuple(row))
            return names, found

    return run


@asynccontextmanager
async def borrowed(provider):
    slot = await provider._pool.acquire()
    try:
        yield slot.connection
    finally:
        provider._pool.discard(slot)


async def test_what_is_sent_reads_as_what_was_given(there_and_back):
    made = [(one, kept) for one, _, kept in KEPT if kept is not None]
    columns = [LoadColumn(**{**vars(one), "name": f"c{n} æ]"}) for n, (one, _) in enumerate(made)]
    row = tuple(kept for _, kept in made)
    names, found = await there_and_back(columns, [row, tuple(None for _ in made), row])
    assert names == [c.name for c in columns]
    assert found == [row, (None,) * len(row), row]


async def test_many_rows_are_cut_into_packets(there_and_back):
    columns = [column("int", "id"), column("nvarchar", "text", length=-1), column("varbinary", "data", length=-1)]
    rows = [(n, f"blåbær {n} " * 50, bytes([n % 256]) * 300) for n in range(500)]
    _, found = await there_and_back(columns, rows)
    assert found == rows


# ---- one way or the other --------------------------------------------------------------------------------------------


class Transaction:
    """What `bulk_insert` asks of a transaction; it remembers it."""

    def __init__(self, columns: list[Any], *, loads: bool = True) -> None:
        self._provider = AzureSQLProvider(database="app", username="app", password="x", location="norway")
        self._columns, self.loads = columns, loads
        self.loaded: list[Any] = []
        self.executed: list[Any] = []

    async def query(self, sql: str, parameters: Any) -> Any:
        assert (sql, parameters) == (COLUMNS, ["[people]"])
        return self._columns

    async def load(self, insert: str, text: str, columns: Any, rows: Any) -> None:
        assert effect(insert) is Effect.WRITES
        assert len(columns) == len(NAMES)
        assert sqlglot.parse_one(insert, dialect="tsql")
        self.loaded.append((text, rows))

    async def execute(self, sql: str, values: Any) -> int:
        assert sqlglot.parse_one(sql, dialect="tsql")
        self.executed.append(self._provider._values(sql, values))
        return 1


NAMES = ["id", "na]me"]


async def insert(tx, rows, **options):
    return await bulk.bulk_insert(tx, "people", NAMES, rows, **options)


async def test_rows_of_their_columns_types_are_loaded():
    tx = Transaction(THERE)
    assert await insert(tx, ((n, "å") for n in range(25)), batch_size=10) == 25
    assert not tx.executed
    assert [len(rows) for _, rows in tx.loaded] == [10, 10, 5]
    assert {text for text, _ in tx.loaded} == {
        "INSERT BULK [people] ([id] int, [Na]]me] nvarchar(10)) WITH (CHECK_CONSTRAINTS, FIRE_TRIGGERS, KEEP_NULLS)"
    }


async def test_a_batch_with_a_value_that_the_server_has_to_convert_goes_as_parameters():
    tx = Transaction(THERE)
    rows = [(n, "å") for n in range(10)] + [("10", "x")] + [(n, None) for n in range(11, 20)]
    assert await insert(tx, rows, batch_size=10) == 20
    assert [len(rows) for _, rows in tx.loaded] == [10]
    assert [len(values) for values in tx.executed] == [20]
    tx = Transaction(THERE)
    assert await insert(tx, [(1, "x" * 11)]) == 1  # too long: the server says so in its own words
    assert (len(tx.loaded), len(tx.executed)) == (0, 1)


@pytest.mark.parametrize("tx", [Transaction(THERE, loads=False), Transaction([])], ids=["the driver", "the table"])
async def test_without_a_load_they_go_as_parameters(tx):
    assert await insert(tx, [(n, "å") for n in range(2500)]) == 2500
    assert not tx.loaded
    assert [len(values) for values in tx.executed] == [2000, 2000, 1000]
    for options in ({"triggers": False}, {"constraints": False}, {"lock_table": True}):
        with pytest.raises(ConfigurationError, match="options of a bulk load"):
            await insert(tx, [], **options)


async def test_heavy_rows_go_in_smaller_batches(monkeypatch):
    monkeypatch.setattr(bulk, "_HEAVY", 100)
    tx = Transaction(THERE)
    assert await insert(tx, [(n, "x" * 9) for n in range(30)]) == 30
    assert [len(rows) for _, rows in tx.loaded] == [12, 12, 6]


async def test_the_options_of_a_load():
    tx = Transaction(THERE)
    await insert(tx, [(1, "a")], triggers=False, constraints=False, lock_table=True)
    assert tx.loaded[0][0].endswith(" WITH (TABLOCK, KEEP_NULLS)")
    with pytest.raises(QueryRejected, match=r"column 1 of row 2 is not of the type that the column has \(int\)"):
        await insert(tx, [(1, "a"), ("b", "13097248022")], triggers=False)


@pytest.mark.parametrize("batch_size", [0, -1, True, "5", 1.5])
async def test_what_is_no_size_of_a_batch(batch_size):
    with pytest.raises(ConfigurationError, match="batch_size"):
        await insert(Transaction(THERE), [], batch_size=batch_size)


@pytest.mark.parametrize("loads", [True, False])
async def test_what_is_no_row(loads):
    for rows, says in (
        ([(1, "a"), (2,)], "row 2 has 1 values for 2 columns"),
        ([(1, "a"), "ab"], "row 2 is a str"),
        ([(1, "a"), (2, "a\0b")], "the value of column 2 of row 2 holds a NUL"),
        ([(1, {"13097248022"})], "the value of column 2 of row 1 is a set"),
    ):
        with pytest.raises(QueryRejected, match=says) as refused:
            await insert(Transaction(THERE, loads=loads), rows)
        assert "13097248022" not in str(refused.value)


def test_what_asks_the_catalogue_is_t_sql_and_only_reads():
    assert sqlglot.parse_one(COLUMNS, dialect="tsql")
    assert effect(COLUMNS) is Effect.READS


# ---- on a server that knows no bulk load ----------------------------------------------------------------------------


async def test_a_load_that_the_server_refuses_leaves_the_transaction_as_it_was(azuresql):
    async with azuresql.transaction() as tx:
        assert tx.loads
        text = "INSERT BULK [people] ([id] int) WITH (KEEP_NULLS)"
        with pytest.raises((QueryRejected, ConnectionFailed)):
            await tx.load("INSERT INTO people (id) VALUES (@P1)", text, [column("int", "id")], [(1,)])


async def test_a_load_is_refused_as_the_insert_is(azuresql):
    async with azuresql.transaction(read_only=True) as tx:
        with pytest.raises(QueryRejected, match="only reads"):
            await tx.load("INSERT INTO people (id) VALUES (@P1)", "INSERT BULK people (id int)", [], [])
