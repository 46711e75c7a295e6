"""New lookup keys, and every index made anew with them, while the service runs (a part of a rotation).

Field by field, in steps that are each safe to do again: a *next* key is drawn, and every process given the time to
hear of it, so that finds ask for both; it becomes the *current* one, and the old key's life ends in the data's own
database, so that no process makes another index with it; every row is read, opened and indexed anew, where its index
is not the new one and nobody has changed it meanwhile; the old key is destroyed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import (
    CapabilityMissing,
    ConfigurationError,
    CryptoError,
    ProviderError,
    RotationIncomplete,
)
from datavern.crypto import remembered
from datavern.crypto.lookup_keys import CURRENT, NEXT, PREVIOUS, life_ids, new_lookup_row
from datavern.privacy.datamap.dataset import ROW_TAG

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.crypto.keyring import Keyring
    from datavern.crypto.rotations import OldLookup, Rotations
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.service import Privacy

__all__ = ["Reindexing"]

_BATCH = 500
"""Rows that are indexed anew in one transaction."""


class Reindexing:
    """The lookups of a rotation.

    Args:
        privacy: the datasets and the keys.
        rotations: the rotation that is worked on.
        keyring: open.
    """

    def __init__(self, privacy: Privacy, rotations: Rotations, keyring: Keyring) -> None:
        self._privacy = privacy
        self._rotations = rotations
        self._keyring = keyring
        self._of = {store.dataset.name: store for store in privacy.datasets}

    async def run(self, progress: Callable[[int], None]) -> dict[str, Any]:
        """Renew every lookup key that is under an older epoch; what was done, in counts. Idempotent.

        Raises:
            RotationIncomplete: a database could not be reached, or its schema lacks what the data map says.
        """
        done: dict[str, Any] = {"indexed": {}, "unreadable": {}, "kept": []}
        old = await self._rotations.old_lookups()
        renewed: dict[str, list[OldLookup]] = {}
        for lookup in old:
            store = self._of.get(lookup.dataset)
            if store is None or lookup.field not in store.dataset.indexes.values():
                # Nothing that the data map names: an index of file names, or a field that it no longer has.
                await self._rotations.rewrap_lookup(lookup)
                done["kept"].append(f"{lookup.dataset}.{lookup.field}")
            else:
                renewed.setdefault(lookup.dataset, []).append(lookup)
        await self._announce([lookup for lookups in renewed.values() for lookup in lookups])
        for name in sorted(renewed):
            store = self._of[name]
            problem = ""
            try:
                await self._switch(store, renewed[name])
                indexed, unreadable = await self._rows(store, progress)
            except (ProviderError, ConfigurationError, CapabilityMissing) as error:
                problem = f"{type(error).__name__}: {error}"
            if problem:
                raise RotationIncomplete(
                    f"the rotation waits: the lookups of {store.dataset.label} could not be indexed anew",
                    state="reindex",
                    reasons=(f"{store.dataset.label}: {problem}",),
                )
            done["indexed"][store.dataset.label] = indexed
            if unreadable:
                done["unreadable"][store.dataset.label] = unreadable
            await self._destroy(store)
        return done

    async def _announce(self, old: Sequence[OldLookup]) -> None:
        """A next key for each of them, and time for every process to hear of it."""
        rotations = self._rotations
        store, session, dialect = rotations.store, rotations.session, rotations.dialect
        states = await self._privacy.keys.lookup_states()
        announced = False
        for lookup in old:
            if lookup.state != CURRENT:
                continue
            if not any(state == NEXT for _, state in states[lookup.dataset, lookup.field]):
                _, row = await new_lookup_row(self._keyring, lookup.dataset, lookup.field, NEXT)
                await session.execute(*store.insert_lookup_key.bind(dialect, **row))
            announced = True
        if announced:
            await session.execute(*store.count_change.bind(dialect))
            # After this long no process uses what it remembers without having asked.
            left = remembered.FRESH
            while left > 0:
                rotations.check()
                await asyncio.sleep(min(left, 0.5))
                left -= 0.5

    async def _switch(self, store: PersonalStore, old: Iterable[OldLookup]) -> None:
        rotations = self._rotations
        sql, dialect = rotations.store, rotations.dialect
        for field in sorted({lookup.field for lookup in old}):
            of_field = {state: key_id for key_id, state in (await self._states(store))[field]}
            if NEXT in of_field:
                moves = [(of_field[CURRENT], CURRENT, PREVIOUS), (of_field[NEXT], NEXT, CURRENT)]
                async with needs(self._privacy.ledger, "transactions").transaction(isolation="read committed") as tx:
                    await tx.execute(*sql.count_change.bind(dialect))
                    for key_id, was, becomes in moves:
                        await tx.execute(*sql.lookup_state.bind(dialect, id=key_id, was=was, becomes=becomes))
        ended = [key_id for found in (await self._states(store)).values() for key_id, s in found if s == PREVIOUS]
        site = self._privacy.site(store.dataset.database)

        for life in sorted(life for key_id in ended for life in life_ids(key_id)):
            # Each by itself: nobody waits for another in a circle who holds one row and waits for the next.

            async def end(tx: Transaction, life: bytes = life) -> None:
                await site.life.end(tx, (life,))

            await needs(site.provider, "transactions").run_in_transaction(end, isolation="read committed")
        await self._privacy.keys.heard(at_once=True)

    async def _states(self, store: PersonalStore) -> dict[str, frozenset[tuple[bytes, str]]]:
        states = await self._privacy.keys.lookup_states()
        return {field: found for (dataset, field), found in states.items() if dataset == store.dataset.name}

    async def _destroy(self, store: PersonalStore) -> None:
        rotations = self._rotations
        async with needs(self._privacy.ledger, "transactions").transaction(isolation="read committed") as tx:
            await tx.execute(*rotations.store.count_change.bind(rotations.dialect))
            for found in (await self._states(store)).values():
                for key_id, state in found:
                    if state == PREVIOUS:
                        await tx.execute(*rotations.store.delete_lookup_key.bind(rotations.dialect, id=key_id))
        await self._privacy.keys.heard(at_once=True)

    async def _rows(self, store: PersonalStore, progress: Callable[[int], None]) -> tuple[int, int]:
        """Index every row anew; how many were, and how many hold a value that does not open."""
        if not await store.exists():
            return 0, 0
        subjects = store.subjects
        indexed = unreadable = 0
        batch: list[dict[str, Any]] = []
        async with subjects.stream(store.dataset.table, {}, batch_size=_BATCH) as found:
            async for row in found:
                batch.append(row)
                if len(batch) >= _BATCH:
                    one, other = await self._batch(store, batch)
                    indexed, unreadable, batch = indexed + one, unreadable + other, []
                    progress(one)
        one, other = await self._batch(store, batch)
        progress(one)
        return indexed + one, unreadable + other

    async def _batch(self, store: PersonalStore, found: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
        self._rotations.check()
        rows = await store.rows()
        dataset = store.dataset
        columns = dataset.indexes
        wanted = [
            row
            for row in found
            if row.get(ROW_TAG) is not None and any(_is_index(row.get(column)) for column in columns)
        ]
        changes: list[list[tuple[dict[str, Any], dict[str, Any]]]] = []
        unreadable = 0
        for row, opened in await self._opened(store, wanted):
            if opened is None:
                unreadable += 1
                continue
            key = {name: row[name] for name in dataset.keys}
            new = {c: v for c, v in rows.indexes(opened).items() if _is_index(row.get(c)) and row.get(c) != v}
            if new:  # each as it was read, or not at all: whoever changed it meanwhile did it with the new key
                changes.append([({**key, column: row[column]}, {column: value}) for column, value in new.items()])
        if not changes:
            return 0, unreadable

        async def work(tx: Transaction | None) -> int:
            subjects = store.subjects
            done = 0
            for of_row in changes:
                each = [await subjects.update(dataset.table, where, new, transaction=tx) for where, new in of_row]
                done += any(each)
            return done

        if store.provider.capabilities.transactions is None:
            return await work(None), unreadable
        done: int = await needs(store.provider, "transactions").run_in_transaction(work, isolation="read committed")
        return done, unreadable

    async def _opened(
        self, store: PersonalStore, found: Sequence[Mapping[str, Any]]
    ) -> list[tuple[Mapping[str, Any], dict[str, Any] | None]]:
        try:
            return list(zip(found, await store.opened(found), strict=True))
        except CryptoError:
            pass
        result: list[tuple[Mapping[str, Any], dict[str, Any] | None]] = []
        for row in found:  # one by one: which of them is it
            try:
                result.append((row, (await store.opened([row]))[0]))
            except CryptoError:
                result.append((row, None))
        return result


def _is_index(value: Any) -> bool:
    """Whether an index column leads to anything: what an erasure leaves is empty, or begins with a zero byte."""
    return bool(value) and (isinstance(value, str) or value[0] != 0)
