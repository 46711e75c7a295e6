"""A `Sealed()` column against sqlalchemy-utils' `StringEncryptedType` with AES-GCM: what each adds to a statement.

Both with the column's values of a thousand rows, as SQLAlchemy calls them: theirs value by value in the type, ours row
by row in the statement. Ours draws a tag for each row, and binds the value to dataset, field, row and person. Beside
it, the whole insert and the whole select on SQLite, without a promise.
"""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy_utils import StringEncryptedType
from sqlalchemy_utils.types.encrypted.encrypted_type import AesGcmEngine

from benchmarks import Figure, interleave, pin
from datavern import DatabaseManager, DataMap, Dataset, Field, Keyring
from datavern.crypto.sealed import new_row_tags
from datavern.sqlalchemy import Sealed
from datavern.testing.databases import create_test_database

ROWS = 1000
NAME = "Ådne Sæther Øyvindsen, Bodø"
OURS, THEIRS = "Sealed()", "StringEncryptedType, AesGcmEngine"
PEOPLE = Dataset("people", database="main", subject="id", legal_basis="a law", fields={"name": Field(sealed=True)})


def tables() -> tuple[sa.Table, sa.Table]:
    """Ours and theirs."""
    ours = sa.Table("people", sa.MetaData(), sa.Column("id", sa.String, primary_key=True), sa.Column("name", Sealed()))
    encrypted = StringEncryptedType(sa.Unicode, "a key of some length", AesGcmEngine)
    theirs = sa.Table(
        "others", sa.MetaData(), sa.Column("id", sa.String, primary_key=True), sa.Column("name", encrypted)
    )
    return ours, theirs


async def compared(db: DatabaseManager, provider: Any, path: Path) -> list[Figure]:
    """In turn."""
    await db.prepare("people")
    ours, theirs = tables()
    engine = provider.sqlalchemy_engine()
    peer = create_async_engine(f"sqlite+aiosqlite:///{path}")
    async with peer.begin() as connection:
        await connection.run_sync(theirs.create)
    store = db.personal("people")
    rows = await store.rows()
    key = await db.keys.subject_key("people", "p0")
    given = {"id": "p0", "name": NAME}
    encrypted = theirs.c.name.type
    tags = new_row_tags(ROWS)
    stored = [{**rows.sealed(key, tag, given), "datavern_row": tag} for tag in tags]
    written = encrypted.process_bind_param(NAME, peer.dialect)

    async def seal(_: int) -> None:
        deque(rows.sealed_many([(key, tag, given) for tag in new_row_tags(ROWS)]), maxlen=0)

    async def encrypt(_: int) -> None:
        for _ in range(ROWS):
            encrypted.process_bind_param(NAME, peer.dialect)

    async def open_(_: int) -> None:
        await store.opened(stored)

    async def decrypt(_: int) -> None:
        for _ in range(ROWS):
            encrypted.process_result_value(written, peer.dialect)

    turn = iter(range(10**9))

    async def insert(who: Any, table: sa.Table) -> None:
        first = next(turn) * 200
        people = [{"id": f"p{first + i}", "name": NAME} for i in range(200)]
        async with who.begin() as connection:
            await connection.execute(sa.insert(table), people)

    async def select(who: Any, table: sa.Table) -> None:
        async with who.connect() as connection:
            (await connection.execute(sa.select(table).limit(1000))).all()

    def per(times: dict[str, list[float]], n: int) -> dict[str, list[float]]:
        return {name: [seconds / n for seconds in series] for name, series in times.items()}

    sealing = per(await interleave({OURS: seal, THEIRS: encrypt}, 1), ROWS)
    opening = per(await interleave({OURS: open_, THEIRS: decrypt}, 1), ROWS)
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
        Figure("Values on their way in", OURS, sealing, at_least={THEIRS: 5}),
        Figure("Values on their way out", OURS, opening, at_least={THEIRS: 5}),
        Figure("The whole insert, SQLite", OURS, inserts, note=persons),
        Figure("The whole select, SQLite", OURS, selects, note="per row, of a thousand rows of as many persons"),
    ]


async def figures() -> list[Figure]:
    """On SQLite."""
    pin(0, 0)
    with tempfile.TemporaryDirectory() as folder:
        ring = await Keyring.create(f"file:{Path(folder) / 'keys'}")
        await ring.close()
        async with create_test_database("sqlite") as database:
            provider = database.provider("main", location="norway")
            manager = DatabaseManager({"main": provider}, data_map=DataMap([PEOPLE]), keyring=ring.url, ledger="main")
            async with manager as db:
                return await compared(db, provider, Path(folder) / "peer.db")
