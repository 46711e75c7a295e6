"""Who has keys that fit a pattern, and how many."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.people import Held, Window

if TYPE_CHECKING:
    from types import TracebackType

    from datavern.engines.redis.subjects import RedisSubjects

__all__ = ["RedisPeople"]


class RedisPeople:
    """`datavern.contracts.people.People` on Redis: a key is one person's, as the pattern tells.

    Args:
        subjects: the keys.
    """

    __slots__ = ("_subjects",)

    def __init__(self, subjects: RedisSubjects) -> None:
        self._subjects = subjects

    def people(
        self,
        store: str,
        subject: str,  # noqa: ARG002  (the protocol's: the pattern says whose a key is)
        where: Mapping[str, Any],
        *,
        window: Window | None = None,
    ) -> _People:
        """See `People.people`. No value is read. A person with several keys comes several times."""
        if window is not None:
            raise ConfigurationError(f"window: keys have no column {window.column}, and say no time")
        rows = self._subjects._rows(store, where, values="there")  # noqa: SLF001  (a part of the engine)
        return _People(rows)


class _People:
    """The block of `RedisPeople.people`."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    async def __aenter__(self) -> AsyncIterator[Held]:
        return self._held()

    async def _held(self) -> AsyncIterator[Held]:
        async for row in self._rows:
            yield Held((row["subject"],), 1)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._rows.aclose()
