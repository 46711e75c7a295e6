"""The audit log: what audited inserts cost while the log is sealed, and how long a long log takes to verify.

Both variants insert the same rows through the same provider, from 16 tasks, durably. Ours writes the audit entry with
each, in the same statement, while a task seals the log every second; the peer writes the rows alone, and so does
asyncpg's own pool. A round of ours takes two seconds, so that the sealer has its turns in it. A chain of hashes, for
which each entry must wait for the one before it, reaches 0.1 to 0.3 of the plain rate.

Audited inserts that come at the same time are committed together (docs/decisions/0028), which pays for the entries;
"each by itself" is the same with `group_commit=False`. How much an entry is of the whole hangs on what else an insert
waits for: so it is shown twice, on this machine's disk, which flushes in less than a tenth of a millisecond, and with a
millisecond before each flush (`commit_delay`), which is what a database server's disk in another cabinet takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import asyncpg

from benchmarks import Figure, fan, interleave
from benchmarks.audited_writes import with_manager
from datavern import DatabaseManager
from datavern.testing.postgresql import PostgreSQLServer

WRITERS = 16
ENTRIES = 1_000_000
BATCH = 10_000
ROUND = 48_000
"""Inserts in a round: some two seconds of ours."""
DETAILS = {"fields": ["name", "email"]}
INSERT = "INSERT INTO people (name, email) VALUES ($1, $2)"


async def writing(db: DatabaseManager, provider: Any, database: Any, *, disk: str, n: int = ROUND) -> Figure:
    """Audited inserts with the sealer running, and plain ones."""
    await provider.execute(
        "CREATE TABLE people (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, email text)"
    )

    async def audited(i: int) -> None:
        entry = await db.audit.entry("person_added", subject="test-user", dataset="people", details=DETAILS)
        await provider.execute(INSERT, [f"name {i}", "test@example.no"], audit=entry)

    async def plain(i: int) -> None:
        await provider.execute(INSERT, [f"name {i}", "test@example.no"])

    most = provider.settings.pool.max
    pool = await asyncpg.create_pool(database.settings["url"], min_size=most, max_size=most)

    async def pooled(i: int) -> None:
        await pool.execute(INSERT, f"name {i}", "test@example.no")

    alone = database.provider("main", location="norway", group_commit=False)
    others = DatabaseManager({"main": alone}, keyring=db._keyring, ledger="main")
    await others.open()

    async def by_itself(i: int) -> None:
        entry = await others.audit.entry("person_added", subject="test-user", dataset="people", details=DETAILS)
        await alone.execute(INSERT, [f"name {i}", "test@example.no"], audit=entry)

    def with_sealer(write: Callable[[int], Awaitable[None]]) -> Callable[[int], Awaitable[None]]:
        async def run(n: int) -> None:
            sealing = asyncio.create_task(db.audit.keep_sealed(every=1.0))
            await fan(write, WRITERS)(n)
            sealing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sealing

        return run

    variants = {
        "audited, sealer running": with_sealer(audited),
        "plain inserts": fan(plain, WRITERS),
        "audited, each by itself": with_sealer(by_itself),
        "asyncpg.Pool, plain inserts": fan(pooled, WRITERS),
    }
    times = await interleave(variants, n, rounds=7)
    await pool.close()
    await others.close()
    report = await db.audit.verify()
    assert report.ok
    assert report.entries > report.unsealed, "the sealer had no turn"
    return Figure(
        title=f"PostgreSQL: audited inserts, 16 writers, the sealer running, {disk}",
        ours="audited, sealer running",
        times=times,
        at_most={"plain inserts": 1 / 0.87},
        note=f"promised is 0.87 × the rate of plain inserts; {report.entries:,} of "
        f"{report.entries + report.unsealed:,} entries were sealed meanwhile",
    )


async def verifying(db: DatabaseManager, provider: Any, database: Any) -> Figure:  # noqa: ARG001  (as the others)
    """A million entries, verified; the peer is the clock."""
    log = db.audit.log()
    for at in range(0, ENTRIES, BATCH):
        entries = [
            {"action": "person_added", "actor": "case-worker-7", "handle": "ab" * 16, "dataset": "people",
             "details": {**DETAILS, "n": n}}
            for n in range(at, at + BATCH)
        ]  # fmt: skip
        async with provider.transaction() as tx:
            await log.append_many(tx, entries)
    await db.audit.seal()
    times = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        started = time.perf_counter()
        report = await db.audit.verify()
        times.append(time.perf_counter() - started)
        assert report.ok
        assert report.entries >= ENTRIES
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return Figure(
        title=f"{provider.engine}: verify of {ENTRIES:,} entries",
        ours="verify",
        times={"verify": times, "15 s": [15.0] * len(times)},
        at_most={"15 s": 1.0},
        note=f"the process grew by {grown:.0f} MiB meanwhile",
    )


async def figures() -> list[Figure]:
    """On PostgreSQL, durable; the verification on both engines. Nothing is pinned: 16 writers keep all cores busy."""
    embedded = await with_manager("sqlite", None, verifying)
    with PostgreSQLServer(durable=True, settings={"commit_delay": "1000", "commit_siblings": "0"}) as server:
        flushing = await with_manager("postgresql", server, partial(writing, disk="a flush takes 1 ms", n=ROUND // 2))
    with PostgreSQLServer(durable=True) as server:
        return [
            *await with_manager("postgresql", server, partial(writing, disk="this disk")),
            *flushing,
            *await with_manager("postgresql", server, verifying),
            *embedded,
        ]
