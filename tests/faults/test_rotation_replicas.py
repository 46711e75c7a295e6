"""A rotation destroys no key that a replica of the key store would still need: it waits, says for whom, and goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from datavern import DatabaseManager, DataMap, Dataset, FailoverGroup, Field, Keyring, PostgreSQLProvider
from datavern.contracts.errors import RotationIncomplete
from datavern.crypto import remembered
from datavern.testing import create_test_database
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.replicas import PostgreSQLReplica

PEOPLE = Dataset("people", database="main", subject="id", erasure="delete", fields={"name": Field(sealed=True)})


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[PostgreSQLServer, PostgreSQLReplica]]:
    with PostgreSQLServer() as primary, PostgreSQLReplica(primary) as replica:
        yield primary, replica


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(remembered, "FRESH", 0.05)


async def test_a_replica_that_has_not_replayed_and_a_slot_without_one_are_waited_for(servers, tmp_path: Path):
    primary, replica = servers
    url = f"file:{tmp_path / 'keys'}"
    await (await Keyring.create(url)).close()
    async with create_test_database("postgresql", server=primary) as database:
        main = database.provider("main", location="norway")
        admin = PostgreSQLProvider.from_url(replica.url, name="admin", location="norway")
        async with admin, DatabaseManager({"main": main}, data_map=DataMap([PEOPLE]), keyring=url) as db:
            await db.prepare("people")
            await db.personal("people").insert({"id": "u1", "name": "Åse"})
            await admin.query_value("SELECT pg_wal_replay_pause()::text")
            with pytest.raises(RotationIncomplete, match="the replica standby of main has not replayed it") as caught:
                await db.keys.rotate(patience=0.5)
            assert caught.value.state == "confirm"
            assert (await db.keys.status()).epochs == (1, 2)
            await admin.query_value("SELECT pg_wal_replay_resume()::text")
            assert (await db.keys.rotate(patience=60)).epoch == 2
            await main.query_value("SELECT pg_create_physical_replication_slot('gone')::text")
            with pytest.raises(RotationIncomplete, match="the replication slot gone of main"):
                await db.keys.rotate(patience=0.5)
            await main.query_value("SELECT pg_drop_replication_slot('gone')::text")
            assert (await db.keys.rotate(patience=60)).epoch == 3
            assert (await db.personal("people").get("u1"))["name"] == "Åse"


async def test_a_member_of_the_group_that_cannot_be_asked_is_waited_for(servers, tmp_path: Path):
    primary, replica = servers
    url = f"file:{tmp_path / 'keys'}"
    await (await Keyring.create(url)).close()
    async with create_test_database("postgresql", server=primary) as database:
        name = str(database.settings["url"]).rpartition("/")[2]
        standby = PostgreSQLProvider.from_url(replica.url_of(name), name="standby", location="norway")
        group = FailoverGroup("main", primary=database.provider("first", location="norway"), secondaries=[standby])
        async with DatabaseManager({"main": group}, data_map=DataMap([PEOPLE]), keyring=url) as db:
            await db.prepare("people")
            await db.personal("people").insert({"id": "u1", "name": "Åse"})
            assert (await db.keys.rotate(patience=60)).epoch == 2
            replica.halt(immediate=True)
            try:
                with pytest.raises(RotationIncomplete, match="standby cannot be asked"):
                    await db.keys.rotate(patience=0.5)
            finally:
                replica.start()
            assert (await db.keys.rotate(patience=60)).epoch == 3
            assert (await db.personal("people").get("u1"))["name"] == "Åse"


async def test_a_replica_of_which_nobody_said_where_it_is_is_found(servers):
    from datavern.privacy.residency.places import Place
    from datavern.privacy.residency.whereabouts import heard, unknown_followers

    primary, _ = servers
    async with create_test_database("postgresql", server=primary) as database:
        main = database.provider("main", location="norway")
        found = await heard({"main": main})
        assert [one.problem for one in found] == [""]
        (line,) = unknown_followers(found, {"main": main}, [])
        assert "main sends a copy of everything to the replica standby" in line
        known = Place("standby", "replica", location="norway", of="main")
        assert list(unknown_followers(found, {"main": main}, [known])) == []
        standby = database.provider("standby", location="norway")
        group = FailoverGroup("group", primary=main, secondaries=[standby])
        assert list(unknown_followers(found, {"group": group}, [])) == []
