"""How a SQLite database is, asked just now."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConnectionFailed, DatavernError, ProviderError
from datavern.contracts.values import Health, PoolStats

if TYPE_CHECKING:
    from datavern.contracts.roles import Standing
    from datavern.engines.sqlite.lanes import Lanes
    from datavern.engines.sqlite.provider import SQLiteProvider

__all__ = ["SQLiteRoles", "probe", "stats"]

_PATIENCE = 5.0  # seconds for an answer


async def probe(provider: SQLiteProvider, lanes: Lanes | None) -> Health:
    """A read through a reader, the sizes of the files, the lanes. Never raises."""
    if lanes is None:
        return Health("unhealthy", detail="not open")
    start = time.perf_counter()
    detail = ""
    try:
        async with asyncio.timeout(_PATIENCE):
            await provider.query_one("SELECT count(*) FROM sqlite_master")
    except TimeoutError:
        return Health("degraded", "primary", detail=f"no answer within {_PATIENCE} s", pool=stats(lanes))
    except DatavernError as error:
        detail = str(error)
    latency = time.perf_counter() - start
    if lanes.writer.ended:
        detail = detail or "the lane that writes has ended: close the provider and open it again"
    facts: dict[str, Any] = {"path": lanes.path}
    if not lanes.settings.in_memory:
        facts["size"], facts["log_size"] = _size(lanes.path), _size(f"{lanes.path}-wal") or 0
        if facts["size"] is None:
            detail = detail or "the file was removed or moved while it is open"
    return Health(
        "unhealthy" if detail else "healthy",
        "primary",
        latency,
        version=sqlite3.sqlite_version,
        detail=detail,
        pool=stats(lanes),
        facts=facts,
    )


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116  (no path object is made of a name for this)
    except OSError:
        return None


def stats(lanes: Lanes | None) -> PoolStats:
    """The lanes as a pool: how many there are, and what waits."""
    if lanes is None:
        return PoolStats()
    every = [lanes.writer, *lanes.readers]
    held = len(lanes.readers) - len(lanes.shared) + (lanes.writer.owner is not None)
    idle = sum(lane.sleeping for lane in every)
    return PoolStats(
        size=len(every),
        idle=min(idle, len(every) - held),
        in_use=held,
        waiting=len(lanes.waiters) + len(lanes.writer.queue) + len(lanes.reads),
        connecting=sum(not lane.opened.done() for lane in every),
        acquired=lanes.leases,
        created=lanes.created + 1,
        timeouts=lanes.timeouts,
    )


class SQLiteRoles:
    """A file has no role, and nobody copies it: the label says which one is written to. See `contracts/roles.py`."""

    def __init__(self, provider: SQLiteProvider) -> None:
        self._provider = provider

    def watch(self, lost: Callable[[], None]) -> SQLiteRoles:  # noqa: ARG002  (a file breaks no connection)
        """Itself: there is no connection to keep."""
        return self

    @property
    def shut(self) -> bool:
        """Whether the provider is closed."""
        return self._provider._lanes is None  # noqa: SLF001  (a part of the engine)

    async def ask(self) -> Standing:
        """Whether the file is open and answers.

        Raises:
            ConnectionFailed: it is not, or does not.
        """
        from datavern.contracts.roles import Standing  # noqa: PLC0415  (only in a failover group)

        health = await probe(self._provider, self._provider._lanes)  # noqa: SLF001  (a part of the engine)
        if health.status == "unhealthy":
            name = self._provider.name
            raise ConnectionFailed(f"{name}: {health.detail}", provider=name)
        return Standing(writable=True, told=False, version=health.version)

    def reads(self, sql: str) -> bool:  # noqa: ARG002  (nobody asks: a file has no replicas)
        """Not known."""
        return False

    def refused_write(self, error: ProviderError) -> bool:  # noqa: ARG002  (a file has no replicas)
        """Never."""
        return False

    def sever(self) -> None:
        """Nothing: nobody supersedes a file."""

    hold = mend = sever

    def close(self) -> None:
        """Nothing to let go of."""
