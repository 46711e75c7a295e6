"""Restrictions and objections: what stands is refused in every dataset and process, until it is lifted."""

from __future__ import annotations

import asyncio
import datetime as dt
import json

import pytest

from datavern import (
    ConfigurationError,
    ConsentRequired,
    DatabaseManager,
    Dataset,
    Field,
    KeyErased,
    LegalBasis,
    ProcessingRestricted,
    ProviderError,
    SQLiteProvider,
    SubjectRequest,
    SubjectRequestRejected,
    purpose,
    restricted_use,
)
from datavern.privacy.personal.reading import Found

LAW = "kommuneloven § 1"
TODAY = dt.datetime.now().astimezone().date()
SEALED = {"name": Field(sealed=True, lookup=True, prefixes=[3], ngrams=3)}
VISITS = Dataset("visits", database="main", subject="who", legal_basis=LAW, fields=SEALED)
INTEREST = LegalBasis("legitimate_interests", purposes=["fraud-prevention"], balancing="LIA-4")
CUSTOMERS = Dataset(
    "customers",
    database="main",
    subject="id",
    purposes=["account", "fraud-prevention", "newsletter", "research"],
    legal_basis=[
        LegalBasis("contract", "terms § 2", purposes=["account"]),
        INTEREST,
        LegalBasis("consent", purposes=["newsletter"], marketing=True),
    ],
    fields={"name": Field(sealed=True)},
)
PROFILES = Dataset(
    "profiles",
    database="main",
    subject="id",
    purposes=["fraud-prevention"],
    legal_basis=INTEREST,
    fields={"score": Field(sealed=True)},
)


@pytest.fixture
async def visits(managed):
    """A manager with two people's visits."""
    async with managed(VISITS) as db:
        await db.prepare("visits")
        store = db.personal("visits")
        for number, who in enumerate(("kari", "kari", "ola")):
            await store.insert({"id": str(number), "who": who, "name": f"Nordmann {who}"})
        yield db


async def process(db, kind, subject="kari", **more):
    return await db.subject_requests.process(SubjectRequest(kind, subject=subject, **more))


async def audited(db, action):
    rows = await db["main"].query("SELECT action, handle, dataset, details FROM datavern_audit ORDER BY seq")
    return [{**dict(row), "details": json.loads(row["details"])} for row in rows if row["action"] == action]


async def everything(store):
    """What each way to read and write says: the error's class, or what it gave."""

    async def all_of():
        return [row async for row in store.of("kari")]

    async def opened():
        rows = await store.provider.query("SELECT * FROM visits WHERE who = 'kari'")
        return await store.open(rows)

    ways = {
        "get": lambda: store.get("0"),
        "of": all_of,
        "open": opened,
        "insert": lambda: store.insert({"id": "9", "who": "kari", "name": "x"}),
        "insert_many": lambda: store.insert_many([{"id": "9", "who": "kari", "name": "x"}]),
        "update": lambda: store.update("0", {"name": "x"}),
        "delete": lambda: store.delete("1"),
    }
    said = {}
    for way, work in ways.items():
        try:
            said[way] = await work()
        except ProcessingRestricted as error:
            said[way] = "told who" if "kari" in str(error) else error.reason
    return said


async def test_a_restriction_stops_every_use_and_nothing_is_lost(visits):
    db, store = visits, visits.personal("visits")
    before = [row async for row in store.of("kari")]
    response = await process(db, "restriction", ground="accuracy")
    assert response.success
    assert response.found == {"main.visits": 2}
    assert "2 rows" in response.message
    assert set((await everything(store)).values()) == {"restriction"}
    for found in (
        await store.find(who="kari"),
        await store.find(name="Nordmann kari"),
        await store.starts_with(name="Nor", limit=5),
        await store.contains(name="dma"),
    ):
        assert isinstance(found, Found)
        assert found.withheld == 2
        assert [row["id"] for row in found] in ([], ["2"])
    assert (await store.get("2"))["name"] == "Nordmann ola"  # nobody else is concerned
    assert await store.update("2", {"name": "Ola Nordmann"})
    access = await process(db, "access")  # the person still sees all of it
    assert access.data["main.visits"] == before
    portable = await process(db, "portability")
    assert len(portable.data["main.visits"]) == 2
    fixed = await process(db, "rectification", changes={"visits": {"id": "0", "name": "Right Name"}})
    assert fixed.success
    lifted = await db.subject_requests.lift(response.request_id, informed=TODAY)
    assert lifted.success
    assert (await store.get("0"))["name"] == "Right Name"
    assert (await store.get("1")) == before[1]
    (restricted,) = await audited(db, "restricted")
    (end,) = await audited(db, "restriction_lifted")
    assert restricted["handle"] == end["handle"]
    assert restricted["details"]["ground"] == "accuracy"
    assert end["details"]["informed"] == TODAY.isoformat()


async def test_a_restriction_is_made_once_and_lifted_once(visits):
    db = visits
    request = SubjectRequest("restriction", subject="kari")
    first = await db.subject_requests.process(request)
    again = await db.subject_requests.process(request)
    assert (again.message, again.found) == (first.message, first.found)
    (standing,) = await db.subject_requests.standing("kari")
    assert standing.request == request.id
    lift = db.subject_requests.lift
    with pytest.raises(SubjectRequestRejected, match="on which day"):
        await lift(request.id)
    with pytest.raises(SubjectRequestRejected, match="in the future"):
        await lift(request.id, informed=TODAY + dt.timedelta(days=2))
    with pytest.raises(SubjectRequestRejected, match="no restriction or objection"):
        await lift("none", informed=TODAY)
    await lift(request.id, informed=TODAY)
    with pytest.raises(SubjectRequestRejected, match="it was lifted"):
        await lift(request.id, informed=TODAY)
    assert await db.subject_requests.standing("kari") == []
    assert len(await audited(db, "restricted")) == 1


async def test_two_restrictions_end_with_the_second(visits):
    db, store = visits, visits.personal("visits")
    first, second = [await process(db, "restriction") for _ in range(2)]
    await db.subject_requests.lift(first.request_id, informed=TODAY)
    with pytest.raises(ProcessingRestricted) as refused:
        await store.get("0")
    assert refused.value.request == second.request_id
    await db.subject_requests.lift(second.request_id, informed=TODAY)
    assert await store.get("0")


async def test_restricted_in_some_datasets(managed):
    notes = Dataset("notes", database="main", subject="who", legal_basis=LAW, fields={"text": Field(sealed=True)})
    async with managed(VISITS, notes) as db:
        for name in ("visits", "notes"):
            await db.prepare(name)
        await db.personal("visits").insert({"id": "0", "who": "kari", "name": "x"})
        await process(db, "restriction", datasets=["notes"])
        assert await db.personal("visits").get("0")
        with pytest.raises(ProcessingRestricted):
            await db.personal("notes").insert({"id": "0", "who": "kari", "text": "x"})
        with pytest.raises(ConfigurationError, match="no dataset is named nots"):
            await process(db, "restriction", datasets=["nots"])
        assert len(await db.subject_requests.standing("kari")) == 1


async def test_the_way_through_is_audited(visits):
    db, store = visits, visits.personal("visits")
    response = await process(db, "restriction")
    with restricted_use("legal_claims", reason="sak 26/1234"):
        assert (await store.get("0"))["name"] == "Nordmann kari"
        assert len(await store.find(who="kari")) == 2
        assert await store.update("0", {"name": "New"})
        async with db["main"].transaction() as tx:
            await store.insert({"id": "9", "who": "kari", "name": "x"}, transaction=tx)
    with pytest.raises(ProcessingRestricted):
        await store.get("0")
    told = await audited(db, "restricted_use")
    assert [entry["details"]["writes"] for entry in told] == [False, False, True, True]
    assert {entry["details"]["reason"] for entry in told} == {"sak 26/1234"}
    assert {entry["details"]["request"] for entry in told} == {response.request_id}
    consent = await db.consents.grant(subject="kari", purpose="this")
    other = await db.consents.grant(subject="ola", purpose="this")
    with restricted_use("consent", reason="asked for", consent=consent):
        assert await store.get("0")
    with restricted_use("consent", reason="asked for", consent=other), pytest.raises(ConsentRequired, match="another"):
        await store.get("0")
    for given, says in (
        ({"ground": "curiosity", "reason": "x"}, "legal_claims"),
        ({"ground": "legal_claims", "reason": " "}, "audit log"),
        ({"ground": "consent", "reason": "x"}, "names the consent"),
        ({"ground": "legal_claims", "reason": "x", "consent": consent}, "no other ground"),
    ):
        with pytest.raises(ConfigurationError, match=says), restricted_use(**given):
            pass


async def test_a_use_that_is_undone_takes_its_entry_along(visits):
    db, store = visits, visits.personal("visits")
    await process(db, "restriction")
    with restricted_use("public_interest", reason="x"), pytest.raises(ZeroDivisionError):
        async with db["main"].transaction() as tx:
            await store.update("0", {"name": "New"}, transaction=tx)
            raise ZeroDivisionError
    assert await audited(db, "restricted_use") == []


async def test_within_a_transaction_it_counts_too(visits):
    db, store = visits, visits.personal("visits")
    await process(db, "restriction")
    async with db["main"].transaction() as tx:
        db.services.standing.forget()
        with pytest.raises(ProcessingRestricted):
            await store.get("0", transaction=tx)
        with pytest.raises(ProcessingRestricted):
            await store.insert({"id": "9", "who": "kari", "name": "x"}, transaction=tx)
        await store.insert({"id": "9", "who": "ola", "name": "x"}, transaction=tx)
    assert (await store.get("9"))["who"] == "ola"


async def test_a_restricted_person_is_not_erased(visits):
    db = visits
    restricted = await process(db, "restriction", ground="legal_claims")
    with pytest.raises(SubjectRequestRejected, match="lift the restriction first"):
        await process(db, "erasure")
    answers = {who: answer async for who, answer in db.subject_requests.erase_many(["kari", "ola"])}
    assert "restriction" in answers["kari"].waiting
    assert answers["ola"].success
    assert len(await db["main"].query("SELECT id FROM visits")) == 2
    await db.subject_requests.lift(restricted.request_id, informed=TODAY)
    assert (await process(db, "erasure")).success
    assert len(await db["main"].query("SELECT id FROM datavern_restrictions")) == 0
    assert await db["main"].query("SELECT id FROM visits") == []


async def test_a_restriction_while_an_erasure_runs_is_refused(visits):
    db = visits
    await db.keys.start_erasures(["kari"])
    db.keys.heard_of_erasures()
    with pytest.raises(KeyErased):
        await process(db, "restriction")
    assert await db.subject_requests.standing("kari") == []


async def test_nobody_is_answered_truthfully(visits):
    response = await process(visits, "restriction", subject="nobody")
    assert response.success
    assert response.message.startswith("Nothing was found about this subject")
    with pytest.raises(ProcessingRestricted):
        await visits.personal("visits").insert({"id": "9", "who": "nobody", "name": "x"})


async def test_cut_off_behind_the_journal_it_is_gone_on_with(managed, monkeypatch):
    async with managed(VISITS) as db:
        await db.prepare("visits")
        restrictions = type(db.subject_requests._restrictions)

        async def cut(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(restrictions, "restrict", cut)
            with pytest.raises(KeyboardInterrupt):
                await process(db, "restriction")
        assert await db.subject_requests.standing("kari") == []
        (answer,) = await db.subject_requests.resume()
        assert answer.success
        assert len(await db.subject_requests.standing("kari")) == 1
        assert await db.subject_requests.resume() == []


# ---- objections -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def shop(managed):
    """A manager with a customer, and a profile that rests on legitimate interests alone."""
    async with managed(CUSTOMERS, PROFILES, VISITS) as db:
        for name in ("customers", "profiles", "visits"):
            await db.prepare(name)
        consents = [await db.consents.grant(subject="kari", purpose=p) for p in ("newsletter", "research")]
        await db.personal("customers").insert({"id": "kari", "name": "Kari"}, consent=consents)
        await db.personal("profiles").insert({"id": "kari", "score": 7})
        yield db, consents


def decided(response):
    return {(d["dataset"], d["purpose"]): d["decision"] for d in response.decisions}


async def test_an_objection_stops_what_it_reaches_and_no_more(shop):
    db, consents = shop
    customers, profiles = db.personal("customers"), db.personal("profiles")
    response = await process(db, "objection")
    assert decided(response) == {
        ("main.customers", "account"): "does_not_apply",
        ("main.customers", "fraud-prevention"): "stopped",
        ("main.customers", "newsletter"): "stopped",
        ("main.customers", "research"): "withdraw",
        ("main.profiles", "fraud-prevention"): "stopped",
        ("main.visits", ""): "undecided",
    }
    assert not response.success  # one is for somebody to decide
    assert "To be decided by hand" in response.message
    assert await customers.update("kari", {"name": "Kari N"}, consent=consents)  # the contract goes on
    with pytest.raises(ProcessingRestricted, match="objected") as refused:
        await profiles.update("kari", {"score": 8})
    assert (refused.value.reason, refused.value.request) == ("objection", response.request_id)
    assert (await profiles.get("kari"))["score"] == 7  # it may be looked at, to answer
    for named in ("fraud-prevention", "newsletter"):
        with purpose(named):
            with pytest.raises(ProcessingRestricted, match=named):
                await customers.get("kari")
            assert (await customers.find(id="kari")).withheld == 1
    with purpose("account"):
        assert await customers.get("kari")
        assert await customers.update("kari", {"name": "Kari"})  # and needs no consent
    again = await db.subject_requests.process(SubjectRequest("objection", subject="kari", id=response.request_id))
    assert decided(again) == decided(response)
    assert not again.success


async def test_compelling_grounds_go_on_but_not_with_marketing(shop):
    db, _ = shop
    response = await process(db, "objection", override={"fraud-prevention": "police case 26/7"})
    assert decided(response)[("main.profiles", "fraud-prevention")] == "overridden"
    assert decided(response)[("main.customers", "newsletter")] == "stopped"
    assert await db.personal("profiles").update("kari", {"score": 8})
    (told,) = await audited(db, "objected")
    assert told["details"]["overridden"]["main.profiles: fraud-prevention"] == "police case 26/7"
    with pytest.raises(SubjectRequestRejected, match="direct marketing"):
        await process(db, "objection", override={"newsletter": "we want to"})
    with pytest.raises(SubjectRequestRejected, match="nothing overrides"):
        await db.subject_requests.lift(response.request_id, reason="we want to")
    await db.subject_requests.lift(response.request_id, by_person=True)
    with purpose("newsletter"):
        assert await db.personal("customers").get("kari")


async def test_an_objection_to_one_purpose_and_its_end(shop):
    db, _ = shop
    with pytest.raises(SubjectRequestRejected, match="no dataset is for spam"):
        await process(db, "objection", purposes=["spam"])
    response = await process(db, "objection", purposes=["fraud-prevention"])
    assert response.success
    assert set(decided(response).values()) == {"stopped"}
    with pytest.raises(ProcessingRestricted):
        await db.personal("profiles").insert({"id": "kari", "score": 1})
    with pytest.raises(SubjectRequestRejected, match="compelling"):
        await db.subject_requests.lift(response.request_id)
    await db.subject_requests.lift(response.request_id, reason="a court order")
    assert await db.personal("profiles").update("kari", {"score": 1})
    (told,) = await audited(db, "objection_lifted")
    assert told["details"]["reason"] == "a court order"
    with restricted_use("legal_claims", reason="x"):
        assert await process(db, "objection", purposes=["fraud-prevention"])
        with pytest.raises(ProcessingRestricted, match="objected"):  # that is the way through a restriction alone
            await db.personal("profiles").update("kari", {"score": 1})


async def test_objections_add_up(managed):
    basis = LegalBasis("public_task", "kommuneloven § 1")
    cases = Dataset(
        "cases", database="main", subject="who", purposes=["a", "b"], legal_basis=basis, fields={"x": Field()}
    )
    async with managed(cases) as db:
        await db.prepare("cases")
        await process(db, "objection", purposes=["a"])
        await db.personal("cases").insert({"id": "1", "who": "kari", "x": "1"})  # it is for the other
        second = await process(db, "objection", purposes=["b"])
        with pytest.raises(ProcessingRestricted):
            await db.personal("cases").insert({"id": "2", "who": "kari", "x": "1"})
        await db.subject_requests.lift(second.request_id, by_person=True)
        await db.personal("cases").insert({"id": "2", "who": "kari", "x": "1"})


async def test_the_right_does_not_reach_a_contract(managed):
    basis = LegalBasis("legal_obligation", "bokføringsloven § 13")
    invoices = Dataset("invoices", database="main", subject="who", legal_basis=basis, fields={"text": Field()})
    async with managed(invoices) as db:
        response = await process(db, "objection")
        assert not response.success
        assert decided(response) == {("main.invoices", ""): "does_not_apply"}
        assert "bokføringsloven § 13" in response.message
        assert await db.subject_requests.standing("kari") == []
        assert len(await audited(db, "objection_answered")) == 1


async def test_an_erasure_takes_an_objection_along(shop):
    db, _ = shop
    await process(db, "objection")
    assert (await process(db, "erasure")).success
    assert await db["main"].query("SELECT id FROM datavern_restrictions") == []
    await db.personal("profiles").insert({"id": "kari", "score": 1})  # a person who returns has objected to nothing


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        ("access", {"datasets": ["a"]}, "datasets: is of a request of kind restriction"),
        ("restriction", {"purposes": ["a"]}, "purposes: is of a request of kind objection"),
        ("restriction", {"ground": "because"}, "accuracy"),
        ("restriction", {"datasets": "visits"}, "a list"),
        ("objection", {"purposes": []}, "a list"),
        ("objection", {"override": " "}, "compelling"),
        ("objection", {"override": {}}, "compelling"),
    ],
)
def test_requests_that_cannot_be(kind, given, says):
    with pytest.raises(SubjectRequestRejected, match=says):
        SubjectRequest(kind, subject="kari", **given)


async def test_tasks_that_ask_at_the_same_time_share_the_question(visits, monkeypatch):
    db, store = visits, visits.personal("visits")
    standing = type(db.services.standing)
    everybody, go, entered, asked = asyncio.Event(), asyncio.Event(), [], []
    ask, answer = standing.ask, standing._answer

    async def asks(self, transaction=None):
        entered.append(1)
        if len(entered) == 20:
            everybody.set()
        return await ask(self, transaction)

    async def answers(self, *arguments, **more):
        asked.append(1)
        await go.wait()
        return await answer(self, *arguments, **more)

    monkeypatch.setattr(standing, "ask", asks)
    monkeypatch.setattr(standing, "_answer", answers)
    db.services.standing.until = 0.0
    tasks = [asyncio.create_task(store.get("0")) for _ in range(20)]
    await everybody.wait()
    tasks[0].cancel()  # the others wait on
    go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(one, dict) for one in found) == 19
    assert len(asked) <= 2  # the question is asked once more for those who began half a second after it


async def test_a_ledger_that_cannot_be_asked_stops_uses(managed, database):
    """What is not known to be allowed is not done, and the error says what is missing."""
    ledger = SQLiteProvider(":memory:", name="ledger", location="norway")
    databases = {"main": database.provider(location="norway"), "ledger": ledger}
    async with managed(VISITS, databases=databases, ledger="ledger") as db:
        await db.prepare("visits")
        await db.personal("visits").insert({"id": "0", "who": "kari", "name": "x"})
        await ledger.close()
        db.services.standing.until = 0.0
        with pytest.raises(ProviderError):
            await db.personal("visits").get("0")


async def test_another_manager_hears_of_it(managed, visits):
    """Two managers over one ledger: what one restricts the other refuses, once its half second is over."""
    other: DatabaseManager = managed(VISITS)
    async with other:
        assert await other.personal("visits").get("0")
        response = await process(visits, "restriction")
        other.services.standing.until = 0.0  # the half second is over
        with pytest.raises(ProcessingRestricted):
            await other.personal("visits").get("0")
        await visits.subject_requests.lift(response.request_id, informed=TODAY)
        other.services.standing.until = 0.0
        assert await other.personal("visits").get("0")
