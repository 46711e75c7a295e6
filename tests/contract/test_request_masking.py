"""Other people in a person's rows and documents: left out of the answer, and left alone by the erasure."""

import json

from datavern import DatabaseManager, DataMap, Dataset, Field, SubjectRequest

SENT = Dataset(
    "sent",
    database="main",
    store="messages",
    subject="sender",
    erasure="anonymize",
    fields={"text": Field(sealed=True), "signature": Field()},
)
GOT = Dataset(
    "got",
    database="main",
    store="messages",
    subject="receiver",
    erasure="anonymize",
    fields={"alias": Field(type="text")},
)


async def process(db, kind, subject, **more):
    return await db.subject_requests.process(SubjectRequest(kind, subject=subject, **more))


async def test_sender_and_receiver_get_their_own_and_are_erased_alone(managed):
    async with managed(SENT, GOT) as db:
        await db.prepare("sent")
        await db.prepare("got")
        await db.personal("sent").insert(
            {"id": "1", "sender": "u1", "receiver": "u2", "text": "Planted", "signature": "Kari", "alias": "Åse"}
        )
        sender = await process(db, "access", "u1")
        (row,) = sender.data["main.sent"]
        assert (row["text"], row["signature"], row["receiver"], row["alias"]) == ("Planted", "Kari", None, None)
        assert sender.data["main.got"] == []
        assert {(m.dataset, m.field, m.of, m.times) for m in sender.masked} == {
            ("main.sent", "alias", "receiver", 1),
            ("main.sent", "receiver", "receiver", 1),
        }
        assert "Art. 15(4)" in sender.masked[0].why
        receiver = await process(db, "portability", "u2", format="csv")
        (row,) = receiver.data["main.got"]
        assert (row["alias"], row["receiver"], row["sender"], row["signature"]) == ("Åse", "u2", None, None)
        assert "text" not in row
        assert b"Planted" not in b"".join(receiver.files.values())
        assert {m["field"] for m in json.loads(receiver.files["left-out.json"])} >= {"signature", "sender"}
        # The receiver goes, and the sender's stays readable.
        await process(db, "erasure", "u2")
        (left,) = [r async for r in db.personal("sent").of("u1")]
        assert (left["text"], left["signature"], left["alias"]) == ("Planted", "Kari", None)
        assert left["receiver"] != "u2"
        await process(db, "erasure", "u1")
        (gone,) = [dict(r) for r in await db["main"].query("SELECT * FROM messages")]
        assert (gone["text"], gone["signature"], gone["alias"]) == (None, None, None)
        assert gone["sender"] not in ("u1", "u2")


async def test_a_field_of_another_stays_when_the_rows_subject_is_erased(managed):
    visits = Dataset(
        "visits",
        database="main",
        subject="patient",
        erasure="anonymize",
        fields={"note": Field(), "companion": Field(), "phone": Field(of="companion")},
    )
    async with managed(visits) as db:
        await db.prepare("visits")
        rows = [
            {"id": "1", "patient": "u1", "note": "n", "companion": "u2", "phone": "11111111"},
            {"id": "2", "patient": "u1", "note": "n", "companion": "u1", "phone": "22222222"},
        ]
        await db.personal("visits").insert_many(rows)
        answer = await process(db, "access", "u1")
        assert [r["phone"] for r in answer.data["main.visits"]] == [None, "22222222"]
        erased = await process(db, "erasure", "u1")
        found = [dict(r) for r in await db["main"].query("SELECT * FROM visits ORDER BY id")]
        assert [(r["note"], r["phone"]) for r in found] == [(None, "11111111"), (None, None)]
        (store,) = [s for s in erased.certificate.body["stores"] if s["dataset"] == "main.visits"]
        assert "phone" in store["left"]


async def test_documents_that_name_several_people(documents, keyring, tmp_path):
    from datavern import SQLiteProvider

    cases = Dataset("cases", database="documents", subject="members.id", erasure="delete")
    reports = Dataset(
        "reports",
        database="documents",
        subject="owner",
        erasure="anonymize",
        fields={"title": Field(), "people.name": Field(of="people.id")},
    )
    users = Dataset(
        "users", database="main", subject="id", erasure="anonymize", fields={"nr": Field(sealed=True, lookup=True)}
    )
    groups = Dataset("groups", database="documents", subject="people.nr", subject_via="users.nr", erasure="delete")
    databases = {"main": SQLiteProvider(tmp_path / "main.db", location="norway"), "documents": documents()}
    async with DatabaseManager(
        databases, data_map=DataMap([users, groups, cases, reports]), keyring=keyring, ledger="main"
    ) as db:
        store = db["documents"].collection("cases")
        people = [{"id": "u1", "name": "Own"}, {"id": "u2", "name": "Other"}]
        await store.insert_one({"title": "Shared", "members": people})
        await db["documents"].collection("reports").insert_one({"owner": "u1", "title": "t", "people": people})
        await db.prepare("users")
        await db.personal("users").insert_many([{"id": "u1", "nr": "7001"}, {"id": "u2", "nr": "7002"}])
        numbered = [{"nr": "7001", "role": "a"}, {"nr": "7002", "role": "b"}]
        await db["documents"].collection("groups").insert_one({"people": numbered})
        answer = await process(db, "access", "u1")
        assert answer.data["documents.groups"][0]["people"] == [{"nr": "7001", "role": "a"}, None]
        (case,) = answer.data["documents.cases"]
        assert case["members"] == [{"id": "u1", "name": "Own"}, None]
        (report,) = answer.data["documents.reports"]
        assert report["people"] == [{"id": "u1", "name": "Own"}, {"id": None, "name": None}]
        assert {(m.dataset, m.field) for m in answer.masked} == {
            ("documents.groups", "people.*"),
            ("documents.cases", "members.*"),
            ("documents.reports", "people.name"),
            ("documents.reports", "people.id"),
        }
        assert "Other" not in repr(answer.data)
        await process(db, "erasure", "u1")
        (left,) = (await process(db, "access", "u2")).data["documents.cases"]
        assert left["members"] == [{"id": "u2", "name": "Other"}]
