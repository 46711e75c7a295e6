"""A rotation as the key store has it, and who works on it.

The row of a rotation says how far it has come. Whoever works on it says so by a counter that moves (`beats`): one that
stands still for a while was left behind by a process that died, and the next one takes over. No clock is compared with
another machine's, and nothing rests on there being one worker alone: two of them would do the same thing.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
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
from datavern.crypto.erasures import contended

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from datavern.contracts.capabilities import Provider, Session
    from datavern.crypto.keyring import Keyring

__all__ = ["STATES", "ClaimedRotations", "Rotation"]

STATES: Final = ("rewrap", "reindex", "confirm", "destroy", "purge", "done")
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


class ClaimedRotations:
    """The rotations of one key store, of which at most one is worked on at a time.

    Args:
        keyring: open.
        provider: the ledger database, with the key store's tables.
    """

    def __init__(self, keyring: Keyring, provider: Provider) -> None:
        from datavern.crypto.rotation_statements import RotationStatements  # noqa: PLC0415  (loads SQLAlchemy)
        from datavern.crypto.tables import StoreStatements  # noqa: PLC0415  (the same)

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
