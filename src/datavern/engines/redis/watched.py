"""Calls on people's keys, against which a restriction, an objection or a missing consent may stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from datavern.contracts.services import Admits
from datavern.engines.redis.audited import features_run
from datavern.engines.redis.patterns import KeyPattern

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Services
    from datavern.contracts.services import Gate
    from datavern.engines.redis.provider import RedisProvider

__all__ = ["Watched"]


class Watched:
    """The keys of one provider that the data map names.

    Args:
        gate: its manager's.
        patterns: as the data map names them.
    """

    __slots__ = ("_gate", "_patterns", "due")

    def __init__(self, gate: Gate, patterns: Iterable[str]) -> None:
        self._gate = gate
        self._patterns = [(text, KeyPattern.parse(text).everybody()[1]) for text in sorted(patterns)]
        self.due = gate.due

    @classmethod
    def of(cls, provider: RedisProvider, services: Services) -> Watched | None:
        """For a provider whose keys the data map names; None otherwise."""
        if not isinstance(services, Admits):
            return None
        patterns = [name for name in services.mapped(provider) if "{subject}" in name]
        return cls(services.gate(provider), patterns) if patterns else None

    async def admit(self, names: Iterable[bytes], *, writing: bool) -> None:
        """Let a call on these keys through, or refuse it. Datavern's own features pass.

        Raises:
            ProcessingRestricted, ConsentRequired: see `datavern.contracts.services.Gate`.
        """
        if features_run():
            return
        for name in names:
            for text, expression in self._patterns:
                found = expression.fullmatch(name)
                if found is not None:
                    row: dict[str, Any] = {"subject": found[1].decode("utf-8", "surrogateescape")}
                    await self._gate.admit(text, rows=[row], writing=writing)
