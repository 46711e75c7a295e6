"""A change with its audit entry, and under an idempotency key, against the same statements in an explicit transaction.

The peer runs the very statements that ours are made of, on one connection of asyncpg without a pool: BEGIN, the change,
the entry's insert, COMMIT, in ``async with connection.transaction()``. Both make their entry: ours through the audit
service, with the subject's handle and its checks; the peer's with a UUID, the time and JSON of the standard library,
and nothing checked. Every commit is durable, but where the figure says that fsync is off. On SQLite the peer is a
transaction of our own provider, since what there is to save is a commit's hops between threads and not its disk.
"""

from __future__ import annotations

import datetime as dt
import json
import tempfile
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks import Figure, apart, fan, interleave
from datavern import DatabaseManager, Keyring
from datavern.testing.databases import create_test_database
from datavern.testing.postgresql import PostgreSQLServer

ROWS = 10_000
CHANGE = "UPDATE accounts SET balance = balance + 1 WHERE id = $1"
KEY = "INSERT INTO datavern_idempotency (key, at, changed) VALUES ($1, $2, $3)"
DETAILS = {"fields": ["balance"]}


async def with_manager(engine: str, server: PostgreSQLServer | None, measure: Any) -> list[Figure]:
    """Figures over a manager with one empty database."""
    with tempfile.TemporaryDirectory() as folder:
        ring = await Keyring.create(f"file:{Path(folder) / 'keys'}")
        await ring.close()
        async with create_test_database(engine, server=server) as database:
            provider = database.provider("main", location="norway")
            async with DatabaseManager({"main": provider}, keyring=ring.url, ledger="main") as db:
                await provider.execute("CREATE TABLE accounts (id integer PRIMARY KEY, balance integer NOT NULL)")
                mark = "$1" if engine == "postgresql" else "?"
                rows = [(i,) for i in range(ROWS)]
                await provider.execute_many(f"INSERT INTO accounts (id, balance) VALUES ({mark}, 0)", rows)
                await provider.execute(CHANGE if engine == "postgresql" else CHANGE.replace("$1", "?"), [0])
                return [await measure(db, provider, database)]


def account(i: int) -> int:
    """Accounts in an order that no cache likes better than another."""
    return i * 7919 % ROWS


async def on_postgresql(db: DatabaseManager, provider: Any, database: Any, *, durable: bool) -> Figure:
    """One round trip against asyncpg's four."""
    raw = await asyncpg.connect(database.settings["url"])
    sample = await db.audit.entry("balance_changed", subject="test-user", dataset="accounts", details=DETAILS)
    entry, values = sample.statement(provider)
    handle = values[4]
    number = iter(range(10**9))

    async def audited(i: int) -> None:
        made = await db.audit.entry("balance_changed", subject="test-user", dataset="accounts", details=DETAILS)
        await provider.execute(CHANGE, [account(i)], audit=made)

    async def keyed(i: int) -> None:
        await provider.execute(CHANGE, [account(i)], idempotency_key=f"key {next(number)}")

    async def both(i: int) -> None:
        made = await db.audit.entry("balance_changed", subject="test-user", dataset="accounts", details=DETAILS)
        await provider.execute(CHANGE, [account(i)], audit=made, idempotency_key=f"key {next(number)}")

    async def explicit(i: int) -> None:
        id_, at = str(uuid.uuid4()), dt.datetime.now(dt.UTC).isoformat()
        details = json.dumps(DETAILS)
        async with raw.transaction():
            await raw.execute(CHANGE, account(i))
            await raw.execute(entry, id_, at, "balance_changed", None, handle, "accounts", details)

    async def alone(i: int) -> None:
        await provider.execute(CHANGE, [account(i)])

    await keyed(0)
    times = await interleave(
        {
            "execute(…, audit=…)": fan(audited, 1),
            "asyncpg, explicit transaction": fan(explicit, 1),
            "execute(…, idempotency_key=…)": fan(keyed, 1),
            "execute(…) with both": fan(both, 1),
            "execute(…), the change alone": fan(alone, 1),
        },
        150,
    )
    await raw.close()
    return Figure(
        title=f"PostgreSQL: an update with its audit entry, {'durable' if durable else 'fsync off'}, 1 task",
        ours="execute(…, audit=…)",
        times=times,
        at_most={"asyncpg, explicit transaction": 0.65},
        note=(
            "client and server on a core each; both pay for the disk once: the slower it is, the closer they are"
            if durable
            else "what the statements and the round trips cost by themselves, as on a disk that is very quick"
        ),
    )


async def on_sqlite(db: DatabaseManager, provider: Any, database: Any) -> Figure:  # noqa: ARG001  (as the other)
    """One job of the writer against the steps of a transaction."""
    change = CHANGE.replace("$1", "?")

    async def audited(i: int) -> None:
        made = await db.audit.entry("balance_changed", subject="test-user", dataset="accounts", details=DETAILS)
        await provider.execute(change, [account(i)], audit=made)

    async def explicit(i: int) -> None:
        async with provider.transaction() as tx:
            await tx.execute(change, [account(i)])
            await db.audit.record(
                "balance_changed", subject="test-user", dataset="accounts", details=DETAILS, transaction=tx
            )

    variants = {
        "execute(…, audit=…)": fan(audited, 20),
        "the same in a transaction": fan(explicit, 20),
    }
    return Figure(
        title="SQLite: an update with its audit entry, durable, 20 tasks",
        ours="execute(…, audit=…)",
        times=await interleave(variants, 400),
        note="what comes together is committed together; a transaction holds the writer alone",
    )


async def figures() -> list[Figure]:
    """On both engines, durable; on PostgreSQL also without the disk."""
    found = await with_manager("sqlite", None, on_sqlite)
    for durable in (True, False):
        with PostgreSQLServer(durable=durable) as server, apart(server.pid):
            found += await with_manager("postgresql", server, partial(on_postgresql, durable=durable))
    return found
