"""What is left of anonymised rows, on every engine that has the policy: generalised, sealed anew, and about nobody."""

import datetime as dt

import pytest

from datavern import ConfigurationError, Dataset, Field, KeyErased, SubjectRequest

BORN = dt.date(1972, 9, 13)
NUMBER = "13097248022"
FIELDS = {
    "number": Field(sealed=True, lookup=True, unique=True, kind="fodselsnummer", anonymize="fake"),
    "born": Field(sealed=True, lookup=True, anonymize={"generalise": "decade"}),
    "name": Field(sealed=True),
    "postcode": Field(anonymize={"generalise": "postcode"}),
    "signed": Field(type="date", anonymize={"noise": "3d"}),
    "income": Field(type="integer", anonymize={"generalise": "band", "width": 100_000}),
    "city": Field(anonymize={"constant": "Ukjent"}),
    "ref": Field(anonymize="pseudonym"),
}
ROW = {
    "who": "u1",
    "born": BORN,
    "name": "Planted",
    "postcode": "0150",
    "signed": dt.date(2026, 1, 1),
    "income": 543_210,
    "city": "Oslo",
    "ref": "A-1",
}
PEOPLE = Dataset("people", database="main", subject="who", erasure="anonymize", fields=FIELDS)


async def erase(db, subject="u1"):
    response = await db.subject_requests.process(SubjectRequest("erasure", subject=subject))
    return response, {store["dataset"]: store for store in response.certificate.body["stores"]}


async def test_what_is_left_of_a_person(managed):
    async with managed(PEOPLE) as db:
        await db.prepare("people")
        people = db.personal("people")
        await people.insert({"id": "1", "number": NUMBER, **ROW})
        await people.insert({"id": "2", **ROW, "postcode": "none", "born": None})
        await people.insert({"id": "3", "number": "53097248016", **ROW, "who": "u2"})
        before = await people.get("3")
        response, stores = await erase(db)
        one, two = await people.get("1"), await people.get("2")
        assert one["born"] == dt.date(1970, 1, 1)
        assert one["number"] not in (None, NUMBER)
        assert int(one["number"][2:4]) > 80
        assert (one["name"], one["postcode"], one["city"]) == (None, "01", "Ukjent")
        assert one["income"] == 500_000
        signed = one["signed"] if isinstance(one["signed"], dt.date) else dt.date.fromisoformat(one["signed"])
        assert abs(signed - ROW["signed"]) <= dt.timedelta(days=3)
        assert one["ref"] == two["ref"] != "A-1"
        assert one["who"].startswith("erased-")
        assert one["who"] != two["who"]
        assert (two["born"], two["postcode"], two["number"]) == (None, None, None)
        assert await people.get("3") == before
        raw = [dict(row) for row in await db["main"].query("SELECT * FROM people ORDER BY id")]
        assert isinstance(raw[0]["born"], bytes)
        assert all(raw[0][c] is None for c in ("number_lookup", "born_lookup"))
        assert await people.find(born=dt.date(1970, 1, 1)) == []
        with pytest.raises(KeyErased, match="about nobody"):
            await people.update("1", {"name": "x"})
        store = stores["main.people"]
        assert store["done"] == {"anonymized": 2}
        assert "what is left in born: generalise decade" in store["notes"]
        assert "postcode: 1 values were none that it could be done to: emptied" in store["notes"]
        assert "Ukjent" not in response.certificate.to_json()
        assert await people.delete("1")


async def test_how_far_rows_hide_in_one_another(managed):
    async with managed(PEOPLE, Dataset("visits", database="main", subject="who")) as db:
        await db.prepare("people")
        people = db.personal("people")
        assert (await db.retention.anonymity("people")).smallest is None
        for n, (born, postcode) in enumerate(((1972, "0150"), (1979, "0155"), (1972, "5003"), (1972, "0150"))):
            row = {**ROW, "who": "u2" if n == 3 else "u1", "born": dt.date(born, 1, 1), "postcode": postcode}
            await people.insert({"id": str(n), **row})
        await erase(db)
        found = await db.retention.anonymity("people", ["born", "postcode"])
        assert (found.rows, found.groups, found.smallest, found.alone) == (3, 2, 1, 1)
        assert (await db.retention.anonymity("people", ["born"])).smallest == 3
        assert (await db.retention.anonymity("people")).fields == ("born", "postcode", "signed", "income")
        with pytest.raises(ConfigurationError, match="nmae is no field"):
            await db.retention.anonymity("people", ["nmae"])
        with pytest.raises(ConfigurationError, match="not anonymised: erasure is delete"):
            await db.retention.anonymity("visits")


async def test_what_is_sealed_anew_outlives_a_rotation_of_the_keys(managed, monkeypatch):
    from datavern.crypto import remembered

    monkeypatch.setattr(remembered, "FRESH", 0.05)
    async with managed(PEOPLE) as db:
        await db.prepare("people")
        people = db.personal("people")
        await people.insert({"id": "1", "number": NUMBER, **ROW})
        await erase(db)
        before = await people.get("1")
        await db.keys.rotate()
        assert await people.get("1") == before
        assert await people.find(born=dt.date(1970, 1, 1)) == []


async def test_a_row_that_keeps_its_subject_is_anonymised_once(managed, sql):
    users = Dataset("users", database="main", subject="id", erasure="anonymize", fields={"age": FIELDS["income"]})
    async with managed(users) as db:
        await db.prepare("users")
        await db["main"].execute(sql("CREATE TABLE orders (id {text} PRIMARY KEY, who {text} REFERENCES users (id))"))
        await db.personal("users").insert({"id": "u1", "age": 123_456})
        await db["main"].execute("INSERT INTO orders VALUES ('o', 'u1')")
        _, stores = await erase(db)
        assert stores["main.users"]["found"] == 1
        assert (await db.personal("users").get("u1"))["age"] == 100_000
        _, stores = await erase(db)
        assert stores["main.users"]["done"] == {}


async def test_the_tables_own_constraints_have_the_last_word(managed, sql):
    fields = {
        "code": Field(anonymize={"constant": "far too long"}),
        "town": Field(anonymize={"constant": "Ukjent"}),
        "ref": Field(anonymize="pseudonym"),
        "must": Field(sealed=True, nullable=False, anonymize={"generalise": "year"}),
    }
    people = Dataset("people", database="main", subject="who", erasure="anonymize", fields=fields)
    async with managed(people) as db:
        await db["main"].execute(
            sql(
                "CREATE TABLE people (id {text} PRIMARY KEY, who {text}, town {short} UNIQUE, ref {text}, "
                "code {short} CHECK (code NOT LIKE '_____%'))"
            )
        )
        await db.prepare("people")
        await db.personal("people").insert(
            {"id": "1", "who": "u1", "code": "ab", "town": "Oslo", "ref": "r", "must": "no date"}
        )
        _, stores = await erase(db)
        row = await db.personal("people").get("1")
        assert (row["code"], row["town"], row["ref"], row["must"]) == (None, None, None, None)
        assert row["who"].startswith("erased-")
        notes = stores["main.people"]["notes"]
        assert "town was emptied: its column is unique, and constant would tell rows apart" in notes
        assert "1 of the rows take nothing of that: the table refuses it, and it was emptied" in notes


async def test_in_documents(managed, database, documents):
    cases = Dataset(
        "cases",
        database="documents",
        subject="owner.id",
        erasure="anonymize",
        fields={
            "owner.postcode": Field(anonymize={"generalise": "postcode"}),
            "born": Field(sealed=True, anonymize={"generalise": "year"}),
            "note": Field(),
        },
    )
    databases = {"main": database.provider(location="norway"), "documents": documents()}
    async with managed(cases, databases=databases) as db:
        await db.prepare("cases")
        await db.personal("cases").insert(
            {"_id": 1, "owner": {"id": "u1", "postcode": "5003"}, "born": BORN, "note": "n"}
        )
        _, stores = await erase(db)
        found = await db.personal("cases").get(1)
        assert found["owner"]["postcode"] == "50"
        assert found["born"] == dt.date(1972, 1, 1)
        assert found["note"] is None
        assert "what is left in owner.postcode: generalise postcode" in stores["documents.cases"]["notes"]
