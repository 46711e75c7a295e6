"""Consents on every engine: granted, withdrawn and expired, on record and never by name."""

import datetime as dt

import pytest

from datavern import ConfigurationError, ConsentRequired, PrivacyError, actor

PURPOSE = "customer-account"


async def entries(db):
    rows = await db["main"].query("SELECT action, handle, actor, details FROM datavern_audit ORDER BY era, stamp, seq")
    return [dict(row) for row in rows if row["action"].startswith("consent")]


async def test_grant_withdraw_and_list(db):
    with actor("case-worker-7"):
        first = await db.consents.grant(subject="test-user", purpose=PURPOSE, version="2026-01")
    second = await db.consents.grant(subject="test-user", purpose="marketing")
    other = await db.consents.grant(subject="other", purpose=PURPOSE)
    assert (first.subject, first.purpose, first.version, first.actor) == (
        "test-user",
        PURPOSE,
        "2026-01",
        "case-worker-7",
    )
    assert first.holds()
    listed = await db.consents.list("test-user")
    assert [c.id for c in listed] == [first.id, second.id]
    assert listed[0] == first
    withdrawn = await db.consents.withdraw(first)
    assert not withdrawn.holds()
    assert withdrawn.subject == "test-user"
    again = await db.consents.withdraw(first.id)
    assert again.withdrawn_at == withdrawn.withdrawn_at  # the first withdrawal stands
    assert (await db.consents.get(first.id)).withdrawn_at == withdrawn.withdrawn_at
    assert (await db.consents.get(second.id)).holds()
    assert await db.consents.get("none") is None
    assert await db.consents.list("nobody") == []
    told = await entries(db)
    assert [e["action"] for e in told] == ["consent_granted"] * 3 + ["consent_withdrawn"]
    assert told[0]["handle"] == told[3]["handle"] != told[2]["handle"]
    assert told[0]["actor"] == "case-worker-7"
    assert PURPOSE in told[0]["details"]
    assert other.id in told[2]["details"]


async def test_the_table_names_nobody(db):
    await db.consents.grant(subject="test-user", purpose=PURPOSE)
    rows = [dict(row) for row in await db["main"].query("SELECT * FROM datavern_consents")]
    assert len(rows) == 1
    assert "test-user" not in repr(rows)


async def test_a_grant_is_undone_with_its_transaction(db):
    with pytest.raises(ZeroDivisionError):
        async with db["main"].transaction() as tx:
            await db.consents.grant(subject="test-user", purpose=PURPOSE, transaction=tx)
            raise ZeroDivisionError
    assert await db.consents.list("test-user") == []
    assert await entries(db) == []
    consent = await db.consents.grant(subject="test-user", purpose=PURPOSE)
    with pytest.raises(ZeroDivisionError):
        async with db["main"].transaction() as tx:
            await db.consents.withdraw(consent, transaction=tx)
            raise ZeroDivisionError
    assert (await db.consents.get(consent.id)).holds()


async def test_a_consent_ends_by_itself(db):
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    consent = await db.consents.grant(subject="test-user", purpose=PURPOSE, expires=moment)
    assert consent.holds()
    assert not consent.holds(moment)
    assert not consent.holds(moment + dt.timedelta(days=1))
    assert (await db.consents.list("test-user"))[0].expires_at == moment


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"subject": "13097248022"}, "fødselsnummer"),
        ({"subject": ""}, "empty"),
        ({"subject": None}, "subject id"),
        ({"purpose": ""}, "purpose"),
        ({"purpose": "a\0b"}, "purpose"),
        ({"purpose": None}, "purpose"),
        ({"expires": dt.datetime(2030, 1, 1)}, "time zone"),  # noqa: DTZ001  (that is what is refused)
    ],
)
async def test_what_cannot_be_granted(db, given, says):
    with pytest.raises(ConfigurationError, match=says):
        await db.consents.grant(**{"subject": "test-user", "purpose": PURPOSE, **given})
    assert await entries(db) == []


async def test_what_cannot_be_withdrawn(db):
    with pytest.raises(PrivacyError, match="no consent of that id"):
        await db.consents.withdraw("none")
    with pytest.raises(ConfigurationError, match="a Consent or its id"):
        await db.consents.withdraw(7)


async def test_several_purposes_need_a_consent_to_each(db):
    consents = db.consents
    first = await consents.grant(subject="a", purpose="one")
    second = await consents.grant(subject="a", purpose="two")
    assert await consents.check("a", ["one", "two"], [first, second.id]) == (first.id, second.id)
    with pytest.raises(ConsentRequired, match="no consent to two: the one given is to one"):
        await consents.check("a", ["one", "two"], first)
    with pytest.raises(ConsentRequired, match="no consent to two"):
        await consents.check_many([("a", [first, second]), ("a", first)], ["one", "two"])
    assert await consents.check_many([("a", first), ("a", second)], []) == [(first.id,), (second.id,)]


async def test_many_are_checked_in_few_queries(db):
    given = []
    for n in range(3):
        consent = await db.consents.grant(subject=f"u{n}", purpose=PURPOSE)
        given += [(f"u{n}", consent)] * 400
    checked = await db.consents.check_many(given, [PURPOSE])
    assert [ids[0] for ids in checked] == [consent.id for _, consent in given]
    async with db["main"].transaction() as tx:
        assert len(await db.consents.check_many(given, [PURPOSE], transaction=tx)) == 1200
