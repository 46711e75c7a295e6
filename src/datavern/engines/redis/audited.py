"""Writes to people's keys that must leave an audit entry: what ``compliance=["nsm"]`` asks for.

The entry is written into the ledger's log before the change (NSM's basic principles 3.2.4 and 3.2.5): Redis has no
transaction that it could commit with. redis-py's own client, which `RedisProvider.client` hands out, would go around
it, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from datavern.engines.redis.patterns import KeyPattern

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Services
    from datavern.engines.redis.provider import RedisProvider

__all__ = ["Audited", "features", "features_run"]

_features: ContextVar[bool] = ContextVar("datavern_redis_features", default=False)


@contextmanager
def features() -> Iterator[None]:
    """A block of Datavern's own features, which write their entries themselves."""
    token = _features.set(True)
    try:
        yield
    finally:
        _features.reset(token)


def features_run() -> bool:
    """Whether this is such a block."""
    return _features.get()


class Audited:
    """The keys of one provider whose writes leave an entry.

    Args:
        provider: the provider.
        services: its manager's.
        patterns: as the data map names them.
    """

    def __init__(self, provider: RedisProvider, services: Services, patterns: Iterable[str]) -> None:
        self._provider = provider
        self._services = services
        self._patterns = [(text, KeyPattern.parse(text).everybody()[1]) for text in sorted(patterns)]

    @classmethod
    def of(cls, provider: RedisProvider, services: Services) -> Audited | None:
        """For a provider whose compliance asks for it, and whose keys the data map names; None otherwise."""
        if "nsm" not in provider.compliance:
            return None
        patterns = [name for name in services.mapped(provider) if "{subject}" in name]
        return cls(provider, services, patterns) if patterns else None

    async def note(self, names: Iterable[bytes]) -> None:
        """Write the entries of changes that are about to be made to these keys."""
        if _features.get():
            return
        for name in names:
            for text, expression in self._patterns:
                found = expression.fullmatch(name)
                if found is not None:
                    subject = found[1].decode("utf-8", "surrogateescape")
                    await self._services.note(self._provider, text, "written", subject=subject)
