"""People's keys, as the data map reaches them: see `datavern.contracts.records.Records`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.records import Holding, Lack, Whose
from datavern.engines.redis.patterns import KeyPattern
from datavern.engines.redis.retention import audit
from datavern.engines.redis.values import name_of

if TYPE_CHECKING:
    from datavern.engines.redis.provider import RedisProvider

__all__ = ["RedisRecords"]


class RedisRecords:
    """`Records` on Redis: a value is one whole, so it is deleted, or ends with its key.

    Args:
        provider: the provider.
    """

    own_key = "key"

    __slots__ = ("_provider",)

    def __init__(self, provider: RedisProvider) -> None:
        self._provider = provider

    def check(self, holding: Holding) -> None:
        """Refuse what could not be found, or not be ended as the policy says."""
        if not holding.keyed:
            raise ConfigurationError('subject: Redis has no tables: name the pattern, key="user:session:{subject}"')
        KeyPattern.parse(holding.store)
        if holding.fields:
            raise ConfigurationError(
                "fields: a key's value is one whole: leave fields out, and seal it with encryption = true in "
                "the database's settings"
            )
        if holding.erasure not in {"delete", "shred"}:
            raise ConfigurationError(f"erasure: a key's value is one whole: delete or shred, and not {holding.erasure}")
        if holding.erasure == "shred" and not self._provider.sealing:
            raise ConfigurationError(
                "erasure: shred destroys keys, and nothing is sealed here: set encryption = true in the database's "
                "settings, or erasure = delete"
            )

    def writes(self, holding: Holding) -> str | None:
        """Keys are set by their names."""
        return f'set("{holding.store}", …, subject=)' if self._provider.sealing else f'set("{holding.store}", …)'

    async def missing(self, holding: Holding) -> Lack | None:
        """Whether any key fits the pattern."""
        pattern = KeyPattern.parse(holding.store)
        glob, expression = pattern.everybody()
        async for key in self._provider.scan(glob):
            if expression.fullmatch(name_of(key)):
                return None
        return Lack(f"no key fits {holding.store} now", wrong=False)

    async def cap(
        self, holding: Holding, seconds: float, *, fix: bool, spares: Callable[[str], bool]
    ) -> tuple[int, int]:
        """Look for keys of the pattern that live longer, and give them that life."""
        glob, expression = KeyPattern.parse(holding.store).everybody()

        def wanted(key: bytes) -> bool:
            match = expression.fullmatch(key)
            return match is not None and not spares(match[1].decode(errors="surrogateescape"))

        router, most = self._provider._router, max(1, int(seconds * 1000))  # noqa: SLF001  (a part of it)
        report = await audit(router, most, fix=fix, limit=0, glob=glob, wanted=wanted)
        return report.without + report.longer, report.fixed

    async def whose(self, record: Mapping[str, Any], path: str, subject: str) -> Whose:
        """The pattern has told already."""
        return Whose(record[path] == subject)

    async def take_out(
        self,
        holding: Holding,  # noqa: ARG002  (the protocol's)
        record: Mapping[str, Any],  # noqa: ARG002  (the protocol's)
        subject: str,  # noqa: ARG002  (the protocol's)
    ) -> bool:
        """A key is one person's."""
        return False

    async def opened(
        self,
        store: str,  # noqa: ARG002  (the protocol's)
        records: Sequence[Mapping[str, Any]],
    ) -> list[dict[str, Any]]:
        """They came opened."""
        return [dict(record) for record in records]
