"""A subject's keys by pattern: all of them, and nobody else's."""

from __future__ import annotations

import re
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import CapabilityMissing, ConfigurationError, DecryptionFailed
from datavern.contracts.stores import Shape, ShapeColumn
from datavern.engines.redis.patterns import KeyPattern

SESSION = "user:session:{subject}"
PARTS = "user:{subject}:*"

# Names that mean something to a glob, to a regular expression, to the cluster or to the separator.
HOSTILE = [
    "*",
    "?",
    "[a-z]",
    "[^a]",
    "u\\1",
    "u*",
    "u?",
    "{u1}",
    "{}",
    "u1\n",
    ".*",
    "u.1",
    "(u1)",
    "æøå",
    "u-1",
    "^u",
    "\\*",
]


@pytest.fixture(params=["redis", "sealed", "clustered"])
def provider(request):
    return request.getfixturevalue(request.param)


async def fill(provider, pattern, people):
    subjects = needs(provider, "subjects")
    rows = [{"subject": p, "value": {"of": str(p)}} for p in people]
    await subjects.insert(pattern, rows)
    return subjects


async def keys_of(provider):
    return {key async for key in provider.scan()}


async def test_the_rows_of_a_pattern(provider):
    subjects = await fill(provider, SESSION, ["u1", "u2", "u12"])
    assert await subjects.select(SESSION, {"subject": "u1"}) == [
        {"key": "user:session:u1", "subject": "u1", "value": {"of": "u1"}, "ttl": None}
    ]
    assert await subjects.select(SESSION, {"subject": "none"}) == []
    assert await subjects.select(SESSION, {"subject": "none"}, columns=["key"]) == []
    assert [r["subject"] for r in await subjects.select(SESSION, {}, order_by=["key"])] == ["u1", "u12", "u2"]
    assert await subjects.select(SESSION, {"subject": ("u1", "u2")}, columns=["key"], order_by=["key"]) == [
        {"key": "user:session:u1"}, {"key": "user:session:u2"},
    ]  # fmt: skip
    assert len(await subjects.select(SESSION, {}, limit=2)) == 2
    assert await subjects.select(SESSION, {"key": "user:session:u2"}, columns=["subject"]) == [{"subject": "u2"}]
    assert await subjects.select(SESSION, {"key": "other", "subject": "u2"}) == []
    async with subjects.stream(SESSION, {}, batch_size=1) as rows:
        assert {row["value"]["of"] async for row in rows} == {"u1", "u2", "u12"}
    assert await subjects.update(SESSION, {"subject": "u1"}, {"value": "changed"}) == 1
    assert await provider.get("user:session:u1") == "changed"
    assert await subjects.delete(SESSION, {"subject": "u1"}) == 1
    assert await subjects.delete(SESSION, {"subject": "u1"}) == 0
    assert await keys_of(provider) == {"user:session:u2", "user:session:u12"}


@pytest.mark.parametrize("pattern", [SESSION, "s:{subject}:x:*", "*:of:{subject}"])
async def test_a_subject_whatever_its_name_reaches_nobody_else(provider, pattern):
    everybody = [*HOSTILE, "u1", "u2", "u12", "a", "z", "U1"]
    place = {SESSION: "user:session:{}", "s:{subject}:x:*": "s:{}:x:1", "*:of:{subject}": "a:of:{}"}[pattern]
    keys = {
        p: place.replace("{}", p, 1) if "{}" not in p else place.partition("{}")[0] + p + place.partition("{}")[2]
        for p in everybody
    }
    subjects = needs(provider, "subjects")
    for person, key in keys.items():
        await subjects.insert(pattern, [{"subject": person, "value": person, "key": key}])
    assert await keys_of(provider) == set(keys.values())
    for person, key in keys.items():
        found = await subjects.select(pattern, {"subject": person})
        assert [(r["key"], r["subject"], r["value"]) for r in found] == [(key, person, person)]
    left = set(keys.values())
    for person, key in keys.items():
        assert await subjects.delete(pattern, {"subject": person}) == 1
        left.discard(key)
        assert await keys_of(provider) == left


async def test_several_keys_of_one_subject(provider):
    for key in ("user:u1:a", "user:u1:b:c", "user:u1:", "user:u12:a", "user:u1", "xuser:u1:a"):
        await provider.set(key, key)
    subjects = needs(provider, "subjects")
    mine = {"user:u1:a", "user:u1:b:c", "user:u1:"}
    assert {r["key"] for r in await subjects.select(PARTS, {"subject": "u1"})} == mine
    assert await subjects.update(PARTS, {"subject": "u1"}, {"value": 1}) == 3
    assert await subjects.delete(PARTS, {"subject": "u1"}) == 3
    assert await keys_of(provider) == {"user:u12:a", "user:u1", "xuser:u1:a"}


async def test_an_id_that_cannot_be_told_from_another_is_refused(provider):
    """user:a:b:c : whether it is a's or a:b's, nobody could say. So nobody is called a:b there."""
    subjects = needs(provider, "subjects")
    for pattern in (PARTS, "*:{subject}"):
        with pytest.raises(ConfigurationError, match="cannot be told from another") as caught:
            await subjects.delete(pattern, {"subject": "secret:b"})
        assert "secret" not in str(caught.value)
    await subjects.insert(SESSION, [{"subject": "a:b", "value": 1}])
    assert await subjects.delete(SESSION, {"subject": "a:b"}) == 1


@pytest.mark.parametrize(
    "pattern", ["", "user", "user:{subject}*", "*{subject}", "{subject}{subject}", "a:{subject}:{subject}"]
)
async def test_a_pattern_that_cannot_tell_people_apart_is_refused(redis, pattern):
    subjects = needs(redis, "subjects")
    for call in (
        subjects.describe(pattern),
        subjects.select(pattern, {"subject": "u1"}),
        subjects.delete(pattern, {"subject": "u"}),
    ):
        with pytest.raises(ConfigurationError, match="key pattern"):
            await call


async def test_ids_of_other_types_name_the_same_person(redis):
    subjects = await fill(redis, SESSION, [42, UUID(int=7)])
    assert len(await subjects.select(SESSION, {"subject": "42"})) == 1
    assert len(await subjects.select(SESSION, {"subject": str(UUID(int=7))})) == 1
    # Keys may know people by another number; that it is no subject's id, those above have said.
    assert await subjects.select(SESSION, {"subject": "13097248022"}) == []


async def test_a_change_keeps_the_life_of_its_key(sealed):
    await sealed.set("user:session:u1", 1, ex=100, subject="u1")
    subjects = needs(sealed, "subjects")
    assert await subjects.update(SESSION, {"subject": "u1"}, {"value": 2}) == 1
    assert 90 < await sealed.ttl("user:session:u1") <= 100
    assert await sealed.get("user:session:u1", subject="u1") == 2
    (row,) = await subjects.select(SESSION, {"subject": "u1"})
    assert 90 < row["ttl"] <= 100


async def test_a_value_planted_under_a_subjects_key_is_not_handed_out(sealed):
    await sealed.set("user:session:u1", "mine", subject="u1")
    stolen = await sealed.execute("GET", "user:session:u1", read=True)
    await sealed.execute("SET", "user:session:u2", stolen)
    with pytest.raises(DecryptionFailed):
        await needs(sealed, "subjects").select(SESSION, {"subject": "u2"})
    assert await needs(sealed, "subjects").delete(SESSION, {"subject": "u2"}) == 1


async def test_a_batch_larger_than_one_scan(clustered, redis):
    for provider in (clustered, redis):
        await provider.set_many({f"user:u1:{i}": i for i in range(1500)})
        await provider.set_many({f"user:u2:{i}": i for i in range(1500)})
        subjects = needs(provider, "subjects")
        assert len(await subjects.select(PARTS, {"subject": "u1"})) == 1500
        assert await subjects.delete(PARTS, {"subject": "u1"}) == 1500
        assert len(await keys_of(provider)) == 1500


async def test_the_store_is_described_and_needs_no_making(redis):
    subjects = needs(redis, "subjects")
    store = await subjects.describe(SESSION)
    assert store is not None
    assert store.primary_key == ("key",)
    assert [c.name for c in store.columns] == ["key", "subject", "value", "ttl"]
    assert (
        await subjects.prepare(Shape(SESSION, (ShapeColumn("subject"), ShapeColumn("value", "json")), ("key",))) == []
    )
    with pytest.raises(ConfigurationError, match="not email"):
        await subjects.prepare(Shape(SESSION, (ShapeColumn("email"),), ("key",)))


async def test_what_redis_cannot_do_is_said(redis):
    subjects = needs(redis, "subjects")
    with pytest.raises(CapabilityMissing, match="no locks"):
        await subjects.select(SESSION, {"subject": "u1"}, lock=True)
    with pytest.raises(CapabilityMissing, match="transactions"):
        await subjects.select(SESSION, {"subject": "u1"}, transaction=object())
    for call in (subjects.delete(SESSION, {}), subjects.update(SESSION, {}, {"value": 1})):
        with pytest.raises(ValueError, match="every key"):
            await call
    for call in (
        subjects.select(SESSION, {"email": "x"}),
        subjects.update(SESSION, {"subject": "u1"}, {"key": "x"}),
        subjects.select(SESSION, {}, order_by=["name"]),
        subjects.insert(PARTS, [{"subject": "u1", "value": 1}]),
        subjects.insert(SESSION, [{"subject": "u1", "value": 1, "key": "user:session:u2"}]),
    ):
        with pytest.raises(ConfigurationError):
            await call
    for capability in ("session", "transactions", "ledger"):
        with pytest.raises(CapabilityMissing):
            needs(redis, capability)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0:"), min_size=1, max_size=6).filter(str.strip)


def glob(pattern: bytes) -> re.Pattern[bytes]:
    """Redis's own globs, as an expression: what its stringmatchlen does with what we escape."""
    out, at = b"", 0
    while at < len(pattern):
        c = pattern[at : at + 1]
        if c == b"\\":
            at += 1
            c = re.escape(pattern[at : at + 1])
        elif c == b"*":
            c = b".*"
        else:
            assert c not in b"?["
            c = re.escape(c)
        out += c
        at += 1
    return re.compile(out, re.DOTALL)


@given(NAMES, NAMES)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_no_name_reaches_another(mine, yours):
    for text in (SESSION, PARTS, "*:x:{subject}:y"):
        pattern = KeyPattern.parse(text)
        keys = {name: text.replace("*", "any:thing").partition("{subject}") for name in (mine, yours)}
        made = {name: (a + name + b).encode() for name, (a, _, b) in keys.items()}
        for name in (mine, yours):
            assert glob(pattern.glob(name)).fullmatch(made[name])
            assert pattern.matcher(name).fullmatch(made[name])
        if mine != yours:
            assert not pattern.matcher(mine).fullmatch(made[yours])
            assert not glob(pattern.glob(mine)).fullmatch(made[yours])
