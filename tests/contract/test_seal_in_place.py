"""A plain column, sealed while it is used: whatever stops it, nothing is lost, and it goes on."""

import asyncio
import random
from pathlib import Path

import pytest

from datavern import ConfigurationError, Dataset, Field, ProviderError, SubjectRequest
from datavern.contracts.capabilities import needs
from datavern.privacy.sealing.in_place import InPlace

pytestmark = pytest.mark.not_on("azuresql", "sealing a column where it is: not offered yet")

NUMBER = "13097248022"
PLAIN = Dataset(
    "people", database="main", subject="id", legal_basis="kommuneloven § 1",
    fields={"number": Field(kind=None), "name": Field()},
)  # fmt: skip


def sealed(**changes):
    # What somebody used for long holds numbers that are none.
    number = {"sealed": True, "lookup": True, "kind": "fodselsnummer", "unverified": True, **changes.pop("number", {})}
    settings = {"erasure": "anonymize", **changes}
    return Dataset(
        "people", database="main", subject="id", legal_basis="kommuneloven § 1",
        fields={"number": Field(**number), "name": Field()}, **settings,
    )  # fmt: skip


def value(n):
    return f"planted {n:05} 130972"


@pytest.fixture
async def table(managed, sql):
    """A table that somebody has used for long, without Datavern."""

    async def make(rows=40, number="{text}", more=""):
        async with managed() as db:
            await db["main"].execute(
                sql(f"CREATE TABLE people (id {{text}} PRIMARY KEY, number {number}, name {{text}}{more})")
            )
            await db["main"].execute("CREATE INDEX people_number ON people (number)")
            await db["main"].execute_many(
                sql("INSERT INTO people VALUES ($1, $2, $3)"),
                [(f"p{n:05}", value(n), f"name {n}") for n in range(rows)],
            )

    return make


async def columns(db):
    return {c.name for c in (await needs(db["main"], "subjects").describe("people")).columns}


async def all_numbers(db):
    store = db.personal("people")
    rows = await db["main"].query("SELECT id FROM people ORDER BY id")
    return {row["id"]: (await store.get(row["id"]))["number"] for row in rows}


async def test_a_column_is_sealed_where_it_is(managed, table):
    await table()
    async with managed(sealed()) as db:
        with pytest.raises(ConfigurationError, match="datavern seal"):
            await db.prepare("people")
        for size in (0, -1, True, 2.5, "7", 2**31):
            with pytest.raises(ConfigurationError, match="batch_size is .*: expected a whole number from 1"):
                await db.seal("people.number", batch_size=size)
        steps = []
        done = await db.seal("people.number", batch_size=7, step=lambda what, _: steps.append(what))
        assert (done.rows, done.verified, done.unindexed, done.dropped) == (40, 40, 0, True)
        assert steps[0] == "begun"
        assert steps.count("batch") == 6
        assert steps[-2:] == ["emptied", "rewritten"]
        assert await columns(db) == {"id", "number", "name", "number_lookup", "datavern_row"}
        for row in await db["main"].query("SELECT * FROM people"):
            assert "planted" not in str(dict(row))
            assert row["number"][0] == 1
        assert await all_numbers(db) == {f"p{n:05}": value(n) for n in range(40)}
        assert [r["id"] for r in await db.personal("people").find(number="00007 130972")] == ["p00007"]
        entries = [r[0] for r in await db["main"].query("SELECT details FROM datavern_audit WHERE action = 'sealed'")]
        assert sum(f'"rows":{n}' in str(e).replace(" ", "") for e in entries for n in (7, 5)) == 6
        again = await db.seal("people.number")
        assert (again.rows, again.verified) == (0, 40)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("at", [0, 1, 3, 6, 7, 8])
async def test_stopped_at_any_step_it_goes_on(managed, table, at):
    await table(rows=20)
    seen = []

    def stop(what, number):
        seen.append(what)
        if len(seen) == at + 1:
            raise Stopped

    async with managed(sealed()) as db:
        with pytest.raises(Stopped):
            await db.seal("people.number", batch_size=4, step=stop)
        assert await all_numbers(db) == {f"p{n:05}": value(n) for n in range(20)}
        await db.personal("people").insert({"id": "new", "number": NUMBER})
    async with managed(sealed()) as db:
        await db.seal("people.number", batch_size=4)
        assert await all_numbers(db) == {**{f"p{n:05}": value(n) for n in range(20)}, "new": NUMBER}
        assert "number_unsealed" not in await columns(db)


async def test_writers_go_on_meanwhile(managed, table):
    await table(rows=120)
    expected = {f"p{n:05}": value(n) for n in range(120)}
    async with managed(sealed()) as db:
        store, begun, ended = db.personal("people"), asyncio.Event(), asyncio.Event()
        dice = random.Random(5)

        async def writer(number):
            await begun.wait()
            turn = 0
            while not ended.is_set():
                turn += 1
                await asyncio.sleep(0)
                mine = [id_ for id_ in list(expected) if hash_of(id_) % 3 == number]
                id_ = dice.choice(mine)
                what = dice.random()
                if what < 0.5:
                    new = f"{number}{turn:010}"
                    assert await again(lambda: store.update(id_, {"number": new}))  # noqa: B023
                    expected[id_] = new
                elif what < 0.6:
                    await again(lambda: store.update(id_, {"number": None}))  # noqa: B023
                    expected[id_] = None
                elif what < 0.7:
                    await again(lambda: store.delete(id_))  # noqa: B023
                    del expected[id_]
                elif what < 0.85:
                    fresh = f"w{number}-{turn}"
                    expected[fresh] = f"9{number}{turn:09}"
                    await again(lambda: store.insert({"id": fresh, "number": expected[fresh]}))  # noqa: B023
                else:
                    assert (await store.get(id_))["number"] == expected[id_]

        async def again(work):
            """As a writer does, when the error says that it may."""
            while True:
                try:
                    return await work()
                except ProviderError as error:
                    if error.retry != "transaction":
                        raise

        def hash_of(id_):
            return int(id_[1]) if id_.startswith("w") else int(id_[1:])

        def step(what, number):
            begun.set()

        writers = [asyncio.create_task(writer(n)) for n in range(3)]
        try:
            done = await db.seal("people.number", batch_size=5, step=step)
        finally:
            begun.set()
            ended.set()
            await asyncio.gather(*writers)
        assert done.rows > 0
        assert await all_numbers(db) == expected
        for id_, number in list(expected.items())[:40]:
            if number is not None:
                assert id_ in [row["id"] for row in await store.find(number=number)]


async def test_several_runs_at_once_share_the_rows_and_all_end_well(managed, table):
    await table(rows=60)
    async with managed(sealed()) as one, managed(sealed()) as two, managed(sealed()) as three:
        done = await asyncio.gather(*(db.seal("people.number", batch_size=7) for db in (one, two, three, one)))
        assert sum(moved.rows for moved in done) == 60
        assert {(moved.verified, moved.dropped) for moved in done} == {(60, True)}
        assert await columns(one) == {"id", "number", "name", "number_lookup", "datavern_row"}
        assert await all_numbers(two) == {f"p{n:05}": value(n) for n in range(60)}
        assert (await three.seal("people.number")).rows == 0
        opened = await asyncio.gather(*(db.unseal("people.number", batch_size=7) for db in (one, two, three)))
        assert sum(moved.rows for moved in opened) == 60
        rows = await one["main"].query("SELECT id, number FROM people")
        assert {row[0]: row[1] for row in rows} == {f"p{n:05}": value(n) for n in range(60)}
        assert "number_unsealed" not in await columns(one)
        with pytest.raises(ConfigurationError, match="no sealed column"):
            await two.unseal("people.number")
        assert "number_unsealed" not in await columns(one)


async def test_a_run_that_comes_too_late_does_not_seal_what_is_sealed(managed, table, monkeypatch):
    await table(rows=10)
    check = InPlace._check_table

    async with managed(sealed()) as one, managed(sealed()) as two:

        async def late(self, *given):
            await check(self, *given)
            monkeypatch.setattr(InPlace, "_check_table", check)
            await two.seal("people.number")  # another process, from the beginning to the end

        monkeypatch.setattr(InPlace, "_check_table", late)
        done = await one.seal("people.number")
        assert (done.rows, done.verified) == (0, 10)
        assert await all_numbers(one) == {f"p{n:05}": value(n) for n in range(10)}


async def stopped_halfway(db):
    def stop(what, number):
        if what == "batch":
            raise Stopped

    with pytest.raises(Stopped):
        await db.seal("people.number", batch_size=10, step=stop)


async def test_halfway_both_are_found_and_plain_writers_are_refused(managed, table, sql):
    await table(rows=20)
    async with managed(sealed()) as db:
        await stopped_halfway(db)
        store = db.personal("people")
        for n in (3, 17):  # one sealed, one not yet
            assert [row["number"] for row in await store.find(number=value(n))] == [value(n)]
        assert len(await store.find(number=(value(3), value(17)))) == 2
        assert [row["number"] async for row in store.of("p00017")] == [value(17)]
        (opened,) = await store.open(await db["main"].query("SELECT * FROM people WHERE id = 'p00017'"))
        assert opened == {"id": "p00017", "number": value(17), "name": "name 17"}
        for statement in (
            "UPDATE people SET number = 'plain' WHERE id = 'p00001'",
            "INSERT INTO people (id, number) VALUES ('x', 'plain')",
        ):
            with pytest.raises(ProviderError):
                await db["main"].execute(statement)
        response = await db.subject_requests.process(SubjectRequest("access", subject="p00017"))
        assert response.data["main.people"][0]["number"] == value(17)
        with pytest.raises(ConfigurationError, match="own column"):
            await store.insert({"id": "y", "number_unsealed": "plain"})


@pytest.mark.parametrize("erasure", ["anonymize", "soft", "shred", "delete"])
async def test_an_erasure_halfway_leaves_no_plain_value(managed, table, erasure):
    await table(rows=20)
    async with managed(sealed(erasure=erasure)) as db:
        await stopped_halfway(db)
        if erasure == "soft":
            await db.prepare("people")
        for subject in ("p00003", "p00017"):
            await db.subject_requests.process(SubjectRequest("erasure", subject=subject))
        stored = str([dict(row) for row in await db["main"].query("SELECT * FROM people")])
        assert value(17) not in stored
        assert value(16) in stored
        await db.seal("people.number")
        for n in range(20):
            found = await db.personal("people").find(number=value(n))
            assert [row["number"] for row in found] == ([] if n in {3, 17} else [value(n)])


async def test_back_again(managed, table, sql):
    await table(rows=30)
    async with managed(sealed()) as db:
        await db.seal("people.number")
        await db["main"].execute("DELETE FROM people WHERE id = 'p00029'")

        def stop(what, number):
            if what == "batch":
                raise Stopped

        with pytest.raises(Stopped):
            await db.unseal("people.number", batch_size=10, step=stop)
        assert await all_numbers(db) == {f"p{n:05}": value(n) for n in range(29)}
        await db.personal("people").update("p00000", {"number": NUMBER})
        with pytest.raises(ConfigurationError, match="one of text"):
            await needs(db["main"], "columns").add("people", "other", "money", beside="number")
        done = await db.unseal("people.number", batch_size=10)
        assert done.gone == 0
        rows = {r["id"]: r["number"] for r in await db["main"].query("SELECT id, number FROM people")}
        assert rows == {**{f"p{n:05}": value(n) for n in range(29)}, "p00000": NUMBER}
        assert "number_lookup" not in await columns(db)
    async with managed(PLAIN) as db:
        await db.prepare("people")
        await db.personal("people").update("p00001", {"number": "x"})
        await db["main"].execute("UPDATE people SET number = 'plain' WHERE id = 'p00002'")
    async with managed(sealed()) as db:
        assert (await db.seal("people.number")).rows == 29


async def test_columns_are_sealed_one_after_the_other(managed, table):
    await table(rows=5)
    both = sealed()
    both = Dataset(
        "people", database="main", subject="id", legal_basis="kommuneloven § 1",
        fields={**both.fields, "name": Field(sealed=True)},
    )  # fmt: skip
    async with managed(both) as db:
        for column, other in (("number", "name"), ("name", "number")):
            with pytest.raises(ConfigurationError, match=f"fields.{other}: .* one after the other") as refused:
                await db.seal(f"people.{column}")
            assert f"until people.{column} is done" in str(refused.value)
        assert await columns(db) == {"id", "number", "name"}
        assert await db["main"].query_value("SELECT number FROM people WHERE id = 'p00003'") == value(3)
    async with managed(sealed()) as db:
        assert (await db.seal("people.number")).rows == 5
    async with managed(both) as db:
        assert (await db.seal("people.name")).rows == 5
        assert (await db.personal("people").get("p00003"))["name"] == "name 3"


async def test_opened_as_a_type_that_no_value_has_it_is_opened_as_another(managed, table, engine):
    await table(rows=5)
    async with managed(sealed()) as db:
        await db.seal("people.number", rewrite=None)
        if engine == "postgresql":  # SQLite keeps texts in a column of numbers, outside of STRICT tables
            with pytest.raises(ConfigurationError, match="people.number cannot be opened as integer: .* name that one"):
                await db.unseal("people.number", kind="integer", rewrite=None)
        else:
            await needs(db["main"], "columns").add("people", "number_unsealed", "integer", beside="number")
        assert await all_numbers(db) == {f"p{n:05}": value(n) for n in range(5)}
        assert (await db.unseal("people.number", rewrite=None)).rows == 5
        assert await db["main"].query_value("SELECT number FROM people WHERE id = 'p00003'") == value(3)


async def test_halfway_no_other_type_is_taken(managed, table):
    await table(rows=20)

    def stop(what, number):
        if what == "batch":
            raise Stopped

    async with managed(sealed()) as db:
        await db.seal("people.number", rewrite=None)
        with pytest.raises(Stopped):
            await db.unseal("people.number", batch_size=10, step=stop)
        with pytest.raises(ConfigurationError, match="go on with that type"):
            await db.unseal("people.number", kind="integer")
        assert (await db.unseal("people.number", rewrite=None)).rows == 10


async def test_numbers_dates_and_nothing(managed, table, sql, engine):
    await table(rows=0, number="{integer}")
    async with managed(sealed(number={"kind": None, "unverified": False})) as db:
        await db["main"].execute("INSERT INTO people VALUES ('a', 42, 'A'), ('b', NULL, 'B'), ('c', -1, 'C')")
        done = await db.seal("people.number", rewrite="plain")
        assert done.rows == 2
        assert await all_numbers(db) == {"a": 42, "b": None, "c": -1}
        assert [row["id"] for row in await db.personal("people").find(number=-1)] == ["c"]
        await db.unseal("people.number", kind="integer", rewrite=None)
        assert await db["main"].query_value("SELECT number FROM people WHERE id = 'a'") == 42


async def test_a_value_that_is_none_of_its_kind_is_sealed_and_not_found(managed, table):
    await table(rows=3)
    async with managed(sealed()) as db:
        await db["main"].execute("UPDATE people SET number = 'unknown' WHERE id = 'p00001'")
        done = await db.seal("people.number")
        assert (done.rows, done.unindexed) == (3, 1)
        assert (await db.personal("people").get("p00001"))["number"] == "unknown"


async def test_a_column_that_takes_no_null(managed, table):
    await table(rows=3, number="{text} CONSTRAINT filled NOT NULL", more=", CHECK (name IS NOT NULL)")
    async with managed(sealed()) as db:
        with pytest.raises(ProviderError):
            await db["main"].execute("INSERT INTO people (id, name) VALUES ('p4', 'x')")
        assert (await db.seal("people.number")).rows == 3
        assert await all_numbers(db) == {f"p{n:05}": value(n) for n in range(3)}
        await db["main"].execute("INSERT INTO people (id, name) VALUES ('p4', 'x')")
        with pytest.raises(ProviderError):
            await db["main"].execute("INSERT INTO people (id) VALUES ('p5')")


async def test_a_unique_column_stays_unique(managed, table, engine):
    await table(rows=3, number="{text} UNIQUE")
    async with managed(sealed(number={"unique": True})) as db:
        done = await db.seal("people.number")
        assert done.dropped is (engine == "postgresql")  # SQLite keeps the column of a UNIQUE constraint, empty
        assert await all_numbers(db) == {f"p{n:05}": value(n) for n in range(3)}
        with pytest.raises(ProviderError):
            await db.personal("people").insert({"id": "x", "number": value(1)})


async def test_what_makes_no_sense_is_refused_and_nothing_is_changed(managed, table, sql):
    await table(rows=3)
    async with managed(PLAIN) as db:
        with pytest.raises(ConfigurationError, match="sealed = true"):
            await db.seal("people.number")
    async with managed(sealed()) as db:
        for column, message in (
            ("number", "dataset.field"),
            ("people.nothing", "no field is called nothing"),
            ("nobody.number", "no dataset is named nobody"),
        ):
            with pytest.raises(ConfigurationError, match=message):
                await db.seal(column)
        with pytest.raises(ConfigurationError, match="batch_size"):
            await db.seal("people.number", batch_size=0)
        with pytest.raises(ConfigurationError, match="no sealed column"):
            await db.unseal("people.number")
        assert await columns(db) == {"id", "number", "name"}
    nobody = Dataset("people", database="main", subject="name", legal_basis="x", fields={"number": Field(sealed=True)})
    async with managed(nobody) as db:
        await db["main"].execute("UPDATE people SET name = NULL WHERE id = 'p00001'")
        with pytest.raises(ConfigurationError, match="1 rows with a number name nobody in name"):
            await db.seal("people.number")
        assert await columns(db) == {"id", "number", "name"}
        await db["main"].execute("DROP TABLE people")
        with pytest.raises(ConfigurationError, match="no table people"):
            await db.seal("people.number")


PEOPLE = "CREATE TABLE people (id text PRIMARY KEY, number text, name text)"
HASHED = "PARTITION OF people FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
TRIGGERS = {
    "sqlite": [
        "CREATE TRIGGER t AFTER UPDATE ON people BEGIN UPDATE people SET name = NEW.Number WHERE id = NEW.id; END"
    ],
    "postgresql": [
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := NEW.Number; RETURN NEW; END $$",
        "CREATE TRIGGER t BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION f()",
    ],
}
OTHERS = {  # which do nothing with the column
    "sqlite": ["CREATE TRIGGER t AFTER UPDATE OF name ON people BEGIN SELECT 1 AS numbers; END"],
    "postgresql": [
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN /* numbers */ RETURN NEW; END $$",
        "CREATE TRIGGER t BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION f()",
    ],
}
SCHEMAS = {
    "a foreign key to it": (
        [
            PEOPLE.replace("number text", "number text UNIQUE"),
            'CREATE TABLE "o ther" (n text REFERENCES people (number))',
        ],
        "a foreign key of .*o ther.* refers to it",
    ),
    "a check of NULL": (
        [PEOPLE.replace("number text", "number text CHECK (number IS NOT NULL)")],
        "the schema keeps it",
    ),
    "a trigger": ([PEOPLE, TRIGGERS], "the trigger t names it"),
    "rows without a name": ([PEOPLE.replace(" PRIMARY KEY", "")], "nothing keeps id from naming several rows"),
    "the primary key": (
        ["CREATE TABLE people (id text UNIQUE, number text PRIMARY KEY, name text)"],
        "in the primary key",
    ),
    "its other name taken": ([PEOPLE.replace("name text", "name text, number_unsealed text")], "of its own"),
    "partitions": (
        {"sqlite": None, "postgresql": [f"{PEOPLE} PARTITION BY HASH (id)", f"CREATE TABLE p {HASHED}"]},
        "partitioned",
    ),
}


@pytest.mark.parametrize("what", SCHEMAS)
async def test_a_schema_that_would_stop_it_halfway_is_refused_before_anything_is_changed(managed, engine, what):
    statements, message = SCHEMAS[what]
    statements = statements[engine] if isinstance(statements, dict) else statements
    if statements is None:
        return  # the engine has no such thing
    async with managed(sealed()) as db:
        main = db["main"]
        for statement in statements:
            for one in statement[engine] if isinstance(statement, dict) else [statement]:
                await main.execute(one)
        await main.execute("INSERT INTO people (id, number, name) VALUES ('a', '130972', 'x')")
        before = await needs(main, "subjects").describe("people")
        with pytest.raises(ConfigurationError, match=message):
            await db.seal("people.number")
        assert await needs(main, "subjects").describe("people") == before
        assert await main.query_value("SELECT number FROM people") == "130972"


async def test_what_does_nothing_with_the_column_stands_in_nobodys_way(managed, engine):
    async with managed(sealed()) as db:
        main = db["main"]
        await main.execute("CREATE TABLE registry (number text PRIMARY KEY)")
        await main.execute(PEOPLE.replace("number text", "number text REFERENCES registry CHECK (length(number) = 6)"))
        for statement in OTHERS[engine]:
            await main.execute(statement)
        await main.execute("INSERT INTO registry VALUES ('130972')")
        await main.execute("INSERT INTO people (id, number, name) VALUES ('a', '130972', 'x'), ('b', NULL, 'y')")
        assert (await db.seal("people.number")).rows == 1
        assert await all_numbers(db) == {"a": "130972", "b": None}


async def test_equal_values_of_a_unique_field_stop_it_and_are_not_told(managed, table):
    await table(rows=12)
    async with managed(sealed(number={"unique": True})) as db:
        await db["main"].execute("UPDATE people SET number = 'planted 00000-130972' WHERE id = 'p00009'")
        with pytest.raises(ProviderError) as caught:
            await db.seal("people.number", batch_size=4)
        assert "planted" not in str(caught.value)
        await db["main"].execute("DELETE FROM people WHERE id = 'p00009'")
        await db.seal("people.number", batch_size=4)
        assert len(await all_numbers(db)) == 11


async def test_the_files_hold_no_plain_value_afterwards(managed, table, engine):
    await table(rows=200)
    async with managed(sealed()) as db:
        main = db["main"]

        async def file():
            if engine == "sqlite":
                path = Path(main.settings.path)
                return [path, path.with_name(path.name + "-wal")]
            await main.execute("CHECKPOINT")
            folder = Path(await main.query_value("SELECT current_setting('data_directory')"))
            return [folder / await main.query_value("SELECT pg_relation_filepath('people')")]

        before = await file()
        assert any(b"planted 00017" in path.read_bytes() for path in before if path.exists())
        await db.seal("people.number", batch_size=50)
        for path in {*before, *await file()}:
            assert not path.exists() or b"planted" not in path.read_bytes()
