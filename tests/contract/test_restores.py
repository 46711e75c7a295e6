"""A database that was set back hears of every erasure since, once, before its personal data may be read."""

import asyncio
import datetime as dt
import json
import shutil

import pytest

from datavern import (
    ConfigurationError,
    Dataset,
    ErasureIncomplete,
    Field,
    RestoreForbidden,
    SubjectRequest,
)
from datavern.privacy.erasure import heard
from datavern.testing import create_test_database

pytestmark = pytest.mark.not_on("azuresql", "a named server's databases are not put back")

SEALED = {"note": Field(sealed=True), "plain": Field()}
LAW = {"erasure": "retain", "retention": "5y", "legal_basis": "bokføringsloven § 13"}
EVENTS = Dataset("events", database="main", subject="who", fields=SEALED)
PEOPLE = Dataset("people", database="main", subject="who", erasure="anonymize", fields={"plain": Field()})
BILLS = Dataset("bills", database="main", subject="who", fields=SEALED, **LAW)
TABLES = ("events", "people", "bills", "datavern_key_life", "datavern_request_steps", "datavern_audit")


class Place:
    """A manager's databases, of which `main` can be copied and put back while nobody is connected."""

    def __init__(self, managed, database, ledger, server):
        self.managed, self.database, self.ledger, self.server = managed, database, ledger, server

    def manager(self, *datasets):
        databases = {
            "main": self.database.provider(location="norway"),
            "ledger": self.ledger.provider("ledger", location="norway"),
        }
        return self.managed(*(datasets or (EVENTS, PEOPLE, BILLS)), databases=databases, ledger="ledger")

    async def copy(self):
        if self.database.engine == "sqlite":
            path = self.database.settings["path"]
            shutil.copy(path, path + ".copy")
        else:
            await self._template(f"{self.name}_copy", self.name)

    async def put_back(self):
        if self.database.engine == "sqlite":
            path = self.database.settings["path"]
            for ending in ("-wal", "-shm"):
                with_ending = path + ending
                if shutil.os.path.exists(with_ending):
                    shutil.os.remove(with_ending)
            shutil.copy(path + ".copy", path)
        else:
            await self._run(f'DROP DATABASE "{self.name}" WITH (FORCE)')
            await self._template(self.name, f"{self.name}_copy")

    @property
    def name(self):
        return self.database.settings["url"].rpartition("/")[2].partition("?")[0]

    async def drop_copy(self):
        if self.database.engine == "postgresql":
            await self._run(f'DROP DATABASE IF EXISTS "{self.name}_copy" WITH (FORCE)')

    async def _template(self, new, old):
        for _ in range(100):  # the server needs a moment to see that nobody is connected any more
            try:
                return await self._run(f'CREATE DATABASE "{new}" TEMPLATE "{old}"')
            except Exception as error:  # noqa: BLE001  (asyncpg's own, for one moment)
                failed = error
                await asyncio.sleep(0.1)
        raise failed

    async def _run(self, sql):
        import asyncpg

        connection = await asyncpg.connect(self.server.url_of("postgres"))
        await connection.execute(sql)
        await connection.close()


@pytest.fixture
async def place(managed, database, engine, request):
    server = request.getfixturevalue("postgresql_server") if engine == "postgresql" else None
    async with create_test_database(engine) as ledger:
        place = Place(managed, database, ledger, server)
        yield place
        await place.drop_copy()


@pytest.fixture(autouse=True)
def every_opening_is_remembered(monkeypatch):
    """What a set-back database is found by is remembered from the first erasure on, and not from the hundredth."""
    monkeypatch.setattr(heard, "_MANY", 1)


async def fill(db, person):
    row = {"id": person, "who": person, "note": "Planted", "plain": "Planted"}
    await db.personal("events").insert(row)
    await db.personal("bills").insert(row)
    await db.personal("people").insert({"id": person, "who": person, "plain": "Planted"})


async def erase(db, person):
    return await db.subject_requests.process(SubjectRequest("erasure", subject=person))


async def prepared(db):
    for dataset in ("events", "people", "bills"):
        await db.prepare(dataset)


async def audited(db, name, action):
    rows = await db[name].query(f"SELECT details FROM datavern_audit WHERE action = '{action}'")
    return [json.loads(row[0]) for row in rows]


@pytest.mark.parametrize("many", [1, 100], ids=["remembered", "counted"])
async def test_what_a_restore_brought_back_is_gone_again_when_the_manager_opens(place, monkeypatch, many):
    monkeypatch.setattr(heard, "_MANY", many)
    async with place.manager() as db:
        await prepared(db)
        for person in ("before", "after", "bystander"):
            await fill(db, person)
        await erase(db, "before")
        await db.personal("events").insert({"id": "back", "who": "before", "note": "n", "plain": "came back"})
    await place.copy()
    async with place.manager() as db:
        erased = await erase(db, "after")
    await place.put_back()
    async with place.manager() as db:
        events = await db["main"].query("SELECT id, plain FROM events ORDER BY id")
        assert [tuple(row) for row in events] == [("back", "came back"), ("bystander", "Planted")]
        assert [row async for row in db.personal("events").of("after")] == []
        assert [row async for row in db.personal("people").of("after")] == []
        assert (await db["main"].query_value("SELECT count(*) FROM people WHERE plain = 'Planted'")) == 1
        assert (await db.personal("events").get("back"))["note"] == "n"
        again = await audited(db, "main", "erased_again")
        assert {entry["request"] for entry in again} == {erased.request_id}
        assert len(again) == 3
        (told,) = await audited(db, "ledger", "restore_replayed")
        assert told == {"database": "main", "erasures": 1, "found": 3, "since": None}
        assert (await db.audit.verify()).ok
        with pytest.raises(Exception, match="erased"):  # nobody can write under the old keys there either
            keys = await db["main"].query("SELECT key_id FROM datavern_key_life WHERE dead = 1")
            async with db["main"].transaction() as tx:
                await db.services.site("main").life.hold(tx, [row[0] for row in keys])
    async with place.manager() as db:  # and once is enough
        assert len(await audited(db, "main", "erased_again")) == 3
        assert len(await audited(db, "ledger", "restore_replayed")) == 1


async def test_a_replay_is_signed_and_counts_what_had_come_back(place):
    async with place.manager() as db:
        await prepared(db)
        for person in ("a", "b"):
            await fill(db, person)
    await place.copy()
    moment = dt.datetime.now(dt.UTC)
    async with place.manager() as db:
        requests = {(await erase(db, person)).request_id for person in ("a", "b")}
        await erase(db, "nobody")
        await db.subject_requests.restoring("main", since=moment)
        with pytest.raises(RestoreForbidden, match="replay"):
            await db.personal("events").get("a")
        with pytest.raises(RestoreForbidden):
            await db.personal("events").insert({"id": "x", "who": "x", "note": "n"})
    await place.put_back()
    async with place.manager() as db:
        for read in (lambda: db.personal("events").get("a"), lambda: db.personal("events").find(id="a")):
            with pytest.raises(RestoreForbidden, match="is being restored"):
                await read()
        assert (await db["main"].query_value("SELECT count(*) FROM events")) == 2
        done = await db.subject_requests.replay("main")
        assert (done.database, done.erasures, done.rows) == ("main", 3, 6)
        body = done.certificate.body
        assert done.certificate.verify(db.services.signer.verifier)
        assert requests < {entry["request"] for entry in body["requests"]}
        assert "a" not in {str(value) for value in body.values()}
        assert await db.personal("events").get("a") is None
        assert (await db["main"].query_value("SELECT count(*) FROM events")) == 0
        kept = await db["main"].query("SELECT datavern_retained_until FROM bills")
        assert len(kept) == 2
        assert all(row[0] for row in kept)
        again = await db.subject_requests.replay("main")
        assert (again.erasures, again.rows) == (0, 0)


async def test_a_replay_that_is_cut_off_is_finished_at_the_next_opening(place, monkeypatch):
    from cutting import Cut

    from datavern.privacy.erasure.rows import RowErasure

    async with place.manager() as db:
        await prepared(db)
        await fill(db, "a")
    await place.copy()
    async with place.manager() as db:
        await erase(db, "a")
    await place.put_back()

    async def cut(*args, **kwargs):
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(RowErasure, "_written", cut)
        with pytest.raises(Cut):
            await place.manager().open()
    async with place.manager() as db:
        assert await db["main"].query("SELECT id FROM events") == []
        assert len(await audited(db, "main", "erased_again")) == 3


async def test_a_row_that_cannot_go_leaves_the_database_shut(place, sql):
    async with place.manager() as db:
        await prepared(db)
        await fill(db, "a")
        await db["main"].execute(sql("CREATE TABLE fines (id INT PRIMARY KEY, event {text} REFERENCES events (id))"))
        await db["main"].execute("INSERT INTO fines VALUES (1, 'a')")
    await place.copy()
    async with place.manager() as db:
        await db["main"].execute("DELETE FROM fines")
        await erase(db, "a")
    await place.put_back()
    async with place.manager() as db:
        with pytest.raises(RestoreForbidden, match="erasures wait there: 1"):
            await db.personal("people").get("a")
        with pytest.raises(ErasureIncomplete, match="main.events") as told:
            await db.subject_requests.replay("main")
        assert list(told.value.receipt.waiting) == ["main.events"]
        await db["main"].execute("DELETE FROM fines")
        assert (await db.subject_requests.replay("main")).rows == 3
        assert await db.personal("people").get("a") is not None  # emptied: nothing says whose it was
        assert [row async for row in db.personal("people").of("a")] == []


async def test_a_ledger_that_was_set_back_too_finds_them_by_their_tombstones(managed, database, sql):
    """All of a database but the key store, which no backup of data holds: the journal does not know any more."""
    datasets = (EVENTS, Dataset("people", database="main", subject="who", fields={"plain": Field()}))

    def manager():
        return managed(*datasets, databases={"main": database.provider(location="norway")})

    tables = ("events", "people", "datavern_consents", "datavern_requests", "datavern_key_life")
    async with manager() as db:
        for dataset in datasets:
            await db.prepare(dataset.name)
        for person in ("a", "b", "æøå", "bystander"):
            await db.personal("events").insert({"id": person, "who": person, "note": "n", "plain": "Planted"})
            await db.personal("people").insert({"id": person, "who": person, "plain": "Planted"})
            await db.consents.grant(subject=person, purpose="p")
        main = db["main"]
        for table in tables:
            await main.execute(f"CREATE TABLE copy_{table} AS SELECT * FROM {table}")
        for person in ("a", "æøå", "nobody"):
            await erase(db, person)
        for table in (*tables, "datavern_request_steps"):
            await main.execute(f"DELETE FROM {table}")
        for table in tables:
            await main.execute(f"INSERT INTO {table} SELECT * FROM copy_{table}")
    async with manager() as db:
        assert [row[0] for row in await db["main"].query("SELECT id FROM events ORDER BY id")] == ["b", "bystander"]
        assert [row[0] for row in await db["main"].query("SELECT id FROM people ORDER BY id")] == ["b", "bystander"]
        assert (await db["main"].query_value("SELECT count(*) FROM datavern_consents")) == 2
        (told,) = await audited(db, "main", "restore_replayed")
        assert (told["erasures"], told["found"]) == (3, 4)
        assert (await db.personal("events").get("bystander"))["note"] == "n"


_FIRST = "DELETE FROM datavern_erasure_order WHERE changed = (SELECT min(changed) FROM datavern_erasure_order)"
MIDDLE = [  # of a person who had keys, and of one who had none
    *(
        (f"DELETE FROM {table} WHERE changed = (SELECT min(changed) FROM {table} WHERE changed > {after})", what)
        for table, what in (("datavern_tombstones", "tombstones"), ("datavern_erasure_order", "erasures"))
        for after in (0, f"(SELECT min(changed) FROM {table})")
    ),
    ("DELETE FROM datavern_erasures WHERE erased_at = (SELECT min(erased_at) FROM datavern_erasures)", "erasures"),
    (  # with what stood beside it: its destroyed keys tell
        f"{_FIRST}; DELETE FROM datavern_erasures WHERE request NOT IN (SELECT request FROM datavern_erasure_order)",
        "erasures",
    ),
]
LOST = [
    ("DELETE FROM datavern_tombstones", "tombstones"),
    ("DROP TABLE datavern_tombstones", "tombstones"),
    ("DELETE FROM datavern_tombstones WHERE changed = (SELECT max(changed) FROM datavern_tombstones)", "tombstones"),
    ("DELETE FROM datavern_erasures", "erasures"),
    ("DELETE FROM datavern_erasure_order", "erasures"),
    ("DROP TABLE datavern_erasure_order", "erasures"),
    ("DELETE FROM datavern_erasures WHERE erased_at = (SELECT max(erased_at) FROM datavern_erasures)", "erasures"),
    *MIDDLE,
]


@pytest.mark.parametrize(("loss", "what"), LOST)
async def test_what_is_known_of_erasures_is_not_lost_without_a_word(managed, database, monkeypatch, loss, what):
    monkeypatch.setattr(heard, "_MANY", 100)

    def manager():
        return managed(EVENTS, BILLS, databases={"main": database.provider(location="norway")})

    await erased(manager)
    async with manager() as db:  # every erasure is known: nothing is said
        await lose(db, loss)
    with pytest.raises(ConfigurationError, match=rf"has lost {what}: .*Restore all tables of the key store together"):
        async with manager():
            raise AssertionError("it opened")


@pytest.mark.parametrize(("loss", "what"), MIDDLE)
async def test_of_an_erasure_in_the_middle_it_is_told_when_it_matters(managed, database, loss, what):
    """Where an opening looks no more at all that there ever were: when the keys are verified, and before a replay."""

    def manager():
        return managed(EVENTS, BILLS, databases={"main": database.provider(location="norway")})

    await erased(manager)
    async with manager() as db:
        assert await db.keys.verify() == []
        await lose(db, loss)
    async with manager() as db:  # what the database was seen to hold, it holds
        found = await db.keys.verify()
        assert found
        assert all(problem.endswith(f"lost from the {what}") for problem in found)
        with pytest.raises(ConfigurationError, match=f"has lost {what}"):
            await db.subject_requests.replay("main")
    async with manager() as db:  # it was set back, to before that was seen
        await db["main"].execute("DELETE FROM datavern_request_steps WHERE request = '#heard'")
    with pytest.raises(ConfigurationError, match=f"has lost {what}"):
        async with manager():
            raise AssertionError("it opened")


async def erased(manager):
    """A manager's database with erasures of people who had keys and of one who had none, and one who stays."""
    async with manager() as db:
        for dataset in ("events", "bills"):
            await db.prepare(dataset)
        for person in "abc":
            row = {"id": person, "who": person, "note": "Planted", "plain": "Planted"}
            await db.personal("events").insert(row)
        for person in ("a", "nobody", "b"):
            await erase(db, person)


async def lose(db, statements):
    for statement in statements.split("; "):
        await db["main"].execute(statement)


async def test_what_is_no_restore_is_refused(place):
    now = dt.datetime.now(dt.UTC)
    async with place.manager() as db:
        await prepared(db)
        with pytest.raises(ConfigurationError, match="no database of that name"):
            await db.subject_requests.restoring("elsewhere", since=now)
        with pytest.raises(ConfigurationError, match="time zone"):
            await db.subject_requests.restoring("main", since=dt.datetime(2026, 1, 1))  # noqa: DTZ001
        with pytest.raises(ConfigurationError, match="future"):
            await db.subject_requests.restoring("main", since=now + dt.timedelta(days=1))
        with pytest.raises(ConfigurationError, match="no database of that name"):
            await db.subject_requests.replay("elsewhere")
        assert await db.personal("events").get("a") is None


async def test_stores_without_tables_are_told_since_when(managed, database, documents, cache):
    cases = Dataset("cases", database="documents", subject="owner.id")
    sessions = Dataset("sessions", database="cache", key="session:{subject}")
    databases = {"main": database.provider(location="norway"), "documents": documents(), "cache": cache()}
    async with managed(cases, sessions, databases=databases) as db:
        await db.prepare("cases")
        mongo, redis = db["documents"], db["cache"]

        async def put():
            for person in ("a", "b"):
                await mongo.raw("cases").insert_one({"_id": person, "owner": {"id": person}})
                await redis.set(f"session:{person}", "x")

        await put()
        await erase(db, "b")
        await mongo.raw("cases").insert_one({"_id": "b", "owner": {"id": "b"}})  # she came back
        moment = dt.datetime.now(dt.UTC)
        await erase(db, "a")
        await mongo.raw("cases").delete_many({})
        with pytest.raises(ConfigurationError, match="since is missing"):
            await db.subject_requests.replay("documents")
        with pytest.raises(RestoreForbidden):
            await db.personal("cases").get("a")
        await db.subject_requests.restoring("documents", since=moment)
        await mongo.raw("cases").insert_many([{"_id": p, "owner": {"id": p}} for p in ("a", "b")])
        await redis.set("session:a", "x")
        done = await db.subject_requests.replay("documents")
        assert (done.erasures, done.rows) == (1, 1)
        assert [one["_id"] async for one in mongo.raw("cases").find({})] == ["b"]
        assert (await db.subject_requests.replay("cache", since=moment)).rows == 1
        assert await redis.get("session:a") is None
        assert [row["_id"] async for row in db.personal("cases").of("b")] == ["b"]


async def test_what_a_hold_kept_and_a_restore_brought_back_is_waited_for_again(place):
    async with place.manager() as db:
        await prepared(db)
        await db.personal("events").insert({"id": "a", "who": "a", "note": "Planted", "plain": "Planted"})
        hold = await db.holds.place("events", key="a", reason="tvistesak")
        erased = await erase(db, "a")
        assert (await db["main"].query_value("SELECT count(*) FROM events")) == 1
    await place.copy()
    async with place.manager() as db:
        await db.holds.release(hold.id)
        await db.subject_requests.resume()
        assert await db["main"].query("SELECT id FROM events") == []
        completed = await db.subject_requests.certificate(f"{erased.request_id}-completed")
        assert completed.body["stores"][0]["found"] == 1
    await place.put_back()
    async with place.manager() as db:  # the hold is back, too
        assert (await db["main"].query_value("SELECT count(*) FROM events")) == 1
        assert await audited(db, "ledger", "restore_replayed") == []
        await db.holds.release(hold.id)
        await db.subject_requests.resume()
        assert await db["main"].query("SELECT id FROM events") == []
        assert await db.subject_requests.certificate(erased.request_id) is not None


async def erase_many(db, people):
    return {person: answer async for person, answer in db.subject_requests.erase_many(people)}


async def replayed(db):
    return [entry["erasures"] for entry in await audited(db, "ledger", "restore_replayed")]


async def test_an_opening_reads_what_has_ended_since_and_not_all_that_ever_did(place, monkeypatch):
    monkeypatch.setattr(heard, "_MANY", 100)
    read = []

    kind = type(place.database.provider())
    original = kind.query

    async def query(self, *args):
        rows = await original(self, *args)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(kind, "query", query)

    async def opening():
        read.clear()
        async with place.manager() as db:
            assert await replayed(db) == []
        return sum(read), len(read)

    async with place.manager() as db:
        await prepared(db)
    rows, statements = await opening()
    async with place.manager() as db:
        await erase_many(db, [f"p{number}" for number in range(130)])
    assert (await opening())[0] >= rows + 130 + 130  # all of them, and how many steps each has
    more, asked = await opening()
    assert more <= rows + 5
    assert asked <= statements + 10
    async with place.manager() as db:
        await erase_many(db, ["q1", "q2"])
    more, asked = await opening()
    assert more <= rows + 20  # these two, and their steps, for each of two databases
    assert asked <= statements + 10


async def test_a_database_is_found_to_be_set_back_before_and_after_what_was_remembered_of_it(place, monkeypatch):
    monkeypatch.setattr(heard, "_MANY", 3)
    async with place.manager() as db:
        await prepared(db)
        for person in ("a", "b", "c", "d", "later", "last"):
            await fill(db, person)
        await erase_many(db, ["a", "b", "c", "d"])
    async with place.manager() as db:  # remembered: the first four
        (first,) = await tokens(db)
    await place.copy()
    async with place.manager() as db:
        await erase(db, "later")
        assert await tokens(db) == [first]
    await place.put_back()  # to after what is remembered: the same token, and one erasure less
    async with place.manager() as db:
        assert await replayed(db) == [1]
        assert [row async for row in db.personal("people").of("later")] == []
        await erase_many(db, ["x", "y"])
    async with place.manager() as db:  # remembered anew: seven
        (second,) = await tokens(db)
        assert second != first
        assert await replayed(db) == [1]
        await erase(db, "last")
    await place.put_back()  # to before what is remembered: the older token
    async with place.manager() as db:
        assert await replayed(db) == [1, 4]
        assert [row[0] for row in await db["main"].query("SELECT id FROM events ORDER BY id")] == []
    async with place.manager() as db:
        assert await replayed(db) == [1, 4]
        assert second not in await tokens(db)
        assert (await db.audit.verify()).ok


async def test_a_step_that_is_missing_at_the_second_look_is_not_remembered_as_there(place):
    """Between the first look and the transaction that would remember it, the database is set back."""
    async with place.manager() as db:
        await prepared(db)
        await fill(db, "a")
        await erase(db, "a")
        restores = db.services.requests._restores
        reach = restores._ended.reach

        async def set_back(before):
            found = await reach(before)
            await db["main"].execute("DELETE FROM datavern_request_steps WHERE dataset = 'events'")
            return found

        restores._ended.reach = set_back
        assert await restores._hearing.behind("main") == []
        assert await tokens(db) == []
        restores._ended.reach = reach
        assert len(await restores._hearing.behind("main")) == 1


async def test_managers_that_open_at_once_remember_one_thing(place):
    async with place.manager() as db:
        await prepared(db)
        await erase_many(db, ["a", "b", "c"])
    opened = [place.manager() for _ in range(4)]
    await asyncio.gather(*(db.open() for db in opened))
    await asyncio.gather(*(db.close() for db in opened))
    async with place.manager() as db:
        assert await replayed(db) == []
        await erase(db, "d")
    async with place.manager() as db:
        assert await replayed(db) == []
        assert await tokens(db)


async def test_a_wider_data_map_is_looked_at_for_itself(place):
    """What was seen of some datasets says nothing of others in the same database."""
    async with place.manager() as db:
        await prepared(db)
        await fill(db, "a")
    await place.copy()
    async with place.manager() as db:
        await erase(db, "a")
    async with place.manager(EVENTS) as db:
        assert len(await tokens(db)) == 1
        await db["main"].execute("DELETE FROM datavern_request_steps WHERE dataset IN ('people', 'bills')")
    async with place.manager(EVENTS) as db:
        assert await replayed(db) == []
    async with place.manager() as db:
        assert await replayed(db) == [1]


async def tokens(db):
    query = "SELECT dataset FROM datavern_request_steps WHERE request = '#heard'"
    return [row[0] for row in await db["main"].query(query)]
