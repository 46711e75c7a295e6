"""compliance=["gdpr"] and ["nsm"]: what is refused, before it happens, and what to do instead."""

import datetime as dt
from pathlib import Path

import pytest
from secondaries import stand_in

from datavern import (
    ConfigurationError,
    ConsentRequired,
    DatabaseManager,
    DataMap,
    Dataset,
    FailoverGroup,
    Field,
    PostgreSQLProvider,
    PrivacyError,
    SQLiteProvider,
    SubjectRequest,
)
from datavern.testing import create_test_database

PURPOSE = "customer-account"


def users(**changes):
    settings = {
        "database": "main",
        "subject": "id",
        "purposes": [PURPOSE],
        "erasure": "delete",
        "fields": {"name": Field(sealed=True), "email": Field(sealed=True, lookup=True), "place": Field()},
    }
    return Dataset("users", **{**settings, **changes})


ABOUT_NOBODY = Dataset("recipes", database="main", personal=False, fields={"text": Field(sealed=True)})


@pytest.fixture
async def db(managed, database, sql):
    """A manager whose database follows NSM's principles."""
    provider = database.provider(location="norway", compliance=["nsm", "gdpr"])
    async with managed(users(), ABOUT_NOBODY, databases={"main": provider}) as db:
        for dataset in ("users", "recipes"):
            await db.prepare(dataset)
        await db["main"].execute(sql("CREATE TABLE notes (id {text} PRIMARY KEY, users {text})"))
        yield db


# ---- unaudited writes to personal data ------------------------------------------------------------------------------

REFUSED = [
    "INSERT INTO users (id) VALUES ('x')",
    "insert into USERS (id) select 'x'",
    "INSERT INTO \"users\" (id) VALUES ('x')",
    "/* a */ INSERT -- b\n INTO users (id) VALUES ('x')",
    "UPDATE users SET place = 'x'",
    "UPDATE users AS u SET place = 'x' WHERE u.id = 'anna'",
    "DELETE FROM users",
    "WITH gone AS (SELECT id FROM users) DELETE FROM users WHERE id IN (SELECT id FROM gone)",
    "INSERT INTO personal_data (id) VALUES ('x')",
]
OF_ENGINE = {
    "sqlite": [
        "INSERT INTO users (id) VALUES ('x') RETURNING id",
        "INSERT INTO users (id) VALUES ('x') ON CONFLICT (id) DO UPDATE SET place = 'y'",
        "INSERT OR REPLACE INTO users (id) VALUES ('x')",
        "REPLACE INTO users (id) VALUES ('x')",
        "UPDATE OR IGNORE users SET place = 'x'",
        "DELETE FROM main.users",
        "DELETE FROM [users]",
        "DELETE FROM `Users`",
        "INSERT INTO 'users' (id) VALUES ('x')",
    ],
    "postgresql": [
        "INSERT INTO users (id) VALUES ('x') RETURNING id",
        "INSERT INTO users (id) VALUES ('x') ON CONFLICT (id) DO UPDATE SET place = 'y'",
        "DELETE FROM public.users",
        "UPDATE ONLY users SET place = 'x'",
        "UPDATE ONLY (users) SET place = 'x'",
        "TRUNCATE users",
        "TRUNCATE TABLE ONLY notes, public.users",
        "COPY users (id) FROM STDIN",
        "COPY public.users FROM '/tmp/x'",
        "WITH gone AS (DELETE FROM users RETURNING id) SELECT * FROM gone",
        "MERGE INTO users USING notes ON users.id = notes.id WHEN MATCHED THEN DELETE",
        "EXPLAIN ANALYZE DELETE FROM users",
        "PREPARE p AS DELETE FROM users",
        "INSERT INTO notes VALUES ('a', 'b'); DELETE FROM users",
        'DELETE FROM U&"\\0075sers"',
        "UPDATE users SET place = 'a\\b'",
    ],
    "azuresql": [
        "INSERT INTO users (id) OUTPUT inserted.id VALUES ('x')",
        "MERGE INTO users USING notes ON users.id = notes.id WHEN MATCHED THEN DELETE",
        "DELETE FROM dbo.users",
        "DELETE FROM [users]",
        "DELETE [dbo].[Users]",
        "UPDATE u SET place = 'x' FROM users AS u",
        "DELETE u FROM users u",
        "DELETE TOP (1) FROM users",
        "TRUNCATE TABLE users",
        "INSERT INTO notes VALUES ('a', 'b'); DELETE FROM users",
    ],
}
PASSING = [
    "SELECT * FROM users",
    "INSERT INTO notes (id, users) VALUES ('1', 'DELETE FROM users')",
    "INSERT INTO notes (id, users) SELECT id, place FROM users",
    "UPDATE notes SET users = 'INSERT INTO users'",
    "DELETE FROM notes WHERE users IN (SELECT id FROM users)",
    "INSERT INTO recipes (id) VALUES ('1')",
    "CREATE INDEX users_place ON users (place)",
]


@pytest.mark.parametrize("how", ["execute", "query", "many", "transaction", "stream", "keyed", "again"])
async def test_a_write_without_an_entry_is_refused(db, engine, how):
    main = db["main"]
    consent = await db.consents.grant(subject="anna", purpose=PURPOSE)
    await db.personal("users").insert({"id": "anna", "name": "Anna", "place": "Bø"}, consent=consent)
    for sql in [*REFUSED, *OF_ENGINE[engine]]:
        with pytest.raises(PrivacyError, match=r"users|personal_data") as refused:
            if how == "execute":
                await main.execute(sql)
            elif how == "query":
                await main.query(sql)
            elif how == "many":
                await main.execute_many(sql, [[]])
            elif how == "transaction":
                async with main.transaction() as tx:
                    await tx.execute(sql)
            elif how == "stream":
                async with main.stream(sql):
                    pass
            elif how == "keyed":
                await main.execute(sql, idempotency_key="k")
            else:
                for _ in range(2):
                    with pytest.raises(PrivacyError):
                        await main.query_one(sql)
                await main.query_value(sql)
        assert "db.personal(" in str(refused.value)
        assert "audit=" in str(refused.value)
        assert refused.value.retry == "never"
    assert [dict(r) for r in await main.query("SELECT id, place FROM users")] == [{"id": "anna", "place": "Bø"}]
    assert await main.query_value("SELECT count(*) FROM notes") == 0


async def test_what_writes_elsewhere_passes(db):
    for sql in PASSING:
        await db["main"].execute(sql)
    assert await db["main"].query_value("SELECT count(*) FROM recipes") == 1


async def test_what_postgresql_has_of_its_own(postgresql_database, keyring):
    main = postgresql_database.provider(location="norway", compliance=["nsm"])
    async with DatabaseManager({"main": main}, data_map=DataMap([users()]), keyring=keyring) as db:
        await db.prepare("users")
        await main.execute("CREATE TABLE notes (id text PRIMARY KEY)")
        with pytest.raises(PrivacyError, match="users"):
            await main.copy_in("users", ["id"], [("x",)])
        assert await main.copy_in("notes", ["id"], [("x",)]) == 1
        # What cannot be one statement with its entry is a transaction with it, and passes as well.
        for sql in ("INSERT INTO users (id) VALUES ('y'); DELETE FROM notes", "UPDATE users SET place = 'a\\b'"):
            assert await main.execute(sql, audit=await db.audit.entry("moved")) == 1
            with pytest.raises(PrivacyError):
                await main.execute(sql)
        await main.execute("CREATE RULE kept AS ON DELETE TO users DO INSTEAD NOTHING")
        await main.execute("DELETE FROM users", audit=await db.audit.entry("tried"))
        assert await main.query_value("SELECT place FROM users") == "a\\b"


async def test_a_write_with_its_entry_passes_and_only_that_one(db, placeholder):
    main = db["main"]
    sql = f"INSERT INTO users (id, place) VALUES ({placeholder(1)}, {placeholder(2)})"
    for number in range(2):
        entry = await db.audit.entry("imported", subject=f"p{number}")
        assert await main.execute(sql, [f"p{number}", "Ås"], audit=entry) == 1
        with pytest.raises(PrivacyError):
            await main.execute(sql, ["x", "Ås"])
    async with main.transaction() as tx:
        entry = await db.audit.entry("imported", subject="p2", transaction=tx)
        assert await tx.execute(sql, ["p2", "Ås"], audit=entry) == 1
        with pytest.raises(PrivacyError):
            await tx.execute(sql, ["x", "Ås"])
    for _ in range(2):
        entry = await db.audit.entry("imported", subject="p3")
        assert await main.execute(sql, ["p3", "Ås"], audit=entry, idempotency_key="once") == 1
    assert await main.query_value("SELECT count(*) FROM users") == 4
    assert await main.query_value("SELECT count(*) FROM datavern_audit WHERE action = 'imported'") == 4


async def test_datavern_s_own_writes_pass_and_a_text_that_reads_the_same_does_not(db):
    main, store = db["main"], db.personal("users")
    for name in ("anna", "berit", "clara"):
        consent = await db.consents.grant(subject=name, purpose=PURPOSE)
        await store.insert({"id": name, "name": name}, consent=consent)
        await store.update(name, {"place": "Bø"}, consent=consent)
        await store.delete(name)
        async with main.transaction() as tx:
            await store.insert({"id": name, "name": name, "email": "a@b.no"}, consent=consent, transaction=tx)
        await store.update(name, {"place": "Bø", "name": None}, consent=consent)
        await main.store_personal_data({"user_id": name, "note": "n"}, consent)
    request = SubjectRequest("rectification", subject="anna", changes={"users": {"name": "Right"}})
    await db.subject_requests.process(request)
    await db.subject_requests.process(SubjectRequest("erasure", subject="anna", received=dt.date(2026, 1, 31)))
    await store.insert_many(
        [{"id": "dora", "name": "d"}], consent=await db.consents.grant(subject="dora", purpose=PURPOSE)
    )
    assert {r["id"] for r in await main.query("SELECT id FROM users")} == {"berit", "clara", "dora"}
    own = [text for text in main._subjects._own if text.startswith(("INSERT", "UPDATE", "DELETE"))]
    assert len(own) >= 4
    for text in own:
        copy = "".join([text[:3], text[3:]])
        with pytest.raises(PrivacyError):
            await main.execute(copy, ["x"] * 3)


@pytest.mark.not_on("azuresql", "a database that takes no writes is a replica there, on a second server")
async def test_a_failover_group_and_a_provider_alone_refuse_it_too(database, keyring):
    async with create_test_database(database.engine) as other:
        await stand_in(other)
        places = {"m0": database, "m1": other}
        members = [d.provider(name, location="norway", compliance=["nsm"]) for name, d in places.items()]
        await _refused_by_a_group(members, keyring)
    alone = database.provider("main", location="norway", compliance=["nsm"], keyring=keyring)
    async with alone:
        await alone.execute("UPDATE users SET place = 'x'")  # nobody told it of a data map
        with pytest.raises(ConsentRequired):
            await alone.store_personal_data({"user_id": "anna", "x": 1}, "none")
        with pytest.raises(PrivacyError):
            await alone.execute("DELETE FROM personal_data")


async def _refused_by_a_group(members, keyring):
    group = FailoverGroup("main", primary=members[0], secondaries=members[1:])
    async with DatabaseManager({"main": group}, data_map=DataMap([users()]), keyring=keyring, ledger="main") as db:
        await db.prepare("users")
        consent = await db.consents.grant(subject="anna", purpose=PURPOSE)
        await db.personal("users").insert({"id": "anna", "name": "A"}, consent=consent)
        for session in (db["main"], members[0]):
            with pytest.raises(PrivacyError):
                await session.execute("DELETE FROM users")


async def test_without_nsm_plain_sql_writes_what_it_likes(managed):
    async with managed(users()) as db:
        await db.prepare("users")
        await db["main"].execute("INSERT INTO users (id) VALUES ('x')")
        assert await db["main"].execute("DELETE FROM users") == 1


# ---- before anything is connected -----------------------------------------------------------------------------------


async def refused(db, *says):
    with pytest.raises(ConfigurationError) as caught:
        await db.open()
    for words in says:
        assert words in str(caught.value)


async def test_nsm_with_personal_data_needs_an_audit_log(database):
    provider = database.provider(location="norway", compliance=["nsm"])
    plain = users(fields={"name": Field()}, legal_basis="law")
    await refused(
        DatabaseManager({"main": provider}, data_map=DataMap([plain])), "databases.main", "NSM 3.2.4", "keyring="
    )


async def test_nsm_refuses_keys_in_the_environment_and_connections_in_the_open(database):
    provider = database.provider(location="norway", compliance=["nsm"])
    db = DatabaseManager({"main": provider}, keyring="env:KEYS")
    await refused(db, "databases.main", "NSM 2.7.1")
    for tls in ("off", "none", "ca"):
        with pytest.raises(ConfigurationError, match=r"NSM 2\.7\.4"):
            PostgreSQLProvider.from_settings("main", {"host": "db.example", "database": "app", "location": "norway",
                                                      "tls": {"verify": tls}, "compliance": ["nsm"]})  # fmt: skip
    PostgreSQLProvider.from_settings("main", {"host": "db.example", "database": "app", "compliance": ["nsm"]})


async def test_gdpr_asks_for_a_data_map_even_an_empty_one(database, tmp_path):
    provider = database.provider(location="norway", compliance=["gdpr"])
    await refused(DatabaseManager({"main": provider}), "databases.main", "asks for a data map", "data_map=DataMap()")
    async with DatabaseManager({"main": provider}, data_map=DataMap()) as db:
        assert await db["main"].query_value("SELECT 1") == 1
    file = tmp_path / "datavern.toml"
    text = "[databases.main]\nprovider = 'sqlite'\npath = ':memory:'\nlocation = 'norway'\ncompliance = ['gdpr']\n"
    file.write_text(text)
    await refused(DatabaseManager.from_config(file), "[datasets]")
    file.write_text(text + "[datasets]\n")
    async with DatabaseManager.from_config(file):
        pass


async def test_gdpr_asks_for_a_basis_of_every_sealed_field(managed, database):
    provider = database.provider(location="norway", compliance=["gdpr"])
    without = users(purposes=[])
    await refused(managed(without, databases={"main": provider}), "datasets.users", "purposes", "legal_basis")
    async with managed(users(purposes=[], legal_basis="avtale"), databases={"main": provider}) as db:
        await db.prepare("users")


async def test_every_problem_is_told_at_once(tmp_path: Path):
    providers = {name: SQLiteProvider(tmp_path / f"{name}.db", compliance=["gdpr"]) for name in ("a", "b")}
    db = DatabaseManager(providers)
    assert len(db.compliance_problems()) == 2
    await refused(db, "databases.a", "databases.b")
    assert not list(tmp_path.iterdir())
