"""One erasure across PostgreSQL, MongoDB, Redis and SQLite, an access request there, and erasures by the thousand.

Ten datasets: four in PostgreSQL, which is the ledger too, and two each in SQLite, MongoDB and Redis; each policy of the
data map is among them. In every table of both relational stores stand a million people, with the indexes that `prepare`
makes, and the key store holds a million subjects' keys and handles. Most of these rows are made by the servers
themselves: what stands in their sealed columns is as long as what is sealed, and no key opens it. The people that are
asked for were written by Datavern, sealed and indexed. MongoDB and Redis hold 20,000 people each. Commits of PostgreSQL
and SQLite are durable. An erasure signs its certificate, and is journalled, audited and crash-safe; beside it, without
a promise, stands what deletes the same rows by hand and leaves none of that: the drivers' own deletes, one transaction
for each relational database.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks import Tally
from datavern import (
    DatabaseManager,
    DataMap,
    Dataset,
    Field,
    Keyring,
    MongoDBProvider,
    PostgreSQLProvider,
    RedisProvider,
    SQLiteProvider,
    SubjectRequest,
)
from datavern.testing.mongodb import MongoDBServer
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.valkey import ValkeyServer

PEOPLE = 1_000_000
FEW = 20_000
"""People in the stores that are not relational."""
ASKED = 200
"""People whose erasure is measured, and as many whose access requests are."""
BATCH = 10_000

MEMORY = {"shared_buffers": "512MB", "max_wal_size": "4GB"}
"""What a server with millions of rows is given at the least; the test server's own 32 MB are for empty tables."""

_SEALED = {"name": Field(sealed=True), "email": Field(sealed=True, lookup=True)}
_LAW: dict[str, Any] = {"erasure": "retain", "retention": "5y", "legal_basis": "bokføringsloven § 13"}
TABLES = (
    Dataset("users", database="main", subject="id", erasure="anonymize", fields=_SEALED),
    Dataset("orders", database="main", subject="who", fields={"item": Field(), "address": Field(sealed=True)}),
    Dataset("events", database="main", subject="who", fields={"what": Field()}),
    Dataset("invoices", database="main", subject="who", fields={"text": Field()}, **_LAW),
)
OTHERS = (
    Dataset("notes", database="local", subject="who", fields={"note": Field(sealed=True)}),
    Dataset("devices", database="local", subject="who", erasure="soft", fields={"model": Field()}),
    Dataset("cases", database="documents", subject="owner.id"),
    Dataset("letters", database="documents", subject="who", erasure="anonymize", fields={"text": Field()}),
    Dataset("sessions", database="cache", key="session:{subject}"),
    Dataset("baskets", database="cache", key="basket:{subject}"),
)
SEALED = "decode(repeat(md5(i::text), 4), 'hex')"
"""64 bytes, as the server makes them."""

_ROWS = {
    "users": f"(id, name, email, email_lookup, datavern_row) SELECT 'p' || i, {SEALED}, {SEALED}, "
    "sha256(i::text::bytea), decode(md5(i::text), 'hex')",
    "orders": f"(id, who, item, address, datavern_row) SELECT 'o' || i, 'p' || i, 'chair', {SEALED}, "
    "decode(md5(i::text), 'hex')",
    "events": "(id, who, what) SELECT 'e' || i, 'p' || i, 'came by'",
    "invoices": "(id, who, text) SELECT 'i' || i, 'p' || i, 'a chair'",
    "datavern_handles": "(subject_tag, handle, state, created_at) SELECT sha256(('t' || i)::bytea), "
    "md5('h' || i), 'living', '2026-01-01T00:00:00Z'",
    "datavern_keys": "(key_id, slot, dataset, subject_tag, state, wrapped, epoch, changed, created_at) SELECT "
    "decode(md5('k' || i), 'hex'), sha256(('s' || i)::bytea), 'users', sha256(('t' || i)::bytea), 'living', "
    f"{SEALED}, (SELECT epoch FROM datavern_store), 0, '2026-01-01T00:00:00Z'",
    "datavern_key_life": "(key_id, dead, changed_at) SELECT decode(md5('k' || i), 'hex'), 0, '2026-01-01T00:00:00Z'",
}
_LOCAL = {
    "notes": "(id, who, note, datavern_row) SELECT 'n' || i, 'p' || i, randomblob(64), randomblob(16)",
    "devices": "(id, who, model) SELECT 'd' || i, 'p' || i, 'phone'",
}


async def crowd(url: str, tables: Sequence[str]) -> None:
    """A million people in tables of PostgreSQL: their indexes are made when the rows are there."""
    connection = await asyncpg.connect(url)
    await connection.execute("SET synchronous_commit = off; SET maintenance_work_mem = '256MB'")
    for table in tables:
        indexes = await connection.fetch(
            "SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS made FROM pg_index i "
            "WHERE i.indrelid = $1::regclass AND NOT EXISTS "
            "(SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid)",
            table,
        )
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['name']}")
        await connection.execute(f"INSERT INTO {table} {_ROWS[table]} FROM generate_series(1, {PEOPLE}) AS i")
        for index in indexes:
            await connection.execute(index["made"])
        await connection.execute(f"ANALYZE {table}")
    await connection.execute("CHECKPOINT")
    await connection.close()


async def crowd_elsewhere(db: DatabaseManager) -> None:
    """The others: a million people in SQLite, some in MongoDB and Redis."""
    local, numbers = db["local"], "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {})"
    for table, rows in _LOCAL.items():
        index = f"{table}_who_idx"
        await local.execute(f"DROP INDEX {index}")
        await local.execute(f"{numbers.format(PEOPLE)} INSERT INTO {table} {rows} FROM n")
        await local.execute(f"CREATE INDEX {index} ON {table} (who)")
    mongo, redis = db["documents"], db["cache"]
    for start in range(0, FEW, 5_000):
        some = range(start, start + 5_000)
        await mongo.raw("cases").insert_many([{"_id": f"c{i}", "owner": {"id": f"p{i}"}} for i in some])
        await mongo.raw("letters").insert_many([{"_id": f"l{i}", "who": f"p{i}", "text": "Hello"} for i in some])
        pipe = redis.pipeline()
        for i in some:
            pipe.set(f"session:p{i}", "x")
            pipe.set(f"basket:p{i}", "x")
        await pipe.execute()


async def write(db: DatabaseManager, people: Sequence[str], datasets: Sequence[Dataset]) -> None:
    """The people that are asked for, in every dataset, as an application writes them."""
    rows: dict[str, Callable[[str], list[dict[str, Any]]]] = {
        "users": lambda p: [{"id": p, "name": f"Person {p}", "email": f"{p}@example.no"}],
        "orders": lambda p: [{"id": f"{p}-{n}", "who": p, "item": "chair", "address": "Storgata 1"} for n in range(3)],
        "events": lambda p: [{"id": f"{p}-{n}", "who": p, "what": "came by"} for n in range(5)],
        "invoices": lambda p: [{"id": p, "who": p, "text": "a chair"}],
        "notes": lambda p: [{"id": p, "who": p, "note": "called"}],
        "devices": lambda p: [{"id": p, "who": p, "model": "phone"}],
    }
    for dataset in datasets:
        if dataset.name in rows:
            for at in range(0, len(people), 500):
                some = people[at : at + 500]
                await db.personal(dataset.name).insert_many([row for p in some for row in rows[dataset.name](p)])
    if any(dataset.database == "documents" for dataset in datasets):
        mongo, redis = db["documents"], db["cache"]
        for p in people:
            await mongo.raw("cases").insert_one({"_id": p, "owner": {"id": p}})
            await mongo.raw("letters").insert_many([{"_id": f"{p}-{n}", "who": p, "text": "Hello"} for n in range(2)])
            await redis.set(f"session:{p}", "x")
            await redis.set(f"basket:{p}", "x")


@asynccontextmanager
async def everywhere(url: str) -> AsyncIterator[tuple[DatabaseManager, str]]:
    """A manager over all four, full; and its folder."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ring = await Keyring.create(f"file:{folder / 'keys'}")
        await ring.close()
        mongodb, valkey = stack.enter_context(MongoDBServer()), stack.enter_context(ValkeyServer())
        databases = {
            "main": PostgreSQLProvider.from_url(url, name="main", location="norway"),
            "local": SQLiteProvider(folder / "local.db", name="local", location="norway"),
            "documents": MongoDBProvider(name="documents", uri=mongodb.uri("bench"), location="norway"),
            "cache": RedisProvider(name="cache", port=valkey.port, location="norway"),
        }
        data_map = DataMap([*TABLES, *OTHERS])
        manager = DatabaseManager(databases, data_map=data_map, keyring=ring.url, ledger="main", organisation="Bench")
        db = await stack.enter_async_context(manager)
        for dataset in data_map:
            await db.prepare(dataset.name)
        await crowd(url, list(_ROWS))
        await crowd_elsewhere(db)
        yield db, url


async def timed(people: Sequence[str], one: Callable[[str], Awaitable[Any]]) -> list[float]:
    """Seconds that each took, one after the other."""
    times = []
    for person in people:
        started = time.perf_counter()
        await one(person)
        times.append(time.perf_counter() - started)
    return times


def percentiles(times: Sequence[float]) -> tuple[float, float]:
    """p50 and p99, in milliseconds."""
    return statistics.median(times) * 1000, statistics.quantiles(times, n=100, method="inclusive")[98] * 1000


async def single(db: DatabaseManager, url: str) -> Tally:
    """One request at a time, of each kind."""
    asked = [f"asked-{n}" for n in range(3 * ASKED)]
    await write(db, asked, [*TABLES, *OTHERS])
    accessed, erased, by_hand = asked[:ASKED], asked[ASKED : 2 * ASKED], asked[2 * ASKED :]

    async def request(kind: Any, person: str) -> None:
        answer = await db.subject_requests.process(SubjectRequest(kind, subject=person))
        assert answer.success

    raw = await asyncpg.connect(url)
    local, mongo, redis = db["local"], db["documents"], db["cache"]

    async def delete(person: str) -> None:
        async with raw.transaction():
            for dataset in TABLES:
                await raw.execute(f"DELETE FROM {dataset.name} WHERE {dataset.subject} = $1", person)
        async with local.transaction() as tx:
            await tx.execute("DELETE FROM notes WHERE who = ?", [person])
            await tx.execute("DELETE FROM devices WHERE who = ?", [person])
        await mongo.raw("cases").delete_many({"owner.id": person})
        await mongo.raw("letters").delete_many({"who": person})
        await redis.delete(f"session:{person}", f"basket:{person}")

    for warm in ("access", "erasure"):
        for n in range(FEW // 2, FEW // 2 + 5):
            await request(warm, f"warm-{n}")
    counts = {
        "erasure": percentiles(await timed(erased, lambda p: request("erasure", p))),
        "access request": percentiles(await timed(accessed, lambda p: request("access", p))),
        "deletes by hand, the drivers' own": percentiles(await timed(by_hand, delete)),
    }
    await raw.close()
    columns = ("p50, ms", "p99, ms")
    worst = {"erasure and access": tuple(max(counts[k][i] for k in list(counts)[:2]) for i in range(2))}
    return Tally(
        title=f"One request across four engines, ten datasets, {PEOPLE:,} people in each table",
        ours="erasure and access",
        columns=columns,
        counts={**counts, **worst},
        at_most={"p50, ms": 150, "p99, ms": 1000},
        note="the last row is the slower of the two, which the promise is about; the deletes leave no journal, no "
        "certificate, no audit entry and no ended keys; 50 ms of an erasure are the wait before the second look",
    )


async def batch(db: DatabaseManager) -> Tally:
    """People by the thousand, on PostgreSQL alone."""
    people = [f"leaves-{n}" for n in range(BATCH)]
    await write(db, people, TABLES)
    started = time.perf_counter()
    done = 0
    async for _, answer in db.subject_requests.erase_many(people):
        done += getattr(answer, "certificate", None) is not None
    seconds = time.perf_counter() - started
    assert done == BATCH
    return Tally(
        title=f"{BATCH:,} erasures in a batch, four datasets of PostgreSQL, {PEOPLE:,} people in each",
        ours="erase_many",
        columns=("ms for a person", "people in a second"),
        counts={"erase_many": (seconds / BATCH * 1000, BATCH / seconds)},
        at_most={"ms for a person": 5},
        note="10 rows a person, under two keys; each with a journal entry, six audit entries and a signed certificate; "
        "5 ms for a person are 200 people in a second",
    )


async def figures() -> list[Tally]:
    """Single requests over all four engines, then the batch on PostgreSQL alone."""
    with PostgreSQLServer(durable=True, settings=MEMORY) as server:
        admin = await asyncpg.connect(server.url_of("postgres"))
        await admin.execute("CREATE DATABASE erasures TEMPLATE template0")
        await admin.close()
        url = server.url_of("erasures")
        async with everywhere(url) as (db, _):
            found = [await single(db, url)]
            ring = db.keys._keyring.url
            main = PostgreSQLProvider.from_url(url, name="main", location="norway")
            alone = DatabaseManager({"main": main}, data_map=DataMap(TABLES), keyring=ring, ledger="main")
            async with alone as only:
                found.append(await batch(only))
    return found
