"""A rotation in the key store, step by step; each step is short, safe to do again, and blocks no writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import (
    ConfigurationError,
    ConstraintViolated,
    DatavernError,
    RotationIncomplete,
    SerializationConflict,
)
from datavern.contracts.values import timestamp
from datavern.crypto.erasures import ATTEMPTS, contended
from datavern.crypto.key_rows import TAG_KEY, data_context, lookup_context
from datavern.crypto.rotation_claims import STATES, ClaimedRotations, Rotation

if TYPE_CHECKING:
    from datavern.crypto.keyring import Destruction

__all__ = ["STATES", "OldLookup", "Rotation", "Rotations"]

BATCH: Final = 500
"""Keys that are read, wrapped anew and written at a time."""
PAUSE: Final = 0.1
"""Seconds before keys that somebody made just now are looked for again."""


@dataclass(frozen=True, slots=True)
class OldLookup:
    """A lookup key that is still wrapped under an older epoch."""

    key_id: bytes
    dataset: str
    field: str
    state: str
    wrapped: bytes


class Rotations(ClaimedRotations):
    """The rotations of one key store.

    Args:
        keyring: open.
        provider: the ledger database, with the key store's tables.
    """

    async def check_enforced(self) -> None:
        """Refuse a database that does not keep its foreign keys: a rotation rests on them.

        Raises:
            ConfigurationError: it is one.
        """
        try:
            async with needs(self._provider, "transactions").transaction() as tx:
                await tx.execute(*self.sql.unknown_epoch.bind(self.dialect))
                raise _NotEnforcedError  # noqa: TRY301  (it rolls the transaction back)
        except ConstraintViolated:
            return
        except _NotEnforcedError:
            pass
        raise ConfigurationError(
            f"{self._provider.name} does not enforce foreign keys (foreign_keys=False), and a rotation rests on them: "
            "without, a key could be left under an epoch that is destroyed"
        )

    # ---- the steps --------------------------------------------------------------------------------------------------

    async def turn(self) -> None:
        """Make the new epoch key, and let every process wrap under it. Idempotent."""
        await self._keyring.add_epoch(self._epoch)
        for _ in range(ATTEMPTS):
            row = await self.session.query_one(*self.store.store.bind(self.dialect))
            if row is None or row["epoch"] >= self._epoch:
                return
            (anew,) = await self._keyring.rewrap([(row["tag_key"], TAG_KEY)])
            turn = self.sql.turn.bind(self.dialect, to=self._epoch, wrapped_tag_key=anew)
            if await self.session.execute(*turn):
                return
        raise contended(self._provider)

    async def rewrap(self, progress: Callable[[int], None] = lambda _: None) -> int:
        """Wrap every key of a person or dataset under the new epoch; how many there were. Idempotent.

        A batch is one short transaction. A key that is destroyed meanwhile stays destroyed, and keys that are made
        meanwhile are under the new epoch already, or are found by the next round.
        """
        made = 0
        while True:
            found = 0
            after = b""
            pending: asyncio.Task[Any] | None = None
            try:
                while True:
                    self.check()
                    select = self.sql.of_epoch.bind(self.dialect, after=after, to=self._epoch, many=BATCH)
                    rows = await self.session.query(*select)
                    if not rows:
                        break
                    after = rows[-1][0]
                    contexts = [(row[3], data_context(row[1], row[2], row[0])) for row in rows]
                    anew = await self._keyring.rewrap(contexts)
                    if pending is not None:
                        await pending
                    changes = [
                        {"id": row[0], "anew": wrapped, "to": self._epoch}
                        for row, wrapped in zip(rows, anew, strict=True)
                    ]
                    # Written while the next batch is read and wrapped.
                    pending = asyncio.create_task(self._write(changes))
                    found += len(rows)
                    progress(len(rows))
                if pending is not None:
                    await pending
            except BaseException:
                if pending is not None:
                    pending.cancel()
                    await asyncio.gather(pending, return_exceptions=True)
                raise
            made += found
            self._keys += found
            if not found:
                return made

    async def _write(self, changes: list[dict[str, Any]]) -> None:
        for _ in range(ATTEMPTS):
            try:
                await self.session.execute_many(*self.sql.rewrap.bind_many(self.dialect, changes))
            except SerializationConflict:
                continue  # an erasure destroys one of them at this moment
            return
        raise contended(self._provider)

    async def old_lookups(self) -> list[OldLookup]:
        """The lookup keys that are still under an older epoch."""
        select = self.sql.old_lookups.bind(self.dialect, to=self._epoch)
        return [OldLookup(*row) for row in await self.session.query(*select)]

    async def rewrap_lookup(self, old: OldLookup) -> None:
        """Keep a lookup key, under the new epoch: nobody can say what its indexes are indexes of."""
        (anew,) = await self._keyring.rewrap([(old.wrapped, lookup_context(old.dataset, old.field))])
        await self.session.execute(*self.sql.rewrap_lookup.bind(self.dialect, id=old.key_id, anew=anew, to=self._epoch))

    async def close(self, progress: Callable[[int], None] = lambda _: None) -> None:
        """Let nothing be wrapped under an older epoch any more, in any process: from then on nothing is. Idempotent.

        The older epochs' rows go, which the database refuses while anything refers to them, and waits for where
        somebody is about to.
        """
        for _ in range(ATTEMPTS * ATTEMPTS):
            self.check()
            try:
                async with needs(self._provider, "transactions").transaction(isolation="read committed") as tx:
                    await tx.execute(*self.sql.close_epoch.bind(self.dialect, to=self._epoch))
                    await tx.execute(*self.sql.close.bind(self.dialect, of=self._epoch, at=timestamp()))
            except (ConstraintViolated, SerializationConflict):
                await self.rewrap(progress)  # made by a process that has not heard yet
                await asyncio.sleep(PAUSE)
                continue
            return
        raise contended(self._provider)

    async def destroy(self) -> Destruction:
        """Destroy the older epochs' keys; how far that is. Idempotent.

        Raises:
            RotationIncomplete: something in the store is under an older epoch after all, or nobody confirmed it.
        """
        rotation = await self.now()
        if rotation.closed_at is None or rotation.state != "destroy":
            raise RotationIncomplete("the old epoch key is not destroyed before all is confirmed", state=rotation.state)
        under = await self.keys_by_epoch()
        if any(epoch < self._epoch for epoch in under):
            raise RotationIncomplete("keys in the store are still under an older epoch", state=rotation.state)
        await self._keyring.reload()
        for number in sorted({*self._keyring.epochs, rotation.previous}):
            if number < self._epoch:
                done = await self._keyring.destroy_epoch(number)
        await self.session.execute(*self.sql.destroyed.bind(self.dialect, of=self._epoch, at=timestamp()))
        if done.gone:
            await self.session.execute(*self.sql.gone.bind(self.dialect, of=self._epoch, at=timestamp()))
        return done

    async def purged(self) -> list[Rotation]:
        """Ask for every destroyed epoch key that a vault still kept whether it is gone by now; those that it keeps."""
        waiting = []
        for rotation in await self.all():
            if rotation.state == "purge":
                if (await self._keyring.destroy_epoch(rotation.previous)).gone:
                    at = timestamp()
                    await self.session.execute(*self.sql.gone.bind(self.dialect, of=rotation.epoch, at=at))
                    await self.session.execute(*self.sql.done.bind(self.dialect, of=rotation.epoch))
                else:
                    waiting.append(rotation)
        return waiting

    async def keys_by_epoch(self) -> dict[int, int]:
        """Epoch → how many keys of people and datasets are wrapped under it."""
        return {row[0]: row[1] for row in await self.session.query(*self.sql.count.bind(self.dialect))}

    async def verify(self, progress: Callable[[int], None] = lambda _: None) -> list[str]:
        """Unwrap every key of the store; what does not, by its id and the kind of error. Constant memory."""
        problems: list[str] = []
        after = b""
        while True:
            rows = await self.session.query(*self.sql.all_keys.bind(self.dialect, after=after, many=BATCH))
            if not rows:
                break
            after = rows[-1][0]
            for key_id, dataset, tag, wrapped in rows:
                try:
                    await self._keyring.unwrap(wrapped, data_context(dataset, tag, key_id))
                except DatavernError as error:
                    problems.append(f"key {key_id.hex()} of {dataset}: {error}")
            progress(len(rows))
            await asyncio.sleep(0)
        for old in [
            OldLookup(*row) for row in await self.session.query(*self.sql.old_lookups.bind(self.dialect, to=1 << 40))
        ]:
            try:
                await self._keyring.unwrap(old.wrapped, lookup_context(old.dataset, old.field))
            except DatavernError as error:
                problems.append(f"lookup key of {old.dataset}.{old.field}: {error}")
        row = await self.session.query_one(*self.store.store.bind(self.dialect))
        try:
            await self._keyring.unwrap(row["tag_key"] if row is not None else b"", TAG_KEY)
        except DatavernError as error:
            problems.append(f"the tag key: {error}")
        return problems


class _NotEnforcedError(Exception):
    """What no database that enforces its foreign keys lets happen."""
