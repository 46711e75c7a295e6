"""An erasure and what other processes do about the same person at the same time: nothing comes out between the two.

The other process is a second manager with keys and handles at hand, as it has them for up to five seconds.
"""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from tests.waiting import until

from datavern import ConsentRequired, Dataset, Field, KeyErased, SerializationConflict, SubjectRequest

PURPOSE = "customer-account"
EVENTS = Dataset(
    "events",
    database="main",
    subject="who",
    erasure="delete",
    fields={"note": Field(sealed=True), "plain": Field()},
)


async def erase(db, subject):
    return await db.subject_requests.process(SubjectRequest("erasure", subject=subject))


@asynccontextmanager
async def two_managers(managed, database, *datasets):
    """Two managers over one database, each with connections of its own."""
    async with managed(*datasets, databases={"main": database.provider(location="norway")}) as one:
        for dataset in datasets:
            await one.prepare(dataset.name)
        async with managed(*datasets, databases={"main": database.provider(location="norway")}) as other:
            yield one, other


@pytest.fixture
async def both(managed, database):
    from conftest import users

    async with two_managers(managed, database, users(), EVENTS) as managers:
        yield managers


async def linked(db, subject):
    """What the database holds under the subject's tag that leads to entries of the audit log: their handles."""
    tag = db.keys.subject_tag(subject)
    main = db["main"]
    handles = {r["handle"] for r in await main.query("SELECT * FROM datavern_handles") if r["subject_tag"] == tag}
    handles |= {r["handle"] for r in await main.query("SELECT * FROM datavern_consents") if r["subject_tag"] == tag}
    requests = {r["id"] for r in await main.query("SELECT * FROM datavern_requests") if r["subject_tag"] == tag}
    for entry in await main.query("SELECT handle, details FROM datavern_audit WHERE handle IS NOT NULL"):
        if json.loads(entry["details"] or "{}").get("request") in requests:
            handles.add(entry["handle"])
    return handles


async def test_a_consent_after_an_erasure_does_not_bring_the_old_handle_back(both):
    one, other = both
    for db in both:
        await db.audit.record("seen", subject="anna")  # each has the handle at hand
    old = await one.keys.handle("anna")
    await one.consents.grant(subject="anna", purpose=PURPOSE)
    await erase(one, "anna")
    consent = await other.consents.grant(subject="anna", purpose=PURPOSE)
    assert old not in await linked(one, "anna")
    await other.consents.withdraw(consent)
    entries = await one["main"].query("SELECT handle, details FROM datavern_audit WHERE action LIKE 'consent_%'")
    assert {e["handle"] for e in entries if consent.id in e["details"]}.isdisjoint({old})


async def test_an_erased_person_s_entries_are_found_by_no_way_that_is_left(both):
    one, _ = both
    events = one.personal("events")
    await one.consents.grant(subject="anna", purpose=PURPOSE)
    await events.insert({"id": "1", "who": "anna", "note": "n"})
    await one.subject_requests.process(SubjectRequest("access", subject="anna"))
    changes = {"events": {"note": "m"}}
    await one.subject_requests.process(SubjectRequest("rectification", subject="anna", changes=changes))
    (handle,) = await linked(one, "anna")
    assert await one["main"].query_value(f"SELECT count(*) FROM datavern_audit WHERE handle = '{handle}'") >= 4
    erased = await erase(one, "anna")
    assert await linked(one, "anna") == set()
    body = erased.certificate.body
    told = {body["audit"], *(store["audit"] for store in body["stores"])}
    rows = await one["main"].query("SELECT entry_id, handle, details FROM datavern_audit")
    of_erasure = [r for r in rows if r["entry_id"] in told or body["request"] in (r["details"] or "")]
    assert len(of_erasure) >= len(told)
    assert {r["handle"] for r in of_erasure} == {None}
    assert (await one.subject_requests.certificate(body["request"])).body == body


async def test_a_consent_that_is_being_granted_is_waited_for_and_erased(both):
    one, other = both
    await one.consents.grant(subject="anna", purpose=PURPOSE)
    async with other["main"].transaction() as tx:
        await other.consents.grant(subject="anna", purpose=PURPOSE, transaction=tx)
        erasing = asyncio.create_task(erase(one, "anna"))
        await asyncio.sleep(0.2)
        assert not erasing.done()
    assert (await erasing).success
    assert await one.consents.list("anna") == []
    assert await linked(one, "anna") == set()


async def test_no_consent_is_recorded_while_an_erasure_runs(both):
    one, other = both
    await other.consents.grant(subject="anna", purpose=PURPOSE)
    await one.keys.start_erasure("anna")
    with pytest.raises(KeyErased, match="an erasure of the subject runs"):
        await other.consents.grant(subject="anna", purpose=PURPOSE)
    await one.keys.start_erasure("nobody-yet")
    with pytest.raises(KeyErased, match="an erasure of the subject runs"):
        await other.consents.grant(subject="nobody-yet", purpose=PURPOSE)
    await one.keys.destroy("nobody-yet")
    assert await other.consents.grant(subject="nobody-yet", purpose=PURPOSE)


@pytest.fixture(params=["read committed", "repeatable read", "serializable"])
async def default_isolation(request, database, engine):
    """The server's own default, for every connection that is made from here on; the others have one alone."""
    if engine == "postgresql":
        async with database.provider() as admin:
            name = await admin.query_value("SELECT current_database()")
            await admin.execute(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = '{request.param}'")
            yield request.param
            await admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_isolation')
    else:
        yield request.param


async def test_a_row_that_is_being_written_is_erased_whatever_the_server_s_default_is(
    managed, database, default_isolation
):
    async with two_managers(managed, database, EVENTS) as (one, other):
        await one.personal("events").insert({"id": "1", "who": "anna", "note": "n"})
        async with other["main"].transaction() as tx:
            row = {"id": "2", "who": "anna", "note": "n", "plain": "planted"}
            await other.personal("events").insert(row, transaction=tx)
            erasing = asyncio.create_task(erase(one, "anna"))
            await asyncio.sleep(0.2)
            assert not erasing.done()
        assert (await erasing).success
        assert await one["main"].query("SELECT * FROM events") == []


async def test_the_first_key_that_is_being_made_is_closed_whatever_the_server_s_default_is(
    managed, database, default_isolation
):
    async with two_managers(managed, database, EVENTS) as (one, other):
        await one.audit.record("seen", subject="anna")
        async with other["main"].transaction() as tx:
            row = {"id": "1", "who": "anna", "note": "n", "plain": "planted"}
            await other.personal("events").insert(row, transaction=tx)  # the person's first key, in this transaction
            erasing = asyncio.create_task(erase(one, "anna"))
            await asyncio.sleep(0.2)
            assert not erasing.done()
        done = await erasing
        assert len(done.certificate.body["keys"]) == 1
        assert await one["main"].query("SELECT * FROM events") == []


async def test_a_withdrawal_is_not_missed_by_a_transaction_that_began_before_it(both, engine):
    one, other = both
    users = other.personal("users")
    consent = await one.consents.grant(subject="anna", purpose=PURPOSE)
    await users.insert({"id": "anna", "name": "Anna"}, consent=consent)
    if engine == "sqlite":  # the transaction would hold the only writer: there nothing comes between
        await one.consents.withdraw(consent)
        with pytest.raises(ConsentRequired, match="withdrawn"):
            await users.update("anna", {"name": "Berit"}, consent=consent)
        return
    for write in (
        lambda tx, under: users.update("anna", {"name": "Berit"}, consent=under, transaction=tx),
        lambda tx, under: users.insert({"id": "anna", "name": "Berit"}, consent=under, transaction=tx),
        lambda tx, under: users.insert_many([{"id": "anna", "name": "Berit"}], consent=under, transaction=tx),
    ):
        consent = await one.consents.grant(subject="anna", purpose=PURPOSE)
        with pytest.raises((SerializationConflict, ConsentRequired)):
            async with other["main"].transaction(isolation="repeatable read") as tx:
                await tx.query("SELECT 1 FROM users")  # its snapshot
                await one.consents.withdraw(consent)
                await write(tx, consent)
    assert (await users.get("anna"))["name"] == "Anna"


async def test_a_manager_opens_while_somebody_else_writes(managed, database):
    """Where all tables are there, opening makes nothing, and waits for no writer."""
    async with managed(EVENTS, databases={"main": database.provider(location="norway")}) as one:
        await one.prepare("events")
        async with one["main"].transaction() as tx:
            await one.personal("events").insert({"id": "1", "who": "anna", "note": "n"}, transaction=tx)
            other = managed(EVENTS, databases={"main": database.provider(location="norway")})
            async with asyncio.timeout(60), other as db:
                assert await db.personal("events").get("1") is None


async def test_many_writers_and_an_erasure_and_a_withdrawal_among_them(managed, database):
    """What is written at the same time may share a transaction: what ends one person's rows ends no other's."""
    visits = Dataset(
        "visits",
        database="main",
        subject="who",
        purposes=[PURPOSE],
        erasure="delete",
        fields={"note": Field(sealed=True, lookup=True)},
    )
    people = ["anna", "berit", "cecilie", "dag"]
    written = {who: [] for who in people}
    ended = {who: [] for who in people}
    enough = asyncio.Event()

    async with two_managers(managed, database, visits) as (one, other):
        consents = {who: await one.consents.grant(subject=who, purpose=PURPOSE) for who in people}

        async def write(number, who):
            row = 0
            while not enough.is_set() and not ended[who]:
                id_ = f"{who}-{number}-{row}"
                try:
                    await other.personal("visits").insert({"id": id_, "who": who, "note": "æøå"}, consent=consents[who])
                except (KeyErased, ConsentRequired) as error:
                    ended[who].append(error)
                else:
                    written[who].append(id_)
                row += 1

        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            for number in range(4):
                for who in people:
                    group.create_task(write(number, who))
            await until(lambda: all(written.values()))
            await erase(one, "anna")
            await one.consents.withdraw(consents["berit"])
            seen = {who: len(ids) for who, ids in written.items()}
            await until(lambda: ended["anna"] and ended["berit"])
            await until(lambda: all(len(written[who]) > seen[who] for who in people[2:]))
            enough.set()

        assert not ended["cecilie"]
        assert not ended["dag"]
        rows = await one["main"].query("SELECT id, who FROM visits")
        assert {row["id"] for row in rows} == {*written["berit"], *written["cecilie"], *written["dag"]}
        entries = await one["main"].query("SELECT entry_id FROM datavern_audit WHERE action = 'inserted'")
        assert len(entries) == sum(map(len, written.values()))
        assert (await one.audit.verify()).ok
