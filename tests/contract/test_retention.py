"""The retention run: what is past its time ends by the data map, in batches, once, and nothing else does."""

import asyncio
import datetime as dt
import json

import pytest
from cutting import Cut

from datavern import ConfigurationError, Dataset, Field, SubjectRequest
from datavern.audit.log import AuditLog
from datavern.privacy.holds import holds
from datavern.privacy.retention import expiring
from datavern.privacy.retention import run as retention_run
from datavern.privacy.retention.run import first_kept

TODAY = dt.datetime.now().astimezone().date()
OLD, RECENT = TODAY.replace(year=TODAY.year - 9, day=1), TODAY - dt.timedelta(days=30)
LAW = "bokføringsloven § 13"
FIELDS = {"name": Field(sealed=True, lookup=True), "note": Field()}


def dataset(name, erasure="delete", **more):
    settings = {"database": "main", "subject": "who", "erasure": erasure, "fields": FIELDS, "retention": "5y"}
    return Dataset(name, **{**settings, "retention_from": "made", **more})


async def fill(db, name, old=5, recent=2, **more):
    await db.prepare(name)
    days = [OLD + dt.timedelta(days=n) for n in range(old)] + [RECENT] * recent
    rows = [
        {"id": f"r{n:04}", "who": f"u{n % 3}", "name": "Planted", "note": "n", "made": d, **more}
        for n, d in enumerate(days)
    ]
    for row in rows:
        await db.personal(name).insert(row)


async def ids(db, table):
    return [row["id"] for row in await db["main"].query(f'SELECT id FROM "{table}" ORDER BY id')]


async def entries(db, action="expired"):
    rows = await db["main"].query("SELECT * FROM datavern_audit ORDER BY era, stamp, seq")
    return [json.loads(row["details"]) for row in rows if row["action"] == action]


def of(report, label):
    (found,) = (one for one in report.datasets if one.dataset == label)
    return found


async def test_each_policy_ends_what_is_past_its_time(managed):
    people = dataset(
        "anonymize", "anonymize", fields={**FIELDS, "born": Field(sealed=True, anonymize={"generalise": "year"})}
    )
    maps = (
        dataset("delete"),
        people,
        dataset("soft", "soft"),
        dataset("shred", "shred"),
        dataset("retain", "retain", legal_basis=LAW),
        dataset("never", retention=None, retention_from=None),
        dataset("unsaid", retention_from=None),
    )
    async with managed(*maps) as db:
        for one in maps[:5]:
            await fill(db, one.name, **({"born": dt.date(1972, 9, 13)} if one.name == "anonymize" else {}))
        dry = await db.retention.run(dry_run=True)
        assert {one.dataset: (one.action, one.rows, one.oldest) for one in dry.datasets} == {
            "main.delete": ("delete", 5, OLD),
            "main.anonymize": ("anonymise", 5, OLD),
            "main.soft": ("empty and mark", 5, OLD),
            "main.shred": ("empty what is sealed", 5, OLD),
            "main.retain": ("delete", 5, OLD),
            "main.never": ("", 0, None),
            "main.unsaid": ("", 0, None),
        }
        assert of(dry, "main.never").notes == ["no retention: nothing here ends by its age"]
        assert "no retention_from" in of(dry, "main.unsaid").notes[0]
        assert await entries(db) == []
        assert len(await ids(db, "delete")) == 7

        report = await db.retention.run(batch_size=2)
        assert report.ok
        assert {one.dataset: one.rows for one in report.datasets if one.action} == dict.fromkeys(
            ("main.delete", "main.anonymize", "main.soft", "main.shred", "main.retain"), 5
        )
        assert await ids(db, "delete") == await ids(db, "retain") == ["r0005", "r0006"]
        for name in ("anonymize", "soft", "shred"):
            raw = {row["id"]: dict(row) for row in await db["main"].query(f'SELECT * FROM "{name}"')}
            assert len(raw) == 7
            old, recent = raw["r0000"], raw["r0005"]
            assert (old["name"], old["name_lookup"]) == (None, None)
            assert recent["name"] is not None
            assert (old["note"] is None) == (name != "shred")
        anonymised = await db.personal("anonymize").get("r0000")
        assert anonymised["who"].startswith("erased-")
        assert anonymised["born"] == dt.date(1972, 1, 1)
        assert await db.personal("soft").get("r0000") is None
        assert await db.personal("shred").get("r0005") is not None
        found = await entries(db)
        assert sum(entry["rows"] for entry in found) == 25
        assert len(found) == 15
        assert all(entry["before"] == first_kept(maps[0], TODAY).isoformat() for entry in found)
        again = await db.retention.run()
        assert again.rows == 0
        assert len(await entries(db)) == 15


async def test_year_ends_and_other_types_of_dates(managed):
    fields = {"made": Field(type="timestamp")}
    stamped = dataset("stamped", fields=fields, retention_from_year_end=True)
    texts = dataset("texts", fields={"made": Field()})
    async with managed(stamped, texts) as db:
        edge = first_kept(stamped, TODAY)
        assert (edge.month, edge.day) == (1, 1)
        await db.prepare("stamped")
        await db.prepare("texts")
        midnight = dt.datetime(edge.year, 1, 1, tzinfo=dt.UTC)
        for n, moment in enumerate((midnight - dt.timedelta(seconds=1), midnight, None)):
            await db.personal("stamped").insert({"id": f"{n}", "who": "u1", "made": moment})
        day = first_kept(texts, TODAY)
        for n, text in enumerate((f"{day - dt.timedelta(days=1)}T23:59", day.isoformat(), "", "1 January 1990", None)):
            await db.personal("texts").insert({"id": f"{n}", "who": "u1", "made": text})
        assert of(await db.retention.run(dry_run=True), "main.texts").rows == 2  # of text that is no date, some counts
        report = await db.retention.run(batch_size=1)
        assert (of(report, "main.stamped").rows, of(report, "main.texts").rows) == (1, 1)
        assert await ids(db, "stamped") == ["1", "2"]
        assert await ids(db, "texts") == ["1", "2", "3", "4"]


async def test_what_stays(managed, sql):
    """Held rows, restricted people, rows that others refer to: each for its reason, told of, and gone when it ends."""
    visits = dataset("visits")
    async with managed(visits, dataset("other")) as db:
        await fill(db, "visits", old=6)
        hold = await db.holds.place("visits", key="r0000", reason="sak")
        await db.holds.place(subject="u1", reason="sak")  # r0001, r0004
        await db["main"].execute(sql("CREATE TABLE notes (id {text} PRIMARY KEY, visit {text} REFERENCES visits (id))"))
        await db["main"].execute("INSERT INTO notes VALUES ('n', 'r0002')")
        dry = await db.retention.run("visits", dry_run=True)
        assert [one.dataset for one in dry.datasets] == ["main.visits"]
        assert "legal holds keep some rows of it" in of(dry, "main.visits").notes
        report = await db.retention.run(batch_size=4)
        found = of(report, "main.visits")
        assert (found.rows, found.held, found.refused) == (2, 3, 1)
        assert not report.ok
        assert "there is no other" in of(report, "main.other").notes
        assert await ids(db, "visits") == ["r0000", "r0001", "r0002", "r0004", "r0006", "r0007"]
        await db["main"].execute("DELETE FROM notes")
        await db.holds.release(hold)
        report = await db.retention.run(batch_size=4)
        assert (of(report, "main.visits").rows, of(report, "main.visits").held) == (2, 2)
        assert report.ok


async def test_restricted_people_are_left_alone(managed):
    async with managed(dataset("visits")) as db:
        await fill(db, "visits")
        await db.subject_requests.process(SubjectRequest("restriction", subject="u0"))
        report = await db.retention.run()
        assert (of(report, "main.visits").rows, of(report, "main.visits").held) == (3, 2)
        assert await ids(db, "visits") == ["r0000", "r0003", "r0005", "r0006"]


async def test_two_at_once_and_one_that_is_cut_off(managed, monkeypatch):
    async with managed(dataset("visits")) as db:
        await fill(db, "visits", old=40, recent=3)

        append, passed = AuditLog.append, 0

        async def cut(self, *args, **kwargs):
            nonlocal passed
            passed += 1
            if passed == 3:
                raise Cut
            return await append(self, *args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(AuditLog, "append", cut)
            with pytest.raises(Cut):
                await db.retention.run(batch_size=5)
        assert len(await ids(db, "visits")) == 33  # two batches are done, the third is undone
        reports = await asyncio.gather(*(db.retention.run(batch_size=3) for _ in range(3)))
        assert sum(report.rows for report in reports) == 30
        assert len(await ids(db, "visits")) == 3
        assert sum(entry["rows"] for entry in await entries(db)) == 40


async def test_a_hold_that_comes_while_a_run_goes_on(managed):
    async with managed(dataset("visits")) as db:
        await fill(db, "visits", old=30, recent=0)

        async def place(n):
            try:
                return await db.holds.place("visits", key=f"r{n:04}", reason="sak")
            except ConfigurationError:
                return None

        report, *placed = await asyncio.gather(db.retention.run(batch_size=2), *(place(n) for n in range(29, 20, -1)))
        left = await ids(db, "visits")
        assert left == sorted(f"r{n:04}" for n, hold in zip(range(29, 20, -1), placed, strict=True) if hold is not None)
        assert report.rows == 30 - len(left)


async def test_what_the_law_kept_ends_by_itself(managed, monkeypatch):
    invoices = dataset("invoices", "retain", legal_basis=LAW, retention_from=None)
    async with managed(invoices) as db:
        await db.prepare("invoices")
        for n in range(2):
            await db.personal("invoices").insert({"id": f"{n}", "who": "u1", "name": "Planted", "note": "n"})
        response = await db.subject_requests.process(SubjectRequest("erasure", subject="u1"))
        until = response.certificate.body["stores"][0]["kept"][0]["until"]
        assert (await db.retention.run()).rows == 0
        later = dt.date.fromisoformat(until) + dt.timedelta(days=1)
        for module in (retention_run, expiring, holds):
            monkeypatch.setattr(module, "today", lambda: later)
        from datavern.privacy.erasure import completing

        monkeypatch.setattr(completing, "today", lambda: later)
        report = await db.retention.run()
        assert of(report, "main.invoices").rows == 2
        assert report.completed == (f"{response.request_id}-completed",)
        certificate = await db.subject_requests.certificate(report.completed[0])
        (store,) = certificate.body["stores"]
        assert (store["found"], store["done"]) == (2, {"ended by the retention run, or before": 2})
        assert len(certificate.body["keys"]) == 1
        assert (await db.retention.run()).completed == ()


async def test_a_composite_key_and_a_missing_index(managed, sql):
    lines = dataset(
        "lines", primary_key=["id", "line"], fields={"line": Field(type="integer"), "name": Field(sealed=True)}
    )
    async with managed(lines) as db:
        await db["main"].execute(
            sql("CREATE TABLE lines (id {text}, line {integer}, who {text}, made date, PRIMARY KEY (id, line))")
        )
        await db.prepare("lines")
        for n in range(5):
            await db.personal("lines").insert(
                {"id": "a", "line": n, "who": "u1", "made": OLD if n else RECENT, "name": "x"}
            )
        report = await db.retention.run(batch_size=2)
        assert of(report, "main.lines").rows == 4
        assert of(report, "main.lines").notes == ["no index leads with made: every batch reads the whole of lines"]
        assert await ids(db, "lines") == ["a"]


async def test_what_is_wrong_is_said(managed, sql):
    other = dataset("other", "anonymize")
    async with managed(dataset("visits"), other) as db:
        with pytest.raises(ConfigurationError, match="did you mean visits"):
            await db.retention.run("visit")
        for size in (0, 10_001):
            with pytest.raises(ConfigurationError, match="batch_size"):
                await db.retention.run(batch_size=size)
        await db["main"].execute(sql("CREATE TABLE other (id {text} PRIMARY KEY, who {text}, made date, note {text})"))
        await db["main"].execute(sql("CREATE TABLE visits (id {text} PRIMARY KEY)"))
        report = await db.retention.run()
        assert not report.ok
        assert "lacks" in of(report, "main.visits").waiting
        assert "await db.prepare" in of(report, "main.other").waiting


async def test_in_documents_files_and_keys(managed, database, documents, cache):
    databases = {"main": database.provider(location="norway"), "documents": documents(), "cache": cache()}
    cases = dataset("cases", database="documents", subject="owner.id", retention_from="closed.at")
    people = dataset("people", "anonymize", database="documents", fields={"name": Field(sealed=True), "note": Field()})
    files = Dataset(
        "files",
        database="documents",
        store="fs.files",
        subject="metadata.subject",
        erasure="delete",
        retention="30d",
        retention_from="uploadDate",
    )
    sessions = Dataset("sessions", database="cache", key="user:session:{subject}", erasure="delete", retention="30d")
    async with managed(cases, people, files, sessions, databases=databases) as db:
        await db.prepare("cases")
        await db.prepare("people")
        moment = dt.datetime(OLD.year, 1, 1, tzinfo=dt.UTC)
        for n, closed in enumerate((moment, OLD.isoformat(), RECENT.isoformat(), None, moment)):
            row = {"_id": n, "owner": {"id": f"u{n}"}, "closed": {"at": closed}, "name": "x", "note": "n"}
            await db.personal("cases").insert(row)
            await db.personal("people").insert({"_id": n, "who": f"u{n}", "made": closed, "name": "x", "note": "n"})
        await db["documents"].files.upload("new.pdf", b"%PDF", classification="SECRET", subject="u1")
        await db["cache"].set("user:session:u1", {"a": 1})
        await db["cache"].set("user:session:u2", {"a": 1}, ex=60)
        await db["cache"].set("user:session:u4", {"a": 1})
        await db["cache"].set("elsewhere", "x")
        await db.holds.place(subject="u4", reason="sak")
        dry = await db.retention.run(dry_run=True)
        assert of(dry, "documents.cases").rows == 3
        assert of(dry, "cache.sessions").rows == 1
        report = await db.retention.run(batch_size=2)
        assert report.ok
        assert (of(report, "documents.cases").rows, of(report, "documents.cases").held) == (2, 1)
        assert of(report, "documents.people").rows == 2
        assert of(report, "documents.files").rows == 0
        assert (of(report, "cache.sessions").rows, of(report, "cache.sessions").action) == (1, "expire")
        left = [d["_id"] async for d in db["documents"].collection("cases").find(sort=[("_id", 1)])]
        assert left == [2, 3, 4]
        person = await db["documents"].collection("people").find_one({"_id": 0})
        assert (person["name"], person["note"]) == (None, None)
        assert person["datavern_erased_at"]
        assert 0 < await db["cache"].ttl("user:session:u1") <= 30 * 86_400
        assert await db["cache"].ttl("user:session:u4") == -1
        assert await db["cache"].ttl("elsewhere") == -1
        again = await db.retention.run()
        assert again.rows == 0
        assert {entry["rows"] for entry in await entries(db) if "rows" in entry} <= {1, 2}


async def test_rows_that_name_no_person_themselves(managed):
    orders = dataset("orders", fields={"total": Field(type="integer")})
    lines = dataset("lines", subject="order_id", subject_via="orders.id", fields={"text": Field(sealed=True)})
    async with managed(orders, lines) as db:
        for name in ("orders", "lines"):
            await db.prepare(name)
        for n, day in enumerate((OLD, OLD, RECENT, OLD)):
            await db.personal("orders").insert({"id": f"o{n}", "who": f"u{n}", "total": 1, "made": day})
            await db.personal("lines").insert({"id": f"l{n}", "order_id": f"o{n}", "text": "x", "made": day})
        await db.holds.place(subject="u1", reason="sak")
        hold = await db.holds.place("lines", key="l3", reason="sak")
        report = await db.retention.run()
        assert {one.dataset: (one.rows, one.held) for one in report.datasets} == {
            "main.orders": (1, 2),
            "main.lines": (1, 2),
        }
        assert await ids(db, "orders") == ["o1", "o2", "o3"]  # whose line is held leads to it
        assert await ids(db, "lines") == ["l1", "l2", "l3"]
        response = await db.subject_requests.process(SubjectRequest("erasure", subject="u3"))
        assert await ids(db, "orders") == ["o1", "o2", "o3"]
        (completed,) = await db.holds.release(hold)
        assert completed.request_id == f"{response.request_id}-completed"
        assert await ids(db, "orders") == ["o1", "o2"]
        assert await ids(db, "lines") == ["l1", "l2"]
