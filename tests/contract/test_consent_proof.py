"""Consents as the law wants them shown: the text agreed to, how, by whom for a child; and reads that need one."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys
import textwrap

import pytest

from datavern import (
    ConfigurationError,
    ConsentRequired,
    Dataset,
    Field,
    LegalBasis,
    PrivacyError,
    SubjectRequest,
    purpose,
)
from datavern.privacy.personal.reading import Found

TODAY = dt.datetime.now().astimezone().date()
SEALED = {"name": Field(sealed=True, lookup=True, prefixes=[3])}


def years_ago(years, days=0):
    try:
        return TODAY.replace(year=TODAY.year - years) + dt.timedelta(days=days)
    except ValueError:
        return TODAY.replace(year=TODAY.year - years, day=28) + dt.timedelta(days=days)


def visits(**more):
    settings = {"database": "main", "subject": "who", "purposes": ["newsletter"], "fields": SEALED}
    return Dataset("visits", **{**settings, **more})


async def audited(db, action):
    rows = await db["main"].query("SELECT action, details FROM datavern_audit ORDER BY seq")
    rows = [row for row in rows if row["action"] == action]
    return [json.loads(row["details"]) for row in rows]


# ---- texts ----------------------------------------------------------------------------------------------------------


async def test_a_text_is_registered_once_and_does_not_change(db):
    first = await db.consents.text("newsletter", "2026-01", "Vi sender deg nyhetsbrev. æøå")
    assert (first.number, first.language, len(first.hash)) == (1, "nb", 64)
    assert await db.consents.text("newsletter", "2026-01", first.content) == first
    english = await db.consents.text("newsletter", "2026-01", "We send you a newsletter.", language="en")
    assert english.number == 1
    second = await db.consents.text("newsletter", "2026-02", "Ny tekst.")
    assert second.number == 2
    with pytest.raises(ConfigurationError, match="is another text"):
        await db.consents.text("newsletter", "2026-01", "Noe annet.")
    for given in (("", "1", "x"), ("a", "", "x"), ("a", "1", " "), ("a", "1", "x\0"), ("a", "1", None)):
        with pytest.raises(ConfigurationError):
            await db.consents.text(*given)
    assert [(t.version, t.language) for t in await db.consents.texts("newsletter")] == [
        ("2026-01", "en"),
        ("2026-01", "nb"),
        ("2026-02", "nb"),
    ]
    assert [t.purpose for t in await db.consents.texts()] == ["newsletter"] * 3
    assert [entry["hash"] for entry in await audited(db, "consent_text_registered")] == [
        first.hash,
        english.hash,
        second.hash,
    ]


async def test_texts_registered_at_the_same_moment_get_a_number_each(db):
    found = await asyncio.gather(*(db.consents.text("newsletter", f"v{n}", f"text {n}") for n in range(5)))
    assert sorted(text.number for text in found) == [1, 2, 3, 4, 5]


async def test_a_consent_names_its_text_and_shows_its_proof(db):
    text = await db.consents.text("newsletter", "2026-01", "Vi sender deg nyhetsbrev.")
    await db.consents.text("newsletter", "2026-01", "We send you a newsletter.", language="en")
    consent = await db.consents.grant(
        subject="kari",
        purpose="newsletter",
        version="2026-01",
        language="nb",
        source="web form",
        proof={"form": "signup", "ticked": ["newsletter"], "ip": "192.0.2.7"},
    )
    assert (consent.text_hash, consent.language, consent.source) == (text.hash, "nb", "web form")
    assert (await db.consents.list("kari")) == [consent]
    evidence = await db.consents.evidence(consent)
    assert (evidence.consent, evidence.text) == (consent, text)
    assert evidence.proof["ip"] == "192.0.2.7"
    assert "192.0.2.7" not in repr(evidence)
    rows = await db["main"].query("SELECT * FROM datavern_consents")
    assert "192.0.2.7" not in repr([dict(row) for row in rows])
    await db.audit.seal()
    assert (await db.audit.prove(evidence.entry)) is not None
    (told,) = await audited(db, "consent_granted")
    assert (told["text_hash"], told["source"]) == (text.hash, "web form")
    with pytest.raises(PrivacyError, match="no consent of that id"):
        await db.consents.evidence("none")
    for given, says in (
        ({"version": "2026-03"}, "there are: 2026-01"),
        ({"version": "2026-01"}, "registered in en, nb"),
        ({"version": "2026-01", "language": "se"}, "registered in en, nb"),
        ({"source": ""}, "source"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            await db.consents.grant(subject="kari", purpose="newsletter", **given)
    await db.subject_requests.process(SubjectRequest("erasure", subject="kari"))
    assert await db["main"].query("SELECT * FROM datavern_consents") == []


@pytest.mark.parametrize("at_once", [True, False])
async def test_older_texts_hold_no_more_where_the_map_says_so(managed, at_once):
    basis = LegalBasis("consent", text_version="2026-02")
    async with managed(visits(legal_basis=basis)) as db:
        await db.prepare("visits")
        store, grant = db.personal("visits"), db.consents.grant
        for version in ("2026-01", "2026-02", "2026-03"):
            await db.consents.text("newsletter", version, f"text {version}")
        consents = {
            v: await grant(subject="a", purpose="newsletter", version=v) for v in ("2026-01", "2026-02", "2026-03")
        }
        unnamed = await grant(subject="a", purpose="newsletter")
        await store.insert({"id": "0", "who": "a", "name": "x"}, consent=consents["2026-03"])

        async def insert(id_, consent):
            row = {"id": id_, "who": "a", "name": "x"}
            if at_once:
                await store.insert(row, consent=consent)
            else:
                await store.insert_many([row], consent=consent)

        await insert("1", consents["2026-02"])
        for consent in (consents["2026-01"], unnamed):
            with pytest.raises(ConsentRequired, match="older text.*2026-02 or a later one"):
                await insert("2", consent)
        assert await store.update("1", {"name": "y"}, consent=[consents["2026-02"]])
        with pytest.raises(ConsentRequired, match="older text"):
            await store.update("1", {"name": "z"}, consent=unnamed)


async def test_a_text_that_is_asked_for_and_not_registered(managed):
    async with managed(visits(legal_basis=LegalBasis("consent", text_version="9"))) as db:
        await db.prepare("visits")
        consent = await db.consents.grant(subject="a", purpose="newsletter", version="1")
        with pytest.raises(ConfigurationError, match="no such text is registered"):
            await db.personal("visits").insert({"id": "1", "who": "a", "name": "x"}, consent=consent)


async def test_explicit_where_the_map_asks_for_it(managed):
    async with managed(visits(legal_basis=LegalBasis("consent", explicit=True))) as db:
        await db.prepare("visits")
        store = db.personal("visits")
        plain = await db.consents.grant(subject="a", purpose="newsletter")
        explicit = await db.consents.grant(subject="a", purpose="newsletter", explicit=True)
        for n in range(2):
            await store.insert({"id": f"{n}", "who": "a", "name": "x"}, consent=explicit)
            with pytest.raises(ConsentRequired, match="not explicit"):
                await store.insert({"id": "9", "who": "a", "name": "x"}, consent=plain)


# ---- children -------------------------------------------------------------------------------------------------------


async def test_a_child_consents_through_its_guardian(db):
    grant = db.consents.grant
    child = {"subject": "barn", "purpose": "newsletter", "birth_date": years_ago(13, days=1)}
    with pytest.raises(ConsentRequired, match="under 13"):
        await grant(**child)
    consent = await grant(**child, guardian="forelder")
    assert consent.by_guardian
    assert consent.of_age_on == TODAY + dt.timedelta(days=1)
    assert consent.holds()
    assert (await db.consents.list("barn")) == [consent]
    assert (await db.consents.given_for_others("forelder"))[0].id == consent.id
    assert await db.consents.coming_of_age() == []
    (due,) = await db.consents.coming_of_age(TODAY + dt.timedelta(days=1))
    assert due.id == consent.id
    (told,) = await audited(db, "consent_granted")
    assert told["guardian"] is True
    rows = repr([dict(row) for row in await db["main"].query("SELECT * FROM datavern_consents")])
    assert "forelder" not in rows
    assert "barn" not in rows
    await db.subject_requests.process(SubjectRequest("erasure", subject="forelder"))
    assert await db.consents.given_for_others("forelder") == []
    assert (await db.consents.list("barn"))[0].by_guardian  # it holds, and says no more by whom
    await db.consents.withdraw(consent)
    assert await db.consents.coming_of_age(TODAY + dt.timedelta(days=1)) == []


async def test_who_is_old_enough(managed, db):
    grown = await db.consents.grant(subject="a", purpose="newsletter", birth_date=years_ago(13))
    assert not grown.by_guardian
    adult = await db.consents.grant(subject="b", purpose="x", birth_date=years_ago(40), guardian="verge")
    assert (adult.by_guardian, adult.of_age_on) == (True, None)
    for given, says in (
        ({"guardian": "a"}, "is the person"),
        ({"birth_date": TODAY + dt.timedelta(days=2)}, "in the future"),
        ({"birth_date": "2014-01-01"}, "expected a date"),
        ({"guardian": "13097248022"}, "fødselsnummer"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            await db.consents.grant(subject="a", purpose="newsletter", **given)
    async with managed(visits(), consent_age=15) as later:
        with pytest.raises(ConsentRequired, match="under 15"):
            await later.consents.grant(subject="a", purpose="newsletter", birth_date=years_ago(14))


async def test_a_birthday_on_29_february(db):
    consent = await db.consents.grant(subject="barn", purpose="x", birth_date=dt.date(2024, 2, 29), guardian="forelder")
    assert consent.of_age_on == dt.date(2037, 3, 1)


async def test_the_age_that_a_number_tells(managed):
    """Where the data map has a fødselsnummer, it says how old its person is; not where it may not be asked."""
    fields = {"number": Field(sealed=True, kind="fodselsnummer", unverified=True), "name": Field(sealed=True)}
    people = Dataset("people", database="main", subject="id", legal_basis="lov", fields=fields)
    async with managed(people) as db:
        grant = db.consents.grant
        assert await grant(subject="child", purpose="x")  # no table yet: nothing is known
        await db.prepare("people")
        store = db.personal("people")
        from datavern.contracts.identity import control_digits

        born = years_ago(10)
        for individual in range(500, 1000):
            nine = f"{born:%d%m%y}{individual}"
            digits = control_digits(nine)
            if digits is not None:
                break
        for who, number in (("child", nine + digits), ("adult", "13097248022"), ("nobody knows", "not a number")):
            await store.insert({"id": who, "number": number, "name": "x"})
        with pytest.raises(ConsentRequired, match="under 13"):
            await grant(subject="child", purpose="x")
        consent = await grant(subject="child", purpose="x", guardian="forelder")
        assert consent.of_age_on == born.replace(year=born.year + 13)
        assert await grant(subject="adult", purpose="x")
        assert await grant(subject="nobody knows", purpose="x")
        async with db["main"].transaction() as tx:
            with pytest.raises(ConsentRequired, match="under 13"):
                await grant(subject="child", purpose="x", transaction=tx)


# ---- reads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def reading(managed):
    """A manager whose visits are read with consent alone, and three people, one of them without."""
    async with managed(visits(require_consent="read")) as db:
        await db.prepare("visits")
        consents = {}
        for who in ("kari", "ola", "per"):
            consents[who] = await db.consents.grant(subject=who, purpose="newsletter")
            await db.personal("visits").insert({"id": who, "who": who, "name": "Nordmann"}, consent=consents[who])
        await db.consents.withdraw(consents["per"])
        yield db, consents


async def test_reads_need_a_standing_consent(reading):
    db, consents = reading
    store = db.personal("visits")
    assert await store.get("kari")
    with pytest.raises(ConsentRequired, match="newsletter"):
        await store.get("per")
    with pytest.raises(ConsentRequired):
        [row async for row in store.of("per")]
    rows = await db["main"].query("SELECT * FROM visits")
    with pytest.raises(ConsentRequired):
        await store.open(rows)
    for found in (await store.find(name="Nordmann"), await store.starts_with(name="Nor")):
        assert isinstance(found, Found)
        assert (sorted(row["who"] for row in found), found.withheld) == (["kari", "ola"], 1)
    await db.consents.withdraw(consents["kari"])
    with pytest.raises(ConsentRequired):
        await store.get("kari")
    async with db["main"].transaction() as tx:
        with pytest.raises(ConsentRequired):
            await store.get("kari", transaction=tx)
        again = await db.consents.grant(subject="kari", purpose="newsletter", transaction=tx)
        assert await store.get("kari", transaction=tx)
    assert await store.get("kari")
    assert again.holds()
    access = await db.subject_requests.process(SubjectRequest("access", subject="per"))
    assert len(access.data["main.visits"]) == 1


async def test_a_consent_that_ends_by_itself_ends_for_reads(managed):
    async with managed(visits(require_consent="read")) as db:
        await db.prepare("visits")
        ended = dt.datetime.now(dt.UTC) - dt.timedelta(microseconds=1)
        consent = await db.consents.grant(subject="a", purpose="newsletter", expires=ended)
        second = await db.consents.grant(subject="a", purpose="newsletter")
        await db.personal("visits").insert({"id": "1", "who": "a", "name": "x"}, consent=second)
        await db.consents.withdraw(second)
        with pytest.raises(ConsentRequired):
            await db.personal("visits").get("1")
        assert not consent.holds()


async def test_a_named_purpose_needs_its_own_consent_and_no_other(managed):
    dataset = visits(
        purposes=["newsletter", "research", "delivery"],
        legal_basis=LegalBasis("contract", "avtale", purposes=["delivery"]),
        require_consent="read",
    )
    async with managed(dataset) as db:
        await db.prepare("visits")
        store = db.personal("visits")
        consent = await db.consents.grant(subject="a", purpose="newsletter")
        with pytest.raises(ConsentRequired, match="needed: newsletter, research"):
            await store.insert({"id": "1", "who": "a", "name": "x"})
        with purpose("newsletter"):
            await store.insert({"id": "1", "who": "a", "name": "x"}, consent=consent)
            assert await store.get("1")
        with purpose("research"):
            with pytest.raises(ConsentRequired, match="research"):
                await store.get("1")
            with pytest.raises(ConsentRequired, match="no consent to research"):
                await store.update("1", {"name": "y"}, consent=consent)
        with purpose("delivery"):
            assert await store.get("1")
            assert await store.update("1", {"name": "y"})
        with purpose("advertising"):
            for work in (store.get("1"), store.update("1", {"name": "z"})):
                with pytest.raises(PrivacyError, match=r"is not for advertising.*5\(1\)\(b\)"):
                    await work
        with pytest.raises(ConsentRequired):
            await store.get("1")
    with pytest.raises(ConfigurationError, match="purposes"), purpose(" "):
        pass


async def test_what_is_remembered_is_remembered_for_half_a_second(reading):
    """By construction: from before the ledger was asked, so that no answer counts for longer, however slow it was."""
    db, consents = reading
    store = db.personal("visits")
    assert await store.get("ola")
    (until, _) = db.consents._seen[db.keys.subject_tag("ola")]
    from time import monotonic

    assert until <= monotonic() + 0.5
    await db["main"].execute("UPDATE datavern_consents SET withdrawn_at = granted_at")  # as another process does it
    db.consents.forget()  # the half second is over
    with pytest.raises(ConsentRequired):
        await store.get("ola")
    assert consents


OTHER = """
    import asyncio, json, sys, time
    from datavern import ConsentRequired, DatabaseManager, DataMap, Dataset, Field, ProcessingRestricted
    from datavern.testing import EmptyDatabase

    async def main(engine, settings, keys):
        provider = EmptyDatabase(engine, json.loads(settings)).provider(location="norway")
        name = {"name": Field(sealed=True, lookup=True, prefixes=[3])}
        more = {"purposes": ["newsletter"], "require_consent": "read", "fields": name}
        data_map = DataMap([
            Dataset("visits", database="main", subject="who", **more),
            Dataset("notes", database="main", subject="who", legal_basis="lov", fields={"text": Field(sealed=True)}),
        ])
        async with DatabaseManager({"main": provider}, data_map=data_map, keyring=keys, ledger="main") as db:
            last = {"visits": None, "notes": None, "writes": None}
            left = set(last)
            while left:
                for what in sorted(left):
                    began = time.monotonic()
                    try:
                        if what == "writes":
                            await db.personal("notes").update("kari", {"text": "again"})
                        else:
                            assert await db.personal(what).get("kari")
                        last[what] = began
                    except (ConsentRequired, ProcessingRestricted):
                        left.discard(what)
                print("once", flush=True)
                await asyncio.sleep(0.02)
            print(json.dumps(last), flush=True)

    asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"], indirect=True)
async def test_another_process_refuses_within_a_second(managed, database, keyring, engine):
    """A withdrawal and a restriction here: no read or write there that begins a second later goes through.

    Both clocks are the machine's own monotonic one; that the reads of the other process go on until then is no matter
    of time either, since it asks until it is refused.
    """
    from time import monotonic

    notes = Dataset("notes", database="main", subject="who", legal_basis="lov", fields={"text": Field(sealed=True)})
    async with managed(visits(require_consent="read"), notes) as db:
        for name in ("visits", "notes"):
            await db.prepare(name)
        consent = await db.consents.grant(subject="kari", purpose="newsletter")
        await db.personal("visits").insert({"id": "kari", "who": "kari", "name": "x"}, consent=consent)
        await db.personal("notes").insert({"id": "kari", "who": "kari", "text": "x"})
        other = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            textwrap.dedent(OTHER),
            engine,
            json.dumps(database.settings),
            keyring,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert (await other.stdout.readline()).strip() == b"once"  # it has read and written
            await db.consents.withdraw(consent)
            withdrawn = monotonic()
            await db.subject_requests.process(SubjectRequest("restriction", subject="kari"))
            restricted = monotonic()
            said = b"once"
            while said.strip() == b"once":
                said = await asyncio.wait_for(other.stdout.readline(), 120)
            last = json.loads(said)
            assert await other.wait() == 0
        finally:
            if other.returncode is None:
                other.kill()
                await other.wait()
    for what, done in (("visits", withdrawn), ("notes", restricted), ("writes", restricted)):
        assert last[what] < done + 1.0
