"""The manager: from code and from TOML, what it refuses before anything is connected, and its short form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from secondaries import stand_in

from datavern import (
    CapabilityMissing,
    ConfigurationError,
    ConnectionFailed,
    DatabaseManager,
    DataMap,
    Dataset,
    FailoverGroup,
    Field,
    NoHealthyConnection,
    ResidencyViolation,
    SQLiteProvider,
)
from datavern.testing import EmptyDatabase, create_test_database

replicated = pytest.mark.not_on("azuresql", "a database that takes no writes is a replica there, on a second server")
USERS = Dataset("users", database="main", subject="id", fields={"name": Field(sealed=True)})


def toml(database: EmptyDatabase, keyring: str, more: str = "") -> str:
    """A configuration file for an empty database."""
    settings = "\n".join(f"{key} = {json.dumps(value)}" for key, value in database.settings.items())
    return f"""
    [datavern]
    organisation = "Øksnes kommune"
    keyring = "{keyring}"
    [databases.main]
    provider = "{database.engine}"
    location = "norway"
    {settings}
    {more}
    """


async def test_from_a_file(database: EmptyDatabase, keyring: str, tmp_path: Path):
    path = tmp_path / "datavern.toml"
    path.write_text(toml(database, keyring, '[datasets.users]\ndatabase="main"\nsubject="id"\nfields.name.sealed=true'))
    async with DatabaseManager.from_config(path) as db:
        assert list(db) == ["main"]
        assert len(db) == 1
        assert db.organisation == "Øksnes kommune"
        assert (await db.health())["main"].status == "healthy"
        await db.prepare("users")
        await db.personal("users").insert({"id": "a", "name": "Åse"})
        assert await db.personal("users").get("a") == {"id": "a", "name": "Åse"}
    assert (await db.health())["main"].status == "unhealthy"


async def test_opening_twice_and_closing_twice_is_one(database: EmptyDatabase, keyring: str):
    db = DatabaseManager({"main": database.provider(location="norway")}, keyring=keyring)
    await db.open()
    await db.open()
    await db.close()
    await db.close()
    with pytest.raises(ConfigurationError, match="open it first"):
        db.audit  # noqa: B018  (the property raises)


async def test_what_failed_to_open_is_closed_again(database: EmptyDatabase, tmp_path: Path):
    provider = database.provider(location="norway")
    with pytest.raises(ConfigurationError, match="no such file|missing|datavern init"):
        await DatabaseManager({"main": provider}, keyring=f"file:{tmp_path / 'none'}").open()
    assert (await provider.health()).status == "unhealthy"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"databases": {}}, "a manager needs at least one database"),
        ({"ledger": "other"}, "ledger: no database is named other; there are: main"),
        ({"data_map": DataMap([USERS])}, "the data map has sealed fields, and they need keys"),
        (
            {"data_map": DataMap([Dataset("t", database="mian", subject="id")]), "keyring": "file:keys"},
            "no database is named mian",
        ),
        ({"primary": SQLiteProvider("a.db")}, "the short form takes primary= and secondary="),
    ],
)
def test_contradictions_are_refused_by_the_constructor(settings: dict[str, Any], said: str):
    given = {"databases": {"main": SQLiteProvider("app.db")}, **settings}
    databases = given.pop("databases")
    with pytest.raises(ConfigurationError, match=said):
        DatabaseManager(databases, **given)


def test_two_databases_need_to_know_which_is_the_ledger():
    two = {"a": SQLiteProvider("a.db"), "b": SQLiteProvider("b.db")}
    with pytest.raises(ConfigurationError, match="ledger: say which database"):
        DatabaseManager(two, keyring="file:keys")


async def test_residency_is_checked_before_anything_is_connected(tmp_path: Path):
    path = tmp_path / "app.db"
    provider = SQLiteProvider(path, location="eu")
    db = DatabaseManager({"main": provider}, data_map=DataMap([USERS]), keyring=f"file:{tmp_path / 'keys'}")
    with pytest.raises(ResidencyViolation):
        await db.open()
    assert not path.exists()


async def test_a_secondary_where_residency_forbids_is_refused(tmp_path: Path):
    primary = SQLiteProvider(tmp_path / "a.db", location="norway")
    abroad = SQLiteProvider(tmp_path / "b.db", location="global")
    db = DatabaseManager(
        primary=primary, secondary=abroad, data_map=DataMap([USERS]), keyring=f"file:{tmp_path / 'keys'}"
    )
    with pytest.raises(ResidencyViolation):
        await db.open()
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_not_there_says_which_are():
    db = DatabaseManager({"main": SQLiteProvider("a.db")})
    with pytest.raises(ConfigurationError, match="no database is named mian; there are: main"):
        db["mian"]
    with pytest.raises(ConfigurationError, match="which database"):
        db.primary  # noqa: B018  (the property raises)


async def test_an_engine_of_somebody_elses(tmp_path: Path):
    class Mine(SQLiteProvider):
        engine = "mine"

    with pytest.raises(ConfigurationError, match="one of Datavern's own engines"):
        DatabaseManager.register("sqlite", Mine)
    for name in ("", " ", "mine ", None):
        with pytest.raises(ConfigurationError, match="expected the engine's name"):
            DatabaseManager.register(name, Mine)
    DatabaseManager.register("mine", Mine)
    file = tmp_path / "datavern.toml"
    file.write_text('[databases.main]\nprovider = "mine"\npath = "app.db"\n')
    async with DatabaseManager.from_config(file) as db:
        assert isinstance(db["main"], Mine)
    file.write_text('[databases.main]\nprovider = "minne"\npath = "app.db"\n')
    with pytest.raises(ConfigurationError, match="no engine is named minne; there are: .*mine.*sqlite"):
        DatabaseManager.from_config(file)


# ---- the short form -------------------------------------------------------------------------------------------------


@pytest.fixture
async def pair(engine: str, database: EmptyDatabase, sql: Any) -> AsyncIterator[DatabaseManager]:
    """Two databases with the same table; each says in it which one it is."""
    async with create_test_database(engine) as other:
        members = {"first": database.provider("first"), "second": other.provider("second")}
        for name, member in members.items():
            async with member:
                await member.execute(sql("CREATE TABLE who (name {text})"))
                await member.execute(f"INSERT INTO who VALUES ('{name}')")
        await stand_in(other)
        async with DatabaseManager(primary=members["first"], secondary=members["second"]) as db:
            yield db


@replicated
async def test_reads_go_on_without_the_primary_and_writes_are_refused(pair: DatabaseManager):
    db = pair
    assert await db.query_value("SELECT name FROM who") == "first"
    assert db.active_provider is db.primary
    await db.primary.close()
    assert await db.query_value("SELECT name FROM who") == "second"
    assert db.active_provider is db.secondary
    assert (await db.query_one("SELECT name FROM who"))["name"] == "second"
    async with db.stream("SELECT name FROM who") as rows:
        assert [row["name"] async for row in rows] == ["second"]
    async with db.transaction(read_only=True) as tx:
        assert (await tx.query("SELECT name FROM who"))[0][0] == "second"
    with pytest.raises(NoHealthyConnection, match="a secondary takes no writes") as caught:
        await db.execute("DELETE FROM who")
    assert caught.value.retry == "safe"
    with pytest.raises(NoHealthyConnection):
        await db.execute_many("DELETE FROM who WHERE name = 'x'", [()])
    with pytest.raises(NoHealthyConnection):
        async with db.transaction():
            pass
    assert await db.query_value("SELECT count(*) FROM who") == 1
    assert (await db.health())["main"].status == "degraded"


@replicated
async def test_a_read_that_writes_does_not_write_on_the_secondary(pair: DatabaseManager, sql: Any):
    db = pair
    await db.primary.close()
    with pytest.raises(Exception, match=r"(?i)read.?only|only read"):
        await db.query(sql("DELETE FROM who RETURNING name"))
    assert await db.query_value("SELECT count(*) FROM who") == 1


@replicated
async def test_the_primary_is_taken_up_again(pair: DatabaseManager):
    db = pair
    await db.primary.close()
    assert await db.query_value("SELECT name FROM who") == "second"
    await db.primary.connect()
    async with asyncio.timeout(20):
        while await db.query_value("SELECT name FROM who") != "first":  # noqa: ASYNC110  (the monitor finds out)
            await asyncio.sleep(0.01)
    assert db.active_provider is db.primary
    assert await db.execute("INSERT INTO who VALUES ('again')") == 1


@replicated
async def test_a_stream_begins_where_it_can_and_writes_run_on_the_primary(pair: DatabaseManager):
    db = pair
    async with db.stream("SELECT name FROM who") as rows:
        assert [row["name"] async for row in rows] == ["first"]

    async def work(tx: Any) -> int:
        assert tx.provider is db["main"]
        return await tx.execute("INSERT INTO who VALUES ('more')")

    assert await db.run_in_transaction(work) == 1
    assert await db.query_value("SELECT count(*) FROM who") == 2


@replicated
async def test_without_any_member_everything_says_so(pair: DatabaseManager):
    db = pair
    await db.primary.close()
    await db.secondary.close()
    # Whichever it says: the group may have found the primary gone before the secondary was, or after.
    with pytest.raises(NoHealthyConnection, match="neither the primary nor a secondary|and there is no primary"):
        await db.query("SELECT 1")
    assert (await db.health())["main"].status == "unhealthy"


async def test_opening_without_the_primary_reads_from_the_secondary(postgresql_database: EmptyDatabase):
    gone = postgresql_database.provider("gone", url="postgresql://nobody@127.0.0.1:1/none")
    there = postgresql_database.provider("there")
    async with FailoverGroup("main", primary=gone, secondaries=[there]) as group:
        assert await group.query_value("SELECT 1") == 1
        assert group.active_provider is there


def test_a_group_is_of_one_engine_and_of_two_members():
    one, two = SQLiteProvider("a.db"), SQLiteProvider("b.db")
    with pytest.raises(ConfigurationError, match="at least one secondary"):
        FailoverGroup("main", primary=one, secondaries=[])
    with pytest.raises(ConfigurationError, match="is in the failover group twice"):
        FailoverGroup("main", primary=one, secondaries=[two, one])


@replicated
async def test_failover_in_a_file(engine: str, database: EmptyDatabase, keyring: str, tmp_path: Path):
    async with create_test_database(engine) as other:
        await stand_in(other)
        settings = "\n".join(f"{key} = {json.dumps(value)}" for key, value in other.settings.items())
        standby = f'[databases.standby]\nprovider = "{engine}"\nlocation = "norway"\n{settings}'
        file = tmp_path / "datavern.toml"
        text = toml(database, keyring, f'failover = ["standby"]\n{standby}').replace(
            "[datavern]", '[datavern]\nledger = "main"'
        )
        file.write_text(text)
        async with DatabaseManager.from_config(file) as db:
            assert isinstance(db["main"], FailoverGroup)
            assert db["main"].secondaries == (db["standby"],)
            await db.audit.record("user_login", subject="å")
            assert (await db.health())["standby"].status == "healthy"
            async with db["main"].transaction() as tx:
                await db.audit.record("case_closed", subject="å", transaction=tx)
            await db.audit.seal()
            assert (await db.audit.verify()).entries == 2
        file.write_text(text.replace('["standby"]', '["stanby"]'))
        with pytest.raises(ConfigurationError, match="stanby is no other database; there are: standby"):
            DatabaseManager.from_config(file)


async def test_a_group_closes_what_it_opened(engine: str):
    async with create_test_database(engine) as a, create_test_database(engine) as b:
        group = FailoverGroup("main", primary=a.provider("a"), secondaries=[b.provider("b")])
        async with group:
            pass
        with pytest.raises(ConnectionFailed):
            await group.primary.capabilities.session.query("SELECT 1")


async def test_a_dataset_where_the_data_map_does_not_reach_is_refused(tmp_path: Path, keyring: str):
    class Plain(SQLiteProvider):
        @property
        def capabilities(self) -> Any:
            return replace(super().capabilities, ledger=None)

    cases = Dataset("cases", database="documents", subject="owner")
    databases = {
        "main": SQLiteProvider(tmp_path / "a.db", location="norway"),
        "documents": Plain(tmp_path / "b.db", location="norway"),
    }
    db = DatabaseManager(databases, data_map=DataMap([cases]), keyring=keyring, ledger="main")
    with pytest.raises(
        CapabilityMissing, match="documents has no datasets: datasets.cases: the engine sqlite offers none"
    ):
        await db.open()
