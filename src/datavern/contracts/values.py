"""Values that every part of Datavern speaks of: classification, location, health, and who is acting."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

__all__ = [
    "Classification",
    "Compliance",
    "Health",
    "Location",
    "Parameters",
    "PoolStats",
    "Row",
    "actor",
    "checked_size",
    "current_actor",
    "now",
    "timestamp",
    "timestamp_of",
    "today",
]

Parameters = Sequence[Any] | Mapping[str, Any]
"""A statement's parameters: by position, or by name where the engine has names (SQLite)."""

Compliance = Literal["gdpr", "nsm"]


class Row(Protocol):
    """A row answers by name and by position, has its columns' names as `keys()`, and makes a `dict`.

    `asyncpg.Record` and `sqlite3.Row` are such rows as they stand: no row is copied on its way to the caller.
    """

    def __getitem__(self, key: Any, /) -> Any: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def keys(self) -> Any:
        """The columns' names, in order."""
        ...


class Classification(StrEnum):
    """How far data may travel (sikkerhetsloven § 5-3; the mapping to these names is Datavern's).

    STRENGT HEMMELIG is out of scope, and refused by name.
    """

    OPEN = "OPEN"
    RESTRICTED = "RESTRICTED"
    CONFIDENTIAL = "CONFIDENTIAL"
    SECRET = "SECRET"  # noqa: S105  (a classification, not a password)


class Location(StrEnum):
    """Where data is: norway ⊂ eu (the EEA) ⊂ global."""

    NORWAY = "norway"
    EU = "eu"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool at one moment.

    Attributes:
        size: connections open, in use or idle.
        idle: connections open and free.
        in_use: connections that a caller holds.
        waiting: callers that wait for one.
        connecting: connections being made.
        generation: how often every connection was retired at once (a failover, a restart).
        acquired: acquisitions served since the pool opened.
        created: connections made since the pool opened.
        discarded: connections thrown away (broken, too old, of an earlier generation).
        reset: reset round trips made.
        timeouts: acquisitions that gave up.
    """

    size: int = 0
    idle: int = 0
    in_use: int = 0
    waiting: int = 0
    connecting: int = 0
    generation: int = 0
    acquired: int = 0
    created: int = 0
    discarded: int = 0
    reset: int = 0
    timeouts: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """What a provider says of itself, asked just now.

    Attributes:
        status: "healthy", "degraded" (answers, but not as it should) or "unhealthy".
        role: "primary" (takes writes), "secondary" (does not), or "unknown": the server's word, not the label's.
        latency: seconds that the probe took, or None when it got no answer.
        version: the server's version, as it says it.
        detail: why it is not healthy; empty when it is. Never holds a secret or a value.
        pool: the pool's state, where there is one.
    """

    status: Literal["healthy", "degraded", "unhealthy"]
    role: Literal["primary", "secondary", "unknown"] = "unknown"
    latency: float | None = None
    version: str = ""
    detail: str = ""
    pool: PoolStats | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


_actor: ContextVar[str | None] = ContextVar("datavern_actor", default=None)


@contextmanager
def actor(name: str) -> Iterator[None]:
    """Say who is acting, for the audit log and for ``created_by``: ``with datavern.actor("case-worker-7"):``.

    Holds for this task and for those that it starts.
    """
    token = _actor.set(name)
    try:
        yield
    finally:
        _actor.reset(token)


def current_actor() -> str | None:
    """The acting person or service, or None when nobody said."""
    return _actor.get()


def now() -> dt.datetime:
    """The time now, in UTC."""
    return dt.datetime.now(dt.UTC)


def today() -> dt.date:
    """The day that it is here, by the machine's own clock: deadlines, holds and retention are counted in such days."""
    return dt.datetime.now().astimezone().date()


def timestamp(moment: dt.datetime | None = None) -> str:
    """`moment` (now when None) as Datavern's own tables hold time: RFC 3339, UTC, microseconds, ``Z``.

    The same text on every engine; it sorts as time does.
    """
    if moment is not None:
        return moment.astimezone(dt.UTC).isoformat(timespec="microseconds")[:-6] + "Z"
    return timestamp_of(time.time_ns() // 1000)


def timestamp_of(microseconds: int) -> str:
    """`timestamp` of a moment that is given in microseconds since 1970."""
    global _second  # noqa: PLW0603  (the text of the second that it is now: every write asks for it)
    second, rest = divmod(microseconds, 1_000_000)
    known, text = _second
    if known != second:
        text = dt.datetime.fromtimestamp(second, dt.UTC).isoformat()[:19]
        _second = second, text
    return f"{text}.{rest:06d}Z"


_second: tuple[int, str] = (0, "1970-01-01T00:00:00")


def checked_size(batch_size: int) -> int:
    """How many rows or keys go at a time, as it was given: from 1 to 2147483647, which every driver can count to.

    Raises:
        ConfigurationError: it is no whole number, or not one of these.
    """
    whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
    if whole and 1 <= batch_size < 2**31:
        return batch_size
    from datavern.contracts.errors import ConfigurationError  # noqa: PLC0415  (loaded where something is wrong)

    kind = type(batch_size).__name__
    given = f"of type {kind}" if not whole else str(batch_size) if abs(batch_size) < 2**63 else "out of range"
    raise ConfigurationError(f"batch_size is {given}: expected a whole number from 1 to {2**31 - 1}")
