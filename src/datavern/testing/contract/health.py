"""What a provider is, how it is, and that it opens and closes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from datavern.contracts.errors import ConfigurationError, ConnectionFailed, DatavernError
from datavern.contracts.values import Location
from datavern.manager.loading import provider_class
from datavern.manager.manager import DatabaseManager
from datavern.testing.contract.base import Contract, asks
from datavern.testing.contract.speech import Speech
from datavern.testing.databases import EmptyDatabase

__all__ = ["HealthContract"]


class HealthContract(Contract):
    """Every provider, whatever else it can do."""

    async def test_a_provider_says_what_it_is(self, provider: Any, database: EmptyDatabase) -> None:
        assert provider.engine == database.engine
        assert provider.name == "main"
        assert provider.location is Location.NORWAY
        assert provider.face is provider
        assert provider.encrypted in {True, False}
        assert database.provider("other").name == "other"
        assert database.provider(compliance=["gdpr"]).compliance == {"gdpr"}
        if provider.capabilities.session is not None:
            assert provider.capabilities.session.provider is provider

    async def test_a_region_tells_the_location(self, database: EmptyDatabase) -> None:
        there = database.provider(region="azure:norwayeast")
        assert (there.region, there.location) == ("azure:norwayeast", Location.NORWAY)
        assert database.provider().location is Location.GLOBAL

    async def test_a_setting_that_is_none_is_refused_by_its_key(self, database: EmptyDatabase) -> None:
        with pytest.raises(ConfigurationError, match=r"databases\.main\.locatoin"):
            database.provider(locatoin="norway")
        with pytest.raises(ConfigurationError, match=r"databases\.main\.location"):
            database.provider(location="atlantis")

    async def test_it_is_known_by_name_and_opens_from_a_file(self, database: EmptyDatabase, tmp_path: Path) -> None:
        settings = "\n".join(f"{key} = {json.dumps(value)}" for key, value in database.settings.items())
        file = tmp_path / "datavern.toml"
        file.write_text(f'[databases.mine]\nprovider = "{database.engine}"\nlocation = "norway"\n{settings}\n')
        async with DatabaseManager.from_config(file) as db:
            assert type(db["mine"]) is provider_class(database.engine)
            assert db["mine"].name == "mine"
            assert (await db.health())["mine"].status == "healthy"

    async def test_health_tells_the_role_and_never_raises(self, provider: Any, database: EmptyDatabase) -> None:
        health = await provider.health()
        assert (health.status, health.role, health.detail) == ("healthy", "primary", "")
        assert health.version
        assert health.latency > 0
        closed = await database.provider(location="norway").health()
        assert closed.status == "unhealthy"
        assert closed.detail

    @asks("pool")
    async def test_health_tells_the_pool(self, provider: Any) -> None:
        health = await provider.health()
        assert health.pool is not None

    # ---- opening and closing ----------------------------------------------------------------------------------------

    @asks("session")
    async def test_opening_and_closing_twice_is_the_same_as_once(self, database: EmptyDatabase, sql: Speech) -> None:
        provider = database.provider(location="norway")
        with pytest.raises(ConnectionFailed):
            await provider.query(sql("SELECT 1"))
        await provider.connect()
        await provider.connect()
        assert await provider.query_value(sql("SELECT 1")) == 1
        await provider.close()
        await provider.close()
        with pytest.raises(ConnectionFailed):
            await provider.query(sql("SELECT 1"))
        async with provider:
            assert await provider.query_value(sql("SELECT 2")) == 2

    @asks("session", "endless")
    async def test_closing_while_many_calls_run_ends_them_all(self, database: EmptyDatabase, sql: Speech) -> None:
        provider = database.provider(location="norway")
        await provider.connect()
        await provider.execute(sql("CREATE TABLE t (n {integer})"))
        calls = [asyncio.create_task(provider.execute(sql("INSERT INTO t VALUES ($1)"), [n])) for n in range(30)]
        calls += [asyncio.create_task(provider.query(sql.words["endless"])) for _ in range(5)]
        await asyncio.sleep(0.01)
        await provider.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(r == 1 or isinstance(r, DatavernError) for r in results)
        async with provider:
            assert await provider.query_value(sql("SELECT count(*) FROM t")) >= sum(r == 1 for r in results)

    @asks("session", "transactions")
    async def test_closing_rolls_back_what_is_open(self, database: EmptyDatabase, sql: Speech) -> None:
        provider = database.provider(location="norway")
        await provider.connect()
        await provider.execute(sql("CREATE TABLE t (n {integer})"))
        with pytest.raises(DatavernError):
            async with provider.transaction() as tx:
                await tx.execute(sql("INSERT INTO t VALUES (1)"))
                await provider.close()
        async with provider:
            assert await provider.query_value(sql("SELECT count(*) FROM t")) == 0
