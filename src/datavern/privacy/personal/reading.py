"""How personal data is read: found without opening anything else, and opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from datavern.contracts.capabilities import Transaction
from datavern.contracts.errors import (
    ConfigurationError,
    ConsentRequired,
    KeyErased,
    ProcessingRestricted,
    QueryRejected,
)
from datavern.contracts.subjects import canonical_subject
from datavern.privacy.datamap.dataset import ERASED_AT, ROW_TAG
from datavern.privacy.personal.stored import StoredRows

if TYPE_CHECKING:
    from datavern.privacy.personal.rows import Rows

__all__ = ["Found", "ReadRows"]

_OPENED_AT_ONCE = 200


class Found(list[dict[str, Any]]):
    """What a search found, where some of it is not handed out.

    Attributes:
        withheld: rows of people whose data is restricted, or whose consent to reads does not stand. With a `limit` they
            count as found: there may be more.
    """

    __slots__ = ("withheld",)

    def __init__(self, rows: Iterable[dict[str, Any]], withheld: int) -> None:
        super().__init__(rows)
        self.withheld = withheld


class ReadRows(StoredRows):
    """The reading of a dataset's rows: see `datavern.privacy.personal.store.PersonalStore`, which is made of this."""

    __slots__ = ()

    async def get(self, key: Any, *, transaction: Transaction | None = None) -> dict[str, Any] | None:
        """The row of that primary key, opened, or None.

        Raises:
            ProcessingRestricted: the person's data is restricted (Art. 18), or the person objected (Art. 21).
            ConsentRequired: reads need a consent here (``require_consent = "read"``), and none stands.
            DecryptionFailed: a sealed value is not the one that was sealed there.
            KeyErased: the row's key was destroyed with its subject (erasure policy ``shred``).
        """
        rows = self._ready() or await self.rows(transaction)
        where = rows.where_key(key)
        if where is None:
            return None
        if self.dataset.erasure == "soft":
            where[ERASED_AT] = None
        found = await self.subjects.select(self._table, where, transaction=transaction)
        if not found:
            return None
        standing = self._standing
        if standing.until <= monotonic():
            await standing.ask(transaction)
        if standing.marks or self._asks:
            await self._let_through(rows, found, transaction)
        opened = rows.open_warm(found[0])
        if opened is not None:
            return opened
        ids = rows.key_ids(found[0])
        return rows.open_row(found[0], await self._keys.keys(ids, session=transaction))

    async def of(self, subject: object, *, transaction: Transaction | None = None) -> AsyncIterator[dict[str, Any]]:
        """All rows of a subject, opened, in constant memory: ``async for row in users.of("test-user")``.

        The connection is given back when the loop ends; when it is left early, as soon as the iterator is let go.

        Raises:
            ProcessingRestricted, ConsentRequired: as `get`.
        """
        standing = self._standing
        if standing.until <= monotonic():
            await standing.ask(transaction)
        if standing.marks or self._asks:
            await self.let_see([self._keys.subject_tag(canonical_subject(subject))], transaction)
        async for row in self.all_of(subject, transaction=transaction):
            yield row

    async def all_of(self, subject: object, *, transaction: Transaction | None = None) -> AsyncIterator[dict[str, Any]]:
        """`of` for the answers to a person's requests, which no restriction and no missing consent stands against."""
        rows = self._ready() or await self.rows(transaction)
        person = canonical_subject(subject)
        where = rows.where_subject(person)
        if where is None:
            return
        where |= self.living()
        # At hand before the stream takes a connection: a pool of one would otherwise wait for itself.
        await self._keys.find_subject_key(self.dataset.name, person, session=transaction)
        stream = self.subjects.stream(self._table, where, transaction=transaction)
        async with stream as found:
            async for row in found:
                if rows.is_of(row, person):
                    yield (await self.opened([row], transaction))[0]

    async def count_of(self, subject: str) -> int:
        """How many rows are about somebody, whatever stands against their use."""
        rows = self._ready() or await self.rows()
        where = rows.where_subject(subject)
        if where is None:
            return 0
        number = 0
        async with self.subjects.stream(self._table, where | self.living()) as found:
            async for row in found:
                number += rows.is_of(row, subject)
        return number

    async def find(
        self,
        where: Mapping[str, Any] | None = None,
        /,
        *,
        limit: int | None = None,
        transaction: Transaction | None = None,
        **fields: Any,
    ) -> list[dict[str, Any]]:
        """Rows by the values of their fields, opened; sealed ones through their lookup index, and nothing else opened.

        Rows of people whose data is restricted, or whose consent to reads does not stand, are left out: the answer is
        then a `Found`, which says how many.

        Args:
            where: field → value, for names that are no Python names; all of them must hold, `fields` too. A tuple
                means any of its values.
            limit: how many at the most.
            fields: field=value.

        Raises:
            ConfigurationError: a sealed field without lookup, a field that is not there, or none at all.
            DecryptionFailed: a sealed value is not the one that was sealed there, or a lookup index was moved: the row
                that it leads to holds something else than was asked for.
        """
        await self._keys.heard()  # under which keys others make their indexes by now
        rows = self._ready() or await self.rows(transaction)
        asked = {**(where or {}), **fields}
        condition = rows.where_fields(asked) | self.living()
        if limit is not None and limit < 1:
            raise ConfigurationError("find: limit is at least 1")
        if () in condition.values():
            return []
        subjects = self.subjects
        found = await subjects.select(self._table, condition, limit=limit, transaction=transaction)
        if rows.aside and (also := rows.where_aside(asked)) is not None:
            found += await self._not_sealed_yet(found, also | self.living(), transaction)
        shown = await self._shown(rows, found, transaction)
        answers = [row for row in await self.opened(shown, transaction) if rows.answers(row, asked)][:limit]
        return answers if shown is found else Found(answers, len(found) - len(shown))

    async def _not_sealed_yet(
        self, found: Sequence[Mapping[str, Any]], where: Mapping[str, Any], transaction: Transaction | None
    ) -> list[dict[str, Any]]:
        """What a search finds in a column that is being sealed in place, beside what it found by the index."""
        if () in where.values():
            return []
        try:
            more = await self.subjects.select(self._table, where, transaction=transaction)
        except QueryRejected:  # the column was sealed meanwhile, and the plain one is gone
            if transaction is not None:
                raise
            self._loaded = None
            return []
        keys = self.dataset.keys
        known = {tuple(row[name] for name in keys) for row in found}
        return [row for row in more if tuple(row[name] for name in keys) not in known]

    async def starts_with(
        self, *, limit: int | None = None, transaction: Transaction | None = None, **field: str
    ) -> list[dict[str, Any]]:
        """Rows whose sealed text begins so, opened: ``await users.starts_with(name="Nord", limit=20)``.

        Args:
            limit: how many at the most.
            field: field=beginning, of one field with `prefixes` in the data map. Upper and lower case and the like
                count as the field's kind has it.

        Raises:
            ConfigurationError: a field without `prefixes`, a beginning shorter than the shortest, or not one field.
            DecryptionFailed: a sealed value is not the one that was sealed there.
        """
        return await self._find_part(field, limit, transaction, start=True)

    async def contains(
        self, *, limit: int | None = None, transaction: Transaction | None = None, **field: str
    ) -> list[dict[str, Any]]:
        """Rows whose sealed text has this part, opened: ``await users.contains(name="mann")``. It reads a whole table.

        Args:
            limit: how many at the most.
            field: field=part, of one field with `ngrams` in the data map.

        Raises:
            ConfigurationError: a field without `ngrams`, a part shorter than they are, or not one field.
            DecryptionFailed: a sealed value is not the one that was sealed there.
        """
        return await self._find_part(field, limit, transaction, start=False)

    async def _find_part(
        self, field: Mapping[str, str], limit: int | None, transaction: Transaction | None, *, start: bool
    ) -> list[dict[str, Any]]:
        await self._keys.heard()
        rows = self._ready() or await self.rows(transaction)
        if len(field) != 1:
            raise ConfigurationError(f"{self.dataset.name}: expected one field, such as name=…")
        if limit is not None and limit < 1:
            raise ConfigurationError("limit is at least 1")
        ((name, text),) = field.items()
        subjects = self.subjects
        found: list[dict[str, Any]] = []
        wheres = rows.where_starts(name, text) if start else rows.where_contains(name, text)
        for where in wheres:  # one, but while a rotation makes the indexes anew
            more = await subjects.select(self._table, where | self.living(), transaction=transaction)
            seen = {tuple(row[key] for key in self.dataset.keys) for row in found} if found else set()
            found += [row for row in more if tuple(row[key] for key in self.dataset.keys) not in seen]
        shown = await self._shown(rows, found, transaction)
        answers: list[dict[str, Any]] = [] if shown is found else Found((), len(found) - len(shown))
        for at in range(0, len(shown), _OPENED_AT_ONCE):  # most of a search with a limit is not opened at all
            opened = await self.opened(shown[at : at + _OPENED_AT_ONCE], transaction)
            answers += [row for row in opened if rows.has_part(row, name, text, start=start)]
            if limit is not None and len(answers) >= limit:
                del answers[limit:]
                break
        return answers

    async def open(self, rows: Iterable[Any], *, transaction: Transaction | None = None) -> list[dict[str, Any]]:
        """Open rows of any query, if it selected ``datavern_row`` and the subject beside the sealed fields.

        Raises:
            ConfigurationError: one of the two is missing; the message names it.
            DecryptionFailed: a sealed value is not the one that was sealed there.
            ProcessingRestricted, ConsentRequired: as `get`, where the rows name their subject.
        """
        plan = self._ready() or await self.rows(transaction)
        found = [dict(row) for row in rows]
        needed = [ROW_TAG] if plan.subject is None else [ROW_TAG, plan.subject]
        for row in found:
            if any(name in row for name in plan.sealer.fields):
                for name in needed:
                    if name not in row:
                        raise ConfigurationError(f"{self.dataset.name}: select {name} too: sealed fields open with it")
        await self.let_out(found, transaction)
        return await self.opened(found, transaction)

    async def opened(
        self, found: Sequence[Mapping[str, Any]], transaction: Transaction | None = None
    ) -> list[dict[str, Any]]:
        """Rows as they are stored, opened. Fields whose key was destroyed with the subject are None: they are gone."""
        rows = self._ready() or await self.rows(transaction)
        if self.link is not None:
            found = await self.link.marked(found, transaction)
        opened_warm = [rows.open_warm(dict(row)) for row in found]
        if None not in opened_warm:
            return cast("list[dict[str, Any]]", opened_warm)
        ids = [rows.key_ids(row) for row in found]
        every = set().union(*ids)
        keys = rows.warm_keys(every)
        if keys is None:
            try:
                keys = await self._keys.keys(every, session=transaction)
            except KeyErased:
                keys = None
        if keys is not None:
            return [rows.open_row(row, {i: keys[i] for i in of_row}) for row, of_row in zip(found, ids, strict=True)]
        opened = []
        for row, of_row in zip(found, ids, strict=True):
            try:
                opened.append(rows.open_row(row, await self._keys.keys(of_row, session=transaction)))
            except KeyErased:
                opened.append(rows.open_row({**row, **dict.fromkeys(rows.sealer.fields & row.keys())}, {}))
        return opened

    async def opened_fields(
        self, found: Sequence[Mapping[str, Any]], transaction: Transaction | None = None
    ) -> list[dict[str, Any]]:
        """`opened`, of which the sealed fields are needed and the others may be missing."""
        rows = self._ready() or await self.rows(transaction)
        if self.link is not None:
            found = await self.link.marked(found, transaction)
        made = list(map(rows.warm, found))
        cold = [at for at, row in enumerate(made) if row is None]
        if cold:
            for at, row in zip(cold, await self.opened([found[at] for at in cold], transaction), strict=True):
                made[at] = row
        return cast("list[dict[str, Any]]", made)

    async def open_placed(
        self, found: Sequence[Sequence[Any]], columns: Mapping[int, str], transaction: Transaction | None = None
    ) -> list[Sequence[Any]]:
        """Rows that somebody else has read, as a driver gives them, with their sealed fields opened.

        Args:
            found: the rows.
            columns: position → name, of the sealed fields that were read, of the row's tag, and of its subject.
            transaction: where they were read.

        Raises:
            ProcessingRestricted, ConsentRequired: as `get`.
            DecryptionFailed: a sealed value is not the one that was sealed there.
        """
        if await self._watched(transaction):
            await self.let_out([_named(row, columns) for row in found], transaction)
        rows = self._ready() or await self.rows(transaction)
        warm = self.link is None and not rows.aside
        made: list[Any] = list(map(rows.opener(columns), found)) if warm else [None] * len(found)
        cold = [at for at, row in enumerate(made) if row is None]
        if cold:
            stored = [_named(found[at], columns) for at in cold]
            sealed = [(place, name) for place, name in columns.items() if name in rows.sealer.fields]
            for at, opened in zip(cold, await self.opened_fields(stored, transaction), strict=True):
                made[at] = row = list(found[at])
                for place, name in sealed:
                    row[place] = opened[name]
        return made

    # ---- who may be seen --------------------------------------------------------------------------------------------

    async def let_out(self, found: Sequence[Mapping[str, Any]], transaction: Transaction | None = None) -> None:
        """Refuse to hand out rows that somebody else has read, where one of them may not be seen.

        Raises:
            ProcessingRestricted, ConsentRequired: as `get`.
        """
        if await self._watched(transaction):
            await self._let_through(self._ready() or await self.rows(transaction), found, transaction)

    async def _watched(self, transaction: Transaction | None) -> bool:
        """Whether there may be rows here that are not to be seen."""
        standing = self._standing
        if standing.until <= monotonic():
            await standing.ask(transaction)
        return bool(standing.marks or self._asks) and self.dataset.subject is not None

    async def _let_through(
        self, rows: Rows, found: Sequence[Mapping[str, Any]], transaction: Transaction | None
    ) -> None:
        marked = await self.marked(found, transaction)
        await self.let_see([tag for row in marked for tag in self.tags_of(rows, row)], transaction)

    async def let_see(self, tags: Sequence[bytes], transaction: Transaction | None = None) -> None:
        """Let a read of these people's data through, or refuse it."""
        if self._standing.marks:
            await self.admit(tags, transaction, writing=False)
        if self._asks and (needed := self._needed()):
            lacking = await self._consents.standing(tags, needed, rules=self._rules, transaction=transaction)
            for purpose in lacking.values():
                raise ConsentRequired(f"{self.dataset.label}: no consent to {purpose} stands, and reads need it here")

    async def _shown(
        self, rows: Rows, found: list[dict[str, Any]], transaction: Transaction | None
    ) -> list[dict[str, Any]]:
        """The rows that may be seen: the same list where all may."""
        if not await self._watched(transaction):
            return found
        standing = self._standing
        people = [self.tags_of(rows, row) for row in await self.marked(found, transaction)]
        every = dict.fromkeys(tag for tags in people for tag in tags)
        hidden: set[bytes] = set()
        for tag in every if standing.marks else ():
            try:
                await self.admit((tag,), transaction, writing=False)
            except ProcessingRestricted:
                hidden.add(tag)
        if self._asks and (needed := self._needed()):
            hidden |= (await self._consents.standing(every, needed, rules=self._rules, transaction=transaction)).keys()
        if not hidden:
            return found
        return [row for row, tags in zip(found, people, strict=True) if hidden.isdisjoint(tags)]


def _named(row: Sequence[Any], columns: Mapping[int, str]) -> dict[str, Any]:
    return {name: row[place] for place, name in columns.items()}
