"""A `Sealed()` column against sqlalchemy-utils' `StringEncryptedType` with AES-GCM: what each adds to a statement.

Both with the values of a thousand rows, of one such column and of three, as SQLAlchemy has them in a statement: theirs
value by value in the type, ours row by row before and after it, and through the type. Ours draws a tag for each row,
and binds the value to dataset, field, row and person. Beside it, the whole insert and the whole select on SQLite,
without a promise.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy_utils import StringEncryptedType
from sqlalchemy_utils.types.encrypted.encrypted_type import AesGcmEngine

from benchmarks import Figure, apart, interleave
from datavern import DatabaseManager, DataMap, Dataset, Field, Keyring
from datavern.crypto.sealed import new_row_tags
from datavern.engines.alchemy.context import _plan
from datavern.engines.alchemy.types import Ready
from datavern.sqlalchemy import Sealed
from datavern.testing.databases import create_test_database

ROWS = 1000
NAME = "Ådne Sæther Øyvindsen, Bodø"
OURS, THEIRS = "Sealed()", "StringEncryptedType, AesGcmEngine"
FIELDS = ("a", "b", "c")
PEOPLE = Dataset(
    "people", database="main", subject="id", legal_basis="a law", fields={name: Field(sealed=True) for name in FIELDS}
)


def tables() -> tuple[sa.Table, sa.Table]:
    """Ours and theirs."""

    def table(name: str, kind: Any) -> sa.Table:
        columns = [sa.Column(field, kind()) for field in FIELDS]
        return sa.Table(name, sa.MetaData(), sa.Column("id", sa.String, primary_key=True), *columns)

    return table("people", Sealed), table(
        "others", lambda: StringEncryptedType(sa.Unicode, "a key of some length", AesGcmEngine)
    )


async def values(db: DatabaseManager, engine: Any, dialect: Any, fields: tuple[str, ...]) -> list[Figure]:
    """So many columns' values on their way in, and out."""
    ours, theirs = tables()
    store = db.personal("people")
    rows, key = await store.rows(), await db.keys.subject_key("people", "p0")
    given = dict.fromkeys(fields, NAME)
    encrypted = theirs.c.a.type
    written = encrypted.process_bind_param(NAME, dialect)
    bind = ours.c.a.type.bind_processor(engine.dialect)
    assert ours.c.a.type.result_processor(engine.dialect, None) is None
    statement = sa.select(ours.c.id, *(ours.c[name] for name in fields), ours.c.datavern_row)
    (group,) = _plan(statement.compile(dialect=engine.dialect), engine.dialect.provider)
    tags = new_row_tags(ROWS)
    sealed = rows.sealed_many([(key, tag, given) for tag in tags])
    found = [("p0", *(row[name] for name in fields), tag) for row, tag in zip(sealed, tags, strict=True)]
    count = len(fields)

    async def seal(_: int) -> None:
        for row in rows.sealed_many([(key, tag, given) for tag in new_row_tags(ROWS)]):
            for name in fields:
                bind(Ready(row[name]))

    async def encrypt(_: int) -> None:
        for _ in range(ROWS * count):
            encrypted.process_bind_param(NAME, dialect)

    async def open_(_: int) -> None:
        list(map(tuple, await store.open_placed(found, group.places, None)))

    async def decrypt(_: int) -> None:
        for _ in range(ROWS * count):
            encrypted.process_result_value(written, dialect)

    what = "one column" if count == 1 else f"{count} columns"
    promise = {} if count == 1 else {THEIRS: 5.0}
    note = (
        "" if count > 1 else "No promise: a row's own work (its tag, its person, a dictionary) falls on a single value."
    )
    way_in = per(await interleave({OURS: seal, THEIRS: encrypt}, 1), ROWS * count)
    way_out = per(await interleave({OURS: open_, THEIRS: decrypt}, 1), ROWS * count)
    return [
        Figure(f"Values on their way in, {what}", OURS, way_in, at_least=promise, note=note),
        Figure(f"Values on their way out, {what}", OURS, way_out, at_least=promise, note=note),
    ]


def per(times: dict[str, list[float]], n: int) -> dict[str, list[float]]:
    """Seconds for each of n."""
    return {name: [seconds / n for seconds in series] for name, series in times.items()}


async def compared(db: DatabaseManager, provider: Any, path: Path) -> list[Figure]:
    """In turn."""
    await db.prepare("people")
    ours, theirs = tables()
    engine = provider.sqlalchemy_engine()
    peer = create_async_engine(f"sqlite+aiosqlite:///{path}")
    async with peer.begin() as connection:
        await connection.run_sync(theirs.create)
    found = [*await values(db, engine, peer.dialect, FIELDS[:1]), *await values(db, engine, peer.dialect, FIELDS)]
    turn = iter(range(10**9))

    async def insert(who: Any, table: sa.Table) -> None:
        first = next(turn) * 200
        people = [{"id": f"p{first + i}", **dict.fromkeys(FIELDS, NAME)} for i in range(200)]
        async with who.begin() as connection:
            await connection.execute(sa.insert(table), people)

    async def select(who: Any, table: sa.Table) -> None:
        async with who.connect() as connection:
            (await connection.execute(sa.select(table).limit(ROWS))).all()

    inserts = per(
        await interleave({OURS: lambda _: insert(engine, ours), THEIRS: lambda _: insert(peer, theirs)}, 1), 200
    )
    selects = per(
        await interleave({OURS: lambda _: select(engine, ours), THEIRS: lambda _: select(peer, theirs)}, 1), ROWS
    )
    await peer.dispose()
    persons = (
        "200 rows of 200 new persons: each has its key, its handle and its audit entry made in the same transaction"
    )
    return [
        *found,
        Figure("The whole insert of three columns, SQLite", OURS, inserts, note=persons),
        Figure("The whole select of three columns, SQLite", OURS, selects, note="per row, of a thousand persons' rows"),
    ]


async def figures() -> list[Figure]:
    """On SQLite."""
    with apart(), tempfile.TemporaryDirectory() as folder:
        ring = await Keyring.create(f"file:{Path(folder) / 'keys'}")
        await ring.close()
        async with create_test_database("sqlite") as database:
            provider = database.provider("main", location="norway")
            manager = DatabaseManager({"main": provider}, data_map=DataMap([PEOPLE]), keyring=ring.url, ledger="main")
            async with manager as db:
                return await compared(db, provider, Path(folder) / "peer.db")
