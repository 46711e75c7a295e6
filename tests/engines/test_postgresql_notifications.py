"""LISTEN and NOTIFY: nothing is lost in silence."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import traceback
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import asyncpg
import pytest
from tests.waiting import until

from datavern import (
    ConfigurationError,
    ConnectionFailed,
    DatavernError,
    Pool,
    PostgreSQLProvider,
    QueryRejected,
)
from datavern.engines.postgresql import notifications as module
from datavern.engines.postgresql.notifications import Notification
from datavern.testing import EmptyDatabase, create_test_database
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.proxy import TCPProxy

NAMES = ["plain", "Upper", "ÆØÅ blåbær", "with \"quotes\" and 'these'", "; DROP TABLE x; --", " ", "x" * 63, "ø" * 31]


async def taken(notes: Any, count: int = 1) -> list[Any]:
    """The next items: the payload of a message, ``...`` for the news that some may have been missed."""
    found: list[Any] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            note = await anext(notes)
            found.append(note.payload if note.missed is None else ...)
    return found


@pytest.fixture
async def admin(postgresql_database: EmptyDatabase) -> AsyncIterator[asyncpg.Connection]:
    """A connection of somebody else's."""
    connection = await asyncpg.connect(postgresql_database.settings["url"])
    yield connection
    await connection.close()


async def sessions(admin: asyncpg.Connection) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'datavern' AND datname = current_database()"
    return int(await admin.fetchval(query))


# ---- messages -------------------------------------------------------------------------------------------------------


async def test_what_comes_between_two_listens_is_kept(
    postgresql: Any, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first channel is listened to already while the second is asked for."""
    sent = 0
    asks = asyncpg.Connection.add_listener

    async def and_somebody_sends(connection: asyncpg.Connection, channel: str, callback: Any) -> None:
        nonlocal sent
        if channel == "second":
            sent += 1
            await admin.execute(f"NOTIFY first, 'early {sent}'")
            async with asyncio.timeout(20):  # it is heard with the next answer, at the latest
                await connection.execute("SELECT 1")
        await asks(connection, channel, callback)

    monkeypatch.setattr(asyncpg.Connection, "add_listener", and_somebody_sends)
    async with postgresql.listen("first", "second") as notes:
        assert await taken(notes) == ["early 1"]
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert await taken(notes, 2) == [..., "early 2"], "what may have been missed was before it"


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_stands_for_itself(postgresql: Any, admin: asyncpg.Connection, name: str) -> None:
    async with postgresql.listen(name) as notes:
        await postgresql.notify(name.swapcase() if name.swapcase() != name else "other", "wrong")
        await postgresql.notify(name, "første")
        await admin.execute("SELECT pg_notify($1, $2)", name, 'andre "å"')
        await postgresql.notify(name)
        assert await taken(notes, 3) == ["første", 'andre "å"', ""]
        await admin.execute('NOTIFY "{}"'.format(name.replace('"', '""')))
        note = await anext(notes)
        assert (note.channel, note.payload, note.missed) == (name, "", None)
        assert note.pid == admin.get_server_pid()


@pytest.mark.parametrize("name", ["", "x" * 64, "ø" * 32, "a\0b", "\ud800", 7, None])
async def test_a_name_that_cannot_be(postgresql: Any, name: Any) -> None:
    with pytest.raises(ConfigurationError, match="channel"):
        postgresql.listen(name)
    with pytest.raises(ConfigurationError, match="channel"):
        await postgresql.notify(name, "x")


async def test_the_longest_payload(postgresql: Any) -> None:
    async with postgresql.listen("c") as notes:
        await postgresql.notify("c", "å" * 3999 + "x")
        assert await taken(notes) == ["å" * 3999 + "x"]
        for payload in ("å" * 4000, "x" * 100_000):
            with pytest.raises(QueryRejected, match=rf"the payload has {len(payload.encode())} bytes, .* 7999 at most"):
                await postgresql.notify("c", payload)
        for payload in ("a\0b", "\udfff"):
            with pytest.raises(ConfigurationError, match="the payload holds a NUL"):
                await postgresql.notify("c", payload)
        with pytest.raises(ConfigurationError, match="a payload is a str, not dict"):
            await postgresql.notify("c", {"a": 1})
        await postgresql.notify("c", "last")
        assert await taken(notes) == ["last"]


async def test_in_a_transaction(postgresql: Any) -> None:
    async with postgresql.listen("c") as notes:
        with pytest.raises(LookupError):
            async with postgresql.transaction() as tx:
                await tx.notify("c", "never")
                raise LookupError
        async with postgresql.transaction() as tx:
            await tx.notify("c", "one")
            with pytest.raises(LookupError):
                async with tx.savepoint():
                    await tx.notify("c", "undone")
                    raise LookupError
            await postgresql.notify("c", "before")
            await tx.notify("c", "two")
        assert await taken(notes, 3) == ["before", "one", "two"]


async def test_several_channels_and_several_listeners(postgresql: Any) -> None:
    async with (
        postgresql.listen("a", "b", "a") as both,
        postgresql.listen("b") as one,
        postgresql.listen("b") as other,
    ):
        for i in range(100):
            await postgresql.notify("ab"[i % 2], str(i))
        assert await taken(both, 100) == [str(i) for i in range(100)]
        assert await taken(one, 50) == await taken(other, 50) == [str(i) for i in range(1, 100, 2)]


async def test_sending_leaves_nothing_behind(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(min=1, max=1)) as pg:
        await pg.notify("c", "x")
        async with pg.transaction() as tx:
            await tx.notify("c", "x")
        assert await pg.query_value("SELECT 1") == 1
        assert (pg.stats().reset, pg.stats().discarded) == (0, 0)


async def test_who_listens_takes_no_connection_of_the_pool(postgresql_database: EmptyDatabase) -> None:
    async with postgresql_database.provider(pool=Pool(min=1, max=1)) as pg, pg.listen("c") as notes:
        assert pg.stats().in_use == 0
        await pg.notify("c", "x")
        assert await taken(notes) == ["x"]


async def test_more_than_may_wait(postgresql: Any) -> None:
    async with postgresql.listen("c", most=3) as notes:
        for i in range(10):
            await postgresql.notify("c", str(i))
        await until(lambda: _holds(notes, "9"))
        assert await taken(notes, 4) == [..., "7", "8", "9"]
        await postgresql.notify("c", "10")
        assert await taken(notes) == ["10"]
    with pytest.raises(ConfigurationError, match="most"):
        postgresql.listen("c", most=0)


async def _holds(notes: Any, payload: str) -> bool:
    return bool(notes._waiting) and notes._waiting[-1].payload == payload


async def test_what_was_missed_cannot_be_taken_for_a_message() -> None:
    note = Notification("", None, 0, "the connection broke")
    with pytest.raises(ConnectionFailed, match="may have been missed \\(the connection broke\\)"):
        _ = note.payload
    assert repr(note) == "<Notification missed='the connection broke'>"
    assert "13097248022" not in repr(Notification("c", "13097248022", 7))


# ---- begin and end --------------------------------------------------------------------------------------------------


async def test_nothing_is_left_of_it(postgresql: Any, admin: asyncpg.Connection) -> None:
    await postgresql.query("SELECT 1")
    before, tasks = await sessions(admin), len(asyncio.all_tasks())
    async with postgresql.listen("c") as notes:
        assert await sessions(admin) == before + 1
        assert notes.connected
        waiting = asyncio.ensure_future(anext(notes))
        await asyncio.sleep(0)
    assert not notes.connected
    with pytest.raises(StopAsyncIteration):
        await waiting
    assert [note async for note in notes] == []
    await until(lambda: _equals(sessions(admin), before))
    assert len(asyncio.all_tasks()) == tasks
    with pytest.raises(ConfigurationError, match="once"):
        await notes.__aenter__()
    with pytest.raises(ConfigurationError, match="async with"):
        await anext(postgresql.listen("c"))


async def _equals(found: Awaitable[int], wanted: int) -> bool:
    return await found == wanted


async def test_the_provider_is_closed_under_it(postgresql_database: EmptyDatabase, admin: asyncpg.Connection) -> None:
    pg = postgresql_database.provider()
    with pytest.raises(ConnectionFailed, match="not open"):
        await pg.listen("c").__aenter__()
    await pg.connect()
    async with pg.listen("c") as notes:
        waiting = asyncio.ensure_future(anext(notes))
        await asyncio.sleep(0)
        await pg.close()
        with pytest.raises(ConnectionFailed, match="the provider was closed"):
            await waiting
        await until(lambda: _equals(sessions(admin), 0))


async def test_no_server(postgresql: Any) -> None:
    async with postgresql.listen("c"):
        postgresql.settings = dataclasses.replace(postgresql.settings, port=1)
        with pytest.raises(ConnectionFailed, match="nothing listens"):
            await postgresql.listen("c").__aenter__()


async def test_cancelled_anywhere(postgresql: Any, admin: asyncpg.Connection) -> None:
    await postgresql.query("SELECT 1")
    before, tasks = await sessions(admin), len(asyncio.all_tasks())
    dice = random.Random(7)
    finished = 0

    async def one() -> None:
        async with postgresql.listen("c", "d") as notes:
            await anext(notes)

    for _ in range(60):
        task = asyncio.ensure_future(one())
        await asyncio.sleep(dice.random() * 0.02)
        if dice.random() < 0.3:
            await postgresql.notify("d", "x")
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            continue
        finished += 1
    assert finished < 60
    await until(lambda: _equals(sessions(admin), before))
    assert len(asyncio.all_tasks()) == tasks


async def test_a_message_is_not_lost_by_whoever_gave_up_waiting(postgresql: Any) -> None:
    async with postgresql.listen("c") as notes:
        for i in range(20):
            task = asyncio.ensure_future(anext(notes))
            await asyncio.sleep(0)
            if i % 2:
                task.cancel()
            await postgresql.notify("c", str(i))
            if i % 2:
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await taken(notes) == [str(i)]
            else:
                assert (await task).payload == str(i)


# ---- what networks and servers do -----------------------------------------------------------------------------------


@pytest.fixture
async def through_proxy(
    postgresql_database: EmptyDatabase, postgresql_server: PostgreSQLServer
) -> AsyncIterator[tuple[TCPProxy, Any]]:
    with TCPProxy(postgresql_server.host, postgresql_server.port) as proxy:
        url = postgresql_database.settings["url"].replace(f":{postgresql_server.port}/", f":{proxy.port}/")
        async with PostgreSQLProvider.from_url(url, connect_timeout=1.0) as pg:
            yield proxy, pg


async def test_the_network_cuts(through_proxy: tuple[TCPProxy, Any], admin: asyncpg.Connection) -> None:
    """Whatever is sent meanwhile is gone, and that is said, once, before anything that came later."""
    proxy, pg = through_proxy
    async with pg.listen("c", "d") as notes:
        for turn in range(3):
            await admin.execute("SELECT pg_notify('c', $1)", f"before {turn}")
            assert await taken(notes) == [f"before {turn}"]
            proxy.refuse()
            proxy.cut()
            await admin.execute("SELECT pg_notify('c', 'gone')")
            await until(lambda: _is(not notes.connected))
            proxy.refuse(refusing=False)
            assert await taken(notes) == [...]
            assert notes.connected
            await admin.execute("SELECT pg_notify('d', $1)", f"after {turn}")
            assert await taken(notes) == [f"after {turn}"]


async def _is(value: bool) -> bool:
    return value


async def test_every_message_comes_or_is_said_to_be_missed(
    through_proxy: tuple[TCPProxy, Any], admin: asyncpg.Connection
) -> None:
    """Numbers one after the other: where some are not there, the news that they may not be is in between."""
    proxy, pg = through_proxy
    got: list[Any] = []

    async def send() -> None:
        for i in range(400):
            await admin.execute("SELECT pg_notify('c', $1)", str(i))
            await asyncio.sleep(0.002)
            if i % 80 == 40:
                proxy.cut()

    async with pg.listen("c") as notes:
        sending = asyncio.ensure_future(send())
        sending.add_done_callback(lambda _: None)
        ended = False
        async with asyncio.timeout(30):
            while not ended:
                note = await anext(notes)
                if note.missed is None and note.payload == "end":
                    ended = True
                else:
                    got.append(... if note.missed else int(note.payload))
                if sending.done() and not ended:
                    await admin.execute("SELECT pg_notify('c', 'end')")
                elif got[-1:] == [399]:
                    await sending
                    await admin.execute("SELECT pg_notify('c', 'end')")
    numbers = [n for n in got if n is not ...]
    assert numbers == sorted(set(numbers)), "twice, or out of order"
    expected = 0
    for item in got:
        if item is ...:
            expected = -1
        else:
            assert expected in (-1, item), f"{expected} was missed in silence"
            expected = item + 1
    assert got.count(...) >= 3
    assert len(numbers) > 100


async def test_a_socket_that_freezes(
    through_proxy: tuple[TCPProxy, Any], admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK", 0.1)
    monkeypatch.setattr(module, "CHECK_DEADLINE", 0.3)
    proxy, pg = through_proxy
    async with pg.listen("c") as notes:
        proxy.freeze()
        await until(lambda: _is(not notes.connected))
        await admin.execute("SELECT pg_notify('c', 'gone')")
        proxy.thaw()
        assert await taken(notes) == [...]
        await admin.execute("SELECT pg_notify('c', 'x')")
        assert await taken(notes) == ["x"]
        proxy.freeze()
    async with asyncio.timeout(20):
        await pg.close()


@pytest.mark.parametrize("immediate", [False, True])
async def test_the_server_restarts(immediate: bool, caplog: pytest.LogCaptureFixture) -> None:
    with PostgreSQLServer() as server:
        async with (
            create_test_database("postgresql", server=server) as database,
            database.provider() as pg,
            pg.listen("c") as notes,
        ):
            await asyncio.to_thread(server.halt, immediate=immediate)
            await until(lambda: _is(not notes.connected))
            await asyncio.to_thread(server.start)
            assert await taken(notes) == [...]
            while True:
                try:
                    await pg.notify("c", "x")
                    break
                except DatavernError:
                    await asyncio.sleep(0.05)
            assert (await taken(notes))[0] == "x"
    assert "a listening connection broke" in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_backend_that_is_ended(postgresql: Any, admin: asyncpg.Connection) -> None:
    async with postgresql.listen("c") as notes:
        ended = await admin.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR "
            "(application_name = 'datavern' AND datname = current_database())"
        )
        assert ended >= 1
        assert await taken(notes) == [...]


async def test_a_failure_says_nothing_of_a_payload(postgresql: Any) -> None:
    planted = "13097248022"
    with pytest.raises(QueryRejected) as caught:
        await postgresql.notify("c", planted * 1000)
    assert planted not in "".join(traceback.format_exception(caught.value))
