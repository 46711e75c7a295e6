"""A place for Datavern's own tables: made once, locked by name, and entries in the order of their commits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from datavern.contracts.capabilities import needs
from datavern.contracts.statements import Statement
from datavern.testing.contract.base import Contract, asks
from datavern.testing.contract.speech import Speech
from datavern.testing.databases import EmptyDatabase

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["LedgerContract"]


def two_tables() -> sa.MetaData:
    """A table that points to another, which has an index."""
    import sqlalchemy as sa  # noqa: PLC0415  (collecting tests loads nothing heavy)

    metadata = sa.MetaData()
    sa.Table(
        "datavern_b",
        metadata,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("a", sa.Text, sa.ForeignKey("datavern_a.id")),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.LargeBinary),
    )
    sa.Table("datavern_a", metadata, sa.Column("id", sa.Text, primary_key=True), sa.Index("datavern_a_i", "id"))
    return metadata


class LedgerContract(Contract):
    """What an engine offers that may hold consents, keys and the audit log. It has transactions, too."""

    capability: ClassVar[str | None] = "ledger"

    # ---- tables -----------------------------------------------------------------------------------------------------

    @asks("transactions")
    async def test_own_tables_are_made_once_by_many(self, database: EmptyDatabase) -> None:
        metadata = two_tables()
        async with database.provider(location="norway") as one, database.provider(location="norway") as other:
            made = await asyncio.gather(*(needs(p, "ledger").create_tables(metadata) for p in (one, other, one, other)))
            assert sorted(len(m) for m in made) == [0, 0, 0, 3]
            assert await needs(other, "ledger").create_tables(metadata) == []

    @asks("session")
    async def test_a_table_of_an_earlier_version_gets_its_later_columns(self, provider: Any) -> None:
        import sqlalchemy as sa  # noqa: PLC0415  (see above)

        def tables(*columns: sa.Column[Any]) -> sa.MetaData:
            metadata = sa.MetaData()
            sa.Table("datavern_c", metadata, sa.Column("id", sa.Text, primary_key=True), *columns)
            return metadata

        ledger = needs(provider, "ledger")
        await ledger.create_tables(tables())
        insert = Statement(lambda: sa.insert(tables().tables["datavern_c"]).values(id=sa.bindparam("id")))
        await provider.execute(*insert.bind(ledger.dialect, id="of before"))

        def later() -> sa.MetaData:
            return tables(sa.Column("came", sa.Integer, info={"later": True}))

        made = await asyncio.gather(*(ledger.create_tables(later()) for _ in range(3)))
        assert sorted(len(m) for m in made) == [0, 0, 1]
        assert await ledger.create_tables(later()) == []
        await provider.execute(*insert.bind(ledger.dialect, id="of both"))
        rows = await provider.query("SELECT id, came FROM datavern_c ORDER BY id")
        assert [tuple(row) for row in rows] == [("of before", None), ("of both", None)]

    @asks("session")
    async def test_a_statement_compiled_for_the_dialect_runs(self, provider: Any) -> None:
        import sqlalchemy as sa  # noqa: PLC0415  (see above)

        metadata = two_tables()
        ledger = needs(provider, "ledger")
        await ledger.create_tables(metadata)
        a, b = metadata.tables["datavern_a"], metadata.tables["datavern_b"]
        dialect = ledger.dialect
        into_a = Statement(lambda: sa.insert(a).values(id=sa.bindparam("id")))
        into_b = Statement(lambda: sa.insert(b).values({c: sa.bindparam(c.name) for c in b.columns}))
        found = Statement(lambda: sa.select(b).where(b.c.number > sa.bindparam("least")).order_by(b.c.id))
        await provider.execute(*into_a.bind(dialect, id="æ"))
        rows: list[dict[str, Any]] = [
            {"id": "1", "a": "æ", "number": 2**63 - 1, "bytes": b"\x00\xff"},
            {"id": "2", "a": None, "number": -(2**63), "bytes": None},
            {"id": "3", "a": "æ", "number": 0, "bytes": b""},
        ]
        assert await provider.execute_many(*into_b.bind_many(dialect, rows)) == 3
        assert [dict(r) for r in await provider.query(*found.bind(dialect, least=-(2**63)))] == [rows[0], rows[2]]
        assert len(await provider.query(*found.bind(dialect, least=-1))) == 2

    # ---- the server -------------------------------------------------------------------------------------------------

    async def test_the_identity_stays(self, provider: Any, database: EmptyDatabase) -> None:
        names = await asyncio.gather(*(needs(provider, "ledger").identity() for _ in range(10)))
        async with database.provider(location="norway") as again:
            names.append(await needs(again, "ledger").identity())
        assert len(set(names)) == 1
        assert names[0]

    @asks("transactions")
    async def test_a_named_lock_is_held_by_one_until_its_transaction_ends(self, database: EmptyDatabase) -> None:
        inside: list[int] = []
        taken = 0

        async def work(provider: Any, n: int) -> None:
            nonlocal taken
            async with provider.transaction() as tx:
                if not await needs(provider, "ledger").lock("seal", transaction=tx):
                    return
                inside.append(n)
                for _ in range(5):
                    await asyncio.sleep(0)
                    assert inside == [n]
                inside.remove(n)
                taken += 1

        async with database.provider(location="norway") as one, database.provider(location="norway") as other:
            await asyncio.gather(*(work(p, n) for n, p in enumerate([one, other] * 4)))
            assert 1 <= taken <= 8
            async with other.transaction() as tx:
                assert await needs(other, "ledger").lock("seal", transaction=tx)
                assert await needs(other, "ledger").lock("seal", transaction=tx)

    # ---- the order of commits ---------------------------------------------------------------------------------------

    @asks("session", "transactions")
    async def test_nothing_is_settled_that_an_open_transaction_may_precede(self, provider: Any, sql: Speech) -> None:
        ledger = needs(provider, "ledger")
        stamp = f"stamp {ledger.stamp_type} NOT NULL{column_default(ledger.stamp_default)}"
        await provider.execute(sql(f"CREATE TABLE datavern_order (id {{text}} PRIMARY KEY, {stamp})"))
        insert = sql("INSERT INTO datavern_order (id) VALUES ($1)")

        async def settled() -> list[str]:
            query = f"SELECT id FROM datavern_order WHERE {ledger.settled} ORDER BY stamp, id"
            return [row[0] for row in await provider.query(query)]

        await provider.execute(insert, ["first"])
        assert await settled() == ["first"]
        async with provider.transaction() as tx:
            await tx.execute(insert, ["slow"])
            quick = asyncio.create_task(provider.execute(insert, ["quick"]))
            await asyncio.wait([quick], timeout=0.1)  # some engines let one write at a time: there it waits
            assert await settled() == ["first"]
        assert await quick == 1
        assert set(await settled()) == {"first", "slow", "quick"}

    @asks("session", "transactions")
    async def test_what_was_settled_gets_no_neighbour_before_it(self, provider: Any, sql: Speech) -> None:
        ledger = needs(provider, "ledger")
        stamp = f"stamp {ledger.stamp_type} NOT NULL{column_default(ledger.stamp_default)}"
        await provider.execute(sql(f"CREATE TABLE datavern_order (id {{bigint}} PRIMARY KEY, {stamp})"))
        query = f"SELECT id, stamp FROM datavern_order WHERE {ledger.settled} ORDER BY stamp, id"
        going_on = 8

        async def write(n: int) -> None:
            nonlocal going_on
            for i in range(4):
                async with provider.transaction() as tx:
                    await tx.execute(sql("INSERT INTO datavern_order (id) VALUES ($1)"), [i * 100 + n])
                    for _ in range(n):
                        await asyncio.sleep(0)
            going_on -= 1

        async def watch() -> None:
            highest = None
            before: set[int] = set()
            while going_on:
                rows = [tuple(row) for row in await provider.query(query)]
                new = [row for row in rows if row[0] not in before]
                assert before <= {row[0] for row in rows}
                assert highest is None or all(row[1] >= highest for row in new)
                before |= {row[0] for row in new}
                highest = max((row[1] for row in rows), default=highest)

        await asyncio.gather(watch(), *(write(n) for n in range(8)))
        assert len(await provider.query(query)) == 32


def column_default(expression: str) -> str:
    """The default of a column; none where the engine fills it in by itself."""
    if not expression:
        return ""
    return f" DEFAULT {expression if expression.isalnum() else f'({expression})'}"
