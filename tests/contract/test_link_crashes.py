"""An erasure of rows that name no person, cut off at each of its steps: what leads to them is there until they are."""

import asyncio
import signal
import sys
import textwrap
from pathlib import Path

import pytest
from cutting import Cut, cut_at
from test_erasure_crashes import PLACES

from datavern import DatabaseManager, DataMap, Dataset, Field, SQLiteProvider, SubjectRequest
from datavern.testing import create_test_database

SEALED = {"name": Field(sealed=True, lookup=True)}
FOUND = {"main.users": 1, "other.orders": 1, "main.lines": 2, "other.visits": 1}


def datasets():
    """Lines through orders in another database, visits through a number in another database."""
    number = {"number": Field(sealed=True, lookup=True)}
    return (
        Dataset("users", database="main", subject="id", erasure="anonymize", fields={**number, **SEALED}),
        Dataset("orders", database="other", subject="who", fields=SEALED),
        Dataset("lines", database="main", subject="order_id", subject_via="orders.id", fields=SEALED),
        Dataset("visits", database="other", subject="number", subject_via="users.number", fields=SEALED),
    )


async def fill(db, subject):
    number = f"number of {subject}"
    await db.personal("users").insert({"id": subject, "number": number, "name": "Planted"})
    await db.personal("orders").insert({"id": f"o-{subject}", "who": subject, "name": "Planted"})
    lines = [{"id": f"{subject}-{n}", "order_id": f"o-{subject}", "name": "Planted"} for n in range(2)]
    await db.personal("lines").insert_many(lines)
    await db.personal("visits").insert({"id": subject, "number": number, "name": "Planted"})


async def check_done(db, request):
    certificate = await db.subject_requests.certificate(request)
    found = {s["dataset"]: s["found"] for s in certificate.body["stores"]}
    assert found == {**FOUND, "datavern.consents": 0}
    for dataset in datasets():
        planted = await db[dataset.database].query(f"SELECT name FROM {dataset.table}")
        assert [row for row in planted if row["name"] is not None] == []
    assert await db.subject_requests.resume() == []


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


async def test_cut_off_at_every_step_and_finished(db):
    await fill(db, "whole")
    with cut_at(None, PLACES) as passed:
        whole = await db.subject_requests.process(SubjectRequest("erasure", subject="whole"))
    places = passed()
    assert places > 30
    await check_done(db, whole.request_id)
    for place in range(1, places + 1, 2):  # before each of them: what lies between two is the same
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
            request = SubjectRequest("erasure", subject=subject)
            await db.subject_requests.process(request)
        await check_done(db, request.id)


@pytest.mark.parametrize("change", ["DELETE FROM users WHERE id = 'u1'", "UPDATE users SET number = NULL"])
async def test_the_number_goes_between_the_steps(db, change, monkeypatch):
    """Past everything, while the erasure is cut off: what is under the old one is found all the same."""
    await fill(db, "u1")
    request = SubjectRequest("erasure", subject="u1")
    with monkeypatch.context() as patched:

        async def cut(*_):
            raise Cut

        patched.setattr("datavern.privacy.erasure.rows.RowErasure.run", cut)
        with pytest.raises(Cut):
            await db.subject_requests.process(request)
    await db["main"].execute(change)
    await db.subject_requests.resume()
    certificate = await db.subject_requests.certificate(request.id)
    found = {s["dataset"]: s["found"] for s in certificate.body["stores"]}
    assert (found["other.visits"], found["main.lines"]) == (1, 2)
    assert await db["other"].query_value("SELECT count(*) FROM visits") == 0


KILLED = """
    import asyncio, sys
    sys.path.insert(0, {tests!r})
    import test_link_crashes as links
    from cutting import Killed, cut_at
    from datavern import DatabaseManager, DataMap, SQLiteProvider, SubjectRequest

    async def main():
        databases = {{n: SQLiteProvider(n + ".db", name=n, location="norway") for n in ("main", "other")}}
        data_map = DataMap(links.datasets())
        async with DatabaseManager(databases, data_map=data_map, keyring="file:keys", ledger="main") as db:
            with cut_at({place}, links.PLACES, ends=Killed):
                await db.subject_requests.process(SubjectRequest("erasure", subject="u1", id="u1"))

    asyncio.run(main())
"""


@pytest.mark.parametrize("place", [12, 20, 27])
async def test_killed_at_a_step_and_finished_on_opening(place, keyring, tmp_path):
    def manager():
        databases = {n: SQLiteProvider(tmp_path / f"{n}.db", name=n, location="norway") for n in ("main", "other")}
        return DatabaseManager(databases, data_map=DataMap(datasets()), keyring=keyring, ledger="main")

    async with manager() as db:
        for dataset in datasets():
            await db.prepare(dataset.name)
        await fill(db, "u1")
    script = textwrap.dedent(KILLED).format(tests=str(Path(__file__).parent), place=place)
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=tmp_path)
    assert await child.wait() == -signal.SIGKILL
    async with manager() as db:
        await check_done(db, "u1")
