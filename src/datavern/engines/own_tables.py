"""Datavern's own tables, on every engine that speaks SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.engine import Dialect

    from datavern.contracts.capabilities import Provider, Session, Transaction

__all__ = ["RelationalLedger"]


class RelationalLedger:
    """The `Ledger` of an engine that speaks SQL."""

    stamp_type: str
    stamp_default: str
    settled: str
    sets_defaults = False
    rows_are_heaped = False
    seeks_in_parts = False

    def __init__(self, provider: Provider) -> None:
        self._provider: Any = provider

    @property
    def dialect(self) -> Dialect:
        """The dialect that statements compile for."""
        raise NotImplementedError

    async def names(self, tx: Session) -> set[str]:
        """The tables and indexes that are there, by name."""
        raise NotImplementedError

    async def exclude(self, tx: Transaction) -> None:
        """Keep other processes from making tables until the transaction ends."""

    async def create_tables(self, metadata: sa.MetaData) -> list[str]:
        """Make the tables and indexes that are missing; what was run. Idempotent; safe in several processes at once.

        Where nothing is missing nothing is locked: opening waits for no writer.
        """
        there = await self.names(self._provider)
        if all(
            table.name in there and there.issuperset(map(_name_of, table.indexes)) for table in metadata.sorted_tables
        ):
            return []
        async with self._provider.transaction(isolation="read committed") as tx:
            return await self.make_tables(tx, metadata)

    async def make_tables(self, tx: Transaction, metadata: sa.MetaData) -> list[str]:
        """The same in an open transaction: what was made is there for others when it commits."""
        from sqlalchemy.schema import CreateIndex, CreateTable  # noqa: PLC0415  (loaded with the first own table)

        made: list[str] = []
        await self.exclude(tx)
        there = await self.names(tx)
        for table in metadata.sorted_tables:
            steps: list[Any] = [] if table.name in there else [CreateTable(table)]
            steps += [CreateIndex(i) for i in sorted(table.indexes, key=_name_of) if i.name not in there]
            for step in steps:
                sql = str(step.compile(dialect=self.dialect)).strip()
                await tx.execute(sql)
                made.append(sql)
        return made


def _name_of(index: Any) -> str:
    return str(index.name)
