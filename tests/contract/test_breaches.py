"""The breach register: entries that stay, clocks that run, and people counted over every engine."""

from __future__ import annotations

import datetime as dt
import json
import uuid

import pytest

from datavern import ConfigurationError, Dataset, Field, actor
from datavern.contracts.values import now
from datavern.privacy.breach.register import Reads

UTC = dt.UTC
AWARE = dt.datetime(2025, 6, 6, 14, tzinfo=UTC)  # a Friday
WHAT = {
    "kinds": ["confidentiality"],
    "description": "A list was sent to the wrong address; æøå '; DROP TABLE users; --",
}
USERS = Dataset(
    "users",
    database="main",
    subject="id",
    fields={"name": Field(sealed=True), "number": Field(sealed=True, kind="fodselsnummer", lookup=True)},
)
LOGINS = Dataset(
    "logins",
    database="main",
    subject="user_id",
    fields={"seen_at": Field(type="timestamp"), "place": Field()},
)


def ago(**time):
    return now() - dt.timedelta(**time)


@pytest.fixture
async def breached(managed):
    """A manager with three people, who are in two datasets."""
    async with managed(USERS, LOGINS) as db:
        await db.prepare("users")
        await db.prepare("logins")
        for id_, number in (("anne", "13097248022"), ("bjørn", "53097248016"), ("'; DROP", "10915596784")):
            await db.personal("users").insert({"id": id_, "name": f"Æ {id_}", "number": number})
        for n, (who, place, when) in enumerate(
            [
                ("anne", "Oslo", dt.datetime(2026, 11, 1, 9, tzinfo=UTC)),
                ("anne", "Bergen", dt.datetime(2026, 11, 2, 9, tzinfo=UTC)),
                ("cecilie", "Oslo", dt.datetime(2026, 11, 2, 23, 59, 59, tzinfo=UTC)),
                ("bjørn", "Tromsø", dt.datetime(2026, 11, 3, tzinfo=UTC)),
            ]
        ):
            row = {"id": str(n), "user_id": who, "place": place, "seen_at": when}
            await db.personal("logins").insert(row)
        yield db


# ---- the register ---------------------------------------------------------------------------------------------------


async def test_a_breach_is_entered_changed_and_closed(breached):
    db = breached
    with actor("officer-1"):
        begun = AWARE - dt.timedelta(hours=5)
        breach = await db.breaches.open(**WHAT, datasets=["users"], happened_at=begun, aware_at=AWARE)
    assert (breach.id, breach.version, breach.changed_by) == ("2025-001", 1, "officer-1")
    assert (await db.breaches.open(**WHAT, aware_at=AWARE)).id == "2025-002"
    later = await db.breaches.update(breach.id, measures="The list was deleted by who got it.", note="called them")
    assert (later.version, later.note, later.description) == (2, "called them", WHAT["description"])
    with pytest.raises(ConfigurationError, match=r"Datatilsynet was not notified: say why with decision="):
        await db.breaches.close(breach.id)
    sent = await db.breaches.update(breach.id, sent=[AWARE + dt.timedelta(hours=72)])
    assert not sent.clocks[0].late
    closed = await db.breaches.close(breach.id)
    assert closed.closed_at is not None
    with pytest.raises(ConfigurationError, match="is closed: open it again with reopen"):
        await db.breaches.update(breach.id, note="more")
    again = await db.breaches.reopen(breach.id, note="another list was found")
    assert (again.closed_at, again.note) == (None, "another list was found")
    history = await db.breaches.history(breach.id)
    assert [one.version for one in history] == [1, 2, 3, 4, 5]
    assert history[0].measures == ""
    assert [one.id for one in await db.breaches.list()] == ["2025-001", "2025-002"]
    assert await db.breaches.verify() == []
    await db.audit.seal()
    assert (await db.audit.verify()).ok


async def test_the_text_is_sealed_and_leaves_no_trace_in_the_log(breached, logged):
    breach = await breached.breaches.open(**WHAT, measures="Ola Nordmann ble ringt")
    (row,) = await breached["main"].query("SELECT * FROM datavern_breaches")
    stored = str(dict(row)) + repr(bytes(row["body"]))
    entries = str([dict(entry) async for entry in breached.services.ledger_log.entries()])
    for text in ("DROP", "Nordmann", "wrong address"):
        assert text not in stored
        assert text not in entries
        assert text not in logged.getvalue()
    assert (await breached.breaches.get(breach.id)).measures == "Ola Nordmann ble ringt"


async def test_what_was_changed_or_removed_is_found(breached):
    db = breached
    for _ in range(5):
        await db.breaches.open(**WHAT)
    first, second, third, fourth, fifth = [breach.id for breach in await db.breaches.list()]
    await db.breaches.update(second, note="more")
    for note in ("a", "b"):
        await db.breaches.update(fifth, note=note)
    main = db["main"]
    await main.execute(f"DELETE FROM datavern_breaches WHERE id = '{first}'")
    await main.execute(f"UPDATE datavern_breaches SET version = 7 WHERE id = '{second}' AND version = 2")
    other = f"SELECT body FROM datavern_breaches WHERE id = '{second}' AND version = 1"
    await main.execute(f"UPDATE datavern_breaches SET body = ({other}) WHERE id = '{third}'")
    await main.execute(f"UPDATE datavern_breaches SET actor = 'somebody else' WHERE id = '{fourth}'")
    await main.execute(f"DELETE FROM datavern_breaches WHERE id = '{fifth}' AND version = 2")
    seen = [
        f"{second}: entry 7 stands in no audit log",
        f"{third}: entry 1 was changed",
        f"{fourth}: entry 1 was changed",
        f"{fifth}: entry 2 was removed",
    ]
    assert await db.breaches.verify(whole=False) == seen
    assert await db.breaches.verify() == [*seen, f"{first}: entry 1 was removed", f"{second}: entry 2 was removed"]


async def test_the_end_of_old_audit_entries_is_no_change(breached):
    db = breached
    breach = await db.breaches.open(**WHAT)
    await db.breaches.update(breach.id, note="more")
    await db.audit.seal()
    await db.audit.truncate(now() + dt.timedelta(seconds=1))
    await db.breaches.update(breach.id, note="and more")
    await db.audit.seal()
    assert await db.breaches.verify() == []
    await db["main"].execute("UPDATE datavern_breaches SET actor = 'somebody else' WHERE version = 2")
    assert await db.breaches.verify() == [f"{breach.id}: entry 2 was changed"]


async def test_two_officers_at_once_lose_nothing(breached):
    import asyncio

    db = breached
    opened = await asyncio.gather(*(db.breaches.open(**WHAT) for _ in range(4)))
    assert len({breach.id for breach in opened}) == 4
    one = opened[0].id
    await asyncio.gather(*(db.breaches.update(one, note=str(n)) for n in range(4)))
    history = await db.breaches.history(one)
    assert [b.version for b in history] == [1, 2, 3, 4, 5]
    assert sorted(b.note for b in history[1:]) == ["0", "1", "2", "3"]
    assert await db.breaches.verify() == []


WRONG = [
        ({"kinds": []}, "kinds: say what was violated"),
        ({"kinds": ["secrecy"]}, "kinds: expected one or more of confidentiality, integrity, availability"),
        ({"description": " "}, "description: say what happened"),
        ({"aware_at": dt.datetime(2026, 1, 1)}, "aware_at: expected a moment with its time zone"),  # noqa: DTZ001
        ({"aware_at": dt.datetime(2999, 1, 1, tzinfo=UTC)}, "aware_at: lies in the future"),
        ({"aware_at": dt.datetime(2026, 1, 1, tzinfo=UTC), "happened_at": dt.datetime(2026, 1, 2, tzinfo=UTC)},
         "aware_at: lies before happened_at"),
        ({"datasets": ["people"]}, "datasets: no dataset is named people; there are: users, logins"),
        ({"databases": ["elsewhere"]}, "databases: no database is named elsewhere"),
        ({"exposure": "seen"}, "exposure: expected stored"),
        ({"keys_exposed": "no"}, "keys_exposed: expected true or false"),
        ({"kinds": 7}, "kinds: expected names"),
        ({"happened_at": AWARE, "happened_until": AWARE - dt.timedelta(1)}, "happened_until: lies before happened_at"),
        ({"measure": "x"}, "a breach has no measure; did you mean measures"),
    ]  # fmt: skip


async def test_what_cannot_be_entered(breached):
    for settings, says in WRONG:
        with pytest.raises(ConfigurationError, match=says):
            await breached.breaches.open(**{**WHAT, **settings})
    assert await breached.breaches.list() == []


async def test_moments_that_cannot_follow_one_another(breached):
    breach = await breached.breaches.open(**WHAT, aware_at=AWARE)
    for changes in ({"happened_at": AWARE + dt.timedelta(1)}, {"sent": [AWARE - dt.timedelta(1)]}):
        with pytest.raises(ConfigurationError, match="aware_at"):
            await breached.breaches.update(breach.id, **changes)
    assert (await breached.breaches.get(breach.id)).version == 1


async def test_a_high_risk_is_not_closed_over_in_silence(breached):
    breach = await breached.breaches.open(**WHAT, datasets=["users"], exposure="plain", aware_at=AWARE, sent=[AWARE])
    with pytest.raises(ConfigurationError, match="the people were not told: say why with decision="):
        await breached.breaches.close(breach.id)
    await breached.breaches.update(breach.id, people_notified_at=now())
    assert (await breached.breaches.close(breach.id)).closed_at is not None


async def test_nobody_knows_of_it(breached):
    with pytest.raises(ConfigurationError, match=r"there is no breach 2026-009; there are: none"):
        await breached.breaches.get("2026-009")
    breach = await breached.breaches.open(**WHAT)
    with pytest.raises(ConfigurationError, match="an update needs something to say"):
        await breached.breaches.update(breach.id)


async def test_an_essential_service_has_two_clocks(managed):
    async with managed(USERS, essential_service=True) as db:
        breach = await db.breaches.open(**WHAT, aware_at=ago(hours=30))
        incident, authority = breach.clocks
        assert (incident.what, authority.what) == ("incident", "authority")
        assert incident.overdue()
        assert not authority.overdue()
        assert breach.overdue()
        told = await db.breaches.update(breach.id, incident_notified_at=now())
        assert not told.overdue()
        assert told.clocks[0].late


# ---- whom it touched ------------------------------------------------------------------------------------------------


async def test_everybody_counts_once_over_all_datasets(breached):
    breach = await breached.breaches.open(**WHAT)
    found = await breached.breaches.count(breach.id)
    assert (found.people, found.rows, found.lower_bound) == (4, 7, False)  # anne and bjørn are in both
    assert {c.label: (c.people, c.rows) for c in found.datasets} == {"main.users": (3, 3), "main.logins": (3, 4)} | {
        c.label: (0, 0) for c in found.datasets if c.label.endswith("personal_data")
    }
    written = await breached.breaches.get(breach.id)
    assert (written.affected["people"], written.affected["scope"]) == (4, "everything")
    named = await breached.breaches.open(**WHAT, datasets=["users"])
    assert (await breached.breaches.count(named.id)).people == 3


async def test_a_window_and_a_condition_narrow_it(breached):
    db = breached
    breach = await db.breaches.open(**WHAT, datasets=["logins"])
    second, third = dt.datetime(2026, 11, 2, tzinfo=UTC), dt.datetime(2026, 11, 3, tzinfo=UTC)
    found = await db.breaches.count(breach.id, windows={"logins": ("seen_at", second, third)})
    assert (found.people, found.rows) == (2, 2)  # the first moment counts, the last does not
    assert (await db.breaches.count(breach.id, windows={"logins": ("seen_at", None, second)})).people == 1
    oslo = await db.breaches.count(breach.id, where={"logins": {"place": "Oslo"}})
    assert (oslo.people, oslo.rows) == (2, 2)
    either = await db.breaches.count(breach.id, where={"logins": {"place": ["Bergen", "Tromsø", "'; DROP"]}})
    assert either.people == 2
    some = await db.breaches.count(breach.id, subjects=["anne", "cecilie", "nobody"])
    assert (some.people, some.rows) == (2, 3)
    assert (await db.breaches.count(breach.id, subjects=[])).people == 0
    with pytest.raises(ConfigurationError, match="users is none of its datasets: logins"):
        await db.breaches.count(breach.id, where={"users": {"id": "anne"}})
    with pytest.raises(ConfigurationError, match="it ends before it begins"):
        await db.breaches.count(breach.id, windows={"logins": ("seen_at", third, second)})
    absent = await db.breaches.count(breach.id, windows={"logins": ("seen", second, third)})
    assert absent.lower_bound
    assert "has no column seen" in absent.datasets[0].problem


async def test_those_who_were_read_count(managed):
    users = Dataset("users", database="main", subject="id", fields={"name": Field(sealed=True)}, audit_reads=True)
    async with managed(users) as db:
        await db.prepare("users")
        people = db.personal("users")
        await people.insert_many([{"id": f"p{n}", "name": "x"} for n in range(5)])
        since = now()
        with actor("curious"):
            await people.get("p1")
            await people.get("p3")
        with actor("doctor"):
            await people.get("p4")
        until = now() + dt.timedelta(seconds=1)
        breach = await db.breaches.open(**WHAT, datasets=["users"])
        found = await db.breaches.count(breach.id, reads=Reads(since, until, "curious"))
        assert (found.people, found.rows, found.lower_bound) == (2, 2, False)
        assert (await db.breaches.count(breach.id, reads=Reads(since))).people == 3
        assert (await db.breaches.count(breach.id, reads=Reads(ago(hours=2), since))).people == 0


async def test_others_whom_a_row_names_count_too(managed):
    letters = Dataset(
        "letters",
        database="main",
        subject="sender_id",
        erasure="anonymize",
        fields={"text": Field(), "receiver": Field(of="receiver_id"), "receiver_id": Field(of="receiver_id")},
    )
    async with managed(letters) as db:
        await db.prepare("letters")
        for n, (sender, receiver) in enumerate((("anne", "bjørn"), ("anne", None), ("cecilie", "anne"))):
            row = {"id": str(n), "sender_id": sender, "receiver_id": receiver, "receiver": "x", "text": "x"}
            await db.personal("letters").insert(row)
        breach = await db.breaches.open(**WHAT, datasets=["letters"])
        found = await db.breaches.count(breach.id)
        assert (found.people, found.rows) == (3, 3)
        assert (await db.breaches.count(breach.id, subjects=["bjørn"])).people == 1


async def test_people_who_are_reached_through_other_rows_count(managed):
    orders = Dataset("orders", database="main", subject="number", subject_via="users.number", fields={"what": Field()})
    async with managed(USERS, orders) as db:
        await db.prepare("users")
        await db.prepare("orders")
        for id_, number in (("anne", "13097248022"), ("bjørn", "53097248016")):
            await db.personal("users").insert({"id": id_, "name": "x", "number": number})
        for n, number in enumerate(("13097248022", "13097248022", "53097248016")):
            await db.personal("orders").insert({"id": str(n), "number": number, "what": "bread"})
        breach = await db.breaches.open(**WHAT, datasets=["orders"])
        found = await db.breaches.count(breach.id)
        assert (found.people, found.rows, found.lower_bound) == (2, 3, False), found
        assert (await db.breaches.count(breach.id, subjects=["anne"])).rows == 2
        everywhere = await db.breaches.open(**WHAT)
        assert (await db.breaches.count(everywhere.id)).people == 2


async def test_rows_of_people_who_were_erased_count_nobody(managed):
    soft = Dataset("soft", database="main", subject="user_id", erasure="soft", fields={"name": Field(sealed=True)})
    gone = Dataset("gone", database="main", subject="user_id", erasure="anonymize", fields={"name": Field(sealed=True)})
    from datavern import SubjectRequest

    async with managed(soft, gone) as db:
        for dataset in ("soft", "gone"):
            await db.prepare(dataset)
            for n, who in enumerate(("anne", "bjørn")):
                await db.personal(dataset).insert({"id": str(n), "user_id": who, "name": "x"})
        await db.subject_requests.process(SubjectRequest("erasure", subject="anne"))
        breach = await db.breaches.open(**WHAT, datasets=["soft", "gone"])
        found = await db.breaches.count(breach.id)
        assert found.people == 1
        assert {c.label: (c.people, c.nobody) for c in found.datasets} == {"main.soft": (1, 0), "main.gone": (1, 1)}


async def test_every_engine_counts_and_a_person_is_one(managed, database, documents, cache):
    stores = {"main": database.provider(location="norway"), "documents": documents(), "cache": cache(encryption=True)}
    one, other = uuid.uuid4(), uuid.uuid4()
    datasets = [
        Dataset("users", database="main", subject="id", fields={"name": Field(sealed=True)}),
        Dataset("cases", database="documents", subject="owners.id"),
        Dataset("letters", database="documents", subject="_metadata.subject"),
        Dataset("sessions", database="cache", key="user:session:{subject}"),
    ]
    async with managed(*datasets, databases=stores) as db:
        await db.prepare("users")
        await db.personal("users").insert_many([{"id": str(one), "name": "x"}, {"id": "42", "name": "x"}])
        await (
            db["documents"]
            .collection("cases")
            .insert_many(
                [
                    {"owners": [{"id": one}, {"id": 42}]},
                    {"owners": [{"id": other}]},
                    {"owners": []},
                    {"title": "about nobody"},
                ]
            )
        )
        await db["documents"].insert_document("letters", {"text": "hei"}, subject=42)
        await db["documents"].insert_document("letters", {"text": "hei"}, subject="only-here")
        await db["cache"].set(f"user:session:{other}", {"a": 1}, subject=str(other))
        await db["cache"].set("user:session:åse", {"a": 1}, subject="åse")
        breach = await db.breaches.open(**WHAT)
        found = await db.breaches.count(breach.id)
        assert {c.label: (c.people, c.rows, c.nobody, c.problem) for c in found.datasets if c.rows or c.problem} == {
            "main.users": (2, 2, 0, ""),
            "documents.cases": (3, 2, 2, ""),
            "documents.letters": (2, 2, 0, ""),
            "cache.sessions": (2, 2, 0, ""),
        }
        assert (found.people, found.lower_bound) == (5, False)  # one, 42, other, only-here, åse
        some = await db.breaches.count(breach.id, subjects=[42, other])
        assert {c.label: c.people for c in some.datasets if c.people} == {
            "main.users": 1, "documents.cases": 2, "documents.letters": 1, "cache.sessions": 1
        }  # fmt: skip
        assert some.people == 2
        assessment = await db.breaches.assess(breach.id)
        assert assessment.authority == "notify"  # the cases are readable
        sealed = await db.breaches.open(**WHAT, datasets=["users", "letters", "sessions"])
        await db.breaches.count(sealed.id)
        told = await db.breaches.assess(sealed.id)
        assert (told.authority, told.people) == ("record only", "not needed"), told.reasons


async def test_a_store_that_is_down_makes_it_a_lower_bound(managed, database, tmp_path):
    from datavern import RedisProvider

    stores = {
        "main": database.provider(location="norway"),
        "cache": RedisProvider(name="cache", port=1, location="norway"),
    }
    users = Dataset("users", database="main", subject="id", fields={"name": Field(sealed=True)})
    sessions = Dataset("sessions", database="cache", key="user:session:{subject}")
    manager = managed(users, sessions, databases=stores)
    stores["cache"].connect = stores["cache"].close  # a server that went away after the manager was opened
    async with manager as db:
        await db.prepare("users")
        await db.personal("users").insert({"id": "a", "name": "x"})
        breach = await db.breaches.open(**WHAT)
        found = await db.breaches.count(breach.id)
        assert (found.people, found.lower_bound) == (1, True)
        assert next(c for c in found.datasets if c.label == "cache.sessions").problem
        assert any(
            "Not everything could be counted" in reason for reason in (await db.breaches.assess(breach.id)).reasons
        )
        listed, tagged, problems = await db.breaches.people(breach.id, tmp_path / "people.txt")
        assert (listed, tagged, len(problems)) == (1, 0, 1)


async def test_nothing_there_is_nobody_touched(managed):
    async with managed(USERS) as db:
        breach = await db.breaches.open(**WHAT, datasets=["users"])
        found = await db.breaches.count(breach.id)  # the table is not even made
        assert (found.people, found.rows, found.lower_bound) == (0, 0, False)
        told = await db.breaches.assess(breach.id)
        assert (told.authority, told.people) == ("record only", "not needed")


# ---- the list of the people -----------------------------------------------------------------------------------------


async def test_the_list_of_the_people(breached, tmp_path):
    db = breached
    breach = await db.breaches.open(**WHAT)
    with pytest.raises(ConfigurationError, match="was not counted yet"):
        await db.breaches.people(breach.id, tmp_path / "people.txt")
    await db.breaches.count(breach.id)
    file = tmp_path / "people.txt"
    assert await db.breaches.people(breach.id, file) == (4, 0, [])
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(file.read_text().splitlines()) == ["'; DROP", "anne", "bjørn", "cecilie"]
    with pytest.raises(ConfigurationError, match="is there already, and is not overwritten"):
        await db.breaches.people(breach.id, file)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        await db.breaches.people(breach.id, tmp_path / "no" / "people.txt")
    await db.breaches.count(breach.id, where={"logins": {"place": "Oslo"}, "users": {"id": "anne"}})
    narrow = tmp_path / "narrow.txt"
    assert (await db.breaches.people(breach.id, narrow))[0] == 2
    assert sorted(narrow.read_text().splitlines()) == ["anne", "cecilie"]
    await db.breaches.count(breach.id, subjects=["anne"])
    with pytest.raises(ConfigurationError, match="a list of people, which is not kept: give it again"):
        await db.breaches.people(breach.id, tmp_path / "again.txt")
    assert (await db.breaches.people(breach.id, tmp_path / "again.txt", subjects=["anne"]))[0] == 1
    actions = [entry["action"] async for entry in db.services.ledger_log.entries()]
    assert actions.count("breach_people_listed") == 3


async def test_an_id_with_a_line_break_stays_on_its_line(managed, tmp_path):
    async with managed(USERS) as db:
        await db.prepare("users")
        for id_ in ("a\nb", "c\u2028d", "a"):
            await db.personal("users").insert({"id": id_, "name": "x", "number": None})
        breach = await db.breaches.open(**WHAT)
        await db.breaches.count(breach.id)
        await db.breaches.people(breach.id, tmp_path / "people.txt")
        lines = sorted((tmp_path / "people.txt").read_text().split("\n"))
        assert lines == ["", '"a\\nb"', '"c\\u2028d"', "a"]


# ---- what Datatilsynet is told --------------------------------------------------------------------------------------


async def test_the_report_has_what_article_33_asks_for(breached):
    db = breached
    breach = await db.breaches.open(**WHAT, datasets=["users", "logins"], aware_at=ago(hours=80))
    await db.breaches.count(breach.id)
    first = await db.breaches.report(breach.id)
    assert first.missing == (
        "when it happened",
        "the contact point (Art. 33(3)(b))",
        "the likely consequences (Art. 33(3)(c))",
        "the measures (Art. 33(3)(d))",
        "the reasons for the delay (Art. 33(1))",
    )
    data = json.loads(first.to_json())
    assert (data["late"], data["phase"], data["nature"]["people"]) == (True, 1, 4)
    assert data["aware_at"].endswith("Z")
    assert data["recommendation"]["authority"] == "notify"
    await db.breaches.update(
        breach.id,
        contact="personvernombud@example.no",
        consequences="Spam | phishing",
        measures="Deleted.\n# Not a title",
        delay_reason="Found over Christmas.",
        happened_at=ago(hours=90),
        sent=[now()],
    )
    second = await db.breaches.report(breach.id)
    assert second.missing == ()
    text = second.to_markdown()
    assert "Phase 2, made" in text
    assert "Notified before:" in text
    assert "> Found over Christmas." in text
    assert "> # Not a title" in text
    assert "4 people, 7 records" in text
    assert "| main.users | 3 | 3 | identity_number, name | no: sealed |" in text
    for part in ("(a) Nature", "(b) Contact point", "(c) Likely consequences", "(d) Measures"):
        assert f"## {part}" in text
    assert any(word in text for word in ("CET", "CEST"))


async def test_what_it_recommends_and_why(breached):
    db = breached
    sealed = await db.breaches.open(**WHAT, datasets=["users"])
    await db.breaches.count(sealed.id)
    told = await db.breaches.assess(sealed.id)
    assert (told.authority, told.people) == ("record only", "not needed")
    assert any("Art. 34(3)(a)" in reason for reason in told.reasons)
    for more in ({"keys_exposed": True}, {"exposure": "plain"}):
        await db.breaches.update(sealed.id, **{"keys_exposed": False, "exposure": "stored", **more})
        told = await db.breaches.assess(sealed.id)
        assert (told.authority, told.people) == ("notify", "inform"), told.reasons  # a fødselsnummer could be read
    lost = await db.breaches.open(**{**WHAT, "kinds": ["availability"]}, datasets=["users"])
    await db.breaches.count(lost.id)
    told = await db.breaches.assess(lost.id)
    assert (told.authority, told.people) == ("notify", "assess")
    plain = await db.breaches.open(**WHAT, datasets=["logins"])
    told = await db.breaches.assess(plain.id)
    assert told.people == "assess"
    assert "was not counted yet" in told.reasons[0]


async def test_special_categories_are_marked(managed):
    fields = {"diagnosis": Field(category="health"), "name": Field(sealed=True, category="identity"), "note": Field()}
    journal = Dataset("journal", database="main", subject="who", fields=fields, about=["patients"])
    async with managed(journal) as db:
        await db.prepare("journal")
        await db.personal("journal").insert({"id": "1", "who": "anne", "diagnosis": "x", "name": "x", "note": "x"})
        breach = await db.breaches.open(**WHAT, datasets=["journal"])
        await db.breaches.count(breach.id)
        told = await db.breaches.assess(breach.id)
        assert (told.authority, told.people) == ("notify", "inform")
        assert any("main.journal.diagnosis" in reason for reason in told.reasons)
        text = (await db.breaches.report(breach.id)).to_markdown()
        assert "| main.journal | 1 | 1 | patients: health (Art. 9), identity, note | in part |" in text
