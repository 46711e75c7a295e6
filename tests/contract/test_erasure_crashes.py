"""An erasure that is cut off at each of its steps is finished, and every step of it is done once."""

import asyncio
import json
import signal
import sys
import textwrap
from pathlib import Path

import pytest
from cutting import Cut, cut_at

from datavern import DatabaseManager, DataMap, Dataset, Field, KeyErased, SQLiteProvider, SubjectRequest
from datavern.audit.log import AuditLog
from datavern.contracts.errors import DatavernError
from datavern.crypto.keystore import KeyStore
from datavern.crypto.life import KeyLife
from datavern.engines.relational import RelationalSubjects
from datavern.privacy.consent.consent import Consents
from datavern.privacy.erasure import rows as row_erasure
from datavern.privacy.journal.journal import Journal, Steps
from datavern.testing import create_test_database

SEALED = {"name": Field(sealed=True, lookup=True)}
# Where an erasure can be cut off: before and after each of these.
PLACES = (
    (Journal, "begin"),
    (Journal, "hold"),
    (Journal, "close"),
    (KeyStore, "start_erasures"),
    (KeyStore, "destroy_keys"),
    (KeyLife, "end"),
    (Steps, "done_many"),
    (Steps, "record"),
    (AuditLog, "append_many"),
    (Consents, "delete"),
    (row_erasure, "apply"),
    (RelationalSubjects, "change_many"),
)


def datasets():
    return (
        Dataset("visits", database="main", subject="who", fields=SEALED),
        Dataset("people", database="main", subject="who", erasure="anonymize", fields=SEALED),
        Dataset(
            "bills",
            database="other",
            subject="who",
            erasure="retain",
            retention="5y",
            legal_basis="bokføringsloven § 13",
            fields=SEALED,
        ),
    )


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


async def fill(db, subject):
    for dataset in datasets():
        rows = [{"id": f"{subject}-{n}", "who": subject, "name": "Planted"} for n in range(2)]
        await db.personal(dataset.name).insert_many(rows)
    await db.consents.grant(subject=subject, purpose="p")


async def rows_of(db, subject):
    return {d.name: [r async for r in db.personal(d.name).of(subject)] for d in datasets()}


async def check_done(db, subject, request):
    """Everything is gone, or kept as the law says; each step was done once, and told once."""
    left = await rows_of(db, subject)
    assert (left["visits"], left["people"]) == ([], [])
    assert [r["name"] for r in left["bills"]] == ["Planted"] * 2
    certificate = await db.subject_requests.certificate(request)
    assert {s["dataset"]: s["found"] for s in certificate.body["stores"]} == {
        "main.visits": 2,
        "main.people": 2,
        "other.bills": 2,
        "datavern.consents": 1,
    }
    assert len(certificate.body["keys"]) == 3
    told = []
    for name in ("main", "other"):
        for action, dataset, details in await db[name].query("SELECT action, dataset, details FROM datavern_audit"):
            if details and json.loads(details).get("request") == request:
                told.append((action, dataset))
    assert sorted(told, key=str) == sorted(
        [
            ("erasure_received", None),
            ("erasure_completed", None),
            ("erased", "main.visits"),
            ("erased", "main.people"),
            ("erased", "other.bills"),
            ("erased", "datavern.consents"),
        ],
        key=str,
    )
    assert await db.subject_requests.resume() == []


async def test_cut_off_at_every_step_and_finished(db):
    await fill(db, "whole")
    with cut_at(None, PLACES) as passed:
        whole = await db.subject_requests.process(SubjectRequest("erasure", subject="whole"))
    places = passed()
    assert places > 40
    await check_done(db, "whole", whole.request_id)
    for place in range(1, places + 1):
        subject = f"person-{place}"
        await fill(db, subject)
        request = SubjectRequest("erasure", subject=subject)
        try:
            with cut_at(place, PLACES):
                await db.subject_requests.process(request)
        except Cut:
            pass
        begun = await db["main"].query_value(f"SELECT count(*) FROM datavern_requests WHERE id = '{request.id}'")
        await db.subject_requests.resume()
        if not begun:  # cut off before it was written down: nothing was changed
            left = await rows_of(db, subject)
            assert [len(found) for found in left.values()] == [2, 2, 2]
            again = await db.subject_requests.process(SubjectRequest("erasure", subject=subject))
            await check_done(db, subject, again.request_id)
        else:
            await check_done(db, subject, request.id)


async def test_a_person_who_returns_waits_for_the_end_and_is_not_erased_again(db, monkeypatch):
    await fill(db, "u1")

    async def cut(*args, **kwargs):
        raise Cut

    request = SubjectRequest("erasure", subject="u1")
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "close", cut)
        with pytest.raises(Cut):
            await db.subject_requests.process(request)
    with pytest.raises(KeyErased):
        await db.personal("visits").insert({"id": "back", "who": "u1", "name": "Back"})
    (response,) = await db.subject_requests.resume()
    assert response.request_id == request.id
    assert len(response.certificate.body["keys"]) == 3
    await db.personal("visits").insert({"id": "back", "who": "u1", "name": "Back"})
    assert await db.subject_requests.resume() == []
    assert (await db.personal("visits").get("back"))["name"] == "Back"


async def test_two_processes_finish_the_same_erasure_once(db, managed, monkeypatch):
    await fill(db, "u1")

    async def cut(*args, **kwargs):
        raise Cut

    request = SubjectRequest("erasure", subject="u1")
    with monkeypatch.context() as patched:
        patched.setattr(row_erasure.RowErasure, "run", cut)
        with pytest.raises(Cut):
            await db.subject_requests.process(request)
    answers = await asyncio.gather(*(db.subject_requests.resume() for _ in range(3)))
    certificates = {answer.certificate.to_json() for found in answers for answer in found}
    assert len(certificates) == 1
    await check_done(db, "u1", request.id)


async def test_writers_and_an_erasure_at_the_same_time(db):
    """Every row that was written is erased, or was written by the person who came back under a new key."""
    visits = db.personal("visits")
    await fill(db, "u1")
    refused = written = 0

    async def write(writer):
        nonlocal refused, written
        for n in range(25):
            try:
                await visits.insert({"id": f"w{writer}-{n}", "who": "u1", "name": "Planted"})
                written += 1
            except KeyErased:
                refused += 1
            except DatavernError as error:
                assert error.retry in ("transaction", "safe"), error  # noqa: PT017  (any other is a fault)
            await asyncio.sleep(0)

    async def erase():
        await asyncio.sleep(0.01)
        return await db.subject_requests.process(SubjectRequest("erasure", subject="u1"))

    erased, *_ = await asyncio.gather(erase(), *(write(writer) for writer in range(4)))
    found = next(s for s in erased.certificate.body["stores"] if s["dataset"] == "main.visits")["found"]
    left = [row async for row in visits.of("u1")]
    assert found + len(left) == written + 2
    assert all(row["name"] == "Planted" for row in left)  # under a key that lives
    gone = {key["id"] for key in erased.certificate.body["keys"]}
    raw = await db["main"].query("SELECT name FROM visits")
    assert not any(row["name"][1:17].hex() in gone for row in raw)


KILLED = """
    import asyncio, sys
    sys.path.insert(0, {tests!r})
    import test_erasure_crashes as crashes
    from cutting import Killed, cut_at
    from datavern import DatabaseManager, DataMap, SQLiteProvider, SubjectRequest

    async def main():
        databases = {{n: SQLiteProvider(n + ".db", name=n, location="norway") for n in ("main", "other")}}
        data_map = DataMap(crashes.datasets())
        async with DatabaseManager(databases, data_map=data_map, keyring="file:keys", ledger="main") as db:
            with cut_at({place}, crashes.PLACES, ends=Killed):
                await db.subject_requests.process(SubjectRequest("erasure", subject={subject!r}, id={subject!r}))

    asyncio.run(main())
"""


@pytest.mark.parametrize("place", [7, 31])  # every place: tests/faults/test_erasure_kills.py
async def test_killed_at_a_step_and_finished_on_opening(place, keyring, tmp_path):
    def manager():
        databases = {n: SQLiteProvider(tmp_path / f"{n}.db", name=n, location="norway") for n in ("main", "other")}
        return DatabaseManager(databases, data_map=DataMap(datasets()), keyring=keyring, ledger="main")

    async with manager() as db:
        for dataset in datasets():
            await db.prepare(dataset.name)
        await fill(db, "u1")
    script = textwrap.dedent(KILLED).format(tests=str(Path(__file__).parent), place=place, subject="u1")
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=tmp_path)
    assert await child.wait() == -signal.SIGKILL
    async with manager() as db:
        await check_done(db, "u1", "u1")
