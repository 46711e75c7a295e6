"""Fixtures for pytest, there as soon as Datavern is installed. Nothing is started before a test asks for it."""

from __future__ import annotations

import pytest

from datavern.testing.postgresql import PostgreSQLServer, shared_server

__all__ = ["datavern_postgresql"]


@pytest.fixture(scope="session")
def datavern_postgresql() -> PostgreSQLServer:
    """The process's PostgreSQL server: the one that ``DATAVERN_TEST_POSTGRESQL`` names, or an ephemeral one."""
    return shared_server()
