"""PostgreSQL: a text with its audit entry does what the text does alone, whatever the text is."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from datavern import (
    ConfigurationError,
    ConstraintViolated,
    DatabaseManager,
    Keyring,
    OutcomeUnknown,
    Pool,
    PostgreSQLProvider,
    QueryRejected,
    SerializationConflict,
)
from datavern.engines.postgresql.splice import shape
from datavern.engines.postgresql.transaction import PostgreSQLTransaction

SCHEMA = r"""
CREATE TABLE t (id int PRIMARY KEY, a text, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT g, 'a' || g, g FROM generate_series(1, 5) g;
CREATE TABLE s (id int, note text);
CREATE TABLE "Blå""bær" ("nøkkel" int PRIMARY KEY, "returning" int, "WITH" int);
INSERT INTO "Blå""bær" VALUES (1, 1, 1);
CREATE TABLE parted (id int, part int) PARTITION BY LIST (part);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
INSERT INTO parted VALUES (1, 1), (2, 1);
CREATE TABLE silent (id int);
CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER keep_out BEFORE INSERT ON silent FOR EACH ROW WHEN (new.id > 1) EXECUTE FUNCTION keep_out();
CREATE TABLE ruled (id int);
CREATE RULE ruled_insert AS ON INSERT TO ruled DO INSTEAD NOTHING;
CREATE TABLE also (id int);
CREATE RULE also_insert AS ON INSERT TO also DO ALSO INSERT INTO s VALUES (new.id, 'also');
CREATE TABLE sometimes (id int);
CREATE RULE sometimes_delete AS ON DELETE TO sometimes WHERE old.id > 1 DO INSTEAD NOTHING;
INSERT INTO sometimes VALUES (1), (2);
CREATE VIEW seen AS SELECT id, a FROM t;
CREATE VIEW elsewhere AS SELECT id, note FROM s;
CREATE RULE elsewhere_insert AS ON INSERT TO elsewhere DO INSTEAD INSERT INTO s VALUES (new.id, new.note);
CREATE VIEW triggered AS SELECT id, note FROM s WHERE id IS NOT NULL;
CREATE FUNCTION take_in() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN INSERT INTO s VALUES (new.id, 'trigger'); RETURN new; END $$;
CREATE TRIGGER take_in INSTEAD OF INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION take_in();
CREATE FUNCTION change(i int) RETURNS int LANGUAGE sql AS $$ UPDATE t SET n = n + 1 WHERE id = i RETURNING n $$;
CREATE PROCEDURE proceed() LANGUAGE sql AS $$ INSERT INTO s VALUES (7, 'proceeded') $$;
CREATE TABLE datavern_change (id int);
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
"""
TABLES = ["t", "s", '"Blå""bær"', "parted", "silent", "ruled", "also", "sometimes", "datavern_change", "child", "made"]

MERGE = """
MERGE INTO t USING (VALUES (1), (30)) v (i) ON t.id = v.i
WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (i)
"""
CYCLE = """
WITH RECURSIVE r (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 3) CYCLE i SET c USING p
DELETE FROM t USING r WHERE id = i
"""
SPLICED = [
    ("UPDATE t SET n = n + $1 WHERE id > $2", [1, 2]),
    ("UPDATE t SET n = n + $1 WHERE id > $2 OR $1 < $2", [1, 2]),
    ("insert into t values (10, 'x'), (11, 'y')", []),
    ("INSERT INTO t (id) VALUES ($1) RETURNING id, a", [12]),
    ("INSERT INTO t SELECT id + 100, a FROM t WHERE id <= $1", [3]),
    ("INSERT INTO t (id, a) VALUES (1, 'new') ON CONFLICT (id) DO UPDATE SET (a, n) = (excluded.a, 9)", []),
    ("INSERT INTO t (id) VALUES (1), (20) ON CONFLICT DO NOTHING", []),
    ("DELETE FROM t USING (SELECT 2 AS x) u WHERE t.id = u.x", []),
    ("DELETE FROM t", []),
    ("UPDATE t SET n = 1 WHERE false", []),
    ("  -- a comment; with 'quotes\n/* and /* nested */ $7 */ UPDATE t SET n = 8; ; -- the end", []),
    ("UPDATE t SET a = $q$ ; $9 RETURNING 'x $q$ WHERE id = $1;", [1]),
    ("UPDATE t SET a = E'it\\'s; $3' WHERE id = $1", [1]),
    ("WITH x AS (SELECT 1 AS i), y (j) AS NOT MATERIALIZED (VALUES (2)) UPDATE t SET n = 7 FROM x, y WHERE id = i", []),
    ("WITH gone AS (DELETE FROM t WHERE id < 3 RETURNING *) INSERT INTO s SELECT id, a FROM gone -- x", []),
    ("WITH gone AS (DELETE FROM t WHERE id < 3 RETURNING *) SELECT * FROM gone", []),
    ("WITH RECURSIVE r (i) AS (VALUES (1) UNION SELECT i + 1 FROM r WHERE i < $1) DELETE FROM t WHERE id = 3", [3]),
    ("WITH insert AS (SELECT 4 AS i) UPDATE t SET n = 0 FROM insert WHERE id = i", []),
    ('WITH "a ""b" AS (SELECT 4 AS i) UPDATE t SET n = 0 FROM "a ""b" WHERE id = i RETURNING t.id', []),
    ('UPDATE "Blå""bær" SET "returning" = 5, "WITH" = $1 WHERE "nøkkel" = 1', [6]),
    ("UPDATE parted SET part = 2 WHERE id = $1", [1]),
    ("INSERT INTO silent VALUES (1), (2), (3)", []),
    ("SELECT change($1), change(2)", [1]),
    ("SELECT * FROM t WHERE id = $1 FOR UPDATE", [1]),
    (MERGE, []),
    ("INSERT INTO elsewhere VALUES (40, 'x'), (41, 'y')", []),
    ("INSERT INTO triggered VALUES (50, 'x'), (51, 'y')", []),
    ("UPDATE seen SET a = 'through a view'", []),
    ("INSERT INTO s DEFAULT VALUES", []),
    ("UPDATE ONLY t SET n = CASE WHEN id = 1 THEN 5 ELSE n END WHERE a = ANY ($1)", [["a1", "a2"]]),
    ("INSERT INTO ruled VALUES (1)", []),
    ("INSERT INTO also VALUES (1), (2)", []),
    ("DELETE FROM sometimes", []),
]  # fmt: skip
TWO_STATEMENTS = [
    ("CREATE TABLE made (id int)", []),
    ("TRUNCATE t", []),
    ("UPDATE t SET n = 1; DELETE FROM t WHERE id = 1; INSERT INTO s VALUES (1, 'x')", []),
    ("CALL proceed()", []),
    ("DO $$ BEGIN UPDATE t SET n = 42; END $$", []),
    ("SELECT id INTO made FROM t", []),
    ("INSERT INTO datavern_change VALUES (1)", []),
    ("WITH recursive AS (SELECT 4 AS i) UPDATE t SET n = 0 FROM recursive WHERE id = i", []),
    (CYCLE, []),
    ("INSERT INTO s SELECT 1 AS returning", []),
    ("UPDATE t SET a = 'a\\b' WHERE id = $1", [1]),
    ("UPDATE t SET a = 'a\\b'", []),
    ('UPDATE t SET a = U&"\\0061"', []),
    ("EXPLAIN ANALYZE UPDATE t SET n = 77", []),
    ("LOCK TABLE t", []),
]  # fmt: skip


@pytest.fixture
async def db(postgresql_database: Any, tmp_path: Path) -> AsyncIterator[DatabaseManager]:
    ring = await Keyring.create(f"file:{tmp_path / 'keys'}")
    await ring.close()
    provider = postgresql_database.provider("main", location="norway")
    async with DatabaseManager({"main": provider}, keyring=ring.url, ledger="main") as db:
        await provider.execute(SCHEMA)
        yield db


async def state(session: Any) -> dict[str, list[tuple[Any, ...]]]:
    """What stands in the tables; xmin and the like apart."""
    found = {}
    for table in TABLES:
        if await session.query_value("SELECT to_regclass($1) IS NOT NULL", [table]):
            rows = await session.query(f"SELECT * FROM {table}")
            found[table] = sorted((tuple(r) for r in rows), key=repr)
    return found


async def alone(main: Any, text: str, values: list[Any]) -> tuple[int, dict[str, Any]]:
    """What a text does by itself: its count, and what stands there then. All of it is undone."""
    with pytest.raises(ZeroDivisionError):
        async with main.transaction() as tx:
            count = await tx.execute(text, values)
            found = await state(tx)
            raise ZeroDivisionError
    return count, found


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The transactions that are begun from here on."""
    begun: list[str] = []
    real = PostgreSQLTransaction.__aenter__

    async def counted(self: Any) -> Any:
        begun.append(self._begin)
        return await real(self)

    monkeypatch.setattr(PostgreSQLTransaction, "__aenter__", counted)
    return begun


RULES = ("ruled", "also", "sometimes", "elsewhere")
REPLACED = ("ruled", "also", "WHERE false")
"""Without a key: refused for its rule, or it has changed no row in a database with rules, and is looked into."""


@pytest.mark.parametrize("keyed", [False, True], ids=["", "keyed"])
@pytest.mark.parametrize(("text", "values"), SPLICED + TWO_STATEMENTS)
async def test_a_text_does_what_it_does_alone(db, transactions, text, values, keyed):
    main = db["main"]
    count, expected = await alone(main, text, values)
    key = uuid.uuid4().hex if keyed else None
    await main.execute("INSERT INTO s VALUES (0, 'the key table is made')", idempotency_key="another")
    await main.execute("DELETE FROM s WHERE id = 0")
    transactions.clear()
    entry = await db.audit.entry("changed")
    assert await main.execute(text, values, audit=entry, idempotency_key=key) == count
    begun = list(transactions)
    assert await state(main) == expected
    assert await main.query_value("SELECT count(*) FROM datavern_audit WHERE entry_id = $1", [entry.id]) == 1
    of = shape(text)
    ruled = any(part in text for part in (RULES if keyed else REPLACED))
    spliced = of is not None and (of.is_counted or not keyed) and not ruled
    assert begun == ([] if spliced else ["BEGIN ISOLATION LEVEL READ COMMITTED" if keyed else "BEGIN"])
    if not keyed:
        assert ((text, values) in SPLICED) == (of is not None)
        return
    assert await main.execute(text, values, audit=await db.audit.entry("again"), idempotency_key=key) == count
    assert await state(main) == expected
    assert await main.query_value("SELECT count(*) FROM datavern_audit") == 1


@pytest.mark.parametrize(("text", "values"), SPLICED + TWO_STATEMENTS)
async def test_in_a_transaction_too(db, text, values):
    main = db["main"]
    count, expected = await alone(main, text, values)
    async with main.transaction() as tx:
        for _ in range(2):
            entry = await db.audit.entry("changed")
            assert await tx.execute(text, values, audit=entry, idempotency_key="k") == count
        assert await state(tx) == expected
    assert await main.query_value("SELECT count(*) FROM datavern_audit") == 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("VACUUM t", "25001"),
        ("CREATE INDEX CONCURRENTLY i ON t (a)", "25001"),
        ("UPDATE t SET n = 1; COMMIT; UPDATE t SET n = 2", None),
        ("COMMIT", None),
        ("ROLLBACK; UPDATE t SET a = 'a\\b'", None),
        ("UPDATE t SET a = 'a\\b'; DELETE FROM t", "42601"),
        ("DO $$ BEGIN UPDATE t SET n = 1; COMMIT; END $$", "2D000"),
        ("SELECT 1) SELECT (1", "42601"),
        ("UPDATE t SET n = 1 WHERE CURRENT OF nowhere", "34000"),
        ("DELETE FROM t WHERE id = $1 AND id = $3", "42P18"),
        ("INSERT INTO child VALUES (1, 99)", "23503"),
        ("U&'", None),
    ],
)
async def test_what_cannot_be_kept_together_is_refused(db, text, code):
    main = db["main"]
    before = await state(main)
    values = [1, 2, 3] if "$3" in text else []
    with pytest.raises(QueryRejected) as refused:
        await main.execute(text, values, audit=await db.audit.entry("never"))
    if code is not None:
        assert refused.value.code == code
    assert await state(main) == before
    assert await main.query_value("SELECT count(*) FROM datavern_audit") == 0
    assert await main.query_value("SELECT 1") == 1


async def test_more_parameters_than_a_statement_takes_together(db, transactions):
    main = db["main"]
    numbers = list(range(1000, 1000 + 32_765))
    text = "INSERT INTO t (id) VALUES " + ", ".join(f"(${n})" for n in range(1, len(numbers) + 1))
    assert await main.execute(text, numbers, audit=await db.audit.entry("many")) == len(numbers)
    assert transactions == ["BEGIN"]
    assert await main.query_value("SELECT count(*) FROM datavern_audit") == 1


async def test_a_rule_that_comes_later(db):
    """What was one statement before is two from then on, and nothing is lost on the way."""
    main = db["main"]
    change = "INSERT INTO s VALUES ($1, 'x')"
    assert await main.execute(change, [1], audit=await db.audit.entry("a")) == 1
    await main.execute("CREATE RULE later AS ON INSERT TO s DO INSTEAD NOTHING")
    for _ in range(2):
        assert await main.execute(change, [2], audit=await db.audit.entry("b")) == 0
    await main.execute("DROP RULE later ON s")
    assert await main.execute(change, [3], audit=await db.audit.entry("c")) == 1
    assert await main.query_value("SELECT array_agg(id) FROM s") == [1, 3]
    assert await main.query_value("SELECT count(*) FROM datavern_audit") == 4


async def test_nothing_is_looked_into_where_there_is_no_rule(db, transactions):
    main = db["main"]
    for table, rule in (("ruled", "ruled_insert"), ("also", "also_insert"), ("sometimes", "sometimes_delete")):
        await main.execute(f"DROP RULE {rule} ON {table}")
    await main.execute("DROP VIEW elsewhere")
    assert await main.execute("UPDATE t SET n = 1 WHERE false", audit=await db.audit.entry("a")) == 0
    assert await main.query_value("SELECT count(*) FROM datavern_audit") == 1
    assert transactions == []


async def test_a_change_of_no_rows_whose_connection_goes_is_an_unknown_outcome(db, monkeypatch):
    """Whether a rule has taken it away, entry and all, is asked afterwards: an answer that never comes is said."""
    main = db["main"]
    real = main.query_value

    async def gone(sql: str, parameters: Any = ()) -> Any:
        if "pg_rewrite" in sql:
            await real("SELECT pg_terminate_backend(pg_backend_pid())")
        return await real(sql, parameters)

    monkeypatch.setattr(main, "query_value", gone)
    entry = await db.audit.entry("a")
    with pytest.raises(OutcomeUnknown) as unknown:
        await main.execute("UPDATE t SET n = 1 WHERE false", audit=entry)
    assert "audit entry" in str(unknown.value)
    with pytest.raises(ConstraintViolated):  # it was written: a second time its id is refused
        await db.audit.write(entry)


async def test_who_may_write_and_not_read(db, postgresql_database):
    """Counting rows asks for no right that the change alone does not ask for."""
    main = db["main"]
    role = f"writer_{uuid.uuid4().hex[:8]}"
    await main.execute("CREATE TABLE secret (id int, n int)")
    await main.execute("ALTER TABLE secret ENABLE ROW LEVEL SECURITY")
    await main.execute("CREATE POLICY writes ON secret FOR INSERT WITH CHECK (id > 0)")
    await main.execute("CREATE POLICY changes ON secret FOR UPDATE USING (true) WITH CHECK (n < 10)")
    await main.execute(f"CREATE ROLE {role}")
    try:
        for right in ("INSERT, UPDATE ON secret", "INSERT ON datavern_audit", "SELECT ON datavern_audit_eras"):
            await main.execute(f"GRANT {right} TO {role}")
        for change in ("INSERT INTO secret VALUES (1, 1)", "UPDATE secret SET n = 2"):
            entry, values = (await db.audit.entry("changed")).statement(main)
            plan = main._fusing._made(change, entry, keyed=False)
            async with main.transaction() as tx:
                await tx.execute(f"SET LOCAL ROLE {role}")
                assert await tx.execute(plan.text, values) == 1
        with pytest.raises(QueryRejected) as refused:
            async with main.transaction() as tx:
                await tx.execute(f"SET LOCAL ROLE {role}")
                await tx.execute("INSERT INTO secret VALUES (0, 1)", audit=await db.audit.entry("never"))
        assert refused.value.code == "42501"
    finally:
        await main.execute(f"DROP OWNED BY {role}")
        await main.execute(f"DROP ROLE {role}")


async def waits(provider: Any) -> None:
    """Until somebody in this database waits for a lock."""
    while not await provider.query_value(  # noqa: ASYNC110  (the server has no event for it)
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    ):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("text", ["UPDATE t SET n = n + 1 WHERE id = $1", "SELECT change($1)"])
async def test_of_two_calls_with_a_key_one_waits_for_the_other(db, text, commits):
    """The second is past every look ahead when the first commits: it finds out at the row, or at the key."""
    main = db["main"]
    await main.execute("UPDATE t SET n = 0", idempotency_key="made")
    async with main.transaction() as tx:
        await tx.execute("SELECT 1 FROM t WHERE id = 1 FOR UPDATE")
        first = asyncio.create_task(main.execute(text, [1], audit=await db.audit.entry("1"), idempotency_key="k"))
        await waits(main)
        second = asyncio.create_task(main.execute(text, [1], audit=await db.audit.entry("2"), idempotency_key="k"))
        await asyncio.sleep(0.05)
        if not commits:
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
    counts = {await second} if not commits else set(await asyncio.gather(first, second))
    assert len(counts) == 1
    assert await main.query_value("SELECT n FROM t WHERE id = 1") == 1
    assert await main.query_value("SELECT count(*) FROM datavern_audit") == 1
    assert await main.execute(text, [1], idempotency_key="k") in counts


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_under_a_stricter_default_isolation(postgresql_database, isolation):
    provider = postgresql_database.provider("main", location="norway", pool=Pool(min=0, max=6))
    async with provider:
        await provider.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
        await provider.execute("INSERT INTO t VALUES (1, 0)", idempotency_key="made")
        name = await provider.query_value("SELECT current_database()")
        await provider.execute(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = '{isolation}'")
    strict = postgresql_database.provider("main", location="norway", pool=Pool(min=0, max=6))
    async with strict:
        assert await strict.query_value("SHOW default_transaction_isolation") == isolation
        for text in ("UPDATE t SET n = n + 1", "DO $$ BEGIN UPDATE t SET n = n + 1; END $$"):
            key = uuid.uuid4().hex

            async def persistent(text=text, key=key) -> int:
                while True:
                    try:
                        return await strict.execute(text, idempotency_key=key)
                    except SerializationConflict:
                        continue

            counts = await asyncio.gather(*(persistent() for _ in range(8)))
            assert len(set(counts)) == 1
        assert await strict.query_value("SELECT n FROM t") == 2
        await strict.execute(f'ALTER DATABASE "{name}" RESET default_transaction_isolation')


@pytest.mark.parametrize("how", ["alone", "in a transaction"])
async def test_who_may_not_give_an_earlier_versions_table_what_it_lacks_is_told_what_to_do(db, postgresql_server, how):
    main = db["main"]
    role = f"plain_{uuid.uuid4().hex[:8]}"
    await main.execute("UPDATE t SET n = 0", idempotency_key="makes the table")
    await main.execute("ALTER TABLE datavern_idempotency DROP COLUMN asked")
    await main.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'plain'")
    try:
        await main.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON t, datavern_idempotency TO {role}")
        plain = PostgreSQLProvider(
            name="plain",
            location="norway",
            host=postgresql_server.host,
            port=postgresql_server.port,
            database=await main.query_value("SELECT current_database()"),
            username=role,
            password="plain",
            pool=Pool(min=0, max=2),
        )
        async with plain:
            with pytest.raises(ConfigurationError, match="ALTER TABLE datavern_idempotency ADD asked INTEGER"):
                if how == "alone":
                    await plain.execute("UPDATE t SET n = 7", idempotency_key="k")
                else:
                    async with plain.transaction() as tx:
                        await tx.execute("UPDATE t SET n = 7", idempotency_key="k")
            await main.execute("ALTER TABLE datavern_idempotency ADD asked INTEGER")
            assert await plain.execute("UPDATE t SET n = 8", idempotency_key="k") == 5
    finally:
        await main.execute(f"DROP OWNED BY {role}")
        await main.execute(f"DROP ROLE {role}")


async def test_a_connection_that_breaks_is_an_unknown_outcome_that_a_key_settles(db):
    main = db["main"]
    await main.execute("UPDATE t SET n = 0", idempotency_key="made")
    async with main.transaction() as tx:
        await tx.execute("SELECT 1 FROM t WHERE id = 1 FOR UPDATE")
        change = ("UPDATE t SET n = n + 1 WHERE id = $1", [1])
        call = asyncio.create_task(main.execute(*change, audit=await db.audit.entry("x"), idempotency_key="k"))
        await waits(main)
        await main.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        with pytest.raises(OutcomeUnknown):
            await call
    assert await main.execute(*change, audit=await db.audit.entry("x"), idempotency_key="k") == 1
    assert await main.execute(*change, audit=await db.audit.entry("x"), idempotency_key="k") == 1
    assert await main.query_value("SELECT n FROM t WHERE id = 1") == 1


async def test_a_deferred_constraint_undoes_the_entry_and_the_key(db):
    main = db["main"]
    for _ in range(2):
        with pytest.raises(ConstraintViolated):
            change = "INSERT INTO child VALUES ($1, 99)"
            await main.execute(change, [1], audit=await db.audit.entry("never"), idempotency_key="k")
    assert await main.query_value("SELECT count(*) FROM datavern_audit") == 0
    assert await main.query_value("SELECT count(*) FROM datavern_idempotency") == 0


async def test_a_pool_of_one(postgresql_database, tmp_path):
    ring = await Keyring.create(f"file:{tmp_path / 'keys'}")
    await ring.close()
    provider = postgresql_database.provider("main", location="norway", pool=Pool(min=1, max=1, acquire=2.0))
    async with DatabaseManager({"main": provider}, keyring=ring.url, ledger="main") as db:
        await provider.execute("CREATE TABLE t (id int)")
        for n in range(3):
            entry = await db.audit.entry("x")
            assert await provider.execute("INSERT INTO t VALUES ($1)", [n], audit=entry, idempotency_key=f"{n}") == 1
            assert await provider.execute("CREATE INDEX ON t (id)", audit=await db.audit.entry("y")) == 0
        async with provider.transaction() as tx:
            for _ in range(2):
                await tx.execute("INSERT INTO t VALUES (9)", idempotency_key="in a transaction")
        assert await provider.query_value("SELECT count(*) FROM t") == 4


async def test_no_pool_no_entry(db):
    entry = await db.audit.entry("x")
    provider = PostgreSQLProvider.from_url("postgresql://nobody@127.0.0.1:1/x", location="norway")
    with pytest.raises(ConfigurationError):
        await provider.execute("SELECT 1", audit=entry)
