"""What docs/security.md claims of sealed values: searched for where they could lie, and tampered with in every way.

Each search has a control: a value in the clear that it must find, or it proves nothing.
"""

import shutil
import sqlite3
import subprocess
import traceback
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from speech import SPEECHES

from datavern import (
    ConstraintViolated,
    DatabaseManager,
    DataMap,
    Dataset,
    DatavernError,
    DecryptionFailed,
    Field,
    Keyring,
    KeyUnavailable,
    MongoDBProvider,
    PostgreSQLProvider,
    ProviderError,
    RedisProvider,
    SQLiteProvider,
    SubjectRequest,
)
from datavern.cli.plaintexts import Plaintexts
from datavern.testing.mongodb import MongoDBServer
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.valkey import ValkeyServer

NAME, NUMBER, MAIL, NOTE = "Planted Åse Østby", "10915596784", "planted.person@example.no", "hemmelig diagnose F32"
SECRETS = Plaintexts([NAME, NUMBER, MAIL, NOTE])
CONTROL = "Control Kåre Ærlig"
CONTROLS = Plaintexts([CONTROL])
PERSON = {"personal_number": NUMBER, "name": NAME, "email": MAIL, "note": NOTE}
PEOPLE = Dataset(
    "people",
    database="main",
    subject="owner",
    erasure="anonymize",
    legal_basis="helsepersonelloven § 39",
    fields={
        "personal_number": Field(sealed=True, lookup=True, unique=True, kind="fodselsnummer"),
        "name": Field(sealed=True, kind="name", prefixes=[3], ngrams=3),
        "email": Field(sealed=True, lookup=True, kind="email"),
        "note": Field(sealed=True),
    },
)
COPY = Dataset("copies", database="main", subject="owner", legal_basis="x", fields={"name": Field(sealed=True)})


async def failing(work):
    """What a failure says, with all that led to it."""
    try:
        await work
    except DatavernError as error:
        return "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__)
    raise AssertionError("it did not fail")


async def used(db):
    """A life of the application, with its mistakes; what it said."""
    main, people = db["main"], db.personal("people")
    sql = SPEECHES[main.engine]
    await main.execute(sql("CREATE TABLE control (id integer PRIMARY KEY, value {text})"))
    await main.execute(sql("INSERT INTO control VALUES (1, $1)"), [CONTROL])
    await people.insert({"id": "a", "owner": "u1", **PERSON})
    await people.insert_many([{"id": f"b{n}", "owner": f"u{n}", "name": NAME, "note": NOTE} for n in range(30)])
    await people.update("b1", {"email": MAIL, "note": NOTE + "!"})
    assert len(await people.find(email=MAIL)) == 2
    assert len(await people.starts_with(name=NAME[:9])) == 31
    assert len(await people.contains(name=NAME[-5:])) == 31
    await people.delete("b2")
    await db.subject_requests.process(SubjectRequest("access", subject="u1"))
    await db.subject_requests.process(SubjectRequest("erasure", subject="u5"))
    granted = await db.consents.grant(subject="u7", purpose="p")
    await main.store_personal_data({"user_id": "u7", "personal_number": NUMBER, "note": NOTE}, granted)
    said = [
        await failing(people.insert({"id": "twice", "owner": "u9", **PERSON})),
        await failing(people.insert({"id": "a", "owner": "u9", "name": NAME})),
        await failing(people.insert({"id": "c", "owner": "u9", "name": {NAME: {NOTE}}})),
        await failing(people.insert({"id": "c", "owner": "u9", "nowhere": NAME})),
        await failing(people.insert({"id": "c", "owner": "u9", "name": NAME + "\ud800"})),
        await failing(people.find(note=NOTE)),
        await failing(main.execute("INSERT INTO people (id, name) VALUES (1, 2, 3)", [NAME])),
        str(await db.health()),
        str(main.stats()),
        repr(people) + repr(db.keys),
    ]
    await main.execute("UPDATE people SET note = name WHERE id = 'b3'")
    said.append(await failing(people.get("b3")))
    with pytest.raises(ConstraintViolated):
        await people.insert({"id": "twice", "owner": "u9", **PERSON})
    return "\n".join(said)


@pytest.fixture
async def keys(tmp_path):
    url = f"file:{tmp_path / 'ring'}"
    await (await Keyring.create(url)).close()
    return url


def found_in(folder, texts):
    hits, files = texts.in_folder(folder)
    assert files
    return {(hit.text, hit.file.name) for hit in hits}


async def test_sqlite_and_its_log_and_its_copies_hold_no_sealed_value(tmp_path, keys, logged):
    place = tmp_path / "data"
    place.mkdir()
    main = SQLiteProvider(place / "app.db", name="main", location="norway", secure_delete=False)
    async with DatabaseManager({"main": main}, data_map=DataMap([PEOPLE]), keyring=keys) as db:
        await db.prepare("people")
        said = await used(db)
        shutil.copytree(place, tmp_path / "while it runs")  # with its write-ahead log
        await main.backup(tmp_path / "while it runs" / "backup.db")
    with closing(sqlite3.connect(place / "app.db")) as connection:
        (place / "dump.sql").write_text("\n".join(connection.iterdump()), encoding="utf-8")
    copied = {name for _, name in found_in(tmp_path / "while it runs", CONTROLS)}
    assert "backup.db" in copied
    assert copied & {"app.db", "app.db-wal"}  # in the log until it is written into the file
    assert {name for _, name in found_in(place, CONTROLS)} == {"app.db", "dump.sql"}
    assert found_in(tmp_path, SECRETS) == set()
    assert SECRETS.in_bytes((said + logged.getvalue()).encode()) == []


async def test_postgresql_its_log_its_dumps_and_its_server_log_hold_no_sealed_value(tmp_path, keys, logged):
    settings = {
        "logging_collector": "on", "log_directory": "log", "log_statement": "all", "log_min_messages": "debug1",
        "log_parameter_max_length": "-1", "log_parameter_max_length_on_error": "-1", "log_error_verbosity": "verbose",
    }  # fmt: skip
    with PostgreSQLServer(settings=settings) as server:
        main = PostgreSQLProvider.from_url(server.url, name="main", location="norway")
        async with DatabaseManager({"main": main}, data_map=DataMap([PEOPLE]), keyring=keys) as db:
            await db.prepare("people")
            said = await used(db)
            await main.execute("CHECKPOINT")
            data = Path(await main.query_value("SELECT current_setting('data_directory')"))
        command = [server._install / "pg_dump", "--inserts", "-d", server.url]
        dump = subprocess.run(command, capture_output=True, check=True).stdout  # noqa: ASYNC221  (nothing else runs)
        controls = CONTROLS.in_folder(data)[0]
        assert {hit.file.relative_to(data).parts[0] for hit in controls} >= {"base", "pg_wal", "log"}
        assert CONTROLS.in_bytes(dump)
        assert found_in(data, SECRETS) == set()
    assert SECRETS.in_bytes(dump) == []
    assert SECRETS.in_bytes((said + logged.getvalue()).encode()) == []


async def test_mongodb_and_redis_hold_no_sealed_value(tmp_path, keys, logged):
    with MongoDBServer() as mongodb, ValkeyServer() as valkey:
        valkey.command("CONFIG", "SET", "rdbcompression", "no")
        databases = {
            "main": SQLiteProvider(tmp_path / "ledger.db", name="main", location="norway"),
            "documents": MongoDBProvider(name="documents", uri=mongodb.uri("app"), location="norway"),
            "cache": RedisProvider(
                name="cache", port=valkey.port, location="norway", encryption=True, retention="30d"
            ),
        }  # fmt: skip
        async with DatabaseManager(databases, keyring=keys, ledger="main") as db:
            mongo, redis = db["documents"], db["cache"]
            await mongo.collection("control").insert_one({"value": CONTROL})
            document = await mongo.insert_document("cases", PERSON, classification="SECRET", subject="u1")
            assert (await mongo.find_document("cases", {"_id": document}))["name"] == NAME
            await mongo.files.upload(f"{NAME}.txt", NOTE.encode() * 1000, classification="SECRET", subject="u1")
            assert await mongo.files.read(f"{NAME}.txt") == NOTE.encode() * 1000
            await redis.set("session:u1", PERSON, ex=3600, subject="u1")
            await redis.set("shared", PERSON, ex=3600)
            await redis.publish("channel", PERSON)
            assert (await redis.get("session:u1"))["note"] == NOTE
            valkey.command("SET", "control", CONTROL)
            valkey.command("SAVE")
            said = await failing(mongo.insert_document("cases", {"_id": document, **PERSON}, classification="SECRET"))
            await mongo.collection("cases").update_one({"_id": document}, {"$set": {"_metadata.created_by": "x"}})
            said += await failing(mongo.find_document("cases", {"_id": document}))
        mongodb.halt()
        for server in (mongodb, valkey):
            assert found_in(server.folder, CONTROLS), "the search does not see what is there"
            assert found_in(server.folder, SECRETS) == set()
    assert found_in(tmp_path, SECRETS) == set()
    assert SECRETS.in_bytes((said + logged.getvalue()).encode()) == []


# ---- tampering ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def two(managed, sql):
    """Two people with two rows each, and a dataset with a field of the same name."""
    async with managed(PEOPLE, COPY) as db:
        await db.prepare("people")
        await db.prepare("copies")
        for owner, id_ in (("u1", "a"), ("u1", "b"), ("u2", "c"), ("u2", "d")):
            await db.personal("people").insert({"id": id_, "owner": owner, "name": f"{NAME} {id_}", "note": NOTE})
        await db.personal("copies").insert({"id": "a", "owner": "u1", "name": NAME})
        yield db


async def refused(db, dataset, id_):
    """The row, and every search that comes by it, is refused with one and the same message."""
    with pytest.raises(DecryptionFailed) as caught:
        await db.personal(dataset).get(id_)
    assert str(caught.value) == str(DecryptionFailed())


MOVES = {
    "to another row of the person": "UPDATE people SET name = (SELECT name FROM people WHERE id = 'b') WHERE id = 'a'",
    "to another person": "UPDATE people SET name = (SELECT name FROM people WHERE id = 'c') WHERE id = 'a'",
    "to another column": "UPDATE people SET name = note WHERE id = 'a'",
    "from another dataset": "UPDATE people SET name = (SELECT name FROM copies WHERE id = 'a') WHERE id = 'a'",
    "with its row's tag": (
        "UPDATE people SET name = (SELECT name FROM people WHERE id = 'c'), "
        "datavern_row = (SELECT datavern_row FROM copies WHERE id = 'a') WHERE id = 'a'"
    ),
    "to another subject": "UPDATE people SET owner = 'u2' WHERE id = 'a'",
    "to nobody": "UPDATE people SET owner = NULL WHERE id = 'a'",
    "without its row's tag": "UPDATE people SET datavern_row = NULL WHERE id = 'a'",
}


async def test_a_sealed_value_that_was_moved_is_refused(two):
    main = two["main"]
    (kept,) = await main.query("SELECT * FROM people WHERE id = 'a'")
    for statement in MOVES.values():
        await main.execute(statement)
        await refused(two, "people", "a")
        await restored(main, dict(kept))
        assert (await two.personal("people").get("a"))["note"] == NOTE


async def restored(main, row):
    changed = ("owner", "name", "datavern_row")
    change = SPEECHES[main.engine]("UPDATE people SET owner = $1, name = $2, datavern_row = $3 WHERE id = 'a'")
    await main.execute(change, [row[name] for name in changed])


async def test_a_whole_row_under_another_key_is_refused(two):
    """The row is copied with its tag, its person and all; only the primary key is another. It is that row, moved."""
    main = two["main"]
    await main.execute("DELETE FROM people WHERE id = 'b'")
    await main.execute("UPDATE people SET id = 'b' WHERE id = 'a'")
    assert (await two.personal("people").get("b"))["name"] == f"{NAME} a"  # the page says so: no claim is made of it
    with pytest.raises(ProviderError):
        names = "owner, name, note, name_prefix3, name_ngrams, datavern_row"
        await main.execute(f"INSERT INTO people (id, {names}) SELECT 'x', {names} FROM people WHERE id = 'b'")


async def test_a_changed_bit_or_length_is_refused(two, sql):
    main, people = two["main"], two.personal("people")
    (row,) = await main.query("SELECT name FROM people WHERE id = 'a'")
    sealed = row["name"]
    change = sql("UPDATE people SET name = $1 WHERE id = 'a'")
    changed = [sealed[:at] + bytes([sealed[at] ^ 1 << at % 8]) + sealed[at + 1 :] for at in range(0, len(sealed), 3)]
    changed += [sealed[:size] for size in (1, 16, 17, 29, 45, len(sealed) - 1)] + [sealed + b"\0", sealed * 2]
    for wrong in changed:
        await main.execute(change, [wrong])
        if wrong[0] == 0:  # what an erasure leaves where a column takes no NULL: emptied, as NULL would be
            assert (await people.get("a"))["name"] is None
        else:
            with pytest.raises((DecryptionFailed, KeyUnavailable)):  # a key's id was changed, and there is none of it
                await people.get("a")
    await main.execute(change, [sealed])
    assert (await people.get("a"))["name"] == f"{NAME} a"


async def test_an_older_value_in_its_own_cell_opens_as_the_page_says(two, sql):
    main, people = two["main"], two.personal("people")
    change = sql("UPDATE people SET name = $1 WHERE id = 'a'")
    old = await main.query_value("SELECT name FROM people WHERE id = 'a'")
    await people.update("a", {"name": "New Name"})
    await main.execute(change, [old])
    assert (await people.get("a"))["name"] == f"{NAME} a"


async def test_an_index_cannot_be_computed_without_its_key(two, managed, tmp_path):
    """The same value in another installation, and in another field, has another index."""
    people = two.personal("people")
    await people.update("a", {"personal_number": NUMBER})
    await people.update("c", {"email": MAIL})
    (here,) = await people.index_of("personal_number", NUMBER)
    other = f"file:{tmp_path / uuid4().hex}"
    await (await Keyring.create(other)).close()
    elsewhere = SQLiteProvider(":memory:", name="main", location="norway")
    async with DatabaseManager({"main": elsewhere}, data_map=DataMap([PEOPLE]), keyring=other) as db:
        await db.prepare("people")
        (there,) = await db.personal("people").index_of("personal_number", NUMBER)
    assert here != there
    assert await two["main"].query_value("SELECT personal_number_lookup FROM people WHERE id = 'a'") == here
