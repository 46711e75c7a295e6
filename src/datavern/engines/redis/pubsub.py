"""Channels: messages to whoever listens, as an async iterator that outlives its connection.

All subscriptions of a provider share one connection of their own. When it breaks it is made anew and everything is
subscribed again; what was published meanwhile is lost (Redis keeps no messages), and the subscription says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from datavern.connectors.retry import backoff
from datavern.contracts.errors import ConfigurationError, ConnectionFailed, ProviderError, twin_of
from datavern.engines.redis.errors import unsent
from datavern.engines.redis.values import name_of, shown
from datavern.engines.redis.wire import Wire, pack

__all__ = ["Gap", "Hub", "Message", "Subscription", "names_of"]

log = logging.getLogger("datavern.redis")

_Name = tuple[bool, bytes]
"""Whether it is a pattern, and the channel or pattern."""
_END: Final = object()


@dataclass(frozen=True, slots=True)
class Message:
    """A message.

    Attributes:
        channel: where it was published.
        data: what was published.
        pattern: the subscribed pattern that it came by, or None.
        missed: before this one, messages may have been missed: the connection broke, or more waited than the
            subscription keeps.
    """

    channel: str | bytes
    data: Any
    pattern: str | bytes | None = None
    missed: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages may have been missed: told as soon as the subscription is heard again, where it was asked for."""

    reason: str


class Subscription:
    """``async with redis.subscribe("news") as messages: async for message in messages: …``."""

    def __init__(
        self,
        hub: Hub,
        names: Iterable[_Name],
        opened: Callable[[bytes, bytes], Awaitable[Any]],
        *,
        gaps: bool,
        most: int,
    ) -> None:
        self._hub, self._opened, self._gaps, self._most = hub, opened, gaps, most
        self.names = tuple(dict.fromkeys(names))
        self._waiting: deque[Any] = deque()
        self._wakes: asyncio.Future[None] | None = None
        self._missed = self._broken = False
        self.heard: asyncio.Future[None] | None = None
        """Done once the server has confirmed all of it for the first time."""

    async def __aenter__(self) -> Self:
        await self._hub.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hub.remove(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """The next message (or `Gap`, with ``gaps=True``).

        Raises:
            DecryptionFailed: a message that was not sealed for this channel; the next call goes on with the next one.
        """
        while not self._waiting:
            self._wakes = asyncio.get_running_loop().create_future()
            try:
                await self._wakes
            finally:
                self._wakes = None
        item = self._waiting.popleft()
        if item is _END:
            self._waiting.append(_END)
            raise StopAsyncIteration
        if isinstance(item, Gap):
            return item
        channel, raw, pattern = item
        missed, self._missed = self._missed, False
        data = await self._opened(channel, raw)
        return Message(shown(channel), data, None if pattern is None else shown(pattern), missed)

    def put(self, channel: bytes, raw: bytes, pattern: bytes | None) -> None:
        """A message came."""
        if len(self._waiting) >= self._most:
            self._waiting.popleft()
            self.gap("more messages waited than the subscription keeps (most)")
        self._append((channel, raw, pattern))

    def gap(self, reason: str) -> None:
        """Messages may have been missed."""
        if not self._missed and self._gaps:
            self._append(Gap(reason))
        self._missed = True

    def broke(self) -> None:
        """The connection is gone: from here until `back`, messages are missed."""
        self._missed = self._broken = True

    def back(self) -> None:
        """The server has confirmed all of it (again)."""
        if self.heard is not None and not self.heard.done():
            self.heard.set_result(None)
        if self._broken:
            self._broken = False
            if self._gaps:
                self._append(Gap("the connection broke"))

    def end(self) -> None:
        """No more will come."""
        self._append(_END)

    def _append(self, item: Any) -> None:
        self._waiting.append(item)
        if self._wakes is not None and not self._wakes.done():
            self._wakes.set_result(None)


class Hub:
    """The connection that a provider's subscriptions share.

    Args:
        connect: makes a connection to any server.
        name: the provider's, for messages.
        timeout: seconds that a subscription may take to be confirmed.
        keepalive: seconds between signs of life.
    """

    def __init__(
        self, connect: Callable[[Hub], Awaitable[Wire]], *, name: str, timeout: float, keepalive: float
    ) -> None:
        self._connect, self._timeout, self._keepalive = connect, timeout, keepalive
        self.name = name
        self._subscriptions: set[Subscription] = set()
        self._confirmed: set[_Name] = set()
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._broken: asyncio.Future[None] | None = None
        self._closed = False

    # ---- subscriptions ----------------------------------------------------------------------------------------------

    async def add(self, subscription: Subscription) -> None:
        """Subscribe, and wait until the server says that it has.

        Raises:
            ConnectionFailed: it could not be reached, or did not answer.
            QueryRejected: this user may not listen there.
        """
        if self._closed:
            raise unsent(self.name, "the provider is closed")
        loop = asyncio.get_running_loop()
        subscription.heard = loop.create_future()
        self._subscriptions.add(subscription)
        if self._wire is not None:
            self._say(n for n in subscription.names if n not in self._confirmed)
            self._settle()
        elif self._task is None:
            self._task = loop.create_task(self._keep())
        late = False
        try:
            async with asyncio.timeout(self._timeout):
                await subscription.heard
        except TimeoutError:
            late = True
        except BaseException:
            self.remove(subscription)
            raise
        if late:
            self.remove(subscription)
            raise ConnectionFailed(
                f"{self.name}: the server did not confirm the subscription in time", provider=self.name
            )

    def remove(self, subscription: Subscription) -> None:
        """Stop listening. Idempotent."""
        self._subscriptions.discard(subscription)
        wanted = self._wanted()
        gone = [n for n in subscription.names if n not in wanted and n in self._confirmed]
        self._confirmed.difference_update(gone)
        wire = self._wire
        if not self._subscriptions:
            self._stop()
        elif wire is not None and gone:
            for pattern, name in gone:
                wire.transport.write(pack((b"PUNSUBSCRIBE" if pattern else b"UNSUBSCRIBE", name)))

    def close(self) -> None:
        """End every subscription. Idempotent."""
        self._closed = True
        for subscription in list(self._subscriptions):
            subscription.end()
        self._subscriptions.clear()
        self._stop()

    def _stop(self) -> None:
        task, self._task = self._task, None
        wire, self._wire = self._wire, None
        self._confirmed.clear()
        if task is not None:
            task.cancel()
        if wire is not None:
            wire.abort()

    def _wanted(self) -> set[_Name]:
        return {name for subscription in self._subscriptions for name in subscription.names}

    def _say(self, names: Iterable[_Name]) -> None:
        assert self._wire is not None  # noqa: S101  (for the type checker: the callers looked)
        for pattern, name in names:
            self._wire.transport.write(pack((b"PSUBSCRIBE" if pattern else b"SUBSCRIBE", name)))

    def _settle(self) -> None:
        """Tell those whose names are all confirmed now."""
        for subscription in self._subscriptions:
            if self._confirmed.issuperset(subscription.names):
                subscription.back()

    # ---- the connection ---------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Hold a connection for as long as anybody listens."""
        failures = 0
        while True:
            try:
                wire = await self._connect(self)
            except Exception as error:  # noqa: BLE001  (whatever it is, those who wait must hear of it)
                failures += 1
                self._fail(error)
                await asyncio.sleep(backoff(failures, base=0.1, longest=2.0))
                continue
            failures = 0
            self._wire = wire
            self._broken = asyncio.get_running_loop().create_future()
            if wire.usable:
                self._say(self._wanted())
                await self._listen(wire)
            self._wire = None
            wire.abort()
            self._confirmed.clear()
            log.warning("%s: the connection for channels broke; messages may be missed until it is back", self.name)
            for subscription in self._subscriptions:
                subscription.broke()

    async def _listen(self, wire: Wire) -> None:
        """Until the connection breaks, or gives no sign of life."""
        assert self._broken is not None  # noqa: S101  (for the type checker: the caller made it)
        while True:
            wire.heard = False
            done, _ = await asyncio.wait([self._broken], timeout=self._keepalive)
            if done:
                return
            if not wire.heard:
                answer = wire.ask((b"PING",))[0]
                await asyncio.wait([answer, self._broken], timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done() or answer.cancelled() or answer.exception() is not None:
                    answer.cancel()
                    return

    def _fail(self, error: Exception) -> None:
        """Those who have never been heard are told why; the others are patient."""
        for subscription in list(self._subscriptions):
            if subscription.heard is not None and not subscription.heard.done():
                subscription.heard.set_exception(twin_of(error))

    def lost(self, wire: Wire) -> None:
        """It broke."""
        if wire is self._wire and self._broken is not None and not self._broken.done():
            self._broken.set_result(None)

    def outdated(self, wire: Wire) -> None:
        """A replica passes on messages as well as a primary."""

    def resumed(self, wire: Wire) -> None:
        """Nothing waits."""

    def refused(self, wire: Wire, error: ProviderError) -> None:  # noqa: ARG002  (there is one connection)
        """This user may not listen there (NOPERM)."""
        self._fail(error)

    def pushed(self, wire: Wire, message: list[Any]) -> None:
        """What the server says: a message, or that it has subscribed."""
        if wire is not self._wire:
            return
        kind = message[0]
        if kind == b"message":
            self._pass((False, message[1]), message[1], message[2])
        elif kind == b"pmessage":
            self._pass((True, message[1]), message[2], message[3])
        elif kind in {b"subscribe", b"psubscribe"}:
            self._confirmed.add((kind == b"psubscribe", message[1]))
            self._settle()

    def _pass(self, name: _Name, channel: bytes, raw: bytes) -> None:
        for subscription in self._subscriptions:
            if name in subscription.names:
                subscription.put(channel, raw, name[1] if name[0] else None)


def names_of(channels: Iterable[str | bytes], patterns: Iterable[str | bytes], provider: str) -> list[_Name]:
    """What to subscribe to.

    Raises:
        ConfigurationError: nothing.
    """
    names = [(False, name_of(c)) for c in channels] + [(True, name_of(p)) for p in patterns]
    if not names:
        raise ConfigurationError(f"{provider}: name a channel to listen to, or a pattern of them")
    return names
