"""``audit_reads = true``: who read what about whom stands in the log, and does not drown it."""

import asyncio
import json
import logging

import pytest

import datavern
from conftest import users
from datavern import DatabaseManager, ProviderError
from datavern.privacy.personal import reads as module


@pytest.fixture
async def db(managed):
    async with managed(users(audit_reads=True, purposes=[], legal_basis="x")) as db:
        await db.prepare("users")
        await db.personal("users").insert_many(
            [{"id": f"u{n}", "name": f"Name {n}", "email": f"{n}@example.no"} for n in range(5)]
        )
        yield db


async def entries(db):
    rows = await db["main"].query("SELECT * FROM datavern_audit WHERE action = 'read' ORDER BY seq")
    return [(row["actor"], row["handle"], json.loads(row["details"])) for row in rows]


async def handle(db, subject):
    return await db.keys.handle(subject, create=False)


def reads_of(db):
    (one,) = db.services._reads.values()
    return one


async def test_a_read_stands_in_the_log_before_the_row_is_handed_out(db):
    people = db.personal("users")
    with datavern.actor("case-worker-7"):
        assert (await people.get("u1"))["name"] == "Name 1"
        assert await entries(db) == [("case-worker-7", await handle(db, "u1"), {"rows": 1})]
        for _ in range(50):
            await people.get("u1")
        assert len(await people.find(email="1@example.no")) == 1
        assert [row["id"] async for row in people.of("u1")] == ["u1"]
        assert len(await entries(db)) == 1  # the same person, the same minute
        await people.get("u2")
    with datavern.actor("case-worker-8"):
        await people.get("u1")
    assert [entry[0] for entry in await entries(db)] == ["case-worker-7", "case-worker-7", "case-worker-8"]
    await reads_of(db).end()
    *_, last = await entries(db)
    assert last[:2] == ("case-worker-7", await handle(db, "u1"))
    assert last[2]["rows"] == 52
    assert "since" in last[2]
    assert "Name" not in str(await entries(db))
    await db.audit.seal()
    assert (await db.audit.verify()).ok


async def test_every_way_of_reading_is_one(db):
    people = db.personal("users")
    raw = await db["main"].query("SELECT * FROM users WHERE id = 'u3'")
    assert len(await people.open(raw)) == 1
    assert [row["id"] async for row in people.of("u4")] == ["u4"]
    assert await people.get("nobody") is None
    assert [row async for row in people.of("nobody")] == []
    found = await entries(db)
    assert [(h, d["rows"]) for _, h, d in found] == [
        (await handle(db, "u3"), 1),
        (await handle(db, "u4"), 0),  # looked for; how many rows there were comes at the end of the minute
        (None, 0),
    ]
    since = reads_of(db)._since
    await reads_of(db).end()
    assert (await entries(db))[-1][1:] == (await handle(db, "u4"), {"rows": 1, "since": since})


async def test_many_people_at_once_are_one_entry(db, monkeypatch):
    monkeypatch.setattr(module, "_MOST", 3)
    people = db.personal("users")
    raw = await db["main"].query("SELECT * FROM users")
    await people.open(raw)
    assert await entries(db) == [(None, None, {"rows": 5, "subjects": 5})]


async def test_whoever_was_one_of_many_is_named_when_read_alone(db, monkeypatch):
    monkeypatch.setattr(module, "_MOST", 3)
    people = db.personal("users")
    await people.open(await db["main"].query("SELECT * FROM users"))
    await people.get("u3")
    assert await entries(db) == [
        (None, None, {"rows": 5, "subjects": 5}),
        (None, await handle(db, "u3"), {"rows": 1}),  # before the row is handed out: a process may be killed
    ]


async def test_many_readers_at_once_are_counted_to_the_row(db):
    people = db.personal("users")

    async def reader(name):
        with datavern.actor(name):
            for n in range(5):
                await people.get(f"u{n}")
                assert len(await people.find(email=f"{n}@example.no")) == 1
            assert [row["id"] async for row in people.of("u0")] == ["u0"]

    await asyncio.gather(*(reader(f"r{n % 3}") for n in range(12)))
    await reads_of(db).end()
    counted = {}
    for who, whom, details in await entries(db):
        counted[who, whom] = counted.get((who, whom), 0) + details["rows"]
    handles = [await handle(db, f"u{n}") for n in range(5)]
    assert counted == {(f"r{r}", handles[n]): 4 * (2 + (n == 0)) for r in range(3) for n in range(5)}


async def test_a_reader_who_gives_up_or_fails_in_the_middle_has_read_what_came(db):
    people = db.personal("users")
    await people.insert({"id": "x", "name": "n", "email": "x@example.no"})
    stream = people.of("u1")
    assert (await anext(stream))["id"] == "u1"
    await stream.aclose()
    with pytest.raises(ZeroDivisionError):
        async for _ in people.of("u2"):
            raise ZeroDivisionError
    reading = asyncio.ensure_future(people.get("x"))
    while not reads_of(db)._told & {(None, "users", "x")} and not reading.done():  # noqa: ASYNC110  (no event tells)
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await reads_of(db).end()
    rows = {}
    for _, whom, details in await entries(db):
        rows[whom] = rows.get(whom, 0) + details["rows"]
    assert rows == {await handle(db, "u1"): 1, await handle(db, "u2"): 1, await handle(db, "x"): 1}


async def test_a_read_that_is_noted_while_a_minute_ends_is_told_of_in_the_next(db, monkeypatch):
    people, reads = db.personal("users"), reads_of(db)
    write = reads._write

    async def slow(*given):
        await write(*given)
        await reads.end()  # the minute ends before it is known that the entry stands

    monkeypatch.setattr(reads, "_write", slow)
    await people.get("u1")
    monkeypatch.setattr(reads, "_write", write)
    await people.get("u1")
    assert [details for *_, details in await entries(db)] == [{"rows": 1}, {"rows": 1}]


async def test_what_is_read_while_a_minute_is_written_waits_for_no_later_read(db, monkeypatch):
    people, reads = db.personal("users"), reads_of(db)
    monkeypatch.setattr(reads, "_window", 0.01)
    write, late = reads._write, []

    async def meanwhile(*given):
        await write(*given)
        if given[3] and not late:  # the end of a minute
            late.append(1)
            async with db["main"].transaction() as tx:
                await people.get("u2", transaction=tx)

    monkeypatch.setattr(reads, "_write", meanwhile)
    async with db["main"].transaction() as tx:
        await people.get("u1", transaction=tx)
    while len(await entries(db)) < 2:  # noqa: ASYNC110  (it is written by itself)
        await asyncio.sleep(0.01)
    assert [d["rows"] for *_, d in await entries(db)] == [1, 1]


async def test_closing_in_the_middle_of_a_writing_writes_nothing_twice(managed, monkeypatch):
    async with managed(users(audit_reads=True, purposes=[], legal_basis="x")) as db:
        await db.prepare("users")
        people, reads = db.personal("users"), reads_of(db)
        await people.insert({"id": "u1", "name": "n", "email": "e@example.no"})
        monkeypatch.setattr(reads, "_window", 0.01)
        write, written = reads._write, asyncio.Event()

        async def slow(*given):
            await write(*given)
            written.set()
            await asyncio.sleep(0.05)  # a cancellation here would not know that it stands

        monkeypatch.setattr(reads, "_write", slow)
        async with db["main"].transaction() as tx:
            await people.get("u1", transaction=tx)
        await written.wait()
        await reads.close()
        assert [details["rows"] for *_, details in await entries(db)] == [1]


async def test_a_transaction_that_is_undone_has_read_all_the_same(db):
    people = db.personal("users")
    with pytest.raises(ZeroDivisionError):
        async with db["main"].transaction() as tx:
            await people.get("u1", transaction=tx)
            raise ZeroDivisionError
    assert await entries(db) == []
    await reads_of(db).end()
    ((_, whom, details),) = await entries(db)
    assert (whom, details["rows"]) == (await handle(db, "u1"), 1)


async def test_what_cannot_be_audited_is_not_handed_out(db, sql):
    await db["main"].execute(sql("ALTER TABLE datavern_audit RENAME TO away"))
    with pytest.raises(ProviderError):
        await db.personal("users").get("u1")
    with pytest.raises(ProviderError):
        _ = [row async for row in db.personal("users").of("u1")]
    await db["main"].execute(sql("ALTER TABLE away RENAME TO datavern_audit"))
    assert await db.personal("users").get("u1")


async def test_the_minute_ends_by_itself_and_an_outage_loses_no_count(managed, monkeypatch, caplog, sql):
    monkeypatch.setattr(module.Reads.__init__, "__kwdefaults__", {"window": 0.02})
    async with managed(users(audit_reads=True, purposes=[], legal_basis="x")) as db:
        await db.prepare("users")
        people = db.personal("users")
        await people.insert({"id": "u1", "name": "n", "email": "e@example.no"})
        with caplog.at_level(logging.WARNING, logger="datavern.audit"):
            async with db["main"].transaction() as tx:
                await people.get("u1", transaction=tx)
            await db["main"].execute(sql("ALTER TABLE datavern_audit RENAME TO away"))
            while not caplog.messages:  # noqa: ASYNC110  (it is a log that is waited for)
                await asyncio.sleep(0.01)
            await db["main"].execute(sql("ALTER TABLE away RENAME TO datavern_audit"))
            assert "could not be written to the audit log yet" in caplog.messages[0]
        async with db["main"].transaction() as tx:
            await people.get("u1", transaction=tx)
        while sum(details["rows"] for *_, details in await entries(db)) < 2:  # noqa: ASYNC110  (as above)
            await asyncio.sleep(0.01)
        assert sum(details["rows"] for *_, details in await entries(db)) == 2


async def test_closing_writes_what_was_counted(managed, database):
    one: DatabaseManager = managed(users(audit_reads=True, purposes=[], legal_basis="x"))
    async with one as db:
        await db.prepare("users")
        await db.personal("users").insert({"id": "u1", "name": "n", "email": "e@example.no"})
        await db.personal("users").get("u1")
        await db.personal("users").get("u1")
    async with managed(users(audit_reads=True, purposes=[], legal_basis="x")) as db:
        assert [details["rows"] for *_, details in await entries(db)] == [1, 1]


async def test_without_it_reads_leave_no_entry(managed):
    async with managed(users(purposes=[], legal_basis="x")) as db:
        await db.prepare("users")
        await db.personal("users").insert({"id": "u1", "name": "n", "email": "e@example.no"})
        await db.personal("users").get("u1")
        assert await entries(db) == []
