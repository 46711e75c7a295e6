"""Sealed insert and sealed get of a six-field record, against the same statements unsealed through the same provider.

Three of the six fields are sealed, two of them with a lookup index. The plain variant runs the very statement that the
sealed one runs (the row and the audit entry, under the conditions that the keys live and the consent holds; durable),
with plain values and in a twin table with two ordinary indexes. Beside it, without a promise: a bare INSERT alone,
and the insert of a new subject with its handle, its key, its consent and their audit entries.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import Figure, apart, fan, interleave
from datavern import DatabaseManager, DataMap, Dataset, Field, Keyring
from datavern.testing.databases import create_test_database
from datavern.testing.postgresql import PostgreSQLServer

FIELDS = {
    "personal_number": Field(sealed=True, lookup=True, kind="fodselsnummer"),
    "name": Field(sealed=True),
    "email": Field(sealed=True, lookup=True, kind="email"),
    "city": Field(),
    "postcode": Field(),
}
DATA_MAP = DataMap(
    [Dataset("users", database="main", subject="owner", purposes=["customer-account"], erasure="delete", fields=FIELDS)]
)


PLAIN = """CREATE TABLE plain_users (
    id TEXT PRIMARY KEY, owner TEXT, personal_number TEXT, name TEXT, email TEXT, city TEXT, postcode TEXT
)"""


def record(i: int, owner: str = "warm") -> dict[str, Any]:
    """A six-field record."""
    return {
        "id": f"row-{i}",
        "owner": owner,
        "personal_number": "10915596784",
        "name": "Ådne Sæther Øyvindsen",
        "email": f"person-{i}@example.no",
        "city": "Bodø",
        "postcode": "8006",
    }


async def measured(engine: str, server: PostgreSQLServer | None = None) -> list[Figure]:
    """The figures on one engine."""
    with tempfile.TemporaryDirectory() as folder:
        ring = await Keyring.create(f"file:{Path(folder) / 'keys'}")
        await ring.close()
        async with create_test_database(engine, server=server) as database:
            provider = database.provider("main", location="norway")
            async with DatabaseManager({"main": provider}, data_map=DATA_MAP, keyring=ring.url, ledger="main") as db:
                return await compared(engine, provider, db)


async def compared(engine: str, provider: Any, db: DatabaseManager) -> list[Figure]:
    """Sealed and plain in turn."""
    await db.prepare("users")
    for statement in (
        PLAIN,
        "CREATE INDEX plain_number ON plain_users (personal_number)",
        "CREATE INDEX plain_email ON plain_users (email)",
    ):
        await provider.execute(statement)
    users = db.personal("users")
    consent = await db.consents.grant(subject="warm", purpose="customer-account")
    number = iter(range(10**9))
    await users.insert(record(next(number)), consent=consent)
    subjects = provider.capabilities.subjects
    privacy = db.services
    key = privacy.keys.warm("users", "warm")
    handle = await privacy.keys.handle("warm")
    site = privacy.site("main")
    life, log = site.life, site.log
    fields = [name for name in record(0) if name != "id"]
    rows = await users.rows()

    async def sealed_insert(_: int) -> None:
        await users.insert(record(next(number)), consent=consent)

    async def plain_insert(_: int) -> None:
        holding, ids = db.consents.guard("warm", ("customer-account",), consent, provider=provider)
        guards = [life.guard(key.id, *rows.lookup_lives(key)), holding]
        details = {"fields": fields, "consents": ids}
        entry = log.entry("inserted", handle=handle, dataset="main.users", details=details)
        row = record(next(number))
        if not await provider.capabilities.guarded.insert("plain_users", row, guards=guards, audit=entry):
            raise AssertionError("a guard did not hold")

    marks = ", ".join(f"${i + 1}" if engine == "postgresql" else "?" for i in range(7))
    bare = f"INSERT INTO plain_users VALUES ({marks})"

    async def one_insert(_: int) -> None:
        await provider.execute(bare, list(record(next(number)).values()))

    async def new_subject(_: int) -> None:
        i = next(number)
        granted = await db.consents.grant(subject=f"person-{i}", purpose="customer-account")
        await users.insert(record(i, f"person-{i}"), consent=granted)

    inserts = await interleave(
        {
            "sealed insert": fan(sealed_insert, 1),
            "same statement, plain": fan(plain_insert, 1),
            "one plain INSERT": fan(one_insert, 1),
            "new subject: consent, key, sealed insert": fan(new_subject, 1),
        },
        150,
    )

    await users.insert(record(-1), consent=consent)
    await subjects.insert("plain_users", (record(-1),))
    mark = "$1" if engine == "postgresql" else "?"

    async def sealed_get(_: int) -> None:
        await users.get("row--1")

    async def plain_get(_: int) -> None:
        await subjects.select("plain_users", {"id": "row--1"})

    async def bare_get(_: int) -> None:
        await provider.query_one(f"SELECT * FROM plain_users WHERE id = {mark}", ["row--1"])

    gets = await interleave(
        {
            "sealed get": fan(sealed_get, 1),
            "same statement, plain": fan(plain_get, 1),
            "query_one, plain": fan(bare_get, 1),
        },
        600,
    )
    return [
        Figure(
            f"{engine}: insert, warm subject", "sealed insert", inserts, at_most={"same statement, plain": 1.3},
        ),
        Figure(f"{engine}: get by primary key", "sealed get", gets, at_most={"same statement, plain": 1.3}),
    ]  # fmt: skip


async def figures() -> list[Figure]:
    """On both engines, durable."""
    with apart():
        embedded = await measured("sqlite")
    with PostgreSQLServer(durable=True) as server, apart(server.pid):
        return [*embedded, *await measured("postgresql", server)]
