"""Cut, frozen and cancelled connections, and a server that is killed: what is unknown is said so, and nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.waiting import until

from datavern.contracts.errors import ConnectionFailed, DatavernError, OutcomeUnknown
from datavern.engines.azuresql.provider import AzureSQLProvider
from datavern.testing.azuresql import AzureSQLServer
from datavern.testing.proxy import TCPProxy


@pytest.fixture
def proxy(server: AzureSQLServer) -> Iterator[TCPProxy]:
    """Something to cut and freeze."""
    with TCPProxy("127.0.0.1", server.port) as proxy:
        yield proxy


@pytest.fixture
async def behind(make: Any, proxy: TCPProxy) -> AsyncIterator[AzureSQLProvider]:
    """A connected provider behind it."""
    async with make(port=proxy.port, connect_timeout=5.0, retry=10.0, pool={"validate_after": 1000.0}) as provider:
        yield provider
        proxy.thaw()


async def test_a_read_on_a_connection_that_was_cut_is_made_on_another(behind, proxy):
    for _ in range(3):
        assert await behind.query_value("SELECT COUNT(*) FROM people") == 7
        proxy.cut()
        assert await behind.query_value("SELECT COUNT(*) FROM people") == 7
    assert behind.stats().discarded >= 3


async def test_a_write_without_an_answer_is_not_made_again(behind, proxy):
    await behind.query_value("SELECT 1")
    proxy.freeze()
    writing = asyncio.create_task(behind.execute("INSERT INTO people (id) VALUES (@P1)", [9]))
    await until(lambda: proxy.held)
    proxy.cut()
    with pytest.raises(OutcomeUnknown, match="may or may not have happened"):
        await writing
    proxy.thaw()
    assert await behind.query_value("SELECT 1") == 1


async def test_a_transaction_whose_connection_breaks_says_that_it_may_be_run_again(behind, proxy):
    runs: list[int] = []

    async def work(tx: Any) -> Any:
        runs.append(1)
        if len(runs) == 1:
            proxy.cut()
        return await tx.query_value("SELECT COUNT(*) FROM people")

    assert await behind.run_in_transaction(work) == 7
    assert len(runs) == 2
    with pytest.raises(ConnectionFailed) as caught:
        async with behind.transaction() as tx:
            proxy.cut()
            await tx.query("SELECT 1")
    assert caught.value.retry == "transaction"


async def test_a_commit_without_an_answer_is_unknown(behind, proxy):
    async def commit() -> None:
        async with behind.transaction() as tx:
            await tx.execute("CREATE TABLE #kept (id int)")
            proxy.freeze()
            asyncio.get_running_loop().call_later(0.1, proxy.cut)

    with pytest.raises(OutcomeUnknown, match="the commit"):
        await commit()


async def test_a_stream_that_is_cut_says_so(behind, proxy):
    with pytest.raises(ConnectionFailed):
        async with behind.stream("SELECT id FROM people ORDER BY id", batch_size=1) as rows:
            connection = rows._slot.connection
            connection.wire._session.conn.sock._socket.shutdown(2)
            connection.wire._session._reader._pos = connection.wire._session._reader._size  # the packet that it has
            connection.wire._session._reader._status = 0
            async for _ in rows:
                pass
    assert await behind.query_value("SELECT 1") == 1
    assert behind.stats().in_use == 0


# ---- cancelled -------------------------------------------------------------------------------------------------------


async def test_a_deadline_ends_a_query_on_a_frozen_connection(behind, proxy):
    await behind.query_value("SELECT 1")
    proxy.freeze()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await behind.query_value("SELECT COUNT(*) FROM people")
    proxy.thaw()
    assert await behind.query_value("SELECT COUNT(*) FROM people") == 7
    await until(lambda: behind.stats().in_use == 0)


async def test_a_cancelled_query_is_stopped_and_its_connection_used_again(make, proxy):
    """The server acknowledges the attention signal behind the whole answer, and the next answer is the next one's."""
    async with make(port=proxy.port, pool={"max": 1, "validate_after": 1000.0}) as azuresql:
        for n in range(20):
            proxy.freeze()
            task = asyncio.create_task(azuresql.query_value("SELECT @P1", [n]))
            await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            proxy.thaw()
            assert await azuresql.query_value("SELECT @P1", [n + 1000]) == n + 1000
        stats = azuresql.stats()
        assert (stats.created, stats.discarded) == (1, 0)


async def test_cancelled_at_any_moment_every_answer_is_its_own(make):
    async with make(pool={"max": 3}) as azuresql:

        async def cancelled(n: int) -> None:
            task = asyncio.create_task(azuresql.query_value("SELECT @P1", [n]))
            for _ in range(n % 13):
                await asyncio.sleep(0)
            if n % 3 == 0:
                await asyncio.sleep(0.001 * (n % 7))
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                assert await task == n

        async def undisturbed(n: int) -> None:
            assert await azuresql.query_value("SELECT @P1", [n]) == n

        for _ in range(3):
            await asyncio.gather(
                *(cancelled(n) for n in range(40)), *(undisturbed(1000 + n) for n in range(40)), undisturbed(0)
            )
        stats = azuresql.stats()
        assert (stats.in_use, stats.waiting) == (0, 0)
        assert stats.discarded == 0


async def test_a_transaction_that_a_deadline_broke_does_not_commit(behind, proxy):
    with pytest.raises(DatavernError, match="rolled back"):
        async with behind.transaction() as tx:
            proxy.freeze()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await tx.query("SELECT 1")
            proxy.thaw()
            await asyncio.sleep(0.2)
            with pytest.raises(DatavernError, match="cancelled"):
                await tx.query("SELECT 1")


async def test_a_savepoint_saves_the_transaction_from_a_deadline(behind, proxy):
    async def later() -> None:
        await asyncio.sleep(0.2)
        proxy.thaw()

    async with behind.transaction() as tx:
        with pytest.raises(TimeoutError):
            async with tx.savepoint():
                proxy.freeze()
                thawing = asyncio.create_task(later())
                async with asyncio.timeout(0.05):
                    await tx.query("SELECT 1")
        await thawing
        assert await tx.query_value("SELECT @@TRANCOUNT") == 1


# ---- the end ---------------------------------------------------------------------------------------------------------


async def test_closing_does_not_wait_for_a_frozen_server(make, proxy, monkeypatch):
    monkeypatch.setattr("datavern.connectors.pool.RETURN_DEADLINE", 0.2)
    monkeypatch.setattr("datavern.connectors.tending.CLOSE_DEADLINE", 0.2)
    provider = make(port=proxy.port)
    await provider.connect()
    proxy.freeze()
    stuck = asyncio.create_task(provider.query("SELECT 1"))
    await until(lambda: proxy.held)
    async with asyncio.timeout(60.0):
        await provider.close()
        with pytest.raises((DatavernError, asyncio.CancelledError)):
            await stuck


async def test_a_server_that_is_killed_comes_back_to_a_provider_that_goes_on():
    with AzureSQLServer() as server:
        settings = {**server.settings, "location": "norway", "retry": 60.0}
        async with AzureSQLProvider.from_settings("main", settings) as azuresql:
            assert await azuresql.query_value("SELECT COUNT(*) FROM people") == 2
            server.kill()
            asking = asyncio.create_task(azuresql.query_value("SELECT COUNT(*) FROM people"))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.start)
            with contextlib.suppress(ConnectionFailed):  # the pool may have had nobody to give it
                assert await asking == 2
            assert await azuresql.query_value("SELECT COUNT(*) FROM people") == 2


async def test_no_thread_outlives_its_provider(server):
    def ours() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "datavern-counted"]

    async with AzureSQLProvider.from_settings("counted", {**server.settings, "location": "norway"}) as provider:
        await asyncio.gather(*(provider.query("SELECT 1") for _ in range(20)))
        assert ours()
    await until(lambda: not ours())
