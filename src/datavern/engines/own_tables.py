"""Datavern's own tables, on every engine that speaks SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError, QueryRejected

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.engine import Dialect

    from datavern.contracts.capabilities import Provider, Session, Transaction

__all__ = ["RelationalLedger", "later_columns"]


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

    async def columns(self, tx: Session, table: str) -> set[str]:
        """The columns of a table that is there."""
        raise NotImplementedError

    async def exclude(self, tx: Transaction) -> None:
        """Keep other processes from making tables until the transaction ends."""

    async def create_tables(self, metadata: sa.MetaData) -> list[str]:
        """Make the tables, indexes and later columns that are missing; what was run.

        Idempotent; safe in several processes at once, of this version and of earlier ones.

        Where nothing is missing nothing is locked: opening waits for no writer.
        """
        there = await self.names(self._provider)
        if all(
            table.name in there and there.issuperset(map(_name_of, table.indexes)) for table in metadata.sorted_tables
        ) and not await self._later(self._provider, metadata, there):
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
        for sql in await self._later(tx, metadata, there):
            try:
                await tx.execute(sql)
            except QueryRejected as error:
                raise ConfigurationError(
                    f"{self._provider.name}: a table of Datavern's own was made by an earlier version, and could not "
                    f"be given what it lacks ({error}): let the table's owner run: {sql}"
                ) from error
            made.append(sql)
        return made

    async def _later(self, session: Session, metadata: sa.MetaData, there: set[str]) -> list[str]:
        """What gives the tables of an earlier version the columns that came after it."""
        steps: list[str] = []
        for table in metadata.sorted_tables:
            if table.name in there and any("later" in column.info for column in table.columns):
                steps += later_columns(table, await self.columns(session, table.name), self.dialect)
        return steps


def later_columns(table: sa.Table, there: set[str], dialect: Dialect) -> list[str]:
    """What gives a table that is there the columns that it lacks. They take NULL, so that earlier versions go on."""
    from sqlalchemy.schema import CreateColumn  # noqa: PLC0415  (loaded with the first own table)

    return [
        f"ALTER TABLE {table.name} ADD {CreateColumn(column).compile(dialect=dialect)}"
        for column in table.columns
        if "later" in column.info and column.name not in there
    ]


def _name_of(index: Any) -> str:
    return str(index.name)
