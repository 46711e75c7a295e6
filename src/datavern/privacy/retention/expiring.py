"""One way of a retention run through one dataset, batch after batch: see `datavern.privacy.retention.run`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, QueryRejected
from datavern.contracts.values import today
from datavern.privacy.datamap.dataset import ERASED_AT, RETAINED_UNTIL
from datavern.privacy.erasure.emptying import emptied, key_of_nobody
from datavern.privacy.erasure.policies import Step, apply, day_of
from datavern.privacy.personal.records import RecordStore

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.crypto.sealed import DataKey
    from datavern.privacy.erasure.progress import Place
    from datavern.privacy.holds.holds import Grips
    from datavern.privacy.personal.rows import Rows
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.service import Privacy

__all__ = ["Expired", "Pass", "stays"]


@dataclass(slots=True)
class Expired:
    """What a run did with one dataset, or would do.

    Attributes:
        dataset: its label.
        action: "delete", "anonymise", "empty and mark", "empty what is sealed", "expire" (keys and values); empty where
            it was passed over.
        before: rows of this day and later are kept.
        rows: how many ended, or of a dry run: how many are past their time.
        held: how many stay because of a legal hold, or because the person's data is restricted.
        refused: how many the database does not let go: rows of other tables refer to them.
        oldest: the oldest date that was past.
        notes: what is to be known of it.
        waiting: why it could not be done, or None.
    """

    dataset: str
    action: str = ""
    before: dt.date | None = None
    rows: int = 0
    held: int = 0
    refused: int = 0
    oldest: dt.date | None = None
    notes: list[str] = field(default_factory=list)
    waiting: str | None = None


def stays(
    privacy: Privacy, store: PersonalStore, row: Mapping[str, Any], rows: Rows | None, grips: Grips | None
) -> bool:
    """Whether a row stays: a hold keeps it, or the person's data is restricted.

    Args:
        privacy: what stands against the use of whose data.
        store: the dataset.
        row: the row; of a store of keys, the subject alone.
        rows: how it stands in its table; None in a store of keys.
        grips: the holds on the dataset.
    """
    if grips is None and not privacy.standing.marks:
        return False
    try:
        subject = row.get(store.dataset.subject or "") if rows is None else rows.subject_of(row)
    except ConfigurationError:
        subject = None  # nobody can have that id
    if subject is not None:
        marks = privacy.standing.marks.get(privacy.keys.subject_tag(str(subject)), ())
        if any(mark.restricts(store.dataset) for mark in marks):
            return True
    if grips is None:
        return False
    return (grips.of(str(subject)) if rows is None else grips.on(rows, row)) is not None


class Pass:
    """One way through one dataset: by the date in one column.

    Args:
        privacy: the holds, the keys and the log.
        place: the dataset.
        column: where the date stands.
        before: the first day that is kept.
        size: rows in one transaction.
    """

    def __init__(self, privacy: Privacy, place: Place, column: str, before: dt.date, size: int) -> None:
        assert place.rows is not None  # noqa: S101  (for the type checker: `_look` saw to it)
        self._privacy = privacy
        self._store = place.store
        self._rows: Rows = place.rows
        self._dataset = place.store.dataset
        self._column = column
        self._before = before
        self._size = size
        self._records = isinstance(place.store, RecordStore)
        self._site = privacy.site(self._dataset.database)
        self._nobody: DataKey | None = None

    @property
    def _deletes(self) -> bool:
        return self._dataset.erasure in ("delete", "retain") or (
            self._dataset.erasure == "shred" and not self._dataset.needs_keys
        )

    @property
    def _ages(self) -> Any:
        return needs(self._store.provider, "ages")

    def _where(self) -> dict[str, Any]:
        if self._dataset.erasure == "retain" and self._column != RETAINED_UNTIL:
            return {RETAINED_UNTIL: None}  # of those that the law keeps, that column says when they end
        return {ERASED_AT: None} if self._dataset.marks_erased else {}

    async def count(self, expired: Expired) -> None:
        """How many are past, and the oldest."""
        where = self._where()
        number, oldest = await self._ages.count(self._dataset.table, self._column, self._before, where=where)
        expired.rows += number
        _older(expired, day_of(oldest))
        grips = await self._privacy.holds.grips(self._dataset, None, None) if number else None
        if grips is not None:
            expired.notes.append("legal holds keep some rows of it")
        if number and self._dataset.erasure == "shred" and not self._deletes:
            expired.notes.append("rows in which what was sealed is empty already are counted too")

    async def run(self, expired: Expired, told: Callable[[str, int], None]) -> None:
        """End them, batch after batch; and once more, for what somebody had locked the first time."""
        self._nobody = await key_of_nobody(self._privacy.keys, self._dataset)
        held = refused = 0
        for again in (False, True):
            held = refused = 0
            after: Sequence[Any] | None = None
            while True:
                if monotonic() >= self._privacy.standing.until:  # a restriction may have come meanwhile
                    await self._privacy.standing.ask()
                batch = await self._batch(after)
                expired.rows += batch.ended
                held, refused, after = held + batch.held, refused + batch.refused, batch.last
                _older(expired, batch.oldest)
                if batch.ended:
                    told(self._dataset.label, batch.ended)
                if after is None:
                    break
            if again or self._records:  # nothing is locked among records: once is enough
                break
        expired.held += held
        expired.refused += refused
        if refused:
            expired.notes.append("what is refused is referred to by other rows, or a constraint keeps it as it is")

    async def _batch(self, after: Sequence[Any] | None) -> _Batch:
        if self._records:
            return await self._batch_of_records(after)

        async def work(tx: Transaction) -> _Batch:
            found = await self._found(after, tx)
            batch = await self._sorted(found, tx)
            if batch.rows:
                await self._end_rows(batch, tx)
            if batch.ended:
                said = self._said(batch)
                await self._site.log.append(tx, action="expired", dataset=self._dataset.label, details=said)
            return batch

        # Each statement by itself: a hold that was placed while the rows were waited for is seen.
        transactions = needs(self._site.provider, "transactions")
        batch: _Batch = await transactions.run_in_transaction(work, isolation="read committed")
        return batch

    async def _batch_of_records(self, after: Sequence[Any] | None) -> _Batch:
        """The same where nothing commits together: it is written down before it is done, and may be done again."""
        found = await self._found(after, None)
        batch = await self._sorted(found, None)
        if not batch.rows:
            return batch
        planned = self._said(batch, len(batch.rows))
        session = needs(self._privacy.ledger, "session")
        await self._privacy.ledger_log.append(session, action="expired", dataset=self._dataset.label, details=planned)
        await self._end_rows(batch, None)
        return batch

    async def _found(self, after: Sequence[Any] | None, tx: Transaction | None) -> list[dict[str, Any]]:
        dataset, rows = self._dataset, self._rows
        columns = None
        if self._deletes and not self._records and self._store.link is None and not self._store.led:
            wanted = [*dataset.keys, rows.subject, self._column]
            columns = list(dict.fromkeys(name for name in wanted if name in rows.columns))
        found: list[dict[str, Any]] = await self._ages.past(
            dataset.table,
            self._column,
            self._before,
            where=self._where(),
            keys=dataset.keys,
            after=after,
            limit=self._size,
            columns=columns,
            transaction=tx,
        )
        link = self._store.link
        return found if link is None else await link.marked(found, tx)

    async def _sorted(self, found: Sequence[dict[str, Any]], tx: Transaction | None) -> _Batch:
        """Those that end, and those that stay."""
        batch = _Batch()
        if not found:
            return batch
        if len(found) == self._size:
            batch.last = self._ages.behind(found[-1], self._column, self._dataset.keys)
        grips = await self._privacy.holds.grips(self._dataset, None, tx)
        leads: Sequence[Any] = [None] * len(found)
        if self._store.led:  # what only these rows lead to stays, so they stay too
            leads = await self._store.leads(found, tx)
        for row, lead in zip(found, leads, strict=True):
            day = day_of(row.get(self._column))
            if day is None or day >= self._before:  # text that is no date
                continue
            if self._dataset.erasure == "shred" and not self._deletes and not self._rows.key_ids(row):
                continue  # what was sealed in it is gone already
            if lead is not None or stays(self._privacy, self._store, row, self._rows, grips):
                batch.held += 1
                continue
            batch.oldest = day if batch.oldest is None else min(batch.oldest, day)
            batch.rows.append(row)
        return batch

    async def _end_rows(self, batch: _Batch, tx: Transaction | None) -> None:
        """End the rows of a batch; one by one, where they cannot all end."""
        try:
            batch.ended = await self._policy(batch.rows, tx, whole=True)
        except QueryRejected:
            for row in batch.rows:
                try:
                    batch.ended += await self._policy([row], tx, whole=False)
                except QueryRejected:
                    batch.refused += 1

    async def _policy(self, rows: Sequence[dict[str, Any]], tx: Transaction | None, *, whole: bool) -> int:
        """End rows as the data map says; how many ended. In a savepoint: what is refused has not begun."""
        async with nullcontext() if tx is None else tx.savepoint():
            if self._deletes:
                return await self._delete(rows, tx, whole=whole)
            if self._dataset.erasure == "shred":
                return await self._empty_sealed(rows, tx)
            step = self._step(rows, tx)
            outcome = await apply(step)
            return int(outcome["found"])

    def _step(self, rows: Sequence[dict[str, Any]], tx: Transaction | None) -> Step:
        parts = (self._store, self._rows, "", (), "", today(), self._privacy.keys, tx, self._nobody)
        if not self._records:
            step = Step(*parts)
        else:
            from datavern.privacy.erasure.records import RecordStep  # noqa: PLC0415  (only where there are some)

            step = RecordStep(*parts)
        step.own = rows
        return step

    async def _delete(self, rows: Sequence[dict[str, Any]], tx: Transaction | None, *, whole: bool) -> int:
        subjects, table, keys = self._store.subjects, self._dataset.table, self._dataset.keys
        if len(keys) == 1:
            name, most = keys[0], getattr(subjects, "most_values", self._size)
            gone = 0
            for at in range(0, len(rows), most):
                some = tuple(row[name] for row in rows[at : at + most])
                gone += await subjects.delete(table, {name: some}, transaction=tx)
            return gone
        changes = [({name: row[name] for name in keys}, None) for row in rows]
        hands: Any = subjects
        if whole and hasattr(hands, "change_many"):
            await hands.change_many(table, changes, transaction=tx)
            return len(rows)  # they are locked
        return sum([await subjects.delete(table, where, transaction=tx) for where, _ in changes])

    async def _empty_sealed(self, rows: Sequence[dict[str, Any]], tx: Transaction | None) -> int:
        """``shred`` destroys a person's keys, and the person stays: so what is sealed in the row goes itself."""
        step = self._step(rows, tx)
        ours = {*self._dataset.sealed, *self._dataset.indexes, *self._rows.aside.values()}
        for row in rows:
            await step.change(row, {name: value for name, value in emptied(self._rows).items() if name in ours})
        return len(rows)

    def _said(self, batch: _Batch, number: int | None = None) -> dict[str, Any]:
        """What the audit entry says: counts and days, and nobody's handle."""
        return {
            "policy": self._dataset.erasure,
            "rows": batch.ended if number is None else number,
            "before": self._before.isoformat(),
            "by": self._column,
            "oldest": None if batch.oldest is None else batch.oldest.isoformat(),
            "retention": self._dataset.retention,
        }


@dataclass(slots=True)
class _Batch:
    """A batch on its way.

    Attributes:
        rows: those that end.
        ended: how many ended.
        held: how many stay because of a hold or a restriction.
        refused: how many the database does not let go.
        oldest: the oldest date of those that end.
        last: where the next batch begins; None: there is none.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    ended: int = 0
    held: int = 0
    refused: int = 0
    oldest: dt.date | None = None
    last: Sequence[Any] | None = None


def _older(expired: Expired, day: dt.date | None) -> None:
    if day is not None and (expired.oldest is None or day < expired.oldest):
        expired.oldest = day
