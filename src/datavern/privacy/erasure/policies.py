"""What an erasure does to a subject's rows in one dataset, by the data map's erasure policy.

Each policy works in the erasure's own transaction, after the keys were ended there, so that it sees every row that was
ever written under them. It returns what it did in counts and column names: never a value.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import KeyErased, QueryRejected
from datavern.contracts.values import timestamp
from datavern.crypto.sealed import new_row_tag
from datavern.privacy.datamap.dataset import ERASED_AT, RETAINED_UNTIL, ROW_TAG
from datavern.privacy.erasure.emptying import (
    Remains,
    emptied,
    is_unique,
    key_of_nobody,
    left,
    of_others,
    plain,
    pseudonym,
)
from datavern.privacy.personal.rows import RETENTION
from datavern.privacy.values.periods import Period

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.sealed import DataKey
    from datavern.privacy.holds.holds import Grip, Grips, Holds
    from datavern.privacy.personal.rows import Rows
    from datavern.privacy.personal.store import PersonalStore

__all__ = ["Step", "apply", "columns_needed", "day_of", "retention_subject"]

Outcome = dict[str, Any]


@dataclass(slots=True)
class Step:
    """An erasure in one dataset.

    A policy reaches rows through its methods alone: `datavern.privacy.erasure.rows` has a step of its own, which reads
    the rows of many people at once and keeps what is to be done with them.

    Attributes:
        store: the dataset.
        rows: how its rows stand in their table.
        subject: the canonical id; empty where the rows are several people's, past their time.
        ended: the ids of the keys that the erasure ends.
        request: the request's id; empty where none is answered, and what a hold keeps stays as it is.
        today: the day of the erasure.
        keys: the key store.
        tx: the open transaction in the dataset's database; None where there is none that could hold a row.
        nobody: what `key_of_nobody` gave.
        holds: the legal holds, which keep rows whatever the policy says; None: nobody asks.
        own: the rows, where they were found already, and are held.
        lost: rows that stay, and that nobody can open again: so far.
    """

    store: PersonalStore
    rows: Rows
    subject: str
    ended: Collection[bytes]
    request: str
    today: dt.date
    keys: KeyStore
    tx: Transaction | None
    nobody: DataKey | None = None
    holds: Holds | None = None
    own: Sequence[dict[str, Any]] | None = None
    lost: int = 0

    @property
    def where(self) -> dict[str, Any] | None:
        """The subject's rows."""
        return self.rows.where_subject(self.subject)

    @property
    def subjects(self) -> Any:
        """The engine's hands."""
        return self.store.subjects

    @property
    def table(self) -> str:
        """The table's name."""
        return self.store.dataset.table

    async def select(self, **more: Any) -> list[dict[str, Any]]:
        """The subject's rows, locked: those of that very id, whatever else the column takes for the same."""
        if self.own is not None:
            return [row for row in self.own if all(row.get(name) == value for name, value in more.items())]
        where = self.where
        if where is None:
            return []
        columns, lock = columns_needed(self.rows), self.tx is not None
        found: list[dict[str, Any]] = await self.subjects.select(
            self.table, where | more, columns=columns, lock=lock, transaction=self.tx
        )
        return [row for row in found if self.rows.is_of(row, self.subject)]

    async def free(self, outcome: Outcome, **more: Any) -> list[dict[str, Any]]:
        """The rows that no legal hold keeps. Those that one keeps are told of, and closed until it ends."""
        found = await self.select(**more)
        outcome["found"] = len(found)
        gripped = await self.gripping(found)
        if not any(gripped):
            return found
        free: list[dict[str, Any]] = []
        held: Counter[tuple[str, str]] = Counter()
        for row, grip in zip(found, gripped, strict=True):
            if grip is None:
                free.append(row)
                continue
            held[grip.why, grip.until] += 1
            if self.request:
                await self.close(row)
        outcome["kept"] += [{"rows": n, "why": why, "until": until} for (why, until), n in sorted(held.items())]
        if held and self.request:
            outcome["notes"].append("rows under a legal hold stay until it ends, and then end by themselves")
        return free

    async def gripping(self, found: Sequence[dict[str, Any]]) -> list[Grip | None]:
        """What keeps each of the rows, whatever the policy says: a legal hold, or rows that only this one leads to."""
        grips = await self.grips() if found else None
        gripped = [None if grips is None else grips.on(self.rows, row) for row in found]
        if self.store.led and found:
            leads = await self.store.leads(found, self.tx)
            gripped = [grip or lead for grip, lead in zip(gripped, leads, strict=True)]
        return gripped

    async def grips(self) -> Grips | None:
        """What holds rows here now; None where nothing does."""
        if self.holds is None:
            return None
        subjects = [self.subject] if self.subject else None
        return await self.holds.grips(self.store.dataset, subjects, self.tx)

    async def close(self, row: Mapping[str, Any]) -> None:
        """Keep a row that a hold keeps: under a key that is not its person's, and no lookup leads to it."""
        if self.holds is not None:
            await self.holds.keep(self.store.dataset, row, self.request, self.tx)
        if columns_needed(self.rows) is not None:  # no more of it was read than says which it is
            (row,) = await self.subjects.select(self.table, self.where_row(row), transaction=self.tx)
        changes = await self.under_retention_key(row)
        if changes:
            await self.change(row, changes)

    async def under_retention_key(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What is to change in a row that stays, so that its person's key may end; nothing where it was changed."""
        rows = self.rows
        if rows.key_ids(row).isdisjoint(self.ended):
            return {}
        name = self.store.dataset.name + RETENTION
        key = await self.keys.subject_key(name, retention_subject(self.request), session=self.tx)
        try:
            keys = await self.keys.keys(rows.key_ids(row), session=self.tx)
        except KeyErased:  # the row was restored from before its erasure, and nobody can open it again
            self.lost += 1
            return {column: rows.no_index(column) for column in self.store.dataset.indexes}
        opened = rows.opened(row, keys)
        return rows.resealed(key, row, rows.with_aside(row, opened))

    def savepoint(self) -> AbstractAsyncContextManager[Any]:
        """A block that can fail on its own; a single change does so anyway."""
        return nullcontext() if self.tx is None else self.tx.savepoint()

    def where_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """One of them."""
        names = (*self.store.dataset.keys, self.rows.subject)
        return {name: row[name] for name in names if name is not None}

    async def change(self, row: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        """Change one of them."""
        await self.subjects.update(self.table, self.where_row(row), changes, transaction=self.tx)

    async def delete(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Delete some of them; how many went."""
        gone = 0
        for row in rows:
            gone += await self.subjects.delete(self.table, self.where_row(row), transaction=self.tx)
        return gone


def columns_needed(rows: Rows) -> list[str] | None:
    """What a policy has to know of a row; None: all of it."""
    dataset = rows.dataset
    if dataset.erasure != "delete" or not set(dataset.sealed).isdisjoint(rows.led):
        return None
    return list(dict.fromkeys(name for name in (*dataset.keys, dataset.subject, *rows.led) if name is not None))


def retention_subject(request: str) -> str:
    """Under which name the keys stand of the rows that stayed when a request was done."""
    return f"retention:{request}"


async def apply(step: Step) -> Outcome:
    """Do what the dataset's policy says: ``{"policy", "found", "done", "kept", "left", "notes"}``. Idempotent."""
    policy = step.store.dataset.erasure
    outcome: Outcome = {"policy": policy, "found": 0, "done": {}, "kept": [], "left": [], "notes": []}
    await _POLICIES[policy](step, outcome)
    if step.lost:
        outcome["notes"].append(
            f"what was sealed in {step.lost} of the rows that stay cannot be opened again: they were restored from "
            "before their erasure, and its keys are destroyed"
        )
    return outcome


async def _delete(step: Step, outcome: Outcome) -> None:
    found = await step.free(outcome)
    gone = await step.delete(found)
    outcome["found"] += gone - len(found)
    _done(outcome, "deleted", gone)


async def _anonymize(step: Step, outcome: Outcome) -> None:
    rows = step.rows
    found = [row for row in await step.free(outcome) if row.get(ERASED_AT) is None]
    if not found:
        return
    if step.nobody is None and step.tx is None:
        step.nobody = await key_of_nobody(step.keys, step.store.dataset)
    remains = Remains(rows, step.keys, step.nobody, step.today)
    column = rows.pseudonymous
    referenced = bool(rows.store.referenced_by) and is_unique(rows, column)
    kept, refused = "", 0
    for row in found:
        if not step.subject:
            remains.another()
        empty = emptied(rows, of_others(rows, row, step.subject))
        if ROW_TAG in rows.columns and rows.dataset.needs_keys:  # or the tag is another dataset's, over the same table
            empty[ROW_TAG] = new_row_tag()  # older copies of the row hold the old tag beside the subject
        if ERASED_AT in rows.columns:
            empty[ERASED_AT] = timestamp()
        made: Mapping[str, Any] = await remains.of(row, empty.get(ROW_TAG), step.tx)
        random = None if referenced else pseudonym(column)
        subject: Mapping[str, Any] = {} if random is None or column is None else {column.name: random}
        ways = ({**made, **subject}, subject if made else {}, made if subject else {})
        way: Mapping[str, Any] = await _changed(step, row, empty, ways)
        refused += bool(made) and way.keys().isdisjoint(made)
        if column is not None and column.name not in way and column.name not in empty:
            takes_none = "the table does not take a pseudonym there" if subject else "its type takes no pseudonym"
            kept = kept or ("rows of other tables refer to it" if referenced else takes_none)
    outcome["left"] = left(rows, subject=bool(kept) or column is None)
    if kept and column is not None:
        outcome["notes"].append(f"the subject column {column.name} stays as it was: {kept}")
    outcome["notes"] += remains.notes()
    if refused:
        outcome["notes"].append(f"{refused} of the rows take nothing of that: the table refuses it, and it was emptied")
    _done(outcome, "anonymized", len(found))


async def _changed(
    step: Step, row: Mapping[str, Any], empty: Mapping[str, Any], ways: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Empty a row, with the first of what else is wanted that its table takes; which that was.

    What the table does not take (a column too short, a constraint) gives way.
    """
    for way in filter(None, ways):
        try:
            async with step.savepoint():
                await step.change(row, {**empty, **way})
        except QueryRejected:
            continue
        return way
    await step.change(row, empty)
    return {}


async def _soft(step: Step, outcome: Outcome) -> None:
    found = await step.free(outcome, **{ERASED_AT: None})
    moment = timestamp()
    for row in found:
        await step.change(row, {**emptied(step.rows, of_others(step.rows, row, step.subject)), ERASED_AT: moment})
    if found:
        outcome["left"] = left(step.rows, subject=not step.rows.number)
    _done(outcome, "emptied and marked as erased", len(found))


async def _shred(step: Step, outcome: Outcome) -> None:
    rows = step.rows
    found = await step.free(outcome)
    shredded = 0
    for row in found:
        aside = {column: None for column in rows.aside.values() if row[column] is not None}
        if rows.key_ids(row).isdisjoint(step.ended) and not aside:
            continue
        shredded += 1
        unindexed: dict[str, Any] = aside | {column: rows.no_index(column) for column in step.store.dataset.indexes}
        if unindexed:
            await step.change(row, unindexed)
    if found:
        outcome["left"] = sorted({*left(rows, subject=True), *plain(rows)})
    _done(outcome, "shredded with their keys", shredded)
    _done(outcome, "shredded before, or never sealed", len(found) - shredded)


async def _retain(step: Step, outcome: Outcome) -> None:
    rows, dataset = step.rows, step.store.dataset
    found = await step.select()
    outcome["found"] = len(found)
    gripped = await step.gripping(found)
    kept: Counter[tuple[str, str]] = Counter()
    resealed = ended = 0
    law = dataset.lawful_by
    for row, grip in zip(found, gripped, strict=True):
        until = _until(step, row)
        if until < step.today and grip is None:
            await step.delete([row])
            ended += 1
            continue
        beyond = grip is not None and (until < step.today or grip.until > until.isoformat())
        kept[(grip.why, grip.until) if grip is not None and beyond else (law, until.isoformat())] += 1
        changes: dict[str, Any] = await step.under_retention_key(row)
        resealed += bool(changes)
        if row.get(RETAINED_UNTIL) is None:
            changes[RETAINED_UNTIL] = until.isoformat()
        if changes and step.request:
            await step.change(row, changes)
    _done(outcome, "deleted, their retention had ended", ended)
    _done(outcome, "sealed anew under a retention key", resealed)
    outcome["kept"] = [{"rows": n, "why": why, "until": until} for (why, until), n in sorted(kept.items())]
    if kept:
        outcome["left"] = left(rows, subject=True) + plain(rows)
        outcome["notes"].append("an access request of the subject still finds the rows that are kept")


_POLICIES: dict[str, Callable[[Step, Outcome], Awaitable[None]]] = {
    "delete": _delete,
    "anonymize": _anonymize,
    "soft": _soft,
    "shred": _shred,
    "retain": _retain,
}


def _done(outcome: Outcome, what: str, number: int) -> None:
    if number:
        outcome["done"][what] = number


def _until(step: Step, row: Mapping[str, Any]) -> dt.date:
    """The last day on which the law keeps a row."""
    dataset = step.store.dataset
    retained = row.get(RETAINED_UNTIL)
    if retained is not None:
        return dt.date.fromisoformat(retained)
    start = step.today
    if dataset.retention_from is not None:
        start = day_of(row.get(dataset.retention_from)) or start
    if dataset.retention_from_year_end:
        start = dt.date(start.year, 12, 31)
    return Period.parse(dataset.retention or "").after(start)


def day_of(value: Any) -> dt.date | None:
    """The day of a date, a moment, or the text of either; None where it is none."""
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    try:
        return dt.date.fromisoformat(str(value)[:10])
    except ValueError:
        return None  # nothing, or no date: the period is counted from the day of the erasure, which is the longer one
