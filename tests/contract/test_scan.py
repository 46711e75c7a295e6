"""Samples of what lies in the stores, and personal data that the data map does not name."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from datavern import DatabaseManager, DataMap, Dataset, Field, PostgreSQLProvider
from datavern.contracts.capabilities import needs
from datavern.privacy.scanning.scanner import scan
from datavern.testing import EmptyDatabase
from datavern.testing.people import people
from datavern.testing.postgresql import PostgreSQLServer

NAME = 'Ærlig "tabell"; DROP TABLE x; --'


@pytest.fixture
def quoted(provider: Any) -> Any:
    return provider.capabilities.subjects.quoted


async def fill(provider: Any, sql: Any, count: int = 200) -> None:
    await provider.execute(
        sql("CREATE TABLE customers (id INTEGER PRIMARY KEY, c1 {text}, c2 {text}, c3 {text}, note {text}, n BIGINT)")
    )
    rows = [
        (
            i,
            p.personal_number,
            p.email,
            p.name,
            f"ring {p.phone} angående {p.personal_number}" if i % 9 == 0 else "ok",
            i,
        )
        for i, p in enumerate(people(count))
    ]
    await provider.execute_many(sql("INSERT INTO customers VALUES ($1, $2, $3, $4, $5, $6)"), rows)


async def test_stores_and_samples(provider: Any, sql: Any, quoted: Any) -> None:
    samples = needs(provider, "samples")
    assert await samples.stores() == []
    await fill(provider, sql, 50)
    kind = sql("{text}")
    await provider.execute(f"CREATE TABLE {quoted(NAME)} (x {kind})")
    await provider.execute(sql("CREATE TABLE datavern_own (x {text})"))
    assert sorted(await samples.stores()) == sorted(["customers", NAME])
    found = await samples.sample("customers", 1000)
    assert sorted(found["id"]) == list(range(50))
    assert len(found["c1"]) == 50
    assert await samples.sample(NAME, 10) == {"x": []}


async def test_a_sample_comes_from_all_over_a_large_table(provider: Any, sql: Any) -> None:
    await provider.execute(sql("CREATE TABLE large (id INTEGER PRIMARY KEY, t {text})"))
    await provider.execute_many(sql("INSERT INTO large VALUES ($1, $2)"), [(i, "x" * 200) for i in range(20_000)])
    if provider.engine == "postgresql":
        await provider.execute("ANALYZE large")
    ids = (await needs(provider, "samples").sample("large", 500))["id"]
    assert 100 < len(ids) <= 1000
    assert len({i // 4000 for i in ids}) == 5  # every fifth of it


async def test_what_the_map_does_not_name_is_found_and_what_it_names_is_not(provider: Any, sql: Any) -> None:
    await fill(provider, sql)
    found = await scan({"main": provider}, None)
    assert {(f.column, f.seems.kind) for f in found.findings} == {
        ("c1", "fodselsnummer"), ("c2", "email"), ("c3", "name"), ("note", "fodselsnummer"),
    }  # fmt: skip
    note = next(f for f in found.findings if f.column == "note")
    assert note.seems.within
    assert next(f for f in found.findings if f.column == "c1").seems.kinds == {"tenor": 200}
    assert found.stores == 1
    named = DataMap([Dataset("customers", database="main", subject="id", fields={"c1": Field(), "c2": Field()})])
    rest = await scan({"main": provider}, named)
    assert {f.column for f in rest.findings} == {"c3", "note"}
    assert not any(p.personal_number in repr(found) or p.name in repr(found) for p in people(200))


async def test_sealed_columns_and_datavern_s_own_tables_show_nothing(managed: Any) -> None:
    fields = {"personal_number": Field(sealed=True, lookup=True, kind="fodselsnummer"), "name": Field(sealed=True)}
    async with managed(Dataset("users", database="main", subject="id", legal_basis="contract", fields=fields)) as db:
        await db.prepare("users")
        for person in people(30):
            await db.personal("users").insert(
                {"id": person.id, "personal_number": person.personal_number, "name": person.name}
            )
        assert (await scan(db.databases, None)).findings == ()


async def test_a_store_that_may_not_be_read_is_told_of(
    postgresql: Any, postgresql_database: EmptyDatabase, postgresql_server: PostgreSQLServer
) -> None:
    await postgresql.execute("CREATE TABLE secret (x TEXT)")
    await postgresql.execute("CREATE TABLE open_to_all (x TEXT)")
    await postgresql.execute("INSERT INTO open_to_all VALUES ('kari@example.no')")
    role = f"scan_{uuid4().hex}"
    await postgresql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'plain'")
    try:
        await postgresql.execute(f"GRANT SELECT ON open_to_all TO {role}")
        database = await postgresql.query_value("SELECT current_database()")
        server = postgresql_server
        async with PostgreSQLProvider(
            name="main", host=server.host, port=server.port, database=database, username=role, password="plain"
        ) as plain:
            found = await scan({"main": plain}, None)
        assert [f.store for f in found.findings] == ["open_to_all"]
        assert [s.place for s in found.skipped] == ["main.secret"]
        assert "42501" in found.skipped[0].reason
    finally:
        await postgresql.execute(f"DROP OWNED BY {role}")
        await postgresql.execute(f"DROP ROLE {role}")


async def test_partitions_schemas_and_generated_types(postgresql: Any) -> None:
    await postgresql.execute("CREATE SCHEMA annet")
    await postgresql.execute("CREATE TABLE annet.people (mail TEXT, tags TEXT[], data JSONB, photo BYTEA)")
    await postgresql.execute("CREATE TABLE parts (day DATE, mail TEXT) PARTITION BY RANGE (day)")
    await postgresql.execute("CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')")
    await postgresql.execute(
        "INSERT INTO parts SELECT '2026-05-05', 'kari' || i || '@example.no' FROM generate_series(1, 50) i"
    )
    await postgresql.execute(
        "INSERT INTO annet.people VALUES ('x', ARRAY['ola@example.no'], '{\"a\": \"per@example.no\"}', '\\x00')"
    )
    samples = needs(postgresql, "samples")
    assert await samples.stores() == ["annet.people", "parts"]
    found = await scan({"main": postgresql}, None)
    assert {(f.store, f.column) for f in found.findings} == {
        ("parts", "mail"),
        ("annet.people", "tags"),
        ("annet.people", "data"),
    }


async def test_tables_without_row_numbers_and_columns_named_rowid(sqlite_database: EmptyDatabase) -> None:
    async with sqlite_database.provider() as lite:
        await lite.execute("CREATE TABLE a (k TEXT PRIMARY KEY, mail TEXT) WITHOUT ROWID")
        await lite.execute("CREATE TABLE b (rowid TEXT, _rowid_ TEXT, oid TEXT, mail TEXT)")
        await lite.execute("INSERT INTO a VALUES ('1', 'kari@example.no')")
        await lite.execute("INSERT INTO b VALUES ('1', '2', '3', 'kari@example.no')")
        await lite.execute("CREATE VIRTUAL TABLE f USING fts5(body)")
        assert await needs(lite, "samples").stores() == ["a", "b"]
        assert {(f.store, f.column) for f in (await scan({"main": lite}, None)).findings} == {
            ("a", "mail"),
            ("b", "mail"),
        }


async def test_behind_failover(sqlite_database: EmptyDatabase) -> None:
    first, second = sqlite_database.provider(), sqlite_database.provider()
    async with DatabaseManager(primary=first, secondary=second) as db:
        await db.execute("CREATE TABLE t (mail TEXT)")
        await db.execute("INSERT INTO t VALUES ('kari@example.no')")
        found = await scan(db.databases, None)
        assert [f.column for f in found.findings] == ["mail"]
        assert found.findings[0].entry.splitlines()[1] == 'mail = { sealed = true, lookup = true, kind = "email" }'
