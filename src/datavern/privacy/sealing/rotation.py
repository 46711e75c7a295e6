"""Rotation of the keys from its beginning to its end: what `await db.keys.rotate()` does.

In this order, and each of it safe to do again: a new epoch key; every key wrapped anew under it; new lookup keys, and
every index anew; the old epoch closed in the key store; every replica of the key store has replayed that, and a copy of
it under the new epoch was read back; the old epoch key destroyed. Nothing before the last step loses anything, and the
last is taken only when all others are known to be done.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, DatavernError, RotationIncomplete
from datavern.contracts.values import current_actor, timestamp
from datavern.crypto import copies
from datavern.crypto.erased import EndedErasures
from datavern.crypto.rotations import Rotation, Rotations
from datavern.privacy.sealing.reindex import Reindexing

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider
    from datavern.crypto.keyring import Keyring
    from datavern.crypto.recovery import Export
    from datavern.privacy.service import Privacy

__all__ = ["DUE", "Confirm", "KeyStatus", "Recovery", "Rotator", "Saved"]

DUE: Final = dt.timedelta(days=30)
"""A rotation follows an erasure within this time."""

_TOLD: Final = 100
"""Lost erasures of each kind that are named."""

Saved = Callable[["Provider", "Keyring"], Awaitable[Mapping[str, Any]]]
"""Saves the key store under the ring's current epoch, reads back what it saved, and says what is to be remembered of it
(text and whole numbers; it stands in the signed statement). It raises where it could not."""

Confirm = Callable[[int], Awaitable[Iterable[str]]]
"""Given the new epoch, says which other members of the key store have not got it yet, one line each; none when all."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """A copy of the key ring that people hold together (`datavern keys export-recovery`).

    Attributes:
        id: its name.
        epochs: whose keys are in it.
        threshold: how many shares open it.
        shares: how many there are.
        created_at: RFC 3339.
        ended_at: since when somebody answers for it that it was destroyed; None while it is outstanding.
        ended_by: who.
    """

    id: str
    epochs: tuple[int, ...]
    threshold: int
    shares: int
    created_at: str
    ended_at: str | None = None
    ended_by: str | None = None


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """How the keys stand.

    Attributes:
        epoch: what new keys are wrapped under.
        generation: how often the ring was changed.
        epochs: whose keys the ring holds.
        keys: epoch → how many keys of people and datasets are wrapped under it.
        rotation: the one that is not at its end, or None.
        last: the last one that is.
        purging: rotations whose old epoch key a vault still keeps.
        due: until when a rotation is due, since somebody was erased; None when none is.
        overdue: whether that day has passed.
        recoveries: copies of the ring that people hold together, and that nobody said were destroyed.
    """

    epoch: int
    generation: int
    epochs: tuple[int, ...]
    keys: Mapping[int, int]
    rotation: Rotation | None
    last: Rotation | None
    purging: tuple[Rotation, ...]
    due: dt.date | None
    overdue: bool
    recoveries: tuple[Recovery, ...]


class Rotator:
    """Rotates the keys of one manager.

    Args:
        privacy: the datasets, the key store and the audit log.
        keyring: open.
        saved: where the copy of the key store goes: a folder, or what saves it otherwise; None: beside a ring of files.
    """

    def __init__(self, privacy: Privacy, keyring: Keyring, saved: str | Path | Saved | None = None) -> None:
        self._privacy = privacy
        self._keyring = keyring
        self._saved = saved
        self.confirmations: list[Confirm] = []

    def _rotations(self) -> Rotations:
        return Rotations(self._keyring, self._privacy.ledger)

    # ---- rotating ---------------------------------------------------------------------------------------------------

    async def rotate(
        self,
        *,
        copy: str | Path | Saved | None = None,
        patience: float = 60.0,
        progress: Callable[[str, int], None] = lambda _what, _number: None,
    ) -> Rotation:
        """See `KeyStore.rotate`."""
        if self._keyring.destroys is not None:
            raise ConfigurationError(f"{self._keyring.url.partition(':')[0]}: {self._keyring.destroys}")
        save = self._saver(copy)
        rotations = self._rotations()
        await rotations.check_enforced()
        await rotations.purged()
        async with rotations.working() as begun:
            assert begun is not None  # noqa: S101  (for the type checker: it begins one)
            rotation: Rotation = begun
            if rotation.state == "rewrap":
                await rotations.turn()
                await rotations.rewrap(lambda n: progress("keys", n))
                await rotations.step("reindex")
            if rotation.state in ("rewrap", "reindex"):
                reindexing = Reindexing(self._privacy, rotations, self._keyring)
                done = await reindexing.run(lambda n: progress("rows", n))
                await rotations.step("confirm", **_together(rotation.details, done))
            if rotation.state in ("rewrap", "reindex", "confirm"):
                await rotations.close(lambda n: progress("keys", n))
                await self._replayed(rotation.epoch, patience)
                await rotations.step("destroy", copy=dict(await save(self._privacy.ledger, self._keyring)))
            destruction = await rotations.destroy()
            await self._end(rotations, destruction.gone, destruction.how)
            return await rotations.now()

    async def _end(self, rotations: Rotations, gone: bool, how: str) -> None:
        rotation = await rotations.now()
        details = {"epoch": rotation.epoch, "previous": rotation.previous, "keys": rotation.keys}
        async with needs(self._privacy.ledger, "transactions").transaction() as tx:
            await rotations.step("done" if gone else "purge", session=tx, destruction=how)
            await self._privacy.ledger_log.append(tx, action="keys_rotated", details=details)

    def _saver(self, copy: str | Path | Saved | None) -> Saved:
        chosen = copy if copy is not None else self._saved
        if chosen is None and self._keyring.url.startswith("file:"):
            chosen = self._keyring.url.removeprefix("file:").removeprefix("//").rstrip("/") + "-copies"
        if chosen is None:
            raise ConfigurationError(
                "a rotation destroys the old epoch key only when a copy of the key store under the new one was read "
                "back: say where it goes, with key_copies= (a folder that is not on the disk of the data)"
            )
        if callable(chosen):
            return chosen
        folder = Path(chosen).expanduser()

        async def save(provider: Provider, keyring: Keyring) -> Mapping[str, Any]:
            copy = await copies.write(provider, keyring, folder / f"key-store-epoch-{keyring.epoch}.datavern")
            for old in folder.glob("key-store-epoch-*.datavern"):
                number = old.stem.rpartition("-")[2]
                if number.isdecimal() and int(number) < copy.epoch:
                    old.unlink(missing_ok=True)  # it opens with no key that there will be
            return {"rows": sum(copy.rows.values()), "sha256": copy.digest, "read_back": timestamp()}

        return save

    async def _replayed(self, epoch: int, patience: float) -> None:
        """Wait until every member of the key store has what the old epoch was closed with.

        Raises:
            RotationIncomplete: one has not within `patience` seconds.
        """
        until = monotonic() + patience
        while True:
            waiting = await self._behind()
            for confirm in self.confirmations:
                waiting += await confirm(epoch)
            if not waiting:
                return
            if monotonic() >= until:
                raise RotationIncomplete(
                    f"the rotation to epoch {epoch} waits: {'; '.join(waiting)}. Nothing is lost; rotate again when "
                    "it is mended",
                    state="confirm",
                    reasons=tuple(waiting),
                )
            await asyncio.sleep(0.25)

    async def _behind(self) -> list[str]:
        ledger: Any = self._privacy.ledger
        members = [m for m in getattr(ledger, "members", (ledger,)) if m.capabilities.replicas is not None]
        waiting: list[str] = []
        positions: dict[str, str | None] = {}
        for member in members:
            try:
                positions[member.name] = await member.capabilities.replicas.position()
            except DatavernError as error:
                waiting.append(f"{member.name} cannot be asked ({type(error).__name__})")
        written = [position for position in positions.values() if position is not None]
        for member in members:
            for position in written if member.name in positions else ():
                try:
                    waiting += await member.capabilities.replicas.behind(position)
                except DatavernError as error:
                    waiting.append(f"{member.name} cannot be asked ({type(error).__name__})")
        return waiting

    # ---- asking -----------------------------------------------------------------------------------------------------

    async def status(self) -> KeyStatus:
        """See `KeyStore.status`."""
        rotations = self._rotations()
        await self._keyring.reload()
        every = await rotations.all()
        ended = [r for r in every if r.destroyed_at is not None]
        begun = ended[-1].begun if ended else 0
        first: str | None = await rotations.session.query_value(
            *rotations.sql.first_erasure.bind(rotations.dialect, begun=begun)
        )
        due = None if first is None else (dt.datetime.fromisoformat(first) + DUE).date()
        return KeyStatus(
            self._keyring.epoch,
            self._keyring.generation,
            tuple(sorted(self._keyring.epochs)),
            await rotations.keys_by_epoch(),
            next((r for r in reversed(every) if r.state not in ("purge", "done")), None),
            ended[-1] if ended else None,
            tuple(r for r in every if r.state == "purge"),
            due,
            due is not None and due < dt.datetime.now(dt.UTC).date(),
            tuple(r for r in await self.recoveries() if r.ended_at is None),
        )

    async def verify(self, progress: Callable[[int], None] = lambda _: None) -> list[str]:
        """See `KeyStore.verify`."""
        await self._keyring.reload()
        problems = await self._rotations().verify(progress)
        lost = await EndedErasures(self._privacy.ledger).gaps(_TOLD)
        return problems + [f"{of}: lost from the {what}" for what, names in lost.items() for of in dict.fromkeys(names)]

    async def export_recovery(self, *, threshold: int, shares: int) -> Export:
        """See `KeyStore.export_recovery`."""
        from datavern.crypto import recovery  # noqa: PLC0415  (seldom asked for)

        await self._keyring.reload()
        made = recovery.export(await self._keyring.secrets(), threshold=threshold, shares=shares)
        rotations = self._rotations()
        row = {
            "id": made.id,
            "epochs": ",".join(map(str, made.epochs)),
            "threshold": threshold,
            "shares": shares,
            "created_at": made.created_at,
            "created_by": current_actor(),
            "ended_at": None,
            "ended_by": None,
        }
        details = {"recovery": made.id, "threshold": threshold, "shares": shares}
        async with needs(self._privacy.ledger, "transactions").transaction() as tx:
            # Before anybody has it: there is none that the store does not know of.
            await tx.execute(*rotations.sql.insert_recovery.bind(rotations.dialect, **row))
            await self._privacy.ledger_log.append(tx, action="recovery_exported", details=details)
        return made

    async def end_recovery(self, id_: str) -> None:
        """See `KeyStore.end_recovery`."""
        rotations = self._rotations()
        end = rotations.sql.end_recovery.bind(rotations.dialect, of=id_, at=timestamp(), by=current_actor() or "nobody")
        async with needs(self._privacy.ledger, "transactions").transaction() as tx:
            ended = await tx.execute(*end)
            if ended:
                await self._privacy.ledger_log.append(tx, action="recovery_ended", details={"recovery": id_})
        if not ended and id_ not in {r.id for r in await self.recoveries()}:
            raise ConfigurationError("there is no recovery of that name: `datavern keys status` lists them")

    async def recoveries(self) -> list[Recovery]:
        """Every copy of the ring that was ever made for people to hold together."""
        rotations = self._rotations()
        rows = await rotations.session.query(*rotations.sql.recoveries.bind(rotations.dialect))
        return [
            Recovery(
                row["id"],
                tuple(int(number) for number in row["epochs"].split(",")),
                row["threshold"],
                row["shares"],
                row["created_at"],
                row["ended_at"],
                row["ended_by"],
            )
            for row in rows
        ]

    async def destroyed(self, tag: bytes) -> tuple[list[Any], Any]:
        """The rows of a subject's keys, and the tombstone of the last erasure, or None."""
        rotations = self._rotations()
        sql, session, dialect = rotations.sql, rotations.session, rotations.dialect
        rows = list(await session.query(*sql.keys_of.bind(dialect, tag=tag)))
        return rows, await session.query_one(*sql.tombstone.bind(dialect, tag=tag))

    async def purged(self) -> list[Rotation]:
        """Rotations whose old epoch key a vault still keeps, asked now."""
        return await self._rotations().purged()

    async def rotations(self) -> list[Rotation]:
        """Every rotation, the oldest first."""
        return await self._rotations().all()


def _together(before: Mapping[str, Any], done: Mapping[str, Any]) -> dict[str, Any]:
    """What was re-indexed in this run, with what earlier runs did that were cut off."""
    indexed = dict(before.get("indexed", {}))
    for label, number in done["indexed"].items():
        indexed[label] = indexed.get(label, 0) + number
    return {
        "indexed": indexed,
        "unreadable": {**before.get("unreadable", {}), **done["unreadable"]},
        "kept": sorted({*before.get("kept", ()), *done["kept"]}),
    }
