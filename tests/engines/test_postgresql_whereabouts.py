"""A server's word, by a configured probe, against what the settings say."""

from __future__ import annotations

import asyncio

import pytest

from datavern import ConfigurationError, ConnectionFailed, ResidencyViolation


async def test_a_statement_says_where_the_server_is(postgresql_database):
    probe = "SELECT 'azure:norwaywest'"
    async with postgresql_database.provider(region="azure:norwayeast", region_probe=probe) as db:
        (said,) = await db.capabilities.whereabouts.said()
        assert (said.where, said.location, said.source) == ("azure:norwaywest", "norway", "probe")
        assert await db.query_value("SELECT 1") == 1


async def test_a_server_elsewhere_is_refused(postgresql_database):
    db = postgresql_database.provider(location="norway", region_probe="SELECT 'azure:swedencentral'")
    with pytest.raises(
        ResidencyViolation, match=r"main says that it is in azure:swedencentral \(eu\), and the setting"
    ):
        await db.connect()
    assert (await db.health()).status == "unhealthy"
    await db.close()
    async with postgresql_database.provider(location="eu", region_probe="SELECT 'norway'") as nearer:
        assert await nearer.query_value("SELECT 1") == 1


async def test_an_identifier_that_nobody_knows_is_global(postgresql_database):
    db = postgresql_database.provider(location="eu", region_probe="SELECT 'azure:atlantis'")
    with pytest.raises(ResidencyViolation, match=r"azure:atlantis \(global\)"):
        await db.connect()
    await db.close()


async def test_every_new_connection_asks(postgresql_database):
    where = ["azure:norwayeast"]
    asked = []

    async def probe() -> str:
        asked.append(len(asked))
        return where[0]

    async with postgresql_database.provider(region="azure:norwayeast", region_probe=probe) as db:
        assert await db.query_value("SELECT 1") == 1
        assert len(asked) == 1
        where[0] = "azure:uksouth"  # another server answers at the address by now
        await db.drain()
        with pytest.raises(ResidencyViolation, match="azure:uksouth"):
            await db.query_value("SELECT 1")
        where[0] = "azure:norwayeast"
        assert await db.query_value("SELECT 1") == 1


async def test_a_probe_that_does_not_know_contradicts_nothing(postgresql_database):
    async with postgresql_database.provider(location="norway", region_probe=lambda: None) as db:
        assert await db.capabilities.whereabouts.said() == []


@pytest.mark.parametrize(
    ("probe", "says"),
    [
        ("SELECT region FROM nowhere_at_all", r"main\.region_probe: the server refuses the statement"),
        ("SELECT 42", r"main\.region_probe: gave int: expected a region identifier"),
        ("SELECT ''", r"main\.region_probe: gave str"),
        (lambda: 1 / 0, r"main\.region_probe: the callable raised ZeroDivisionError"),
    ],
)
async def test_a_probe_that_fails_refuses_the_connection(postgresql_database, probe, says):
    db = postgresql_database.provider(location="norway", region_probe=probe)
    with pytest.raises(ConfigurationError, match=says):
        await db.connect()
    await db.close()


async def test_a_probe_that_hangs_is_no_answer(postgresql_database):
    db = postgresql_database.provider(location="norway", region_probe=lambda: asyncio.sleep(3600), connect_timeout=0.5)
    with pytest.raises(ConnectionFailed):
        await db.connect()
    await db.close()


def test_an_empty_probe_is_refused(postgresql_database):
    with pytest.raises(ConfigurationError, match="region_probe is empty"):
        postgresql_database.provider(region_probe=" ")


async def test_nobody_follows(postgresql):
    assert await postgresql.capabilities.whereabouts.said() == []
    assert await postgresql.capabilities.whereabouts.followers() == []
