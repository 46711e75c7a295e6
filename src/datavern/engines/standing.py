"""Who asks a server how it stands, over Datavern's own pool: what its engines share.

What differs is the question, its answer, and how a connection of one's own is made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConnectionFailed, DatavernError, ProviderError

if TYPE_CHECKING:
    from datavern.contracts.roles import Standing

__all__ = ["PooledRoles", "PooledWatch"]


class PooledRoles(ABC):
    """See `datavern.contracts.roles.Roles`.

    Args:
        provider: an engine's, on the pool.
    """

    read_only: str
    """The code of the error with which the server refuses a write as a secondary."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    @abstractmethod
    def watch(self, lost: Callable[[], None]) -> PooledWatch:
        """Somebody who asks this server."""

    @abstractmethod
    async def ask(self) -> Standing:
        """Ask on a connection of the pool."""

    def reads(self, sql: str) -> bool:
        """Whether the text is known to change nothing."""
        return bool(self._provider._effects.get(sql) == 0)  # noqa: SLF001  (a part of the engine, here and below)

    def refused_write(self, error: ProviderError) -> bool:
        """Whether the server refused it because it takes no writes."""
        return error.code == self.read_only

    def sever(self) -> None:
        """Abort every connection of the pool, those in use, too, and make none."""
        self._provider._pool.sever()  # noqa: SLF001

    def hold(self) -> None:
        """Let the pool make no connections."""
        self._provider._pool.hold()  # noqa: SLF001

    def mend(self) -> None:
        """Let the pool make connections again."""
        pool = self._provider._pool  # noqa: SLF001
        if pool.severed:
            pool.mend()


class PooledWatch(ABC):
    """See `datavern.contracts.roles.Watch`: a connection of its own, made when it is missing."""

    def __init__(self, provider: Any, lost: Callable[[], None]) -> None:
        self._provider = provider
        self._lost = lost
        self._connection: Any = None

    @abstractmethod
    async def _connect(self) -> Any:
        """A connection of one's own."""

    @abstractmethod
    async def _answer(self, connection: Any) -> Standing:
        """One round trip."""

    @abstractmethod
    def _failure(self, error: Exception) -> DatavernError:
        """The driver's error as ours."""

    @abstractmethod
    def _leave(self, connection: Any) -> None:
        """Let go of a connection without waiting."""

    def _gone(self, connection: Any) -> bool:  # noqa: ARG002  (for drivers that tell)
        return False

    @property
    def shut(self) -> bool:
        """Whether the provider is closed."""
        return bool(self._provider._pool.closed)  # noqa: SLF001  (a part of the engine)

    async def ask(self) -> Standing:
        """One round trip; sign-in before it where there is no connection.

        Raises:
            DatavernError: no answer.
        """
        name = self._provider.name
        if self.shut:
            self.close()
            raise ConnectionFailed(f"{name} is not open", provider=name)
        connection = self._connection
        if connection is None or self._gone(connection):
            self._connection = connection = await self._connect()
        try:
            return await self._answer(connection)
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            failure = self._failure(error)
        except BaseException:
            self.close()  # its answer may still come
            raise
        self.close()
        raise failure

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._leave(connection)
