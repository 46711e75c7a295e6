"""The life of keys, in the database that holds the data: a write checks in its own transaction that its key lives.

Another process may hold a key in its memory for a while after an erasure has begun. So the database where the rows are
has a row for each key too: a writer holds it until it commits, and the erasure ends it, which waits for the writers.
What comes after finds the key dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from datavern.contracts.capabilities import Provider, Session, Transaction, needs
from datavern.contracts.errors import ConstraintViolated, KeyErased, SerializationConflict
from datavern.contracts.values import timestamp

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from datavern.contracts.fused import Guard
    from datavern.crypto.tables import LifeStatements

__all__ = ["KeyLife", "LookupKeyEnded"]

_ATTEMPTS = 5
_REGISTERED = 10_000  # keys that are remembered to have a row


class LookupKeyEnded(SerializationConflict):
    """A rotation has ended the lookup key that an index was made with: hear of the new one, and make it again.

    The transaction is as it was: nothing has failed in it.
    """


class KeyLife:
    """The keys that one database's rows are sealed under.

    Args:
        provider: the database.
    """

    __slots__ = ("_dialect", "_provider", "_registered", "_sql")

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._registered: dict[bytes, None] = {}
        self._sql: LifeStatements
        self._dialect: Dialect

    async def open(self) -> None:
        """Make the table where it is missing. Idempotent."""
        from datavern.crypto import tables  # noqa: PLC0415  (loads SQLAlchemy)

        ledger = needs(self._provider, "ledger")
        await ledger.create_tables(tables.key_life)
        self._dialect = ledger.dialect
        self._sql = tables.LifeStatements()

    async def hold(self, tx: Session, key_ids: Sequence[bytes], lookups: Sequence[bytes] = ()) -> None:
        """Keep the keys from being ended until the transaction ends; one statement, once the keys are known here.

        Args:
            tx: the open transaction that writes rows under these keys.
            key_ids: their ids.
            lookups: the same of lookup keys (`datavern.crypto.lookup_keys.life_ids`).

        Raises:
            KeyErased: one of them was ended. Nothing may be written under it.
            LookupKeyEnded: one of the lookup keys was ended by a rotation.
            SerializationConflict: somebody else registers the same keys at this moment; run the transaction again.
        """
        ended = frozenset(lookups)
        missing = await self._held(tx, [*key_ids, *lookups], ended)
        attempts = _ATTEMPTS
        while missing:
            if not attempts:
                raise SerializationConflict("keys are being registered by somebody else", provider=self._provider.name)
            attempts -= 1
            if await self._insert(tx, missing, dead=0):
                return
            missing = await self._held(tx, missing, ended)

    def guard(self, key_id: bytes, *others: bytes) -> Guard | None:
        """`hold` as a condition of one statement: it gives a row where the keys live, and holds them until the commit.

        Where an end of the key is under way it waits for that, and then finds nothing (on PostgreSQL: documentation,
        13.2.1; with one writer at a time there is nothing to wait for).

        Returns:
            None: one of the keys was not seen in this database yet; `hold` registers it.
        """
        registered = self._registered
        if key_id not in registered:
            return None
        if not others:
            return self._sql.living.bind(self._dialect, id=key_id)
        values = {"id_0": key_id}
        for number, other in enumerate(others, 1):
            if other not in registered:
                return None
            values[f"id_{number}"] = other
        return self._sql.living_of(len(values)).bind(self._dialect, **values)

    async def end(self, tx: Session, key_ids: Sequence[bytes]) -> None:
        """Mark the keys dead, for ever, when the transaction commits. Waits for the writers that hold them. Idempotent.

        Args:
            tx: the open transaction of the erasure in this database. What it does after this call sees every row that
                was ever written here under the keys.
            key_ids: their ids.

        Raises:
            SerializationConflict: somebody registers the same keys again and again; run the transaction again.
        """
        ending = sorted(set(key_ids))
        for _ in range(_ATTEMPTS):
            known: set[bytes] = set()
            for statement in self._sql.holding.bind(self._dialect, ending):
                known.update(bytes(row[0]) for row in await tx.query(*statement))
            moment = timestamp()
            for statement in self._sql.end.bind(self._dialect, sorted(known), moment=moment):
                await tx.execute(*statement)
            ending = [key_id for key_id in ending if key_id not in known]
            if not ending or await self._insert(tx, ending, dead=1):
                return
        raise SerializationConflict("a key is being registered by somebody else", provider=self._provider.name)

    async def _held(
        self, tx: Session, key_ids: Sequence[bytes], lookups: frozenset[bytes] = frozenset()
    ) -> list[bytes]:
        """Lock those that are known, and say which are not."""
        wanted = key_ids if len(key_ids) == 1 else sorted(set(key_ids))
        known = set()
        for statement in self._sql.hold.bind(self._dialect, wanted):
            for key_id, dead in await tx.query(*statement):
                if dead and key_id in lookups:
                    raise LookupKeyEnded("a rotation has renewed the lookup keys", provider=self._provider.name)
                if dead:
                    raise KeyErased("the subject was erased: nothing is written under the old key any more")
                known.add(key_id)
                self._register(key_id)
        return [key_id for key_id in wanted if key_id not in known]

    async def _insert(self, tx: Session, key_ids: Sequence[bytes], *, dead: int) -> bool:
        """Register keys; False when somebody else has done so meanwhile. The transaction goes on either way."""
        moment = timestamp()
        # In the order of the ids: two that register the same keys do not wait for each other in a circle.
        rows = [{"key_id": key_id, "dead": dead, "changed_at": moment} for key_id in sorted(key_ids)]
        try:
            async with cast("Transaction", tx).savepoint():
                await tx.execute_many(*self._sql.insert.bind_many(self._dialect, rows))
        except ConstraintViolated:
            return False
        for key_id in key_ids:
            self._register(key_id)
        return True

    def _register(self, key_id: bytes) -> None:
        """Remember that the key has a row here; if what made it is undone, a guard finds that out."""
        if key_id not in self._registered:
            if len(self._registered) >= _REGISTERED:
                del self._registered[next(iter(self._registered))]
            self._registered[key_id] = None
