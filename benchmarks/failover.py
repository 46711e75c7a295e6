"""What routing, retry, breaker and deadline add to a call that succeeds: a failover group against the provider alone.

The promise is in microseconds of the group's own work, so it is measured where nothing else is: on a primary and a
replica that answer at once. What that is of a whole call is shown beside, on real servers: one task, client and servers
on a core each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from benchmarks import Figure, apart, fan, interleave
from datavern import FailoverGroup, Location, Pool, PostgreSQLProvider
from datavern.contracts.roles import Standing
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.replicas import PostgreSQLReplica

PROMISE = 5e-6
"""Seconds that the group may add to a call."""
WRITE = "UPDATE counters SET n = n + 1 WHERE id = 1"
Call = Callable[[int], Awaitable[Any]]


async def figures() -> list[Figure]:
    """The group's own work, and what it is of a whole call."""
    with apart():
        found = await _own_work()
    with PostgreSQLServer() as server, PostgreSQLReplica(server) as replica, apart(server.pid, replica.pid):
        return [*found, *await _whole_calls(server, replica)]


# ---- on members that answer at once ---------------------------------------------------------------------------------


class AtOnce:
    """A provider whose answers cost nothing."""

    engine, region, location, compliance, encrypted = "at once", None, Location.NORWAY, frozenset(), True

    def __init__(self, name: str) -> None:
        self.name = name
        self.face = self
        self.capabilities = SimpleNamespace(session=self, transactions=None, roles=self, reasons={})

    async def query(self, sql: str, parameters: Any = ()) -> Any:  # noqa: ARG002  (as a session's)
        return ()

    async def execute(self, sql: str, parameters: Any = ()) -> int:  # noqa: ARG002  (as a session's)
        return 1

    def reads(self, sql: str) -> bool:  # noqa: ARG002  (as `Roles`)
        return True


@contextmanager
def standing() -> Iterator[FailoverGroup]:
    """A group as it is once it is open, with a primary and a replica."""
    group = FailoverGroup("main", primary=AtOnce("oslo"), secondaries=[AtOnce("bergen")], replicas_read=True)  # type: ignore[arg-type]
    group._monitor = SimpleNamespace(verdict=None)  # type: ignore[assignment]
    replica = group._known[1]
    replica.standing = Standing(writable=False, system="s", timeline=1, position=1, replica=True)
    replica.took(0.001)
    yield group


async def _own_work() -> list[Figure]:
    with standing() as group:
        alone: Any = group.primary
        pairs: dict[str, tuple[Call, Call]] = {
            "read": (lambda _: group.query("SELECT 1"), lambda _: alone.query("SELECT 1")),
            "read on a replica": (lambda _: group.query("SELECT 1", read_only=True), lambda _: alone.query("SELECT 1")),
            "write": (lambda _: group.execute(WRITE), lambda _: alone.execute(WRITE)),
        }
        found = []
        for title, (ours, theirs) in pairs.items():
            times = await interleave({"ours": fan(ours, 1), "theirs": fan(theirs, 1)}, 5000, rounds=15)
            added = [max(a - b, 1e-9) for a, b in zip(times["ours"], times["theirs"], strict=True)]
            found.append(
                Figure(
                    title=f"FailoverGroup: what it adds to one {title}",
                    ours="added",
                    times={"added": added, "5 µs": [PROMISE] * len(added)},
                    at_most={"5 µs": 1.0},
                )
            )
        return found


# ---- on real servers ------------------------------------------------------------------------------------------------


async def _whole_calls(server: PostgreSQLServer, replica: PostgreSQLServer) -> list[Figure]:
    pool = Pool(min=2, max=4)
    alone, oslo = (PostgreSQLProvider.from_url(server.url, name=name, pool=pool) for name in ("alone", "oslo"))
    bergen, replica_alone = (
        PostgreSQLProvider.from_url(replica.url, name=name, pool=pool) for name in ("bergen", "replica_alone")
    )
    group = FailoverGroup("main", primary=oslo, secondaries=[bergen], replicas_read=True)
    async with alone, replica_alone, group:
        await alone.execute("CREATE TABLE counters (id int PRIMARY KEY, n bigint)")
        await alone.execute("INSERT INTO counters VALUES (1, 0)")
        pairs: dict[str, tuple[Call, Call]] = {
            "read": (lambda _: group.query("SELECT 1"), lambda _: alone.query("SELECT 1")),
            "read on a replica": (
                lambda _: group.query("SELECT 1", read_only=True),
                lambda _: replica_alone.query("SELECT 1"),
            ),
            "write": (lambda _: group.execute(WRITE), lambda _: alone.execute(WRITE)),
        }
        return [
            Figure(
                title=f"PostgreSQL: one {title}, 1 task, through a group and without one",
                ours="FailoverGroup",
                times=await interleave({"FailoverGroup": fan(a, 1), "the provider alone": fan(b, 1)}, 500, rounds=15),
                note="shown beside, with no promise: a round trip varies by more than the group adds",
            )
            for title, (a, b) in pairs.items()
        ]
