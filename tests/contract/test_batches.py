"""Many people erased at once: everyone once, each with a certificate, and one who waits stops nobody."""

import json

import pytest
from cutting import Cut, cut_at
from test_erasure_crashes import PLACES, datasets, fill, rows_of

from datavern import ConfigurationError, Dataset, Field, SubjectRequest, SubjectRequestRejected
from datavern.privacy.erasure import rows as row_erasure
from datavern.privacy.requests import batches
from datavern.privacy.requests.requests import Receipt
from datavern.testing import create_test_database

PEOPLE = ["anna", "berit", "cato", "dina", "e-5"]


@pytest.fixture
async def db(managed, database, engine):
    async with create_test_database(engine) as elsewhere:
        databases = {
            "main": database.provider(location="norway"),
            "other": elsewhere.provider("other", location="norway"),
        }
        async with managed(*datasets(), databases=databases) as db:
            for dataset in datasets():
                await db.prepare(dataset.name)
            yield db


async def answers(db, subjects, **more):
    return [pair async for pair in db.subject_requests.erase_many(subjects, **more)]


async def told(db, request):
    """The audit entries of a request, from both logs."""
    found = []
    for name in ("main", "other"):
        for action, dataset, details in await db[name].query("SELECT action, dataset, details FROM datavern_audit"):
            if details and json.loads(details).get("request") == request:
                found.append((action, dataset))
    return sorted(found, key=str)


async def test_everybody_is_erased_once_with_a_certificate_each(db, monkeypatch):
    monkeypatch.setattr(batches, "TOGETHER", 3)
    for person in [*PEOPLE, "bystander"]:
        await fill(db, person)
    done = await answers(db, [*PEOPLE, "anna", "nobody"])
    assert [subject for subject, _ in done] == [*PEOPLE, "nobody"]
    verifier = db.services.signer.verifier
    for subject, answer in done:
        body = answer.certificate.body
        assert answer.success
        assert answer.certificate.verify(verifier)
        assert body["subject"] == subject
        expected = [0, 0, 0, 0] if subject == "nobody" else [2, 2, 2, 1]
        assert [store["found"] for store in body["stores"]] == expected
        assert len(await told(db, answer.request_id)) == 6
        assert len(body["keys"]) == (0 if subject == "nobody" else 3)
    for person in PEOPLE:
        left = await rows_of(db, person)
        assert (left["visits"], left["people"]) == ([], [])
        assert [row["name"] for row in left["bills"]] == ["Planted"] * 2
    assert [len(rows) for rows in (await rows_of(db, "bystander")).values()] == [2, 2, 2]
    assert await db.subject_requests.resume() == []
    assert (await db.audit.verify()).ok


async def test_a_batch_goes_on_where_it_was_cut_off_and_does_nothing_twice(db, monkeypatch):
    monkeypatch.setattr(batches, "TOGETHER", 2)
    for person in PEOPLE:
        await fill(db, person)
    first = {}
    async for subject, answer in db.subject_requests.erase_many(PEOPLE, batch="leavers"):
        first[subject] = answer.certificate.to_json()
        if len(first) == 3:
            break
    await db.personal("visits").insert({"id": "back", "who": "anna", "name": "Back"})
    second = await answers(db, PEOPLE, batch="leavers")
    assert [subject for subject, _ in second] == PEOPLE
    again = {subject: answer.certificate.to_json() for subject, answer in second}
    assert {subject: again[subject] for subject in first} == first
    assert [row["id"] for row in (await rows_of(db, "anna"))["visits"]] == ["back"]
    third = await answers(db, ["anna"], batch="leavers, once more")
    assert third[0][1].certificate.to_json() != first["anna"]
    assert (await rows_of(db, "anna"))["visits"] == []


async def test_one_who_cannot_be_erased_waits_and_the_others_do_not(managed, database, sql):
    """A row of somebody else's table refers to one of hers."""
    events = Dataset("events", database="main", subject="who", fields={"note": Field(sealed=True)})
    letters = Dataset("letters", database="main", subject="who", fields={"note": Field()})
    async with managed(events, letters, databases={"main": database.provider(location="norway")}) as db:
        await db.prepare("events")
        await db.prepare("letters")
        for person in PEOPLE:
            await db.personal("events").insert({"id": person, "who": person, "note": "n"})
            await db.personal("letters").insert({"id": person, "who": person, "note": "n"})
        await db["main"].execute(sql("CREATE TABLE fines (id INT PRIMARY KEY, event {text} REFERENCES events (id))"))
        await db["main"].execute("INSERT INTO fines VALUES (1, 'cato')")
        done = dict(await answers(db, PEOPLE))
        waits = done.pop("cato")
        assert isinstance(waits, Receipt)
        assert list(waits.waiting) == ["main.events"]
        assert waits.done["main.letters"]["found"] == 1
        assert all(answer.success for answer in done.values())
        assert [row[0] for row in await db["main"].query("SELECT id FROM events")] == ["cato"]
        assert await db["main"].query("SELECT id FROM letters") == []
        await db["main"].execute("DELETE FROM fines")
        (answer,) = await db.subject_requests.resume()
        assert answer.certificate.body["subject"] == "cato"
        assert await db["main"].query("SELECT id FROM events") == []


async def test_cut_off_at_every_step_and_finished(db, monkeypatch):
    people = [f"whole-{n}" for n in range(3)]
    for person in people:
        await fill(db, person)
    with cut_at(None, PLACES) as passed:
        await answers(db, people)
    places = passed()
    assert places > 15
    for place in range(1, places + 1):
        people = [f"person-{place}-{n}" for n in range(3)]
        for person in people:
            await fill(db, person)
        with pytest.raises(Cut), cut_at(place, PLACES):
            await answers(db, people, batch="b")
        await db.subject_requests.resume()
        for subject, answer in await answers(db, people, batch="b"):
            assert answer.certificate.body["subject"] == subject
            assert [store["found"] for store in answer.certificate.body["stores"]] == [2, 2, 2, 1]
            assert len(await told(db, answer.request_id)) == 6


async def test_two_processes_at_the_same_batch_end_everybody_once(db, monkeypatch):
    import asyncio

    for person in PEOPLE:
        await fill(db, person)

    async def cut(*args, **kwargs):
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(row_erasure.RowErasure, "run", cut)
        with pytest.raises(Cut):
            await answers(db, PEOPLE, batch="b")
    both = await asyncio.gather(*(answers(db, PEOPLE, batch="b") for _ in range(2)))
    assert len({answer.certificate.to_json() for one in both for _, answer in one}) == len(PEOPLE)


@pytest.mark.parametrize("bad", [None, "", " ", 1.5, "13097248022"])
async def test_a_bad_id_is_told_by_its_number_and_nobody_is_erased(db, bad):
    await fill(db, "anna")
    with pytest.raises(ConfigurationError, match="number 2 of the subjects") as told_:
        db.subject_requests.erase_many(["anna", bad])
    assert "Nobody was erased" in str(told_.value)
    assert "13097248022" not in str(told_.value)
    assert [len(rows) for rows in (await rows_of(db, "anna")).values()] == [2, 2, 2]


async def test_a_string_is_no_list_of_people_and_an_empty_list_is_nobody(db):
    with pytest.raises(ConfigurationError, match="several subjects"):
        db.subject_requests.erase_many("anna")
    assert await answers(db, []) == []


async def test_one_in_doubt_waits_for_an_identity(db):
    await fill(db, "anna")
    await fill(db, "berit")
    received = await db.subject_requests.receive(SubjectRequest("erasure", subject="anna"))
    await db.subject_requests.doubt(received.id, reason="another address")
    done = dict(await answers(db, ["anna", "berit"]))
    assert list(done["anna"].waiting) == ["identity"]
    assert done["berit"].success
    assert [len(rows) for rows in (await rows_of(db, "anna")).values()] == [2, 2, 2]


async def test_without_an_identity_where_one_is_asked_for_nobody_is_erased(managed, database):
    events = Dataset("events", database="main", subject="who", fields={"note": Field(sealed=True)})
    settings = {"databases": {"main": database.provider(location="norway")}, "require_identity": True}
    async with managed(events, **settings) as db:
        await db.prepare("events")
        with pytest.raises(SubjectRequestRejected, match="identity"):
            db.subject_requests.erase_many(["anna"])


async def test_one_who_is_restricted_keeps_the_data_and_the_others_are_erased(db, monkeypatch):
    from datavern.privacy.requests.register import Register

    for person in ("anna", "berit", "cato"):
        await fill(db, person)
    await db.subject_requests.process(SubjectRequest("restriction", subject="anna"))
    looked, restricted = [], Register.restricted

    async def late(self, subjects):
        """The first look is before somebody restricts one more."""
        looked.append(subjects)
        found = await restricted(self, subjects)
        if len(looked) == 1:
            await db.subject_requests.process(SubjectRequest("restriction", subject="berit"))
        return found

    monkeypatch.setattr(Register, "restricted", late)
    done = dict(await answers(db, ["anna", "berit", "cato"]))
    assert [list(done[who].waiting) for who in ("anna", "berit")] == [["restriction"]] * 2
    assert done["cato"].success
    left = await db["main"].query("SELECT DISTINCT who FROM visits ORDER BY who")
    assert [row[0] for row in left] == ["anna", "berit"]
