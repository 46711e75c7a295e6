"""Signing in, TLS, tokens, drivers that are not there, health."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
import traceback

import pytest
from tests.waiting import until

from datavern.config import TLS, Secret
from datavern.connectors.failover import FailoverGroup
from datavern.contracts.errors import (
    ConfigurationError,
    ConnectionFailed,
    DriverError,
    NoHealthyConnection,
    PoolTimeout,
)
from datavern.engines.azuresql import connection as connections
from datavern.engines.azuresql.provider import AzureSQLProvider
from datavern.engines.azuresql.settings import AzureSQLSettings
from datavern.engines.azuresql.tokens import Identity
from datavern.testing.azuresql import AzureSQLServer
from datavern.testing.proxy import Certificates, TCPProxy


async def failing(provider: AzureSQLProvider) -> ConnectionFailed:
    """The error that a provider does not open with; no secret in it."""
    with pytest.raises(ConnectionFailed) as caught:
        async with provider:
            pass
    told = "".join(traceback.format_exception(caught.value))
    assert "wrong-secret" not in told
    assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, DriverError)
    return caught.value


# ---- signing in ------------------------------------------------------------------------------------------------------


async def test_a_password_may_come_from_anywhere(make, server):
    async def fetched() -> str:
        return server.password

    for password in (server.password, Secret(server.password), lambda: server.password, fetched):
        async with make(password=password) as provider:
            assert await provider.query_value("SELECT COUNT(*) FROM people") == 7


async def test_a_wrong_password_says_what_to_do_and_is_not_tried_again(make, caplog):
    caplog.set_level(logging.DEBUG)
    error = await failing(make(password="wrong-secret"))
    assert error.code == "18456"
    assert error.retry == "never"
    assert "check username and password" in str(error)
    assert "wrong-secret" not in caplog.text


async def test_a_password_that_cannot_be_had_names_its_callable(make):
    def broken() -> str:
        raise RuntimeError("wrong-secret")

    error = await failing(make(password=broken))
    assert "callable raised RuntimeError" in str(error)
    with pytest.raises(ConfigurationError, match="gave int, expected str"):
        async with make(password=lambda: 5):
            pass


async def test_nobody_there(make):
    with TCPProxy("127.0.0.1", 1) as proxy:
        proxy.refuse()
        port = proxy.port
    assert "nothing listens" in str(await failing(make(port=port, retry=0)))
    assert "not known to the name service" in str(await failing(make(host="no-such-host.invalid", retry=0)))


async def test_a_server_that_does_not_answer(make, server):
    with TCPProxy("127.0.0.1", server.port) as proxy:
        proxy.freeze()
        start = time.monotonic()
        error = await failing(make(port=proxy.port, connect_timeout=0.3, retry=0))
        assert "did not answer in time" in str(error)
        assert time.monotonic() - start < 30.0


async def test_a_connection_that_breaks_while_it_is_made(make, server):
    with TCPProxy("127.0.0.1", server.port) as proxy:
        proxy.refuse()
        error = await failing(make(port=proxy.port, retry=0))
        assert error.retry == "safe"


async def test_a_cancelled_connect_leaves_nothing(make, server):
    with TCPProxy("127.0.0.1", server.port) as proxy:
        proxy.freeze()
        provider = make(port=proxy.port, connect_timeout=30.0)
        opening = asyncio.create_task(provider.connect())
        await until(lambda: proxy.held)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert (await provider.health()).status == "unhealthy"
        proxy.thaw()
        async with provider:
            assert await provider.query_value("SELECT 1") == 1


# ---- TLS -------------------------------------------------------------------------------------------------------------


async def test_the_certificate_is_verified(make, server, tmp_path):
    others = Certificates.make(tmp_path / "others", ["localhost"])
    error = await failing(make(tls=TLS(ca_file=others.ca_file), retry=0))
    assert "does not verify" in str(error)
    assert error.retry == "never"
    error = await failing(make(tls=None, retry=0))  # the system's authorities do not know it either
    assert "does not verify" in str(error)


async def test_a_certificate_for_another_name_is_refused(tmp_path):
    with AzureSQLServer(names=["db.example"]) as server:
        settings = {**server.settings, "location": "norway", "retry": 0}
        error = await failing(AzureSQLProvider.from_settings("main", settings))
        assert "does not verify" in str(error)
        ca_file = server.certificates.ca_file
        for tls in (
            TLS(ca_file=ca_file, server_name="db.example"),
            TLS(verify="ca", ca_file=ca_file),
            TLS(verify="none"),
        ):
            async with AzureSQLProvider.from_settings("main", {**settings, "tls": tls}) as provider:
                assert await provider.query_value("SELECT 1") == 1


async def test_no_ca_file_there(make, tmp_path):
    with pytest.raises(ConfigurationError, match="ca_file: cannot be read"):
        async with make(tls=TLS(ca_file=str(tmp_path / "none.pem"))):
            pass


async def test_nothing_is_sent_to_a_server_without_tls(make):
    """A server that answers PRELOGIN with "no encryption" hears nothing after it."""
    heard = bytearray()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(4096))
        options = bytes([0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 255]) + bytes(6) + bytes([2])
        writer.write(bytes([4, 1, 0, 8 + len(options), 0, 0, 0, 0]) + options)
        heard.extend(await reader.read(4096))
        writer.close()

    listening = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with listening:
        error = await failing(make(port=listening.sockets[0].getsockname()[1], password="wrong-secret", retry=0))
    assert "does not speak TLS" in str(error)
    assert len(heard) < 200
    assert "wrong-secret".encode("utf-16-le") not in heard


# ---- tokens ----------------------------------------------------------------------------------------------------------


def identity(**settings) -> Identity:
    return Identity(AzureSQLSettings(name="main", database="app", **settings))


async def test_a_token_is_kept_until_it_is_about_to_expire():
    given = []

    def token():
        given.append(f"t{len(given)}")
        return given[-1], time.time() + (3600 if len(given) > 1 else 200)

    who = identity(token=Secret(token))
    assert await who.token() == "t0"
    assert await who.token() == "t1"  # the first had less than five minutes left
    assert await who.token() == "t1"
    who.refused()
    assert await who.token() == "t2"
    assert await who.password() is None


async def test_a_token_without_a_date_is_asked_for_each_time():
    given = []

    async def token() -> str:
        given.append(1)
        return "t"

    who = identity(token=Secret(token))
    assert [await who.token(), await who.token()] == ["t", "t"]
    assert len(given) == 2


async def test_a_token_that_cannot_be_had(make, server):
    def broken() -> str:
        raise RuntimeError("wrong-secret")

    settings = {"username": None, "password": None}
    error = await failing(make(**settings, token=broken, retry=0))
    assert "the token's callable raised RuntimeError" in str(error)
    with pytest.raises(ConfigurationError, match="expected the token as a str"):
        async with make(**settings, token=lambda: None):
            pass


async def test_a_token_that_the_server_refuses_is_fetched_once_more(make, monkeypatch):
    """It may have been revoked before its time."""
    given = []

    def token():
        given.append(1)
        return "expired", time.time() + 3600

    def refusing(*args, **more):
        from datavern.engines.azuresql.wire import Refused

        assert more == {"password": None, "token": "expired"}
        raise Refused("driver.Error", 18456)

    monkeypatch.setattr(connections, "_opener", lambda _: refusing)
    error = await failing(make(username=None, password=None, token=token))
    assert len(given) == 2
    assert "the token has not expired" in str(error)


def test_no_driver_is_loaded_before_it_is_used():
    code = (
        "import sys; from datavern import AzureSQLProvider; "
        "AzureSQLProvider(database='a', username='b', password='c'); "
        "assert not {'azure', 'pytds', 'mssql_python', 'sqlalchemy', 'requests'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_azure_identity_is_loaded_for_managed_identities_alone(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "azure", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'datavern\[azure-identity\]'; or pass token="):
        async with make(username=None, password=None, authentication="managed-identity"):
            pass


async def test_a_machine_without_an_identity_says_so(make, monkeypatch):
    pytest.importorskip("azure.identity")

    class Nobody:
        def __init__(self, **_: object) -> None: ...

        def get_token(self, scope: str) -> object:
            assert scope == "https://database.windows.net/.default"
            raise RuntimeError("wrong-secret")

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Nobody)
    error = await failing(make(username=None, password=None, authentication="entra", retry=0))
    assert "no token could be had for this identity (RuntimeError)" in str(error)


# ---- trying again ----------------------------------------------------------------------------------------------------


async def test_what_passes_is_tried_again_while_signing_in(make, monkeypatch):
    real, tried = connections._opener, []

    def flaky(settings):
        opener = real(settings)

        def connect(**given):
            from datavern.engines.azuresql.wire import Refused

            tried.append(1)
            if len(tried) < 3:
                raise Refused("driver.Error", 40613)
            return opener(**given)

        return connect

    monkeypatch.setattr(connections, "_opener", flaky)
    monkeypatch.setattr(connections, "backoff", lambda *_, **__: 0.0)
    async with make() as provider:
        assert await provider.query_value("SELECT 1") == 1
    assert len(tried) == 3
    tried.clear()
    error = await failing(make(retry=0))
    assert error.code == "40613"
    assert len(tried) == 1


async def test_a_busy_service_is_left_alone_for_a_while(make, monkeypatch):
    def busy(settings):
        def connect(**_):
            from datavern.engines.azuresql.wire import Refused

            raise Refused("driver.Error", 40501)

        return connect

    monkeypatch.setattr(connections, "_opener", busy)
    monkeypatch.setattr(connections, "THROTTLED_REST", 0.5)
    with pytest.raises(ConnectionFailed, match="error 40501"):
        await connections.AzureSQLConnector(make(retry=0.7).settings).connect(lambda: None)


# ---- drivers ---------------------------------------------------------------------------------------------------------


async def test_a_driver_that_is_not_installed_is_named_with_its_extra(make, monkeypatch):
    for driver, module, extra in (
        ("python-tds", "pytds", "azuresql-tds"),
        ("mssql-python", "mssql_python", "azuresql"),
    ):
        for name in [n for n in sys.modules if n.split(".")[0] == module or n.startswith("datavern.engines.azuresql.")]:
            if n_is_driver(name, module):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ConfigurationError) as caught:
            async with make(driver=driver, tls=TLS()):
                pass
        assert f"pip install 'datavern[{extra}]'" in str(caught.value)


def n_is_driver(name: str, module: str) -> bool:
    return name.split(".", maxsplit=1)[0] == module or name.rpartition(".")[2] in {"tds", "odbc"}


# ---- health ----------------------------------------------------------------------------------------------------------


async def test_the_role_is_what_the_database_says(azuresql):
    """The server of these tests takes no writes, as the readable secondary of a geo-replication does not."""
    health = await azuresql.health()
    assert (health.status, health.role) == ("healthy", "secondary")
    assert health.version.startswith("Microsoft SQL Server")
    assert health.latency is not None
    assert health.facts["updateability"] == "READ_ONLY"
    assert health.pool is not None


async def test_health_of_what_is_closed_full_or_gone(make, server):
    provider = make(pool={"max": 1, "acquire": 0.2})
    assert (await provider.health()).detail == "not open"
    async with provider:
        async with provider.transaction():
            assert (await provider.health()).status == "degraded"
            with pytest.raises(PoolTimeout):
                await provider.query("SELECT 1")
        assert (await provider.health()).status == "healthy"
    with AzureSQLServer() as other:
        async with AzureSQLProvider.from_settings("main", {**other.settings, "retry": 0}) as gone:
            other.kill()
            found = await gone.health()
            assert found.status == "unhealthy"
            assert found.detail


async def test_opening_and_closing_are_idempotent(make):
    provider = make()
    with pytest.raises(ConnectionFailed, match="not open"):
        await provider.query("SELECT 1")
    await provider.connect()
    await provider.connect()
    await provider.close()
    await provider.close()
    with pytest.raises(ConnectionFailed):
        await provider.query("SELECT 1")
    async with provider:
        assert await provider.query_value("SELECT 1") == 1


async def test_a_group_without_a_primary_reads_and_does_not_write(server):
    """Two databases that say that they take no writes, as two secondaries do."""
    settings = {**server.settings, "location": "norway"}
    one, other = (AzureSQLProvider.from_settings(name, settings) for name in ("one", "other"))
    async with FailoverGroup("main", primary=one, secondaries=[other], wait=0.5) as group:
        assert await group.query_value("SELECT COUNT(*) FROM people WHERE id < @P1", [4]) == 3
        with pytest.raises((NoHealthyConnection, ConnectionFailed)):
            await group.execute("DELETE FROM people")
        standing = await one.capabilities.roles.ask()
        assert (standing.writable, standing.replica, standing.role) == (False, True, "secondary")
        watch = one.capabilities.roles.watch(lambda: None)
        assert (await watch.ask()).facts == {"updateability": "READ_ONLY"}
        assert (await watch.ask()).version.startswith("Microsoft SQL Server")
        watch.close()
        watch.close()
    with pytest.raises(ConnectionFailed, match="not open"):
        await one.capabilities.roles.watch(lambda: None).ask()


async def test_a_server_that_was_superseded_is_sent_nothing(make):
    async with make() as azuresql:
        assert await azuresql.query_value("SELECT 1") == 1
        azuresql.capabilities.roles.sever()
        with pytest.raises(ConnectionFailed):
            await azuresql.query_value("SELECT 1")
        azuresql.capabilities.roles.mend()
        assert await azuresql.query_value("SELECT 1") == 1


async def test_the_pool_is_suspended_drained_and_warmed_up(make):
    async with make(pool={"max": 3}) as azuresql:
        assert await azuresql.warm_up(3) == 3
        azuresql.suspend()
        waiting = asyncio.create_task(azuresql.query_value("SELECT 1"))
        assert await azuresql.drain()
        assert not waiting.done()
        azuresql.resume()
        assert await waiting == 1
