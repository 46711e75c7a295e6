"""What writers notice of a failover: twenty of them, a real primary that is killed, demoted or frozen, a real replica.

Each client has an incident of its own, one after the other, in rounds. The time is from the moment in which the
promoted server takes writes to the first write that is acknowledged; of the freeze from the freeze, since there the
calls that hang decide. Whoever is not back after `GIVEN_UP` seconds counts with that. The peers have the host list and
the check of connections that their documentation offers, and every call a deadline of `DEADLINE` seconds. Failed writes
are counted from the incident to the end of the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import psycopg_pool

from benchmarks import Figure
from datavern import FailoverGroup, Pool, PostgreSQLProvider
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.replicas import PostgreSQLReplica, demote, follow, freeze, kill, promote, thaw

WRITERS = 20
ROUNDS = 3
DEADLINE = 1.0
GIVEN_UP = 10.0
Servers = tuple[PostgreSQLServer, PostgreSQLServer]


class Ours:
    """A failover group; every write under a key of its own."""

    name = "Datavern"

    def __init__(self, primary: PostgreSQLServer, standby: PostgreSQLServer) -> None:
        members = [
            PostgreSQLProvider.from_url(server.url, name=name, pool=Pool(min=2, max=10))
            for name, server in (("oslo", primary), ("bergen", standby))
        ]
        self._group = FailoverGroup("main", primary=members[0], secondaries=members[1:])
        self._keys = 0

    async def open(self) -> None:
        await self._group.connect()

    async def write(self, writer: int) -> None:
        self._keys += 1
        key = f"{writer}-{self._keys}-{time.time_ns()}"
        await self._group.execute("INSERT INTO ledger VALUES ($1)", [writer], idempotency_key=key)

    async def close(self) -> None:
        await self._group.close()


class AsyncpgPool:
    """asyncpg's own pool, with both hosts and a primary asked for."""

    name = "asyncpg.Pool"

    def __init__(self, primary: PostgreSQLServer, standby: PostgreSQLServer) -> None:
        self._hosts = {"host": ["127.0.0.1"] * 2, "port": [primary.port, standby.port]}
        self._password = primary.password
        self._pool: Any = None

    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(
            **self._hosts, user="postgres", password=self._password, database="postgres",
            target_session_attrs="primary", min_size=2, max_size=10, command_timeout=DEADLINE, timeout=DEADLINE,
        )  # fmt: skip

    async def write(self, writer: int) -> None:
        async with asyncio.timeout(DEADLINE + 0.5):
            await self._pool.execute("INSERT INTO ledger VALUES ($1)", writer)

    async def close(self) -> None:
        self._pool.terminate()


class PsycopgPool:
    """psycopg_pool with both hosts, a read-write session asked for, and every connection checked before use."""

    name = "psycopg_pool, check"

    def __init__(self, primary: PostgreSQLServer, standby: PostgreSQLServer) -> None:
        self._info = (
            f"host=127.0.0.1,127.0.0.1 port={primary.port},{standby.port} user=postgres password={primary.password} "
            "dbname=postgres target_session_attrs=read-write connect_timeout=2"
        )
        self._pool: Any = None

    async def open(self) -> None:
        self._pool = psycopg_pool.AsyncConnectionPool(
            self._info, min_size=2, max_size=10, open=False, timeout=GIVEN_UP * 2,
            check=psycopg_pool.AsyncConnectionPool.check_connection,
        )  # fmt: skip
        await self._pool.open(wait=True)

    async def write(self, writer: int) -> None:
        async with self._pool.connection() as connection, asyncio.timeout(DEADLINE):
            await connection.execute("INSERT INTO ledger VALUES (%s)", [writer])

    async def close(self) -> None:
        with suppress(Exception):
            async with asyncio.timeout(3):
                await self._pool.close(timeout=1)


CLIENTS = (Ours, AsyncpgPool, PsycopgPool)


@dataclass
class Told:
    """What one client's writers saw."""

    since: float = float("inf")
    failed: int = 0
    acknowledged: list[float] = field(default_factory=list)
    over: bool = False

    def first(self, after: float) -> float | None:
        """When the first write was acknowledged after that."""
        return next((at for at in self.acknowledged if at > after), None)


Incident = Callable[[PostgreSQLServer, PostgreSQLServer, Told], Awaitable[tuple[float, float]]]
"""What happens to a primary and its standby; gives the moment from which the time counts, and that of the promotion."""


def killed(pause: float) -> Incident:
    """kill -9, and a promotion after so many seconds."""

    async def incident(primary: PostgreSQLServer, standby: PostgreSQLServer, told: Told) -> tuple[float, float]:
        told.since = time.monotonic()
        await asyncio.to_thread(kill, primary)
        await asyncio.sleep(pause)
        at = await _promoted(standby)
        return at, at

    return incident


async def demoted(primary: PostgreSQLServer, standby: PostgreSQLServer, told: Told) -> tuple[float, float]:
    """Made read-only with its sessions open, and the standby promoted."""
    told.since = time.monotonic()
    await demote(primary)
    at = await _promoted(standby)
    return at, at


async def frozen(primary: PostgreSQLServer, standby: PostgreSQLServer, told: Told) -> tuple[float, float]:
    """SIGSTOP, and the standby promoted at once."""
    told.since = time.monotonic()
    await asyncio.to_thread(freeze, primary)
    return told.since, await _promoted(standby)


async def _promoted(standby: PostgreSQLServer) -> float:
    """Promote, and give the moment in which it takes writes."""
    watching = await asyncpg.connect(standby.url)
    await asyncio.to_thread(promote, standby, wait=False)
    while await watching.fetchval("SELECT pg_is_in_recovery()"):  # noqa: ASYNC110  (the server has no event)
        await asyncio.sleep(0.001)
    at = time.monotonic()
    await watching.close()
    return at


async def _run(make: Any, servers: Servers, incident: Incident) -> tuple[float, int]:
    """One incident of one client: seconds to the first write, and failed writes."""
    client, told = make(*servers), Told()
    await client.open()

    async def write(writer: int) -> None:
        while not told.over:
            try:
                await client.write(writer)
            except Exception:  # noqa: BLE001  (whatever the client raises is a failed write)
                told.failed += time.monotonic() > told.since
            else:
                told.acknowledged.append(time.monotonic())
            await asyncio.sleep(0.01)

    writers = [asyncio.ensure_future(write(n)) for n in range(WRITERS)]
    await asyncio.sleep(0.5)
    since, promoted = await incident(*servers, told)
    while told.first(promoted) is None and time.monotonic() - since < GIVEN_UP:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    told.over = True
    done, _ = await asyncio.wait(writers, timeout=1.0)
    for writer in set(writers) - done:
        writer.cancel()
    await asyncio.wait(writers)
    await client.close()
    first = told.first(promoted)
    return (GIVEN_UP if first is None else first - since), told.failed


async def figures() -> list[Figure]:
    """Killed and promoted early and late, demoted in place, frozen."""
    found = []
    with PostgreSQLServer() as one, PostgreSQLReplica(one) as other:
        servers: Servers = (one, other)
        connection = await asyncpg.connect(one.url)
        await connection.execute("CREATE TABLE ledger (writer int)")
        await connection.close()
        for title, incident, promise in (
            ("kill -9, promoted after 0.5 s: to the first write", killed(0.5), {"150 ms": 0.15}),
            ("kill -9, promoted after 5 s: to the first write", killed(5.0), {"150 ms": 0.15}),
            ("demoted in place: to the first write", demoted, {"interval + 100 ms": 1.1}),
            ("frozen, and promoted at once: from the freeze to the first write", frozen, {"deadline + 0.5 s": 1.5}),
        ):
            times: dict[str, list[float]] = {make.name: [] for make in CLIENTS}
            failed: dict[str, list[int]] = {make.name: [] for make in CLIENTS}
            for _ in range(ROUNDS):
                for make in CLIENTS:
                    first, errors = await _run(make, servers, incident)
                    times[make.name].append(max(first, 1e-6))
                    failed[make.name].append(errors)
                    servers = await _rebuilt(servers)
            limits = {name: [seconds] * ROUNDS for name, seconds in promise.items()}
            told = "; ".join(f"{name} {', '.join(map(str, counts))}" for name, counts in failed.items())
            found.append(
                Figure(
                    title=f"PostgreSQL: {title}, {WRITERS} writers",
                    ours="Datavern",
                    times={**times, **limits},
                    at_most=dict.fromkeys(limits, 1.0),
                    note=f"failed writes in each round: {told}. {GIVEN_UP:g} s stand for: not back",
                )
            )
    return found


async def _rebuilt(servers: Servers) -> Servers:
    """The promoted one is the primary, and the other its copy."""
    old, new = servers
    with suppress(Exception):
        await asyncio.to_thread(thaw, old)
    await asyncio.to_thread(follow, old, new)
    return new, old
