"""Deletions of a retention run on PostgreSQL, beside the plain batched DELETE that leaves no trace of what it did.

Rows have a sealed field with its lookup index, the row's tag, and an index on the date. A batch of ours locks its rows,
asks for legal holds, deletes, and writes its audit entry, in one transaction that commits durably; the peer's is one
statement, `DELETE … WHERE ctid IN (SELECT … LIMIT n)`, by asyncpg. Most of the rows are made by the server itself: what
stands in their sealed columns is as long as what is sealed. Then a million rows in one run: their rate, and by how much
the process grew.
"""

from __future__ import annotations

import datetime as dt
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks import Figure, Tally
from datavern import DatabaseManager, DataMap, Dataset, Field, Keyring, PostgreSQLProvider
from datavern.testing.postgresql import PostgreSQLServer

ROWS = 20_000
BATCH = 500
ROUNDS = 9
MANY = 1_000_000
MEMORY = {"shared_buffers": "256MB", "max_wal_size": "4GB"}
BEFORE = dt.date(2025, 1, 1)

VISITS = Dataset(
    "visits",
    database="main",
    subject="who",
    retention="1d",
    retention_from="made",
    fields={"name": Field(sealed=True, lookup=True)},
)
_FILL = (
    "INSERT INTO {} (id, who, name, name_lookup, made, datavern_row) SELECT 'v' || i, 'p' || i % 1000, "
    "decode(repeat(md5(i::text), 4), 'hex'), sha256(i::text::bytea), date '2024-01-01' + i % 300, "
    "decode(md5(i::text), 'hex') FROM generate_series(1, {}) AS i"
)
_PEER = "DELETE FROM theirs WHERE ctid IN (SELECT ctid FROM theirs WHERE made < $1 ORDER BY made LIMIT $2)"


async def figures() -> list[Figure | Tally]:
    """All of them."""
    with tempfile.TemporaryDirectory() as folder, PostgreSQLServer(durable=True, settings=MEMORY) as server:
        keyring = f"file:{Path(folder) / 'keys'}"
        await (await Keyring.create(keyring)).close()
        url = server.url
        provider = PostgreSQLProvider.from_url(url, name="main", location="norway")
        connection = await asyncpg.connect(url)
        try:
            async with DatabaseManager({"main": provider}, data_map=DataMap([VISITS]), keyring=keyring) as db:
                await db.prepare("visits")
                await connection.execute("CREATE TABLE theirs (LIKE visits INCLUDING ALL)")
                return [await _beside(db, connection), await _many(db, connection)]
        finally:
            await connection.close()


async def _beside(db: Any, connection: Any) -> Figure:
    times: dict[str, list[float]] = {"datavern": [], "asyncpg, DELETE in batches": []}
    for turn in range(ROUNDS):
        for table in ("visits", "theirs"):
            await connection.execute(_FILL.format(table, ROWS))
            await connection.execute(f"VACUUM ANALYZE {table}")
        both = [("datavern", _ours(db)), ("asyncpg, DELETE in batches", _theirs(connection))]
        for name, run in both if turn % 2 else reversed(both):
            started = time.perf_counter()
            await run
            times[name].append((time.perf_counter() - started) / ROWS)
    return Figure(
        f"One row of {ROWS:,} that a retention run deletes, {BATCH} in a batch, sealed and audited",
        "datavern",
        times,
        note="The peer asks for no holds, writes no audit entry, and commits each statement by itself.",
    )


async def _ours(db: Any) -> None:
    report = await db.retention.run(batch_size=BATCH)
    if report.rows != ROWS:
        raise AssertionError(f"{report.rows} of {ROWS} rows ended")


async def _theirs(connection: Any) -> None:
    gone = 0
    while (number := int((await connection.execute(_PEER, BEFORE, BATCH)).split()[1])) > 0:
        gone += number
    if gone != ROWS:
        raise AssertionError(f"{gone} of {ROWS} rows ended")


async def _many(db: Any, connection: Any) -> Tally:
    await connection.execute(_FILL.format("visits", MANY))
    await connection.execute("VACUUM ANALYZE visits")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    report = await db.retention.run(batch_size=BATCH)
    seconds = time.perf_counter() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return Tally(
        f"A run over {MANY:,} rows that are past their time",
        "datavern",
        ("rows per second", "MiB that the process grew"),
        {"datavern": (report.rows / seconds, grown)},
        note="Memory does not grow with the table: a batch is read, ended, and forgotten.",
    )
