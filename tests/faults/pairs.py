"""A primary and its replica for the tests of failover: which is which changes from test to test."""

from __future__ import annotations

import asyncio
from typing import Any

from datavern import FailoverGroup, Pool, PostgreSQLProvider
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.replicas import STANDBY, follow

DELAYED = {"recovery_min_apply_delay": "200ms", "wal_retrieve_retry_interval": "100ms"}
"""Replication that is behind by so much: what is durable there is not to be read there yet."""


class Pair:
    """Two servers, one of which follows the other; which one changes from test to test."""

    def __init__(self, primary: PostgreSQLServer, standby: PostgreSQLServer) -> None:
        self.primary = primary
        self.standby = standby

    def swapped(self) -> None:
        """The standby was promoted: the other becomes its standby."""
        self.primary, self.standby = self.standby, self.primary
        follow(self.standby, self.primary)

    async def synchronous(self, on: bool) -> None:
        """Whether a commit waits for the standby."""
        async with PostgreSQLProvider.from_url(self.primary.url) as admin:
            names = STANDBY if on else ""
            await admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
            await admin.query("SELECT pg_reload_conf()")
            if on:
                await until_true(admin, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')")

    def group(self, **settings: Any) -> FailoverGroup:
        pool = Pool(min=2, max=10)
        members = [
            PostgreSQLProvider.from_url(server.url, name=name, pool=pool, location="norway")
            for name, server in (("oslo", self.primary), ("bergen", self.standby))
        ]
        return FailoverGroup("main", primary=members[0], secondaries=members[1:], **settings)


async def until_true(session: Any, sql: str) -> None:
    async with asyncio.timeout(60):
        while not await session.query_value(sql):  # noqa: ASYNC110  (the server has no event)
            await asyncio.sleep(0.01)
