"""The pools of PyMongo's client, as `PoolStats`."""

# ruff: noqa: ARG002  (PyMongo hands over an event; most are only counted)

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pymongo import monitoring

from datavern.contracts.values import PoolStats

if TYPE_CHECKING:
    from pymongo import AsyncMongoClient

__all__ = ["PoolWatch", "pool_stats"]


class PoolWatch(monitoring.ConnectionPoolListener):
    """Counts what PyMongo tells of its pools. Three events for each call, in the caller's own time.

    PyMongo calls these from the loop, and from nowhere else with its asyncio client: plain integers suffice.
    """

    def __init__(self) -> None:
        self.created = self.closed = self.checked_out = self.waiting = self.timeouts = 0

    def pool_created(self, event: monitoring.PoolCreatedEvent) -> None:
        """A pool was made."""

    def pool_ready(self, event: monitoring.PoolReadyEvent) -> None:
        """A pool takes callers."""

    def pool_cleared(self, event: monitoring.PoolClearedEvent) -> None:
        """Every connection of a pool was retired at once."""

    def pool_closed(self, event: monitoring.PoolClosedEvent) -> None:
        """A pool is closed."""

    def connection_created(self, event: monitoring.ConnectionCreatedEvent) -> None:
        """A connection is being made."""
        self.created += 1

    def connection_ready(self, event: monitoring.ConnectionReadyEvent) -> None:
        """A connection was made."""

    def connection_closed(self, event: monitoring.ConnectionClosedEvent) -> None:
        """A connection is closed."""
        self.closed += 1

    def connection_check_out_started(self, event: monitoring.ConnectionCheckOutStartedEvent) -> None:
        """Somebody asks for a connection."""
        self.waiting += 1

    def connection_check_out_failed(self, event: monitoring.ConnectionCheckOutFailedEvent) -> None:
        """Somebody did not get one."""
        self.waiting -= 1
        if event.reason == monitoring.ConnectionCheckOutFailedReason.TIMEOUT:
            self.timeouts += 1

    def connection_checked_out(self, event: monitoring.ConnectionCheckedOutEvent) -> None:
        """Somebody got one."""
        self.waiting -= 1
        self.checked_out += 1

    def connection_checked_in(self, event: monitoring.ConnectionCheckedInEvent) -> None:
        """Somebody gave one back."""


def pool_stats(client: AsyncMongoClient[Any], watch: PoolWatch | None) -> PoolStats:
    """The pools of all servers together, at this moment.

    Without a watch only the moment is told (size, idle, in_use, connecting, generation), from the pools themselves.
    """
    idle = in_use = connecting = generation = 0
    for pool in _pools(client):
        # PyMongo has no public way to ask a pool; its events are the other one, and they cost each call 13 µs.
        conns = len(getattr(pool, "conns", ()))
        out = int(getattr(pool, "active_sockets", 0))
        pending = int(getattr(pool, "_pending", 0))
        idle += conns
        in_use += max(0, out - pending)
        connecting += pending
        generation += int(pool.gen.get_overall()) if hasattr(pool, "gen") else 0
    now = PoolStats(size=idle + in_use, idle=idle, in_use=in_use, connecting=connecting, generation=generation)
    if watch is None:
        return now
    return replace(
        now,
        waiting=max(0, watch.waiting - connecting),
        acquired=watch.checked_out,
        created=watch.created,
        discarded=watch.closed,
        timeouts=watch.timeouts,
    )


def _pools(client: AsyncMongoClient[Any]) -> Iterable[Any]:
    topology = getattr(client, "_topology", None)
    servers = getattr(topology, "_servers", {})
    return [server.pool for server in list(servers.values())]
