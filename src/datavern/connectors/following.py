"""What an engine offers beside statements, on whichever member is the primary when it is asked for."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConnectionFailed, OutcomeUnknown, ProviderError
from datavern.contracts.values import Parameters, Row

if TYPE_CHECKING:
    from datavern.connectors.failover import FailoverGroup
    from datavern.connectors.serving import Serving
    from datavern.contracts.capabilities import PointRead, Provider

__all__ = ["Following", "FollowingRead", "Messages", "Stream", "engine_call", "reading"]


class Following:
    """A capability of the primary of the moment. Its plain values are those of the primary when they are read."""

    __slots__ = ("_group", "_what")

    def __init__(self, group: FailoverGroup, what: str) -> None:
        self._group = group
        self._what = what

    def __getattr__(self, name: str) -> Any:
        what = self._what
        return engine_call(self._group, lambda provider: getattr(provider.capabilities, what), name)


def engine_call(group: FailoverGroup, of: Callable[[Provider], Any], name: str) -> Any:
    """The attribute `name` of what `of` gives for the primary: a coroutine function waits for one, and goes to it.

    One with an open transaction goes where that is. What is called with an iterator is not called again: it may have
    been read.
    """
    found = getattr(of(group.leading), name)
    if not inspect.iscoroutinefunction(found):
        return found

    @functools.wraps(found)
    async def call(*given: Any, **named: Any) -> Any:
        if named.get("transaction") is not None:
            return await getattr(of(group.leading), name)(*given, **named)
        again = not any(
            hasattr(value, "__next__") or hasattr(value, "__anext__") for value in (*given, *named.values())
        )
        return await group.on_primary(lambda provider: getattr(of(provider), name)(*given, **named), again=again)

    return call


class FollowingRead:
    """Reads one row by its key: see `datavern.contracts.capabilities.PointRead`. From the primary of the moment.

    While there is none it reads on a secondary: its statement is Datavern's own, and only reads.
    """

    def __init__(self, group: FailoverGroup, make: Callable[[Provider], PointRead]) -> None:
        self._group = group
        self._make = make
        self._reads: dict[Provider, PointRead] = {group.leading: make(group.leading)}

    @property
    def keys(self) -> int:
        """Keys that were asked for so far."""
        return sum(read.keys for read in self._reads.values())

    @property
    def statements(self) -> int:
        """Statements that were sent for them."""
        return sum(read.statements for read in self._reads.values())

    async def __call__(self, key: Any, /) -> Row | None:
        """The row with that key, or None when there is none, or the key is None."""
        group = self._group
        epoch, failure = group.epoch, None
        if group.serving:
            try:
                return await self._of(group.leading)(key)
            except (ConnectionFailed, OutcomeUnknown) as error:
                failure = error
        return await group.read(lambda provider, _: self._of(provider)(key), failure=failure, epoch=epoch)

    def _of(self, provider: Provider) -> PointRead:
        read = self._reads.get(provider)
        if read is None:
            read = self._reads[provider] = self._make(provider)
        return read


class Messages:
    """Messages of channels, from the primary of the moment: made by ``group.listen(…)``.

    After a failover it goes on with the new primary, and gives an item whose `missed` says that messages may have been
    missed. See the engine's own `listen`.
    """

    def __init__(self, group: FailoverGroup, make: Callable[[Provider], Any]) -> None:
        self._group = group
        self._make = make
        self._on: Provider = group.leading
        self._inner = make(self._on)  # which says what is wrong with the names

    async def __aenter__(self) -> Self:
        async def enter(provider: Provider) -> None:
            if provider is not self._on:
                self._on, self._inner = provider, self._make(provider)
            try:
                await self._inner.__aenter__()
            except ProviderError:
                self._inner = self._make(provider)  # it may be entered once
                raise

        await self._group.on_primary(enter)
        self._group.followers.append(self)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self in self._group.followers:
            self._group.followers.remove(self)
        await self._inner.__aexit__(*exc)

    def follow(self, provider: Provider) -> None:
        """Go on with another primary."""
        self._on = provider
        self._inner.follow(provider)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self._inner.__anext__()

    @property
    def connected(self) -> bool:
        """Whether messages come in at this moment, as far as is known."""
        return bool(self._inner.connected)


def reading(how: str, sql: str, parameters: Any) -> Callable[[Any, bool], Awaitable[Any]]:
    """A statement of a session as `FailoverGroup.read` wants it: READ ONLY where the member is to be held to that."""

    async def call(provider: Any, held: bool) -> Any:
        if not held:
            return await getattr(provider.capabilities.session, how)(sql, parameters)
        async with provider.capabilities.transactions.transaction(read_only=True) as tx:
            return await getattr(tx, how)(sql, parameters)

    return call


class Stream:
    """A stream on whichever member serves when it begins."""

    __slots__ = ("_arguments", "_group", "_inner", "_routing")

    def __init__(
        self, group: Serving, arguments: tuple[str, Parameters, int], read_only: bool, after: str | None,
        max_lag: float | None,
    ) -> None:  # fmt: skip
        self._group = group
        self._arguments = arguments
        self._routing = (read_only, after, max_lag)
        self._inner: AbstractAsyncContextManager[Any]

    async def __aenter__(self) -> AsyncIterator[Row]:
        group = self._group
        read_only, after, max_lag = self._routing
        token = group._check_routing(read_only=read_only, after=after, max_lag=max_lag)  # noqa: SLF001  (a part of it)
        return await group.read(self._enter, read_only=read_only, token=token, max_lag=max_lag)

    async def _enter(self, provider: Any, held: bool) -> Any:
        sql, parameters, size = self._arguments
        if not held:
            self._inner = provider.capabilities.session.stream(sql, parameters, batch_size=size)
            return await self._inner.__aenter__()
        async with AsyncExitStack() as stack:
            tx = await stack.enter_async_context(needs(provider, "transactions").transaction(read_only=True))
            rows = await stack.enter_async_context(tx.stream(sql, parameters, batch_size=size))
            self._inner = stack.pop_all()
        return rows

    async def __aexit__(self, *exc: object) -> None:
        await self._inner.__aexit__(*exc)  # type: ignore[arg-type]  # what the block was left with
