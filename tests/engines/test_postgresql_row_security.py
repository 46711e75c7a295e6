"""Row-level security, as a plain role: a tenant's rows are that tenant's, whoever had the connection before."""

from __future__ import annotations

import asyncio
import itertools
import random
import traceback
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from tests.waiting import settled

from datavern import (
    CapabilityMissing,
    ConfigurationError,
    Pool,
    PostgreSQLProvider,
    ProviderError,
    QueryRejected,
    SerializationConflict,
)
from datavern.testing import EmptyDatabase
from datavern.testing.postgresql import PostgreSQLServer

TENANTS = ["oslo", "bergen", "trondheim", "Ås kommune", "o'slo; --", '"', "oslo "]
ROWS = """
CREATE TABLE cases (id int, tenant_id text NOT NULL, title text);
INSERT INTO cases SELECT g, t.name, 'x' FROM unnest($q$%s$q$::text[]) AS t (name), generate_series(1, 3) g;
"""


def array(names: list[str]) -> str:
    quoted = ('"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in names)
    return "{" + ",".join(quoted) + "}"


@pytest.fixture
async def admin(postgresql_database: EmptyDatabase) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgresql_database.settings["url"])
    yield connection
    await connection.close()


_numbers = itertools.count()


@pytest.fixture
async def role(admin: asyncpg.Connection) -> AsyncIterator[str]:
    """A plain role that may make tables, and nothing beyond."""
    name = f"datavern_plain_{uuid.uuid4().hex[:12]}_{next(_numbers)}"
    await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'plain'; GRANT ALL ON SCHEMA public TO {name}")
    yield name
    await admin.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def settings(postgresql_database: EmptyDatabase, server: PostgreSQLServer, role: str) -> dict[str, Any]:
    found = postgresql_database.settings["url"].rpartition("/")[2].partition("?")[0]
    return {
        "name": "main", "host": server.host, "port": server.port, "database": found, "username": role,
        "password": "plain",
    }  # fmt: skip


@pytest.fixture
async def plain(
    postgresql_database: EmptyDatabase, postgresql_server: PostgreSQLServer, role: str, admin: asyncpg.Connection
) -> AsyncIterator[Any]:
    """A provider of a plain role, with a table of several tenants under the policy."""
    found = PostgreSQLProvider(**settings(postgresql_database, postgresql_server, role), pool=Pool(min=1, max=4))
    async with found as pg:
        await pg.execute(ROWS % array(TENANTS))
        await pg.enable_row_level_security("cases")
        yield pg


async def tenants(session: Any) -> set[str]:
    return {row[0] for row in await session.query("SELECT tenant_id FROM cases")}


# ---- what a tenant sees and writes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tenant", TENANTS)
async def test_a_tenant_sees_its_own_rows(plain: Any, tenant: str) -> None:
    async with plain.transaction(tenant=tenant) as tx:
        assert await tenants(tx) == {tenant}
        assert await tx.execute("UPDATE cases SET title = 'y'") == 3
        assert await tx.execute("DELETE FROM cases WHERE id = 1") == 1
        assert await tx.execute("INSERT INTO cases VALUES (9, $1, 'z')", [tenant]) == 1
        async with tx.stream("SELECT tenant_id FROM cases") as rows:
            assert {row[0] async for row in rows} == {tenant}
    assert await plain.run_in_transaction(tenants, tenant=tenant) == {tenant}
    async with plain.transaction(isolation="serializable", read_only=True, tenant=tenant) as tx:
        assert await tx.query_value("SELECT count(*) FROM cases") == 3
        assert await tx.query_value("SHOW transaction_isolation") == "serializable"
    other = next(t for t in TENANTS if t != tenant)
    async with plain.transaction(tenant=other) as tx:
        assert await tx.query_value("SELECT count(*) FROM cases WHERE title = 'x'") == 3


async def test_without_a_tenant_no_row_is_seen(plain: Any) -> None:
    for _ in range(3):
        assert await tenants(plain) == set()
        async with plain.transaction() as tx:
            assert await tenants(tx) == set()
            assert await tx.execute("UPDATE cases SET title = 'y'") == 0
        async with plain.transaction(tenant="oslo") as tx:  # afterwards the setting is empty, and not NULL
            assert await tenants(tx) == {"oslo"}
    with pytest.raises(QueryRejected, match=r"row-level security refuses the row: no tenant is set \(transaction"):
        await plain.execute("INSERT INTO cases VALUES (9, '', 'z')")


async def test_another_tenants_row_is_refused(plain: Any) -> None:
    with pytest.raises(QueryRejected, match="or the row is another's") as caught:
        async with plain.transaction(tenant="oslo") as tx:
            await tx.execute("INSERT INTO cases VALUES (9, 'bergen', '13097248022')")
    assert caught.value.code == "42501"
    with pytest.raises(QueryRejected, match="row-level security refuses the row"):
        async with plain.transaction(tenant="oslo") as tx:
            await tx.execute("UPDATE cases SET tenant_id = 'bergen'")
    with pytest.raises(QueryRejected, match="does not copy into cases, which .*-level security: use execute_many"):
        async with plain.transaction(tenant="oslo") as tx:
            await tx.copy_in("cases", ["id", "tenant_id"], [(1, "oslo")])
    async with plain.transaction(tenant="oslo") as tx:
        assert await tx.execute_many("INSERT INTO cases VALUES ($1, 'oslo')", [(i,) for i in range(5)]) == 5


async def test_a_savepoint_keeps_the_tenant(plain: Any) -> None:
    async with plain.transaction(tenant="oslo") as tx:
        for _ in range(2):
            with pytest.raises(QueryRejected):
                async with tx.savepoint():
                    await tx.execute("SELECT 1/0")
            async with tx.savepoint():
                assert await tenants(tx) == {"oslo"}
            assert await tenants(tx) == {"oslo"}


async def test_run_again_it_has_the_tenant_again(plain: Any) -> None:
    seen = []

    async def work(tx: Any) -> str:
        seen.append(await tenants(tx))
        if len(seen) < 3:
            raise SerializationConflict("once more")
        return "done"

    assert await plain.run_in_transaction(work, tenant="oslo") == "done"
    assert seen == [{"oslo"}] * 3


@pytest.mark.parametrize("tenant", ["", " ", "\t", "a\0b", "\ud800", 7, b"oslo", True])
async def test_a_tenant_that_cannot_be(plain: Any, tenant: Any) -> None:
    with pytest.raises(ConfigurationError, match="tenant"):
        plain.transaction(tenant=tenant)
    with pytest.raises(ConfigurationError, match="tenant"):
        await plain.run_in_transaction(tenants, tenant=tenant)


async def test_where_there_is_no_row_level_security(sqlite_database: EmptyDatabase) -> None:
    async with sqlite_database.provider() as lite:
        with pytest.raises(CapabilityMissing, match="row-level security"):
            lite.transaction(tenant="oslo")


async def test_the_tenant_is_a_parameter_in_one_round_trip(plain: Any, admin: asyncpg.Connection) -> None:
    async with plain.transaction(tenant="o'slo; --") as tx:
        pid = await tx.query_value("SELECT pg_backend_pid()")
        assert await tx.query_value("SELECT current_setting('datavern.tenant')") == "o'slo; --"
        await tx.query("SELECT 1")
        assert await admin.fetchval("SELECT query FROM pg_stat_activity WHERE pid = $1", pid) == "SELECT 1"
    async with plain.transaction(tenant="oslo") as tx:
        query = await admin.fetchval("SELECT query FROM pg_stat_activity WHERE pid = $1", pid)
        assert "set_config('datavern.tenant', $1, true)" in query
    assert plain.stats().reset <= 2, "the two of the table's making, and none for a tenant"


# ---- whom it does not bind ------------------------------------------------------------------------------------------


async def test_a_superuser_is_refused(postgresql: Any) -> None:
    with pytest.raises(ConfigurationError, match="is a superuser, and row-level security does not bind it"):
        async with postgresql.transaction(tenant="oslo"):
            pytest.fail("it was let in")
    assert postgresql.stats().in_use == 0
    assert await postgresql.query_value("SELECT current_setting('datavern.tenant', true)") in (None, "")


async def test_bypassrls_is_refused(plain: Any, role: str, admin: asyncpg.Connection) -> None:
    await admin.execute(f"ALTER ROLE {role} BYPASSRLS")
    with pytest.raises(ConfigurationError, match=f"the user {role} has BYPASSRLS"):
        await plain.run_in_transaction(tenants, tenant="oslo")
    await admin.execute(f"ALTER ROLE {role} NOBYPASSRLS")
    assert await plain.run_in_transaction(tenants, tenant="oslo") == {"oslo"}


async def test_an_owner_without_force_is_refused(plain: Any) -> None:
    await plain.execute("ALTER TABLE cases NO FORCE ROW LEVEL SECURITY")
    assert await tenants(plain) == set(TENANTS), "what is refused is real"
    with pytest.raises(ConfigurationError, match=r"does not bind the user .* on public.cases: .* enable_row_level_sec"):
        await plain.run_in_transaction(tenants, tenant="oslo")
    await plain.execute("ALTER TABLE cases DISABLE ROW LEVEL SECURITY")
    with pytest.raises(ConfigurationError, match=r"does not bind the user .* on public.cases"):
        await plain.run_in_transaction(tenants, tenant="oslo")
    assert await plain.enable_row_level_security("cases") == [
        'ALTER TABLE "cases" ENABLE ROW LEVEL SECURITY',
        'ALTER TABLE "cases" FORCE ROW LEVEL SECURITY',
    ]
    assert await plain.run_in_transaction(tenants, tenant="oslo") == {"oslo"}


async def test_a_member_of_the_owning_role_is_an_owner_too(
    plain: Any, role: str, admin: asyncpg.Connection, postgresql_database: EmptyDatabase,
    postgresql_server: PostgreSQLServer,
) -> None:  # fmt: skip
    member = f"{role}_m"
    await admin.execute(f"CREATE ROLE {member} LOGIN PASSWORD 'plain' IN ROLE {role}")
    try:
        async with PostgreSQLProvider(**settings(postgresql_database, postgresql_server, member)) as pg:
            assert await pg.run_in_transaction(tenants, tenant="oslo") == {"oslo"}
            await plain.execute("ALTER TABLE cases NO FORCE ROW LEVEL SECURITY")
            with pytest.raises(ConfigurationError, match=f"does not bind the user {member}"):
                await pg.run_in_transaction(tenants, tenant="oslo")
    finally:
        await admin.execute(f"DROP ROLE {member}")


# ---- making the policy ----------------------------------------------------------------------------------------------


async def test_made_once(plain: Any, admin: asyncpg.Connection) -> None:
    oid = "SELECT oid FROM pg_policy WHERE polrelid = 'cases'::regclass"
    before = await admin.fetch(oid)
    assert await plain.enable_row_level_security("cases") == []
    assert await plain.enable_row_level_security("public.cases", "tenant_id") == []
    assert await admin.fetch(oid) == before
    await asyncio.gather(*(plain.enable_row_level_security("cases") for _ in range(8)))
    row = await admin.fetchrow("SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = 'cases'")
    assert tuple(row) == (True, True)


async def test_a_policy_that_was_changed_is_made_again(plain: Any) -> None:
    await plain.execute("ALTER POLICY datavern_tenant ON cases USING (true)")
    run = await plain.enable_row_level_security("cases")
    assert [statement.split()[0] for statement in run] == ["DROP", "CREATE"]
    assert await plain.run_in_transaction(tenants, tenant="oslo") == {"oslo"}
    await plain.execute("ALTER TABLE cases ADD COLUMN owner text")
    assert len(await plain.enable_row_level_security("cases", "owner")) == 2
    assert await plain.run_in_transaction(tenants, tenant="oslo") == set()


@pytest.mark.parametrize(
    ("table", "column", "message"),
    [
        ("cases", "owner", "cases has no column owner: add it"),
        ("cases", "Tenant_id", "cases has no column Tenant_id"),
        ("cases", "ctid", "cases has no column ctid"),
        ("nothing", "tenant_id", "there is no table nothing"),
        ("Cases", "tenant_id", "there is no table Cases"),
        ("seen", "tenant_id", "seen is no table"),
        ("cases", "", "expected its name"),
        ("odd", "tenant_id", "odd.tenant_id has the type character: expected text, varchar"),
        ("odd", "b", "odd.b has the type bytea"),
        ("shared", "tenant_id", "shared has the policy everybody, which would let rows of other tenants through"),
    ],
)
async def test_what_cannot_have_the_policy(plain: Any, table: str, column: str, message: str) -> None:
    await plain.execute(
        "CREATE VIEW seen AS SELECT * FROM cases; CREATE TABLE odd (tenant_id char(4), b bytea);"
        "CREATE TABLE shared (tenant_id text); CREATE POLICY everybody ON shared USING (true)"
    )
    with pytest.raises(ConfigurationError) as caught:
        await plain.enable_row_level_security(table, column)
    assert message in str(caught.value)


async def test_who_does_not_own_the_table_may_not(plain: Any, admin: asyncpg.Connection) -> None:
    await admin.execute("CREATE TABLE theirs (tenant_id text)")
    with pytest.raises(QueryRejected, match="this user may not do that"):
        await plain.enable_row_level_security("theirs")


@pytest.mark.parametrize(
    ("kind", "tenant", "other"),
    [
        ("text", "oslo", "Oslo"),
        ("varchar(4)", "oslo", "oslobergen"),
        ("uuid", str(uuid.UUID(int=7)), str(uuid.UUID(int=8))),
        ("int", "7", "8"),
        ("smallint", "7", "70000"),
        ("bigint", str(2**40), "1"),
        ("kommune", "oslo", "bergen"),
    ],
)
async def test_columns_of_each_type_use_their_index(plain: Any, kind: str, tenant: str, other: str) -> None:
    await plain.execute(
        f"CREATE DOMAIN kommune AS text; CREATE TABLE t (tenant {kind}); CREATE INDEX ON t (tenant);"
        "SET LOCAL datavern.x = ''"
    )
    await plain.enable_row_level_security("t", "tenant")
    async with plain.transaction(tenant=tenant) as tx:
        await tx.execute(f"INSERT INTO t VALUES ('{tenant}')")
        assert await tx.query_value("SELECT count(*) FROM t") == 1
        await tx.execute("SET LOCAL enable_seqscan = off")
        plan = "\n".join(row[0] for row in await tx.query("EXPLAIN SELECT * FROM t"))
        assert "Index Cond" in plan
    async with plain.transaction(tenant=other) as tx:
        assert await tx.query_value("SELECT count(*) FROM t") == 0
    if kind in {"uuid", "int"}:
        with pytest.raises(QueryRejected) as caught:
            async with plain.transaction(tenant="no-such-13097248022") as tx:
                await tx.query("SELECT * FROM t")
        assert "no-such" not in str(caught.value)


async def test_names_stand_for_themselves(plain: Any) -> None:
    await plain.execute('CREATE TABLE "Ær ""lig" ("Leie\'taker" text)')
    await plain.enable_row_level_security('Ær "lig', "Leie'taker")
    assert await plain.enable_row_level_security('Ær "lig', "Leie'taker") == []
    async with plain.transaction(tenant="oslo") as tx:
        await tx.execute('INSERT INTO "Ær ""lig" VALUES ($1)', ["oslo"])


# ---- the pool -------------------------------------------------------------------------------------------------------


async def test_random_interleavings(plain: Any, faults_long: bool) -> None:
    """Many tasks, tenants and cancellations on four connections: nobody ever sees a row of another's."""
    times = 6000 if faults_long else 1200
    dice = random.Random(20261123)
    done = cancelled = 0

    async def work(tenant: str | None) -> None:
        kind = dice.randrange(8)
        if tenant is None:
            if kind < 4:
                assert await tenants(plain) == set()
            elif kind < 6:
                async with plain.transaction() as tx:
                    assert await tenants(tx) == set()
            else:  # somebody who tries to leave a tenant behind
                await plain.execute(f"SELECT set_config('datavern.tenant', '{dice.choice(['oslo', 'bergen'])}', false)")
            return
        try:
            async with plain.transaction(tenant=tenant) as tx:
                assert await tenants(tx) == {tenant}
                if kind == 0:
                    raise LookupError
                if kind == 1:
                    async with tx.savepoint():
                        await tx.execute("SELECT 1/0")
                if kind == 2:
                    await tx.query("SELECT pg_sleep(0.003)")
                if kind == 3:
                    await tx.execute("SET work_mem = '7MB'")
                    await tx.execute("SELECT set_config('datavern.tenant', 'bergen', false)")
                    assert await tenants(tx) == {"bergen"}
                    return
                if kind == 4:
                    await tx.execute("UPDATE cases SET title = 'z'")
                assert await tenants(tx) == {tenant}
        except (LookupError, ProviderError):
            pass

    async def one(number: int) -> None:
        nonlocal done, cancelled
        task = asyncio.ensure_future(work(dice.choice([*TENANTS, None, None, None])))
        if dice.random() < 0.4:
            for _ in range(dice.randrange(10)):
                await asyncio.sleep(0)
            if dice.random() < 0.5:
                await asyncio.sleep(dice.random() * 0.006)
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            cancelled += 1
        else:
            done += 1

    async def many(first: int) -> None:
        for number in range(first, times, 12):
            await one(number)

    await asyncio.gather(*(many(k) for k in range(12)))
    assert done + cancelled == times
    assert cancelled > times / 20, "the test does not test"
    assert done > times / 4, "the test does not test"
    await settled(plain)
    for _ in range(8):
        row = await plain.query_one("SELECT current_setting('datavern.tenant', true), current_setting('work_mem')")
        assert row[0] in (None, "")
        assert row[1] != "7MB"


async def test_cancelled_while_it_begins(plain: Any) -> None:
    for turns in range(40):
        entering = asyncio.ensure_future(plain.transaction(tenant="oslo").__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns % 2:
            await asyncio.sleep(turns / 20_000)
        if entering.cancel():
            with pytest.raises(asyncio.CancelledError):
                await entering
        else:
            tx = entering.result()
            await tx.__aexit__(None, None, None)
        assert await tenants(plain) == set()
    await settled(plain)


async def test_a_refusal_tells_no_tenant(postgresql: Any) -> None:
    planted = "13097248022"
    with pytest.raises(ConfigurationError) as caught:
        await postgresql.transaction(tenant=planted).__aenter__()
    assert planted not in "".join(traceback.format_exception(caught.value))


async def test_who_is_behind_a_policy_is_not_counted_as_nobody(admin: asyncpg.Connection, plain: Any) -> None:
    people = plain.capabilities.people
    with pytest.raises(ConfigurationError, match="a policy hides rows of it from this user"):
        async with people.people("cases", "tenant_id", {}):
            pass
    await admin.execute("ALTER TABLE cases DISABLE ROW LEVEL SECURITY")
    async with people.people("cases", "tenant_id", {}) as found:
        assert {held.people[0]: held.rows async for held in found} == dict.fromkeys(TENANTS, 3)
