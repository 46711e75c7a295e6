"""Settings, signing in, TLS, Sentinels, health, and what the server's errors become."""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
import traceback
from collections.abc import Iterator

import pytest
from tests.waiting import until

import datavern
from datavern.config import TLS, env
from datavern.contracts.errors import (
    ConfigurationError,
    ConnectionFailed,
    DatavernError,
    NoHealthyConnection,
    OutcomeUnknown,
    ProviderError,
    QueryRejected,
)
from datavern.contracts.values import Location
from datavern.engines.redis.errors import rejected
from datavern.engines.redis.provider import RedisProvider
from datavern.testing.proxy import Certificates, TCPProxy
from datavern.testing.valkey import ValkeySentinel, ValkeyServer

PASSWORD = "hemmelig æ 'quoted\" pass"


@pytest.fixture(scope="module")
def guarded() -> Iterator[ValkeyServer]:
    """A server with a password, and two ACL users."""
    with ValkeyServer(password="default-password") as server:
        for user in (
            ("ada", "on", f">{PASSWORD}", "~*", "&*", "+@all"),
            ("reader", "on", ">read", "~*", "&*", "-@all", "+@read", "+@connection"),
        ):
            server.command("ACL", "SETUSER", *user)
        yield server


# ---- signing in ------------------------------------------------------------------------------------------------------


async def test_passwords_and_acl_users(guarded, monkeypatch):
    async with RedisProvider(port=guarded.port, password="default-password") as redis:
        await redis.set("k", 1)
        assert await redis.execute("ACL", "WHOAMI", read=True) == b"default"
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)
    given = [PASSWORD, env("REDIS_PASSWORD"), lambda: PASSWORD]
    for password in given:
        async with RedisProvider(port=guarded.port, username="ada", password=password) as redis:
            assert await redis.execute("ACL", "WHOAMI", read=True) == b"ada"
            assert await redis.client.get("k") == b"1"
            assert PASSWORD not in repr(redis.settings)

    asked = []

    async def token():
        asked.append(1)
        return PASSWORD

    async with RedisProvider(port=guarded.port, username="ada", password=token) as redis:
        assert await redis.get("k") == 1
        assert await redis.client.get("k") == b"1"
        async with redis.subscribe("news"):
            pass
    assert len(asked) >= 3  # anew for each connection


async def test_a_wrong_password_says_so_and_nothing_of_it(guarded, caplog):
    caplog.set_level(logging.DEBUG)
    for settings in (
        {"password": "wrong-secret"},
        {"username": "ada", "password": "wrong-secret"},
        {"username": "nobody", "password": "wrong-secret"},
    ):
        redis = RedisProvider(name="cache", port=guarded.port, **settings)
        with pytest.raises(ConnectionFailed, match="refused the user name or the password") as caught:
            await redis.connect()
        assert (caught.value.code, caught.value.retry) == ("WRONGPASS", "never")
        told = "".join(traceback.format_exception(caught.value)) + caplog.text
        assert "wrong-secret" not in told
        assert (await redis.health()).status == "unhealthy"


async def test_a_missing_password_says_so(guarded):
    with pytest.raises(ConnectionFailed, match="asks for a password: set password") as caught:
        await RedisProvider(port=guarded.port).connect()
    assert caught.value.retry == "never"
    with pytest.raises(ConfigurationError, match="NOT_SET"):
        await RedisProvider(port=guarded.port, password=env("NOT_SET")).connect()


async def test_a_password_that_nobody_asked_for(server):
    word = "nothing-of-it"[::-1]
    with pytest.raises(ConnectionFailed) as caught:
        await RedisProvider(port=server.port, username="nobody", password=word).connect()
    assert word not in "".join(traceback.format_exception(caught.value))


async def test_a_user_who_may_only_read(guarded):
    async with RedisProvider(port=guarded.port, username="reader", password="read") as redis:
        assert await redis.get("k") in {None, 1}
        with pytest.raises(QueryRejected, match="may not do that") as caught:
            await redis.set("k", PASSWORD)
        assert caught.value.code == "NOPERM"
        assert PASSWORD not in "".join(traceback.format_exception(caught.value))


async def test_a_user_whose_rights_are_taken_away_meanwhile(guarded):
    guarded.command("ACL", "SETUSER", "guest", "on", ">guest", "~*", "&*", "+@all")
    async with RedisProvider(port=guarded.port, username="guest", password="guest") as redis:
        await redis.set("k", 1)
        guarded.command("ACL", "DELUSER", "guest")
        with pytest.raises(ConnectionFailed) as caught:
            while True:
                await redis.get("k")
        assert caught.value.retry in {"safe", "never"}
        with pytest.raises(ConnectionFailed, match="refused the user name or the password"):
            await redis.get("k")


async def test_databases(server):
    async with RedisProvider(port=server.port, database=3) as three, RedisProvider(port=server.port) as zero:
        await three.set("only in three", 1)
        assert await zero.exists("only in three") == 0
        assert await three.client.exists("only in three") == 1
        await three.delete("only in three")
    with pytest.raises(ConnectionFailed, match="no database of that number") as caught:
        await RedisProvider(port=server.port, database=99).connect()
    assert caught.value.retry == "never"


async def test_nothing_listens(unused_tcp_port_factory):
    port = unused_tcp_port_factory()
    with pytest.raises(ConnectionFailed, match=f"nothing listens at 127.0.0.1:{port}") as caught:
        await RedisProvider(port=port).connect()
    assert caught.value.retry == "safe"
    with pytest.raises(ConnectionFailed, match="not known to the name service"):
        await RedisProvider(host="no-such-host.invalid", tls=TLS(verify="off")).connect()


async def test_a_server_that_is_none(unused_tcp_port_factory):
    async def hang_up(reader, writer):
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionFailed, match="closed the connection at once"):
            await RedisProvider(port=port).connect()

    async def chat(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(chat, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionFailed):
            await RedisProvider(port=port).connect()


# ---- TLS -------------------------------------------------------------------------------------------------------------


async def test_tls_is_verified(server, tmp_path):
    certificates = Certificates.make(tmp_path / "good", ["localhost", "redis.example"])
    others = Certificates.make(tmp_path / "other", ["localhost"])
    with TCPProxy(server.host, server.port, certificates=certificates, greeting=False) as proxy:

        def provider(tls, host="localhost"):
            return RedisProvider(name="cache", host=host, port=proxy.port, tls=tls, connect_timeout=5.0)

        async with provider(TLS(ca_file=certificates.ca_file)) as redis:
            await redis.set("k", "x" * 1_000_000)
            assert await redis.get("k") == "x" * 1_000_000
            assert await redis.client.get("k") is not None
            async with redis.subscribe("news") as messages:
                await redis.publish("news", 1)
                assert (await anext(messages)).data == 1
        async with provider(TLS(ca_file=certificates.ca_file, server_name="redis.example"), "127.0.0.1") as redis:
            assert await redis.exists("k") == 1
        for tls, host, reason in (
            (TLS(ca_file=certificates.ca_file), "127.0.0.1", "mismatch|not valid for"),
            (TLS(ca_file=certificates.ca_file, server_name="other.example"), "localhost", "mismatch|not valid for"),
            (TLS(ca_file=others.ca_file), "localhost", "signature|unable to get|self-signed"),
            (TLS(), "localhost", "self-signed|unable to get"),
        ):
            with pytest.raises(ConnectionFailed, match=f"does not verify: .*({reason}).*tls.ca_file") as caught:
                await provider(tls, host).connect()
            assert caught.value.retry == "never"
        for tls in (TLS(verify="ca", ca_file=certificates.ca_file), TLS(verify="none")):
            async with provider(tls, "127.0.0.1") as redis:
                assert await redis.exists("k") == 1
        with pytest.raises(ConnectionFailed):
            await provider(TLS(verify="off")).connect()
    with pytest.raises(ConnectionFailed, match="does it speak TLS"):
        await RedisProvider(port=server.port, tls=TLS(verify="none"), connect_timeout=0.5).connect()
    with pytest.raises(ConfigurationError, match=r"tls\.ca_file"):
        await RedisProvider(port=server.port, tls=TLS(ca_file=str(tmp_path / "none.pem"))).connect()


@pytest.mark.parametrize(
    ("settings", "verify", "encrypted"),
    [
        ({"host": "127.0.0.1"}, "off", True),
        ({"host": "::1"}, "off", True),
        ({"host": "redis.example"}, "full", True),
        ({"host": "10.0.0.1"}, "full", True),
        ({"cluster": [("127.0.0.1", 1), ("10.0.0.1", 2)]}, "full", True),
        ({"cluster": ["127.0.0.1:1"]}, "off", True),
        ({"sentinel": {"service": "m", "nodes": ["10.0.0.1:26379"]}}, "full", True),
        ({"host": "redis.example", "tls": TLS(verify="off")}, "off", False),
        ({"host": "redis.example", "tls": TLS(verify="ca")}, "ca", False),
    ],
)  # fmt: skip
def test_tls_is_on_wherever_the_line_leaves_this_machine(settings, verify, encrypted):
    redis = RedisProvider(name="cache", **settings)
    assert redis.settings.effective_tls.verify == verify
    assert redis.encrypted is encrypted
    if not encrypted:
        with pytest.raises(ConfigurationError, match="nsm refuses"):
            RedisProvider(name="cache", compliance=["nsm"], **settings)


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"prot": 1}, r"databases\.cache\.prot: unknown key; did you mean port"),
        ({"port": 0}, "0 is no port"),
        ({"port": "x"}, r"databases\.cache\.port: input should be a valid integer"),
        ({"host": ""}, "host is empty"),
        ({"database": -1}, "database is -1"),
        ({"cluster": ["10.0.0.1:7000"], "database": 1}, "only database 0"),
        ({"cluster": "10.0.0.1:7000"}, "expected a list of nodes"),
        ({"cluster": ["nowhere"]}, "expected each node as"),
        ({"cluster": [["h", 1, 2]]}, "expected each node as"),
        ({"cluster": ["h:1"], "sentinel": {"service": "m", "nodes": ["h:1"]}}, "give one of them"),
        ({"sentinel": {"service": "m"}}, r"sentinel\.nodes"),
        ({"sentinel": {"service": "m", "nodes": []}}, "at least one host"),
        ({"sentinel": {"service": "m", "nodes": ["h:1"], "servce": 1}}, r"sentinel\.servce"),
        ({"username": "ada"}, "without password"),
        ({"timeout": 0}, "timeout is 0"),
        ({"max_pending": 0}, "max_pending is 0"),
        ({"retention": "a while"}, r"databases\.cache\.retention"),
        ({"client_name": "a b"}, "client_name"),
        ({"url": "http://x"}, "expected redis://"),
        ({"url": "redis://u:topsecret@h:x/0"}, "expected redis://"),
        ({"url": "redis://h/0?x=topsecret"}, "parameters after"),
        ({"url": "redis://h:1/0", "port": 2}, "contradicts the url"),
        ({"region": "azure:uksouth", "location": "norway"}, "contradicts region"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_with_their_path(settings, told):
    with pytest.raises(ConfigurationError, match=told) as caught:
        RedisProvider.from_settings("cache", settings)
    assert "topsecret" not in "".join(traceback.format_exception(caught.value))


def test_settings_from_a_file_and_a_url():
    redis = RedisProvider.from_settings(
        "cache",
        {"provider": "redis", "url": "rediss://ada:s%20ecret@h.example:7000/2", "region": "azure:norwayeast",
         "encryption": True, "retention": "30d", "compliance": ["nsm"]},
    )  # fmt: skip
    settings = redis.settings
    assert (settings.host, settings.port, settings.database, settings.username) == ("h.example", 7000, 2, "ada")
    assert settings.password.reveal() == "s ecret"
    assert settings.tls == TLS()
    assert (settings.retention, redis.location, redis.sealing) == (2_592_000, Location.NORWAY, True)
    clustered = RedisProvider.from_settings("c", {"cluster": ["10.0.0.1:7000", ["::1", 7001]]})
    assert clustered.settings.cluster == (("10.0.0.1", 7000), ("::1", 7001))
    assert RedisProvider.from_url("redis://127.0.0.1:7000", name="n", location="norway").settings.port == 7000
    assert RedisProvider(name="c", cluster=[("127.0.0.1", 7000)]).location is Location.GLOBAL


# ---- Sentinels -------------------------------------------------------------------------------------------------------


async def test_the_primary_is_the_one_that_the_sentinels_name():
    with ValkeySentinel(down_after=500) as sentinel:
        nodes = [("127.0.0.1", 1), *sentinel.sentinels]
        redis = RedisProvider(name="cache", sentinel={"service": sentinel.service, "nodes": nodes}, timeout=2.0)
        async with redis:
            await redis.set("k", 1)
            assert await redis.client.get("k") == b"1"
            assert (await redis.health()).role == "primary"
            await asyncio.to_thread(sentinel.primary.kill)
            with pytest.raises((ConnectionFailed, OutcomeUnknown)):
                await redis.set("k", 2)
            while True:
                try:
                    await redis.set("k", 3)
                    break
                except (ConnectionFailed, NoHealthyConnection, OutcomeUnknown):
                    await asyncio.sleep(0.1)
            assert await redis.get("k") == 3
            assert redis._router._line.wire.transport.get_extra_info("peername")[1] == sentinel.replica.port
        unknown = RedisProvider(name="cache", sentinel={"service": "other", "nodes": nodes})
        with pytest.raises(ConnectionFailed, match="no Sentinel names a primary of other"):
            await unknown.connect()
    with pytest.raises(ConnectionFailed, match="no Sentinel names a primary of main: .*nothing listens"):
        await redis.connect()


# ---- health ----------------------------------------------------------------------------------------------------------


async def test_health(redis):
    health = await redis.health()
    assert (health.status, health.role, health.detail) == ("healthy", "primary", "")
    assert health.version.startswith("Valkey 9.")
    assert health.latency is not None
    assert health.pool.size == 1
    assert health.pool.acquired >= 2
    assert health.facts["mode"] == "standalone"


async def test_the_health_of_a_replica_and_of_a_server_that_is_gone():
    with ValkeyServer(settings={"repl-diskless-sync-delay": "0"}) as primary:
        follow = {"replicaof": f"127.0.0.1 {primary.port}", "repl-diskless-sync-delay": "0"}
        with ValkeyServer(settings=follow) as replica:
            async with RedisProvider(port=replica.port, timeout=1.0) as redis:

                async def well():
                    return (await redis.health()).status == "healthy"

                async def behind():
                    return (await redis.health()).status == "degraded"

                await until(well)
                assert (await redis.health()).role == "secondary"
                primary.kill()
                await until(behind)
                assert "not connected to its primary" in (await redis.health()).detail
                replica.kill()
                health = await redis.health()
                assert (health.status, health.role, health.latency) == ("unhealthy", "unknown", None)
                assert "nothing listens" in health.detail or "broke" in health.detail


# ---- errors ----------------------------------------------------------------------------------------------------------


async def test_errors_of_the_server_quote_nothing(redis, caplog):
    caplog.set_level(logging.DEBUG)
    secret = "13097248022"
    await redis.execute("SADD", "set", "member")
    await redis.set("text", secret)
    calls = {
        "WRONGTYPE": redis.get("set"),
        "ERR": redis.execute("NOSUCHCOMMAND", secret),
        "NOSCRIPT": redis.execute("EVALSHA", "0" * 40, 0, secret),
    }
    for code, call in calls.items():
        with pytest.raises(QueryRejected) as caught:
            await call
        error = caught.value
        assert error.code == code
        assert error.retry == "never"
        assert error.__context__ is None
        told = "".join(traceback.format_exception(error))
        assert secret not in told
        assert "set" not in str(error.__cause__)
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.code) == (str(error), code)
    for call in (
        redis.incr("text"),
        redis.execute("SET", "k", secret, "NONSENSE", secret),
        redis.execute("GET"),
        redis.execute("EVAL", f"return redis.error_reply('{secret}')", 0),
        redis.execute("EVAL", f"error('{secret}')", 0),
    ):
        with pytest.raises(ProviderError) as caught:
            await call
        assert secret not in "".join(traceback.format_exception(caught.value))
    assert secret not in caplog.text


async def test_a_server_whose_memory_is_full():
    with ValkeyServer(settings={"maxmemory": "3mb", "maxmemory-policy": "noeviction"}) as server:
        async with RedisProvider(port=server.port) as redis:
            with pytest.raises(QueryRejected, match="memory is full") as caught:
                for i in range(100):
                    await redis.set(f"k{i}", "x" * 100_000)
            assert caught.value.code == "OOM"
            assert await redis.get("k0") == "x" * 100_000


async def test_a_server_that_loads_its_data(tmp_path):
    slowly = {"key-load-delay": "2000", "loading-process-events-interval-bytes": "1024"}  # microseconds, bytes
    with ValkeyServer(settings=slowly) as server:
        async with RedisProvider(port=server.port, timeout=1.0) as redis:
            async with redis.pipeline() as pipe:
                for i in range(1000):
                    pipe.set(f"k{i}", "x" * 100)
                await pipe.execute()
            server.command("SAVE")
            server.kill()
            server._servers.order("start", 0)
            seen = set()
            while True:
                try:
                    assert await redis.get("k999") == "x" * 100
                    break
                except DatavernError as error:
                    seen.add((error.code, error.retry))
            assert ("LOADING", "safe") in seen
            assert {retry for _, retry in seen} == {"safe"}


@pytest.mark.parametrize(
    ("text", "kind", "code", "retry"),
    [
        ("MOVED 3999 127.0.0.1:6381", NoHealthyConnection, "MOVED", "never"),
        ("CLUSTERDOWN Hash slot not served", NoHealthyConnection, "CLUSTERDOWN", "safe"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", NoHealthyConnection, "TRYAGAIN", "safe"),
        ("LOADING Redis is loading the dataset in memory", ConnectionFailed, "LOADING", "safe"),
        ("MASTERDOWN Link with MASTER is down", ConnectionFailed, "MASTERDOWN", "safe"),
        ("BUSY Redis is busy running a script", ConnectionFailed, "BUSY", "safe"),
        ("NOAUTH Authentication required.", ConnectionFailed, "NOAUTH", "never"),
        ("MISCONF Errors writing to the AOF file: secret", QueryRejected, "MISCONF", "never"),
        ("NOREPLICAS Not enough good replicas to write.", QueryRejected, "NOREPLICAS", "never"),
        ("ERR secret", QueryRejected, "ERR", "never"),
        ("secret", QueryRejected, "ERR", "never"),
        ("SECRET secret", QueryRejected, "ERR", "never"),
        ("", QueryRejected, "ERR", "never"),
    ],
)
def test_each_code_has_its_place_in_the_tree(text, kind, code, retry):
    error = rejected(text, "cache", ValueError("secret"))
    assert isinstance(error, kind)
    assert (error.code, error.retry, error.provider) == (code, retry, "cache")
    assert "secret" not in str(error).lower()
    assert "secret" not in str(error.__cause__).lower()


async def test_the_driver_is_loaded_when_it_is_needed():
    script = (
        "import sys, datavern; datavern.DatabaseManager; sys.exit(any(m in sys.modules for m in ('redis', 'hiredis')))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await process.wait() == 0
    assert datavern.__version__
