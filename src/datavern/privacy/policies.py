"""What an erasure does to a subject's rows in one dataset, by the data map's erasure policy.

Each policy works in the erasure's own transaction, after the keys were ended there, so that it sees every row that was
ever written under them. It returns what it did in counts and column names: never a value.
"""

from __future__ import annotations

import datetime as dt
import secrets
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import QueryRejected
from datavern.contracts.values import timestamp
from datavern.crypto.sealed import new_row_tag
from datavern.privacy.dataset import ERASED_AT, RETAINED_UNTIL, ROW_TAG
from datavern.privacy.retention import Period
from datavern.privacy.rows import RETENTION, is_whole

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Column, Transaction
    from datavern.crypto.keystore import KeyStore
    from datavern.privacy.personal import PersonalStore
    from datavern.privacy.rows import Rows

__all__ = ["Step", "apply", "columns_needed"]

Outcome = dict[str, Any]


@dataclass(slots=True)
class Step:
    """An erasure in one dataset.

    A policy reaches rows through its methods alone: `datavern.privacy.row_erasure` has a step of its own, which reads
    the rows of many people at once and keeps what is to be done with them.

    Attributes:
        store: the dataset.
        rows: how its rows stand in their table.
        subject: the canonical id.
        ended: the ids of the keys that the erasure ends.
        request: the request's id.
        today: the day of the erasure.
        keys: the key store.
        tx: the open transaction in the dataset's database; None where there is none that could hold a row.
    """

    store: PersonalStore
    rows: Rows
    subject: str
    ended: Collection[bytes]
    request: str
    today: dt.date
    keys: KeyStore
    tx: Transaction | None

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
        where = self.where
        if where is None:
            return []
        columns, lock = columns_needed(self.rows), self.tx is not None
        found: list[dict[str, Any]] = await self.subjects.select(
            self.table, where | more, columns=columns, lock=lock, transaction=self.tx
        )
        return [row for row in found if self.rows.is_of(row, self.subject)]

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
    if dataset.erasure != "delete":
        return None
    return list(dict.fromkeys(name for name in (*dataset.keys, dataset.subject) if name is not None))


async def apply(step: Step) -> Outcome:
    """Do what the dataset's policy says: ``{"policy", "found", "done", "kept", "left", "notes"}``. Idempotent."""
    policy = step.store.dataset.erasure
    outcome: Outcome = {"policy": policy, "found": 0, "done": {}, "kept": [], "left": [], "notes": []}
    await _POLICIES[policy](step, outcome)
    return outcome


async def _delete(step: Step, outcome: Outcome) -> None:
    outcome["found"] = await step.delete(await step.select())
    _done(outcome, "deleted", outcome["found"])


async def _anonymize(step: Step, outcome: Outcome) -> None:
    found = await step.select()
    outcome["found"] = len(found)
    if not found:
        return
    column = step.rows.subject_column
    referenced = bool(step.rows.store.referenced_by) and _unique(step.rows, column)
    kept = ""
    for row in found:
        emptied = _emptied(step.rows)
        if ROW_TAG in step.rows.columns:
            emptied[ROW_TAG] = new_row_tag()  # older copies of the row hold the old tag beside the subject
        pseudonym = None if referenced else _pseudonym(column)
        if pseudonym is not None and column is not None:
            try:
                async with step.savepoint():
                    await step.change(row, {**emptied, column.name: pseudonym})
                continue
            except QueryRejected:  # too short a column, a constraint: the reason is the table's, and it stays
                kept = "the table does not take a pseudonym there"
        await step.change(row, emptied)
        kept = kept or ("rows of other tables refer to it" if referenced else "its type takes no pseudonym")
    outcome["left"] = _left(step.rows, subject=bool(kept))
    if kept and column is not None:
        outcome["notes"].append(f"the subject column {column.name} stays as it was: {kept}")
    _done(outcome, "anonymized", len(found))


async def _soft(step: Step, outcome: Outcome) -> None:
    found = await step.select(**{ERASED_AT: None})
    outcome["found"] = len(found)
    moment = timestamp()
    for row in found:
        await step.change(row, {**_emptied(step.rows), ERASED_AT: moment})
    if found:
        outcome["left"] = _left(step.rows, subject=True)
    _done(outcome, "emptied and marked as erased", len(found))


async def _shred(step: Step, outcome: Outcome) -> None:
    rows = step.rows
    found = await step.select()
    outcome["found"] = len(found)
    shredded = 0
    for row in found:
        plain = {column: None for column in rows.aside.values() if row[column] is not None}
        if rows.key_ids(row).isdisjoint(step.ended) and not plain:
            continue
        shredded += 1
        unindexed: dict[str, Any] = plain | {column: rows.no_index(column) for column in step.store.dataset.indexes}
        if unindexed:
            await step.change(row, unindexed)
    if found:
        outcome["left"] = sorted({*_left(rows, subject=True), *_plain(rows)})
    _done(outcome, "shredded with their keys", shredded)
    _done(outcome, "shredded before, or never sealed", len(found) - shredded)


async def _retain(step: Step, outcome: Outcome) -> None:
    rows, dataset = step.rows, step.store.dataset
    found = await step.select()
    outcome["found"] = len(found)
    kept: Counter[str] = Counter()
    resealed = ended = 0
    for row in found:
        until = _until(step, row)
        if until < step.today:
            await step.delete([row])
            ended += 1
            continue
        kept[until.isoformat()] += 1
        changes: dict[str, Any] = {}
        if row.get(RETAINED_UNTIL) is None:
            changes[RETAINED_UNTIL] = until.isoformat()
        if not rows.key_ids(row).isdisjoint(step.ended):
            key = await step.keys.subject_key(dataset.name + RETENTION, f"retention:{step.request}", session=step.tx)
            opened = rows.opened(row, await step.keys.keys(rows.key_ids(row), session=step.tx))
            opened = rows.with_aside(row, opened)
            changes |= rows.resealed(key, row, opened)
            resealed += 1
        if changes:
            await step.change(row, changes)
    _done(outcome, "deleted, their retention had ended", ended)
    _done(outcome, "sealed anew under a retention key", resealed)
    why = dataset.lawful_by
    outcome["kept"] = [{"rows": number, "why": why, "until": until} for until, number in sorted(kept.items())]
    if kept:
        outcome["left"] = _left(rows, subject=True) + _plain(rows)
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
        start = _day(row.get(dataset.retention_from)) or start
    if dataset.retention_from_year_end:
        start = dt.date(start.year, 12, 31)
    return Period.parse(dataset.retention or "").after(start)


def _day(value: Any) -> dt.date | None:
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    try:
        return dt.date.fromisoformat(str(value)[:10])
    except ValueError:
        return None  # nothing, or no date: the period is counted from the day of the erasure, which is the longer one


def _emptied(rows: Rows) -> dict[str, Any]:
    """Every mapped field of a row, emptied, and no index to it left."""
    dataset = rows.dataset
    emptied: dict[str, Any] = {}
    for name, field in dataset.fields.items():
        if name == dataset.subject or name in dataset.keys:
            continue
        column = rows.columns[name]
        unique = _unique(rows, column)
        if column.nullable:
            emptied[name] = None
        elif field.sealed:
            emptied[name] = b"\x00" + secrets.token_bytes(16) if unique else b""
        else:
            emptied[name] = _blank(field.type, unique=unique)
    emptied |= dict.fromkeys(rows.aside.values())
    for column_name in dataset.indexes:
        emptied[column_name] = rows.no_index(column_name)
    return emptied


def _blank(kind: str, *, unique: bool) -> Any:
    """What stands in a column that takes no NULL when its value is gone."""
    if unique and kind in ("text", "bytes", "integer"):
        random = {"text": _text(), "bytes": secrets.token_bytes(16), "integer": -1 - secrets.randbelow(2**31 - 1)}
        return random[kind]
    blank: dict[str, Any] = {
        "text": "",
        "integer": 0,
        "real": 0.0,
        "boolean": False,
        "bytes": b"",
        "date": dt.date(1970, 1, 1),
        "timestamp": dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
        "json": {},
    }
    return blank[kind]


def _text() -> str:
    return f"erased-{secrets.token_hex(8)}"


def _pseudonym(column: Column | None) -> Any:
    """A random value for a subject column, from which nothing leads back; None where its type takes none."""
    kind = "" if column is None else column.type
    if kind == "uuid":
        return str(uuid.uuid4())
    if column is not None and is_whole(kind):
        return -1 - secrets.randbelow((1 << (column.bits or 64) - 1) - 1)
    return _text() if kind == "text" or "char" in kind else None


def _unique(rows: Rows, column: Column | None) -> bool:
    return column is not None and any(column.name in names for names in rows.store.unique)


def _left(rows: Rows, *, subject: bool) -> list[str]:
    """The columns that stay as they are: those not mapped, the primary key, and the subject if it does."""
    dataset = rows.dataset
    gone = {ROW_TAG, ERASED_AT, RETAINED_UNTIL, *dataset.indexes, *dataset.fields, *rows.aside.values()} - set(
        dataset.keys
    )
    if dataset.subject is not None:
        gone = gone - {dataset.subject} if subject else gone | {dataset.subject}
    return [name for name in rows.columns if name not in gone]


def _plain(rows: Rows) -> list[str]:
    """The mapped fields that are not sealed: where rows stay as they are, these can be read."""
    dataset = rows.dataset
    return [name for name, field in dataset.fields.items() if not field.sealed and name != dataset.subject]
