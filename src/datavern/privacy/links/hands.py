"""An engine's hands in a dataset whose rows name no person themselves: see `datavern.privacy.links`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from datavern.privacy.datamap.dataset import ROW_TAG
from datavern.privacy.links.links import Link
from datavern.privacy.personal.paths import leaves
from datavern.privacy.personal.records import RecordStore
from datavern.privacy.personal.rows import SHARED, WHOSE

if TYPE_CHECKING:
    from datavern.contracts.stores import Subjects

__all__ = ["Hands"]


class Hands:
    """An engine's hands in a linked store: rows of a person are found, and each row is marked with whose it is.

    `where` may hold the person under `WHOSE`; the rest is as of `Subjects`.

    Args:
        link: where the store's rows lead.
        inner: the engine's own.
    """

    __slots__ = ("_link", "inner")

    def __init__(self, link: Link, inner: Subjects) -> None:
        self._link = link
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def select(
        self,
        store: str,
        where: Mapping[str, Any],
        *,
        columns: Sequence[str] | None = None,
        limit: int | None = None,
        transaction: Any = None,
        **more: Any,
    ) -> list[dict[str, Any]]:
        """Rows that match, marked."""
        link = self._link
        wanted: dict[str, Any] = {"transaction": transaction, **more}
        if columns is not None:
            also = [link.store.dataset.subject or "", *([ROW_TAG] if link.sealed else [])]
            wanted["columns"] = list(dict.fromkeys([*(c for c in columns if c not in {WHOSE, SHARED}), *also]))
        if WHOSE not in where:
            return await link.marked(await self.inner.select(store, where, limit=limit, **wanted), transaction)
        found: list[dict[str, Any]] = []
        person, mine, conditions = await self._of(where, transaction)
        first = self._first(len(conditions))
        for condition in conditions:
            rows = [row for row in await self.inner.select(store, condition, **wanted) if first(row)]
            found += await self._mine(rows, person, mine, transaction)
            if limit is not None and len(found) >= limit:
                return found[:limit]
        return found

    def stream(
        self, store: str, where: Mapping[str, Any], *, batch_size: int = 1000, transaction: Any = None
    ) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
        """Rows of a person, marked, in constant memory but for what leads to them. Others come as they are."""
        if WHOSE not in where:
            return self.inner.stream(store, where, batch_size=batch_size, transaction=transaction)
        return self._stream(store, where, batch_size, transaction)

    @asynccontextmanager
    async def _stream(
        self, store: str, where: Mapping[str, Any], batch_size: int, transaction: Any
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        # All that leads to the rows is at hand before the first of them takes a connection: a pool of one would
        # otherwise wait for itself.
        rows = self._each(store, await self._of(where, transaction), batch_size, transaction)
        try:
            yield rows
        finally:
            await rows.aclose()  # type: ignore[attr-defined]  # an async generator

    async def _each(
        self, store: str, of: tuple[str, Mapping[str, Any], list[dict[str, Any]]], batch_size: int, transaction: Any
    ) -> AsyncIterator[dict[str, Any]]:
        person, mine, conditions = of
        odd: list[dict[str, Any]] = []
        first = self._first(len(conditions))
        for condition in conditions:
            async with self.inner.stream(store, condition, batch_size=batch_size, transaction=transaction) as found:
                async for row in found:
                    if not first(row):
                        continue
                    if await self._told(row, person, mine, transaction):
                        yield row
                    else:
                        odd.append(row)
        for row in await self._mine(odd, person, mine, transaction):
            yield row

    def _first(self, conditions: int) -> Callable[[Mapping[str, Any]], bool]:
        """Whether a record comes for the first time: one that names several numbers is found by each of them."""
        if conditions == 1 or not isinstance(self._link.store, RecordStore):
            return lambda _: True
        seen: set[tuple[str, ...]] = set()

        def first(row: Mapping[str, Any]) -> bool:
            key = tuple(str(row[name]) for name in self._link.store.dataset.keys)
            known = len(seen)
            seen.add(key)
            return len(seen) > known

        return first

    async def update(
        self, store: str, where: Mapping[str, Any], changes: Mapping[str, Any], *, transaction: Any = None
    ) -> int:
        """Change the rows that match; how many."""
        if WHOSE not in where:
            return await self.inner.update(store, where, changes, transaction=transaction)
        _, _, conditions = await self._of(where, transaction)
        return sum([await self.inner.update(store, one, changes, transaction=transaction) for one in conditions])

    async def delete(self, store: str, where: Mapping[str, Any], *, transaction: Any = None) -> int:
        """Delete the rows that match; how many."""
        if WHOSE not in where:
            return await self.inner.delete(store, where, transaction=transaction)
        _, _, conditions = await self._of(where, transaction)
        return sum([await self.inner.delete(store, one, transaction=transaction) for one in conditions])

    async def _of(
        self, where: Mapping[str, Any], transaction: Any
    ) -> tuple[str, Mapping[str, Any], list[dict[str, Any]]]:
        """The person, what stands for them, and the conditions under which rows hold one of these."""
        link = self._link
        person: str = where[WHOSE]
        rest = {name: value for name, value in where.items() if name not in {WHOSE, SHARED}}
        mine = await link.values(person, transaction)
        name = link.store.dataset.subject or ""
        texts = list(mine)
        if name in rest:  # one of them, or none
            asked = rest[name] if isinstance(rest[name], tuple) else (rest[name],)
            texts = [text for text in texts if text in {link.text(one) for one in asked}]
        return person, mine, await link.conditions(rest, mine, texts, transaction)

    async def _mine(
        self, found: Sequence[dict[str, Any]], person: str, mine: Mapping[str, Any], transaction: Any
    ) -> list[dict[str, Any]]:
        """The rows that were found for a person, marked: of those that do not tell, the database is asked."""
        odd = [row for row in found if not await self._told(row, person, mine, transaction)]
        if odd:
            told = [row for row in found if WHOSE in row]
            return [*told, *(await self._link.marked(odd, transaction))]
        return list(found)

    async def _told(self, row: dict[str, Any], person: str, mine: Mapping[str, Any], transaction: Any) -> bool:
        """Mark a row whose value is one of the person's; False where it holds another."""
        link = self._link
        name = link.store.dataset.subject or ""
        if not isinstance(link.store, RecordStore):
            value = await link.opened(row, row[name], transaction) if link.sealed else row[name]
            if link.text(value) in mine:
                row[WHOSE] = person
                return True
            return False
        named = {link.text(value) for value in leaves(row, name)} - {None}
        shared = bool(named - mine.keys())
        row[SHARED] = (person,) if shared and named & mine.keys() else ()
        row[WHOSE] = person if named and not shared else None
        return True
