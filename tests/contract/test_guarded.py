"""Personal data written in one go, with the life of its key and its consent as conditions: the same as step by step."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import random
import uuid

import pytest
from tests.waiting import waits

from datavern import (
    ConfigurationError,
    ConsentRequired,
    ConstraintViolated,
    Dataset,
    Field,
    KeyErased,
    QueryRejected,
    SubjectRequest,
)
from datavern.contracts.capabilities import needs
from datavern.testing.contract.errors import PLANTED, nothing_planted

PURPOSE = "customer-account"
PERSON = {"id": "test-user", "personal_number": "13097248022", "name": "Test User", "email": "test@example.no"}


@pytest.fixture
async def consent(db):
    return await db.consents.grant(subject="test-user", purpose=PURPOSE)


@pytest.fixture
def visits():
    """Several rows for each person."""
    fields = {"note": Field(sealed=True), "place": Field()}
    return Dataset("visits", database="main", subject="who", purposes=[PURPOSE], erasure="delete", fields=fields)


@pytest.fixture
async def warm(managed, visits):
    """A manager with visits, a consent, and a key that is at hand and registered."""
    async with managed(visits) as db:
        await db.prepare("visits")
        consent = await db.consents.grant(subject="bjørn", purpose=PURPOSE)
        await db.personal("visits").insert({"id": "0", "who": "bjørn", "note": "first"}, consent=consent)
        yield db, db.personal("visits"), consent


@pytest.fixture
def at_once(monkeypatch):
    """What each guarded insert came to; True: it was written in one go."""
    done: list[bool] = []

    def watch(db):
        guarded = needs(db["main"], "guarded")
        real = type(guarded).insert

        async def told(self, *arguments, **more):
            result = await real(self, *arguments, **more)
            done.append(result)
            return result

        monkeypatch.setattr(type(guarded), "insert", told)
        return done

    return watch


@pytest.fixture
def transactions(monkeypatch):
    """The transactions that are begun from here on."""
    begun: list[object] = []

    def watch(db):
        kind = type(db["main"].transaction())
        real = kind.__aenter__

        async def told(self):
            begun.append(self)
            return await real(self)

        monkeypatch.setattr(kind, "__aenter__", told)
        return begun

    return watch


async def entries(db, dataset):
    rows = await db["main"].query("SELECT * FROM datavern_audit ORDER BY seq")
    return [dict(r) for r in rows if r["dataset"] == dataset]


async def ids(db, table="visits"):
    return {r["id"] for r in await db["main"].query(f"SELECT id FROM {table}")}


async def test_a_warm_insert_is_one_statement_and_the_same(warm, at_once, transactions):
    db, store, consent = warm
    done, begun = at_once(db), transactions(db)
    await store.insert({"id": "1", "who": "bjørn", "note": "æøå", "place": None}, consent=consent)
    await store.insert({"id": "2", "who": "bjørn", "note": None}, consent=consent.id)
    assert done == [True, True]
    assert begun == []
    async with db["main"].transaction() as tx:
        await store.insert({"id": "3", "who": "bjørn", "note": "slow"}, consent=consent, transaction=tx)
    assert [r["note"] async for r in store.of("bjørn")] == ["first", "æøå", None, "slow"]
    first, second, third, fourth = await entries(db, "main.visits")
    for entry in (second, third, fourth):
        assert {k: entry[k] for k in ("action", "handle", "era", "actor")} == {
            k: first[k] for k in ("action", "handle", "era", "actor")
        }
        assert consent.id in entry["details"]
    assert second["details"] == fourth["details"].replace('"note"', '"note","place"')
    await db.audit.seal()
    assert (await db.audit.verify()).ok


async def test_consents_that_do_not_hold(warm, at_once):
    db, store, consent = warm
    done = at_once(db)
    row = {"id": "1", "who": "bjørn", "note": "x"}
    grant = db.consents.grant
    soon = dt.datetime.now(dt.UTC)
    expired = await grant(subject="bjørn", purpose=PURPOSE, expires=soon - dt.timedelta(microseconds=1))
    other = await grant(subject="kari", purpose=PURPOSE)
    marketing = await grant(subject="bjørn", purpose="marketing")
    withdrawn = await grant(subject="bjørn", purpose=PURPOSE)
    await db.consents.withdraw(withdrawn)
    for given, says in (
        (expired, "has expired"),
        (other, "another person's"),
        (marketing, "the one given is to marketing"),
        (withdrawn, "was withdrawn"),
        ("no such id", "no consent of that id"),
        ("'; DROP TABLE visits; --", "no consent of that id"),
    ):
        with pytest.raises(ConsentRequired, match=says):
            await store.insert(row, consent=given)
    assert done == [False] * 6
    assert await ids(db) == {"0"}
    assert len(await entries(db, "main.visits")) == 1
    later = await grant(subject="bjørn", purpose=PURPOSE, expires=soon + dt.timedelta(days=1))
    await store.insert(row, consent=later)
    await store.insert({**row, "id": "2"}, consent=[marketing, consent])  # two are not said in one
    assert done[6:] == [True]
    assert await ids(db) == {"0", "1", "2"}


async def test_without_purposes_whatever_is_given_has_to_hold(managed, at_once):
    dataset = Dataset("visits", database="main", subject="who", fields={"note": Field(sealed=True)})
    async with managed(dataset) as db:
        await db.prepare("visits")
        store = db.personal("visits")
        await store.insert({"id": "0", "who": "a", "note": "x"})
        done = at_once(db)
        await store.insert({"id": "1", "who": "a", "note": "x"})
        any_purpose = await db.consents.grant(subject="a", purpose="anything")
        await store.insert({"id": "2", "who": "a", "note": "x"}, consent=any_purpose)
        assert done == [True, True]
        await db.consents.withdraw(any_purpose)
        with pytest.raises(ConsentRequired, match="withdrawn"):
            await store.insert({"id": "3", "who": "a", "note": "x"}, consent=any_purpose)
        assert await ids(db) == {"0", "1", "2"}


async def test_data_about_nobody(managed, at_once):
    dataset = Dataset("secrets", database="main", personal=False, fields={"recipe": Field(sealed=True)})
    async with managed(dataset) as db:
        await db.prepare("secrets")
        done = at_once(db)
        await db.personal("secrets").insert({"id": "1", "recipe": "salt"})
        assert done == [True]
        assert (await db.personal("secrets").get("1"))["recipe"] == "salt"
        (entry,) = await entries(db, "main.secrets")
        assert entry["handle"] is None


async def test_a_ledger_elsewhere(managed, database, visits):
    """The consent is then in another database, and no condition of this statement."""
    databases = {"main": database.provider("main", location="norway"), "ledger": _sqlite()}
    async with managed(visits, databases=databases, ledger="ledger") as db:
        await db.prepare("visits")
        store = db.personal("visits")
        consent = await db.consents.grant(subject="a", purpose=PURPOSE)
        for n in range(2):
            await store.insert({"id": f"{n}", "who": "a", "note": "x"}, consent=consent)
        await db.consents.withdraw(consent)
        with pytest.raises(ConsentRequired, match="withdrawn"):
            await store.insert({"id": "2", "who": "a", "note": "x"}, consent=consent)
        assert await ids(db) == {"0", "1"}


def _sqlite():
    from datavern import SQLiteProvider

    return SQLiteProvider(":memory:", name="ledger", location="norway")


async def test_every_type_of_column(managed, engine, at_once):
    """The values reach their columns as they do with VALUES."""
    types = {
        "postgresql": "id uuid PRIMARY KEY, who bigint, whole int, small smallint, real float8, exact numeric(10,2), "
        "moment timestamptz, day date, doc jsonb, yes boolean, raw bytea, list text[], made timestamptz DEFAULT now(), "
        "number int GENERATED ALWAYS AS IDENTITY",
        "sqlite": "id TEXT PRIMARY KEY, who INTEGER, whole INTEGER, small INTEGER, real REAL, exact TEXT, moment TEXT, "
        "day TEXT, doc TEXT, yes INTEGER, raw BLOB, list TEXT, made TEXT DEFAULT CURRENT_TIMESTAMP, number INTEGER",
        "azuresql": "id nvarchar(36) COLLATE Latin1_General_100_BIN2 PRIMARY KEY, who bigint, whole int, "
        "small smallint, [real] float, exact decimal(10, 2), moment datetimeoffset, day date, doc nvarchar(max), "
        "yes bit, raw varbinary(max), list nvarchar(max), made datetime2 DEFAULT sysdatetime(), number int IDENTITY",
    }[engine]
    dataset = Dataset("things", database="main", subject="who", fields={"note": Field(sealed=True)})
    async with managed(dataset) as db:
        await db["main"].execute(f"CREATE TABLE things ({types})")
        await db.prepare("things")
        store = db.personal("things")
        values = {
            "who": 42,
            "whole": 7,
            "small": 1,
            "real": 0.5,
            "day": dt.date(2026, 11, 23),
            "moment": dt.datetime(2026, 11, 23, 4, 5, 6, tzinfo=dt.UTC),
            "yes": True,
            "raw": b"\x00\xff",
            "exact": "1.10" if engine == "sqlite" else decimal.Decimal("1.10"),
            "doc": {"å": [1]} if engine == "postgresql" else '{"å":[1]}',
            "list": ["a", "b"] if engine == "postgresql" else None,
            "note": "n",
        }
        rows = []
        await store.insert({"id": str(uuid.uuid4()), "who": 42, "note": "the key is known"})
        done = at_once(db)
        for together in (True, False):
            id_ = str(uuid.uuid4())
            if together:
                await store.insert({"id": id_, **values})
            else:
                async with db["main"].transaction() as tx:
                    await store.insert({"id": id_, **values}, transaction=tx)
            row = await store.get(id_)
            assert row.pop("made") is not None
            row.pop("number")
            row.pop("id")
            rows.append(row)
        assert done == [True]
        assert rows[0] == rows[1]
        with pytest.raises(QueryRejected) as refused:
            await store.insert(
                {"id": str(uuid.uuid4()), **values, "whole" if engine == "postgresql" else "raw": {PLANTED}}
            )
        nothing_planted(refused.value)


async def test_a_unique_value_is_refused_and_nothing_is_left(warm):
    db, store, consent = warm
    await db["main"].execute("CREATE UNIQUE INDEX one_place ON visits (place)")
    await store.insert({"id": "1", "who": "bjørn", "place": PLANTED}, consent=consent)
    for row in ({"id": "2", "place": PLANTED}, {"id": "1", "place": PLANTED + "2"}):
        with pytest.raises(ConstraintViolated) as refused:
            await store.insert({"who": "bjørn", **row}, consent=consent)
        nothing_planted(refused.value)
    with pytest.raises(ConfigurationError, match='no field not "here') as refused:
        await store.insert({"id": PLANTED, "who": "bjørn", 'not "here': 1}, consent=consent)
    assert PLANTED not in str(refused.value)
    assert await ids(db) == {"0", "1"}
    assert len(await entries(db, "main.visits")) == 2


async def test_a_dead_key_takes_nothing(warm, at_once):
    db, store, consent = warm
    key = db.keys.warm("visits", "bjørn")
    site = db.services.site("main")
    async with db["main"].transaction() as tx:
        await site.life.end(tx, [key.id])
    done = at_once(db)
    with pytest.raises(KeyErased):
        await store.insert({"id": "1", "who": "bjørn", "note": "x"}, consent=consent)
    assert done == [False]
    assert await ids(db) == {"0"}
    assert len(await entries(db, "main.visits")) == 1


async def test_a_key_whose_row_is_gone_is_registered_again(warm, at_once):
    """What is remembered of another database, or of one that was set back, is a hint and no more."""
    db, store, consent = warm
    await db["main"].execute("DELETE FROM datavern_key_life")
    done = at_once(db)
    await store.insert({"id": "1", "who": "bjørn", "note": "x"}, consent=consent)
    await store.insert({"id": "2", "who": "bjørn", "note": "x"}, consent=consent)
    assert done == [False, True]
    assert await ids(db) == {"0", "1", "2"}


@pytest.fixture
async def elsewhere(database, warm):
    """Another connection's view of the same database."""
    async with database.provider("elsewhere", location="norway") as provider:
        from datavern.crypto.life import KeyLife

        life = KeyLife(provider)
        await life.open()
        yield provider, life


async def under_way(provider, engine, task):
    """Until the task waits for somebody else's transaction."""
    if engine != "sqlite":
        await waits(provider)
    else:
        await asyncio.sleep(0.1)
    assert not task.done()


@pytest.mark.parametrize(
    ("commits", "isolation"),
    [(True, None), (False, None), (True, "serializable"), (False, "serializable")],
    ids=["committed", "rolled back", "committed serializable", "rolled back serializable"],
)
async def test_a_write_waits_for_an_erasure_that_has_locked_the_key(warm, elsewhere, commits, isolation, at_once):
    db, store, consent = warm
    other, life = elsewhere
    engine = other.engine
    done = at_once(db)
    key = db.keys.warm("visits", "bjørn")
    try:
        async with other.transaction(isolation=isolation) as tx:
            await life.end(tx, [key.id])
            assert await tx.execute("DELETE FROM visits") == 1
            writing = asyncio.create_task(store.insert({"id": "1", "who": "bjørn", "note": "x"}, consent=consent))
            await under_way(other, engine, writing)
            if not commits:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    if commits:
        with pytest.raises(KeyErased):
            await writing
        assert await ids(db) == set()
        assert len(await entries(db, "main.visits")) == 1
    else:
        await writing
        assert await ids(db) == {"0", "1"}
        assert len(await entries(db, "main.visits")) == 2
    assert done == [not commits]


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
async def test_an_erasure_waits_for_a_write_that_holds_the_key(warm, elsewhere, at_once):
    """The write is held up after its guards, at a unique index; the erasure then sees what it wrote."""
    db, store, consent = warm
    other, life = elsewhere
    done = at_once(db)
    await db["main"].execute("CREATE UNIQUE INDEX one_place ON visits (place)")
    key = db.keys.warm("visits", "bjørn")

    async def erase():
        async with other.transaction() as tx:
            await life.end(tx, [key.id])
            return await tx.execute("DELETE FROM visits")

    with pytest.raises(ZeroDivisionError):
        async with db["main"].transaction() as tx:
            await tx.execute("INSERT INTO visits (id, place) VALUES ('q', 'Bø')")
            row = {"id": "1", "who": "bjørn", "note": "x", "place": "Bø"}
            writing = asyncio.create_task(store.insert(row, consent=consent))
            await waits(other)
            erasing = asyncio.create_task(erase())
            await asyncio.sleep(0.1)
            assert not writing.done()
            assert not erasing.done()
            raise ZeroDivisionError
    await writing
    assert await erasing == 2  # what was written first is seen, and erased
    assert await ids(db) == set()
    assert done == [True]
    with pytest.raises(KeyErased):
        await store.insert({"id": "2", "who": "bjørn", "note": "x"}, consent=consent)


@pytest.mark.parametrize("commits", [True, False], ids=["committed", "rolled back"])
async def test_a_write_waits_for_a_withdrawal_that_is_under_way(warm, elsewhere, engine, commits):
    db, store, consent = warm
    other, _ = elsewhere
    try:
        async with other.transaction() as tx:
            await tx.execute("UPDATE datavern_consents SET withdrawn_at = '2026-11-23T00:00:00.000000Z'")
            writing = asyncio.create_task(store.insert({"id": "1", "who": "bjørn", "note": "x"}, consent=consent))
            await under_way(other, engine, writing)
            if not commits:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    if commits:
        with pytest.raises(ConsentRequired, match="withdrawn"):
            await writing
    else:
        await writing
    assert await ids(db) == ({"0"} if commits else {"0", "1"})


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
async def test_a_withdrawal_while_the_write_waits_for_the_key(warm, elsewhere):
    """The consent is looked at as it stands when the write can go on, and not as it stood when it came."""
    db, store, consent = warm
    other, life = elsewhere
    key = db.keys.warm("visits", "bjørn")
    with pytest.raises(ZeroDivisionError):
        async with other.transaction() as tx:
            await life.end(tx, [key.id])
            writing = asyncio.create_task(store.insert({"id": "1", "who": "bjørn", "note": "x"}, consent=consent))
            await waits(other)
            await db.consents.withdraw(consent)
            raise ZeroDivisionError
    with pytest.raises(ConsentRequired, match="withdrawn"):
        await writing
    assert await ids(db) == {"0"}


async def test_of_writes_and_an_erasure_at_once_no_row_is_left(managed, visits):
    """Whatever the order: what was written is erased, or it is refused; and each row has its entry."""
    random.seed(11)
    async with managed(visits) as db:
        await db.prepare("visits")
        store = db.personal("visits")
        for n in range(6):
            who = f"person {n}"
            consent = await db.consents.grant(subject=who, purpose=PURPOSE)
            await store.insert({"id": f"{n}", "who": who, "note": "first"}, consent=consent)

            async def write(k, n=n, who=who, consent=consent):
                await asyncio.sleep(random.random() * 0.03)
                await store.insert({"id": f"{n}/{k}", "who": who, "note": "x"}, consent=consent)

            async def erase(who=who):
                await asyncio.sleep(random.random() * 0.02)
                await db.subject_requests.process(SubjectRequest("erasure", subject=who))

            written = await asyncio.gather(*(write(k) for k in range(25)), erase(), return_exceptions=True)
            assert written[-1] is None
            refused = [w for w in written if w is not None]
            assert all(isinstance(w, KeyErased | ConsentRequired) for w in refused), refused
            assert [r["id"] async for r in store.of(who)] == []
            inserted = [e for e in await entries(db, "main.visits") if e["action"] == "inserted"]
            assert len(inserted) == 1 + 25 - len(refused)
            await db["main"].execute("DELETE FROM visits")
            async with db["main"].transaction() as tx:
                await tx.execute("DELETE FROM datavern_audit")


async def test_cancelled_at_random_row_and_entry_or_neither(warm):
    db, store, consent = warm
    random.seed(3)
    tasks = [
        asyncio.create_task(store.insert({"id": f"c{n}", "who": "bjørn", "note": "x"}, consent=consent))
        for n in range(80)
    ]
    for n, task in enumerate(random.sample(tasks, 50)):
        await asyncio.sleep(random.random() * 0.002 if n > 10 else 0)
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(r, asyncio.CancelledError) for r in results)
    async with db["main"].transaction(isolation="snapshot", read_only=True) as tx:
        rows = await tx.query_value("SELECT count(*) FROM visits")
        told = await tx.query_value("SELECT count(*) FROM datavern_audit WHERE dataset = 'main.visits'")
    assert rows == told >= 1 + sum(r is None for r in results)


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
@pytest.mark.parametrize("rule", ["DO INSTEAD NOTHING", "DO ALSO INSERT INTO copies VALUES (new.id)"])
async def test_a_table_with_a_rule_is_written_step_by_step(warm, at_once, rule):
    db, store, consent = warm
    await db["main"].execute("CREATE TABLE copies (id text)")
    await db["main"].execute(f"CREATE RULE r AS ON INSERT TO visits {rule}")
    done = at_once(db)
    await store.insert({"id": "1", "who": "bjørn", "note": "x"}, consent=consent)
    assert done == [False]
    assert await ids(db) == ({"0"} if "NOTHING" in rule else {"0", "1"})
    assert await db["main"].query_value("SELECT count(*) FROM copies") == (0 if "NOTHING" in rule else 1)
    assert len(await entries(db, "main.visits")) == 2


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
async def test_a_trigger_that_keeps_a_row_out_is_no_guard(warm, at_once):
    db, store, consent = warm
    await db["main"].execute(
        "CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; "
        "CREATE TRIGGER keep_out BEFORE INSERT ON visits FOR EACH ROW EXECUTE FUNCTION keep_out()"
    )
    done = at_once(db)
    await store.insert({"id": "1", "who": "bjørn", "note": "x"}, consent=consent)
    assert done == [True]
    assert await ids(db) == {"0"}
    assert len(await entries(db, "main.visits")) == 2


async def test_a_subjects_first_insert_registers_the_key(db, at_once, transactions):
    done, begun = at_once(db), transactions(db)
    users = db.personal("users")
    consent = await db.consents.grant(subject="test-user", purpose=PURPOSE)
    begun.clear()
    await users.insert(PERSON, consent=consent)
    assert done == []
    assert begun
    assert await users.get("test-user") == PERSON
    await users.delete("test-user")
    begun.clear()
    await users.insert(PERSON, consent=consent)
    assert done == [True]
    assert begun == []
    assert await users.find(email="test@example.no") == [PERSON]
