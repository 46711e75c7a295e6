"""A TDS server, in a process of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from datavern.engines.azuresql.provider import AzureSQLProvider
from datavern.testing.azuresql import AzureSQLServer, available

PEOPLE = [
    {"id": n, "name": name} for n, name in enumerate(["Åse", "Øystein", "Ægir", "Kari", "O'Neil", "Bjørn", "Liv"], 1)
]


@pytest.fixture(scope="session", autouse=True)
def _there_is_a_server() -> None:
    if not available():
        reason = "azuresql: the package pysqlbridge, whose server these tests run, is not installed"
        if "azuresql" in os.environ.get("DATAVERN_REQUIRE", "").split():
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def server() -> Iterator[AzureSQLServer]:
    """One server for all tests that leave it running."""
    with AzureSQLServer({"people": PEOPLE}) as server:
        yield server


@pytest.fixture
def make(server: AzureSQLServer) -> Callable[..., AzureSQLProvider]:
    """Makes providers of the shared server."""

    def make(**settings: Any) -> AzureSQLProvider:
        return AzureSQLProvider.from_settings("main", {**server.settings, "location": "norway", **settings})

    return make


@pytest.fixture
async def azuresql(make: Callable[..., AzureSQLProvider]) -> AsyncIterator[AzureSQLProvider]:
    """A connected provider."""
    async with make() as provider:
        yield provider
