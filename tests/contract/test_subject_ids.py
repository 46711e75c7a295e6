"""Ids that a database takes for the same and that name different people, and columns that change an id."""

import uuid

import pytest

from datavern import ConfigurationError, Dataset, Field, SubjectRequest

SPELLING = uuid.UUID(int=0xABCDEF << 64)


def documents(erasure="delete", **more):
    settings = {"database": "main", "subject": "who", "erasure": erasure, "fields": {"note": Field(sealed=True)}}
    return Dataset("documents", **{**settings, **more})


async def erase(db, subject):
    return await db.subject_requests.process(SubjectRequest("erasure", subject=subject))


async def table(db, kind):
    await db["main"].execute(f"CREATE TABLE documents (id bigint PRIMARY KEY, who {kind})")
    await db.prepare("documents")
    return db.personal("documents")


async def case_insensitive(db, engine):
    kind = "text COLLATE NOCASE"
    if engine == "postgresql":
        await db["main"].execute("CREATE EXTENSION citext")
        kind = "citext"
    return await table(db, kind)


@pytest.mark.not_on("azuresql", "a column that knows no case is refused as a subject")
@pytest.mark.parametrize(
    "dataset",
    [
        documents("delete"),
        documents("anonymize"),
        documents("soft"),
        documents("shred"),
        documents("retain", retention="5y", legal_basis="bokføringsloven § 13"),
    ],
    ids=lambda dataset: dataset.erasure,
)
async def test_an_erasure_is_of_that_very_id_where_the_column_knows_no_case(managed, engine, dataset):
    async with managed(dataset) as db:
        store = await case_insensitive(db, engine)
        await store.insert({"id": 1, "who": "anna", "note": "of anna"})
        await store.insert({"id": 2, "who": "ANNA", "note": "of ANNA"})
        assert [row["id"] async for row in store.of("anna")] == [1]
        assert [row["id"] async for row in store.of("Anna")] == []
        access = await db.subject_requests.process(SubjectRequest("access", subject="Anna"))
        assert access.data["main.documents"] == []
        nobody = await erase(db, "Anna")
        assert nobody.certificate.body["stores"][0]["found"] == 0
        done = await erase(db, "ANNA")
        assert done.certificate.body["stores"][0]["found"] == 1
        assert len(done.certificate.body["keys"]) == 1
        assert (await store.get(1))["note"] == "of anna"
        left = {r["id"]: r["note"] for r in await db["main"].query("SELECT * FROM documents")}
        assert left[1]
        if dataset.erasure == "delete":
            assert list(left) == [1]


@pytest.mark.not_on("azuresql", "a column that knows no case is refused as a subject")
async def test_a_rectification_is_of_that_very_id(managed, engine):
    async with managed(documents()) as db:
        store = await case_insensitive(db, engine)
        await store.insert({"id": 1, "who": "anna", "note": "of anna"})
        await store.insert({"id": 2, "who": "ANNA", "note": "of ANNA"})
        changes = {"documents": {"note": "right"}}
        request = SubjectRequest("rectification", subject="ANNA", changes=changes)
        assert (await db.subject_requests.process(request)).success
        assert [(await store.get(n))["note"] for n in (1, 2)] == ["of anna", "right"]


async def test_a_uuid_in_another_spelling_is_nobody(managed, engine):
    kind = {"postgresql": "uuid", "azuresql": "uniqueidentifier"}.get(engine, "text")
    async with managed(documents()) as db:
        store = await table(db, kind)
        await store.insert({"id": 1, "who": SPELLING, "note": "n"})
        for other in (str(SPELLING).upper(), f"urn:uuid:{SPELLING}", SPELLING.hex):
            assert [row async for row in store.of(other)] == []
            assert await store.find(who=other) == []
            assert (await erase(db, other)).message == "Nothing was found about this subject."
        assert [row["note"] async for row in store.of(str(SPELLING))] == ["n"]
        done = await erase(db, SPELLING)
        assert len(done.certificate.body["keys"]) == 1
        assert await store.get(1) is None


async def test_a_column_that_changes_ids_is_refused_before_anything_is_written(managed, engine):
    kinds = {
        "postgresql": ["char(12)", "padded"],
        "sqlite": ["numeric", "string", "real"],
        "azuresql": ["nchar(12)", "decimal(10, 2)", "nvarchar(50) COLLATE Latin1_General_100_CI_AS"],
    }[engine]
    for kind in kinds:
        async with managed(documents()) as db:
            if engine == "postgresql" and kind == "padded":
                await db["main"].execute("CREATE DOMAIN padded AS char(12)")
            with pytest.raises(ConfigurationError, match="changes an id that it is given"):
                await table(db, kind)
            with pytest.raises(ConfigurationError, match=r"datasets\.documents\.subject"):
                await db.personal("documents").insert({"id": 1, "who": "042", "note": "n"})
            assert await db["main"].query("SELECT * FROM documents") == []
            await db["main"].execute("DROP TABLE documents")


async def test_columns_that_keep_ids_are_taken(managed, engine):
    kinds = {
        "postgresql": ["varchar(20)", "text"],
        "sqlite": ["varchar(20)", "char(12)", "clob", ""],
        "azuresql": [f"{kind} COLLATE Latin1_General_100_BIN2" for kind in ("varchar(20)", "nvarchar(450)")],
    }[engine]
    for kind in kinds:
        async with managed(documents()) as db:
            store = await table(db, kind)
            for number, who in enumerate(["042", "anna ", "1e3"]):
                await store.insert({"id": number, "who": who, "note": who})
                assert (await store.get(number))["note"] == who
            await db["main"].execute("DROP TABLE documents")
