"""The erasures that have ended, beside the keys: what a database that is restored from before one must hear of.

Backups of data hold no key store, so this is the one place that no restore sets back. A request is named by its random
id and the person by the keyed tag, as on a tombstone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from datavern.contracts.capabilities import Provider, Session, Transaction, needs
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import timestamp

if TYPE_CHECKING:
    from datavern.crypto.erased_statements import ErasedStatements

__all__ = ["Ended", "EndedErasures", "ErasuresLost", "Heard", "scope_of"]


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


class ErasuresLost(ConfigurationError):
    """The key store does not know any more which erasures there were."""


class Heard(NamedTuple):
    """What a database was seen to hold.

    Attributes:
        token: what stands among its steps since.
        reach: the store's count of changes up to which it held a step of every erasure.
    """

    token: str
    reach: int


def scope_of(database: str, labels: Iterable[str]) -> bytes:
    """What `Heard` is about: a database, and which of its datasets. 32 bytes."""
    return sha256(json.dumps([database, *sorted(labels)]).encode()).digest()


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
            from datavern.crypto.erased_statements import ErasedStatements  # noqa: PLC0415  (loads SQLAlchemy)

            self._made = ErasedStatements()
        return self._made

    async def add(self, ended: Sequence[tuple[str, bytes, Collection[str]]], tx: Transaction) -> None:
        """Write them down, in the transaction that ends them: request, tag, labels. Idempotent.

        The transaction has counted a change of the store, as destroying keys does: so they stand in the order in which
        they commit.
        """
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
            order = [{"request": row["request"]} for row in rows]
            await tx.execute_many(*self._sql.insert_order.bind_many(dialect, order))

    async def every(self) -> list[Ended]:
        """All of them."""
        return await self.since(None)

    async def since(self, heard: Heard | None, session: Session | None = None) -> list[Ended]:
        """Those that have ended since; all of them without it."""
        dialect = needs(self._provider, "ledger").dialect
        query = self._sql.every.bind(dialect) if heard is None else self._sql.since.bind(dialect, reached=heard.reach)
        return [
            Ended(row[0], bytes(row[3]), frozenset(json.loads(row[1])), row[2])
            for row in await (session or needs(self._provider, "session")).query(*query)
        ]

    async def reach(self, heard: Heard | None) -> tuple[list[Ended], int]:
        """Those that have ended since, and the count of changes up to which these are all: of one server, at once."""
        async with needs(self._provider, "transactions").transaction(isolation="read committed") as tx:
            # The count first: what commits between the two is read, and looked for again.
            reach: int = await tx.query_value(*self._sql.changes.bind(needs(self._provider, "ledger").dialect))
            return await self.since(heard, tx), reach

    async def any(self) -> bool:
        """Whether there may be one: a key was closed once, or the keys were rotated."""
        query = self._sql.changes.bind(needs(self._provider, "ledger").dialect)
        return bool(await needs(self._provider, "session").query_value(*query))

    async def check(self) -> None:
        """Refuse a list that is not the one that was written: emptied, or an older copy beside newer keys.

        Raises:
            ErasuresLost: says what to do.
        """
        dialect, session = needs(self._provider, "ledger").dialect, needs(self._provider, "session")
        for lost in (self._sql.lost_key, self._sql.lost_end):
            if await session.query_value(*lost.bind(dialect)) is not None:
                raise self._lost("erasures")

    async def check_every(self) -> None:
        """The same, gone through to the end: of one that is missing somewhere in the middle, the other tables tell.

        Raises:
            ErasuresLost: says what to do.
        """
        for lost in await self.gaps(1):
            raise self._lost(lost)

    async def gaps(self, most: int) -> dict[str, list[str]]:
        """What is missing, ``erasures`` or ``tombstones`` → of which requests and destroyed keys, as far as is told.

        Args:
            most: so many of each kind.
        """
        dialect, session = needs(self._provider, "ledger").dialect, needs(self._provider, "session")
        found: dict[str, list[str]] = {}
        for lost, searches in self._sql.gaps.items():
            for search in searches:
                for (of,) in await session.query(*search.bind(dialect, most=most)):
                    name = f"request {of}" if isinstance(of, str) else f"destroyed key {bytes(of).hex()}"
                    found.setdefault(lost, []).append(name)
        return found

    def _lost(self, what: str) -> ErasuresLost:
        tables = "datavern_tombstones" if what == "tombstones" else "datavern_erasures or datavern_erasure_order"
        return ErasuresLost(
            f"the key store in {self._provider.name} has lost {what}: {tables} was emptied, lacks some, or is an older "
            "copy, and a database that was restored would not hear of them. Restore all tables of the key store "
            "together, from their latest backup"
        )

    async def heard(self, scope: bytes) -> Heard | None:
        """Up to what a database was seen to hold its steps; None: nobody knows."""
        query = self._sql.heard.bind(needs(self._provider, "ledger").dialect, of_scope=scope)
        row = await needs(self._provider, "session").query_one(*query)
        return None if row is None else Heard(row[0], row[1])

    async def hear(self, scope: bytes, heard: Heard) -> None:
        """Remember it.

        Raises:
            ConstraintViolated: another process has, at the same moment.
        """
        dialect, session = needs(self._provider, "ledger").dialect, needs(self._provider, "session")
        values = {"of_scope": scope, "of_token": heard.token, "reached": heard.reach}
        if not await session.execute(*self._sql.hear_again.bind(dialect, **values)):
            await session.execute(*self._sql.hear.bind(dialect, **values))

    async def keys(self, tags: Collection[bytes]) -> dict[bytes, list[bytes]]:
        """Tag → the ids of every key of that person that was destroyed."""
        found: dict[bytes, list[bytes]] = {tag: [] for tag in tags}
        for query in self._sql.keys_of.bind(needs(self._provider, "ledger").dialect, sorted(found)):
            for tag, key_id in await needs(self._provider, "session").query(*query):
                found[bytes(tag)].append(key_id)
        return found
