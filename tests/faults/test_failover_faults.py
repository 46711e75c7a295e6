"""A primary that is killed, demoted, frozen or restarted, and a replica that is promoted: nothing acknowledged is lost.

Every scenario keeps a ledger of what was acknowledged, and compares it with the database at the end: none lost, none
twice. `make faults` runs the long form.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pairs import DELAYED, Pair, until_true
from tests.waiting import until

from datavern import (
    ConnectionFailed,
    DatabaseManager,
    FailoverGroup,
    Keyring,
    NoHealthyConnection,
    OutcomeUnknown,
    PostgreSQLProvider,
    QueryRejected,
)
from datavern.connectors.health import Event
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.replicas import (
    PostgreSQLReplica,
    demote,
    freeze,
    kill,
    promote,
    thaw,
)

WRITERS = 20


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    with PostgreSQLServer(settings=DELAYED) as primary, PostgreSQLReplica(primary, settings=DELAYED) as standby:
        yield Pair(primary, standby)


@pytest.fixture
async def pair(servers: Pair) -> AsyncIterator[Pair]:
    """The pair, with an empty ledger in it."""
    async with PostgreSQLProvider.from_url(servers.primary.url) as admin:
        await admin.execute("DROP TABLE IF EXISTS ledger; CREATE TABLE ledger (key text, writer int)")
        await admin.execute("DROP TABLE IF EXISTS datavern_idempotency")
    return servers


@dataclass
class Ledger:
    """What the writers were told."""

    group: FailoverGroup
    deadline: float = 60.0
    keyed: bool = True
    told: dict[str, str] = field(default_factory=dict)
    failed: dict[int, list[BaseException]] = field(default_factory=dict)
    acknowledged: list[float] = field(default_factory=list)
    over: bool = False

    async def write(self, writer: int) -> None:
        """One writer: a statement, a transaction, a statement, …, each under a key of its own."""
        turn = 0
        while not self.over:
            turn += 1
            key = f"{writer}-{turn}-{uuid.uuid4().hex[:8]}"
            under = {"idempotency_key": key} if self.keyed else {}
            try:
                async with asyncio.timeout(self.deadline):
                    if turn % 2:
                        await self.group.execute("INSERT INTO ledger VALUES ($1, $2)", [key, writer], **under)
                    else:

                        async def work(tx: Any, key: str = key) -> None:
                            await tx.execute("INSERT INTO ledger VALUES ($1, $2)", [key, writer])

                        await self.group.run_in_transaction(work, **under)
            except (ConnectionFailed, NoHealthyConnection, QueryRejected) as error:
                self.told[key] = "not done" if error.retry != "never" else "cannot tell"
                self.failed.setdefault(writer, []).append(error)
            except (OutcomeUnknown, TimeoutError) as error:
                self.told[key] = "cannot tell"
                self.failed.setdefault(writer, []).append(error)
            else:
                self.told[key] = "done"
                self.acknowledged.append(time.monotonic())
            await asyncio.sleep(0.002)

    async def run(self, story: Callable[[], Any]) -> None:
        """Let everybody write while the story goes on, and until each has written after it."""
        writers = [asyncio.ensure_future(self.write(n)) for n in range(WRITERS)]
        try:
            await until(lambda: len(self.acknowledged) > WRITERS)
            await story()
            so_far = len(self.acknowledged)
            await until(lambda: len(self.acknowledged) > so_far + 2 * WRITERS)
            self.over = True
            await asyncio.gather(*writers)
        finally:
            for writer in writers:
                writer.cancel()

    async def compare(self) -> None:
        """None lost, none twice, and nothing there that was said not to be."""
        rows = await self.group.query("SELECT key, count(*) FROM ledger GROUP BY key")
        there = {row[0]: row[1] for row in rows}
        done = {key for key, what in self.told.items() if what == "done"}
        assert not done - set(there), "acknowledged, and lost"
        assert not {key for key, times in there.items() if times > 1}, "done twice"
        assert not {key for key, what in self.told.items() if what == "not done"} & set(there), "denied, and done"


# ---- a primary that is killed ---------------------------------------------------------------------------------------


@pytest.mark.timeout(3600)  # fifty times in the long form
async def test_kill_and_promote(pair: Pair, faults_long: bool) -> None:
    """Twenty writers, a synchronous standby whose replay is delayed: no error, nothing lost, nothing twice."""
    pauses = [0.5, 5.0] * 25 if faults_long else [0.5, 0.5, 5.0]
    for pause in pauses:
        await pair.synchronous(True)
        events: list[Event] = []
        async with pair.group() as group:
            group.observe(events.append)
            ledger = Ledger(group)

            async def story(pause: float = pause) -> None:
                await asyncio.to_thread(kill, pair.primary)
                await asyncio.sleep(pause)
                await asyncio.to_thread(promote, pair.standby, wait=False)

            await ledger.run(story)
            assert not ledger.failed, ledger.failed
            await ledger.compare()
            assert group.active_provider is group.secondaries[0]
            assert [e.member for e in events if e.kind == "primary"][-1] == "bergen"
            assert not [e for e in events if e.kind == "divergence"]
        await asyncio.to_thread(pair.swapped)


async def test_without_a_key_what_is_not_known_is_told_and_nothing_else_fails(pair: Pair) -> None:
    """What was on its way when the primary died may have happened; whatever was not is done on the new one."""
    await pair.synchronous(True)
    async with pair.group() as group:
        ledger = Ledger(group, keyed=False)

        async def story() -> None:
            await asyncio.to_thread(kill, pair.primary)
            await asyncio.to_thread(promote, pair.standby)

        await ledger.run(story)
        assert all(isinstance(e, OutcomeUnknown) for errors in ledger.failed.values() for e in errors), ledger.failed
        assert all(len(errors) == 1 for errors in ledger.failed.values())
        await ledger.compare()
    await asyncio.to_thread(pair.swapped)


async def test_inserts_that_come_together(pair: Pair, tmp_path: Path) -> None:
    """Rows with their audit entries, through the group: what is on its way together is told as one by one."""
    await pair.synchronous(True)
    ring = await Keyring.create(f"file:{tmp_path / 'keys'}")
    await ring.close()
    told: dict[str, str] = {}
    over = False
    async with DatabaseManager({"main": pair.group()}, keyring=ring.url, ledger="main") as db:

        async def writer(number: int) -> None:
            while not over:
                key = uuid.uuid4().hex
                entry = await db.audit.entry("written", details={"key": key})
                try:
                    await db["main"].execute(
                        "INSERT INTO ledger (key, writer) VALUES ($1, $2)", [key, number], audit=entry
                    )
                except OutcomeUnknown:
                    told[key] = "cannot tell"
                else:
                    told[key] = "done"

        writers = [asyncio.create_task(writer(number)) for number in range(WRITERS)]
        for last in (False, True):
            already = len(told)
            await until(lambda already=already: len(told) > already + 10 * WRITERS)
            if not last:
                await asyncio.to_thread(kill, pair.primary)
                await asyncio.to_thread(promote, pair.standby)
        over = True
        await asyncio.gather(*writers)
        rows = await db["main"].query("SELECT key, xmin::text FROM ledger")
        entries = await db["main"].query(
            "SELECT details::json ->> 'key', xmin::text FROM datavern_audit WHERE action = 'written'"
        )
        assert sorted(map(tuple, rows)) == sorted(map(tuple, entries)), "a row without its entry, or twice"
        there = {row[0] for row in rows}
        assert not {key for key, what in told.items() if what == "done"} - there, "acknowledged, and lost"
        assert there <= set(told)
        assert len({row[1] for row in rows}) < len(rows), "the test does not test"
        made = await db["main"].query("SELECT tablename FROM pg_tables WHERE tablename LIKE 'datavern%'")
        await db["main"].execute(f"DROP TABLE {', '.join(row[0] for row in made)} CASCADE")
    await asyncio.to_thread(pair.swapped)


async def test_an_old_primary_that_comes_back_is_fenced_off(pair: Pair) -> None:
    events: list[Event] = []
    async with pair.group() as group:
        group.observe(events.append)
        await group.execute("INSERT INTO ledger VALUES ('before', 0)")
        old = pair.primary
        await asyncio.to_thread(kill, old)
        await asyncio.to_thread(promote, pair.standby)
        await group.execute("INSERT INTO ledger VALUES ('after', 0)")
        await asyncio.to_thread(old.start)
        await until(lambda: [e for e in events if e.kind == "fenced"])
        fenced = next(e for e in events if e.kind == "fenced")
        assert fenced.member == "oslo"
        assert "timeline" in fenced.detail
        health = await group.health()
        assert (health.status, health.role) == ("degraded", "primary")
        assert health.facts["primary"] == "bergen"
        assert "old primary" in health.facts["members"]["oslo"]["problem"]
        for n in range(20):
            await group.execute("INSERT INTO ledger VALUES ($1, 1)", [f"n{n}"])
        async with PostgreSQLProvider.from_url(old.url) as there:
            assert await there.query_value("SELECT count(*) FROM ledger WHERE key = 'after' OR writer = 1") == 0
        # The new one dies, too: the old one is the only one left, and gets nothing.
        await asyncio.to_thread(kill, pair.standby)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await group.execute("INSERT INTO ledger VALUES ('lost', 0)", idempotency_key="k")
        with pytest.raises(TimeoutError):  # nor is what it holds read: it is not the database's present
            async with asyncio.timeout(1.0):
                await group.query("SELECT 1 FROM ledger")
        await asyncio.to_thread(pair.standby.start)
        assert await group.query_value("SELECT count(*) FROM ledger WHERE key = 'lost'") == 0
    await asyncio.to_thread(pair.swapped)


# ---- a primary that is demoted, frozen, restarted -------------------------------------------------------------------


async def test_demoted_in_place(pair: Pair) -> None:
    """The sockets live on and every write is refused: whoever pools by sockets alone fails for ever."""
    await pair.synchronous(True)
    async with pair.group() as group:
        ledger = Ledger(group, keyed=False)

        async def story() -> None:
            await demote(pair.primary)
            await asyncio.sleep(0.2)
            await asyncio.to_thread(promote, pair.standby)

        await ledger.run(story)
        assert all(len(errors) == 1 for errors in ledger.failed.values()), ledger.failed
        await ledger.compare()
        assert group.active_provider is group.secondaries[0]
    await demote(pair.primary, back=True)
    await asyncio.to_thread(pair.swapped)


async def test_a_primary_that_freezes(pair: Pair) -> None:
    """It holds its sockets and says nothing; a standby is promoted: service comes back by itself."""
    await pair.synchronous(True)
    async with pair.group() as group:
        ledger = Ledger(group, keyed=True)
        old = pair.primary

        async def story() -> None:
            await asyncio.to_thread(freeze, old)
            await asyncio.to_thread(promote, pair.standby)

        try:
            await ledger.run(story)
        finally:
            await asyncio.to_thread(thaw, old)
        assert not ledger.failed, ledger.failed  # what hung on the old one was ended, and done on the new one
        await ledger.compare()
        written = await group.query_value("SELECT count(*) FROM ledger")
        await until(lambda: group._monitor is not None and group._monitor.verdict.fenced)
        assert await group.query_value("SELECT count(*) FROM ledger") == written
    await asyncio.to_thread(pair.swapped)


async def test_a_primary_that_restarts(pair: Pair) -> None:
    """One after the other, twenty queries and twenty keyed writes: none fails."""
    async with pair.group() as group:
        for n in range(20):
            if n == 5:
                await asyncio.to_thread(pair.primary.halt)
                starting = asyncio.ensure_future(asyncio.to_thread(pair.primary.start))
            await group.execute("INSERT INTO ledger VALUES ($1, 0)", [str(n)], idempotency_key=f"restart-{n}")
            assert await group.query_value("SELECT count(*) FROM ledger") == n + 1
        await starting
        assert group.active_provider is group.primary


# ---- what an asynchronous standby loses -----------------------------------------------------------------------------


async def test_what_a_promotion_left_behind_is_counted_and_told(pair: Pair) -> None:
    await pair.synchronous(False)
    events: list[Event] = []
    async with pair.group(interval=0.1) as group:
        group.observe(events.append)
        await group.execute("INSERT INTO ledger VALUES ('kept', 0)")
        kept = await group.position()
        async with PostgreSQLProvider.from_url(pair.primary.url) as admin:
            sent = "SELECT replay_lsn >= pg_current_wal_lsn() FROM pg_stat_replication"
            await until_true(admin, sent)
        async with PostgreSQLProvider.from_url(pair.standby.url) as admin:
            await admin.execute("ALTER SYSTEM SET primary_conninfo = ''")
            await admin.query("SELECT pg_reload_conf()")
            await until_true(admin, "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")
        for n in range(30):
            await group.execute("INSERT INTO ledger VALUES ($1, 1)", [str(n)])
        lost = await group.position()
        await until(lambda: any(s.acknowledged > 30 for s in group._positions._samples))  # the monitor heard of them
        for n in range(12):
            await group.execute("INSERT INTO ledger VALUES ($1, 2)", [str(n)])
        await asyncio.to_thread(kill, pair.primary)
        await asyncio.to_thread(promote, pair.standby)
        await until(lambda: [e for e in events if e.kind == "primary"])
        assert await group.query_value("SELECT count(*) FROM ledger WHERE writer > 0") == 0
        await until(lambda: [e for e in events if e.kind == "divergence"])
        told = next(e for e in events if e.kind == "divergence")
        assert 12 <= told.facts["lost_at_least"] <= 42 <= told.facts["lost_at_most"] <= 43
        assert told.facts["bytes"] > 0
        assert "left writes behind" in told.detail
        assert await group.query_value("SELECT 1", read_only=True, after=kept) == 1
        with pytest.raises(NoHealthyConnection, match="is lost: timeline") as caught:
            await group.query_value("SELECT 1", read_only=True, after=lost)
        assert caught.value.retry == "never"
    await asyncio.to_thread(pair.swapped)
