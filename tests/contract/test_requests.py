"""Subject requests on every engine: access, and erasure by every policy, journalled and proven."""

import datetime as dt
import json
from pathlib import Path

import pytest

from datavern import (
    ConfigurationError,
    Dataset,
    ErasureIncomplete,
    Field,
    KeyErased,
    PrivacyError,
    SubjectRequest,
    SubjectRequestRejected,
    SubjectResponse,
)
from datavern.privacy.certificate.certificate import Certificate
from datavern.testing import create_test_database

PURPOSE = "customer-account"
NUMBER = "13097248022"
NAME = "Planted Name"
SEALED = {"name": Field(sealed=True, lookup=True), "note": Field()}
LAW = "bokføringsloven § 13"


def dataset(name, erasure="delete", **more):
    return Dataset(
        name, database=more.pop("database", "main"), subject="who", erasure=erasure, **{"fields": SEALED, **more}
    )


def retained(**more):
    return dataset("invoices", "retain", retention="5y", legal_basis=LAW, **more)


def certified(response, label):
    (found,) = (store for store in response.certificate.body["stores"] if store["dataset"] == label)
    return found


async def process(db, kind, subject="u1", **more):
    return await db.subject_requests.process(SubjectRequest(kind, subject=subject, **more))


async def fill(db, *names, rows=2, subjects=("u1", "u2")):
    for name in names:
        await db.prepare(name)
        for subject in subjects:
            await db.personal(name).insert_many(
                [{"id": f"{subject}-{n}", "who": subject, "name": NAME, "note": "n"} for n in range(rows)]
            )


async def rows(db, table):
    return [dict(row) for row in await db["main"].query(f"SELECT * FROM {table} ORDER BY id")]


async def audited(db, action):
    found = await db["main"].query("SELECT * FROM datavern_audit ORDER BY era, stamp, seq")
    return [dict(row) for row in found if row["action"] == action]


# ---- access ---------------------------------------------------------------------------------------------------------


async def test_access_gives_everything_in_values_that_json_has(managed):
    fields = {
        "name": Field(sealed=True),
        "born": Field(sealed=True),
        "blob": Field(sealed=True),
        "day": Field(type="date"),
        "moment": Field(type="timestamp"),
    }
    datasets = (
        Dataset("people", database="main", subject="id", fields=fields),
        Dataset("empty", database="main", subject="who"),
        Dataset("never_made", database="main", subject="who"),
    )
    async with managed(*datasets) as db:
        await db.prepare("people")
        await db.prepare("empty")
        moment = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
        await db.personal("people").insert(
            {
                "id": "u1",
                "name": NAME,
                "born": dt.date(1972, 9, 13),
                "blob": b"\xff",
                "day": dt.date(2026, 1, 1),
                "moment": moment,
            }
        )
        consent = await db.consents.grant(subject="u1", purpose=PURPOSE)
        await db["main"].store_personal_data({"user_id": "u1", "personal_number": NUMBER}, consent)
        response = await process(db, "access", received=dt.date(2026, 1, 31))
        assert isinstance(response, SubjectResponse)
        assert response.success
        assert response.certificate is None
        assert "u1" not in response.message
        data = json.loads(json.dumps(response.data))
        assert list(data) == ["main.people", "main.empty", "main.never_made", "main.personal_data", "datavern.consents"]
        (person,) = data["main.people"]
        assert (person["name"], person["born"], person["blob"], person["day"]) == (
            NAME,
            "1972-09-13",
            "/w==",
            "2026-01-01",
        )
        assert dt.datetime.fromisoformat(person["moment"]) == moment
        assert not any(name.startswith("datavern") for name in person)
        assert data["main.personal_data"][0]["data"] == {"personal_number": NUMBER}
        assert data["datavern.consents"][0]["purpose"] == PURPOSE
        (entry,) = await audited(db, "access_request")
        assert entry["handle"]
        assert response.request_id in entry["details"]
        journal = await rows(db, "datavern_requests")
        assert [(r["id"], r["kind"], r["received"], r["deadline"], r["subject"]) for r in journal] == [
            (response.request_id, "access", "2026-01-31", "2026-03-02", None)
        ]
        assert journal[0]["completed_at"]


async def test_nobody_of_that_id_is_answered_truthfully(managed):
    async with managed(dataset("visits")) as db:
        await fill(db, "visits")
        for kind in ("access", "erasure"):
            response = await process(db, kind, subject="nobody")
            assert response.success
            assert response.message == "Nothing was found about this subject."
        assert response.certificate.verify(verifier(db))
        assert certified(response, "main.visits")["found"] == 0
        assert len(await rows(db, "visits")) == 4
        assert len(await audited(db, "access_request")) == 1
        assert len(await audited(db, "erasure_completed")) == 1


def verifier(db):
    return (Path(db._keyring.removeprefix("file:")) / "verifier.txt").read_text()


def test_a_request_that_cannot_be():
    with pytest.raises(SubjectRequestRejected, match="did you mean erasure"):
        SubjectRequest("erasur", subject="u1")
    with pytest.raises(SubjectRequestRejected, match="future"):
        SubjectRequest("access", subject="u1", received=dt.date.today() + dt.timedelta(days=3))  # noqa: DTZ011
    for received in ("2026-01-31", None, 5):
        with pytest.raises(SubjectRequestRejected, match="expected a date"):
            SubjectRequest("access", subject="u1", received=received)
    with pytest.raises(ConfigurationError, match="fødselsnummer"):
        SubjectRequest("access", subject=NUMBER)


# ---- rectification --------------------------------------------------------------------------------------------------


async def test_rectification(managed):
    users = Dataset("users", database="main", subject="id", purposes=[PURPOSE], fields=SEALED)
    async with managed(users, dataset("visits"), retained()) as db:
        await db.prepare("users")
        await fill(db, "visits", "invoices")
        consent = await db.consents.grant(subject="u1", purpose=PURPOSE)
        await db.personal("users").insert({"id": "u1", "name": "Wrong", "note": "n"}, consent=consent)
        await db.consents.withdraw(consent)  # what is wrong is put right without consent, too
        response = await process(
            db,
            "rectification",
            changes={"users": {"name": "Right"}, "visits": {"id": "u1-1", "name": "Right", "note": None}},
        )
        assert response.success
        assert "main.users" in response.message
        assert await db.personal("users").get("u1") == {"id": "u1", "name": "Right", "note": "n"}
        assert {r["id"]: r["name"] async for r in db.personal("visits").of("u1")} == {"u1-0": NAME, "u1-1": "Right"}
        assert [r["id"] for r in await db.personal("visits").find(name="Right")] == ["u1-1"]
        told = await audited(db, "rectified")
        assert [e["dataset"] for e in told] == ["main.users", "main.visits"]
        assert all(response.request_id in e["details"] and "Right" not in e["details"] for e in told)
        assert [r["kind"] for r in await rows(db, "datavern_requests")] == ["rectification"]
        await process(db, "erasure", subject="u2")
        for subject, changes, error, says in (
            ("u1", None, SubjectRequestRejected, "changes is missing"),
            ("u1", {"users": {}}, SubjectRequestRejected, "changes is missing"),
            ("u1", {"user": {"name": "x"}}, ConfigurationError, "did you mean users"),
            ("u1", {"users": {"nmae": "x"}}, ConfigurationError, "no field nmae"),
            ("u1", {"users": {"name_lookup": b""}}, ConfigurationError, "Datavern's own"),
            ("u1", {"users": {"id": "u3"}}, ConfigurationError, "cannot change"),
            ("u1", {"visits": {"name": "x"}}, SubjectRequestRejected, "several rows: say which, by id"),
            ("u1", {"visits": {"id": "u1-0"}}, SubjectRequestRejected, "no field is to be changed"),
            ("u1", {"visits": {"id": "u2-0", "name": "x"}}, SubjectRequestRejected, "nothing was found"),
            ("nobody", {"users": {"name": "x"}}, SubjectRequestRejected, "nothing was found"),
            ("u2", {"invoices": {"id": "u2-0", "name": "x"}}, SubjectRequestRejected, "the law keeps the row"),
        ):
            with pytest.raises(error, match=says):
                await process(db, "rectification", subject=subject, changes=changes)
        assert len(await audited(db, "rectified")) == 2


async def test_a_rectification_that_breaks_a_constraint_changes_nothing(managed):
    fields = {"number": Field(sealed=True, lookup=True, unique=True), "name": Field(sealed=True)}
    async with managed(dataset("people", fields=fields), dataset("visits")) as db:
        await fill(db, "visits", rows=1)
        await db.prepare("people")
        await db.personal("people").insert({"id": "1", "who": "u1", "number": NUMBER, "name": NAME})
        await db.personal("people").insert({"id": "2", "who": "u2", "number": "2"})
        changes = {"visits": {"name": "Right"}, "people": {"number": NUMBER}}
        with pytest.raises(SubjectRequestRejected, match="a constraint does not allow it") as refused:
            await process(db, "rectification", subject="u2", changes=changes)
        assert "nothing was changed" in str(refused.value)
        assert NUMBER not in str(refused.value)
        assert NUMBER not in repr(refused.value.__context__)
        assert (await db.personal("visits").get("u2-0"))["name"] == NAME
        assert await audited(db, "rectified") == []


# ---- erasure, policy by policy --------------------------------------------------------------------------------------


async def test_delete(managed):
    async with managed(dataset("visits")) as db:
        await fill(db, "visits")
        response = await process(db, "erasure")
        assert response.success
        assert {r["who"] for r in await rows(db, "visits")} == {"u2"}
        assert [r["name"] async for r in db.personal("visits").of("u2")] == [NAME] * 2
        store = certified(response, "main.visits")
        assert (store["found"], store["done"], store["left"]) == (2, {"deleted": 2}, [])


async def test_anonymize(managed):
    fields = {
        **SEALED,
        "must": Field(sealed=True, nullable=False),
        "count": Field(type="integer", nullable=False),
        "token": Field(nullable=False, unique=True),
    }
    people = dataset("people", "anonymize", fields=fields)
    async with managed(people) as db:
        await db.prepare("people")
        for n in range(3):
            row = {"id": str(n), "who": "u2" if n == 2 else "u1", "name": NAME, "note": "n", "must": "m", "count": 7}
            await db.personal("people").insert({**row, "token": f"t{n}"})
        before = await rows(db, "people")
        response = await process(db, "erasure")
        after = await rows(db, "people")
        assert after[2] == before[2]
        assert len({r["who"] for r in after}) == 3
        for old, new in zip(before[:2], after[:2], strict=True):
            assert new["who"].startswith("erased-")
            assert (new["name"], new["name_lookup"], new["note"], new["count"]) == (None, None, None, 0)
            assert new["datavern_row"] != old["datavern_row"]  # an older copy does not lead to the row
            assert new["token"].startswith("erased-")
            assert (await db.personal("people").get(new["id"]))["must"] is None
        assert await db.personal("people").find(name=NAME) == [{**await db.personal("people").get("2")}]
        store = certified(response, "main.people")
        assert (store["found"], store["done"], store["left"], store["notes"]) == (2, {"anonymized": 2}, ["id"], [])


async def test_anonymize_keeps_a_subject_that_others_refer_to_and_says_so(managed, sql):
    users = Dataset("users", database="main", subject="id", erasure="anonymize", fields={"name": Field(sealed=True)})
    async with managed(users) as db:
        await db.prepare("users")
        await db["main"].execute(
            sql("CREATE TABLE orders (id {text} PRIMARY KEY, who {text} REFERENCES users (id) ON UPDATE CASCADE)")
        )
        await db.personal("users").insert({"id": "u1", "name": NAME})
        await db["main"].execute("INSERT INTO orders VALUES ('o', 'u1')")
        response = await process(db, "erasure")
        store = certified(response, "main.users")
        assert store["left"] == ["id"]
        assert "rows of other tables refer to it" in store["notes"][0]
        assert (await rows(db, "users"))[0]["name"] is None
        assert (await rows(db, "orders"))[0]["who"] == "u1"


async def test_anonymize_numbers_and_narrow_columns(managed, sql):

    def people(name):
        return Dataset(name, database="main", subject="who", erasure="anonymize", fields={"name": Field(sealed=True)})

    async with managed(people("numbers"), people("narrow")) as db:
        await db["main"].execute("CREATE TABLE numbers (id bigint PRIMARY KEY, who integer UNIQUE)")
        await db["main"].execute(
            sql("CREATE TABLE narrow (id bigint PRIMARY KEY, who {short} CHECK (who NOT LIKE '_____%'))")
        )
        await db.prepare("numbers")
        await db.prepare("narrow")
        await db.personal("numbers").insert({"id": 1, "who": 7, "name": NAME})
        await db.personal("narrow").insert({"id": 1, "who": "7", "name": NAME})
        response = await process(db, "erasure", subject=7)
        (number,), (narrow,) = await rows(db, "numbers"), await rows(db, "narrow")
        assert number["who"] < 0
        assert certified(response, "main.numbers")["left"] == ["id"]
        assert narrow["who"] == "7"
        assert narrow["name"] is None
        assert certified(response, "main.narrow")["left"] == ["id", "who"]
        assert "the table does not take a pseudonym there" in certified(response, "main.narrow")["notes"][0]


async def test_soft(managed):
    async with managed(dataset("people", "soft")) as db:
        await fill(db, "people")
        response = await process(db, "erasure")
        people = db.personal("people")
        for row in (await rows(db, "people"))[:2]:
            assert (row["who"], row["name"], row["name_lookup"], row["note"]) == ("u1", None, None, None)
            assert row["datavern_erased_at"]
        assert await people.get("u1-0") is None
        assert [r async for r in people.of("u1")] == []
        assert len(await people.find(name=NAME)) == 2
        assert await people.delete("u1-0") is False
        assert certified(response, "main.people")["left"] == ["id", "who"]
        again = await process(db, "erasure")
        assert certified(again, "main.people")["found"] == 0


async def test_shred(managed):
    async with managed(dataset("people", "shred")) as db:
        await fill(db, "people")
        before = await rows(db, "people")
        response = await process(db, "erasure")
        people = db.personal("people")
        after = await rows(db, "people")
        for old, new in zip(before[:2], after[:2], strict=True):
            assert new == {**old, "name_lookup": None}
        assert after[2:] == before[2:]
        with pytest.raises(KeyErased, match="nobody can open this value again"):
            await people.get("u1-0")
        assert [r["name"] async for r in people.of("u1")] == [None, None]
        assert [r["name"] for r in await people.find(note="n")].count(None) == 2
        store = certified(response, "main.people")
        assert (store["done"], store["left"]) == ({"shredded with their keys": 2}, ["id", "note", "who"])
        again = await process(db, "erasure")
        assert certified(again, "main.people")["done"] == {"shredded before, or never sealed": 2}
        found = await process(db, "access")
        assert [r["name"] for r in found.data["main.people"]] == [None, None]


async def test_retain_keeps_what_the_law_keeps_under_a_key_of_its_own(managed):
    async with managed(retained(retention_from="issued", retention_from_year_end=True)) as db:
        await db.prepare("invoices")
        invoices = db.personal("invoices")
        issued = {"1": dt.date(2025, 5, 17), "2": dt.date(2025, 1, 1), "3": dt.date(2010, 1, 1), "4": None}
        for id_, day in issued.items():
            await invoices.insert({"id": id_, "who": "u1", "name": NAME, "note": "n", "issued": day})
        before = {r["id"]: r for r in await rows(db, "invoices")}
        response = await process(db, "erasure")
        after = {r["id"]: r for r in await rows(db, "invoices")}
        assert set(after) == {"1", "2", "4"}
        today = dt.date.today()  # noqa: DTZ011  (the erasure's own day)
        from_today = f"{today.year + 5}-12-31"
        assert {id_: r["datavern_retained_until"] for id_, r in after.items()} == {
            "1": "2030-12-31",
            "2": "2030-12-31",
            "4": from_today,
        }
        for id_, row in after.items():
            assert row["name"] != before[id_]["name"]
            assert row["name_lookup"] is None
            assert (await invoices.get(id_))["name"] == NAME
            with pytest.raises(KeyErased, match="the law keeps the row"):
                await invoices.update(id_, {"note": "x"})
            with pytest.raises(PrivacyError, match=f"the law keeps the row until {row['datavern_retained_until']}"):
                await invoices.delete(id_)
        store = certified(response, "main.invoices")
        assert store["found"] == 4
        assert store["done"] == {"deleted, their retention had ended": 1, "sealed anew under a retention key": 3}
        assert {"rows": 2, "why": LAW, "until": "2030-12-31"} in store["kept"]
        assert store["left"] == ["id", "who", "issued", "note"]
        assert f"({LAW})" in response.message
        found = await process(db, "access")
        assert [r["name"] for r in found.data["main.invoices"]] == [NAME] * 3
        again = await process(db, "erasure")
        assert certified(again, "main.invoices")["kept"] == store["kept"]
        assert certified(again, "main.invoices")["done"] == {}
        assert {r["id"]: r for r in await rows(db, "invoices")} == after
        for id_, until, is_there in (("1", today, True), ("2", today - dt.timedelta(days=1), False)):
            await db["main"].execute(f"UPDATE invoices SET datavern_retained_until = '{until}' WHERE id = '{id_}'")
            if is_there:
                with pytest.raises(PrivacyError):
                    await invoices.delete(id_)
            else:
                assert await invoices.delete(id_)
        assert {r["id"] for r in await rows(db, "invoices")} == {"1", "4"}


async def test_retain_without_sealed_fields(managed):
    invoices = Dataset("invoices", database="main", subject="who", erasure="retain", retention="5y", legal_basis=LAW)
    async with managed(invoices) as db:
        await db.prepare("invoices")
        await db.personal("invoices").insert({"id": "1", "who": "u1"})
        response = await process(db, "erasure")
        assert certified(response, "main.invoices")["kept"][0]["rows"] == 1
        assert await db.personal("invoices").get("1") == {"id": "1", "who": "u1"}
        with pytest.raises(KeyErased, match="the law keeps the row"):
            await db.personal("invoices").update("1", {"who": "u1"})


# ---- erasure as a whole ---------------------------------------------------------------------------------------------


async def test_everything_goes_and_the_certificate_says_so(managed):
    users = Dataset(
        "users",
        database="main",
        subject="id",
        purposes=[PURPOSE],
        erasure="anonymize",
        fields={"name": Field(sealed=True)},
    )
    async with managed(users, dataset("visits"), retained(), dataset("never_made")) as db:
        await fill(db, "visits", "invoices")
        await db.prepare("users")
        consent = await db.consents.grant(subject="u1", purpose=PURPOSE)
        await db.personal("users").insert({"id": "u1", "name": NAME}, consent=consent)
        await db["main"].store_personal_data({"user_id": "u1", "personal_number": NUMBER}, consent)
        response = await process(db, "erasure", received=dt.date(2026, 11, 23))
        body = response.certificate.body
        assert response.certificate.verify(verifier(db))
        assert Certificate.from_json(response.certificate.to_json()).verify(verifier(db))
        assert body["organisation"] == "Eksempel kommune"
        assert (body["request"], body["subject"], body["received"]) == (response.request_id, "u1", "2026-11-23")
        assert {s["dataset"]: s["found"] for s in body["stores"]} == {
            "main.users": 1,
            "main.visits": 2,
            "main.invoices": 2,
            "main.never_made": 0,
            "main.personal_data": 1,
            "datavern.consents": 1,
        }
        assert certified(response, "main.never_made")["notes"] == ["there is no table never_made"]
        assert len(body["keys"]) == 4
        assert await db.audit.log("main").has(body["audit"])
        assert all([await db.audit.log("main").has(s["audit"]) for s in body["stores"]])
        assert "u1" not in response.message
        assert await db.consents.list("u1") == []
        assert await rows(db, "personal_data") == []
        assert await db.keys.erased("u1")
        erased = await audited(db, "erased")
        assert len(erased) == 6
        assert len({e["handle"] for e in erased}) == 1
        for table in ("datavern_requests", "datavern_request_steps", "datavern_audit", "users", "visits"):
            kept = [dict(r) for r in await db["main"].query(f"SELECT * FROM {table}")]
            assert "'u1'" not in repr(kept), table
            assert NAME not in repr(kept)
        assert (await db.subject_requests.certificate(response.request_id)).to_json() == response.certificate.to_json()
        assert await db.subject_requests.certificate("none") is None
        assert await db.subject_requests.resume() == []


async def test_a_second_erasure_is_answered(managed):
    async with managed(dataset("visits")) as db:
        await fill(db, "visits")
        first = await process(db, "erasure")
        second = await process(db, "erasure")
        assert second.success
        assert second.message == "Nothing was found about this subject."
        assert second.request_id != first.request_id
        assert second.certificate.body["keys"] == []
        assert second.certificate.verify(verifier(db))


async def test_a_person_who_returns_is_a_new_person(managed):
    async with managed(dataset("visits")) as db:
        await fill(db, "visits")
        handle = await db.keys.handle("u1")
        await process(db, "erasure")
        visits = db.personal("visits")
        await visits.insert({"id": "new", "who": "u1", "name": "Back"})
        assert (await visits.get("new"))["name"] == "Back"
        assert await db.keys.handle("u1") != handle
        assert await db.subject_requests.resume() == []
        assert (await visits.get("new"))["name"] == "Back"


async def test_rows_that_refer_to_others_go_first(managed, sql):
    parents = Dataset("parents", database="main", subject="who", fields=SEALED)
    children = Dataset("children", database="main", subject="who", fields=SEALED)
    async with managed(parents, children) as db:
        await db["main"].execute(sql("CREATE TABLE parents (id {text} PRIMARY KEY, who {text})"))
        await db["main"].execute(
            sql("CREATE TABLE children (id {text} PRIMARY KEY, who {text}, parent {text} REFERENCES parents (id))")
        )
        await fill(db, "parents")
        await db.prepare("children")
        await db.personal("children").insert({"id": "c", "who": "u1", "parent": "u1-0", "name": NAME})
        response = await process(db, "erasure")
        assert certified(response, "main.parents")["found"] == 2
        assert await rows(db, "children") == []


async def test_a_row_that_somebody_else_refers_to_keeps_the_request_open_until_it_may_go(managed, sql):
    async with managed(dataset("visits")) as db:
        await fill(db, "visits")
        await db["main"].execute(sql("CREATE TABLE bills (id {text} PRIMARY KEY, visit {text} REFERENCES visits (id))"))
        await db["main"].execute("INSERT INTO bills VALUES ('b', 'u1-0')")
        with pytest.raises(ErasureIncomplete, match=r"main\.visits") as incomplete:
            await process(db, "erasure")
        assert "ConstraintViolated" in incomplete.value.receipt.waiting["main.visits"]
        assert len(await rows(db, "visits")) == 4
        with pytest.raises(KeyErased):
            await db.personal("visits").insert({"id": "x", "who": "u1"})
        await db["main"].execute("DELETE FROM bills")
        response = await process(db, "erasure")
        assert response.request_id == incomplete.value.receipt.request_id
        assert certified(response, "main.visits")["found"] == 2


async def test_a_map_that_names_a_missing_column_changes_nothing(managed):
    async with managed(dataset("visits")) as db:
        await fill(db, "visits")
    more = dataset("visits", fields={**SEALED, "phone": Field(sealed=True)})
    async with managed(more) as db:
        with pytest.raises(ConfigurationError, match="lacks phone"):
            await process(db, "erasure")
        assert len(await rows(db, "visits")) == 4
        assert await rows(db, "datavern_requests") == []


@pytest.fixture
async def elsewhere(engine):
    async with create_test_database(engine) as database:
        yield database


async def test_stores_in_several_databases_and_one_that_is_down(managed, database, elsewhere):
    databases = {"main": database.provider(location="norway"), "other": elsewhere.provider("other", location="norway")}
    datasets = (dataset("visits"), retained(database="other"), dataset("logins", "anonymize", database="other"))
    async with managed(*datasets, databases=databases) as db:
        await fill(db, "visits", "invoices", "logins")
        await db["other"].close()
        with pytest.raises(ErasureIncomplete, match=r"other\.invoices, other\.logins") as incomplete:
            await process(db, "erasure")
        receipt = incomplete.value.receipt
        assert list(receipt.done) == ["main.visits"]
        assert receipt.done["main.visits"]["found"] == 2
        assert all(
            "ConnectionFailed" in why for label, why in receipt.waiting.items() if label != "other.personal_data"
        )
        assert "u1" not in str(incomplete.value)
        (still,) = await db.subject_requests.resume()
        assert still.waiting.keys() == receipt.waiting.keys()
        await db["other"].connect()
        (response,) = await db.subject_requests.resume()
        assert response.request_id == receipt.request_id
        assert response.certificate.verify(verifier(db))
        assert {s["dataset"]: s["found"] for s in response.certificate.body["stores"]} == {
            "main.visits": 2,
            "other.invoices": 2,
            "other.logins": 2,
            "other.personal_data": 0,
            "datavern.consents": 0,
        }
        kept = [r["name"] async for r in db.personal("invoices").of("u1")]
        assert kept == [NAME] * 2
        assert [r async for r in db.personal("logins").of("u1")] == []
        assert await db.subject_requests.resume() == []


async def test_an_open_erasure_finishes_when_the_manager_opens_and_not_under_a_smaller_map(
    managed, database, elsewhere
):
    def databases():
        return {"main": database.provider(location="norway"), "other": elsewhere.provider("other", location="norway")}

    datasets = (dataset("visits"), dataset("logins", database="other"))
    async with managed(*datasets, databases=databases()) as db:
        await fill(db, "visits", "logins")
        await db["other"].close()
        with pytest.raises(ErasureIncomplete):
            await process(db, "erasure")
    async with managed(datasets[0], databases=databases()) as db:  # knows nothing of the logins
        (still,) = await db.subject_requests.resume()
        assert still.waiting["other.logins"] == "it is not in this manager's data map"
    async with managed(*datasets, databases=databases()) as db:
        assert await db.subject_requests.resume() == []  # opening finished it
        assert len(await db["other"].query("SELECT * FROM logins")) == 2
        journal = await rows(db, "datavern_requests")
        assert [bool(r["completed_at"]) for r in journal] == [True]
        assert journal[0]["subject"] is None


async def test_a_database_in_memory_has_one_connection_for_all_of_it(keyring):
    from datavern import DatabaseManager, DataMap, SQLiteProvider

    users = Dataset("users", database="main", subject="id", fields=SEALED)
    main = SQLiteProvider(":memory:", location="norway")
    async with DatabaseManager(
        {"main": main}, data_map=DataMap([users, retained()]), keyring=keyring, ledger="main"
    ) as db:
        await db.prepare("users")
        await fill(db, "invoices")
        async with main.transaction() as tx:
            consent = await db.consents.grant(subject="u1", purpose=PURPOSE, transaction=tx)
            await db.personal("users").insert({"id": "u1", "name": NAME}, consent=consent, transaction=tx)
            assert [r["name"] async for r in db.personal("users").of("u1", transaction=tx)] == [NAME]
        response = await process(db, "erasure")
        assert certified(response, "main.users")["found"] == 1
        assert [r["name"] for r in (await process(db, "access")).data["main.invoices"]] == [NAME] * 2
