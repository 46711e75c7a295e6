"""The data map against the live schema: what is missing, misspelt, unmapped, of the wrong kind, or slow."""

import pytest

from datavern import DataMap, Dataset, Field
from datavern.cli.check_schema import examine_dataset, examine_unmapped

SEALED = {"email": Field(sealed=True, lookup=True, kind="email"), "city": Field()}


def users(**more):
    return Dataset("users", **{"database": "main", "subject": "id", "fields": SEALED, **more})


@pytest.fixture
async def provider(database):
    async with database.provider(location="norway") as provider:
        yield provider


async def look(provider, *datasets):
    data_map = DataMap(datasets)
    return await examine_dataset(datasets[0], data_map, {"main": provider})


def wrong(findings):
    return [one.detail for one in findings if not one.ok]


def noted(findings):
    return [one.detail for one in findings if one.note]


async def test_what_fits_is_well(managed):
    async with managed(users()) as db:
        await db.prepare("users")
        findings = await look(db["main"], users())
        assert [one.ok for one in findings] == [True]
        assert findings[0].detail == "main.users, 1 of 2 fields sealed"


async def test_a_table_that_is_not_there_and_one_that_is_meant(provider):
    assert wrong(await look(provider, users())) == ["main has no table users: `datavern prepare users` makes it"]
    await provider.execute("CREATE TABLE user_s (id varchar(64) PRIMARY KEY)")
    (detail,) = wrong(await look(provider, users()))
    assert "did you mean user_s (store)?" in detail


async def test_columns_that_are_missing_or_misspelt(provider):
    await provider.execute("CREATE TABLE users (id varchar(64) PRIMARY KEY, ciity varchar(64))")
    (detail,) = wrong(await look(provider, users()))
    assert detail.startswith("users lacks email, city, email_lookup, datavern_row")
    assert "city: did you mean ciity?" in detail
    assert "`datavern prepare users` makes it" in detail


async def test_a_sealed_column_of_the_wrong_kind(provider):
    await provider.execute("CREATE TABLE users (id varchar(64) PRIMARY KEY, email varchar(64), city varchar(64))")
    clear = users(fields={"email": Field(), "city": Field()})
    assert wrong(await look(provider, clear)) == []
    for column in ("email_lookup", "datavern_row"):
        await provider.execute(f"ALTER TABLE users ADD {column} varchar(64)")
    (detail,) = wrong(await look(provider, users()))
    assert detail.startswith("users.email is ")
    assert "`datavern seal users.email` seals the column in place" in detail


@pytest.mark.parametrize("kind", ["double precision", "date"])
async def test_a_subject_column_of_the_wrong_kind(provider, kind):
    await provider.execute(f"CREATE TABLE visits (id varchar(64) PRIMARY KEY, who {kind})")
    (detail,) = wrong(await look(provider, Dataset("visits", database="main", subject="who")))
    assert detail.startswith("visits.who is ")
    assert "text, whole numbers or uuid" in detail


async def test_columns_that_are_not_mapped_and_a_missing_index_are_notes(provider):
    await provider.execute(
        "CREATE TABLE orders (id varchar(64) PRIMARY KEY, who varchar(64), a varchar(9), b varchar(9))"
    )
    orders = Dataset("orders", database="main", subject="who", fields={"a": Field()})
    findings = await look(provider, orders)
    assert wrong(findings) == []
    unmapped, slow = noted(findings)
    assert unmapped.startswith("orders: the map does not name b: ")
    assert slow.startswith("no index begins with orders.who, so every request of a person reads the whole table: ")
    await provider.execute(slow.rpartition(": ")[2])  # what it says to run, runs
    assert len(noted(await look(provider, orders))) == 1


async def test_what_leads_to_rows_wants_an_index_too(provider):
    await provider.execute("CREATE TABLE people (id varchar(64) PRIMARY KEY, number varchar(11))")
    people = Dataset("people", database="main", subject="id", fields={"number": Field(kind="fodselsnummer")})
    visits = Dataset("visits", database="main", subject="number", subject_via="people.number")
    notes = noted(await look(provider, people, visits))
    assert any(one.startswith("no index begins with people.number") for one in notes)
    assert any(one.startswith("number: a fødselsnummer stands there in the clear") for one in notes)
    await provider.execute("CREATE TABLE visits (id varchar(64) PRIMARY KEY, number varchar(11))")
    notes = noted(await examine_dataset(visits, DataMap([people, visits]), {"main": provider}))
    assert any(one.startswith("number: a fødselsnummer stands there in the clear") for one in notes)


async def test_tables_with_a_column_that_names_people_elsewhere(provider):
    await provider.execute("CREATE TABLE orders (id varchar(64) PRIMARY KEY, user_id varchar(64))")
    await provider.execute("CREATE TABLE clicks (id varchar(64) PRIMARY KEY, user_id varchar(64))")
    await provider.execute("CREATE TABLE towns (id varchar(64) PRIMARY KEY, name varchar(64))")
    data_map = DataMap([Dataset("orders", database="main", subject="user_id"), users()])
    (finding,) = await examine_unmapped("main", data_map, provider)
    assert finding.ok
    assert finding.note
    assert finding.detail.startswith("the map does not name ")
    assert "clicks, which has a column user_id, as orders has" in finding.detail


async def test_documents_are_looked_at_as_before(documents):
    cases = Dataset("cases", database="documents", subject="owner.id")
    async with documents() as mongo:
        await mongo.collection("case").insert_one({"owner": {"id": "u1"}})
        (finding,) = await examine_dataset(cases, DataMap([cases]), {"documents": mongo})
        assert not finding.ok
        assert "documents has no collection cases (there is case)" in finding.detail
        await mongo.collection("cases").insert_one({"ownr": {"id": "u1"}})
        (finding,) = await examine_dataset(cases, DataMap([cases]), {"documents": mongo})
        assert "none of the latest 1,000 documents of cases has owner.id" in finding.detail
        await mongo.collection("cases").insert_one({"owner": {"id": "u1"}})
        (finding,) = await examine_dataset(cases, DataMap([cases]), {"documents": mongo})
        assert finding.ok
        assert await examine_unmapped("documents", DataMap([cases]), mongo) == []
