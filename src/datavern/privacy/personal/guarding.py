"""What every write of personal data does beside the write: keys held, consents checked, unique values looked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datavern.contracts.capabilities import Session, Transaction
from datavern.contracts.errors import ConfigurationError, ConsentRequired, ConstraintViolated, KeyUnavailable
from datavern.contracts.subjects import canonical_subject
from datavern.crypto.life import LookupKeyEnded
from datavern.crypto.sealed import DataKey, new_row_tag
from datavern.privacy.datamap.dataset import ROW_TAG
from datavern.privacy.personal.reading import ReadRows
from datavern.privacy.personal.rows import Rows

__all__ = ["GuardedRows"]


class GuardedRows(ReadRows):
    """The conditions of a write: see `datavern.privacy.personal.store.PersonalStore`, which is made of this."""

    __slots__ = ()

    def _require(self, consent: Any) -> None:
        if consent is None and self._purposes and (purposes := self._needed()):
            needed = ", ".join(purposes)
            raise ConsentRequired(f"{self.dataset.label}: no consent was given; needed: {needed}")

    async def held(self, tx: Session, rows: Rows, keys: Sequence[DataKey]) -> Rows:
        """Hold the keys of a write until its transaction ends; how the rows stand by then."""
        return await self._held(tx, rows, keys if self.dataset.subject else [], *keys)

    async def _held(
        self, tx: Session, rows: Rows, keys: Sequence[DataKey], *writing: DataKey, also: Iterable[bytes] = ()
    ) -> Rows:
        """Hold the keys of a write until its transaction ends; how the rows stand by then.

        Args:
            tx: the open transaction.
            rows: how they stood when the write was made.
            keys: of the subjects.
            writing: the keys that it writes under.
            also: the ids of further keys.

        Raises:
            KeyErased: an erasure has ended one of them.
            KeyUnavailable: a lookup key was ended, and there is no newer one.
        """
        ids = sorted({*(key.id for key in keys), *also})
        ended: list[bytes] = []
        while True:
            lookups = sorted({life for key in writing for life in rows.lookup_lives(key)})
            if not ids and not lookups:
                return rows
            if lookups and lookups == ended:  # a rotation has its new keys in the store before it ends the old ones
                raise KeyUnavailable(
                    f"{self._provider.name} says that the lookup keys of {self.dataset.name} were ended, and the key "
                    "store has no newer ones: one of the two was set back, or changed. Restore both to one moment"
                )
            try:
                await self._life.hold(tx, ids, lookups)
            except LookupKeyEnded:
                ended, rows = lookups, await self._renewed()
                continue
            return rows

    async def _check_unique(
        self, rows: Rows, values: Mapping[str, Any], tx: Session | None, *, but: Mapping[str, Any] | None = None
    ) -> None:
        """While a rotation makes the indexes anew: refuse what the database would refuse if all were under one key."""
        if not rows.renewing:
            return
        keys = list(self.dataset.keys)
        for clash in rows.clashes(values):
            found = await self.subjects.select(self._table, clash, columns=keys, transaction=tx)
            if any(but is None or any(row[name] != but[name] for name in keys) for row in found):
                raise ConstraintViolated(
                    f"{self.dataset.label}: a value that must be unique is there already", provider=self._provider.name
                )

    def _same_subject(self, rows: Rows, row: Mapping[str, Any], changes: dict[str, Any]) -> None:
        name = rows.subject
        if name is not None and name in changes:
            value = changes.pop(name)
            of = canonical_subject if self.link is None or self.link.sealed else self.link.text
            if value is None or of(value) != (rows.subject_of(row) if self.link is None else of(row[name])):
                raise ConfigurationError(
                    f"{self.dataset.name}.{rows.subject}: whose data a row is cannot change: "
                    "delete it, and insert it anew"
                )

    def _changed(self, rows: Rows, row: Mapping[str, Any], changes: Mapping[str, Any], key: DataKey) -> dict[str, Any]:
        if not self.dataset.needs_keys:
            return dict(changes)
        tag, plain = row[ROW_TAG], rows.sealed_by_now(row, changes)
        if tag is not None:
            return rows.sealed(key, tag, changes) | plain
        tag = new_row_tag()  # a row that plain SQL inserted gets its tag with its first sealed value
        return rows.sealed(key, tag, changes) | plain | {ROW_TAG: tag}

    async def _under(self, kind: str, key_ids: Iterable[bytes], transaction: Transaction | None) -> bool:
        keys = await self._keys.keys(key_ids, session=transaction)
        return any(key.dataset.endswith(kind) for key in keys.values())

    async def _key_ready(self, subject: str | None) -> None:
        if subject is not None:
            await self._keys.subject_key(self.dataset.name, subject)
            await self._keys.handle(subject)

    async def _check_many(
        self, subjects: Sequence[str], consents: Sequence[Any], tx: Transaction
    ) -> dict[int, tuple[str, ...]]:
        asked = [i for i, consent in enumerate(consents) if consent is not None]
        pairs = [(subjects[i], consents[i]) for i in asked]
        if not pairs:
            return {}
        checked = await self._consents.check_many(pairs, self._needed(), rules=self._rules, transaction=tx)
        return dict(zip(asked, checked, strict=True))
