"""A manager's short form: one failover group, spoken to without its name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import Provider
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Parameters, Row

if TYPE_CHECKING:
    from datavern.connectors.failover import FailoverGroup

__all__ = ["ShortForm"]


class ShortForm:
    """What ``DatabaseManager(primary=…, secondary=…)`` answers itself; every other manager says how to name a database.

    Every call raises `ConfigurationError` where there is no such group.
    """

    _short: FailoverGroup | None = None

    @property
    def _group(self) -> FailoverGroup:
        if self._short is None:
            raise ConfigurationError(
                "which database? db['main'].query(…); without a name only in DatabaseManager(primary=…, secondary=…)"
            )
        return self._short

    @property
    def primary(self) -> Provider:
        """The short form's primary."""
        return self._group.primary

    @property
    def secondary(self) -> Provider:
        """The short form's secondary."""
        return self._group.secondaries[0]

    @property
    def active_provider(self) -> Provider:
        """The member that the short form's last statement went to."""
        return self._group.active_provider

    async def query(self, sql: str, parameters: Parameters = (), **routing: Any) -> Sequence[Row]:
        """`FailoverGroup.query`."""
        return await self._group.query(sql, parameters, **routing)

    async def query_one(self, sql: str, parameters: Parameters = (), **routing: Any) -> Row | None:
        """`FailoverGroup.query_one`."""
        return await self._group.query_one(sql, parameters, **routing)

    async def query_value(self, sql: str, parameters: Parameters = (), **routing: Any) -> Any:
        """`FailoverGroup.query_value`."""
        return await self._group.query_value(sql, parameters, **routing)

    async def execute(self, sql: str, parameters: Parameters = (), **with_it: Any) -> int:
        """`FailoverGroup.execute`."""
        return await self._group.execute(sql, parameters, **with_it)

    async def execute_many(self, sql: str, parameters: Sequence[Parameters]) -> int:
        """`FailoverGroup.execute_many`."""
        return await self._group.execute_many(sql, parameters)

    def stream(self, sql: str, parameters: Parameters = (), *, batch_size: int = 1000, **routing: Any) -> Any:
        """`FailoverGroup.stream`."""
        return self._group.stream(sql, parameters, batch_size=batch_size, **routing)

    async def position(self) -> str:
        """`FailoverGroup.position`."""
        return await self._group.position()

    def transaction(self, **settings: Any) -> Any:
        """`FailoverGroup.transaction`."""
        return self._group.transaction(**settings)

    async def run_in_transaction(self, work: Callable[[Any], Awaitable[Any]], **settings: Any) -> Any:
        """`FailoverGroup.run_in_transaction`."""
        return await self._group.run_in_transaction(work, **settings)
