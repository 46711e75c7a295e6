"""A group's reads, and what else it offers: from replicas that are behind, across a promotion, with wrong settings."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from pairs import DELAYED, Pair, until_true
from tests.waiting import until

from datavern import (
    ConfigurationError,
    DatabaseManager,
    FailoverGroup,
    NoHealthyConnection,
    PostgreSQLProvider,
    QueryRejected,
    RedisProvider,
)
from datavern.connectors.health import Event
from datavern.testing import EmptyDatabase
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.replicas import PostgreSQLReplica, kill, promote


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    with PostgreSQLServer() as primary, PostgreSQLReplica(primary, settings=DELAYED) as standby:
        yield Pair(primary, standby)


@pytest.fixture
async def pair(servers: Pair) -> AsyncIterator[Pair]:
    """The pair, with an empty table in it."""
    async with PostgreSQLProvider.from_url(servers.primary.url) as admin:
        await admin.execute("DROP TABLE IF EXISTS notes; CREATE TABLE notes (id int PRIMARY KEY, body text)")
        at = await admin.query_value("SELECT pg_current_wal_lsn()::text")
        async with PostgreSQLProvider.from_url(servers.standby.url) as copy:
            await until_true(copy, f"SELECT pg_last_wal_replay_lsn() >= '{at}'")
    return servers


COUNT = "SELECT count(*) FROM notes"
WHERE = "SELECT pg_is_in_recovery()"


async def fresh(work: Any) -> Any:
    """In a task of its own, which has written nothing."""
    return await asyncio.create_task(work)


async def soon(read: Any) -> None:
    """It is read from the replica, once it was heard how far behind that is."""
    async with asyncio.timeout(60):
        while not await fresh(read()):  # noqa: ASYNC110  (the replica has no event)
            await asyncio.sleep(0.02)


# ---- replicas that read ---------------------------------------------------------------------------------------------


async def test_reads_go_to_a_replica_when_they_say_that_they_only_read(pair: Pair) -> None:
    async with pair.group(replicas_read=True) as group:
        assert await fresh(group.query_value(WHERE, read_only=True)) is True
        assert (await fresh(group.query_one(WHERE, read_only=True)))[0] is True
        assert (await fresh(group.query(WHERE, read_only=True)))[0][0] is True
        assert await group.query_value(WHERE) is False
        async with group.stream(WHERE, read_only=True) as rows:
            assert [row[0] async for row in rows] == [True]
        async with group.transaction(read_only=True) as tx:
            assert await tx.query_value(WHERE) is True
            assert tx.provider is group
        with pytest.raises(QueryRejected, match="the statement writes, and was sent with read_only=True"):
            await fresh(group.query("INSERT INTO notes VALUES (1) RETURNING id", read_only=True))
        assert await group.query_value(COUNT) == 0
    async with pair.group() as group:  # nobody asked for it
        assert await group.query_value(WHERE, read_only=True) is False


async def test_a_task_sees_its_own_writes_whatever_it_reads_from(pair: Pair) -> None:
    """The replica shows everything 200 ms late."""
    async with pair.group(replicas_read=True) as group:

        async def writes_and_reads(first: int) -> None:
            for n in range(first, first + 3):
                match n % 3:
                    case 0:
                        await group.execute("INSERT INTO notes VALUES ($1)", [n])
                    case 1:
                        await group.query("INSERT INTO notes VALUES ($1) RETURNING id", [n])
                    case _:
                        async with group.transaction() as tx:
                            await tx.execute("INSERT INTO notes VALUES ($1)", [n])
                assert await group.query_value("SELECT id FROM notes WHERE id = $1", [n], read_only=True) == n

        await asyncio.gather(*(fresh(writes_and_reads(n)) for n in range(0, 60, 10)))
        assert await fresh(group.query_value(COUNT, read_only=True)) < 18  # who wrote nothing reads what is there
        seen = await group.position()
        until_there = "SELECT count(*) FROM notes WHERE pg_is_in_recovery()"
        async with asyncio.timeout(60):
            while await group.query_value(until_there, read_only=True) != 18:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await group.query_value(until_there, read_only=True, after=seen) == 18  # from the replica by then


async def test_a_position_goes_from_one_process_to_the_next(pair: Pair) -> None:
    async with pair.group(replicas_read=True) as one, pair.group(replicas_read=True) as other:
        await one.execute("INSERT INTO notes VALUES (1)")
        token = await one.position()
        assert isinstance(token, str)
        assert await other.query_value(COUNT, read_only=True, after=token) == 1
        async with other.transaction(read_only=True, after=token) as tx:
            assert await tx.query_value(COUNT) == 1
        async with other.stream(COUNT, read_only=True, after=token) as rows:
            assert [row[0] async for row in rows] == [1]
        for wrong in ("", "x", "1-2", "7-x-1", token + "'; DROP", 7, "æ-1-1"):
            with pytest.raises(ConfigurationError, match="after: expected what"):
                await other.query(COUNT, read_only=True, after=wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="of another database"):
            await other.query(COUNT, read_only=True, after="1" + token)
        with pytest.raises(ConfigurationError, match="say read_only=True"):
            await other.query(COUNT, after=token)
        with pytest.raises(ConfigurationError, match="max_lag: expected seconds"):
            await other.query(COUNT, read_only=True, max_lag=-1)


async def test_a_replica_that_is_too_far_behind_is_not_read_from(pair: Pair) -> None:
    async with pair.group(replicas_read=True, interval=0.05) as group:
        for n in range(10):
            await group.execute("INSERT INTO notes VALUES ($1)", [n])
            await asyncio.sleep(0.02)
        assert await fresh(group.query_value(WHERE, read_only=True, max_lag=0.05)) is False
        async with asyncio.timeout(60):  # how far behind it is shows when it has passed a place that the primary told
            while not await fresh(group.query_value(WHERE, read_only=True, max_lag=3600.0)):
                await group.execute("DELETE FROM notes WHERE id = 0")
                await asyncio.sleep(0.01)
        lag = (await group.health()).facts["members"]["bergen"]["lag"]
        assert 0 <= lag < 3600
    async with pair.group(replicas_read=True, max_lag=0.0) as group:
        assert await fresh(group.query_value(WHERE, read_only=True)) is False


async def test_without_any_primary_reads_go_on_and_say_what_they_cannot(pair: Pair) -> None:
    async with pair.group(replicas_read=True, wait=1.0) as group:
        await group.execute("INSERT INTO notes VALUES (1)")
        await asyncio.to_thread(kill, pair.primary)
        assert await fresh(group.query_value(WHERE)) is True
        assert group.active_provider is group.secondaries[0]
        with pytest.raises(QueryRejected, match="may only read"):
            await group.query("INSERT INTO notes VALUES (2) RETURNING id")
        with pytest.raises(NoHealthyConnection, match="a secondary takes no writes"):
            await group.execute_many("INSERT INTO notes VALUES ($1)", [(2,)])
        health = await group.health()
        assert health.status == "degraded"
        assert "no writes: the primary oslo cannot be reached" in health.detail
        await asyncio.to_thread(pair.primary.start)
        assert await group.execute("DELETE FROM notes WHERE id = 1") == 1


# ---- what engines offer beside, across a promotion ------------------------------------------------------------------


async def test_everything_follows_a_promotion(pair: Pair, keyring_url: str) -> None:
    heard: list[Any] = []
    async with pair.group() as group:
        read = group.coalesced("notes", key="id")
        await group.enable_search("notes", "body")
        assert await group.copy_in("notes", ["id", "body"], [(1, "fjorden"), (2, "fjellet")]) == 2
        assert (await read(1))["body"] == "fjorden"

        async def listener() -> None:
            async with group.listen("news") as notes:
                async for note in notes:
                    heard.append(note)  # noqa: PERF401  (it is looked at while it grows)

        listening = asyncio.create_task(listener())
        async with asyncio.timeout(60):
            while not heard:
                await group.notify("news", "before")
                await asyncio.sleep(0.05)
        subjects = group.capabilities.subjects
        async with PostgreSQLProvider.from_url(pair.standby.url) as copy:
            await until_true(copy, "SELECT EXISTS (SELECT FROM notes WHERE id = 2)")
        await asyncio.to_thread(kill, pair.primary)
        assert (await read(2))["body"] == "fjellet"  # on the standby, for the time being
        assert [row["id"] for row in await group.search("notes", "body", "fjord")] == [1]
        await asyncio.to_thread(promote, pair.standby)
        assert await group.copy_in("notes", ["id", "body"], iter([(3, "fjæra")])) == 1
        assert (await read(3))["body"] == "fjæra"
        assert await subjects.select("notes", {"id": 3}) == [{"id": 3, "body": "fjæra"}]
        assert await group.query_value("SELECT count(*) FROM notes") == 3
        async with asyncio.timeout(60):
            while not any(note.missed for note in heard):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            while heard[-1].missed or heard[-1].payload != "after":
                await group.notify("news", "after")
                await asyncio.sleep(0.05)
        listening.cancel()
        await asyncio.wait([listening])
        assert read.keys >= read.statements >= 3  # one that broke was asked again
    await asyncio.to_thread(pair.swapped)


@pytest.fixture
def keyring_url(tmp_path: Any) -> str:
    return f"file:{tmp_path / 'keys'}"


# ---- who the primary is ---------------------------------------------------------------------------------------------


async def test_labels_that_are_wrong_do_no_harm(pair: Pair) -> None:
    first = PostgreSQLProvider.from_url(pair.standby.url, name="bergen")
    second = PostgreSQLProvider.from_url(pair.primary.url, name="oslo")
    async with FailoverGroup("main", primary=first, secondaries=[second]) as group:
        assert group.active_provider is second
        assert await group.execute("INSERT INTO notes VALUES (1)") == 1


async def test_the_role_can_be_told_without_any_privilege(pair: Pair) -> None:
    async with PostgreSQLProvider.from_url(pair.primary.url) as admin:
        await admin.execute("DROP ROLE IF EXISTS plain_reader; CREATE ROLE plain_reader LOGIN PASSWORD 'plain'")
        await admin.query("SELECT pg_sleep(0.3)")  # the standby is behind by as much
    members = [
        PostgreSQLProvider(name=name, port=server.port, database="postgres", username="plain_reader", password="plain")
        for name, server in (("oslo", pair.primary), ("bergen", pair.standby))
    ]
    async with FailoverGroup("main", primary=members[0], secondaries=members[1:], replicas_read=True) as group:
        await until(lambda: group._known[1].standing)
        assert await fresh(group.query_value(WHERE, read_only=True)) is True
        token = await group.position()
        assert await group.query_value("SELECT 1", read_only=True, after=token) == 1


async def test_two_that_both_take_writes_get_none(postgresql_database: EmptyDatabase, tmp_path: Any) -> None:
    """Two databases of one server have one system identifier, one timeline, and both take writes."""
    events: list[Event] = []
    members = [postgresql_database.provider(name) for name in ("oslo", "bergen")]
    group = FailoverGroup("main", primary=members[0], secondaries=members[1:], wait=0.5)
    group.observe(events.append)
    async with group:
        for _ in range(2):
            with pytest.raises(NoHealthyConnection, match="oslo and bergen both say that they are the primary"):
                await group.execute("CREATE TABLE t (a int)")
        assert await group.query_value("SELECT 1") == 1  # READ ONLY
        with pytest.raises(QueryRejected):
            await group.query("CREATE TABLE t (a int)")
        health = await group.health()
        assert health.status == "degraded"
        assert "oslo and bergen both say" in health.detail
    assert [e.kind for e in events if e.kind == "rivals"] == ["rivals"]


async def test_members_of_different_databases_are_refused(pair: Pair, postgresql_server: PostgreSQLServer) -> None:
    members = [
        PostgreSQLProvider.from_url(server.url, name=name)
        for name, server in (("oslo", pair.primary), ("stranger", postgresql_server))
    ]
    group = FailoverGroup("main", primary=members[0], secondaries=members[1:])
    with pytest.raises(ConfigurationError, match="stranger holds another database"):
        await group.connect()
    assert (await members[0].health()).detail == "not open"


def test_an_engine_that_follows_by_itself_needs_no_group() -> None:
    members = [RedisProvider(name=name) for name in ("oslo", "bergen")]
    with pytest.raises(ConfigurationError, match="the engine redis follows its primary by itself"):
        FailoverGroup("main", primary=members[0], secondaries=members[1:])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"secondaries": []}, "at least one secondary"),
        ({"primary": None}, "is made of providers, not NoneType"),
        ({"max_lag": -1}, "max_lag: expected seconds"),
        ({"wait": "long"}, "wait: expected seconds"),
        ({"interval": 0}, "interval: expected seconds, more than 0"),
        ({"patroni": []}, "patroni: expected a list of URLs"),
        ({"patroni": ["10.0.0.1:8008"]}, "patroni: expected URLs"),
    ],
)
def test_a_group_that_is_none_is_refused(settings: dict[str, Any], said: str) -> None:
    one, two = (PostgreSQLProvider(name=name, database="app") for name in ("oslo", "bergen"))
    with pytest.raises(ConfigurationError, match=said):
        FailoverGroup("main", **{"primary": one, "secondaries": [two], **settings})


async def test_a_clock_that_jumps_harms_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair.group(replicas_read=True, interval=0.05) as group:
        events: list[Event] = []
        group.observe(events.append)
        for jump in (86_400.0, -86_400.0):
            real = time.time
            monkeypatch.setattr(time, "time", lambda real=real, jump=jump: real() + jump)
            monkeypatch.setattr(time, "time_ns", lambda real=real, jump=jump: int((real() + jump) * 1e9))
            await group.execute("INSERT INTO notes VALUES ($1)", [int(jump)])
            await asyncio.sleep(0.2)
            await soon(lambda: group.query_value(WHERE, read_only=True, max_lag=30.0))
            monkeypatch.undo()
        assert not [e for e in events if e.kind in {"lost", "no primary"}]


async def test_what_was_known_last_is_used_when_the_monitor_dies(pair: Pair) -> None:
    events: list[Event] = []
    async with pair.group(interval=0.3) as group:
        group.observe(events.append)
        monitor = group._monitor
        assert monitor is not None
        dead = list(monitor._tasks.values())
        for task in dead:
            task.cancel()
        await asyncio.wait(dead)
        assert await group.execute("INSERT INTO notes VALUES (1)") == 1
        assert await group.query_value(COUNT) == 1
        await until(lambda: not set(monitor._tasks.values()) & set(dead))  # and it is begun again
        await asyncio.to_thread(kill, pair.primary)
        await until(lambda: [e for e in events if e.kind == "no primary"])
        await asyncio.to_thread(pair.primary.start)
        assert await group.execute("INSERT INTO notes VALUES (2)") == 1
    assert len([e for e in events if e.kind == "fault"]) == 2


async def test_an_observer_that_raises_disturbs_nothing(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    def observer(event: Event) -> None:
        raise ValueError("13097248022")

    group = pair.group()
    stop = group.observe(observer)
    async with group:
        assert await group.query_value("SELECT 1") == 1
    stop()
    assert "an observer raised ValueError" in caplog.text
    assert "13097248022" not in caplog.text


async def test_a_file_names_the_options(pair: Pair, tmp_path: Any) -> None:
    file = tmp_path / "datavern.toml"
    text = f"""
    [databases.main]
    provider = "postgresql"
    url = "{pair.primary.url}"
    failover = ["standby"]
    replicas_read = true
    max_lag = 60.0
    [databases.standby]
    provider = "postgresql"
    url = "{pair.standby.url}"
    """
    file.write_text(text)
    async with DatabaseManager.from_config(file) as db:
        async with asyncio.timeout(60):  # until it shows how far behind it is
            while not await fresh(db["main"].query_value(WHERE, read_only=True)):
                await db["main"].execute("DELETE FROM notes WHERE id = 0")
                await asyncio.sleep(0.01)
    file.write_text(text.replace('failover = ["standby"]', ""))
    with pytest.raises(ConfigurationError, match=r"databases\.main\.replicas_read: .* without failover"):
        DatabaseManager.from_config(file)
    file.write_text(text.replace("60.0", '"long"'))
    with pytest.raises(ConfigurationError, match="max_lag: expected seconds"):
        DatabaseManager.from_config(file)
    file.write_text(text.replace("true", '"yes"'))
    with pytest.raises(ConfigurationError, match="replicas_read: expected true or false"):
        DatabaseManager.from_config(file)


# ---- Patroni --------------------------------------------------------------------------------------------------------


class Patroni:
    """Answers as Patroni's REST API does: see "Monitoring endpoint" of its documentation."""

    def __init__(self) -> None:
        self.members: list[dict[str, Any]] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"members": outer.members, "scope": "demo"}).encode()
                self.send_response(outer.status if self.path == "/cluster" else 404)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def leads(self, leader: PostgreSQLServer | None, *others: PostgreSQLServer) -> None:
        node = {"state": "running", "host": "127.0.0.1", "timeline": 1}
        self.members = [{**node, "name": f"n{s.port}", "role": "replica", "port": s.port, "lag": 0} for s in others]
        if leader is not None:
            self.members.insert(0, {**node, "name": f"n{leader.port}", "role": "leader", "port": leader.port})


@pytest.fixture
def patroni() -> Iterator[Patroni]:
    made = Patroni()
    yield made
    made.server.shutdown()
    made.server.server_close()


async def test_patroni_names_the_primary(pair: Pair, patroni: Patroni) -> None:
    patroni.leads(pair.primary, pair.standby)
    events: list[Event] = []
    group = pair.group(patroni=["http://127.0.0.1:1", patroni.url], wait=1.0, interval=0.05)
    group.observe(events.append)
    async with group:
        assert await group.execute("INSERT INTO notes VALUES (1)") == 1
        patroni.leads(None, pair.primary, pair.standby)  # its leader's lock ran out
        await until(lambda: not group.serving)
        with pytest.raises(NoHealthyConnection):
            await group.execute("INSERT INTO notes VALUES (2)")
        assert await group.query_value(COUNT) == 1
        patroni.leads(pair.primary, pair.standby)
        await until(lambda: group.serving)
        assert await group.execute("INSERT INTO notes VALUES (2)") == 1
        patroni.status = 503  # silent: the members' own word counts
        await until(lambda: [e for e in events if e.kind == "cluster manager"])
        assert await group.execute("INSERT INTO notes VALUES (3)") == 1
        patroni.status = 200
        patroni.members = [{"name": "elsewhere", "role": "leader", "host": "10.9.9.9", "port": 5432}]
        await until(lambda: any("10.9.9.9:5432" in e.detail for e in events))
        assert await group.execute("INSERT INTO notes VALUES (4)") == 1
