"""The erasures that have ended, beside the keys: what a database that is restored from before one must hear of.

Backups of data hold no key store, so this is the one place that no restore sets back. A request is named by its random
id and the person by the keyed tag, as on a tombstone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datavern.contracts.capabilities import Provider, Transaction, needs
from datavern.contracts.values import timestamp

if TYPE_CHECKING:
    from datavern.crypto.tables import ErasedStatements

__all__ = ["Ended", "EndedErasures"]


@dataclass(frozen=True, slots=True)
class Ended:
    """An erasure that has ended.

    Attributes:
        request: its id.
        tag: whose it was: a keyed tag.
        datasets: the labels of those that have a step of it.
        erased_at: when it ended, RFC 3339.
    """

    request: str
    tag: bytes
    datasets: frozenset[str]
    erased_at: str


class EndedErasures:
    """All of them.

    Args:
        provider: the ledger database, with a key store that is open.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._made: ErasedStatements | None = None

    @property
    def _sql(self) -> ErasedStatements:
        if self._made is None:
            from datavern.crypto.tables import ErasedStatements  # noqa: PLC0415  (loads SQLAlchemy)

            self._made = ErasedStatements()
        return self._made

    async def add(self, ended: Sequence[tuple[str, bytes, Collection[str]]], tx: Transaction) -> None:
        """Write them down, in the transaction that ends them: request, tag, labels. Idempotent."""
        dialect = needs(self._provider, "ledger").dialect
        known: set[str] = set()
        for query in self._sql.known.bind(dialect, [request for request, _, _ in ended]):
            known.update(row[0] for row in await tx.query(*query))
        moment = timestamp()
        rows = [
            {
                "request": request,
                "subject_tag": tag,
                "datasets": json.dumps(sorted(labels), ensure_ascii=False),
                "erased_at": moment,
            }
            for request, tag, labels in ended
            if request not in known
        ]
        if rows:
            await tx.execute_many(*self._sql.insert.bind_many(dialect, rows))

    async def every(self) -> list[Ended]:
        """All of them."""
        query = self._sql.every.bind(needs(self._provider, "ledger").dialect)
        return [
            Ended(row[0], bytes(row[3]), frozenset(json.loads(row[1])), row[2])
            for row in await needs(self._provider, "session").query(*query)
        ]

    async def keys(self, tags: Collection[bytes]) -> dict[bytes, list[bytes]]:
        """Tag → the ids of every key of that person that was destroyed."""
        found: dict[bytes, list[bytes]] = {tag: [] for tag in tags}
        for query in self._sql.keys_of.bind(needs(self._provider, "ledger").dialect, sorted(found)):
            for tag, key_id in await needs(self._provider, "session").query(*query):
                found[bytes(tag)].append(key_id)
        return found
