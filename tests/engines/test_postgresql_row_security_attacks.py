"""Row-level security: ways around it, tried as a plain role, in SQL that a program could well hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from tests.engines.test_postgresql_row_security import settings

from datavern import ConfigurationError, ConstraintViolated, Pool, PostgreSQLProvider, QueryRejected

SCHEMA = """
CREATE TABLE cases (id int PRIMARY KEY, tenant_id text NOT NULL, title text);
INSERT INTO cases VALUES (1, 'oslo', 'x'), (2, 'bergen', 'x');
CREATE TABLE notes (id int, tenant_id text, "case" int REFERENCES cases ON DELETE CASCADE);
INSERT INTO notes VALUES (1, 'oslo', 1), (2, 'bergen', 1);
CREATE TABLE parted (id int, tenant_id text) PARTITION BY LIST (tenant_id);
CREATE TABLE parted_oslo PARTITION OF parted FOR VALUES IN ('oslo');
CREATE TABLE "Parted ""rest" PARTITION OF parted DEFAULT PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF "Parted ""rest" FOR VALUES FROM (0) TO (100);
INSERT INTO parted VALUES (1, 'oslo'), (2, 'bergen');
CREATE TABLE heir (extra int) INHERITS (cases);
INSERT INTO heir VALUES (3, 'bergen', 'x', 1);
"""


@pytest.fixture
async def admin(postgresql_database: Any) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgresql_database.settings["url"])
    yield connection
    await connection.close()


@pytest.fixture
async def roles(admin: asyncpg.Connection) -> AsyncIterator[tuple[str, str]]:
    """Who owns the tables, and who uses them: two plain roles."""
    tail = (await admin.fetchval("SELECT current_database()"))[-20:].lower()
    names = (f"owner_{tail}", f"app_{tail}")
    for name in names:
        await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'plain'; GRANT ALL ON SCHEMA public TO {name}")
    yield names
    for name in reversed(names):
        await admin.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.fixture
async def owner(postgresql_database: Any, postgresql_server: Any, roles: tuple[str, str]) -> AsyncIterator[Any]:
    found = settings(postgresql_database, postgresql_server, roles[0])
    async with PostgreSQLProvider(**found, pool=Pool(min=1, max=2)) as owner:
        await owner.execute(SCHEMA)
        for table in ("cases", "notes", "parted"):
            await owner.enable_row_level_security(table)
        await owner.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {roles[1]}")
        yield owner


@pytest.fixture
async def app(owner: Any, postgresql_database: Any, postgresql_server: Any, roles: tuple[str, str]) -> Any:
    found = settings(postgresql_database, postgresql_server, roles[1])
    async with PostgreSQLProvider(**found, pool=Pool(min=1, max=1)) as app:
        app.owner = owner
        yield app


async def seen(app: Any, sql: str, tenant: str | None = "oslo") -> set[str]:
    async with app.transaction(tenant=tenant) as tx:
        return {row[0] for row in await tx.query(sql)}


@pytest.mark.parametrize("table", ["parted", "parted_oslo", '"Parted ""rest"', "parted_low", "heir", "cases"])
async def test_partitions_and_heirs_by_their_own_names(app: Any, table: str) -> None:
    for session in (app, app.owner):
        assert await seen(session, f"SELECT tenant_id FROM {table}", None) == set()
        assert await seen(session, f"SELECT tenant_id FROM {table}", "oslo") <= {"oslo"}
        assert await seen(session, f"SELECT tenant_id FROM {table}", "bergen") <= {"bergen"}
        with pytest.raises(QueryRejected):
            async with session.transaction(tenant="trondheim") as tx:
                await tx.execute(f"INSERT INTO {table} (id, tenant_id) VALUES (9, 'oslo')")


async def test_a_partition_that_comes_later_is_put_under_it_when_asked_again(app: Any) -> None:
    await app.owner.execute(
        "CREATE TABLE parted_bergen (LIKE parted); "
        "ALTER TABLE parted ATTACH PARTITION parted_bergen FOR VALUES IN ('trondheim')"
    )
    run = await app.owner.enable_row_level_security("parted")
    assert [statement.split()[0] for statement in run] == ["ALTER", "ALTER", "CREATE"]
    assert all("parted_bergen" in statement for statement in run)
    assert await app.owner.enable_row_level_security("parted") == []


async def test_a_row_does_not_move_into_anothers_partition(app: Any) -> None:
    with pytest.raises(QueryRejected, match="row-level security"):
        async with app.transaction(tenant="oslo") as tx:
            await tx.execute("UPDATE parted SET tenant_id = 'bergen'")


async def test_a_view_of_the_owner_shows_a_tenants_own(app: Any) -> None:
    await app.owner.execute("CREATE VIEW of_owner AS SELECT * FROM cases; GRANT SELECT ON of_owner TO PUBLIC")
    assert await seen(app, "SELECT tenant_id FROM of_owner") == {"oslo"}
    assert await seen(app, "SELECT tenant_id FROM of_owner", None) == set()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("CREATE VIEW leak AS SELECT * FROM cases", "public.leak .* rights of its owner"),
        ("CREATE VIEW below AS SELECT * FROM cases; CREATE VIEW leak AS SELECT * FROM below", "rights of its owner"),
        ("CREATE MATERIALIZED VIEW leak AS SELECT * FROM cases", "holds the rows that its owner saw"),
    ],
)
async def test_a_view_of_a_superuser_is_refused(app: Any, admin: Any, roles: Any, made: str, message: str) -> None:
    await admin.execute(made)
    assert await seen(app, "SELECT tenant_id FROM cases") == {"oslo"}, "who may not read it does not mind"
    await admin.execute(f"GRANT SELECT ON leak TO {roles[1]}")
    assert {row[0] for row in await app.query("SELECT tenant_id FROM leak")} == {"oslo", "bergen"}, "it is real"
    app._views_looked_at = 0.0  # a minute has gone
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=message):
            await seen(app, "SELECT tenant_id FROM leak")
    await admin.execute(f"REVOKE SELECT ON leak FROM {roles[1]}")
    assert await seen(app, "SELECT tenant_id FROM cases") == {"oslo"}


async def test_a_view_of_an_owner_whom_the_policy_does_not_bind_is_refused(app: Any) -> None:
    """The policy binds who uses the table, and not who owns it: so not a view either that has the owner's rights."""
    await app.owner.execute("CREATE VIEW leak AS SELECT * FROM cases; GRANT SELECT ON leak TO PUBLIC")
    await app.owner.execute("ALTER TABLE cases NO FORCE ROW LEVEL SECURITY")
    assert {row[0] for row in await app.query("SELECT tenant_id FROM leak")} == {"oslo", "bergen"}, "it is real"
    with pytest.raises(ConfigurationError, match="public.leak .* rights of its owner"):
        await seen(app, "SELECT tenant_id FROM leak")
    await app.owner.enable_row_level_security("cases")
    assert await seen(app, "SELECT tenant_id FROM leak") == {"oslo"}


async def test_a_view_of_a_superuser_with_the_rights_of_who_asks(app: Any, admin: Any, roles: Any) -> None:
    await admin.execute("CREATE VIEW fair WITH (security_invoker = true) AS SELECT * FROM cases")
    await admin.execute(f"GRANT SELECT ON fair TO {roles[1]}")
    assert await seen(app, "SELECT tenant_id FROM fair") == {"oslo"}


async def test_a_policy_that_comes_later_and_adds_up_is_refused(app: Any) -> None:
    await app.owner.execute("CREATE POLICY everybody ON cases FOR SELECT USING (true)")
    assert {row[0] for row in await app.query("SELECT tenant_id FROM cases")} == {"oslo", "bergen"}, "it is real"
    with pytest.raises(ConfigurationError, match=r"on public.cases: .*another permissive policy"):
        await seen(app, "SELECT tenant_id FROM cases")
    await app.owner.execute("DROP POLICY everybody ON cases")
    await app.owner.execute("CREATE POLICY fewer ON cases AS RESTRICTIVE FOR SELECT USING (id < 2)")
    assert await seen(app, "SELECT tenant_id FROM cases") == {"oslo"}


async def test_a_function_that_sets_the_tenant_sets_it_for_its_transaction(app: Any) -> None:
    await app.owner.execute(
        "CREATE FUNCTION become(name text, transactions boolean) RETURNS text LANGUAGE sql "
        "AS $$ SELECT set_config('datavern.tenant', name, transactions) $$"
    )
    for is_local in (True, False):
        async with app.transaction(tenant="oslo") as tx:
            await tx.query_value("SELECT become('bergen', $1)", [is_local])
        async with app.transaction() as tx:
            await tx.query_value("SELECT become('bergen', $1)", [is_local])
        await app.query_value("SELECT become('bergen', $1)", [is_local])
        assert await app.query("SELECT * FROM cases") == []
        with pytest.raises(ZeroDivisionError):
            async with app.transaction(tenant="oslo") as tx:
                async with tx.savepoint():
                    await tx.query_value("SELECT become('bergen', $1)", [is_local])
                raise ZeroDivisionError
        assert await app.query("SELECT * FROM cases") == []
    async with app.transaction(tenant="oslo") as tx:
        with pytest.raises(ZeroDivisionError):
            async with tx.savepoint():
                await tx.query_value("SELECT become('bergen', true)")
                raise ZeroDivisionError
        assert {row[0] for row in await tx.query("SELECT tenant_id FROM cases")} == {"oslo"}


@pytest.mark.parametrize(
    "left",
    [
        "DECLARE kept CURSOR WITH HOLD FOR SELECT * FROM cases",
        "CREATE TEMP TABLE kept AS SELECT * FROM cases",
        "PREPARE kept AS SELECT * FROM cases",
        "SET datavern.tenant = 'oslo'",
        "SET SESSION datavern.tenant TO 'oslo'",
        "DO $$ BEGIN PERFORM set_config('datavern.tenant', 'oslo', false); END $$",
    ],
)
async def test_what_a_tenant_leaves_behind_is_gone(app: Any, admin: Any, left: str) -> None:
    database = await admin.fetchval("SELECT current_database()")
    await admin.execute(f'GRANT TEMPORARY ON DATABASE "{database}" TO PUBLIC')
    async with app.transaction(tenant="oslo") as tx:
        pid = await tx.query_value("SELECT pg_backend_pid()")
        await tx.execute(left)
    for look in ("FETCH ALL FROM kept", "SELECT * FROM kept", "EXECUTE kept"):
        with pytest.raises(QueryRejected):
            await app.query(look)
    assert await app.query("SELECT * FROM cases") == []
    assert await app.query_value("SELECT pg_backend_pid()") == pid, "the test does not test"


async def test_an_upsert_does_not_reach_anothers_row(app: Any) -> None:
    for text in (
        "INSERT INTO cases VALUES (2, 'oslo', 'y') ON CONFLICT (id) DO UPDATE SET title = 'y'",
        "INSERT INTO cases VALUES (2, 'oslo', 'y') ON CONFLICT (id) DO UPDATE SET tenant_id = 'oslo'",
    ):
        with pytest.raises(QueryRejected, match="row-level security"):
            async with app.transaction(tenant="oslo") as tx:
                await tx.execute(text)
    with pytest.raises(ConstraintViolated) as told:  # that the key is taken can be found out, as the page says
        async with app.transaction(tenant="oslo") as tx:
            await tx.execute("INSERT INTO cases VALUES (2, 'oslo', 'y')")
    assert "bergen" not in str(told.value)
    assert await seen(app, "SELECT title FROM cases", "bergen") == {"x"}


async def test_merge_and_returning_are_bound_too(app: Any) -> None:
    async with app.transaction(tenant="oslo") as tx:
        assert await tx.query("UPDATE cases SET title = 'z' WHERE id = 2 RETURNING *") == []
        assert await tx.query("DELETE FROM cases WHERE tenant_id = 'bergen' RETURNING *") == []
        merged = await tx.execute(
            "MERGE INTO cases c USING (VALUES (1), (2)) v (id) ON c.id = v.id WHEN MATCHED THEN UPDATE SET title = 'm'"
        )
        assert merged == 1
    assert await seen(app, "SELECT title FROM cases", "bergen") == {"x"}


async def test_a_condition_with_side_effects_sees_no_row_of_anothers(app: Any) -> None:
    """A function in WHERE that tells what it was given runs behind the policy, and not before it."""
    await app.owner.execute(
        "CREATE FUNCTION tell(t text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 "
        "AS $$ BEGIN IF t = 'bergen' THEN RAISE EXCEPTION 'saw %', t; END IF; RETURN true; END $$"
    )
    assert await seen(app, "SELECT tenant_id FROM cases WHERE tell(tenant_id)") == {"oslo"}


async def test_a_cascade_follows_the_key_wherever_it_leads(app: Any) -> None:
    """As the page says: a foreign key that does not hold the tenant leads to rows of others."""
    async with app.transaction(tenant="oslo") as tx:
        await tx.execute("DELETE FROM cases WHERE id = 1")
    assert await seen(app, "SELECT id FROM notes", "bergen") == set()


async def test_statements_prepared_under_one_tenant_serve_another(app: Any) -> None:
    for _ in range(8):  # beyond five a plan is kept for all values
        for tenant in ("oslo", "bergen"):
            async with app.transaction(tenant=tenant) as tx:
                rows = await tx.query("SELECT tenant_id FROM cases WHERE id > $1", [0])
                assert {row[0] for row in rows} == {tenant}
        assert await app.query("SELECT tenant_id FROM cases WHERE id > $1", [0]) == []
