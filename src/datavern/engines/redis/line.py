"""All commands to one server over one connection, which is made anew when it is gone.

The commands of one turn of the event loop go out in a single write, and their replies come back in their order: that
is what makes it quick. No task and no timer belongs to a call. What it promises:

- Every call ends at its deadline, whatever the socket does. A connection that did not answer in time is retired: it
  takes nothing new, what still waits on it keeps its own deadline, and the next command goes to a new one.
- A cancelled call is not sent when it was not sent yet; else its reply is read and dropped.
- When a connection breaks, what was written and not answered fails with `OutcomeUnknown` (what only reads with
  `ConnectionFailed`, to be tried again). What was never written waits for the next connection, and fails with
  `ConnectionFailed` when that cannot be made.
- A bounded number of commands waits; one more fails at once with `PoolTimeout`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from datavern.connectors.retry import backoff
from datavern.contracts.errors import ProviderError, twin_of
from datavern.engines.redis.errors import full, unsent
from datavern.engines.redis.wire import Entry, Wire, pack

__all__ = ["Line"]

_CHUNK = 262_144
"""Bytes handed to the socket at once: what is still here is known not to be sent."""
_NEVER = float("inf")
_CLOSE_DEADLINE = 2.0
"""Seconds that `close` waits for answers that are due."""


class Line:
    """Commands to one server.

    Args:
        connect: makes a connection for an owner; raises `ProviderError`.
        name: the provider's, for messages.
        timeout: seconds that a command may take.
        most: commands that may wait at once.
        keepalive: seconds after which an idle connection is asked for a sign of life.

    Attributes:
        sent: commands written so far.
        made: connections made so far.
        gone: connections lost or retired so far.
        expired: commands that met their deadline before they were written.
    """

    def __init__(
        self,
        connect: Callable[[Line], Awaitable[Wire]],
        *,
        name: str,
        timeout: float,
        most: int,
        keepalive: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._loop, self._now, self._soon, self._future = loop, loop.time, loop.call_soon, loop.create_future
        self._connect, self._timeout, self._most, self._keepalive = connect, timeout, most, keepalive
        self.name = name
        self._queue: deque[Entry] = deque()
        self._flying: deque[Entry | None] = deque()  # of the wire; an empty one while there is none
        self._wire: Wire | None = None
        self._retired: set[Wire] = set()
        self._scheduled = self._closed = False
        self._alone = True  # the last write held one command: there is nobody to wait for
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = _NEVER
        self._tending: asyncio.TimerHandle | None = loop.call_later(keepalive, self._tend)
        self.sent = self.made = self.gone = self.expired = self.full = 0

    # ---- commands ---------------------------------------------------------------------------------------------------

    def send(self, packed: bytes, read: bool, skip: int = 0, timeout: float | None = None) -> asyncio.Future[Any]:
        """Send a command. Its reply, or its error, comes with the future; cancel it and the reply is dropped.

        Args:
            packed: the command (`pack`), or several, of which the last one's reply counts.
            read: it changes nothing.
            skip: how many replies come before the one that counts.
            timeout: seconds it may take, where that is not the line's own.

        Raises:
            PoolTimeout: too many commands wait.
            ConnectionFailed: the line is closed.
        """
        queue = self._queue
        if len(queue) + len(self._flying) >= self._most:
            self.full += 1
            raise full(self.name, self._most)
        if self._closed:
            raise unsent(self.name, "the provider is closed")
        future = self._future()
        deadline = self._now() + (self._timeout if timeout is None else timeout)
        queue.append((future, packed, read, deadline, skip))
        if deadline < self._due:  # nothing waits, or only what may wait for longer
            self._set_timer(deadline)
        if not self._scheduled:
            if self._alone and not self._flying:
                # The last turn brought one command, and nothing is under way: waiting for others would only cost time.
                self._flush()
            else:
                self._scheduled = True
                self._soon(self._flush)
        return future

    def _flush(self) -> None:
        """Write what waits."""
        self._scheduled = False
        wire, queue = self._wire, self._queue
        if wire is None or not wire.usable:
            if queue:
                self._staff()
            return
        written = 0
        while queue and not wire.paused:
            parts = self._chunk(wire.flying)
            if parts:
                wire.transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
                written += len(parts)
        self._alone = written <= 1
        self.sent += written

    def _chunk(self, flying: deque[Entry | None]) -> list[bytes]:
        """The next commands to be written, now under way."""
        queue = self._queue
        parts: list[bytes] = []
        size = 0
        while queue and size < _CHUNK:
            entry = queue.popleft()
            future, packed, _, _, skip = entry
            if future.done():  # cancelled before it was sent
                continue
            if skip:
                flying.extend([None] * skip)
            flying.append(entry)
            parts.append(packed)
            size += len(packed)
        return parts

    # ---- deadlines --------------------------------------------------------------------------------------------------
    # Deadlines mostly rise along the queue, so one timer, for the oldest, is enough for all of them.

    def _watch(self) -> None:
        """Set the timer to the oldest deadline."""
        due = [at for wire in (self._wire, *self._retired) if wire is not None and (at := wire.deadline()) is not None]
        if self._queue:
            due.append(self._queue[0][3])
        if due and min(due) < self._due:
            self._set_timer(min(due))

    def _set_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = deadline
        self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer, self._due = None, _NEVER
        now, queue = self._now(), self._queue
        while queue and (queue[0][3] <= now or queue[0][0].done()):
            future = queue.popleft()[0]
            if not future.done():
                self.expired += 1
                future.set_exception(unsent(self.name, "there was no connection in time (timeout)"))
        wire = self._wire
        if wire is not None and wire.expire(now):
            self.outdated(wire)
        for old in list(self._retired):
            old.expire(now)
            if old.idle:
                self._retired.discard(old)
                old.abort()
        self._watch()

    def _tend(self) -> None:
        """Ask a connection that is idle for a sign of life: one that a firewall forgot is found in time."""
        self._tending = self._loop.call_later(self._keepalive, self._tend)
        wire = self._wire
        if wire is not None and not wire.heard and not wire.flying and not self._queue:
            self.send(pack((b"PING",)), True).add_done_callback(_forget)
        if wire is not None:
            wire.heard = False

    # ---- connections ------------------------------------------------------------------------------------------------

    def _staff(self) -> None:
        """Begin making a connection, unless one is being made."""
        if self._task is None and not self._closed:
            self._task = self._loop.create_task(self._make())
        self._watch()

    async def _make(self) -> None:
        failure: Exception | None = None
        try:
            if self._failures:
                await asyncio.sleep(backoff(self._failures, base=0.05, longest=1.0))
            wire = await self._connect(self)
        except Exception as error:  # noqa: BLE001  (whatever it is, those who wait must hear of it)
            failure = error
        finally:
            self._task = None
        if failure is not None:
            self._failures += 1
            for future, *_ in self._taken():
                if not future.done():
                    future.set_exception(twin_of(failure))
            return
        self._failures = 0
        self.made += 1
        if wire.usable:
            self._wire, self._flying = wire, wire.flying
        self._flush()

    async def ready(self, timeout: float) -> Wire:  # noqa: ASYNC109  (a deadline as any command's, without a task)
        """Connect when there is no connection, and wait for it.

        Args:
            timeout: seconds; more than making a connection may take, so that it can say itself why it failed.

        Raises:
            ConnectionFailed: there is none; says what to do about it.
        """
        if self._wire is None or not self._wire.usable:
            await self.send(pack((b"PING",)), True, timeout=timeout)
        if self._wire is None:
            raise unsent(self.name, "the connection broke at once")
        return self._wire

    @property
    def wire(self) -> Wire | None:
        """The connection that commands go to now."""
        return self._wire

    @property
    def waiting(self) -> int:
        """Commands that are not written yet."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether answers are due."""
        return bool(self._flying)

    @property
    def connecting(self) -> bool:
        """Whether a connection is being made."""
        return self._task is not None

    def lost(self, wire: Wire) -> None:
        """A connection broke."""
        self._retired.discard(wire)
        if wire is self._wire:
            self._let_go()
            if self._queue:
                self._staff()

    def outdated(self, wire: Wire) -> None:
        """A connection takes nothing new: the server does not answer, or is not what it was."""
        if wire is not self._wire:
            return
        self._let_go()
        if wire.idle:
            wire.abort()
        else:
            self._retired.add(wire)
            self._watch()
        if self._queue:
            self._staff()

    def resumed(self, wire: Wire) -> None:
        """The socket takes more again."""
        if wire is self._wire:
            self._flush()

    def pushed(self, wire: Wire, message: list[Any]) -> None:
        """Nobody subscribes here."""

    def refused(self, wire: Wire, error: ProviderError) -> None:  # noqa: ARG002  (there is nobody to tell it to)
        """An answer that nobody asked for: the connection is out of step."""
        wire.abort()

    def _let_go(self) -> None:
        self.gone += 1
        self._wire, self._flying = None, deque()

    def _taken(self) -> list[Entry]:
        entries = list(self._queue)
        self._queue.clear()
        return entries

    # ---- the end ----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Wait a moment for answers that are due, then let go of everything. Idempotent."""
        due = [e[0] for e in self._flying if e is not None and not e[0].done()]
        if not self._closed and due:
            self._closed = True
            await asyncio.wait(due, timeout=_CLOSE_DEADLINE)
        self.abort()

    def abort(self) -> None:
        """Let go of everything now. Idempotent."""
        self._closed = True
        for handle in (self._timer, self._tending):
            if handle is not None:
                handle.cancel()
        self._timer = self._tending = None
        if self._task is not None:
            self._task.cancel()
        for future, *_ in self._taken():
            if not future.done():
                future.set_exception(unsent(self.name, "the provider was closed"))
        for wire in (self._wire, *self._retired):
            if wire is not None:
                wire.abort()


def _forget(future: asyncio.Future[Any]) -> None:
    """Nobody waits for it: its error is nobody's."""
    if not future.cancelled():
        future.exception()
