"""Who serves a read of a failover group: the primary, a replica, or a secondary while there is no primary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from datavern.connectors.retry import backoff
from datavern.connectors.routing import Positions, Token, lag_of, nearest, replicas
from datavern.contracts.capabilities import Provider
from datavern.contracts.errors import (
    ConfigurationError,
    ConnectionFailed,
    NoHealthyConnection,
    OutcomeUnknown,
    ProviderError,
    QueryRejected,
)

if TYPE_CHECKING:
    from datavern.connectors.health import Monitor
    from datavern.connectors.topology import Member, Topology

__all__ = ["Read", "Serving"]

T = TypeVar("T")
Read = Callable[[Any, bool], Awaitable[T]]
"""A read of a provider; True: the server is to be told that it only reads, since the provider is not the primary."""

CATCHING_UP = 0.05
"""Seconds that a read waits for a replica to show what it must, before it goes elsewhere."""


class Serving:
    """The ground of a failover group: its members, how far they are, and where a read goes."""

    name: str
    engine: str
    wait: float
    replicas_read: bool
    max_lag: float | None
    epoch: int
    _session: Any
    _leader: Member
    _active: Provider
    _known: list[Member]
    _topology: Topology
    _positions: Positions
    _monitor: Monitor | None

    async def read(
        self,
        call: Read[T],
        *,
        read_only: bool = False,
        token: Token | None = None,
        max_lag: float | None = None,
        primary_only: bool = False,
        failure: ProviderError | None = None,
        epoch: int = -1,
    ) -> T:
        """Run a read where it may run.

        Args:
            call: what to do.
            read_only: a replica will do.
            token: it must see what was written by then.
            max_lag: seconds that a replica may be behind.
            primary_only: nobody else can answer.
            failure: of the first attempt, where that was made already.
            epoch: of the group, when that was made.
        """
        if read_only and self._monitor is not None and self.replicas_read:
            served, result = await self._on_replica(call, token, max_lag)
            if served:
                return result  # type: ignore[return-value]  # what the call gave
        deadline = monotonic() + self.wait
        attempt = 0
        while True:
            if failure is not None:
                attempt += 1
                await self._failed(failure, epoch, attempt, deadline)
            await self._asked(deadline)
            epoch = self.epoch
            if self._session is not None or self._monitor is None:
                try:
                    return await call(self._leader.provider, False)
                except (ConnectionFailed, OutcomeUnknown) as error:
                    failure = error
                    continue
            if not primary_only:
                served, result = await self._on_secondary(call, token, max_lag)
                if served:
                    return result  # type: ignore[return-value]  # what the call gave
            bounded = primary_only or token is not None or max_lag is not None
            await self._nobody_reads(deadline, failure, bounded=bounded)
            failure = None

    async def _on_replica(self, call: Read[T], token: Token | None, max_lag: float | None) -> tuple[bool, T | None]:
        async for member in self._replicas(token, max_lag):
            if not member.breaker.allows():
                continue
            member.busy += 1
            try:
                result = await call(member.provider, False)
            except ConnectionFailed as error:
                self._replica_failed(member, error)
            else:
                if member.breaker.failures:
                    member.breaker.succeeded()
                return True, result
            finally:
                member.busy -= 1
        return False, None

    async def _on_secondary(self, call: Read[T], token: Token | None, max_lag: float | None) -> tuple[bool, T | None]:
        for member in self._standing_in(token, max_lag):
            try:
                result = await call(member.provider, True)
            except ConnectionFailed:
                member.missing += 1
            else:
                self._active = member.provider
                return True, result
        return False, None

    async def _failed(self, failure: ProviderError, epoch: int, attempt: int, deadline: float) -> None:
        """The primary did not serve a read. Raises where it is not to be tried again."""
        if self._monitor is not None:
            self._monitor.doubt(epoch)
        if self._monitor is None or failure.retry == "never" or monotonic() >= deadline:
            raise failure
        if attempt > 1:
            await asyncio.sleep(backoff(attempt - 1, base=0.02, longest=0.5))

    async def _asked(self, deadline: float) -> None:
        """Wait while the members are being asked, which takes moments."""
        while self._session is None and (monitor := self._monitor) is not None and monitor.verdict.asking:
            if not await monitor.news(deadline):
                return

    def _standing_in(self, token: Token | None, max_lag: float | None) -> list[Member]:
        """Who may be read from while there is no primary; an old primary never."""
        monitor = self._monitor
        fenced = {} if monitor is None else dict(monitor.verdict.fenced)
        able = [
            m for m in (*self._known[1:], self._known[0])
            if m.standing is not None and m.opened and not m.foreign and not m.shut and m not in fenced
        ]  # fmt: skip
        if token is not None:
            able = [m for m in able if m.standing is not None and self._positions.holds(m.standing, token)]
        if max_lag is not None:
            able = [m for m in able if (lag := lag_of(m, self._positions)) is not None and lag <= max_lag]
        return able

    async def _nobody_reads(self, deadline: float, failure: BaseException | None, *, bounded: bool) -> None:
        """Wait for news; raise where none came, or none is to be hoped for.

        Args:
            deadline: when to give up (`time.monotonic`).
            failure: what the primary's failure was, where it was asked.
            bounded: a secondary may be there, and yet not serve this read.
        """
        monitor = self._monitor
        if monitor is not None and not self._hopeless() and await monitor.news(deadline):
            return
        none = "neither the primary nor a secondary can be reached"
        if bounded and monitor is not None and any(m.standing is not None for m in self._known):
            none = f"no secondary may serve this read, and there is no primary: {monitor.verdict.reason}"
        raise NoHealthyConnection(f"{self.name}: {none}", provider=self.name) from failure

    def _hopeless(self) -> bool:
        """Whether the application itself closed the primary: then nobody is waited for."""
        return self._leader.shut

    # ---- replicas ---------------------------------------------------------------------------------------------------

    def _near(self) -> Member | None:
        """The replica to read from, where there is one and nothing has to be asked before."""
        if not self.replicas_read or self._monitor is None:
            return None
        return nearest(self._known, self._positions, self.max_lag)

    async def _replicas(self, token: Token | None, max_lag: float | None) -> AsyncIterator[Member]:
        """Replicas that may serve a read, best first: near enough, and with this task's own writes."""
        found = replicas(self._known, self._positions, self.max_lag if max_lag is None else max_lag)
        if not found:
            return
        wanted = [] if token is None else [token]
        if own := self._positions.own:
            if self._session is None and self._positions.known(own) is None:
                return  # nobody can say where this task's writes are
            mine = await self._position(own)
            if mine is not None:
                wanted.append(mine)
        for member in found:
            if all([await self._shows(member, place) for place in wanted]):
                yield member

    async def _shows(self, member: Member, token: Token) -> bool:
        """Whether a replica shows what was written by then; where that is not known it is asked, for some moments."""
        deadline = monotonic() + CATCHING_UP
        while (standing := member.standing) is not None:
            if self._positions.holds(standing, token):
                return True
            roles = member.provider.capabilities.roles
            if roles is None or monotonic() >= deadline:
                return False
            try:
                async with asyncio.timeout(4 * CATCHING_UP):
                    said = await roles.ask()
            except (ProviderError, TimeoutError):
                return False
            if member.standing is None or not said.replica or said.system != standing.system:
                return False
            member.standing = said
            if not self._positions.holds(said, token):
                await asyncio.sleep(0.005)
        return False

    def _replica_failed(self, member: Member, error: ConnectionFailed) -> None:
        """A replica did not serve a read: it is passed over until it answers the monitor again.

        Raises:
            ProviderError: another would not serve it, either.
        """
        roles = member.provider.capabilities.roles
        if roles is not None and roles.refused_write(error):
            raise QueryRejected(
                f"{self.name}: the statement writes, and was sent with read_only=True",
                provider=self.name,
                code=error.code,
            ) from error.__cause__
        if error.retry != "safe":
            raise error
        member.missing += 1
        member.breaker.failed()
        if self._monitor is not None:
            self._monitor.ask()

    # ---- positions --------------------------------------------------------------------------------------------------

    async def _position(self, write: int) -> Token | None:
        """A position behind that write."""
        known = self._positions.known(write)
        if known is not None:
            return known
        before = self._positions.acknowledged

        async def ask(provider: Any, _: bool) -> Any:
            roles = provider.capabilities.roles
            return None if roles is None else await roles.ask()

        standing = await self.read(ask, primary_only=True)
        return None if standing is None else self._positions.learn(standing, before)

    def _check_routing(self, *, read_only: bool, after: str | None, max_lag: float | None) -> Token | None:
        if after is None and max_lag is None:
            return None
        if not read_only:
            raise ConfigurationError("after= and max_lag= are for reads: say read_only=True with them")
        if max_lag is not None and (isinstance(max_lag, bool) or not isinstance(max_lag, int | float) or max_lag < 0):
            raise ConfigurationError("max_lag: expected seconds, 0 or more")
        if after is None:
            return None
        token = Token.parse(after)
        if self._topology.system is not None and token.system != self._topology.system:
            raise ConfigurationError(f"after: the position is of another database than {self.name}")
        self._positions.check(token)
        return token
