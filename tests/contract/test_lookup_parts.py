"""Sealed text found by its beginning and by a part of it, where the data map asks for such an index."""

import re

import pytest

from datavern import ConfigurationError, ConstraintViolated, Dataset, DecryptionFailed, Field, SubjectRequest

NAMES = ["Kari Nordmann", "KARIN Nordby", "Åse Karlsen", "Per Hansen", "Kå", "Ødegård"]
PEOPLE = Dataset(
    "people",
    database="main",
    subject="id",
    erasure="anonymize",
    legal_basis="kommuneloven § 1",
    fields={
        "name": Field(sealed=True, kind="name", prefixes=[3, 5], ngrams=3),
        "phone": Field(sealed=True, lookup=True, kind="phone", prefixes=(6,), unique=True),
        "note": Field(sealed=True),
    },
)


@pytest.fixture
async def people(managed):
    async with managed(PEOPLE) as db:
        await db.prepare("people")
        store = db.personal("people")
        await store.insert_many(
            {"id": f"p{n}", "name": name, "phone": f"+47 22 22 22 2{n}", "note": "n"} for n, name in enumerate(NAMES)
        )
        yield db, store


def names(rows):
    return sorted(row["name"] for row in rows)


async def test_the_beginning_finds_whoever_has_it(people):
    _, store = people
    assert names(await store.starts_with(name="kar")) == ["KARIN Nordby", "Kari Nordmann"]
    assert names(await store.starts_with(name=" KARI ")) == ["KARIN Nordby", "Kari Nordmann"]
    assert names(await store.starts_with(name="kari n")) == ["Kari Nordmann"]
    assert names(await store.starts_with(name="ødeG")) == ["Ødegård"]
    assert await store.starts_with(name="nord") == []
    assert len(await store.starts_with(name="kar", limit=1)) == 1
    assert len(await store.starts_with(phone="22 22 2")) == 6
    with pytest.raises(ConfigurationError, match="3 characters or more"):
        await store.starts_with(name="Kå")


async def test_a_part_finds_whoever_has_it(people):
    _, store = people
    assert names(await store.contains(name="NORD")) == ["KARIN Nordby", "Kari Nordmann"]
    assert names(await store.contains(name="i nor")) == ["Kari Nordmann"]
    assert names(await store.contains(name="ari")) == ["KARIN Nordby", "Kari Nordmann"]
    assert await store.contains(name="xyz") == []
    assert names(await store.contains(name="kar", limit=2)) != []
    with pytest.raises(ConfigurationError, match="3 characters or more"):
        await store.contains(name="ka")


async def test_what_has_no_such_index_says_so(people):
    _, store = people
    with pytest.raises(ConfigurationError, match=r"people\.note has no index of beginnings"):
        await store.starts_with(note="n")
    with pytest.raises(ConfigurationError, match=r"people\.phone has no index of parts"):
        await store.contains(phone="2222")
    with pytest.raises(ConfigurationError, match="one field"):
        await store.contains()
    with pytest.raises(ConfigurationError, match="people.name: "):
        await store.starts_with(name=5)
    with pytest.raises(ConfigurationError, match="people.name: "):
        await store.contains(name="   ")
    with pytest.raises(ConfigurationError, match="limit"):
        await store.contains(name="kari", limit=0)


async def test_a_change_moves_the_indexes_with_it(people):
    _, store = people
    await store.update("p0", {"name": "Ola Berg"})
    assert names(await store.starts_with(name="kari")) == ["KARIN Nordby"]
    assert names(await store.contains(name="ber")) == ["Ola Berg"]
    await store.update("p0", {"name": None})
    assert names(await store.contains(name="ber")) == []
    assert (await store.get("p0"))["name"] is None


async def test_an_index_that_was_moved_finds_nothing_that_is_not_so(people, sql):
    """It narrows the search down; what a row holds is looked at once it is open."""
    db, store = people
    stolen = "(SELECT name_prefix3 FROM people WHERE id = 'p0')"
    await db["main"].execute(f"UPDATE people SET name_prefix3 = {stolen} WHERE id = 'p3'")
    assert names(await store.starts_with(name="kar")) == ["KARIN Nordby", "Kari Nordmann"]
    index = (await db["main"].query("SELECT phone_lookup FROM people WHERE id = 'p3'"))[0][0]
    await db["main"].execute("UPDATE people SET phone_lookup = NULL WHERE id = 'p3'")
    await db["main"].execute(sql("UPDATE people SET phone_lookup = $1 WHERE id = 'p4'"), [index])
    with pytest.raises(DecryptionFailed):
        await store.find(phone="22 22 22 23")
    assert await store.find(phone="22 22 22 24") == []  # whose index was taken away is not found
    await db["main"].execute("UPDATE people SET name = phone WHERE id = 'p0'")
    with pytest.raises(DecryptionFailed):
        await store.starts_with(name="kar")


SPELLINGS = {
    "email": ["åse@blåbær.no", " ÅSE@BLÅBÆR.NO", "A\u030ase@bla\u030abær.no", "\ufeffåse@\u00adblåbær.no\u200b"],
    "number": ["13097248022", "130972 48022", "１３０９７２４８０２２", "\u200e130972-48022"],
    "mobile": ["+4770123456", "70 12 34 56", "\u202a+47 70 12 34 56\u202c", "(+47) 70123456", "tel:0047-70123456"],
    "name": ["Åse Bø", "åse\u00a0 BØ ", "A\u030ase Bø", "\u2067Åse\u200b Bø\u2069"],
    "exact": ["Åse"],
}
OTHERS = {
    "email": "ase@blåbær.no",
    "number": "10915596784",
    "mobile": "+4670123456",
    "name": "Aase Bø",
    "exact": "Åse ",
}


async def test_every_spelling_finds_every_other(managed):
    kinds = {"email": "email", "number": "fodselsnummer", "mobile": "phone", "name": "name", "exact": None}
    fields = {name: Field(sealed=True, lookup=True, kind=kind) for name, kind in kinds.items()}
    async with managed(Dataset("spelt", database="main", subject="id", legal_basis="x", fields=fields)) as db:
        await db.prepare("spelt")
        store = db.personal("spelt")
        for name, spellings in SPELLINGS.items():
            for n, text in enumerate([*spellings, OTHERS[name]]):
                await store.insert({"id": f"{name}{n}", name: text})
        for name, spellings in SPELLINGS.items():
            all_of_them = {f"{name}{n}" for n in range(len(spellings))}
            for text in spellings:
                found = await store.find({name: text})
                assert {row["id"] for row in found} == all_of_them
                assert {row[name] for row in found} == set(spellings)  # what was written comes back as it was
            (other,) = await store.find({name: OTHERS[name]})
            assert other["id"] == f"{name}{len(spellings)}"
        assert len(await store.find(mobile=tuple(SPELLINGS["mobile"][:2]))) == len(SPELLINGS["mobile"])


async def test_the_table_holds_words_and_no_text(people):
    db, _ = people
    for row in await db["main"].query("SELECT * FROM people"):
        stored = dict(row)
        words = stored.pop("name_ngrams").split()  # digits of hashes: any four of them stand there by chance
        assert not any(part in str(stored).lower() for part in ("kari", "nord", "2222", "ødeg"))
        assert all(re.fullmatch("[0-9a-f]{12}", word) for word in words)
        assert words == sorted(set(words))
        assert (row["name_prefix5"] is None) == (row["id"] == "p4")


async def test_an_erasure_leaves_no_index(people):
    db, store = people
    await db.subject_requests.process(SubjectRequest("erasure", subject="p0"))
    rows = [dict(r) for r in await db["main"].query("SELECT * FROM people")]
    (gone,) = [row for row in rows if not str(row["id"]).startswith("p")] or [r for r in rows if r["name"] is None]
    assert [gone[c] for c in ("name_prefix3", "name_prefix5", "name_ngrams", "phone_prefix6", "phone_lookup")] == [
        None
    ] * 5
    assert names(await store.starts_with(name="kari")) == ["KARIN Nordby"]


async def test_a_sealed_value_is_unique_through_its_index(people):
    _, store = people
    with pytest.raises(ConstraintViolated) as caught:
        await store.insert({"id": "again", "phone": "0047 222 222 20"})
    assert "222" not in str(caught.value)
    await store.insert_many([{"id": "a"}, {"id": "b", "phone": None}])  # no value is equal to no other


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sealed": True, "prefixes": [0]}, "from 1 to 64"),
        ({"sealed": True, "prefixes": 3}, "from 1 to 64"),
        ({"sealed": True, "prefixes": ["3"]}, "from 1 to 64"),
        ({"sealed": True, "ngrams": 1}, "from 2 to 16"),
        ({"sealed": True, "ngrams": True}, "from 2 to 16"),
        ({"prefixes": [3]}, "sealed = true"),
        ({"ngrams": 3}, "sealed = true"),
        ({"sealed": True, "kind": "phone", "ngrams": 3}, "phone"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        Field(**settings)


def test_a_column_that_datavern_makes_is_nobody_else_s():
    with pytest.raises(ConfigurationError, match="name_prefix3"):
        Dataset(
            "d",
            database="m",
            subject="id",
            fields={"name": Field(sealed=True, prefixes=[3]), "name_prefix3": Field()},
        )
