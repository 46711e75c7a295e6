"""Settings, URIs, TLS, sign-in, replica sets, regions and health."""

from __future__ import annotations

import asyncio
import datetime as dt
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest
from pymongo import monitoring

from datavern.config import TLS, Pool, Secret
from datavern.contracts.errors import (
    ConfigurationError,
    ConnectionFailed,
    PoolTimeout,
    ProviderError,
    QueryRejected,
    ResidencyViolation,
)
from datavern.contracts.values import Location
from datavern.engines.mongodb import topology
from datavern.engines.mongodb.client import client_options
from datavern.engines.mongodb.provider import MongoDBProvider
from datavern.engines.mongodb.settings import Replication, Sharding, read_uri
from datavern.engines.mongodb.watch import PoolWatch
from datavern.testing.mongodb import MongoDBServer

pytestmark = pytest.mark.usefixtures("left_sockets")
refused = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

HOST = "mongodb://db.norwayeast.example/app"


def made(uri=HOST, **settings):
    return MongoDBProvider(uri=uri, **{"name": "documents", "location": "norway", **settings})


# ---- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"uri": "postgresql://x"}, "expected mongodb://host:port/database"),
        ({"uri": "mongodb://u:hem melig@db/app?foo=hemmelig"}, "the option foo is unknown"),
        ({"uri": "mongodb://db/app?maxPoolSize=hemmelig"}, "the option maxPoolSize is unknown, or its value"),
        ({"uri": "mongodb://u:hem@melig@db/app"}, "percent-encoded"),
        ({"uri": "mongodb://db:99999/app"}, "uri: cannot be read"),
        ({"uri": "mongodb://db"}, "database: missing"),
        ({"database": "other"}, "database: the uri ends in another one"),
        ({"uri": HOST + "?tls=false", "tls": TLS()}, "tls.verify is 'full', and the uri says tls=false"),
        ({"uri": HOST + "?replicaSet=a", "replica_set": "b"}, "the uri says replicaSet too"),
        ({"uri": HOST + "?w=1", "replication": Replication(write_concern="majority")}, "the uri says w too"),
        ({"replica_set": "a", "replication": Replication(replica_set="b")}, "replication says another"),
        ({"read_preference": "furthest"}, "replication.read_preference"),
        ({"username": "u"}, "username and password"),
        ({"connect_timeout": 0}, "connect_timeout: expected seconds"),
        ({"timeout": -1}, "timeout: expected seconds"),
        ({"bucket": ""}, "bucket: expected a name"),
        ({"tls": TLS(cert_file="a", key_file="b")}, "one file"),
        ({"tls": TLS(server_name="other")}, "tls.server_name"),
        ({"location": "oslo"}, "location"),
        ({"location": "norway", "region": "azure:uksouth"}, "location: contradicts region"),
        ({"classification": "TOP"}, "classification"),
        ({"uri": HOST + "?tls=false", "compliance": ["nsm"]}, "compliance nsm refuses"),
        ({"tls": TLS(verify="none"), "compliance": ["nsm"]}, "compliance nsm refuses"),
        ({"uri": HOST + "?tlsAllowInvalidHostnames=true", "compliance": ["nsm"]}, "compliance nsm refuses"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_is_connected(settings, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        made(**settings)
    assert "hemmelig" not in "".join(traceback.format_exception(caught.value))
    assert str(caught.value).startswith("databases.documents")


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (Replication, {"max_staleness": 10, "read_preference": "secondary"}, "90 or more"),
        (Replication, {"max_staleness": 100}, "choose among secondaries"),
        (Replication, {"tags": [{"dc": "osl"}]}, "choose among secondaries"),
        (Replication, {"write_concern": 0}, "nobody acknowledges"),
        (Replication, {"members": 0}, "at least 1"),
        (Replication, {"write_timeout": 0}, "more than 0"),
        (Sharding, {"collections": {"a": {}}}, "at least one path"),
    ],
)
def test_what_contradicts_itself_is_refused(kind, values, said):
    with pytest.raises(ConfigurationError, match=said):
        kind(**values)


def test_a_section_of_a_configuration_file():
    provider = MongoDBProvider.from_settings(
        "documents",
        {
            "provider": "mongodb",
            "url": Secret("mongodb://u:pw@db1,db2:27018/app", origin="environment variable X"),
            "location": "norway",
            "classification": "RESTRICTED",
            "compliance": ["gdpr", "nsm"],
            "pool": {"max": 3},
            "replica_set": "rs0",
            "replication": {"write_concern": "majority", "read_preference": "nearest", "tags": [{"dc": "osl"}]},
            "sharding": {"collections": {"cases": {"owner.id": "hashed"}}, "zones": {"norway": ["shard0"]}},
        },
    )
    assert provider.name == "documents"
    assert provider.compliance == {"gdpr", "nsm"}
    assert provider.encrypted
    assert "pw" not in repr(provider.settings) + repr(provider)
    options = client_options(provider.settings, read_uri(provider.settings.uri.reveal()))
    assert options == {
        "appname": "datavern",
        "connectTimeoutMS": 10000,
        "maxConnecting": 2,
        "maxIdleTimeMS": 600000,
        "maxPoolSize": 3,
        "minPoolSize": 0,
        "readPreference": "nearest",
        "readPreferenceTags": ["dc:osl"],
        "replicaSet": "rs0",
        "serverSelectionTimeoutMS": 10000,
        "tls": True,
        "uuidRepresentation": "standard",
        "w": "majority",
        "waitQueueTimeoutMS": 30000,
    }
    for values, said in (
        ({}, "uri: missing"),
        ({"uri": HOST, "url": HOST}, "say the same"),
        ({"uri": HOST, "claasification": "OPEN"}, "did you mean classification"),
        ({"uri": HOST, "replication": {"member": 3}}, "replication"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            MongoDBProvider.from_settings("documents", values)


@pytest.mark.parametrize(
    ("uri", "tls", "encrypted", "options"),
    [
        ("mongodb://127.0.0.1/app", None, True, {"tls": False}),
        ("mongodb://localhost,[::1]:27018/app", None, True, {"tls": False}),
        ("mongodb://%2Ftmp%2Fmongodb.sock/app", None, True, {"tls": False}),
        ("mongodb://127.0.0.1,db/app", None, True, {"tls": True}),
        (HOST, None, True, {"tls": True}),
        ("mongodb+srv://cluster.example/app", None, True, {"tls": True}),
        (HOST + "?tls=false", None, False, {"tls": False}),
        (HOST + "?tlsInsecure=true", None, False, {"tls": True}),
        (HOST, TLS(verify="off"), False, {"tls": False}),
        (HOST, TLS(verify="none"), False, {"tls": True, "tlsAllowInvalidCertificates": True}),
        (
            HOST,
            TLS(verify="ca", ca_file="ca"),
            False,
            {"tls": True, "tlsCAFile": "ca", "tlsAllowInvalidHostnames": True},
        ),
        (HOST, TLS(cert_file="me", key_file="me"), True, {"tls": True, "tlsCertificateKeyFile": "me"}),
    ],
)
def test_full_verification_is_the_default_beyond_this_machine(uri, tls, encrypted, options):
    provider = made(uri, tls=tls)
    assert provider.encrypted is encrypted
    found = client_options(provider.settings, read_uri(uri))
    assert {name: value for name, value in found.items() if name.startswith("tls")} == options


async def test_a_provider_that_is_not_open_says_so():
    provider = made()
    with pytest.raises(ConnectionFailed, match="documents is not open"):
        provider.collection("a")
    assert (await provider.health()).detail == "not open"
    await provider.close()


# ---- the server -----------------------------------------------------------------------------------------------------


@refused
async def test_a_wrong_replica_set_is_named_with_the_right_one(make):
    for provider in (
        make({"replicaSet": "wrong"}, connect_timeout=0.5),
        make(replica_set="wrong", connect_timeout=0.5),
    ):
        with pytest.raises(ConfigurationError, match=r"called wrong here.* is in the replica set secantus"):
            await provider.connect()
        assert (await provider.health()).detail == "not open"
    async with make({"replicaSet": "secantus"}) as provider:
        assert (await provider.health()).facts["replica_set"] == "secantus"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"replication": Replication(members=3)}, "members is 3, and the server knows of 1"),
        ({"replication": Replication(write_concern=2)}, "asks for 2 members, and the server knows of 1"),
        ({"sharding": Sharding()}, "not the router of a cluster"),
    ],
)
async def test_what_the_server_is_not_is_refused(make, settings, said):
    with pytest.raises(ConfigurationError, match=said):
        await make(**settings).connect()


@refused
async def test_nobody_there(unused_port):
    provider = made(f"mongodb://127.0.0.1:{unused_port}/app", connect_timeout=0.3)
    with pytest.raises(
        ConnectionFailed, match=rf"127\.0\.0\.1:{unused_port} in 0.3 s: nothing listens there"
    ) as caught:
        await provider.connect()
    assert caught.value.retry == "safe"
    assert caught.value.__context__ is None
    with pytest.raises(ConnectionFailed, match="the host's name is not known"):
        await made("mongodb://nobody.invalid/app", connect_timeout=0.3).connect()


@refused
async def test_a_server_without_tls_is_told(server):
    provider = made(f"mongodb://127.0.0.1:{server.port}/app", tls=TLS(), connect_timeout=0.5)
    with pytest.raises(ConnectionFailed, match="does the server speak TLS"):
        await provider.connect()


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@refused
async def test_sign_in():
    with MongoDBServer(auth=True) as server:
        async with made(server.uri("app")) as mongo:
            await mongo.collection("a").insert_one({})
        plain = f"mongodb://127.0.0.1:{server.port}/app?authSource=admin"
        async with made(plain, username=server.username, password=Secret(lambda: server.password)) as mongo:
            assert await mongo.collection("a").count_documents({}) == 1
        for wrong in (f"mongodb://datavern:hemmelig@127.0.0.1:{server.port}/app?authSource=admin", plain):
            with pytest.raises((ConnectionFailed, QueryRejected), match="user") as caught:
                async with made(wrong) as mongo:
                    await mongo.find_document("a")
            assert "hemmelig" not in "".join(traceback.format_exception(caught.value))


@refused
async def test_tls_is_verified_in_full():
    with MongoDBServer(tls=True) as server:
        uri = f"mongodb://localhost:{server.port}/app"
        good = TLS(ca_file=server.ca_file)
        async with made(uri, tls=good) as mongo:
            await mongo.collection("a").insert_one({})
            assert (await mongo.health()).status == "healthy"
        for settings, said in (
            ({"uri": uri, "tls": TLS()}, "not from an authority that is trusted here"),
            ({"uri": uri}, "speaks TLS, and the settings do not ask for it"),
        ):
            with pytest.raises(ConnectionFailed, match=said):
                await made(**settings, connect_timeout=1.0).connect()
        async with made(uri, tls=TLS(verify="none")) as mongo:
            assert await mongo.collection("a").count_documents({}) == 1
            assert mongo.encrypted  # it cannot leave this machine
    with pytest.raises(ConfigurationError, match="a certificate file is not there"):
        await made(uri, tls=TLS(ca_file="/nowhere/ca.pem")).connect()


@refused
async def test_a_certificate_for_another_name_is_refused():
    with MongoDBServer(tls=True, names=["db.example"]) as server:
        uri = f"mongodb://localhost:{server.port}/app?directConnection=true"
        with pytest.raises(ConnectionFailed, match="the certificate is for another name"):
            await made(uri, tls=TLS(ca_file=server.ca_file), connect_timeout=1.0).connect()
        async with made(uri, tls=TLS(ca_file=server.ca_file, verify="ca")) as mongo:
            assert (await mongo.health()).status == "healthy"


@refused
async def test_a_client_certificate_is_shown(tmp_path):
    with MongoDBServer(tls=True, client_certificates=True) as server:
        assert server.certificates is not None
        mine = tmp_path / "me.pem"
        parts = (server.certificates.cert_file, server.certificates.key_file)
        mine.write_text("".join(Path(part).read_text() for part in parts))
        uri = f"mongodb://localhost:{server.port}/app"
        async with made(uri, tls=TLS(ca_file=server.ca_file, cert_file=str(mine))) as mongo:
            await mongo.collection("a").insert_one({})
        with pytest.raises(ConnectionFailed):
            await made(uri, tls=TLS(ca_file=server.ca_file), connect_timeout=1.0).connect()


@refused
async def test_a_server_alone_has_no_replica_set():
    with MongoDBServer(replica_set=False) as server:
        async with made(server.uri("app")) as mongo:
            await mongo.insert_document("a", {"n": 1}, classification="OPEN")
            health = await mongo.health()
            assert (health.status, health.role) == ("healthy", "primary")
            assert "replica_set" not in health.facts
        with pytest.raises(ConfigurationError, match="is in no replica set"):
            await made(server.uri("app"), replica_set="rs0", connect_timeout=0.5).connect()


async def test_reads_go_where_the_read_preference_says(make):
    async with make(read_preference="secondaryPreferred") as mongo:
        assert mongo.client.read_preference.mongos_mode == "secondaryPreferred"
        assert await mongo.find_document("cases") is None  # without a secondary the primary answers
    with pytest.raises(ProviderError):
        async with make(read_preference="secondary", connect_timeout=1.0) as mongo:
            await mongo.find_document("cases")


async def test_health(mongo):
    health = await mongo.health()
    assert (health.status, health.role, health.detail) == ("healthy", "primary", "")
    assert health.latency is not None
    assert health.version
    assert health.pool is not None
    assert [m["role"] for m in health.facts["members"].values()] == ["primary"]


# ---- the pool -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("watch", [False, True])
async def test_the_pool_shows_what_it_does(make, watch):
    async with make(pool=Pool(max=2, acquire=0.2), watch_pool=watch) as mongo:
        await mongo.collection("a").insert_one({})
        busy, there = asyncio.Event(), asyncio.Event()

        async def hold():
            async with mongo.transaction() as session:
                await mongo.collection("a").insert_one({}, session=session)
                there.set()
                await busy.wait()

        task = asyncio.create_task(hold())
        await there.wait()
        stats = mongo.stats()
        assert 1 <= stats.size <= 2
        assert stats.idle + stats.in_use == stats.size
        if watch:
            assert stats.acquired >= 3
            assert stats.created >= 1
        busy.set()
        await task
        await mongo.client.drop_database(mongo.database.name)
    assert mongo.stats().size == 0


async def test_nobody_waits_for_ever_for_a_connection(make):
    async with make(pool=Pool(max=1, acquire=0.1), watch_pool=True) as mongo:
        await mongo.collection("a").insert_one({})
        # A change stream's reader holds the one connection while it waits for news.
        async with await mongo.collection("a").watch(max_await_time_ms=5000) as news:
            waiting = asyncio.create_task(news.try_next())
            while mongo.stats().in_use == 0:  # noqa: ASYNC110  (the driver tells nobody when it waits)
                await asyncio.sleep(0.005)
            with pytest.raises(PoolTimeout, match="no connection came free") as caught:
                await mongo.insert_document("a", {"n": 1}, classification="OPEN")
            assert caught.value.retry == "safe"
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert mongo.stats().timeouts == 1
        await mongo.client.drop_database(mongo.database.name)


def test_events_are_counted():
    watch = PoolWatch()
    at = ("127.0.0.1", 27017)
    watch.connection_check_out_started(monitoring.ConnectionCheckOutStartedEvent(at))
    assert watch.waiting == 1
    reason = monitoring.ConnectionCheckOutFailedReason.TIMEOUT
    watch.connection_check_out_failed(monitoring.ConnectionCheckOutFailedEvent(at, reason, 0.1))
    assert (watch.waiting, watch.timeouts) == (0, 1)


# ---- regions, replica sets and clusters, as servers describe them ---------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "region"),
    [
        ({"region": "azure:norwayeast"}, "azure:norwayeast"),
        ({"region": "Azure:NorwayEast"}, "azure:norwayeast"),
        ({"provider": "AZURE", "region": "NORWAY_EAST"}, "azure:norwayeast"),
        ({"provider": "AWS", "region": "EU_NORTH_1"}, "aws:eu-north-1"),
        ({"provider": "GCP", "region": "EUROPE_NORTH_1"}, "gcp:europe-north1"),
        ({"provider": "GCP", "region": "EUROPE_SOUTHWEST_1"}, "gcp:europe-southwest1"),
        ({"region": "norwayeast"}, None),
        ({"dc": "osl"}, None),
        ({}, None),
    ],
)
def test_the_region_that_a_members_tags_name(tags, region):
    assert topology.region_of(tags) == region


def test_a_member_that_lies_elsewhere_is_refused():
    oslo = {"db1:27017": {"region": "azure:norwayeast"}, "db2:27017": {"dc": "x"}}
    topology.check_location("documents", Location.NORWAY, oslo)
    dublin = {**oslo, "db3:27017": {"region": "azure:northeurope"}}
    topology.check_location("documents", Location.EU, dublin)
    with pytest.raises(ResidencyViolation, match=r"db3:27017 says that it is in azure:northeurope \(eu\)"):
        topology.check_location("documents", Location.NORWAY, dublin)


async def test_a_clusters_own_configuration_is_compared(mongo):
    """The router's configuration, written by hand into the database where a router keeps it."""
    config = mongo.client["config"]
    name = mongo.database.name
    await config.collections.insert_one({"_id": f"{name}.cases", "key": {"owner.id": "hashed"}})
    await config.collections.insert_one({"_id": f"{name}.old", "key": {"_id": 1}, "dropped": True})
    await config.shards.insert_many([{"_id": f"{name}-a", "tags": ["norway"]}, {"_id": f"{name}-b"}])

    async def check(**wanted):
        await topology.check_sharding(mongo.client, Sharding(**wanted), name, "x")

    await check(collections={"cases": {"owner.id": "hashed"}}, zones={"norway": [f"{name}-a"]})
    for wanted, said in (
        ({"collections": {"cases": {"_id": "hashed"}}}, r"x\.collections\.cases: .* another key: owner\.id: hashed"),
        ({"collections": {"old": {"_id": 1}}}, "is not sharded"),
        ({"collections": {"none": {"_id": 1}}}, "is not sharded"),
        ({"zones": {"norway": [f"{name}-b"]}}, r"x\.zones\.norway: .* does not lie in the zone"),
        ({"zones": {"norway": ["c"]}}, r"there is no shard c; there are: .*-a"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            await check(**wanted)
    await config.collections.delete_many({"_id": {"$regex": f"^{name}"}})
    await config.shards.delete_many({"_id": {"$regex": f"^{name}"}})


def test_what_hello_says_is_compared():
    three = {"setName": "rs0", "hosts": ["a:1", "b:1", "c:1"]}
    topology.check_replication("x", Replication(replica_set="rs0", members=3, write_concern=3), three)
    topology.check_replication("x", Replication(replica_set="any", members=9), {"msg": "isdbgrid"})
    with pytest.raises(ConfigurationError, match="is in the replica set rs0"):
        topology.check_replication("x", Replication(replica_set="rs1"), three)


def test_lag_is_told_where_members_tell_their_last_write():
    def member(kind, moment):
        return SimpleNamespace(server_type_name=kind, last_write_date=moment)

    now = dt.datetime(2026, 11, 23, 12, 0, 10, tzinfo=dt.UTC)
    described = {
        ("a", 1): member("RSPrimary", now),
        ("b", 1): member("RSSecondary", now - dt.timedelta(seconds=4)),
        ("c", 1): member("RSSecondary", None),
        ("d", 1): member("RSArbiter", None),
    }
    client = SimpleNamespace(topology_description=SimpleNamespace(server_descriptions=lambda: described))
    members = topology._members(client)
    assert members["b:1"] == {"role": "secondary", "lag": 4.0}
    assert (members["a:1"]["lag"], members["c:1"]["lag"], members["d:1"]["role"]) == (None, None, "unknown")
