"""A rotation in the key store, step by step; each step is short, safe to do again, and blocks no writer.

The row of a rotation says how far it has come. Whoever works on it says so by a counter that moves (`beats`): one that
stands still for a while was left behind by a process that died, and the next one takes over. No clock is compared with
another machine's, and nothing rests on there being one worker alone: two of them would do the same thing.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
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

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from datavern.contracts.capabilities import Provider, Session
    from datavern.crypto.keyring import Destruction, Keyring

__all__ = ["STATES", "OldLookup", "Rotation", "Rotations"]

STATES: Final = ("rewrap", "reindex", "confirm", "destroy", "purge", "done")
BATCH: Final = 500
"""Keys that are read, wrapped anew and written at a time."""
BEAT: Final = 1.0
"""Seconds between two beats of whoever works on a rotation."""
SILENCE: Final = 6.0
"""Seconds without a beat after which somebody else takes over."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """A rotation as the key store has it.

    Attributes:
        epoch: the new one.
        previous: the one before it.
        begun: the store's count of changes before anything was under the new epoch.
        state: what is to be done next: one of `STATES`.
        keys: how many keys were wrapped anew.
        details: what was re-indexed, and what was confirmed by what.
        started_at, closed_at, destroyed_at, gone_at: RFC 3339, or None: when it began, since when nothing in the store
            is under the previous epoch, since when the ring does not hold that key, and since when nobody can bring it
            back.
        beats, held: whether somebody works on it.
    """

    epoch: int
    previous: int
    begun: int
    state: str
    keys: int
    details: Mapping[str, Any] = field(default_factory=dict)
    started_at: str = ""
    closed_at: str | None = None
    destroyed_at: str | None = None
    gone_at: str | None = None
    beats: int = 0
    held: bool = False


@dataclass(frozen=True, slots=True)
class OldLookup:
    """A lookup key that is still wrapped under an older epoch."""

    key_id: bytes
    dataset: str
    field: str
    state: str
    wrapped: bytes


class Rotations:
    """The rotations of one key store.

    Args:
        keyring: open.
        provider: the ledger database, with the key store's tables.
    """

    def __init__(self, keyring: Keyring, provider: Provider) -> None:
        from datavern.crypto.tables import RotationStatements, StoreStatements  # noqa: PLC0415  (loads SQLAlchemy)

        self._keyring = keyring
        self._provider = provider
        self.sql = RotationStatements()
        self.store = StoreStatements()
        self._holder = ""
        self._lost = False
        self._keys = 0
        self._details: dict[str, Any] = {}
        self._epoch = 0

    @property
    def session(self) -> Session:
        """The ledger, for single statements."""
        return needs(self._provider, "session")

    @property
    def dialect(self) -> Dialect:
        """The ledger's dialect."""
        return needs(self._provider, "ledger").dialect

    async def all(self) -> list[Rotation]:
        """Every rotation that there was, the oldest first."""
        return [_rotation(row) for row in await self.session.query(*self.sql.rotations.bind(self.dialect))]

    async def open(self) -> Rotation | None:
        """The one that is not at its end; what only waits for a vault's purge is."""
        return next((r for r in reversed(await self.all()) if r.state not in ("purge", "done")), None)

    # ---- who works on it --------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def working(self, *, begin: bool = True) -> AsyncIterator[Rotation | None]:
        """Take on the rotation that is open, or begin one; while the block lasts others are told that somebody does.

        Args:
            begin: whether to begin one where none is open; otherwise there is nothing to work on: None.

        Raises:
            RotationIncomplete: somebody else works on it.
        """
        rotation = await self.open()
        if rotation is None:
            if not begin:
                yield None
                return
            rotation = await self._begin()
        holder = os.urandom(8).hex()
        rotation = await self._claim(rotation, holder)
        self._holder, self._epoch, self._lost = holder, rotation.epoch, False
        self._keys, self._details = rotation.keys, dict(rotation.details)
        beating = asyncio.create_task(self._beat())
        try:
            yield rotation
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            release = self.sql.release.bind(self.dialect, of=rotation.epoch, by=holder)
            with suppress(DatavernError):  # when it cannot be asked, whoever comes next waits a few seconds longer
                await self.session.execute(*release)

    async def _begin(self) -> Rotation:
        store_epoch: int = await self.session.query_value(*self.store.epoch.bind(self.dialect))
        await self._keyring.reload()
        ring_epoch = self._keyring.epoch
        number = ring_epoch if ring_epoch > store_epoch else store_epoch + 1
        row: dict[str, Any] = {
            "epoch": number,
            "previous": store_epoch,
            "state": "rewrap",
            "holder": None,
            "beats": 0,
            "keys": 0,
            "details": "{}",
            "started_at": timestamp(),
            "closed_at": None,
            "destroyed_at": None,
            "gone_at": None,
        }
        epoch = {"epoch": number, "created_at": row["started_at"]}
        try:
            async with needs(self._provider, "transactions").transaction(isolation="read committed") as tx:
                # The store's own row first: it puts erasures and rotations in one order.
                await tx.execute(*self.store.count_change.bind(self.dialect))
                row["begun"] = await tx.query_value(*self.store.changes.bind(self.dialect))
                await tx.execute(*self.sql.insert_rotation.bind(self.dialect, **row))
                await tx.execute(*self.store.insert_epoch.bind(self.dialect, **epoch))
        except (ConstraintViolated, SerializationConflict):
            pass  # somebody else began the same one just now
        found = await self.open()
        if found is None:
            raise contended(self._provider)
        return found

    async def _claim(self, rotation: Rotation, holder: str) -> Rotation:
        seen, waited = rotation, 0.0
        while seen.held and waited < SILENCE:
            await asyncio.sleep(BEAT / 4)
            waited += BEAT / 4
            row = await self._row(rotation.epoch)
            if row.held and row.beats != seen.beats:
                raise _taken(row)
            seen = row
        claim = self.sql.claim.bind(self.dialect, of=rotation.epoch, seen=seen.beats, by=holder)
        if not await self.session.execute(*claim):
            raise _taken(await self._row(rotation.epoch))
        return await self._row(rotation.epoch)

    async def _row(self, epoch: int) -> Rotation:
        row = await self.session.query_one(*self.sql.rotation.bind(self.dialect, of=epoch))
        if row is None:
            raise ConfigurationError(f"the key store in {self._provider.name} has lost its rotation to epoch {epoch}")
        return _rotation(row)

    async def _beat(self) -> None:
        while not self._lost:
            await asyncio.sleep(BEAT)
            try:
                self._lost = not await self.session.execute(
                    *self.sql.beat.bind(self.dialect, of=self._epoch, by=self._holder)
                )
            except DatavernError:
                continue  # the work itself hears of a database that is gone

    def check(self) -> None:
        """Stop where somebody else has taken over, because this process was still for too long.

        Raises:
            RotationIncomplete: it is so.
        """
        if self._lost:
            raise RotationIncomplete("another process has taken this rotation over: it goes on there")

    async def step(self, state: str, *, session: Session | None = None, **details: Any) -> None:
        """Write down that the rotation has come as far as `state`, and what is to be remembered of it.

        Args:
            state: one of `STATES`.
            session: an open transaction of the ledger, or None.
            details: to be added to the rotation's.

        Raises:
            RotationIncomplete: somebody else has taken over.
        """
        self._details |= details
        said = json.dumps(self._details, ensure_ascii=False, sort_keys=True)
        step = self.sql.step.bind(
            self.dialect, of=self._epoch, by=self._holder, to=state, said=said, wrapped_anew=self._keys
        )
        if not await (session or self.session).execute(*step):
            self._lost = True
        self.check()

    async def now(self) -> Rotation:
        """The rotation that is worked on, as it is by now."""
        return await self._row(self._epoch)

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
                await asyncio.sleep(BEAT / 10)
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


def _taken(rotation: Rotation) -> RotationIncomplete:
    return RotationIncomplete(
        f"a rotation to epoch {rotation.epoch} runs already, in another process: it goes on there",
        state=rotation.state,
    )


def _rotation(row: Any) -> Rotation:
    return Rotation(
        row["epoch"],
        row["previous"],
        row["begun"],
        row["state"],
        row["keys"],
        json.loads(row["details"]),
        row["started_at"],
        row["closed_at"],
        row["destroyed_at"],
        row["gone_at"],
        row["beats"],
        row["holder"] is not None,
    )
