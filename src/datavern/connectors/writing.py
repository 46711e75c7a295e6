"""A failover group's writes: on the primary of the moment, and again on the next one where nothing of them was done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from datavern.connectors.reading import Reading
from datavern.connectors.retry import Budget, backoff, run_in_transaction
from datavern.contracts.capabilities import Isolation, Provider, needs
from datavern.contracts.errors import (
    ConfigurationError,
    ConnectionFailed,
    NoHealthyConnection,
    OutcomeUnknown,
    ProviderError,
)
from datavern.contracts.fused import checked_key
from datavern.contracts.values import Parameters

if TYPE_CHECKING:
    from datavern.contracts.fused import Entry

__all__ = ["Writing"]

T = TypeVar("T")


class Writing(Reading):
    """The half of a failover group that writes."""

    _budget: Budget

    async def execute(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        audit: Entry | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """Run a statement on the primary; how many rows it changed. See `datavern.contracts.capabilities.Session`.

        With an `idempotency_key` it is run again where its outcome is not known: it is done once, whatever happened.
        """
        session, epoch = self._session, self.epoch

        def again(provider: Any) -> Any:
            return provider.capabilities.session.execute(sql, parameters, audit=audit, idempotency_key=idempotency_key)

        keyed = idempotency_key is not None
        if session is None or keyed or audit is not None:
            return await self.on_primary(again, idempotent=keyed)
        positions = self._positions
        positions.begun += 1
        try:
            done = await session.execute(sql, parameters)
        except (ConnectionFailed, OutcomeUnknown) as error:
            failure = error
        else:
            positions.acknowledged += 1
            if self.replicas_read:
                positions.wrote()
            return done  # type: ignore[no-any-return]  # a session's count
        positions.begun -= 1
        return await self.on_primary(again, failure=failure, epoch=epoch)

    async def execute_many(self, sql: str, parameters: Sequence[Parameters]) -> int:
        """Run a statement on the primary once for each set of parameters, all or none; how many sets were run."""
        return await self.on_primary(lambda provider: needs(provider, "session").execute_many(sql, parameters))

    def transaction(
        self,
        *,
        isolation: Isolation | None = None,
        read_only: bool = False,
        after: str | None = None,
        max_lag: float | None = None,
        **more: Any,
    ) -> _Transaction:
        """Begin a transaction on the primary; a read-only one on a replica, or on a secondary while there is none.

        Args:
            isolation: the engine's default when None.
            read_only: let the server refuse every change. With `replicas_read` it goes to a replica.
            after: what `position` gave: the transaction sees what was written by then.
            max_lag: seconds that a replica may be behind, for this transaction.
            more: what the engine takes beside.
        """
        self._check_routing(read_only=read_only, after=after, max_lag=max_lag)
        return _Transaction(self, {"isolation": isolation, "read_only": read_only, **more}, after, max_lag)

    async def run_in_transaction(
        self,
        work: Callable[[Any], Awaitable[T]],
        *,
        attempts: int = 5,
        idempotency_key: str | None = None,
        **settings: Any,
    ) -> Any:
        """Run ``work(tx)`` on the primary, again from the start while an error says that it may be, failover included.

        Args:
            work: may be called several times; what it does outside of the transaction is done as often.
            attempts: transactions to begin, at the most; one that waits for a primary is one.
            idempotency_key: names what is done: it is done once, whatever became of a commit without an answer.
            settings: as `transaction`.

        Returns:
            What `work` gave; None where an earlier call with the key has done it.
        """
        if idempotency_key is not None:
            checked_key(idempotency_key)
            if settings.get("read_only"):
                raise ConfigurationError("idempotency_key: what only reads needs none, and cannot hold one")
        return await run_in_transaction(
            lambda: self.transaction(**settings),
            work,
            attempts=attempts,
            idempotency_key=idempotency_key,
            budget=self._budget,
            patience=self.wait,
        )

    async def on_primary(
        self,
        call: Callable[[Provider], Awaitable[T]],
        *,
        idempotent: bool = False,
        again: bool = True,
        counts: bool = True,
        failure: ProviderError | None = None,
        epoch: int = -1,
    ) -> T:
        """Run ``call(provider)`` on the primary, again on the next one where provably nothing was done.

        Args:
            call: what to do.
            idempotent: it may be run again where its outcome is not known, too.
            again: False: it cannot be run twice (it has consumed what it was given); its failure is raised.
            counts: when it returns, something may have been written.
            failure: of the first attempt, where that was made already.
            epoch: of the group, when that was made.

        Raises:
            NoHealthyConnection: no primary came within the deadline.
            ProviderError: what the call raised last.
        """
        deadline = monotonic() + self.wait
        positions = self._positions
        attempt = 0
        while True:
            if failure is not None:
                self.noticed(failure, epoch)
                if self._monitor is None or not again or not _again(failure, idempotent=idempotent):
                    raise failure
                attempt += 1
                if attempt > 1:  # the first one goes to another primary, or to one that has been asked how it is
                    if not self._budget.spend():
                        raise failure
                    await asyncio.sleep(backoff(attempt - 1, base=0.02, longest=0.5))
                if monotonic() >= deadline:
                    raise failure
            provider = await self._primary(deadline, failure)
            epoch = self.epoch
            positions.begun += counts
            try:
                done = await call(provider)
            except ProviderError as error:
                failure = error
            else:
                if counts:
                    self.acknowledged()
                return done
            positions.begun -= counts

    def acknowledged(self) -> None:
        """A write of this task was confirmed."""
        self._positions.acknowledged += 1
        if self.replicas_read:
            self._positions.wrote()

    def noticed(self, failure: BaseException | None, epoch: int) -> None:
        """A call ended so; where that tells of the server, everybody is asked.

        Args:
            failure: what it raised.
            epoch: of the group when it was begun: what belongs to an earlier incident is no news.
        """
        if isinstance(failure, ConnectionFailed | OutcomeUnknown) and self._monitor is not None:
            self._monitor.doubt(epoch)

    async def _primary(self, deadline: float, failure: BaseException | None = None) -> Provider:
        """The primary, as soon as there is one.

        Raises:
            NoHealthyConnection: there was none by the deadline, or none is to be hoped for.
        """
        while self._session is None and (monitor := self._monitor) is not None:
            hopeless = self._hopeless() and not monitor.verdict.asking
            if hopeless or not await monitor.news(deadline):
                raise NoHealthyConnection(f"{self.name}: {monitor.verdict.reason}", provider=self.name) from failure
        return self._leader.provider


def _again(failure: ProviderError, *, idempotent: bool) -> bool:
    """Whether a failed call may be made again on the next primary: nothing of it was done, or the server undid it."""
    if isinstance(failure, OutcomeUnknown):
        return idempotent
    return isinstance(failure, ConnectionFailed) and failure.retry != "never"


class _Transaction:
    """A transaction on whichever member may take it."""

    __slots__ = ("_after", "_epoch", "_group", "_inner", "_max_lag", "_settings")

    def __init__(self, group: Writing, settings: dict[str, Any], after: str | None, max_lag: float | None) -> None:
        self._group = group
        self._settings = settings
        self._after = after
        self._max_lag = max_lag
        self._epoch = -1
        self._inner: AbstractAsyncContextManager[Any]

    async def __aenter__(self) -> Any:
        group = self._group
        if not self._settings["read_only"]:
            return await group.on_primary(self._enter, counts=False)
        token = group._check_routing(read_only=True, after=self._after, max_lag=self._max_lag)  # noqa: SLF001  (a part)
        return await group.read(self._enter, read_only=True, token=token, max_lag=self._max_lag)

    async def _enter(self, provider: Provider, _: bool = False) -> Any:
        """Begin: nothing was read or written yet, so another member may do as well where this one fails."""
        self._epoch = self._group.epoch
        self._inner = needs(provider, "transactions").transaction(**self._settings)
        return await self._inner.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> Any:
        group = self._group
        try:
            left = await self._inner.__aexit__(kind, error, trace)  # type: ignore[arg-type]  # what the block was left with
        except ProviderError as failure:
            group.noticed(failure, self._epoch)
            raise
        if kind is None and not self._settings["read_only"]:
            group._positions.begun += 1  # noqa: SLF001  (a part of the group)
            group.acknowledged()
        group.noticed(error, self._epoch)
        return left
