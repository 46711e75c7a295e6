"""Inserts that share a transaction, while the server is killed and frozen, and the network breaks at each byte.

Whatever happens: each caller gets an end, what was acknowledged is there, what was denied is not, and each row has its
one entry. `make faults` runs the long form.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import again, until

from datavern import (
    ConnectionFailed,
    ConstraintViolated,
    DatabaseManager,
    Keyring,
    OutcomeUnknown,
    Pool,
    PostgreSQLProvider,
)
from datavern.testing import EmptyDatabase, create_test_database
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.replicas import freeze, kill, thaw

INSERT = "INSERT INTO t (id, a) VALUES ($1, $2)"
WRITERS = 16
IDLE = (
    "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' "
    "AND state <> 'idle' AND pid <> pg_backend_pid()"
)


@contextlib.asynccontextmanager
async def opened(url: str, folder: Path, **settings: Any) -> AsyncIterator[DatabaseManager]:
    """A manager over that database, its ledger."""
    ring = await Keyring.create(f"file:{folder / 'keys'}")
    await ring.close()
    provider = PostgreSQLProvider.from_url(url, name="main", location="norway", **settings)
    async with DatabaseManager({"main": provider}, keyring=ring.url, ledger="main") as db:
        await db["main"].execute("CREATE TABLE t (id int PRIMARY KEY, a text)")
        yield db


async def write(db: DatabaseManager, id_: int, text: str = "a") -> int:
    entry = await db.audit.entry("written", details={"id": str(id_)})
    return int(await db["main"].execute(INSERT, [id_, text], audit=entry))


async def there(provider: Any) -> set[int]:
    """The rows that are there: each with its one entry, no entry without its row."""
    found = await provider.query(
        "SELECT true, id::text FROM t UNION ALL "
        "SELECT false, details::json ->> 'id' FROM datavern_audit WHERE action = 'written'"
    )
    rows, entries = (Counter(row[1] for row in found if row[0] is which) for which in (True, False))
    assert rows == entries
    assert not rows or max(rows.values()) == 1
    return {int(one) for one in rows}


# ---- the server -----------------------------------------------------------------------------------------------------


async def test_a_server_that_is_killed(tmp_path: Path, faults_long: bool) -> None:
    """SIGKILL to every process of it, in the middle of sixteen writers; it comes back, and they go on."""
    with PostgreSQLServer(durable=True) as server:
        async with (
            create_test_database("postgresql", server=server) as database,
            opened(database.settings["url"], tmp_path, pool=Pool(max=6, outage=0.0)) as db,
        ):
            told: dict[int, str] = {}
            ids = itertools.count()
            over = False

            async def writer() -> None:
                while not over:
                    id_ = next(ids)
                    try:
                        assert await write(db, id_) == 1
                        told[id_] = "done"
                    except OutcomeUnknown:
                        told[id_] = "unknown"
                    except ConnectionFailed as error:
                        told[id_] = "not done" if error.retry == "safe" else "cannot tell"
                        await asyncio.sleep(0.01)

            writers = [asyncio.create_task(writer()) for _ in range(WRITERS)]
            rounds = 40 if faults_long else 2
            for round_ in range(rounds + 1):
                already = Counter(told.values())["done"]
                await until(lambda already=already: Counter(told.values())["done"] > already + 5 * WRITERS)
                if round_ < rounds:
                    await asyncio.sleep(0.001 * (round_ % 7))
                    await asyncio.to_thread(kill, server)
                    await asyncio.to_thread(server.start)
            over = True
            async with asyncio.timeout(60):
                await asyncio.gather(*writers)
            found = await there(db["main"])
            assert not {id_ for id_, what in told.items() if what == "done"} - found, "acknowledged, and lost"
            assert not {id_ for id_, what in told.items() if what == "not done"} & found, "denied, and done"
            assert {"done", "not done"} <= set(told.values()) <= {"done", "not done", "unknown"}
            sizes = await db["main"].query("SELECT count(*) FROM t GROUP BY xmin::text ORDER BY 1 DESC LIMIT 1")
            assert sizes[0][0] > 1, "the test does not test"
            assert (await db.audit.verify()).ok


async def test_a_server_that_freezes(tmp_path: Path) -> None:
    """Whoever gives up goes, in a group or waiting for one; those who stay have their answers when it goes on."""
    with PostgreSQLServer() as server:
        async with (
            create_test_database("postgresql", server=server) as database,
            opened(database.settings["url"], tmp_path, pool=Pool(max=4)) as db,
        ):
            assert await asyncio.gather(*(write(db, id_) for id_ in range(40))) == [1] * 40
            freeze(server)
            try:
                waiting = [asyncio.create_task(write(db, id_)) for id_ in range(100, 400)]
                await asyncio.sleep(0.05)
                for task in waiting[::3]:
                    task.cancel()
                gone = await asyncio.wait_for(asyncio.gather(*waiting[::3], return_exceptions=True), 20)
                assert {type(one) for one in gone} == {asyncio.CancelledError}
                assert not any(task.done() for i, task in enumerate(waiting) if i % 3)
            finally:
                thaw(server)
            rest = [task for i, task in enumerate(waiting) if i % 3]
            assert await asyncio.wait_for(asyncio.gather(*rest), 60) == [1] * 200
            found = await there(db["main"])
            assert {id_ for id_ in range(100, 400) if (id_ - 100) % 3} <= found
            await until(lambda: db["main"].stats().in_use == 0)


# ---- the network ----------------------------------------------------------------------------------------------------


class Scissors:
    """A proxy that breaks a connection at a byte.

    Attributes:
        mark: whoever sends this is cut off: it is counted from the piece that holds it.
        sent: bytes that the server still gets, from there on.
        answered: bytes of the answer that the client still gets.
        counted: bytes of the answer so far.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.mark = b""
        self.sent = self.answered = 1 << 30
        self.counted = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """The port."""
        self._tasks: set[asyncio.Task[Any]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        back, onward = await asyncio.open_connection(*self._target)
        armed = asyncio.Event()
        ways = [asyncio.create_task(self._ask(reader, onward, armed))]
        ways += [asyncio.create_task(self._answer(back, writer, armed))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.transport.abort()
            onward.transport.abort()
            self._tasks.discard(task)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, armed: asyncio.Event) -> None:
        left = self.sent
        while data := await reader.read(65536):
            if self.mark and self.mark in data:
                armed.set()
                left = self.sent
            part = data[:left] if armed.is_set() else data
            writer.write(part)
            await writer.drain()
            left -= len(part)
            if armed.is_set() and left <= 0:
                await asyncio.sleep(0.002)  # the server reads it before the end
                return

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, armed: asyncio.Event) -> None:
        while data := await reader.read(65536):
            if armed.is_set():
                data = data[: self.answered - self.counted]
                self.counted += len(data)
            writer.write(data)
            await writer.drain()
            if armed.is_set() and self.counted >= self.answered:
                await asyncio.sleep(0.002)
                return


@pytest.mark.parametrize("way", ["sent", "answered"])
async def test_a_network_that_breaks_at_a_byte(
    postgresql_database: EmptyDatabase, postgresql_server: PostgreSQLServer, tmp_path: Path, way: str, faults_long: bool
) -> None:
    """Of what a group sends, or of what it is answered: all of it happened, or none, and nobody is told otherwise."""
    scissors = Scissors(postgresql_server.host, postgresql_server.port)
    url = postgresql_database.settings["url"]
    async with scissors.listening() as port, PostgreSQLProvider.from_url(url, name="beside") as beside:
        through = url.replace(f":{postgresql_server.port}/", f":{port}/")
        async with opened(through, tmp_path, pool=Pool(max=1, outage=0.0)) as db:
            main = db["main"]
            assert await asyncio.gather(*(write(db, id_) for id_ in range(-20, 0))) == [1] * 20
            plan = next(plan for plan in main._fusing._plans.values() if plan.together)
            happened: Counter[int] = Counter()
            place, step = 1, 1 if faults_long else 97 if way == "sent" else 13
            while True:
                ids = range(place * 10, place * 10 + 6)
                scissors.counted = 0
                setattr(scissors, way, place)
                scissors.mark = b"cut here %d" % place
                plan.together._crowd, plan.together._skips = True, 0  # nobody goes by himself
                found = await asyncio.wait_for(
                    asyncio.gather(*(write(db, id_, scissors.mark.decode()) for id_ in ids), return_exceptions=True), 60
                )
                if found == [1] * 6:
                    break
                await until(lambda: beside.query_value(IDLE))
                written = await there(beside) & {*ids}
                assert written in (set(), {*ids})
                assert {type(one) for one in found} == {OutcomeUnknown}
                happened[len(written)] += 1
                with contextlib.suppress(ConstraintViolated):
                    assert await again(lambda id_=ids[0]: write(db, id_)) == 1
                    assert not written
                place += step
            assert set(happened) == {0} if way == "sent" else {6}
            assert await there(beside) >= {*ids}
