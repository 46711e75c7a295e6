"""What becomes of callers while a server restarts, while sockets freeze, and while callers give up.

Every competitor has a pool of ten connections to the same server, all of them warm, and is set up as well as it can be:
psycopg_pool checks a connection before it gives it out, SQLAlchemy pings it (`pool_pre_ping`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import asyncpg
import psycopg
import sqlalchemy as sa
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks import Tally
from datavern import Pool, PostgreSQLProvider
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.proxy import TCPProxy

SIZE = 10
ROUNDS = 3
DEADLINE = 1.0
"""Seconds that a caller gives a call, where sockets freeze."""
PATIENCE = 15.0
"""Seconds after which a competitor counts as one that does not come back."""
CANCELLATIONS = 10_000
NEVER = float("inf")

Ask = Callable[..., Awaitable[Any]]
Borrow = Callable[[], AbstractAsyncContextManager[Ask]]
"""Borrows a connection: ``async with borrow() as ask: await ask("SELECT …", value)``, with ``%s`` for the value."""
Opened = Callable[[str], AbstractAsyncContextManager[Borrow]]


@asynccontextmanager
async def _ours(url: str) -> AsyncIterator[Borrow]:
    async with PostgreSQLProvider.from_url(url, pool=Pool(min=SIZE, max=SIZE)) as pg:
        await pg.warm_up()

        @asynccontextmanager
        async def borrow() -> AsyncIterator[Ask]:
            async with pg.transaction() as tx:
                yield lambda sql, *values: tx.query_value(sql.replace("%s", "$1"), values)

        yield borrow


@asynccontextmanager
async def _asyncpg(url: str) -> AsyncIterator[Borrow]:
    pool = await asyncpg.create_pool(url, min_size=SIZE, max_size=SIZE)

    @asynccontextmanager
    async def borrow() -> AsyncIterator[Ask]:
        async with pool.acquire() as connection, connection.transaction():
            yield lambda sql, *values: connection.fetchval(sql.replace("%s", "$1"), *values)

    yield borrow
    pool.terminate()


@asynccontextmanager
async def _psycopg(url: str) -> AsyncIterator[Borrow]:
    check = AsyncConnectionPool.check_connection
    pool = AsyncConnectionPool(url, min_size=SIZE, max_size=SIZE, open=False, check=check)
    await pool.open(wait=True)

    @asynccontextmanager
    async def borrow() -> AsyncIterator[Ask]:
        async with pool.connection() as connection:

            async def ask(sql: str, *values: Any) -> Any:
                row = await (await connection.execute(sql, values)).fetchone()
                return row[0] if row else None

            yield ask

    yield borrow
    await pool.close(timeout=1.0)


@asynccontextmanager
async def _sqlalchemy(url: str) -> AsyncIterator[Borrow]:
    url = url.replace("postgresql:", "postgresql+asyncpg:")
    engine = create_async_engine(url, pool_size=SIZE, max_overflow=0, pool_pre_ping=True)

    @asynccontextmanager
    async def borrow() -> AsyncIterator[Ask]:
        async with engine.begin() as connection:

            async def ask(sql: str, *values: Any) -> Any:
                named = {"value": values[0]} if values else {}
                return (await connection.execute(sa.text(sql.replace("%s", "CAST(:value AS int)")), named)).scalar()

            yield ask

    yield borrow
    with suppress(TimeoutError):
        await asyncio.wait_for(engine.dispose(), 1.0)


COMPETITORS: dict[str, Opened] = {
    "Datavern": _ours,
    "asyncpg.Pool": _asyncpg,
    "psycopg_pool (check)": _psycopg,
    "SQLAlchemy (pre-ping)": _sqlalchemy,
}


async def figures() -> list[Tally]:
    """Restarts, frozen sockets, cancellations."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # what the peers leave behind is not news
    for name in ("psycopg", "asyncpg", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with PostgreSQLServer(durable=True) as server:
        return [await _restarts(server), await _frozen(server), await _cancelled(server)]


async def _warm(borrow: Borrow) -> None:
    met = asyncio.Barrier(SIZE)

    async def hold() -> None:
        async with borrow() as ask:
            await ask("SELECT 1")
            await met.wait()

    await asyncio.gather(*(hold() for _ in range(SIZE)))


# ---- a server that restarts -----------------------------------------------------------------------------------------


async def _restarts(server: PostgreSQLServer) -> Tally:
    found: dict[str, list[tuple[float, int, int]]] = {who: [] for who in COMPETITORS}
    async with AsyncExitStack() as stack:
        borrows = {who: await stack.enter_async_context(opened(server.url)) for who, opened in COMPETITORS.items()}
        for _ in range(ROUNDS):
            for borrow in borrows.values():
                await _warm(borrow)
            await asyncio.to_thread(server.halt, immediate=True)
            callers = {who: asyncio.ensure_future(_call_until_well(borrow)) for who, borrow in borrows.items()}
            await asyncio.sleep(0.5)
            accepts = asyncio.ensure_future(asyncio.to_thread(_accepting, server.url))
            await asyncio.to_thread(server.start)
            since = await accepts
            for who, caller in callers.items():
                well, failed = await caller
                found[who].append((max(0.0, well - since), failed, await _twenty(borrows[who])))
    counts = {
        who: (
            statistics.median(seconds for seconds, _, _ in rounds),
            max(seconds for seconds, _, _ in rounds),
            statistics.median(failed for _, failed, _ in rounds),
            sum(failed for _, _, failed in rounds),
        )
        for who, rounds in found.items()
    }
    columns = (
        "first success after the server accepts, s",
        "the slowest, s",
        "calls that failed meanwhile",
        f"failed of 20 in sequence afterwards, {ROUNDS} times",
    )
    return Tally(
        title=f"PostgreSQL: a server that restarts, {ROUNDS} times",
        ours="Datavern",
        columns=columns,
        counts=counts,
        at_most={columns[0]: 0.1, columns[2]: 0, columns[3]: 0},
        note="One caller each, all at the same time, which calls again 10 ms after a call that failed. All ten "
        "connections were warm when the server was stopped at once (immediate). In psycopg_pool, too, callers wait.",
    )


def _accepting(url: str) -> float:
    """When the server first accepts a connection: asked every 5 ms, from a thread."""
    while True:
        with suppress(psycopg.OperationalError), psycopg.connect(url):
            return time.monotonic()
        time.sleep(0.005)


async def _call_until_well(borrow: Borrow) -> tuple[float, int]:
    failed = 0
    while True:
        try:
            async with borrow() as ask:
                await ask("SELECT 1")
        except Exception:  # noqa: BLE001  (whatever the competitor raises)
            failed += 1
            await asyncio.sleep(0.01)
        else:
            return time.monotonic(), failed


async def _twenty(borrow: Borrow) -> int:
    failed = 0
    for _ in range(20):
        try:
            async with borrow() as ask:
                await ask("SELECT 1")
        except Exception:  # noqa: BLE001  (whatever the competitor raises)
            failed += 1
    return failed


# ---- sockets that freeze --------------------------------------------------------------------------------------------


async def _frozen(server: PostgreSQLServer) -> Tally:
    counts = {}
    for who, opened in COMPETITORS.items():
        with TCPProxy(server.host, server.port) as proxy:
            url = server.url.replace(f":{server.port}/", f":{proxy.port}/")
            async with opened(url) as borrow:
                await _warm(borrow)
                await asyncio.to_thread(lambda: proxy.freeze(newcomers=False))
                counts[who] = await _through_ice(borrow)
                await asyncio.to_thread(proxy.thaw)
                await asyncio.to_thread(proxy.cut)
                await asyncio.sleep(0.2)
    columns = (
        "longest call beyond its deadline, s",
        "service back after the first deadline, s",
        f"calls that did not end within {PATIENCE:g} s",
    )
    return Tally(
        title=f"PostgreSQL: established sockets freeze, new ones work; ten callers, {DEADLINE:g} s for each call",
        ours="Datavern",
        columns=columns,
        counts=counts,
        at_most={columns[0]: 1.0, columns[1]: 1.0, columns[2]: 0},
        note="A deadline is `asyncio.timeout` around the call. Service is back with the first call that succeeds.",
    )


async def _through_ice(borrow: Borrow) -> tuple[float, float, float]:
    began = time.monotonic()
    beyond = [0.0]
    well: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def caller() -> None:
        while not well.done():
            asked = time.monotonic()
            try:
                async with asyncio.timeout(DEADLINE), borrow() as ask:
                    await ask("SELECT 1")
            except Exception:  # noqa: BLE001  (whatever the competitor raises)
                beyond.append(time.monotonic() - asked - DEADLINE)
            else:
                if not well.done():
                    well.set_result(time.monotonic() - began - DEADLINE)

    callers = [asyncio.ensure_future(caller()) for _ in range(SIZE)]
    await asyncio.wait([well], timeout=PATIENCE)
    back = well.result() if well.done() else NEVER
    if not well.done():
        well.set_result(NEVER)
    _, stuck = await asyncio.wait(callers, timeout=PATIENCE if back is NEVER else DEADLINE + 2.0)
    for each in stuck:
        each.cancel()
    return (NEVER if stuck else max(beyond)), max(0.0, back), len(stuck)


# ---- callers that give up -------------------------------------------------------------------------------------------


async def _cancelled(server: PostgreSQLServer) -> Tally:
    counts = {}
    for who, opened in COMPETITORS.items():
        async with opened(server.url) as borrow:
            await _warm(borrow)
            counts[who] = await _many_give_up(borrow)
    columns = ("cancellations swallowed", "answers that were another's", "connections lost, of 10", "seconds")
    return Tally(
        title=f"PostgreSQL: {CANCELLATIONS:,} calls that are cancelled at random moments, 20 at a time",
        ours="Datavern",
        columns=columns,
        counts=counts,
        at_most={columns[0]: 0, columns[1]: 0, columns[2]: 0},
        note="Swallowed: the task was cancelled while it ran, and ended as if nothing had happened. Lost: of ten "
        "callers at once, who did not get a connection within 5 s.",
    )


async def _many_give_up(borrow: Borrow) -> tuple[float, float, float, float]:
    dice = random.Random(7)
    swallowed = others = 0

    async def call(number: int) -> int:
        async with borrow() as ask:
            await ask("SELECT pg_sleep(0.0002 * (%s::int % 7))", number)
            return int(await ask("SELECT %s::int", number))

    async def one(number: int) -> None:
        nonlocal swallowed, others
        task = asyncio.ensure_future(call(number))
        if dice.random() < 0.3:
            for _ in range(dice.randrange(12)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(dice.random() * 0.004)
        asked = task.cancel()
        try:
            others += await task != number
            swallowed += asked
        except asyncio.CancelledError:
            pass
        except Exception:  # noqa: BLE001  (whatever the competitor raises instead: it did end)
            swallowed += asked

    async def many(first: int) -> None:
        for number in range(first, CANCELLATIONS, 20):
            await one(number)

    began = time.monotonic()
    await asyncio.gather(*(many(first) for first in range(20)))
    took = time.monotonic() - began
    return float(swallowed), float(others), float(await _lost(borrow)), took


async def _lost(borrow: Borrow) -> int:
    """How many of ten callers at once get no connection."""
    met: set[int] = set()
    over = asyncio.Event()

    async def hold(number: int) -> None:
        async with borrow() as ask:
            if await ask("SELECT %s::int", number) == number:
                met.add(number)
            await over.wait()

    holding = [asyncio.ensure_future(hold(number)) for number in range(SIZE)]
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while len(met) < SIZE:  # noqa: ASYNC110  (what is waited for has no event)
                await asyncio.sleep(0.01)
    lost = SIZE - len(met)
    over.set()
    if lost:
        for each in holding:
            each.cancel()
    await asyncio.wait(holding, timeout=5)
    return lost
