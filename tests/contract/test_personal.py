"""Personal data on every engine: sealed on the way in, opened on the way out, and nothing in between."""

import datetime as dt
import decimal
import traceback
import uuid
from pathlib import Path

import pytest

from datavern import (
    ConfigurationError,
    ConsentRequired,
    ConstraintViolated,
    Dataset,
    DecryptionFailed,
    Field,
    KeyErased,
    SubjectRequest,
    actor,
)
from datavern.contracts.capabilities import needs

NUMBER = "13097248022"
PERSON = {"id": "test-user", "personal_number": NUMBER, "name": "Test User", "email": "test@example.no"}
PURPOSE = "customer-account"


@pytest.fixture
async def consent(db):
    return await db.consents.grant(subject="test-user", purpose=PURPOSE)


@pytest.fixture
async def users(db, consent):
    users = db.personal("users")
    await users.insert(PERSON, consent=consent)
    return users


async def entries(db, action=None):
    rows = [
        dict(r) for r in await db["main"].query("SELECT action, handle, dataset, actor, details FROM datavern_audit")
    ]
    return [r for r in rows if action is None or r["action"] == action]


async def test_prepare_says_what_it_ran_and_runs_it_once(managed):
    dataset = Dataset(
        "people",
        database="main",
        store="folk",
        subject="id",
        fields={
            "number": Field(sealed=True, lookup=True, unique=True),
            "name": Field(sealed=True),
            "born": Field(type="date"),
        },
    )
    async with managed(dataset) as db:
        ddl = await db.prepare("people")
        assert ddl
        assert all(part in str(ddl) for part in ("folk", "number_lookup", "datavern_row", "UNIQUE"))
        again = await db.prepare("people")
        assert again == []
        assert str(again) == ""
        store = await needs(db["main"], "subjects").describe("folk")
        assert {c.name for c in store.columns} == {"id", "number", "name", "born", "number_lookup", "datavern_row"}
        assert frozenset({"number_lookup"}) in store.unique
        assert frozenset({"datavern_row"}) in store.unique


async def test_prepare_adds_to_a_table_that_is_there(managed, sql):
    dataset = Dataset("people", database="main", subject="owner", fields={"name": Field(sealed=True), "age": Field()})
    async with managed(dataset) as db:
        columns = "id bigint PRIMARY KEY, owner integer, age integer, note {text}"
        await db["main"].execute(sql(f"CREATE TABLE people ({columns})"))
        await db.prepare("people")
        people = db.personal("people")
        await people.insert({"id": 1, "owner": "42", "name": "Åse", "age": 30, "note": "n"})
        assert await people.get("1") == {"id": 1, "owner": 42, "name": "Åse", "age": 30, "note": "n"}
        assert [row["name"] async for row in people.of(42)] == ["Åse"]
        assert [row["name"] async for row in people.of("42")] == ["Åse"]
        assert [row async for row in people.of("99999999999")] == []
        assert [row async for row in people.of("nobody")] == []
        assert await people.get("nobody") is None
        await db["main"].execute(sql("CREATE TABLE other (id {text} PRIMARY KEY, name {bytes})"))
    wrong = Dataset("people", database="main", subject="owner", fields={"note": Field(sealed=True)})
    async with managed(wrong) as db:
        with pytest.raises(ConfigurationError, match="note"):
            await db.prepare("people")


async def test_a_column_that_somebody_else_adds_is_written_at_once(managed, sql):
    """And one that is not there is refused before anything of the row is sent: it may be a sealed one, misspelt."""
    dataset = Dataset("people", database="main", subject="owner", legal_basis="x", fields={"name": Field(sealed=True)})
    async with managed(dataset) as db:
        await db.prepare("people")
        people, kind = db.personal("people"), "nvarchar(64)" if db["main"].engine == "azuresql" else "text"
        await people.insert({"id": "1", "owner": "u1", "name": "Åse"})
        for wrong in ({"Name": b"Ola"}, {"mobile": "22222222"}):
            for work in (
                people.insert({"id": "2", "owner": "u1", **wrong}),
                people.insert_many([{"id": "2", "owner": "u1", **wrong}]),
                people.update("1", wrong),
            ):
                with pytest.raises(ConfigurationError, match="has no field"):
                    await work
        await db["main"].execute(f"ALTER TABLE people ADD mobile {kind}")
        await people.update("1", {"mobile": "22222222"})
        await db["main"].execute(f"ALTER TABLE people ADD town {kind}")
        await people.insert_many([{"id": "2", "owner": "u1", "town": "Bø"}])
        assert (await people.get("1"))["mobile"] == "22222222"
        assert (await people.get("2"))["town"] == "Bø"


async def test_a_table_that_is_not_there_says_how_it_is_made(managed, sql):
    dataset = Dataset("people", database="main", subject="id", fields={"name": Field(sealed=True)})
    async with managed(dataset) as db:
        with pytest.raises(ConfigurationError, match=r'no table people: await db.prepare\("people"\)'):
            await db.personal("people").get("x")
        await db["main"].execute(sql("CREATE TABLE people (id {text} PRIMARY KEY)"))
        with pytest.raises(ConfigurationError, match="lacks name, datavern_row"):
            await db.personal("people").insert({"id": "x", "name": "n"})
        with pytest.raises(ConfigurationError, match="did you mean people"):
            db.personal("peopel")


async def test_what_goes_in_comes_out(users):
    assert await users.get("test-user") == PERSON
    assert [row async for row in users.of("test-user")] == [PERSON]
    assert await users.find(email="test@example.no", limit=50) == [PERSON]
    assert await users.find(personal_number="130972 48022") == [PERSON]  # one number, however it is written
    assert await users.find(email="other@example.no") == []
    assert await users.get("nobody") is None


async def test_every_type_comes_back_as_it_went_in(managed):
    values = {
        "str": "blåbærsyltetøy 🫐",
        "int": -(2**80),
        "float": 0.1,
        "bool": True,
        "bytes": b"\x00\xff",
        "date": dt.date(1972, 9, 13),
        "moment": dt.datetime(2026, 3, 29, 2, 30, tzinfo=dt.UTC),
        "decimal": decimal.Decimal("1.10"),
        "uuid": uuid.uuid4(),
        "document": {"a": [1, None, "æ"]},
        "nothing": None,
    }
    dataset = Dataset("things", database="main", subject="id", fields={name: Field(sealed=True) for name in values})
    async with managed(dataset) as db:
        await db.prepare("things")
        things = db.personal("things")
        await things.insert({"id": "a", **values})
        found = await things.get("a")
        assert found == {"id": "a", **values}
        assert {name: type(value) for name, value in found.items()} == {
            "id": str,
            **{name: type(value) for name, value in values.items()},
        }
        with pytest.raises(ConfigurationError, match=r"things\.str"):
            await things.insert({"id": "b", "str": object()})
        assert await things.get("b") is None


async def test_names_with_quotes_and_norwegian_letters(managed):
    names = {'navn"et': Field(sealed=True, lookup=True), "blåbær'; --": Field(sealed=True), "sted": Field()}
    dataset = Dataset('Personer "æøå"', database="main", subject="eier-ÆØÅ", primary_key='nøkkel "1"', fields=names)
    async with managed(dataset) as db:
        await db.prepare('Personer "æøå"')
        people = db.personal('Personer "æøå"')
        row = {'nøkkel "1"': "1", "eier-ÆØÅ": "bjørn", 'navn"et': "Bjørn", "blåbær'; --": "ja", "sted": "Ås"}
        await people.insert(row)
        assert await people.get("1") == row
        assert await people.find({'navn"et': "Bjørn", "sted": "Ås"}) == [row]
        assert await people.update("1", {'navn"et': "Bjørg", "sted": "Bø"})
        assert [r['navn"et'] async for r in people.of("bjørn")] == ["Bjørg"]
        assert await people.delete("1")


async def test_find_by_several_fields_plain_ones_and_any_of(db, users):
    for n in range(3):
        consent = await db.consents.grant(subject=f"u{n}", purpose=PURPOSE)
        await users.insert({"id": f"u{n}", "email": f"{n}@example.no", "name": "N"}, consent=consent)
    assert {r["id"] for r in await users.find(email=("0@example.no", "2@example.no", "x"))} == {"u0", "u2"}
    assert [r["id"] for r in await users.find(email="1@example.no", id="u1")] == ["u1"]
    assert await users.find(email="1@example.no", id="u2") == []
    assert await users.find(id=()) == []
    assert {r["id"] for r in await users.find(personal_number=None)} == {"u0", "u1", "u2"}
    assert len(await users.find(personal_number=None, limit=2)) == 2
    for fields, says in (
        ({"name": "N"}, r"users\.name is sealed without lookup"),
        ({"nmae": "N"}, "no field nmae"),
        ({"email_lookup": b""}, "no field email_lookup"),
        ({}, "nobody means every row"),
        ({"email": "x", "limit": 0}, "at least 1"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            await users.find(**fields)


async def test_update_reseals_under_the_rows_own_tag(db, users, consent):
    before = (await db["main"].query("SELECT * FROM users"))[0]
    assert await users.update("test-user", {"email": "new@example.no", "name": None}, consent=consent)
    after = (await db["main"].query("SELECT * FROM users"))[0]
    assert after["datavern_row"] == before["datavern_row"]
    assert after["personal_number"] == before["personal_number"]
    assert after["email"] != before["email"]
    assert await users.find(email="test@example.no") == []
    assert await users.find(email="new@example.no") == [{**PERSON, "email": "new@example.no", "name": None}]
    assert await users.update("nobody", {"name": "x"}, consent=consent) is False


async def test_whose_data_it_is_cannot_change(users, consent):
    with pytest.raises(ConfigurationError, match="whose data a row is cannot change"):
        await users.update("test-user", {"id": "other"}, consent=consent)
    assert await users.update("test-user", {"id": "test-user", "name": "Same"}, consent=consent)
    assert (await users.get("test-user"))["name"] == "Same"
    with pytest.raises(ConfigurationError, match="needs a change"):
        await users.update("test-user", {}, consent=consent)


async def test_delete(db, users):
    assert await users.delete("test-user")
    assert await users.get("test-user") is None
    assert await users.delete("test-user") is False
    assert [e["action"] for e in await entries(db) if e["dataset"]] == ["inserted", "deleted"]


async def test_what_may_not_be_written(users, consent):
    for row, says in (
        ({**PERSON, "id": None}, r"users\.id: missing"),
        ({"name": "x"}, r"users\.id: missing"),
        ({**PERSON, "email_lookup": b"x"}, "email_lookup is Datavern's own"),
        ({**PERSON, "datavern_row": b"x"}, "datavern_row is Datavern's own"),
        ({**PERSON, "id": NUMBER}, "fødselsnummer"),
        ({**PERSON, "personal_number": 13097248022}, "personal_number|fodselsnummer"),
    ):
        with pytest.raises(ConfigurationError, match=says) as refused:
            await users.insert(row, consent=consent)
        assert NUMBER not in str(refused.value)


async def test_a_consent_that_does_not_hold_keeps_everything_out(db, consent):
    users = db.personal("users")
    other = await db.consents.grant(subject="other", purpose=PURPOSE)
    marketing = await db.consents.grant(subject="test-user", purpose="marketing")
    expired = await db.consents.grant(
        subject="test-user", purpose=PURPOSE, expires=dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    )
    withdrawn = await db.consents.grant(subject="test-user", purpose=PURPOSE)
    await db.consents.withdraw(withdrawn)
    for given, says in (
        (None, f"needed: {PURPOSE}"),
        (other, "another person's"),
        (marketing, f"no consent to {PURPOSE}: the one given is to marketing"),
        (expired, "has expired"),
        (withdrawn, "was withdrawn"),
        ("no such id", "no consent of that id"),
        ([], f"needed: {PURPOSE}"),
    ):
        with pytest.raises(ConsentRequired, match=says) as refused:
            await users.insert(PERSON, consent=given)
        assert "test-user" not in str(refused.value)
        with pytest.raises(ConsentRequired, match=says):
            await users.insert_many([PERSON], consent=[given])
    assert await users.get("test-user") is None
    assert await entries(db, "inserted") == []
    await users.insert(PERSON, consent=[marketing, consent])
    await db.consents.withdraw(consent.id)
    with pytest.raises(ConsentRequired, match="was withdrawn"):
        await users.update("test-user", {"name": "x"}, consent=consent)
    with pytest.raises(ConsentRequired, match="needed"):
        await users.update("test-user", {"name": "x"})
    assert (await users.get("test-user"))["name"] == "Test User"


async def test_a_legal_basis_needs_no_consent(managed):
    dataset = Dataset("cases", database="main", subject="id", purposes=["case"], legal_basis="forvaltningsloven")
    async with managed(dataset) as db:
        await db.prepare("cases")
        await db.personal("cases").insert({"id": "a"})
        withdrawn = await db.consents.grant(subject="b", purpose="case")
        await db.consents.withdraw(withdrawn)
        with pytest.raises(ConsentRequired, match="withdrawn"):  # one that is given has to hold
            await db.personal("cases").insert({"id": "b"}, consent=withdrawn)
        assert await db.personal("cases").get("a") == {"id": "a"}


async def test_insert_many_takes_consents_in_three_ways(db):
    users = db.personal("users")
    people = [{"id": f"u{n}", "email": f"{n}@example.no"} for n in range(5)]
    consents = [await db.consents.grant(subject=p["id"], purpose=PURPOSE) for p in people]
    assert await users.insert_many(people[:2], consent=consents[:2]) == 2
    assert await users.insert_many(people[2:4], consent={"u2": consents[2].id, "u3": consents[3]}) == 2
    assert await users.insert_many([people[4]], consent=consents[4]) == 1
    assert await users.insert_many([]) == 0
    assert {r["id"] for r in await users.find(email=tuple(p["email"] for p in people))} == {p["id"] for p in people}
    more = [{"id": "u0", "name": "again"}, {"id": "u9", "name": "new"}]
    with pytest.raises(ConsentRequired, match="another person's"):
        await users.insert_many(more, consent=consents[0])
    with pytest.raises(ConsentRequired, match="needed"):
        await users.insert_many(more, consent={"u0": consents[0]})
    with pytest.raises(ConfigurationError, match="1 were given for 2 rows"):
        await users.insert_many(more, consent=[consents[0]])
    assert await users.get("u9") is None


async def test_insert_many_is_all_or_none_and_rows_may_differ(managed, db):
    dataset = Dataset("visits", database="main", subject="who", fields={"note": Field(sealed=True), "place": Field()})
    async with managed(dataset) as other:
        await other.prepare("visits")
        visits = other.personal("visits")
        rows = [
            {"id": "1", "who": "a", "note": "n1"},
            {"place": "Bø", "who": "a", "id": "2"},
            {"id": "3", "who": "b", "note": None, "place": "Ås"},
        ]
        await visits.insert_many(rows)
        assert {r["id"]: r["note"] async for r in visits.of("a")} == {"1": "n1", "2": None}
        with pytest.raises(ConstraintViolated):
            await visits.insert_many([{"id": "4", "who": "a"}, {"id": "1", "who": "a"}])
        assert await visits.get("4") is None
        told = [(e["handle"], e["details"]) for e in await entries(other, "inserted") if e["dataset"] == "main.visits"]
        assert len(told) == 2
        assert len({handle for handle, _ in told}) == 2
        assert any('"rows":2' in details.replace(" ", "") for _, details in told)


async def test_a_write_takes_part_in_the_callers_transaction(db, consent):
    users = db.personal("users")
    with pytest.raises(ZeroDivisionError):
        async with db["main"].transaction() as tx:
            await users.insert(PERSON, consent=consent, transaction=tx)
            assert await users.get("test-user", transaction=tx) == PERSON
            assert await users.find(email=PERSON["email"], transaction=tx) == [PERSON]
            assert [r async for r in users.of("test-user", transaction=tx)] == [PERSON]
            raise ZeroDivisionError
    assert await users.get("test-user") is None
    assert await entries(db, "inserted") == []
    async with db["main"].transaction() as tx:
        granted = await db.consents.grant(subject="new", purpose=PURPOSE, transaction=tx)
        await users.insert({"id": "new", "name": "N"}, consent=granted, transaction=tx)
        await users.update("new", {"name": "M"}, consent=granted, transaction=tx)
        await users.insert_many([PERSON], consent=consent, transaction=tx)
        await users.delete("test-user", transaction=tx)
        raw = await tx.query("SELECT * FROM users")
        assert [r["name"] for r in await users.open(raw, transaction=tx)] == ["M"]
    assert (await users.get("new"))["name"] == "M"
    assert len(await entries(db, "inserted")) == 2


async def test_a_rolled_back_subject_can_be_written_again(db):
    """Keys that were made in a transaction that is undone are not remembered."""
    users = db.personal("users")
    for attempt in range(2):
        try:
            async with db["main"].transaction() as tx:
                consent = await db.consents.grant(subject="n", purpose=PURPOSE, transaction=tx)
                await users.insert({"id": "n", "name": "N"}, consent=consent, transaction=tx)
                if attempt == 0:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass
    assert (await users.get("n"))["name"] == "N"


async def test_a_transaction_of_another_database_is_refused(db, managed, consent, database):
    other = database.provider("other", location="norway")
    async with other, other.transaction() as tx:
        with pytest.raises(ConfigurationError, match="not one of"):
            await db.personal("users").insert(PERSON, consent=consent, transaction=tx)


def registered(**more):
    fields = {"number": Field(sealed=True, lookup=True, unique=True, kind="fodselsnummer", **more), "name": Field()}
    return Dataset("register", database="main", subject="id", legal_basis="folkeregisterloven § 1", fields=fields)


async def test_what_cannot_be_a_number_is_refused_before_it_is_sealed(managed):
    """Sealed, nobody sees it: whoever is looked up by the right number would not be found."""
    async with managed(registered()) as db:
        await db.prepare("register")
        register = db.personal("register")
        good = ("13097248022", "530972 48016", "10915596784")  # fødselsnummer, D-number, Tenor
        await register.insert_many([{"id": f"p{n}", "number": number} for n, number in enumerate(good)])
        wrong = {"id": "p9", "number": "13097248032"}
        for call in (
            register.insert(wrong),
            register.insert_many([{"id": "p8", "number": None}, wrong]),
            register.update("p0", {"number": wrong["number"]}),
            db.subject_requests.process(
                SubjectRequest("rectification", subject="p0", changes={"register": {"number": wrong["number"]}})
            ),
        ):
            with pytest.raises(ConfigurationError, match="register.number: no fødselsnummer or D-number") as refused:
                await call
            assert "13097248032" not in str(refused.value)
        with pytest.raises(ConfigurationError, match="row 2 of 2: register.number"):
            await register.insert_many([{"id": "p8", "number": None}, wrong])
        assert await register.get("p8") is None
        assert (await register.find(number="13097248022"))[0]["id"] == "p0"


async def test_what_was_stored_before_it_was_looked_at_is_found_changed_and_erased(managed):
    old = "13097248032"
    async with managed(registered(unverified=True)) as db:
        await db.prepare("register")
        await db.personal("register").insert_many([{"id": "p1", "number": old}, {"id": "p2", "number": "hjelp 12-7"}])
    async with managed(registered()) as db:
        register, requests = db.personal("register"), db.subject_requests
        assert (await register.find(number=old))[0]["id"] == "p1"
        assert await register.update("p1", {"name": "Åse"})
        assert (await requests.process(SubjectRequest("access", subject="p1"))).data["main.register"][0][
            "number"
        ] == old
        right = {"register": {"number": "13097248022"}}
        await requests.process(SubjectRequest("rectification", subject="p1", changes=right))
        assert (await register.get("p1"))["number"] == "13097248022"
        assert (await requests.process(SubjectRequest("erasure", subject="p2"))).success
        assert await register.get("p2") is None


async def test_a_duplicate_of_a_sealed_unique_value_is_told_without_it(managed, caplog):
    fields = {"number": Field(sealed=True, lookup=True, unique=True, kind="fodselsnummer"), "name": Field(unique=True)}
    dataset = Dataset("people", database="main", subject="id", fields=fields)
    async with managed(dataset) as db:
        await db.prepare("people")
        people = db.personal("people")
        await people.insert({"id": "first-person", "number": NUMBER, "name": "Only Name"})
        await people.insert({"id": "c", "number": "10915596784"})
        for call in (
            people.insert({"id": "second-person", "number": NUMBER}),
            people.insert_many([{"id": "second-person", "number": NUMBER}]),
            people.insert({"id": "second-person", "name": "Only Name"}),
            people.update("c", {"number": NUMBER}),
        ):
            with pytest.raises(ConstraintViolated) as refused:
                await call
            told = "".join(traceback.format_exception(refused.value)) + caplog.text + repr(refused.value)
            for planted in (NUMBER, "Only Name", "second-person", "first-person"):
                assert planted not in told
            assert refused.value.__context__ is None or NUMBER not in repr(refused.value.__context__)
        assert (await people.get("c"))["number"] == "10915596784"
        assert await people.get("second-person") is None


async def test_open_takes_rows_of_any_query(db, users):
    main = db["main"]
    raw = await main.query("SELECT * FROM users")
    assert isinstance(raw[0]["name"], bytes)
    assert await users.open(raw) == [PERSON]
    some = await main.query("SELECT upper(id) AS shouted, id, name, datavern_row FROM users")
    assert await users.open(some) == [{"shouted": "TEST-USER", "id": "test-user", "name": "Test User"}]
    plain = await main.query("SELECT id AS x FROM users")
    assert await users.open(plain) == [{"x": "test-user"}]
    assert await users.open([]) == []
    with pytest.raises(ConfigurationError, match="select datavern_row too"):
        await users.open(await main.query("SELECT id, name FROM users"))
    with pytest.raises(ConfigurationError, match="select id too"):
        await users.open(await main.query("SELECT datavern_row, name FROM users"))


async def test_a_value_does_not_open_in_another_row_column_or_person(db, users, placeholder):
    main = db["main"]
    consent = await db.consents.grant(subject="other", purpose=PURPOSE)
    await users.insert({"id": "other", "name": "Other", "email": "o@example.no"}, consent=consent)
    changes = (
        "UPDATE users SET name = email WHERE id = 'test-user'",  # another column
        "UPDATE users SET name = (SELECT name FROM users WHERE id = 'other') WHERE id = 'test-user'",  # another row
        "UPDATE users SET id = 'third' WHERE id = 'test-user'",  # another person
    )
    for change in changes:
        async with main.transaction() as tx:
            await tx.execute(change)
            for key in ("test-user", "third"):
                if await tx.query_value(f"SELECT count(*) FROM users WHERE id = '{key}'"):
                    with pytest.raises(DecryptionFailed, match="a sealed value did not open"):
                        await users.get(key, transaction=tx)
            with pytest.raises(DecryptionFailed):
                await users.open(await tx.query("SELECT * FROM users"), transaction=tx)
            await tx.execute("DELETE FROM users WHERE id IN ('test-user', 'third')")
        await users.insert(PERSON, consent=await db.consents.grant(subject="test-user", purpose=PURPOSE))


async def test_rows_that_plain_sql_wrote(db, users):
    await db["main"].execute("INSERT INTO users (id) VALUES ('plain')")
    assert await users.get("plain") == {"id": "plain", "personal_number": None, "name": None, "email": None}
    consent = await db.consents.grant(subject="plain", purpose=PURPOSE)
    assert await users.update("plain", {"name": "Now sealed"}, consent=consent)
    assert (await users.get("plain"))["name"] == "Now sealed"


async def test_data_about_nobody_is_sealed_under_the_datasets_own_key(managed):
    fields = {"recipe": Field(sealed=True, lookup=True)}
    dataset = Dataset("secrets", database="main", personal=False, fields=fields)
    async with managed(dataset) as db:
        await db.prepare("secrets")
        secrets = db.personal("secrets")
        await secrets.insert({"id": "1", "recipe": "salt"})
        await secrets.insert_many([{"id": "2", "recipe": "pepper"}, {"id": "3"}])
        assert await secrets.get("1") == {"id": "1", "recipe": "salt"}
        assert await secrets.find(recipe="pepper") == [{"id": "2", "recipe": "pepper"}]
        assert await secrets.update("1", {"recipe": "sugar"})
        assert (await secrets.get("1"))["recipe"] == "sugar"
        assert await secrets.delete("2")
        await db["main"].execute(
            "UPDATE secrets SET recipe = (SELECT recipe FROM secrets WHERE id = '1') WHERE id = '3'"
        )
        with pytest.raises(DecryptionFailed):
            await secrets.get("3")


async def test_many_keys_of_rows_without_an_id_of_text(managed):
    dataset = Dataset(
        "events",
        database="main",
        subject="who",
        primary_key=["who", "number"],
        fields={"who": Field(type="integer"), "number": Field(type="integer"), "note": Field(sealed=True)},
    )
    async with managed(dataset) as db:
        await db.prepare("events")
        events = db.personal("events")
        await events.insert_many([{"who": 7, "number": n, "note": f"n{n}"} for n in range(3)])
        assert (await events.get((7, 1)))["note"] == "n1"
        assert (await events.get({"number": 2, "who": "7"}))["note"] == "n2"
        assert await events.update(("7", 0), {"note": "x"})
        assert [r["note"] async for r in events.of("7")] == ["x", "n1", "n2"]
        for wrong in (7, (7,), {"who": 7}, (7, None)):
            with pytest.raises(ConfigurationError, match="primary key: who, number"):
                await events.get(wrong)


async def test_leaving_a_stream_early_gives_its_connection_back(db, users, consent):
    for n in range(30):
        found = users.of("test-user")
        async for _ in found:
            break
        await found.aclose()
        assert await db["main"].query_value(f"SELECT {n}") == n


async def test_each_write_leaves_one_entry_with_names_and_no_values(db, users, consent):
    with actor("case-worker-7"):
        await users.update("test-user", {"name": "New Name"}, consent=consent)
    await users.delete("test-user")
    told = [e for e in await entries(db) if e["dataset"] == "main.users"]
    assert [(e["action"], e["actor"]) for e in told] == [
        ("inserted", None),
        ("updated", "case-worker-7"),
        ("deleted", None),
    ]
    assert len({e["handle"] for e in told}) == 1
    everything = repr(await db["main"].query("SELECT * FROM datavern_audit")) + repr(told)
    for planted in ("Test User", "New Name", NUMBER, "test@example.no", "test-user"):
        assert planted not in everything
    assert '"name"' in told[1]["details"]
    assert consent.id in told[0]["details"]


async def test_store_personal_data(db, consent):
    main = db["main"]
    id_ = await main.store_personal_data({"user_id": "test-user", "personal_number": NUMBER}, consent)
    again = await main.store_personal_data({"subject": "test-user", "nested": {"å": [1]}}, consent.id)
    assert id_ != again
    rows = await main.query("SELECT * FROM personal_data")
    assert {r["user_id"] for r in rows} == {"test-user"}
    assert NUMBER not in repr([dict(r) for r in rows])
    for data, given, error, says in (
        ({"personal_number": NUMBER}, consent, ConfigurationError, "user_id is missing"),
        ({"user_id": "other"}, consent, ConsentRequired, "another person's"),
        ({"user_id": "test-user"}, None, ConsentRequired, "no consent was given"),
        ({"user_id": "test-user", "x": object()}, consent, ConfigurationError, "sealed|JSON"),
        ({"user_id": NUMBER}, consent, ConfigurationError, "fødselsnummer"),
    ):
        with pytest.raises(error, match=says):
            await main.store_personal_data(data, given)
    assert len(await main.query("SELECT * FROM personal_data")) == 2


async def test_plain_sql_sees_no_personal_data(db, users, consent, database, tmp_path):
    main, engine = db["main"], database.engine
    planted = [NUMBER, "Test User", "test@example.no", "hemmelig-notat-æøå"]
    await main.store_personal_data({"user_id": "test-user", "note": planted[3]}, consent)
    await users.update("test-user", {"name": "Test User"}, consent=consent)
    needles = [p.encode() for p in planted] + [p.encode().hex().encode() for p in planted]
    if "path" in database.settings:
        folder = Path(database.settings["path"]).parent
        files = [path for path in folder.iterdir() if path.is_file()]
        assert any(path.name.endswith("-wal") for path in files)
        seen = {str(path): path.read_bytes() for path in files}
    elif engine == "azuresql":
        tables = await main.query("SELECT QUOTENAME(name) FROM sys.tables")
        assert len(tables) > 5
        seen = {}
        for (table,) in tables:
            rows = await main.query(f"SELECT * FROM {table}")
            seen[table] = b"\n".join(v if isinstance(v, bytes) else repr(v).encode() for row in rows for v in row)
    elif engine == "postgresql":
        tables = await main.query(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relkind = 'r' AND n.nspname = 'public'"
        )
        assert len(tables) > 5
        seen = {}
        for (table,) in tables:
            seen[table] = b"\n".join(r[0].encode() for r in await main.query(f"SELECT t::text FROM {table} t"))
    assert any(b"test-user" in content for content in seen.values())  # the id is no secret: the search does find
    for place, content in seen.items():
        for needle in needles:
            assert needle not in content, place


async def test_a_key_that_is_being_erased_takes_no_writes(db, users, consent):
    await db.keys.start_erasure("test-user")
    with pytest.raises(KeyErased, match="an erasure of the subject runs"):
        await users.insert(PERSON | {"id": "test-user"}, consent=consent)
    with pytest.raises(KeyErased):
        await users.update("test-user", {"name": "x"}, consent=consent)
    with pytest.raises(KeyErased):
        await users.insert_many([PERSON], consent=consent)


async def test_a_moved_lookup_index_leads_nobody_to_another_person(db, users, consent, placeholder):
    main = db["main"]
    consent = await db.consents.grant(subject="other", purpose=PURPOSE)
    other = {"id": "other", "name": "Other", "email": "other@example.no", "personal_number": "10915596784"}
    await users.insert(other, consent=consent)
    indexes = {r["id"]: r["email_lookup"] for r in await main.query("SELECT id, email_lookup FROM users")}
    swap = f"UPDATE users SET email_lookup = {placeholder(1)} WHERE id = {placeholder(2)}"
    await main.execute(swap, [indexes["other"], "test-user"])
    for asked in ("other@example.no", ("nobody@example.no", "other@example.no")):
        with pytest.raises(DecryptionFailed):
            await users.find(email=asked)
    assert await users.find(email="test@example.no") == []
    assert await users.find(email="other@example.no", id="other") == [other]
    await main.execute("UPDATE users SET email = NULL WHERE id = 'test-user'")
    assert await users.find(email="other@example.no") == [other]
    await main.execute(swap, [indexes["test-user"], "test-user"])
    assert await users.find(email="test@example.no") == []


async def test_an_old_copy_of_an_erased_row_is_found_by_nobody(db, users, placeholder):
    main = db["main"]
    (old,) = [dict(r) for r in await main.query("SELECT * FROM users")]
    await db.subject_requests.process(SubjectRequest("erasure", subject="test-user"))
    places = ", ".join(placeholder(n + 1) for n in range(len(old)))
    await main.execute(f"INSERT INTO users ({', '.join(old)}) VALUES ({places})", list(old.values()))
    assert await users.find(email="test@example.no") == []
    assert await users.find(personal_number=(NUMBER, "10915596784")) == []
    with pytest.raises(KeyErased):
        await users.get("test-user")


async def test_a_row_that_the_law_keeps_opens_for_its_own_person_alone(managed, placeholder):
    invoices = Dataset(
        "invoices",
        database="main",
        subject="user_id",
        erasure="retain",
        retention="5y",
        legal_basis="bokføringsloven § 13",
        fields={"text": Field(sealed=True)},
    )
    async with managed(invoices) as db:
        await db.prepare("invoices")
        store, main = db.personal("invoices"), db["main"]
        for who in ("anna", "berit", "clara"):
            await store.insert({"id": who, "user_id": who, "text": f"of {who}"})
        for who in ("anna", "clara"):
            await db.subject_requests.process(SubjectRequest("erasure", subject=who))
            assert (await store.get(who))["text"] == f"of {who}"
        (anna,) = await main.query("SELECT * FROM invoices WHERE id = 'anna'")
        await main.execute("DELETE FROM invoices WHERE id = 'anna'")
        move = f"UPDATE invoices SET text = {placeholder(1)}, datavern_row = {placeholder(2)} WHERE id = '{{}}'"
        for who in ("berit", "clara"):  # somebody else, living or erased
            async with main.transaction() as tx:
                await tx.execute(move.format(who), [anna["text"], anna["datavern_row"]])
                with pytest.raises(DecryptionFailed):
                    await store.get(who, transaction=tx)
                await tx.execute(f"DELETE FROM invoices WHERE id = '{who}'")
