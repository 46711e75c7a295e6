"""Databases that are given out again after a test: what is left in one must never be seen by the next."""

from __future__ import annotations

import asyncpg
import pytest

from datavern.testing import create_test_database
from datavern.testing.recycling import spares

TRACES = "SELECT count(*) FROM pg_class WHERE oid >= 16384"


async def used(server, statements):
    """The name of a database in which the statements were run, given back; whether it is kept."""
    async with create_test_database("postgresql", server=server) as database:
        connection = await asyncpg.connect(database.settings["url"])
        try:
            for statement in statements:
                await connection.execute(statement)
            name = await connection.fetchval("SELECT current_database()")
        finally:
            await connection.close()
    return name, name in spares(server)


@pytest.fixture
def server(postgresql_server):
    if spares(postgresql_server) is None:
        pytest.skip("a server of somebody else's: every database is dropped")
    return postgresql_server


async def test_what_a_test_made_is_gone(server):
    name, kept = await used(
        server,
        [
            "CREATE TABLE t (id serial PRIMARY KEY, v text)",
            "INSERT INTO t (v) VALUES ('planted')",
            "CREATE VIEW v AS SELECT * FROM t",
            "CREATE TYPE mood AS ENUM ('glad')",
            "CREATE DOMAIN grown AS int CHECK (VALUE >= 18)",
            'CREATE SCHEMA "odd \'; name"',
            'CREATE TABLE "odd \'; name".t (i int)',
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE TEXT SEARCH CONFIGURATION own (COPY = simple)",
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        ],
    )
    assert kept
    spare = spares(server)
    spare.remove(name)
    spare.append(name)
    async with create_test_database("postgresql", server=server) as database:
        connection = await asyncpg.connect(database.settings["url"])
        try:
            assert await connection.fetchval("SELECT current_database()") == name
            assert await connection.fetchval(TRACES) == 0
            public = await connection.fetchrow("SELECT nspowner::regrole::text, nspacl::text FROM pg_namespace "
                                               "WHERE nspname = 'public'")  # fmt: skip
            fresh = await asyncpg.connect(server.url_of("postgres"))
            try:
                assert public == await fresh.fetchrow(
                    "SELECT nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname = 'public'"
                )
            finally:
                await fresh.close()
            await connection.execute("CREATE TABLE t (id int)")
        finally:
            await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT lo_create(0)",
        "CREATE PUBLICATION everything FOR ALL TABLES",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Europe/Oslo''', current_database()); END $$",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 7', current_database()); END $$",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
        "CREATE FUNCTION pg_catalog.own() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ],
)
async def test_what_cannot_be_emptied_is_dropped(server, statement):
    if "pg_catalog" in statement:
        statement = f"SET allow_system_table_mods = on; {statement}"
    name, kept = await used(server, [statement])
    assert not kept
    connection = await asyncpg.connect(server.url)
    try:
        assert not await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", name)
    finally:
        await connection.close()


async def test_whoever_is_still_connected_is_sent_away(server):
    async with create_test_database("postgresql", server=server) as database:
        lingering = await asyncpg.connect(database.settings["url"])
        await lingering.execute("CREATE TEMPORARY TABLE mine (i int)")
        await lingering.execute("BEGIN")
        await lingering.execute("CREATE TABLE held (i int)")
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
        await lingering.fetchval("SELECT 1")


async def test_two_at_once_are_two(server):
    async with (
        create_test_database("postgresql", server=server) as one,
        create_test_database("postgresql", server=server) as other,
    ):
        assert one.settings != other.settings
