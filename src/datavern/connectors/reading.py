"""The reads of a failover group: statements, streams, search; and the position that they must show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from datavern.connectors.following import Stream, reading
from datavern.connectors.serving import Read, Serving
from datavern.contracts.capabilities import needs
from datavern.contracts.errors import (
    CapabilityMissing,
    ConnectionFailed,
    OutcomeUnknown,
)
from datavern.contracts.values import Parameters, Row, checked_size

__all__ = ["Reading"]

T = TypeVar("T")


class Reading(Serving):
    """The half of a failover group that reads; where to, `Serving` says."""

    async def query(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        read_only: bool = False,
        after: str | None = None,
        max_lag: float | None = None,
    ) -> Sequence[Row]:
        """All rows; from the primary, or READ ONLY from a secondary while there is none.

        Args:
            sql: the statement.
            parameters: its parameters.
            read_only: it only reads: with `replicas_read` it goes to a replica that has seen this task's own writes.
            after: what `position` gave: it sees what was written by then.
            max_lag: seconds that a replica may be behind, for this statement.

        Raises:
            NoHealthyConnection: nobody may serve it, and nobody came who may.
            ConfigurationError: `after` or `max_lag` is none, or stands without ``read_only=True``.
        """
        session, epoch = self._session, self.epoch
        if session is None or read_only or after is not None or max_lag is not None:
            member = self._near() if read_only and after is None and max_lag is None else None
            if member is None:
                return await self._routed(reading("query", sql, parameters), read_only, after, max_lag)
            member.busy += 1
            try:
                return await member.provider.capabilities.session.query(sql, parameters)  # type: ignore[union-attr]  # it is one
            except ConnectionFailed as error:
                self._replica_failed(member, error)
            finally:
                member.busy -= 1
            return await self._routed(reading("query", sql, parameters), read_only, after, max_lag)
        try:
            rows = await session.query(sql, parameters)
        except (ConnectionFailed, OutcomeUnknown) as error:
            failure = error
        else:
            if self.replicas_read:
                self._may_have_written(sql)
            return rows  # type: ignore[no-any-return]  # a session's rows
        return await self.read(reading("query", sql, parameters), failure=failure, epoch=epoch)

    async def query_one(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        read_only: bool = False,
        after: str | None = None,
        max_lag: float | None = None,
    ) -> Row | None:
        """The first row, or None; as `query`."""
        session, epoch = self._session, self.epoch
        if session is None or read_only or after is not None or max_lag is not None:
            member = self._near() if read_only and after is None and max_lag is None else None
            if member is None:
                return await self._routed(reading("query_one", sql, parameters), read_only, after, max_lag)
            member.busy += 1
            try:
                return await member.provider.capabilities.session.query_one(sql, parameters)  # type: ignore[union-attr]  # it is one
            except ConnectionFailed as error:
                self._replica_failed(member, error)
            finally:
                member.busy -= 1
            return await self._routed(reading("query_one", sql, parameters), read_only, after, max_lag)
        try:
            row = await session.query_one(sql, parameters)
        except (ConnectionFailed, OutcomeUnknown) as error:
            failure = error
        else:
            if self.replicas_read:
                self._may_have_written(sql)
            return row  # type: ignore[no-any-return]  # a session's row
        return await self.read(reading("query_one", sql, parameters), failure=failure, epoch=epoch)

    async def query_value(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        read_only: bool = False,
        after: str | None = None,
        max_lag: float | None = None,
    ) -> Any:
        """The first column of the first row, or None; as `query`."""
        row: Any = await self.query_one(sql, parameters, read_only=read_only, after=after, max_lag=max_lag)
        return row[0] if row else None

    def stream(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        batch_size: int = 1000,
        read_only: bool = False,
        after: str | None = None,
        max_lag: float | None = None,
    ) -> Stream:
        """Rows in constant memory; as `query`. A stream that has begun ends with the member that it began on."""
        self._check_routing(read_only=read_only, after=after, max_lag=max_lag)
        return Stream(self, (sql, parameters, checked_size(batch_size)), read_only, after, max_lag)

    async def search(self, *what: Any, **settings: Any) -> Sequence[Row]:
        """Full-text search, as the engine's own; on a secondary while there is no primary."""

        async def call(provider: Any, held: bool) -> Sequence[Row]:
            if not held:
                return await provider.search(*what, **settings)  # type: ignore[no-any-return]  # its rows
            async with needs(provider, "transactions").transaction(read_only=True) as tx:
                return await provider.search(*what, **{**settings, "transaction": tx})  # type: ignore[no-any-return]

        if settings.get("transaction") is not None:
            return await call(self._leader.provider, False)
        return await self.read(call)

    # ---- positions --------------------------------------------------------------------------------------------------

    async def position(self) -> str:
        """A place in the database's history, behind everything that was acknowledged until now.

        As text that the next request, in this process or another, hands to ``after=``.

        Raises:
            CapabilityMissing: the engine has no positions.
            NoHealthyConnection: there is no primary.
        """
        token = await self._position(self._positions.acknowledged)
        if token is None:
            raise CapabilityMissing("positions", self.name, f"the engine {self.engine} tells none")
        return str(token)

    def _may_have_written(self, sql: str) -> None:
        roles = self._leader.provider.capabilities.roles
        if roles is None or not roles.reads(sql):
            self._positions.acknowledged += 1
            self._positions.wrote()

    async def _routed(self, call: Read[T], read_only: bool, after: str | None, max_lag: float | None) -> T:
        token = self._check_routing(read_only=read_only, after=after, max_lag=max_lag)
        return await self.read(call, read_only=read_only, token=token, max_lag=max_lag)
