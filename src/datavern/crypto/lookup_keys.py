"""The keys of lookup indexes (FORMAT.md, 4), one a field, and two while a rotation makes its indexes anew.

An index made with a key that somebody may still have gives a guessed number away, so a rotation does not wrap lookup
keys anew: it draws new ones. A new key is first *next* (finds ask for it, so that no process misses what another
writes with it), then *current* (new indexes are made with it; the old key is *previous*), and when every row has a new
index the old key is destroyed. Between the first two the old key is ended in the data's own database, as a data key is
at an erasure: a process that has not heard of it cannot write an index that nobody would find any more.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ConstraintViolated
from datavern.contracts.values import timestamp
from datavern.crypto.erasures import ATTEMPTS, contended
from datavern.crypto.key_rows import lookup_context
from datavern.crypto.sealed import KEY, KEY_ID

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from datavern.contracts.capabilities import Provider, Session
    from datavern.crypto.keyring import Keyring
    from datavern.crypto.tables import StoreStatements

__all__ = ["CURRENT", "NEXT", "PREVIOUS", "STRIPES", "LookupKey", "LookupKeys", "life_ids", "new_lookup_row"]

NEXT, CURRENT, PREVIOUS = "next", "current", "previous"

STRIPES: Final = 16
"""A writer holds one of so many rows for a lookup key, so that writers seldom hold the same one."""


@dataclass(frozen=True, slots=True)
class LookupKey:
    """The keys of one field's index.

    Attributes:
        id: of the key that new indexes are made with.
        key: that key, 32 bytes; not shown.
        previous: the one before, while there may be indexes made with it.
        next: the one after, while others may make indexes with it already.
        states: the id of each, and what it is.
    """

    id: bytes
    key: bytes
    previous: bytes | None = None
    next: bytes | None = None
    states: frozenset[tuple[bytes, str]] = frozenset()

    def __repr__(self) -> str:
        return f"LookupKey({self.id.hex()})"

    @property
    def others(self) -> tuple[bytes, ...]:
        """The keys that a find asks for beside the current one."""
        return tuple(key for key in (self.previous, self.next) if key is not None)


def life_ids(key_id: bytes) -> list[bytes]:
    """Under which ids the life of a lookup key is kept, in the database with the rows."""
    return [sha256(b"lookup-life\x00" + key_id + bytes([stripe])).digest()[:KEY_ID] for stripe in range(STRIPES)]


async def new_lookup_row(keyring: Keyring, dataset: str, field: str, state: str) -> tuple[bytes, dict[str, Any]]:
    """A new random lookup key, and its row."""
    key = os.urandom(KEY)
    return key, {
        "key_id": os.urandom(KEY_ID),
        "dataset": dataset,
        "field": field,
        "state": state,
        "wrapped": await keyring.wrap(key, lookup_context(dataset, field)),
        "epoch": keyring.epoch,
        "created_at": timestamp(),
    }


class LookupKeys:
    """The lookup keys in the key store.

    Args:
        keyring: open.
        provider: the ledger database.
        dialect: its dialect.
        sql: the statements.
    """

    __slots__ = ("_dialect", "_keyring", "_provider", "_sql")

    def __init__(self, keyring: Keyring, provider: Provider, dialect: Dialect, sql: StoreStatements) -> None:
        self._keyring = keyring
        self._provider = provider
        self._dialect = dialect
        self._sql = sql

    async def of(self, session: Session, dataset: str, field: str) -> LookupKey:
        """The keys of a field; the first is made when it is first asked for.

        Raises:
            KeyUnavailable, DecryptionFailed: as `KeyStore.keys`.
        """
        select = self._sql.lookup_keys.bind(self._dialect, in_dataset=dataset, of_field=field)
        context = lookup_context(dataset, field)
        for _ in range(ATTEMPTS):
            found = {}
            ids = {}
            for key_id, state, wrapped in await session.query(*select):
                found[state] = await self._keyring.unwrap(wrapped, context)
                ids[state] = key_id
            if CURRENT in found:
                states = frozenset((key_id, state) for state, key_id in ids.items())
                return LookupKey(ids[CURRENT], found[CURRENT], found.get(PREVIOUS), found.get(NEXT), states)
            key, row = await new_lookup_row(self._keyring, dataset, field, CURRENT)
            try:
                await session.execute(*self._sql.insert_lookup_key.bind(self._dialect, **row))
            except ConstraintViolated:  # somebody else made it, or the epoch was closed just now
                await self._keyring.reload()
                continue
            return LookupKey(row["key_id"], key, states=frozenset({(row["key_id"], CURRENT)}))
        raise contended(self._provider)

    async def states(self, session: Session) -> dict[tuple[str, str], frozenset[tuple[bytes, str]]]:
        """Dataset and field → the ids of the field's keys, and what each is."""
        states: dict[tuple[str, str], set[tuple[bytes, str]]] = {}
        for key_id, dataset, field, state, _ in await session.query(*self._sql.lookup_states.bind(self._dialect)):
            states.setdefault((dataset, field), set()).add((key_id, state))
        return {name: frozenset(found) for name, found in states.items()}
