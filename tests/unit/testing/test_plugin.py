"""The fixtures for other people's projects: here in auto mode, and elsewhere without pytest-asyncio at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from datavern import ConfigurationError, DatabaseManager, DataMap, Dataset, Field
from datavern.testing import EmptyDatabase


@pytest.fixture
def datavern_data_map():
    return DataMap([Dataset("users", database="main", subject="id", fields={"name": Field(sealed=True)})])


async def test_a_connected_provider_of_an_empty_database(datavern_provider, datavern_engine):
    assert datavern_engine == datavern_provider.engine == "sqlite"
    await datavern_provider.execute("CREATE TABLE t (n integer)")
    assert await datavern_provider.query_value("SELECT count(*) FROM t") == 0


async def test_a_manager_with_a_key_ring_and_ones_own_data_map(datavern_manager, datavern_people):
    users = datavern_manager.personal("users")
    one, other = datavern_people(2)
    await users.insert_many([{"id": one.id, "name": one.name}, {"id": other.id, "name": other.name}])
    assert await users.get(other.id) == {"id": other.id, "name": other.name}
    assert datavern_people(2) == [one, other]
    assert datavern_people(2, seed=2) != [one, other]


@pytest.mark.parametrize("datavern_engine", ["postgresql"])
async def test_the_engine_may_be_chosen_by_the_test(postgresql_server, datavern_database, datavern_keyring):
    assert datavern_database.engine == "postgresql"
    provider = datavern_database.provider(location="norway")
    async with DatabaseManager({"main": provider}, keyring=datavern_keyring) as db:
        assert (await db.health())["main"].status == "healthy"


def test_a_test_without_a_loop_gets_a_database_too(datavern_database: EmptyDatabase):
    assert Path(datavern_database.settings["path"]).parent.is_dir()


@pytest.mark.parametrize("datavern_engine", ["sqllite"])
def test_an_engine_that_there_is_not_is_refused_by_name(datavern_engine, request):
    with pytest.raises(ConfigurationError, match="expected 'sqlite', 'postgresql' or 'azuresql', not sqllite"):
        request.getfixturevalue("datavern_database")


ELSEWHERE = """
import sys

HEAVY = {"asyncpg", "cryptography", "datavern.manager.manager", "pydantic", "sqlalchemy", "sqlite3"}


def test_nothing_was_imported():
    assert sorted(HEAVY & sys.modules.keys()) == []


def test_a_database(datavern_database):
    import asyncio

    async def work():
        async with datavern_database.provider() as provider:
            return await provider.query_value("SELECT 2")

    assert datavern_database.engine == "sqlite"
    assert asyncio.run(work()) == 2


def test_a_key_ring(datavern_keyring):
    assert datavern_keyring.startswith("file:")


def test_what_needs_more_says_so(datavern_provider):
    pass


def test_what_needs_more_says_so_too(datavern_manager):
    pass
"""


def test_without_pytest_asyncio(tmp_path: Path):
    (tmp_path / "pytest_asyncio.py").write_text("raise ImportError('not installed')\n", encoding="utf-8")
    (tmp_path / "test_it.py").write_text(ELSEWHERE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = --strict-markers --strict-config\nfilterwarnings = error\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    options = ["-p", "no:cacheprovider", "-p", "datavern.testing.plugin", "--datavern-engine", "sqlite"]
    command = [sys.executable, "-m", "pytest", *options]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert "3 passed, 2 errors" in said, said
    assert "datavern_provider needs pytest-asyncio, which is not loaded" in said
    assert "datavern_manager needs pytest-asyncio, which is not loaded" in said
