"""Rectifications, and answers, that are cut off at each of their steps: finished, once, with one audit entry."""

import datetime as dt
import json

import pytest
from cutting import Cut, cut_at

from datavern import Dataset, Field, Identity, SubjectRequest
from datavern.audit.log import AuditLog
from datavern.privacy.journal.journal import Journal, Steps
from datavern.privacy.personal.store import PersonalStore
from datavern.testing import create_test_database

PLACES = (
    (Journal, "begin"),
    (Journal, "complete"),
    (Journal, "receive"),
    (Journal, "note"),
    (Journal, "extend"),
    (Steps, "record"),
    (AuditLog, "append"),
    (PersonalStore, "change_row"),
)
FIELDS = {"born": Field(sealed=True)}
RIGHT = dt.date(1980, 1, 1)


@pytest.fixture
async def db(managed, database, engine):
    async with create_test_database(engine) as elsewhere:
        datasets = [Dataset(name, database=where, subject="who", fields=FIELDS) for name, where in
                    (("visits", "main"), ("logins", "main"), ("bills", "other"))]  # fmt: skip
        databases = {
            "main": database.provider(location="norway"),
            "other": elsewhere.provider("other", location="norway"),
        }
        async with managed(*datasets, databases=databases) as db:
            for dataset in datasets:
                await db.prepare(dataset.name)
            yield db


async def fill(db, subject):
    for name in ("visits", "logins", "bills"):
        await db.personal(name).insert({"id": subject, "who": subject, "born": dt.date(1972, 9, 13)})


async def audited(db, request, action):
    found = [row for name in ("main", "other") for row in await db[name].query("SELECT * FROM datavern_audit")]
    return [row for row in found if row["action"] == action and request in row["details"]]


async def cut(place, work):
    """Run it until it is cut off; whether it was."""
    try:
        with cut_at(place, PLACES):
            await work()
    except Cut:
        return True
    return False


async def test_a_rectification_that_is_cut_off_anywhere_is_finished_once(db):
    changes = {name: {"born": RIGHT} for name in ("visits", "logins", "bills")}
    place = 0
    while True:
        place += 1
        subject = f"u{place}"
        await fill(db, subject)
        request = SubjectRequest("rectification", subject=subject, changes=changes, identity=Identity("bankid"))
        done = not await cut(place, lambda request=request: db.subject_requests.process(request))
        listed = {one.id for one in await db.subject_requests.open()}
        await db.subject_requests.resume()
        if request.id not in listed and not done and not await audited(db, request.id, "rectification_request"):
            # It was cut off before it was written down: nothing was changed, and it is asked for again.
            assert (await db.personal("visits").get(subject))["born"] != RIGHT
        response = await db.subject_requests.process(request)
        assert response.message == "Changed: main.visits, main.logins, other.bills."
        for name in changes:
            assert (await db.personal(name).get(subject))["born"] == RIGHT
        assert len(await audited(db, request.id, "rectified")) == 3
        assert len(await audited(db, request.id, "rectification_request")) == 1
        assert await db.subject_requests.open() == []
        if done:
            break
    assert place > 15


async def test_an_answer_and_an_extension_that_are_cut_off_are_given_once(db):
    await fill(db, "u")
    place = 0
    while True:
        place += 1
        request = SubjectRequest("access", subject="u")

        async def work(request=request):
            await db.subject_requests.receive(request)
            await db.subject_requests.extend(request.id, reason="Complex")
            await db.subject_requests.identify(request.id, Identity("bankid"))
            await db.subject_requests.process(request.id)

        done = not await cut(place, work)
        await db.subject_requests.receive(request) if not await audited(db, request.id, "access_request") else None
        (shown,) = [one for one in await db.subject_requests.open() if one.id == request.id] or [None]
        if shown is not None and not shown.extended:
            await db.subject_requests.extend(request.id, reason="Complex")
        answer = await db.subject_requests.process(request)
        assert answer.data["main.visits"][0]["born"] == "1972-09-13"
        for action in ("request_received", "request_extended", "access_request"):
            (entry,) = await audited(db, request.id, action)
            assert json.loads(entry["details"])["kind"] == "access"
        if done:
            break
    assert place > 10
