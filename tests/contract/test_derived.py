"""What the application made of personal data elsewhere goes with the person, last of all, and until it is done."""

import pytest
from cutting import Cut

from datavern import ConfigurationError, DatabaseManager, Dataset, ErasureIncomplete, Field, SubjectRequest
from datavern.privacy.journal.journal import Journal

EVENTS = Dataset("events", database="main", subject="who", fields={"note": Field(sealed=True)})


class Index:
    """A search index of the application's: person → documents."""

    def __init__(self):
        self.documents = {}
        self.asked = []
        self.failing = None

    async def erase(self, subject):
        self.asked.append(subject)
        if self.failing is not None:
            raise self.failing
        return len(self.documents.pop(subject, ()))

    async def access(self, subject):
        return [{"text": text} for text in self.documents.get(subject, ())]


@pytest.fixture
def index():
    return Index()


@pytest.fixture
async def db(managed, index):
    manager = managed(EVENTS)
    manager.derived("search-index", erase=index.erase, access=index.access)
    async with manager as db:
        await db.prepare("events")
        for person in ("anna", "berit"):
            await db.personal("events").insert({"id": person, "who": person, "note": "n"})
            index.documents[person] = ["a", "b"]
        yield db


async def erase(db, subject="anna"):
    return await db.subject_requests.process(SubjectRequest("erasure", subject=subject))


async def test_it_goes_with_the_person_and_stands_on_the_certificate(db, index):
    access = await db.subject_requests.process(SubjectRequest("access", subject="anna"))
    assert access.data["derived:search-index"] == [{"text": "a"}, {"text": "b"}]
    portable = await db.subject_requests.process(SubjectRequest("portability", subject="anna"))
    assert "derived:search-index" not in portable.data
    done = await erase(db)
    assert index.documents == {"berit": ["a", "b"]}
    stores = {store["dataset"]: store for store in done.certificate.body["stores"]}
    assert stores["derived:search-index"]["found"] == 2
    assert any("application's own functions" in claim for claim in done.certificate.body["claims"])
    assert "derived:search-index" in str(done.certificate)
    audited = await db["main"].query("SELECT dataset FROM datavern_audit WHERE action = 'erased'")
    assert "derived:search-index" in [row[0] for row in audited]
    access = await db.subject_requests.process(SubjectRequest("access", subject="anna"))
    assert access.data["derived:search-index"] == []


async def test_one_that_fails_waits_and_is_called_again_until_it_is_done(db, index, caplog):
    index.failing = RuntimeError("Planted anna")
    with pytest.raises(ErasureIncomplete) as told:
        await erase(db)
    (why,) = told.value.receipt.waiting.values()
    assert "RuntimeError" in why
    assert "Planted" not in why + str(told.value) + caplog.text
    assert told.value.__cause__ is None
    assert told.value.__context__ is None or "Planted" not in str(told.value.__context__)
    assert await db["main"].query("SELECT id FROM events WHERE who = 'anna'") == []
    (still,) = await db.subject_requests.resume()
    assert list(still.waiting) == ["derived:search-index"]
    index.failing = None
    (done,) = await db.subject_requests.resume()
    assert done.certificate.body["stores"][-2]["dataset"] == "derived:search-index"
    assert index.asked == ["anna"] * 3


async def test_it_is_not_called_while_a_store_that_it_is_made_from_waits(db, index, sql):
    await db["main"].execute(sql("CREATE TABLE fines (id INTEGER PRIMARY KEY, event {text} REFERENCES events (id))"))
    await db["main"].execute("INSERT INTO fines VALUES (1, 'anna')")
    with pytest.raises(ErasureIncomplete) as told:
        await erase(db)
    assert set(told.value.receipt.waiting) == {"main.events", "derived:search-index"}
    assert index.asked == []
    await db["main"].execute("DELETE FROM fines")
    await db.subject_requests.resume()
    assert index.asked == ["anna"]


async def test_after_a_crash_it_is_called_again_and_told_once(db, index, monkeypatch):
    async def cut(*args, **kwargs):
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "close", cut)
        with pytest.raises(Cut):
            await erase(db)
    (done,) = await db.subject_requests.resume()
    assert index.asked == ["anna", "anna"]
    labels = [store["dataset"] for store in done.certificate.body["stores"]]
    assert labels.count("derived:search-index") == 1


async def test_a_process_that_does_not_know_it_leaves_it_to_one_that_does(db, index, managed, database):
    index.failing = RuntimeError()
    with pytest.raises(ErasureIncomplete):
        await erase(db)
    index.failing = None
    async with managed(EVENTS, databases={"main": database.provider(location="norway")}) as other:
        (waits,) = await other.subject_requests.resume()
        assert "not known in this process" in waits.waiting["derived:search-index"]
    (done,) = await db.subject_requests.resume()
    assert done.success


async def test_many_people(db, index):
    done = [answer async for _, answer in db.subject_requests.erase_many(["anna", "berit", "nobody"])]
    assert all(answer.success for answer in done)
    assert index.documents == {}
    assert sorted(index.asked) == ["anna", "berit", "nobody"]


async def test_one_that_counts_nothing_says_so(managed):
    async def forget(subject):
        return None

    manager = managed(EVENTS)
    manager.derived("warehouse", erase=forget)
    async with manager as db:
        await db.prepare("events")
        done = await erase(db)
        (store,) = (s for s in done.certificate.body["stores"] if s["dataset"] == "derived:warehouse")
        assert store["found"] == 0
        assert "does not say" in store["notes"][0]
        access = await db.subject_requests.process(SubjectRequest("access", subject="anna"))
        assert "derived:warehouse" not in access.data


@pytest.mark.parametrize("wrong", [lambda _: 1, lambda _: answer("much"), lambda _: answer(-1)])
async def test_a_function_that_is_none_waits_with_the_reason(managed, wrong):
    manager = managed(EVENTS)
    manager.derived("x", erase=wrong)
    async with manager as db:
        await db.prepare("events")
        with pytest.raises(ErasureIncomplete, match="derived:x") as told:
            await erase(db)
        assert "ConfigurationError" in told.value.receipt.waiting["derived:x"]


async def answer(value):
    return value


def test_what_is_no_derived_store_is_refused(managed, database):
    manager = managed(EVENTS)
    manager.derived("x", erase=answer)
    for name, more, match in (
        ("x", {"erase": answer}, "one of that name"),
        ("", {"erase": answer}, "expected a name"),
        ("y", {"erase": None}, "async function"),
        ("y", {"erase": answer, "access": 3}, "async function"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            manager.derived(name, **more)
    with pytest.raises(ConfigurationError, match="keyring"):
        DatabaseManager({"main": database.provider()}).derived("x", erase=answer)


async def test_nothing_of_the_person_is_left_in_memory(db):
    keys = db.keys
    await db.audit.record("seen", subject="anna")
    assert [row async for row in db.personal("events").of("anna")]
    (key,) = (key for (_, subject), key in keys._known.of_subject.items() if subject == "anna")
    await erase(db)
    known = keys._known
    assert "anna" not in known.handles
    assert key.id not in known.by_id
    assert not any(subject == "anna" for _, subject in known.of_subject)
