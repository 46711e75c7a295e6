"""Rows that name no person themselves: reached over the row that they belong to, or over a number of the person."""

import asyncio
import contextlib
import json
import tracemalloc
from dataclasses import replace

import pytest
import sqlalchemy as sa
from bson import ObjectId
from cutting import Cut

from datavern import (
    ConfigurationError,
    DataMap,
    Dataset,
    DecryptionFailed,
    ErasureIncomplete,
    Field,
    KeyErased,
    Pool,
    SubjectRequest,
    SubjectRequestRejected,
)
from datavern.contracts.errors import PrivacyError
from datavern.privacy.journal.journal import Journal
from datavern.sqlalchemy import Sealed
from datavern.testing import create_test_database

NUMBERS = {"u1": "13097248022", "u2": "10915596784"}
LAW = "bokføringsloven § 13"
NUMBER = {"personal_number": Field(sealed=True, lookup=True, kind="fodselsnummer"), "name": Field(sealed=True)}
TEXT = {"text": Field(sealed=True, lookup=True), "plain": Field()}


def users(**more):
    return Dataset("users", **{"database": "main", "subject": "id", "fields": NUMBER, **more})


def orders(**more):
    return Dataset("orders", **{"database": "main", "subject": "user_id", "fields": TEXT, **more})


def lines(**more):
    given = {"database": "main", "subject": "order_id", "subject_via": "orders.id", "fields": TEXT, **more}
    return Dataset("lines", **given)


def notes(**more):
    given = {"database": "main", "subject": "line_id", "subject_via": "lines.id", "fields": TEXT, **more}
    return Dataset("notes", **given)


def visits(**more):
    given = {"database": "main", "subject": "number", "subject_via": "users.personal_number", "fields": TEXT, **more}
    return Dataset("visits", **given)


HIDDEN = {"number": Field(sealed=True, lookup=True, kind="fodselsnummer"), **TEXT}


def retained(dataset):
    return {"erasure": "retain", "retention": "5y", "legal_basis": LAW} if dataset else {}


async def process(db, kind, subject="u1", **more):
    return await db.subject_requests.process(SubjectRequest(kind, subject=subject, **more))


def found_in(response):
    return {store["dataset"]: store["found"] for store in response.certificate.body["stores"]}


def certified(response, label):
    (found,) = (store for store in response.certificate.body["stores"] if store["dataset"] == label)
    return found


async def count(db, table, database="main"):
    return await db[database].query_value(f"SELECT count(*) FROM {table}")


async def fill(db, *, people=("u1", "u2"), each=2):
    """One order of each person, two lines of it, a note on each; and one visit under the number."""
    there = {dataset.name for dataset in db.data_map}
    for name in there:
        await db.prepare(name)
    for who in people:
        number = NUMBERS.get(who)
        if "users" in there:
            await db.personal("users").insert({"id": who, "personal_number": number, "name": who})
        if "orders" in there:
            await db.personal("orders").insert({"id": f"o-{who}", "user_id": who, "text": who, "plain": who})
        made = [{"id": f"l{n}-{who}", "order_id": f"o-{who}", "text": who, "plain": who} for n in range(each)]
        if "lines" in there:
            await db.personal("lines").insert_many(made)
        if "notes" in there:
            rows = [{"id": f"n-{line['id']}", "line_id": line["id"], "text": who} for line in made]
            await db.personal("notes").insert_many(rows)
        if "visits" in there:
            row = {"id": f"v-{who}", "number": number, "text": who, "plain": who}
            await db.personal("visits").insert(row)


async def of(db, name, who="u1"):
    return sorted([row["id"] async for row in db.personal(name).of(who)])


# ---- what is written and read ---------------------------------------------------------------------------------------


async def test_rows_of_several_steps_are_written_read_and_changed(managed):
    async with managed(users(), orders(), lines(), notes()) as db:
        await fill(db)
        assert await of(db, "notes") == ["n-l0-u1", "n-l1-u1"]
        assert await of(db, "notes", "nobody") == []
        store = db.personal("lines")
        assert await store.get("l0-u1") == {"id": "l0-u1", "order_id": "o-u1", "text": "u1", "plain": "u1"}
        assert [row["id"] for row in await store.find(text="u2", limit=1)] == ["l0-u2"]
        assert {row["id"] for row in await store.find(order_id="o-u2")} == {"l0-u2", "l1-u2"}
        raw = await db["main"].query("SELECT * FROM lines WHERE order_id = 'o-u1'")
        assert {row["text"] for row in await store.open(raw)} == {"u1"}
        assert await store.update("l0-u1", {"text": "new", "order_id": "o-u1"})
        assert (await store.get("l0-u1"))["text"] == "new"
        with pytest.raises(ConfigurationError, match="cannot change"):
            await store.update("l0-u1", {"order_id": "o-u2"})
        async with db["main"].transaction() as tx:
            await db.personal("orders").insert({"id": "o3", "user_id": "u1"}, transaction=tx)
            await store.insert({"id": "l3", "order_id": "o3", "text": "same"}, transaction=tx)
            assert (await store.get("l3", transaction=tx))["text"] == "same"
        assert await of(db, "lines") == ["l0-u1", "l1-u1", "l3"]
        assert await store.delete("l3")
        with pytest.raises(PrivacyError, match="end those first"):
            await db.personal("lines").delete("l0-u1")  # a note belongs to it


async def test_sqlalchemy_follows_relations_too(managed):
    metadata = sa.MetaData()
    line = sa.Table(
        "lines",
        metadata,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("order_id", sa.Text),
        sa.Column("text", Sealed()),
        sa.Column("plain", sa.Text),
    )
    async with managed(orders(), lines(fields={"text": Field(sealed=True), "plain": Field()})) as db:
        await fill(db)
        alchemy = db["main"].sqlalchemy_engine()
        async with alchemy.begin() as connection:
            await connection.execute(sa.insert(line).values(id="made", order_id="o-u1", text="made"))
            await connection.execute(sa.update(line).where(line.c.id == "l0-u1").values(text="changed"))
            await connection.execute(sa.delete(line).where(line.c.id == "l1-u1"))
            found = await connection.execute(sa.select(line).where(line.c.order_id == "o-u1").order_by(line.c.id))
            assert [(row.id, row.text) for row in found] == [("l0-u1", "changed"), ("made", "made")]
        assert (await db.personal("lines").get("made"))["text"] == "made"
        assert await of(db, "lines") == ["l0-u1", "made"]


async def test_a_row_that_leads_to_nobody_is_refused(managed):
    async with managed(users(), orders(), lines(), visits()) as db:
        await fill(db)
        for name, row, what in (
            ("lines", {"id": "x", "order_id": "no-such"}, "nobody has it in orders.id"),
            ("lines", {"id": "x", "order_id": "'; DROP TABLE lines --"}, "nobody has it in orders.id"),
            ("lines", {"id": "x"}, "missing"),
            ("visits", {"id": "x", "number": "12345678901"}, "nobody has it in users.personal_number"),
        ):
            with pytest.raises(ConfigurationError, match=what) as raised:
                await db.personal(name).insert(row)
            assert "DROP" not in str(raised.value)
            assert "12345678901" not in str(raised.value)
            with pytest.raises(ConfigurationError, match=what):
                await db.personal(name).insert_many([row])
        assert await count(db, "lines") == 4


async def test_strange_names_lead_where_they_should(managed):
    odd = ("'; DROP TABLE users; --", "Bjørg Æøå", 'a"b', "x' OR 'x'='x")
    async with managed(users(), orders(), lines(), notes()) as db:
        await fill(db, people=odd)
        for who in odd:
            assert await of(db, "notes", who) == sorted([f"n-l0-{who}", f"n-l1-{who}"])
            assert (await db.personal("lines").get(f"l0-{who}"))["text"] == who
        erased = await process(db, "erasure", subject=odd[0])
        assert found_in(erased) == {
            "main.users": 1,
            "main.orders": 1,
            "main.lines": 2,
            "main.notes": 2,
            "datavern.consents": 0,
        }
        assert await count(db, "notes") == 6


async def test_a_number_leads_to_its_person(managed):
    async with managed(users(), visits()) as db:
        await fill(db)
        store = db.personal("visits")
        number = NUMBERS["u1"]
        await store.insert({"id": "spaced", "number": f"{number[:6]} {number[6:]}", "text": "spaced"})
        assert await of(db, "visits") == ["spaced", "v-u1"]
        assert (await store.get("spaced"))["text"] == "spaced"
        keys = {row["text"][1:17] for row in await db["main"].query("SELECT text FROM visits WHERE id <> 'v-u2'")}
        assert len(keys) == 1  # the person's, whatever the row calls the person
        (answer,) = [one async for one in store.of("u2")]
        assert answer == {"id": "v-u2", "number": NUMBERS["u2"], "text": "u2", "plain": "u2"}


async def test_a_sealed_number_leads_to_its_person_too(managed):
    async with managed(users(), visits(fields=HIDDEN)) as db:
        await fill(db)
        store = db.personal("visits")
        raw = await db["main"].query("SELECT * FROM visits")
        assert not any(NUMBERS["u1"].encode() in bytes(row["number"]) for row in raw)
        assert await of(db, "visits") == ["v-u1"]
        assert (await store.get("v-u2"))["number"] == NUMBERS["u2"]
        assert [row["id"] for row in await store.find(number=NUMBERS["u1"])] == ["v-u1"]
        assert await store.update("v-u1", {"text": "new"})
        answer = await process(db, "access")
        assert answer.data["main.visits"][0]["text"] == "new"
        erased = await process(db, "erasure")
        assert found_in(erased)["main.visits"] == 1
        assert await of(db, "visits", "u2") == ["v-u2"]
        assert await count(db, "visits") == 1


async def test_a_row_that_is_moved_to_another_person_does_not_open(managed):
    async with managed(users(), orders(), lines(), visits()) as db:
        await fill(db)
        await db["main"].execute("UPDATE lines SET order_id = 'o-u2' WHERE id = 'l0-u1'")
        await db["main"].execute(f"UPDATE visits SET number = '{NUMBERS['u2']}' WHERE id = 'v-u1'")
        await db["main"].execute("UPDATE lines SET order_id = 'gone' WHERE id = 'l1-u1'")
        for name, key in (("lines", "l0-u1"), ("visits", "v-u1"), ("lines", "l1-u1")):
            with pytest.raises(DecryptionFailed):
                await db.personal(name).get(key)


async def test_two_people_with_one_number_are_told_apart_by_nobody(managed):
    async with managed(users(), visits()) as db:
        await fill(db)
        await db.personal("users").insert({"id": "u3", "personal_number": NUMBERS["u1"], "name": "u3"})
        with pytest.raises(ConfigurationError, match="several people have it"):
            await db.personal("visits").insert({"id": "x", "number": NUMBERS["u1"]})
        with pytest.raises(PrivacyError, match="several people have the same value"):
            await process(db, "access", subject="u3")
        with pytest.raises(ErasureIncomplete) as raised:
            await process(db, "erasure", subject="u3")
        assert set(raised.value.receipt.waiting) == {"main.visits", "main.users"}
        await db.personal("users").delete("u1")
        (done,) = await db.subject_requests.resume()
        assert found_in(done)["main.users"] == 1


async def test_a_number_that_changes_leaves_no_rows_behind(managed, placeholder):
    new = "13097248103"
    async with managed(users(), visits()) as db:
        await fill(db)
        for change in ({"personal_number": new}, {"personal_number": None}):
            with pytest.raises(PrivacyError, match="main.visits knows people by it"):
                await db.personal("users").update("u1", change)
        with pytest.raises(PrivacyError, match="main.visits knows people by it"):
            await process(db, "rectification", changes={"users": {"personal_number": new}})
        await db.personal("users").update("u1", {"personal_number": NUMBERS["u1"], "name": "same number"})
        move = f"UPDATE visits SET number = {placeholder(1)} WHERE number = {placeholder(2)}"
        async with db["main"].transaction() as tx:
            await tx.execute(move, [new, NUMBERS["u1"]])
            await db.personal("users").update("u1", {"personal_number": new}, transaction=tx)
        assert await of(db, "visits") == ["v-u1"]
        assert (await db.personal("visits").get("v-u1"))["text"] == "u1"


async def test_whole_numbers_lead_as_texts_do(managed):
    async with managed(
        orders(fields={"id": Field(type="integer"), "user_id": Field(type="integer")}),
        lines(fields={"order_id": Field(type="integer"), "text": Field(sealed=True)}),
    ) as db:
        for name in ("orders", "lines"):
            await db.prepare(name)
        for who in (1, 2):
            await db.personal("orders").insert({"id": who * 10, "user_id": who})
            await db.personal("lines").insert({"id": f"l{who}", "order_id": str(who * 10), "text": "t"})
        assert await of(db, "lines", 1) == ["l1"]
        assert await of(db, "lines", "2") == ["l2"]
        assert [row["id"] for row in await db.personal("lines").find(order_id=10)] == ["l1"]
        with pytest.raises(ConfigurationError, match="does not hold such a value"):
            await db.personal("lines").insert({"id": "x", "order_id": 2**80})


# ---- requests -------------------------------------------------------------------------------------------------------


async def test_access_portability_and_rectification_follow_relations(managed):
    async with managed(users(), orders(), lines(), notes(), visits()) as db:
        await fill(db)
        answer = await process(db, "access")
        assert {label: len(rows) for label, rows in answer.data.items()} == {
            "main.users": 1,
            "main.orders": 1,
            "main.lines": 2,
            "main.notes": 2,
            "main.visits": 1,
        }
        assert "u2" not in json.dumps(answer.data)
        assert not any("whose" in name for rows in answer.data.values() for row in rows for name in row)
        exported = await process(db, "portability", format="csv")
        assert any(b"n-l0-u1" in content for content in exported.files.values())
        await process(db, "rectification", changes={"lines": {"id": "l0-u1", "text": "right"}})
        assert (await db.personal("lines").get("l0-u1"))["text"] == "right"
        for key, what in (("l0-u2", "nothing was found"), ("no-such", "nothing was found")):
            with pytest.raises(SubjectRequestRejected, match=what):
                await process(db, "rectification", changes={"lines": {"id": key, "text": "wrong"}})
        assert (await db.personal("lines").get("l0-u2"))["text"] == "u2"


@pytest.mark.parametrize("policy", ["delete", "anonymize", "soft", "shred", "retain"])
async def test_an_erasure_by_every_policy(managed, policy):
    keeps = policy in {"shred", "retain"}
    more = {"erasure": policy, **(retained(True) if policy == "retain" else {})}
    above = more if keeps else {}
    async with managed(users(**above), orders(**above), lines(**more), notes(**more)) as db:
        await fill(db)
        before = [dict(row) for row in await db["main"].query("SELECT * FROM notes WHERE id LIKE '%u2'")]
        erased = await process(db, "erasure")
        assert found_in(erased)["main.lines"] == found_in(erased)["main.notes"] == 2
        assert [dict(row) for row in await db["main"].query("SELECT * FROM notes WHERE id LIKE '%u2'")] == before
        assert await of(db, "notes", "u2") == ["n-l0-u2", "n-l1-u2"]
        left = {row["id"]: dict(row) for row in await db["main"].query("SELECT * FROM lines")}
        if policy == "delete":
            assert sorted(left) == ["l0-u2", "l1-u2"]
            assert await count(db, "notes") == 2
        elif policy == "anonymize":
            assert (left["l0-u1"]["text"], left["l0-u1"]["plain"]) == (None, None)
            assert left["l0-u1"]["order_id"] == "o-u1"  # the key of a row that is gone
            assert "order_id" in certified(erased, "main.lines")["left"]
        elif policy == "soft":
            assert left["l0-u1"]["datavern_erased_at"]
            assert await db.personal("lines").get("l0-u1") is None
        elif policy == "shred":
            answer = await process(db, "access")
            assert [row["text"] for row in answer.data["main.lines"]] == [None, None]
        else:
            answer = await process(db, "access")
            assert [row["text"] for row in answer.data["main.notes"]] == ["u1", "u1"]
            assert (await db.personal("lines").get("l0-u1"))["text"] == "u1"
            with pytest.raises((KeyErased, ConfigurationError)):
                await db.personal("lines").update("l0-u1", {"text": "changed"})
        again = await process(db, "erasure")
        assert again.success


async def test_a_number_is_gone_where_the_fields_are(managed):
    """What names the person as well as a field does is not left behind by a policy that empties fields."""
    for policy in ("anonymize", "soft"):
        table = f"visits_{policy}"
        async with managed(users(), visits(erasure=policy, store=table)) as db:
            await fill(db) if policy == "anonymize" else await db.prepare("visits")
            if policy == "soft":
                row = {"id": "v-u2", "number": NUMBERS["u2"], "text": "t"}
                await db.personal("visits").insert(row)
            who = "u1" if policy == "anonymize" else "u2"
            erased = await process(db, "erasure", subject=who)
            assert found_in(erased)["main.visits"] == 1
            values = [dict(row) for row in await db["main"].query(f"SELECT * FROM {table}")]
            assert NUMBERS[who] not in repr(values)
            assert "number" not in certified(erased, "main.visits")["left"]


async def test_other_databases_go_before_what_leads_to_them(managed, database, engine):
    async with create_test_database(engine) as elsewhere:
        databases = {
            "main": database.provider(location="norway"),
            "other": elsewhere.provider("other", location="norway"),
        }
        made = (users(), orders(), lines(database="other"), notes(), visits(database="other"))
        async with managed(*made, databases=databases) as db:
            await fill(db)
            assert await of(db, "notes") == ["n-l0-u1", "n-l1-u1"]
            answer = await process(db, "access")
            assert sum(map(len, answer.data.values())) == 7
            with pytest.raises(PrivacyError, match="other.visits knows people by it"):
                await db.personal("users").update("u1", {"personal_number": "13097248103"})
            erased = await process(db, "erasure")
            assert found_in(erased) == {
                "main.users": 1,
                "main.orders": 1,
                "other.lines": 2,
                "main.notes": 2,
                "other.visits": 1,
                "datavern.consents": 0,
            }
            assert [await count(db, "lines", "other"), await count(db, "visits", "other")] == [2, 1]


async def test_a_legal_hold_keeps_what_leads_to_the_row(managed):
    async with managed(users(), orders(), lines(), notes(), visits()) as db:
        await fill(db)
        await db.personal("orders").insert({"id": "free", "user_id": "u1"})
        hold = await db.holds.place("notes", key="n-l0-u1", reason="case 7")
        await db.holds.place("visits", subject="u1", reason="case 8")
        erased = await process(db, "erasure")
        kept = {store["dataset"]: store["kept"] for store in erased.certificate.body["stores"] if store["kept"]}
        assert set(kept) == {"main.notes", "main.lines", "main.orders", "main.visits", "main.users"}
        assert kept["main.lines"][0]["why"] == "rows of main.notes stay, and are found through it"
        ids = {
            table: sorted([r["id"] for r in await db["main"].query(f"SELECT id FROM {table}")])
            for table in ("notes", "lines", "orders")
        }
        assert ids["notes"] == ["n-l0-u1", "n-l0-u2", "n-l1-u2"]
        assert ids["lines"] == ["l0-u1", "l0-u2", "l1-u2"]
        assert ids["orders"] == ["o-u1", "o-u2"]
        answer = await process(db, "access")
        assert [row["text"] for row in answer.data["main.notes"]] == ["u1"]
        assert [row["text"] for row in answer.data["main.visits"]] == ["u1"]
        assert await db.holds.release(hold) == []  # another still holds
        assert [await count(db, table) for table in ("notes", "lines", "orders", "visits", "users")] == [2, 2, 1, 2, 2]
        (other,) = await db.holds.list()
        (done,) = await db.holds.release(other)
        assert done.success
        assert [await count(db, table) for table in ("visits", "users")] == [1, 1]


async def test_what_waits_keeps_what_leads_to_it(managed):
    """A note that cannot go keeps its line, and the order; another person's go."""
    async with managed(users(), orders(), lines(), notes()) as db:
        await fill(db)
        await db["main"].execute("CREATE TABLE stamps (id integer PRIMARY KEY, note varchar(64) REFERENCES notes (id))")
        await db["main"].execute("INSERT INTO stamps (id, note) VALUES (1, 'n-l0-u1')")
        with pytest.raises(ErasureIncomplete) as raised:
            await process(db, "erasure")
        assert set(raised.value.receipt.waiting) == {"main.notes", "main.lines", "main.orders"}
        assert "main.notes waits" in raised.value.receipt.waiting["main.lines"]
        assert [await count(db, "lines"), await count(db, "orders")] == [4, 2]
        assert found_in(await process(db, "erasure", subject="u2"))["main.notes"] == 2
        await db["main"].execute("DROP TABLE stamps")
        (done,) = await db.subject_requests.resume()
        assert found_in(done)["main.notes"] == found_in(done)["main.lines"] == 2
        assert [await count(db, table) for table in ("notes", "lines", "orders")] == [0, 0, 0]


async def test_the_journal_knows_the_numbers_of_whom_it_is_about(managed, monkeypatch):
    """Cut off after it was written down; then the row with the number goes, past everything."""
    async with managed(users(), visits(), orders()) as db:
        await fill(db)

        async def cut(*_, **__):
            raise Cut

        request = SubjectRequest("erasure", subject="u1")
        with monkeypatch.context() as patched:
            patched.setattr("datavern.privacy.erasure.erasure.Erasures._run", cut)
            with pytest.raises(Cut):
                await db.subject_requests.process(request)
        kept = repr([dict(row) for row in await db["main"].query("SELECT * FROM datavern_request_steps")])
        assert "#numbers" in kept
        assert NUMBERS["u1"] not in kept
        await db["main"].execute("DELETE FROM users WHERE id = 'u1'")
        (done,) = await db.subject_requests.resume()
        assert found_in(done)["main.visits"] == 1
        assert await count(db, "visits") == 1
        assert "datavern.numbers" in {key["dataset"] for key in done.certificate.body["keys"]}
        assert NUMBERS["u1"] not in done.certificate.to_json()


async def test_cut_off_between_the_steps_and_finished(managed, database, engine, monkeypatch):
    """Each dataset in a turn of its own; cut off before each turn, the rest is still found."""
    async with create_test_database(engine) as elsewhere:
        databases = {
            "main": database.provider(location="norway"),
            "other": elsewhere.provider("other", location="norway"),
        }
        made = (users(), orders(), lines(database="other"), notes(), visits(database="other"))
        async with managed(*made, databases=databases) as db:
            for name in ("users", "orders", "lines", "notes", "visits"):
                await db.prepare(name)
            from datavern.privacy.erasure import erasure

            original = erasure.RowErasure.run
            for place in range(4):
                await fill(db, people=("u1",))
                passed = 0

                async def run(self, place=place):
                    nonlocal passed
                    passed += 1
                    if passed > place:
                        raise Cut
                    await original(self)

                with monkeypatch.context() as patched, contextlib.suppress(Cut):
                    patched.setattr(erasure.RowErasure, "run", run)
                    await process(db, "erasure")
                    pytest.fail("it was not cut off")
                (done,) = await db.subject_requests.resume()
                found = found_in(done)
                assert [found[f"main.{n}"] for n in ("users", "orders", "notes")] == [1, 1, 2]
                assert [found[f"other.{n}"] for n in ("lines", "visits")] == [2, 1]
                assert [await count(db, n) for n in ("users", "orders", "notes")] == [0, 0, 0]
                assert [await count(db, n, "other") for n in ("lines", "visits")] == [0, 0]


async def test_empty_tables_and_tables_that_are_not_there(managed):
    async with managed(users(), orders(), lines(), notes(), visits()) as db:
        await db.prepare("notes")
        await db.prepare("lines")
        assert not any((await process(db, "access")).data.values())
        assert await of(db, "notes") == []
        with pytest.raises(ConfigurationError, match="nobody has it"):
            await db.personal("notes").insert({"id": "x", "line_id": "y"})
        assert (await process(db, "erasure")).message == "Nothing was found about this subject."


async def test_many_rows_of_one_person_in_constant_memory(managed):
    wide = "x" * 2000
    async with managed(orders(fields={}), lines(fields={"text": Field()}), notes(fields={"text": Field()})) as db:
        for name in ("orders", "lines", "notes"):
            await db.prepare(name)
        await db.personal("orders").insert({"id": "o", "user_id": "u1"})
        await db.personal("lines").insert_many([{"id": f"l{n}", "order_id": "o", "text": "t"} for n in range(100)])
        await db.personal("notes").insert_many(
            [{"id": f"n{n}", "line_id": f"l{n % 100}", "text": wide} for n in range(10_000)]
        )
        read = 0
        tracemalloc.start()
        try:
            async for row in db.personal("notes").of("u1"):
                read += len(row["text"])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert read == 10_000 * len(wide)
        assert peak < read / 2
        erased = await process(db, "erasure")
        assert found_in(erased)["main.notes"] == 10_000


async def test_reads_that_are_audited_name_the_person(managed):
    async with managed(orders(), lines(audit_reads=True)) as db:
        await fill(db)
        await db.personal("lines").get("l0-u1")
        rows = await db["main"].query("SELECT handle FROM datavern_audit WHERE action = 'read'")
        assert [row["handle"] for row in rows] == [await db.keys.handle("u1", create=False)]


async def test_keys_are_rotated_where_rows_are_linked(managed):
    async with managed(users(), orders(), lines(), visits(fields=HIDDEN)) as db:
        await fill(db)
        await db.keys.rotate()
        assert [row["id"] for row in await db.personal("lines").find(text="u1")] == ["l0-u1", "l1-u1"]
        assert await of(db, "visits") == ["v-u1"]


# ---- documents, keys and values -------------------------------------------------------------------------------------


@pytest.fixture
def everywhere(managed, database, documents, cache):
    """Makes a manager over a relational database, MongoDB and Redis."""

    def make(*datasets):
        databases = {"main": database.provider(location="norway"), "documents": documents(), "cache": cache()}
        return managed(*datasets, databases=databases)

    return make


CASES = Dataset(
    "cases", database="documents", subject="order.id", subject_via="orders.id", fields={"text": Field(sealed=True)}
)
JOURNALS = Dataset("journals", database="documents", subject="patients.number", subject_via="users.personal_number")
REMARKS = Dataset("remarks", database="documents", subject="case", subject_via="cases._id")
SESSIONS = Dataset("sessions", database="cache", key="visit:{subject}", subject_via="users.personal_number")


async def test_documents_and_keys_are_reached_too(everywhere):
    async with everywhere(users(), orders(), CASES, JOURNALS, REMARKS, SESSIONS) as db:
        await fill(db)
        ids = {}
        for who in ("u1", "u2"):
            ids[who] = ObjectId()
            await db.personal("cases").insert({"_id": ids[who], "order.id": f"o-{who}", "text": who})
            await db.personal("remarks").insert({"_id": f"r-{who}", "case": ids[who], "said": who})
            await db["cache"].set(f"visit:{NUMBERS[who]}", who)
        both = [{"number": NUMBERS["u1"]}, {"number": NUMBERS["u2"]}]
        journals = db["documents"].collection("journals")
        await journals.insert_one({"_id": "both", "patients": both})
        await journals.insert_one({"_id": "one", "patients": [{"number": NUMBERS["u1"]}]})
        with pytest.raises(ConfigurationError, match="nobody has it in orders.id"):
            await db.personal("cases").insert({"order.id": "no-such", "text": "t"})
        assert (await db.personal("cases").get(ids["u2"]))["text"] == "u2"
        answer = await process(db, "access")
        assert {label: len(rows) for label, rows in answer.data.items()} == {
            "main.users": 1,
            "main.orders": 1,
            "documents.cases": 1,
            "documents.journals": 2,
            "documents.remarks": 1,
            "cache.sessions": 1,
        }
        assert answer.data["documents.cases"][0]["text"] == "u1"
        assert not any("whose" in name for rows in answer.data.values() for row in rows for name in row)
        await process(db, "rectification", changes={"cases": {"text": "right"}})
        assert (await db.personal("cases").get(ids["u1"]))["text"] == "right"
        with pytest.raises(PrivacyError, match="documents.journals knows people by it"):
            await db.personal("users").update("u1", {"personal_number": "13097248103"})
        erased = await process(db, "erasure")
        assert found_in(erased) == {
            "main.users": 1,
            "main.orders": 1,
            "documents.cases": 1,
            "documents.journals": 2,
            "documents.remarks": 1,
            "cache.sessions": 1,
            "datavern.consents": 0,
        }
        assert [one async for one in journals.find()] == [{"_id": "both", "patients": [{"number": NUMBERS["u2"]}]}]
        assert await db["cache"].get(f"visit:{NUMBERS['u1']}") is None
        assert await db["cache"].get(f"visit:{NUMBERS['u2']}") == "u2"
        assert (await db.personal("cases").get(ids["u2"]))["text"] == "u2"


async def test_sealed_values_under_a_number(managed, database, cache):
    databases = {"main": database.provider(location="norway"), "cache": cache(encryption=True)}
    async with managed(users(), SESSIONS, databases=databases) as db:
        await fill(db)
        for who in ("u1", "u2"):
            await db["cache"].set(f"visit:{NUMBERS[who]}", who, subject=who)
        answer = await process(db, "access")
        assert [row["value"] for row in answer.data["cache.sessions"]] == ["u1"]
        erased = await process(db, "erasure")
        assert found_in(erased)["cache.sessions"] == 1
        assert await db["cache"].get(f"visit:{NUMBERS['u1']}") is None
        assert await db["cache"].get(f"visit:{NUMBERS['u2']}") == "u2"
    with pytest.raises(ConfigurationError, match="nobody could say any more whose they are"):
        DataMap([users(), replace(SESSIONS, erasure="shred")])  # the number stands in the key


async def test_a_store_that_is_down_keeps_what_leads_to_it(everywhere, monkeypatch):
    async with everywhere(users(), orders(), CASES, SESSIONS) as db:
        await fill(db)
        await db.personal("cases").insert({"_id": "c", "order.id": "o-u1", "text": "u1"})
        from datavern.contracts.errors import ConnectionFailed
        from datavern.engines.mongodb.subjects import MongoDBSubjects

        async def down(*_, **__):
            raise ConnectionFailed("documents: down", provider="documents")

        with monkeypatch.context() as patched:
            patched.setattr(MongoDBSubjects, "select", down)
            with pytest.raises(ErasureIncomplete) as raised:
                await process(db, "erasure")
        assert set(raised.value.receipt.waiting) == {"documents.cases", "main.orders"}
        assert await count(db, "orders") == 2
        (done,) = await db.subject_requests.resume()
        assert found_in(done)["documents.cases"] == 1


# ---- the map --------------------------------------------------------------------------------------------------------


def test_circles_are_refused_as_the_map_is_made():
    def one(name, via, **more):
        return Dataset(name, database="main", subject="parent", subject_via=via, **more)

    for datasets in (
        [one("a", "a.id")],
        [one("a", "b.id"), one("b", "a.id")],
        [orders(), one("a", "b.id"), one("b", "c.id"), one("c", "b.id")],
    ):
        with pytest.raises(ConfigurationError, match="leads in a circle, .* → "):
            DataMap(datasets)
    assert len(DataMap([one("c", "b.id"), one("b", "orders.id"), orders()])) == 3


def test_what_could_not_be_said_of_kept_rows_is_refused():
    with pytest.raises(ConfigurationError, match="nobody could say any more whose they are"):
        DataMap([orders(), lines(**retained(True))])
    with pytest.raises(ConfigurationError, match="takes personal_number from users"):
        DataMap([users(erasure="soft"), visits(**retained(True))])
    with pytest.raises(ConfigurationError, match="nobody could say any more"):
        DataMap([users(), orders(**retained(True)), lines(**retained(True)), visits(erasure="shred")])
    DataMap([users(**retained(True)), orders(**retained(True)), lines(**retained(True)), visits(**retained(True))])
    with pytest.raises(ConfigurationError, match="lookup = true"):
        visits(fields={"number": Field(sealed=True)})
    with pytest.raises(ConfigurationError, match="keep it in the clear"):
        visits(fields=HIDDEN, **retained(True))


async def test_one_connection_is_enough(managed, database, engine):
    """What leads to rows is read before they are: nobody waits for a connection while holding the only one."""
    more = {} if engine == "sqlite" else {"pool": Pool(min=0, max=1, acquire=20.0)}
    one = {"main": database.provider(location="norway", **more)}
    async with managed(users(), orders(), lines(), notes(), visits(fields=HIDDEN), databases=one) as db:
        await fill(db)
        assert await of(db, "notes") == ["n-l0-u1", "n-l1-u1"]
        assert await of(db, "visits") == ["v-u1"]
        async with db["main"].transaction() as tx:
            row = {"id": "x", "order_id": "o-u1", "text": "t"}
            await db.personal("lines").insert(row, transaction=tx)
            found = [one["id"] async for one in db.personal("lines").of("u1", transaction=tx)]
            assert sorted(found) == ["l0-u1", "l1-u1", "x"]
        assert found_in(await process(db, "erasure"))["main.lines"] == 3


async def test_two_erasures_at_the_same_time(managed):
    async with managed(users(), orders(), lines(), visits()) as db:
        await fill(db)
        done = await asyncio.gather(*(process(db, "erasure", subject=who) for who in ("u1", "u2")))
        assert [found_in(one)["main.lines"] for one in done] == [2, 2]
        assert [await count(db, table) for table in ("users", "orders", "lines", "visits")] == [0, 0, 0, 0]
        assert await Journal(db.services.ledger, db.services.keys).unfinished() == []


async def test_many_rows_under_a_sealed_number_are_read_one_by_one(managed):
    wide = "x" * 500
    async with managed(users(), visits(fields={**HIDDEN, "text": Field()})) as db:
        await fill(db)
        made = [{"id": f"m{n}", "number": NUMBERS["u1"], "text": wide} for n in range(4000)]
        await db.personal("visits").insert_many(made)
        first = await anext(db.personal("visits").of("u1"))
        assert first["number"] == NUMBERS["u1"]
        tracemalloc.start()
        try:
            read = [len(row["text"]) async for row in db.personal("visits").of("u1")]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(read) == 4001
        assert peak < 4_000_000
