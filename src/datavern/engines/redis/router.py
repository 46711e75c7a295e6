"""To which server a command goes, where there is one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Protocol

from datavern.engines.redis.connecting import Connector
from datavern.engines.redis.line import Line
from datavern.engines.redis.settings import RedisSettings
from datavern.engines.redis.wire import Owner, Wire, pack

__all__ = ["Router", "Single", "scanned"]


class Router(Protocol):
    """Where commands go."""

    clustered: bool

    @property
    def lines(self) -> Iterable[Line]:
        """Every connection that carries commands."""
        ...

    async def open(self) -> None:
        """Connect. Raises `ConnectionFailed`."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...

    def call(self, packed: bytes, key: bytes, read: bool, skip: int = 0) -> Awaitable[Any]:
        """Send a command to where its key is; see `Line.send`."""
        ...

    def slot(self, key: bytes) -> int:
        """What tells keys that one command may name together: the cluster's slot."""
        ...

    async def dedicated(self, key: bytes) -> tuple[Any, Callable[[], Line]]:
        """Where the key is, and what makes a line of its own to there: for a command that waits."""
        ...

    async def refresh(self) -> None:
        """Learn anew where keys are."""
        ...

    async def anywhere(self, owner: Owner) -> Wire:
        """A connection to any server, for channels: what one publishes, all hear."""
        ...

    def scan(self, match: bytes | None, count: int) -> AsyncIterator[list[bytes]]:
        """Every key that matches, on every primary; some may come twice."""
        ...


class Single:
    """One server, or the primary that Sentinels name."""

    clustered = False

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._connector = Connector(settings)
        self._line = self._new(settings.max_pending)
        self._send = self._line.send

    def _new(self, most: int) -> Line:
        settings = self._settings
        return Line(
            self._connector.to_server,
            name=settings.name,
            timeout=settings.timeout,
            most=most,
            keepalive=settings.keepalive,
        )

    @property
    def lines(self) -> Iterable[Line]:
        """The one."""
        return (self._line,)

    async def open(self) -> None:
        """Connect."""
        await self._line.ready(self._settings.connect_timeout + self._settings.timeout)

    async def close(self) -> None:
        """Let go of it."""
        await self._line.close()

    def call(self, packed: bytes, key: bytes, read: bool, skip: int = 0) -> Awaitable[Any]:  # noqa: ARG002  (one place for all keys)
        """Send a command; see `Line.send`."""
        return self._send(packed, read, skip)

    def slot(self, key: bytes) -> int:  # noqa: ARG002  (one place for all keys)
        """One command may name any keys."""
        return 0

    async def dedicated(self, key: bytes) -> tuple[Any, Callable[[], Line]]:  # noqa: ARG002  (one place for all keys)
        """A new line."""
        return None, partial(self._new, 1)

    async def refresh(self) -> None:
        """There is nothing to learn."""

    async def anywhere(self, owner: Owner) -> Wire:
        """A new connection."""
        return await self._connector.to_server(owner)

    async def scan(self, match: bytes | None, count: int) -> AsyncIterator[list[bytes]]:
        """Every key that matches."""
        async for keys in scanned(self._line, match, count):
            yield keys


async def scanned(line: Line, match: bytes | None, count: int) -> AsyncIterator[list[bytes]]:
    """The keys of one server, in batches. SCAN lets others in between; KEYS would hold them all up."""
    cursor = b"0"
    while True:
        command: tuple[Any, ...] = (b"SCAN", cursor, b"COUNT", count)
        if match is not None:
            command += (b"MATCH", match)
        cursor, keys = await line.send(pack(command), True)
        yield keys
        if cursor == b"0":
            return
