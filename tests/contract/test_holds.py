"""Legal holds: what they keep, from whom, and how an erasure completes itself when they end."""

import asyncio
import datetime as dt

import pytest
from cutting import Cut, cut_at

from datavern import ConfigurationError, Dataset, ErasureIncomplete, Field, KeyErased, PrivacyError, SubjectRequest
from datavern.audit.log import AuditLog
from datavern.crypto.keystore import KeyStore
from datavern.privacy.erasure import completing, policies
from datavern.privacy.holds import holds
from datavern.privacy.holds.holds import Holds
from datavern.privacy.journal.journal import Journal, Steps
from datavern.testing import create_test_database

LAW = "bokføringsloven § 13"
WHY = "tvistesak 26-1432"
FIELDS = {"name": Field(sealed=True, lookup=True), "note": Field()}
POLICIES = ("delete", "anonymize", "soft", "shred")
TODAY = dt.datetime.now().astimezone().date()


def dataset(name, erasure="delete", **more):
    settings = {"database": "main", "subject": "who", "erasure": erasure, "fields": FIELDS, **more}
    return Dataset(name, **settings)


def retained(**more):
    return dataset("retain", "retain", retention="5y", legal_basis=LAW, **more)


async def fill(db, *names, subjects=("u1", "u2")):
    for name in names:
        await db.prepare(name)
        rows = [{"id": f"{s}-{n}", "who": s, "name": f"Name {s}", "note": "n"} for s in subjects for n in range(2)]
        await db.personal(name).insert_many([r for r in rows if r["who"] == subjects[0]])
        for other in subjects[1:]:
            await db.personal(name).insert_many([r for r in rows if r["who"] == other])


async def erase(db, subject="u1"):
    response = await db.subject_requests.process(SubjectRequest("erasure", subject=subject))
    return response, stores(response)


def stores(response):
    return {store["dataset"]: store for store in response.certificate.body["stores"]}


async def raw(db, table):
    return {row["id"]: dict(row) for row in await db["main"].query(f'SELECT * FROM "{table}" ORDER BY id')}


async def audited(db, action):
    rows = await db["main"].query("SELECT action FROM datavern_audit")
    return sum(row["action"] == action for row in rows)


async def test_what_a_hold_keeps_is_closed_and_ends_with_it(managed):
    async with managed(*(dataset(policy, policy) for policy in POLICIES), retained()) as db:
        await fill(db, *POLICIES, "retain")
        before = {policy: await raw(db, policy) for policy in POLICIES}
        placed = {p: await db.holds.place(p, key="u1-0", reason=WHY, actor="jurist") for p in POLICIES}
        assert all(hold.rows == 1 for hold in placed.values())
        response, found = await erase(db)
        assert f"({WHY})" in response.message or LAW in response.message
        for policy in POLICIES:
            store, rows = found[f"main.{policy}"], await raw(db, policy)
            assert store["found"] == 2
            assert store["kept"] == [{"rows": 1, "why": WHY, "until": "the hold is released"}]
            held = rows["u1-0"]
            assert (held["who"], held["note"], held["name_lookup"]) == ("u1", "n", None)
            assert held["name"] != before[policy]["u1-0"]["name"]
            personal = db.personal(policy)
            assert (await personal.get("u1-0"))["name"] == "Name u1"  # it is evidence: it still opens
            assert await personal.find(name="Name u1") == []
            with pytest.raises(KeyErased):
                await personal.update("u1-0", {"note": "x"})
            with pytest.raises(PrivacyError, match="a legal hold keeps the row until the hold is released: tvistesak"):
                await personal.delete("u1-0")
            assert len(await personal.find(name="Name u2")) == 2
        assert WHY in str(response.certificate)
        assert "u1-1" not in await raw(db, "delete")
        assert await db.subject_requests.resume() == []  # it waits, and is in nobody's way

        await db.personal("delete").insert({"id": "new", "who": "u1", "name": "Back", "note": "n"})
        done = []
        for policy in POLICIES:
            done += await db.holds.release(placed[policy], actor="jurist")
        assert done == []  # the law keeps the invoices yet
        after = {policy: await raw(db, policy) for policy in POLICIES}
        assert set(after["delete"]) == {"u2-0", "u2-1", "new"}
        assert after["anonymize"]["u1-0"]["who"].startswith("erased-")
        assert after["anonymize"]["u1-0"]["name"] is None
        assert after["soft"]["u1-0"]["datavern_erased_at"]
        assert after["shred"]["u1-0"]["name_lookup"] is None
        assert (await db.personal("delete").get("new"))["name"] == "Back"
        yesterday = (TODAY - dt.timedelta(days=1)).isoformat()
        await db["main"].execute(f"UPDATE retain SET datavern_retained_until = '{yesterday}' WHERE who = 'u1'")
        await db["main"].execute(f"UPDATE datavern_completions SET due = '{TODAY}'")
        (completed,) = await db.subject_requests.resume()
        assert completed.request_id == f"{response.request_id}-completed"
        assert completed.certificate.verify(db.services.signer.verifier)
        assert completed.certificate.body["completes"] == response.request_id
        assert {label: store["found"] for label, store in stores(completed).items()} == {
            **{f"main.{policy}": 1 for policy in POLICIES},
            "main.retain": 2,
        }
        assert stores(completed)["main.retain"]["done"] == {"deleted, their retention had ended": 2}
        assert len(completed.certificate.body["keys"]) == 5
        assert "u1" not in {r["who"] for r in (await raw(db, "retain")).values()}
        with pytest.raises(KeyErased):
            await db.personal("shred").get("u1-0")
        again = await db.subject_requests.certificate(completed.request_id)
        assert again.to_json() == completed.certificate.to_json()
        assert await db["main"].query("SELECT * FROM datavern_kept") == []
        assert await db.subject_requests.resume() == []
        assert await audited(db, "hold_placed") == await audited(db, "hold_released") == 4


async def test_a_hold_on_a_person_is_in_every_database(managed, database, engine):
    async with create_test_database(engine) as elsewhere:
        databases = {
            "main": database.provider(location="norway"),
            "other": elsewhere.provider("other", location="norway"),
        }
        async with managed(dataset("visits"), dataset("bills", database="other"), databases=databases) as db:
            await fill(db, "visits", "bills")
            hold = await db.holds.place(subject="u1", reason=WHY, until=TODAY)
            assert (hold.rows, hold.dataset, hold.until) == (4, None, TODAY)
            (listed,) = await db.holds.list()
            assert (listed.id, listed.subject, listed.rows, listed.reason) == (hold.id, "u1", 4, WHY)
            assert await db.holds.list(subject="u2") == []
            await db.personal("visits").insert({"id": "later", "who": "u1", "name": "n"})
            response, found = await erase(db)
            kept = {label: store["kept"] for label, store in found.items() if store["kept"]}
            until = TODAY.isoformat()
            assert kept == {
                "main.visits": [{"rows": 3, "why": WHY, "until": until}],
                "other.bills": [{"rows": 2, "why": WHY, "until": until}],
            }
            assert await db.subject_requests.resume() == []
            (completed,) = await db.holds.release(hold.id)
            assert {label: store["found"] for label, store in stores(completed).items()} == {
                "main.visits": 3,
                "other.bills": 2,
            }
            assert set(await raw(db, "visits")) == {"u2-0", "u2-1"}
            assert await db.holds.release(hold) == []  # again: nothing is left to do
            assert await db.holds.list() == []
            (old,) = await db.holds.list(all=True)
            assert old.released_at
            assert response.request_id in completed.request_id
            tables = await db["main"].query("SELECT * FROM datavern_holds")
            assert all(WHY.encode() not in bytes(row["sealed"]) for row in tables)


async def test_a_hold_whose_day_has_passed_completes_by_itself(managed, monkeypatch):
    async with managed(dataset("visits")) as db:
        await fill(db, "visits")
        await db.holds.place("visits", key="u1-0", reason=WHY, until=TODAY)
        first = await db.holds.place("visits", where={"name": "Name u1"}, reason="another", until=TODAY)
        assert first.rows == 2
        response, found = await erase(db)
        assert sum(kept["rows"] for kept in found["main.visits"]["kept"]) == 2
        tomorrow = TODAY + dt.timedelta(days=1)
        monkeypatch.setattr(holds, "today", lambda: tomorrow)
        monkeypatch.setattr(completing, "today", lambda: tomorrow)
        answers = await asyncio.gather(*(db.subject_requests.resume() for _ in range(3)))
        (completed,) = [answer for found in answers for answer in found]
        assert stores(completed)["main.visits"]["done"] == {"deleted": 2}
        assert set(await raw(db, "visits")) == {"u2-0", "u2-1"}
        assert response.request_id in completed.request_id


async def test_two_erasures_and_two_holds_of_one_row(managed):
    async with managed(dataset("visits")) as db:
        await fill(db, "visits")
        one = await db.holds.place("visits", key="u1-0", reason="one")
        two = await db.holds.place("visits", subject="u1", reason="two", until=TODAY)
        first, _ = await erase(db)
        second, found = await erase(db)
        assert (
            found["main.visits"]["kept"]
            == [
                {"rows": 1, "why": "one", "until": "the hold is released"},
                {"rows": 1, "why": "two", "until": TODAY.isoformat()},
            ]
            or found["main.visits"]["found"] == 2
        )
        assert await db.holds.release(one) == []
        assert (await db.personal("visits").get("u1-0"))["name"] == "Name u1"
        done = await db.holds.release(two)
        assert {answer.request_id for answer in done} == {f"{r.request_id}-completed" for r in (first, second)}
        assert sum(stores(answer)["main.visits"]["done"].get("deleted", 0) for answer in done) == 2


async def test_a_hold_and_an_erasure_at_the_same_time(managed):
    """Either the hold found the row and it stays, or the erasure took it and the hold says that it found nothing."""
    async with managed(dataset("visits")) as db:
        await db.prepare("visits")
        for n in range(6):
            await db.personal("visits").insert({"id": f"r{n}", "who": f"p{n}", "name": "x"})

            async def place(n=n):
                try:
                    return await db.holds.place("visits", key=f"r{n}", reason=WHY)
                except ConfigurationError:
                    return None

            hold, _ = await asyncio.gather(place(), erase(db, f"p{n}"))
            assert (f"r{n}" in await raw(db, "visits")) == (hold is not None)


async def test_what_no_hold_can_be(managed):
    async with managed(dataset("visits")) as db:
        await fill(db, "visits")
        for settings, says in (
            ({"subject": "u1", "reason": " "}, "reason: expected text"),
            ({"subject": "u1", "reason": WHY, "until": TODAY - dt.timedelta(days=1)}, "last day, today or later"),
            ({"subject": "u1", "reason": WHY, "until": "2030-01-01"}, "as a date"),
            ({"reason": WHY}, "a hold is of a subject="),
            ({"key": "u1-0", "reason": WHY}, "a hold is of a subject="),
            ({"dataset": "visits", "where": {}, "reason": WHY}, "a hold is of a subject="),
            ({"dataset": "visits", "subject": "u1", "key": "u1-0", "reason": WHY}, "one of them"),
            ({"dataset": "visit", "key": "u1-0", "reason": WHY}, "did you mean visits"),
            ({"dataset": "visits", "key": "nobody", "reason": WHY}, "no row is that"),
            ({"dataset": "visits", "where": {"nmae": "x"}, "reason": WHY}, "no field nmae"),
            ({"subject": "13097248022", "reason": WHY}, "fødselsnummer"),
        ):
            with pytest.raises(ConfigurationError, match=says):
                await db.holds.place(**settings)
        with pytest.raises(PrivacyError, match="no hold of that id"):
            await db.holds.release("nothing")
        assert await db.holds.list(all=True) == []
        nobody = await db.holds.place(subject="'; DROP TABLE visits; --", reason="æøå")
        assert nobody.rows == 0
        (listed,) = await db.holds.list()
        assert (listed.subject, listed.reason) == ("'; DROP TABLE visits; --", "æøå")


async def test_in_documents_keys_and_wholes(managed, database, documents, cache):
    databases = {"main": database.provider(location="norway"), "documents": documents(), "cache": cache()}
    cases = dataset("cases", database="documents", subject="owner.id")
    letters = Dataset("letters", database="documents", subject="_metadata.subject", erasure="delete")
    sessions = Dataset("sessions", database="cache", key="user:session:{subject}", erasure="delete")
    async with managed(cases, letters, sessions, databases=databases) as db:
        await db.prepare("cases")
        await db.personal("cases").insert_many(
            [{"_id": n, "owner": {"id": "u1"}, "name": f"Name {n}", "note": "n"} for n in range(2)]
        )
        hold = await db.holds.place("cases", key=0, reason=WHY)
        response, found = await erase(db)
        assert found["documents.cases"]["found"] == 2
        assert found["documents.cases"]["done"] == {"deleted": 1}
        assert found["documents.cases"]["kept"] == [{"rows": 1, "why": WHY, "until": "the hold is released"}]
        assert (await db.personal("cases").get(0))["name"] == "Name 0"
        with pytest.raises(PrivacyError, match="a legal hold keeps"):
            await db.personal("cases").delete(0)
        (completed,) = await db.holds.release(hold)
        assert stores(completed)["documents.cases"]["done"] == {"deleted": 1}
        assert await db.personal("cases").get(0) is None
        assert response.request_id in completed.request_id

        await db["documents"].insert_document("letters", {"t": "x"}, classification="SECRET", subject="u2")
        await db["cache"].set("user:session:u2", {"a": 1})
        hold = await db.holds.place(subject="u2", reason=WHY)
        assert hold.rows == 2
        assert hold.notes == ("cache.sessions: keys expire when their time is up, and no hold stops that",)
        with pytest.raises(ErasureIncomplete, match="waits for") as waits:
            await erase(db, "u2")
        assert "a legal hold keeps 1 of the records" in waits.value.receipt.waiting["documents.letters"]
        assert await db["cache"].get("user:session:u2") == {"a": 1}
        await db.holds.release(hold)
        (done,) = await db.subject_requests.resume()
        assert done.success
        assert await db["cache"].get("user:session:u2") is None


PLACES = (
    (AuditLog, "append"),
    (Steps, "record"),
    (KeyStore, "start_erasure"),
    (KeyStore, "destroy"),
    (policies.Step, "change"),
    (policies.Step, "delete"),
    (completing.Completions, "key"),
)


async def test_a_completion_that_is_cut_off_at_any_step_is_done_once(managed):
    async with managed(dataset("delete"), dataset("shred", "shred")) as db:
        names = ("delete", "shred")

        async def held(subject):
            for name in names:
                await db.prepare(name)
                await db.personal(name).insert({"id": subject, "who": subject, "name": "x", "note": "n"})
            hold = await db.holds.place(subject=subject, reason=WHY)
            response, _ = await erase(db, subject)
            return hold, response

        hold, _ = await held("whole")
        with cut_at(None, PLACES) as passed:
            assert len(await db.holds.release(hold)) == 1
        assert passed() > 15
        places = range(1, passed() + 1, 2)
        for place in places:
            subject = f"person-{place}"
            hold, response = await held(subject)
            try:
                with cut_at(place, PLACES):
                    await db.holds.release(hold)
            except Cut:
                pass
            done = await db.subject_requests.resume()
            done += await db.holds.release(hold)  # again, where it was cut off before it was released
            assert len(done) <= 1
            certificate = await db.subject_requests.certificate(f"{response.request_id}-completed")
            assert {s["dataset"]: s["done"] for s in certificate.body["stores"]} == {
                "main.delete": {"deleted": 1},
                "main.shred": {"shredded with their keys": 1},
            }
            assert len(certificate.body["keys"]) == 2
            assert subject not in await raw(db, "delete")
        assert await db["main"].query("SELECT * FROM datavern_kept") == []
        told = await audited(db, "erasure_completed")
        assert told == 2 * (len(places) + 1)


async def test_a_release_that_is_cut_off_while_somebody_else_looks_is_gone_on_with(managed, monkeypatch):
    """Whoever looked before the release was there puts the erasure off to no day: the release takes that back."""
    async with managed(dataset("delete")) as db:
        await fill(db, "delete")
        hold = await db.holds.place("delete", subject="u1", reason=WHY)
        erased, _ = await erase(db)
        hasten, looked = completing.Completions.hasten, 0

        async def looked_at(self, *args, **kwargs):
            nonlocal looked
            await hasten(self, *args, **kwargs)
            if not looked:
                looked = 1
                assert await db.subject_requests.resume() == []

        monkeypatch.setattr(completing.Completions, "hasten", looked_at)
        with cut_at(1, [(completing.Completions, "of")]), pytest.raises(Cut):
            await db.holds.release(hold)
        assert looked
        (done,) = await db.subject_requests.resume()
        assert done.request_id == f"{erased.request_id}-completed"


async def test_an_erasure_with_a_hold_that_is_cut_off_is_finished(managed):
    async with managed(dataset("delete"), dataset("anonymize", "anonymize")) as db:
        for name in ("delete", "anonymize"):
            await db.prepare(name)
        places = (
            (Steps, "record"),
            (Journal, "close"),
            (completing.Completions, "wait"),
            (Holds, "keep"),
            (policies.Step, "under_retention_key"),
        )
        for number, (owner, name) in enumerate(places):
            subject = f"u{number}"
            for store in ("delete", "anonymize"):
                rows = [{"id": f"{subject}-{n}", "who": subject, "name": "x", "note": "n"} for n in range(2)]
                await db.personal(store).insert_many(rows)
            hold = await db.holds.place("delete", key=f"{subject}-0", reason=WHY)

            async def cut(*args, **kwargs):
                raise Cut

            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(owner, name, cut)
                with pytest.raises(Cut):
                    await erase(db, subject)
            (response,) = await db.subject_requests.resume()
            assert stores(response)["main.delete"]["kept"] == [{"rows": 1, "why": WHY, "until": "the hold is released"}]
            assert set(await raw(db, "delete")) == {f"{subject}-0"}
            (completed,) = await db.holds.release(hold)
            assert stores(completed)["main.delete"]["done"] == {"deleted": 1}


async def test_what_is_in_the_way_of_a_completion_is_told(managed, sql):
    async with managed(dataset("visits")) as db:
        await fill(db, "visits")
        hold = await db.holds.place("visits", key="u1-0", reason=WHY)
        response, _ = await erase(db)
        await db["main"].execute(sql("CREATE TABLE bills (id {text} PRIMARY KEY, visit {text} REFERENCES visits (id))"))
        await db["main"].execute("INSERT INTO bills VALUES ('b', 'u1-0')")
        (receipt,) = await db.holds.release(hold)
        assert receipt.request_id == f"{response.request_id}-completed"
        assert "ConstraintViolated" in receipt.waiting["main.visits"]
        report = await db.retention.run()
        assert not report.ok
        assert list(report.waiting) == [receipt.request_id]
        await db["main"].execute("DELETE FROM bills")
        (completed,) = await db.subject_requests.resume()
        assert stores(completed)["main.visits"]["done"] == {"deleted": 1}
