"""Sealing a column that is there, in place, while it is used; and back.

The plain column is set aside under another name, and a sealed one takes its own. From then on whoever writes through
``db.personal`` writes sealed values, and reads either; rows are sealed batch by batch, each batch in one transaction
with its audit entry, and each value is opened again and compared before the plain one is emptied. Nothing is kept of
how far it came but the table itself: a row has its value in one of the two columns. So running it again goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from datavern.contracts.capabilities import Transaction, needs
from datavern.contracts.errors import (
    ConfigurationError,
    ConstraintViolated,
    DatavernError,
    DecryptionFailed,
    KeyErased,
    ProviderError,
    QueryRejected,
)
from datavern.contracts.stores import Column, ShapeColumn, Store
from datavern.contracts.values import checked_size
from datavern.crypto.sealed import new_row_tags
from datavern.privacy.datamap.dataset import ASIDE, RETAINED_UNTIL, ROW_TAG, Dataset
from datavern.privacy.personal.rows import RETENTION, Rows

if TYPE_CHECKING:
    from datavern.crypto.sealed import DataKey
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.service import Privacy

__all__ = ["InPlace", "Moved", "field_named"]

_CHANGES = 6
"""So often the columns change at the most while one is sealed by several runs, and once more."""

Step = Callable[[str, int], None]
"""Told of each step: ``begun``, ``batch`` with its rows, ``verified`` with rows, ``emptied``, ``rewritten``."""


@dataclass(frozen=True)
class Moved:
    """What was done with a column.

    Attributes:
        column: ``dataset.field``.
        rows: how many values were sealed, or unsealed, by this call.
        unindexed: sealed without a lookup index: they are not of the field's kind, so no lookup would find them.
        verified: how many sealed values were opened afterwards, over the whole table.
        gone: values whose key is destroyed, so that nobody unseals them.
        dropped: whether the column that was left over is gone; False where the engine keeps it, empty.
        rewritten: "full" (the table's file was made anew), "plain", or None.
    """

    column: str
    rows: int = 0
    unindexed: int = 0
    verified: int = 0
    gone: int = 0
    dropped: bool = True
    rewritten: str | None = None


def field_named(
    column: str, dataset_of: Callable[[str], Dataset], *, form: str = "dataset.field"
) -> tuple[Dataset, str]:
    """The dataset and the field that ``dataset.field`` names.

    Args:
        column: as somebody wrote it.
        dataset_of: the dataset of a name; raises where there is none.
        form: how it is to be written, for the message.

    Raises:
        ConfigurationError: it is not written so, or there is no such field; says which there are.
    """
    name, _, field = column.partition(".")
    if not name or not field:
        raise ConfigurationError(f"a column is named {form}, such as users.personal_number")
    dataset = dataset_of(name)
    if field not in dataset.fields:
        known = ", ".join(dataset.fields) or "none"
        raise ConfigurationError(f"datasets.{name}.fields: no field is called {field}; there are: {known}")
    return dataset, field


class InPlace:
    """The sealing of one column.

    Args:
        privacy: the services.
        column: ``dataset.field``.
        batch_size: rows in a transaction.
        step: told of each step.

    Raises:
        ConfigurationError: no such field, or one that the data map does not call sealed.
    """

    def __init__(self, privacy: Privacy, column: str, *, batch_size: int = 500, step: Step | None = None) -> None:
        dataset, field = field_named(column, lambda name: privacy.personal(name).dataset)
        self.column = column
        self.field = field
        self._store: PersonalStore = privacy.personal(dataset.name)
        if not dataset.fields[field].sealed:
            raise ConfigurationError(
                f"datasets.{dataset.name}.fields.{field}: the data map says what is sealed: set sealed = true there "
                "first"
            )
        self._aside = field + ASIDE
        self._provider = self._store.provider
        self._columns = needs(self._provider, "columns")
        self._batch_size = checked_size(batch_size)
        self._step = step or (lambda _what, _number: None)
        self._moved = self._unindexed = self._gone = 0

    @property
    def _dataset(self) -> Dataset:
        return self._store.dataset

    async def seal(self, *, rewrite: Literal["full", "plain"] | None = "full") -> Moved:
        """Seal the column. What was cut off goes on from where it was; what is done already is only verified.

        Several may run at once: they share the rows, and each ends when all of them are sealed.

        Args:
            rewrite: what is done with the table's file at the end: "full" makes it anew, which keeps everybody out of a
                PostgreSQL table meanwhile; "plain" lets the space be used again; None does nothing.

        Raises:
            ConfigurationError: the table is not such that it can be sealed; says what to do.
            ConstraintViolated: two rows hold the same value of a field that is to be unique.
        """
        return await self._beside_others(lambda: self._seal(rewrite), QueryRejected)

    async def _seal(self, rewrite: Literal["full", "plain"] | None) -> Moved:
        if await self._set_aside():
            self._step("begun", await self._columns.count(self._dataset.table, self._aside))
            await self._all(self._aside, self._seal_batch)
        verified = await self._verify()
        dropped = await self._drop(self._aside)
        self._step("emptied", self._moved)
        await self._rewrite(rewrite)
        return Moved(self.column, self._moved, self._unindexed, verified, dropped=dropped, rewritten=rewrite)

    async def unseal(self, *, kind: str = "text", rewrite: Literal["full", "plain"] | None = "full") -> Moved:
        """Open the column: its values stand in the clear afterwards, and the data map is to say so.

        Several may run at once, as for `seal`.

        Args:
            kind: the type of the plain column: "text", "integer", "date", … as a `Field` names them.
            rewrite: as for `seal`.

        Raises:
            ConfigurationError: as `seal`; a value that a column of that type does not take.
        """
        if not await self._is_sealed():
            raise ConfigurationError(f"{self.column}: there is no sealed column of that name")
        problem = ""
        try:
            return await self._beside_others(
                lambda: self._unseal(kind, rewrite), QueryRejected, DecryptionFailed, ConfigurationError
            )
        except QueryRejected as error:
            problem = str(error)
        raise ConfigurationError(
            f"{self.column} cannot be opened as {kind}: {problem}. If a value is of another type, name that one; what "
            "was done stays, and goes on"
        )

    async def _unseal(self, kind: str, rewrite: Literal["full", "plain"] | None) -> Moved:
        table, columns = self._dataset.table, self._columns
        if not await self._is_sealed():  # another run has exchanged the columns
            return Moved(self.column, self._moved, gone=self._gone)
        subjects: Any = self._store.subjects
        wanted: Any = kind
        found = await subjects.describe(table)
        there = None if found is None else found.column(self._aside)
        fits = there is not None and kind in subjects.types and subjects.holds(there, ShapeColumn(self._aside, wanted))
        if there is not None and not fits:
            if await columns.count(table, self._aside):
                raise ConfigurationError(
                    f"{self.column}: values were opened into {self._aside} before, which is {there.type}: go on with "
                    "that type"
                )
            await self._drop(self._aside)  # an earlier run was told a type that no value had
            there = None
        if there is None:
            await columns.add(table, self._aside, kind, beside=self.field)
        await self._store.rows(fresh=True)
        self._step("begun", await columns.count(table, self.field))
        await self._all(self.field, self._unseal_batch)
        last = 0

        async def exchange(tx: Transaction) -> None:
            nonlocal last
            await columns.lock(tx, table)
            last = 0
            while True:  # what was written meanwhile, now that nobody writes any more
                number, _ = await self._unseal_batch(tx, None)
                if not number:
                    break
                last += number
            await columns.unguard(tx, table, self.field)
            ours = [c for c, name in self._dataset.indexes.items() if name == self.field]
            for name in (*ours, self.field):
                await columns.drop(tx, table, name)
            await columns.rename(tx, table, self._aside, self.field)

        await columns.change(exchange)
        self._moved += last
        self._step("emptied", self._moved)
        await self._rewrite(rewrite)
        return Moved(self.column, self._moved, gone=self._gone, rewritten=rewrite)

    # ---- the steps --------------------------------------------------------------------------------------------------

    async def _beside_others(self, run: Callable[[], Awaitable[Moved]], *refusals: type[DatavernError]) -> Moved:
        """Run it again where it was refused since another run of the same has changed the table's columns meanwhile."""
        subjects, table = self._store.subjects, self._dataset.table
        for _ in range(_CHANGES):
            before = await subjects.describe(table)
            try:
                return await run()
            except refusals:
                if await subjects.describe(table) == before:
                    raise
        return await run()

    async def _is_sealed(self) -> bool:
        found = await self._store.subjects.describe(self._dataset.table)
        there = None if found is None or found.column(ROW_TAG) is None else found.column(self.field)
        return there is not None and _holds_bytes(self._store.subjects, there)

    async def _set_aside(self) -> bool:
        """The plain column under its other name, and the sealed one in its place; whether there is such a column."""
        table, dataset = self._dataset.table, self._dataset
        subjects = self._store.subjects
        found = await subjects.describe(table)
        if found is None:
            raise ConfigurationError(f"{dataset.database} has no table {table}: there is nothing to seal")
        if found.column(self._aside) is None:
            plain = found.column(self.field)
            if plain is None:
                raise ConfigurationError(f"{table} has no column {self.field}: there is nothing to seal")
            if _holds_bytes(subjects, plain):
                if found.column(ROW_TAG) is None:
                    raise ConfigurationError(
                        f"{table}.{self.field} holds bytes, and nothing tells plain ones from sealed ones: move them "
                        "to a column of another name, and write them through db.personal"
                    )
                return False  # sealed already
            if dataset.subject is not None:
                nobody = await self._columns.count(table, self.field, nobody=dataset.subject)
                if nobody:
                    raise ConfigurationError(
                        f"{table}: {nobody} rows with a {self.field} name nobody in {dataset.subject}, and a value is "
                        "sealed under its person's key: fill that in first, or empty the value"
                    )
            await self._check_table(found, plain)
            self._check_others(found)
            await self._put_aside()
            found = await subjects.describe(table)
            if found is None or found.column(self._aside) is None:
                return False  # another run did it, from its beginning to its end
        elif (there := found.column(self.field)) is not None and not _holds_bytes(subjects, there):
            raise ConfigurationError(f"{table} has a column {self._aside} of its own: give that another name first")
        else:
            self._check_others(found)
        await self._store.prepare()
        await self._columns.guard(table, self.field)
        return True

    def _check_others(self, found: Store) -> None:
        """Refuse a table in which another field is plain that the data map calls sealed: a row is read as a whole."""
        for name in self._dataset.sealed:
            column = found.column(name)
            if name != self.field and column is not None and not _holds_bytes(self._store.subjects, column):
                where = f"datasets.{self._dataset.name}.fields.{name}"
                raise ConfigurationError(
                    f"{where}: the data map calls it sealed, and it is {column.type}: columns are sealed one after the "
                    f"other. Set sealed = false there until {self.column} is done; then set it to true, and seal it"
                )

    async def _put_aside(self) -> None:
        table, problem = self._dataset.table, ""
        try:
            await self._columns.set_aside(table, self.field, self._aside, self._dataset.keys)
        except ConstraintViolated as error:
            problem = str(error)
        if problem:
            raise ConfigurationError(
                f"{table}.{self.field} is emptied once it is sealed, and the schema keeps it: {problem}. Change that "
                "first; nothing was changed here"
            )

    async def _check_table(self, found: Store, plain: Column) -> None:
        """Refuse, before anything is changed, a table that could not be sealed to the end, or would lose something."""
        table, keys = self._dataset.table, self._dataset.keys
        if plain.primary_key:
            raise ConfigurationError(f"{table}.{self.field} is in the primary key, which is never sealed")
        if not any(columns <= set(keys) for columns in found.unique):
            raise ConfigurationError(
                f"{table}: nothing keeps {', '.join(keys)} from naming several rows, whose values would take each "
                "other's place: make it a primary key, or unique, first"
            )
        against = await self._columns.against(table, self.field)
        if against:
            raise ConfigurationError(
                f"{table}.{self.field} cannot be sealed in place: {'; '.join(against)}. Change that first"
            )

    async def _all(self, filled: str, batch: Callable[[Any, Sequence[Any] | None], Any]) -> None:
        """Batch after batch, from the first key to the last, until nothing is left."""
        provider: Any = self._provider
        table, keys = self._dataset.table, self._dataset.keys
        await self._store.rows(fresh=True)
        left = -1
        while True:
            after: Sequence[Any] | None = None
            before, known = self._moved, left
            while True:
                number, after = await provider.run_in_transaction(lambda tx, a=after: batch(tx, a))
                self._moved += number
                if after is None:
                    break
                self._step("batch", number)
            left = await self._columns.count(table, filled)
            if not left:
                return
            if self._moved == before and left == known:  # nor did another run move any
                raise ConfigurationError(
                    f"{self.column}: {left} rows cannot be sealed while an erasure "
                    f"of their person runs ({', '.join(keys)}): run this again when it has ended"
                )

    async def _seal_batch(self, tx: Transaction, after: Sequence[Any] | None) -> tuple[int, Sequence[Any] | None]:
        store, dataset, field = self._store, self._dataset, self.field
        found = await self._columns.filled(
            dataset.table, self._aside, dataset.keys, after, self._batch_size, transaction=tx
        )
        if not found:
            return 0, None
        found = [dict(row) for row in await self._store.marked(found, tx)]
        last = [found[-1][name] for name in dataset.keys]
        rows = await store.rows(tx)
        keys = await self._keys(rows, found, tx)
        held = await store.held(tx, rows, [key for key in keys if key is not None])
        changes = []
        for row, key, new_tag in zip(found, keys, new_row_tags(len(found)), strict=True):
            if key is None:
                continue
            tag = row[ROW_TAG] or new_tag
            if row.get(field) is not None:  # written sealed since: the plain one is old
                change: dict[str, Any] = {}
            else:
                change = self._sealed(held, key, tag, row)
                if row[ROW_TAG] is None:
                    change[ROW_TAG] = tag
            changes.append((row, {**change, self._aside: None}))
        await self._columns.write(dataset.table, dataset.keys, changes, transaction=tx)
        await store.note("sealed", {"fields": [field], "rows": len(changes)}, tx)
        return len(changes), last

    def _sealed(self, rows: Rows, key: DataKey, tag: bytes, row: dict[str, Any]) -> dict[str, Any]:
        """A row's value, sealed and indexed, once it was opened again and is the same."""
        field, value = self.field, row[self._aside]
        plain = {field: value}
        if key.dataset != self._dataset.name:  # a row that the law keeps, of a person who was erased
            stored = rows.resealed(key, {**row, ROW_TAG: tag}, plain)
        else:
            try:
                stored = rows.sealed(key, tag, plain)
            except ConfigurationError:
                stored = dict(rows.sealer.seal_row(key, tag, plain))  # what cannot be sealed raises again
                self._unindexed += 1
        again = rows.opened({**row, ROW_TAG: tag, **stored}, {key.id: key})
        if again[field] != value or type(again[field]) is not type(value):
            raise DecryptionFailed
        return {name: stored[name] for name in stored if name == field or name in self._dataset.indexes}

    async def _keys(self, rows: Rows, found: Sequence[dict[str, Any]], tx: Transaction) -> list[DataKey | None]:
        """The key for each row's value; None where an erasure of its person runs."""
        store, dataset, keys = self._store, self._dataset, self._store.keys
        if dataset.subject is None:
            return [store.of_nobody] * len(found)
        wanted = [None if row.get(RETAINED_UNTIL) is not None else rows.subject_of(row) for row in found]
        known: dict[str, DataKey] = {}
        try:
            known = dict(await keys.subject_keys(dataset.name, [s for s in wanted if s], session=tx))
        except KeyErased:
            for one in {s for s in wanted if s}:
                try:
                    known[one] = await keys.subject_key(dataset.name, one, session=tx)
                except KeyErased:
                    continue
        made: list[DataKey | None] = []
        for row, subject in zip(found, wanted, strict=True):
            if row.get(RETAINED_UNTIL) is None:
                made.append(known.get(subject or ""))
                continue
            own = await keys.keys(rows.key_ids(row), session=tx)
            retained = next((key for key in own.values() if key.dataset.endswith(RETENTION)), None)
            if retained is None:
                retained = await keys.subject_key(dataset.name + RETENTION, f"retention:{self.column}", session=tx)
            made.append(retained)
        return made

    async def _unseal_batch(self, tx: Transaction, after: Sequence[Any] | None) -> tuple[int, Sequence[Any] | None]:
        store, dataset, field = self._store, self._dataset, self.field
        found = await self._columns.filled(dataset.table, field, dataset.keys, after, self._batch_size, transaction=tx)
        if not found:
            return 0, None
        rows = await store.rows(tx)
        opened = await store.opened(found, tx)
        empty = {field: None, **{c: rows.no_index(c) for c, name in dataset.indexes.items() if name == field}}
        self._gone += sum(row[field] is None for row in opened)
        changes = [(row, {**empty, self._aside: plain[field]}) for row, plain in zip(found, opened, strict=True)]
        await self._columns.write(dataset.table, dataset.keys, changes, transaction=tx)
        await store.note("unsealed", {"fields": [field], "rows": len(changes)}, tx)
        return len(found), [found[-1][name] for name in dataset.keys]

    async def _verify(self) -> int:
        """Open every sealed value of the column, over the whole table."""
        provider: Any = self._provider
        await self._store.rows(fresh=True)
        number: int = 0
        after: Sequence[Any] | None = None
        while True:
            opened, after = await provider.run_in_transaction(lambda tx, a=after: self._opened(tx, a), read_only=True)
            number += opened
            if after is None:
                self._step("verified", number)
                return number

    async def _opened(self, tx: Transaction, after: Sequence[Any] | None) -> tuple[int, Sequence[Any] | None]:
        table, keys = self._dataset.table, self._dataset.keys
        found = await self._columns.filled(table, self.field, keys, after, self._batch_size, hold=False, transaction=tx)
        if not found:
            return 0, None
        return len(await self._store.opened(found, tx)), [found[-1][name] for name in keys]

    async def _drop(self, column: str) -> bool:
        table = self._dataset.table
        found = await self._store.subjects.describe(table)
        if found is None or found.column(column) is None:
            return True
        if await self._columns.count(table, column):
            raise ConfigurationError(f"{table}.{column}: rows were written to it meanwhile: run this again")

        async def work(tx: Transaction) -> None:
            await self._columns.drop(tx, table, column)

        try:
            await self._columns.change(work)
        except QueryRejected:
            found = await self._store.subjects.describe(table)
            # A view or a constraint holds it: it stays, and is empty. Or another run has dropped it.
            return found is None or found.column(column) is None
        finally:
            await self._store.rows(fresh=True)
        return True

    async def _rewrite(self, how: Literal["full", "plain"] | None) -> None:
        if how is None:
            return
        problem = ""
        try:
            await self._columns.rewrite(self._dataset.table, how)
        except ProviderError as error:
            problem = str(error)
        if problem:
            raise ConfigurationError(
                f"{self.column}: it is done, but for the table's file, which could not be rewritten and may hold old "
                f"values: {problem}"
            )
        self._step("rewritten", 0)


def _holds_bytes(subjects: Any, column: Column) -> bool:
    return bool(subjects.holds(column, ShapeColumn(column.name, "bytes")))  # a relational engine's
