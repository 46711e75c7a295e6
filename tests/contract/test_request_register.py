"""Requests before and beside the work on them: received, identified, put off, refused, waiting; each done once."""

import datetime as dt
import json

import pytest

from datavern import (
    Dataset,
    ErasureIncomplete,
    Field,
    Identity,
    LegalBasis,
    RequestIncomplete,
    SubjectRequest,
    SubjectRequestRejected,
    actor,
)
from datavern.privacy.places import Place
from datavern.privacy.values.deadlines import deadline, extended_deadline
from datavern.testing import create_test_database

FIELDS = {"name": Field(sealed=True, lookup=True, unique=True), "born": Field(sealed=True)}
NAME = "Planted Åse"
REASON = "Planted reason"
TODAY = dt.date.today()  # noqa: DTZ011  (the day of the test)


def visits(name="visits", database="main", **more):
    return Dataset(name, database=database, subject="who", **{"fields": FIELDS, "erasure": "delete", **more})


def asks(kind, subject="u1", **more):
    return SubjectRequest(kind, subject=subject, **{"received": TODAY, **more})


async def fill(db, *names):
    for name in names:
        await db.prepare(name)
        for subject in ("u1", "u2"):
            row = {"id": subject, "who": subject, "name": f"{NAME} {subject}", "born": dt.date(1972, 9, 13)}
            await db.personal(name).insert(row)


async def journal(db):
    return [dict(r) for r in await db["main"].query("SELECT * FROM datavern_requests ORDER BY opened_at, id")]


async def audited(db, action):
    found = await db["main"].query("SELECT * FROM datavern_audit ORDER BY era, stamp, seq")
    return [dict(row) for row in found if row["action"] == action]


@pytest.fixture
async def db(managed):
    async with managed(visits()) as db:
        await fill(db, "visits")
        yield db


@pytest.fixture
async def elsewhere(engine):
    async with create_test_database(engine) as database:
        yield database


# ---- identity -------------------------------------------------------------------------------------------------------


async def test_identity_is_kept_answered_audited_and_certified(db):
    with actor("case-worker-7"):
        identity = Identity(method="bankid")
    assert identity.verified_by == "case-worker-7"
    for kind, action in (("access", "access_request"), ("erasure", "erasure_received")):
        response = await db.subject_requests.process(asks(kind, identity=identity))
        assert response.identity == identity
        (entry,) = await audited(db, action)
        assert json.loads(entry["details"])["identity"]["method"] == "bankid"
    assert response.certificate.body["identity"]["verified_by"] == "case-worker-7"
    assert response.deadline == deadline(TODAY)
    assert b"bankid" not in repr(await journal(db)).encode()  # sealed


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"method": ""}, "say how"),
        ({"method": "passport 12345678"}, "without the number of a document"),
        ({"method": "fnr 130972 48022"}, "without the number"),
        ({"method": "x" * 81}, "80 characters"),
        ({"method": "bankid", "at": dt.datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001
        ({"method": "bankid", "at": dt.datetime(2999, 1, 1, tzinfo=dt.UTC)}, "future"),
    ],
)
def test_an_identity_that_says_nothing_or_too_much_is_refused(given, says):
    with pytest.raises(SubjectRequestRejected, match=says) as refused:
        Identity(**given)
    assert "12345678" not in str(refused.value)


async def test_identity_can_be_asked_for_and_comes_later(managed):
    async with managed(visits(), require_identity=True) as db:
        await fill(db, "visits")
        for kind in ("access", "portability", "erasure", "rectification"):
            with pytest.raises(SubjectRequestRejected, match="make sure that the person asks"):
                await db.subject_requests.process(asks(kind, changes={"visits": {"born": None}}))
        assert await journal(db) == []
        received = await db.subject_requests.receive(asks("erasure"))
        assert not received.begun
        assert received.waits_for == ("it is to be made sure that the person asks: `identify`",)
        with pytest.raises(SubjectRequestRejected, match="make sure"):
            await db.subject_requests.process(received.id)
        assert await db.subject_requests.resume() == []
        assert len([r async for r in db.personal("visits").of("u1")]) == 1
        await db.subject_requests.identify(received.id, Identity("in-person", "kari"))
        response = await db.subject_requests.process(received.id)
        assert (response.request_id, response.identity.method) == (received.id, "in-person")
        assert [r async for r in db.personal("visits").of("u1")] == []


async def test_a_doubt_about_who_asks_stops_the_work_until_it_is_gone(db):
    received = await db.subject_requests.receive(asks("access", identity=Identity("e-mail")))
    doubted = await db.subject_requests.doubt(received.id, reason=REASON)
    assert "proof of who the person is was asked for" in doubted.waits_for[0]
    assert doubted.deadline == received.deadline
    with pytest.raises(SubjectRequestRejected, match="make sure"):
        await db.subject_requests.process(received.id)
    await db.subject_requests.identify(received.id, Identity("bankid"))
    assert (await db.subject_requests.process(received.id)).success
    (entry,) = await audited(db, "request_doubted")
    assert REASON not in entry["details"]
    assert REASON not in repr(await journal(db))
    with pytest.raises(SubjectRequestRejected, match="answered already"):
        await db.subject_requests.doubt(received.id, reason=REASON)


# ---- deadlines ------------------------------------------------------------------------------------------------------


async def test_a_deadline_is_extended_once_within_the_first_month_and_with_a_reason(db):
    received = await db.subject_requests.receive(asks("access"))
    for reason in ("", "  ", None, "x" * 3000):
        with pytest.raises(SubjectRequestRejected, match="reason"):
            await db.subject_requests.extend(received.id, reason=reason)
    extension = await db.subject_requests.extend(received.id, reason="Forespørselen er kompleks")
    assert extension.deadline == extended_deadline(TODAY)
    assert extension.tell_by == received.deadline
    assert "Forespørselen er kompleks. Du får svar innen" in extension.letters["nb"]
    assert extension.deadline.isoformat() in extension.letters["en"]
    assert "Datatilsynet" in extension.letters["nb"]
    (shown,) = await db.subject_requests.open()
    assert (shown.extended, shown.deadline, shown.overdue) == (True, extension.deadline, False)
    with pytest.raises(SubjectRequestRejected, match="extended before"):
        await db.subject_requests.extend(received.id, reason=REASON)
    (entry,) = await audited(db, "request_extended")
    assert "kompleks" not in entry["details"]
    assert (await db.subject_requests.process(received.id)).deadline == extension.deadline
    late = await db.subject_requests.receive(asks("access", received=TODAY - dt.timedelta(days=60)))
    with pytest.raises(SubjectRequestRejected, match="too late: the person had to be told"):
        await db.subject_requests.extend(late.id, reason=REASON)
    with pytest.raises(SubjectRequestRejected, match="no request of that id"):
        await db.subject_requests.extend("none", reason=REASON)


async def test_open_requests_are_listed_the_most_urgent_first(db):
    new = await db.subject_requests.receive(asks("portability", format="csv"))
    old = await db.subject_requests.receive(asks("access", "u2", received=TODAY - dt.timedelta(days=60)))
    listed = await db.subject_requests.open()
    assert [(r.id, r.kind, r.subject, r.overdue) for r in listed] == [
        (old.id, "access", "u2", True),
        (new.id, "portability", "u1", False),
    ]
    assert all(r.waits_for == ("work on it has not begun",) for r in listed)
    assert await db.subject_requests.receive(asks("access", "u2", id=old.id)) == listed[0]  # idempotent
    with pytest.raises(SubjectRequestRejected, match="is another one"):
        await db.subject_requests.receive(asks("access", "u1", id=old.id))
    assert "data.csv" not in (await db.subject_requests.process(new.id)).files
    assert [r.id for r in await db.subject_requests.open()] == [old.id]
    assert (await db.subject_requests.process(old.id)).success
    assert len(await audited(db, "request_received")) == 2


async def test_an_answer_says_why_the_data_is_there_and_who_must_be_told(managed):
    fields = {"name": Field(sealed=True, kind=None), "born": Field(sealed=True, category="identity")}
    told = visits(
        fields=fields,
        purposes=["treatment", "newsletter"],
        legal_basis=[LegalBasis("public_task", "helsepersonelloven § 39", purposes=["treatment"])],
        recipients=["Skatteetaten"],
        retention="10y",
        retention_from_year_end=True,
    )
    async with managed(told, visits("unused", recipients=["NAV"])) as db:
        await db.prepare("visits")
        consent = await db.consents.grant(subject="u1", purpose="newsletter")
        await db.personal("visits").insert({"id": "1", "who": "u1", "name": NAME}, consent=consent)
        answer = await db.subject_requests.process(asks("access"))
        (label,) = answer.information
        said = answer.information[label]
        assert label == "main.visits"
        assert "helsepersonelloven § 39" in said.purposes["treatment"]
        assert said.purposes["newsletter"] == "consent (GDPR Art. 6(1)(a))"
        assert (said.recipients, said.kept) == (("Skatteetaten",), "10y, from the end of that year")
        assert len(said.categories) == 1
        assert "Datatilsynet" in answer.letters["nb"]
        right = await db.subject_requests.process(asks("rectification", changes={"visits": {"name": "Right"}}))
        assert right.recipients == {"main.visits": ["Skatteetaten"]}
        again = await db.subject_requests.process(asks("rectification", id=right.request_id))
        assert again.recipients == right.recipients
        erased = await db.subject_requests.process(asks("erasure"))
        assert erased.recipients == erased.certificate.body["recipients"] == {"main.visits": ["Skatteetaten"]}


async def test_an_answer_says_where_the_data_came_from_and_went_and_what_is_decided_by_itself(managed):
    fields = {"name": Field(sealed=True, kind="name"), "born": Field(sealed=True, source="person")}
    told = visits(
        fields=fields,
        classification="OPEN",
        source=["Folkeregisteret", "NAV"],
        automated_decisions="Ventetiden settes ut fra alder; den avgjør når du får time.",
        transfer={"basis": "scc", "reference": "DPA 12", "country": "USA"},
        legal_basis="helsepersonelloven § 39",
        recipients=["none"],
        retention="10y",
    )
    silent = visits("silent", fields=FIELDS)
    away = Place("Log Inc", "logs", location="global", datasets=frozenset({"visits"}))
    async with managed(told, silent, places=[away]) as db:
        await fill(db, "visits", "silent")
        answer = await db.subject_requests.process(asks("access"))
        said = answer.information["main.visits"]
        assert said.sources == {"": ("Folkeregisteret", "NAV"), "born": ("person",)}
        assert said.automated_decisions.startswith("Ventetiden settes ut fra alder")
        (sent,) = said.transfers
        assert (sent.place, sent.country) == ("Log Inc", "USA")
        assert sent.safeguard == "standard contractual clauses, GDPR Art. 46(2)(c): DPA 12"
        assert said.unsaid == ()
        assert answer.information["main.silent"].unsaid == (
            "purposes", "categories", "recipients", "retention", "source", "automated_decisions",
        )  # fmt: skip
        assert answer.information["main.silent"].transfers == ()
        # Nobody is given it: there is nobody to tell (Art. 19).
        right = await db.subject_requests.process(asks("rectification", changes={"visits": {"name": "Right"}}))
        erased = await db.subject_requests.process(asks("erasure"))
        assert not right.recipients
        assert not erased.recipients
        assert not erased.certificate.body["recipients"]


# ---- refusals -------------------------------------------------------------------------------------------------------


async def test_a_refusal_says_why_and_where_to_complain(db):
    received = await db.subject_requests.receive(asks("access"))
    with pytest.raises(SubjectRequestRejected, match="reason: missing"):
        await db.subject_requests.reject(received.id, "")
    with pytest.raises(SubjectRequestRejected, match="ground: expected one of"):
        await db.subject_requests.reject(received.id, REASON, ground="tired")
    response = await db.subject_requests.reject(received.id, REASON)
    assert not response.success
    assert "manifestly unfounded (GDPR Art. 12(5))" in response.message
    assert f"{REASON}. You may complain to the Norwegian Data Protection Authority" in response.message
    assert "Du kan klage til Datatilsynet" in response.letters["nb"]
    again = await db.subject_requests.process(asks("access", id=received.id))
    assert (again.success, again.message, again.data) == (False, response.message, None)
    assert await db.subject_requests.open() == []
    at_once = await db.subject_requests.reject(asks("erasure"), "Bokføringsloven § 13", ground="exempt")
    assert "the law makes an exception: Bokføringsloven § 13." in at_once.message
    assert [r["outcome"] for r in await journal(db)] == ["rejected", "rejected"]
    assert REASON not in repr(await journal(db)) + repr(await audited(db, "request_rejected"))
    with pytest.raises(SubjectRequestRejected, match="answered already"):
        await db.subject_requests.reject(received.id, REASON)


# ---- once, and to the end -------------------------------------------------------------------------------------------


async def test_every_kind_is_done_once(db):
    changes = {"visits": {"born": dt.date(1980, 1, 1)}}
    for kind, more in (("access", {}), ("portability", {"format": "csv"}), ("rectification", {"changes": changes})):
        request = asks(kind, **more)
        first = await db.subject_requests.process(request)
        second = await db.subject_requests.process(request)
        assert (second.request_id, second.completed_at, second.message) == (
            first.request_id,
            first.completed_at,
            first.message,
        )
        assert (second.data, second.files) == (first.data, first.files)
        assert len(await audited(db, f"{kind}_request")) == 1
    assert len(await audited(db, "rectified")) == 1
    assert len(await audited(db, "access_repeated")) == 1
    request = asks("erasure")
    first = await db.subject_requests.process(request)
    second = await db.subject_requests.process(request)
    assert second.certificate == first.certificate
    assert (second.message, second.completed_at) == (first.message, first.completed_at)
    assert (await db.subject_requests.process(request.id)).certificate == first.certificate
    with pytest.raises(SubjectRequestRejected, match="is another one"):
        await db.subject_requests.process(asks("erasure", "u2", id=request.id))
    assert [r["kind"] for r in await journal(db)] == ["access", "portability", "rectification", "erasure"]
    kept = await journal(db)
    assert all(r["subject"] is None and r["completed_at"] for r in kept)
    assert [r["details"] is None for r in kept] == [True, True, True, False]  # what was said goes with the person


async def test_a_request_for_nobody_is_answered_truthfully_and_audited(db):
    for kind in ("access", "portability", "erasure"):
        response = await db.subject_requests.process(asks(kind, "nobody"))
        assert (response.success, response.message) == (True, "Nothing was found about this subject.")
    with pytest.raises(SubjectRequestRejected, match="nothing was found about this subject"):
        await db.subject_requests.process(asks("rectification", "nobody", changes={"visits": {"born": None}}))
    for action in ("access_request", "portability_request", "erasure_completed"):
        assert len(await audited(db, action)) == 1


async def test_a_store_that_is_down_is_waited_for(managed, database, elsewhere):
    databases = {"main": database.provider(location="norway"), "other": elsewhere.provider("other", location="norway")}
    async with managed(visits(), visits("logins", "other"), databases=databases) as db:
        await fill(db, "visits", "logins")
        await db["other"].close()
        access = asks("access")
        right = {"visits": {"born": dt.date(1980, 1, 1)}, "logins": {"born": dt.date(1980, 1, 1)}}
        rectification = asks("rectification", changes=right)
        with pytest.raises(RequestIncomplete, match=r"waits for other\.logins") as waits:
            await db.subject_requests.process(access)
        assert not isinstance(waits.value, ErasureIncomplete)
        assert "ConnectionFailed" in waits.value.receipt.waiting["other.logins"]
        with pytest.raises(RequestIncomplete, match=r"changed already: main\.visits"):
            await db.subject_requests.process(rectification)
        listed = {r.kind: r for r in await db.subject_requests.open()}
        assert "other.logins: ConnectionFailed" in listed["access"].waits_for[0]
        assert listed["rectification"].begun
        (still,) = await db.subject_requests.resume()
        assert list(still.waiting) == ["other.logins"]
        await db["other"].connect()
        (done,) = await db.subject_requests.resume()
        assert done.message == "Changed: main.visits, other.logins."
        assert (await db.personal("logins").get("u1"))["born"] == dt.date(1980, 1, 1)
        assert (await db.subject_requests.process(access)).data["other.logins"][0]["born"] == "1980-01-01"
        assert await db.subject_requests.open() == []
        assert len(await audited(db, "rectified")) == 1
        assert len(await audited(db, "access_request")) == 1


async def test_a_rectification_that_breaks_a_constraint_says_what_is_done_and_what_is_not(managed, database, elsewhere):
    databases = {"main": database.provider(location="norway"), "other": elsewhere.provider("other", location="norway")}
    async with managed(visits(), visits("logins", "other"), databases=databases) as db:
        await fill(db, "visits", "logins")
        taken = f"{NAME} u2"
        request = asks("rectification", changes={"visits": {"born": None}, "logins": {"name": taken}})
        with pytest.raises(SubjectRequestRejected, match=r"other: a constraint .* changed already: main.visits") as no:
            await db.subject_requests.process(request)
        assert taken not in str(no.value) + repr(no.value.__context__)
        (still,) = await db.subject_requests.resume()
        assert "a constraint does not allow it" in still.waiting["rectification"]
        await db.personal("logins").update("u2", {"name": "Another"})
        (done,) = await db.subject_requests.resume()
        assert done.success
        assert len(await audited(db, "rectified")) == 1
        # Where nothing was changed, it waits for other values, or for a refusal.
        request = asks("rectification", changes={"visits": {"name": taken}})
        with pytest.raises(SubjectRequestRejected, match="nothing was changed"):
            await db.subject_requests.process(request)
        assert await db.subject_requests.resume() == []
        (listed,) = await db.subject_requests.open()
        assert not listed.begun
        assert "a constraint does not allow it" in listed.waits_for[0]
        right = asks("rectification", id=request.id, changes={"visits": {"name": "Riktig Navn"}})
        assert (await db.subject_requests.process(right)).success
        assert (await db.personal("visits").get("u1"))["name"] == "Riktig Navn"
        assert await db.subject_requests.open() == []


async def test_what_is_said_of_a_request_while_it_is_taken_up_stands(db):
    requests = db.subject_requests
    work = requests._fulfilment
    stale = asks("access", identity=Identity("bankid"))
    received = await requests.receive(stale)
    entry = await work._taken(stale)
    await requests.extend(received.id, reason=REASON)
    begun = await work._begun(entry)
    assert begun.details["extension"]["reason"] == f"{REASON}."
    refused = await requests.receive(asks("erasure"))
    entry = await work._taken(refused.id)
    await requests.reject(refused.id, REASON)
    with pytest.raises(SubjectRequestRejected, match="by somebody else: ask again"):
        await work._erase(entry)
    assert len([r async for r in db.personal("visits").of("u1")]) == 1
    await db.personal("visits").update("u1", {"born": None})  # and the keys are as they were
    doubted = await requests.receive(asks("access", identity=Identity("bankid")))
    entry = await work._taken(doubted.id)
    await requests.doubt(doubted.id, reason=REASON)
    with pytest.raises(SubjectRequestRejected, match="make sure"):
        await work._access(entry)
    answered = await requests.receive(asks("access"))
    entry = await work._begun(await work._taken(answered.id))
    await requests.reject(answered.id, REASON)
    with pytest.raises(SubjectRequestRejected, match="refused meanwhile"):
        await work._access(entry)
