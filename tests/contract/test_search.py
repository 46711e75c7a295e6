"""Full-text search: the same call, and the same rows, on every engine."""

from __future__ import annotations

import asyncio
import unicodedata

import pytest

from datavern.contracts.errors import ConfigurationError, QueryRejected

pytestmark = pytest.mark.not_on("azuresql", "its full-text search is a service of its own, and not offered")

ARTICLES = [
    (1, "Huset ved fjorden", "Det gamle huset ble solgt."),
    (2, "Mange hus", "Husene ligger tett, og hus bygges ennå. Hus er dyrt."),
    (3, "Saksbehandling", "Kommunen fattet vedtaket om barnehageplass."),
    (4, "Blåbær", "Blåbærskogen på gården i Å. Ærlig talt, øya er grønn."),
    (5, "Blabaer", "Garden med bla bar."),
    (6, "E-post", "Svar på e-post innen tre dager: rød varebil til leie"),
    (7, None, "Bare en tekst om kommuner og fjorder"),
]


@pytest.fixture
async def provider(database, engine):
    """As in conftest.py; SQLite may need `trusted_schema` for it: see `test_sqlite_search`."""
    settings = {"trusted_schema": True} if engine == "sqlite" else {}
    async with database.provider(location="norway", **settings) as provider:
        yield provider


@pytest.fixture
async def articles(provider):
    await provider.execute("CREATE TABLE articles (id INTEGER PRIMARY KEY, title TEXT, body TEXT)")
    for row in ARTICLES:
        title = "NULL" if row[1] is None else f"'{row[1]}'"
        await provider.execute(f"INSERT INTO articles (id, title, body) VALUES ({row[0]}, {title}, '{row[2]}')")
    await provider.enable_search("articles", ["title", "body"])
    return provider


async def found(provider, text, **settings):
    rows = await provider.search("articles", ["title", "body"], text, **settings)
    return {row["id"] for row in rows}


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("hus", {1, 2}),
        ("husets", {1, 2}),
        ("HUSENE", {1, 2}),
        ("kommunens vedtak", {3}),
        ("kommune", {3, 7}),
        ("og i på kommune", {3, 7}),  # words that say nothing are not looked for
        ("kommuner, vedtaket?", {3}),  # with what stands beside words in a sentence
        ("+(hus) *fjorden*", {1}),
        ("«huset», og: fjorden!", {1}),
        ("vedtak, -(kommunen)", set()),
        ("fjord or vedtak", {1, 3, 7}),
        ("fjord OR vedtak -kommuner", {1, 7}),
        ("fjorden -gamle", {7}),
        ('fjord -"om kommuner"', {1}),
        ('"gamle huset"', {1}),
        ('"huset gamle"', set()),
        ("blåbær", {4}),
        ("blabaer", {5}),  # å is no a
        ("gård", {4}),
        ("ÆRLIG ØYA", {4}),
        ("e-post", {6}),
        ("tekst", {7}),  # a title that is NULL hides nothing
        ("finnesikke", set()),
        ("og i på", set()),
        ("-hus", set()),  # a search ranks what it found
    ],
)
async def test_what_is_found(articles, text, ids):
    assert await found(articles, text) == ids


async def test_a_text_in_decomposed_letters_is_the_same_text(articles):
    assert await found(articles, unicodedata.normalize("NFD", "blåbær")) == {4}


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", '"', '""', '"""', "-", "- -", "or", "or or", "*", "^", "( )", "&|!", "'", "''", "\t\n", "\\", "%",
        "'; DROP TABLE articles; --", "NEAR(hus fjord, 5)", "title : hus", "{title} : hus", "hus AND", "hus NOT",
        "NOT hus", "a:*", "hus:*B", "hus <-> fjord", "hus\\", "$1", "?", ":name", "hus + fjord", "🙂", "\U0010ffff",
        "hus -", 'hus "gamle', "<b>hus</b>",
    ],
)  # fmt: skip
async def test_no_text_is_a_syntax_error(articles, text):
    await articles.search("articles", ["title", "body"], text)
    assert len(await articles.query("SELECT * FROM articles")) == len(ARTICLES)


async def test_an_unbalanced_quote_is_a_phrase_to_the_end(articles):
    assert await found(articles, 'fjorden "gamle huset') == {1}


@pytest.mark.parametrize("text", ["hus\0", 7, None, b"hus", "hus " * 5000])
async def test_what_is_no_text_to_search_for_is_refused(articles, text):
    with pytest.raises(QueryRejected) as caught:
        await articles.search("articles", ["title", "body"], text)
    assert "hus" not in str(caught.value)


async def test_a_row_is_the_tables_own_with_rank_and_headline(articles):
    rows = await articles.search("articles", ["title", "body"], "hus", marks=("[", "]"))
    assert list(rows[0].keys()) == ["id", "title", "body", "search_rank", "search_headline"]
    assert rows[0]["id"] == 2  # four times, and once in the title
    assert [row["search_rank"] for row in rows] == sorted((row["search_rank"] for row in rows), reverse=True)
    assert rows[0]["search_rank"] > rows[1]["search_rank"] > 0
    assert "[Huset]" in rows[1]["search_headline"]
    assert rows[1]["title"] == "Huset ved fjorden"


async def test_the_limit_keeps_the_best(articles):
    assert [r["id"] for r in await articles.search("articles", ["title", "body"], "hus", limit=1)] == [2]


@pytest.mark.parametrize(
    "settings",
    [{"limit": 0}, {"limit": -1}, {"limit": True}, {"limit": 2.5}, {"limit": 2**31}]
    + [{"marks": m} for m in ("**", ("*",), ("*", 7), ('"', '"'), ("x" * 40, "y"), ("\0", ""), None)]
    + [{"language": x} for x in ("klingon", "", "norwegian'; DROP TABLE articles; --", None)],
)
async def test_settings_that_cannot_be_meant_are_refused(articles, settings):
    with pytest.raises(ConfigurationError):
        await articles.search("articles", ["title", "body"], "hus", **settings)


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [
        ("nowhere", "title", "no table nowhere"),
        ("articles", "nothing", "no column nothing"),
        ("articles", ["title", "title"], "named twice"),
        ("articles", [], "expected the name"),
        ("articles", "", "expected the name"),
        ("", "title", "expected a table"),
        ("a.b.c", "title", "expected a table"),
        ('articles"; DROP TABLE articles; --', "title", "no table"),
        ("articles", 'title"; DROP TABLE articles; --', "no column"),
    ],
)
async def test_a_table_or_column_that_is_not_there_is_refused(articles, table, column, words):
    for call in (articles.enable_search, articles.disable_search):
        with pytest.raises(ConfigurationError, match=words):
            await call(table, column)
    with pytest.raises(ConfigurationError, match=words):
        await articles.search(table, column, "hus")
    assert len(await articles.query("SELECT * FROM articles")) == len(ARTICLES)


async def test_enabling_twice_does_nothing_and_at_once_is_safe(provider):
    await provider.execute("CREATE TABLE articles (id INTEGER PRIMARY KEY, title TEXT, body TEXT)")
    await provider.execute("INSERT INTO articles VALUES (1, 'et hus', 'x')")
    ran = await asyncio.gather(*(provider.enable_search("articles", "title") for _ in range(3)))
    assert len([r for r in ran if r]) == 1
    assert await provider.enable_search("articles", "title") == []
    assert len(await provider.search("articles", "title", "huset")) == 1
    assert await provider.disable_search("articles", "title") != []
    assert await provider.disable_search("articles", "title") == []


async def test_what_is_written_later_is_found_and_what_is_gone_is_not(articles):
    await articles.execute("INSERT INTO articles VALUES (8, 'Nytt', 'En elg i hagen')")
    assert await found(articles, "elger") == {8}
    await articles.execute("UPDATE articles SET body = 'En bjørn i hagen' WHERE id = 8")
    assert (await found(articles, "elg"), await found(articles, "bjørnen")) == (set(), {8})
    await articles.execute("UPDATE articles SET id = 80 WHERE id = 8")
    assert await found(articles, "bjørn") == {80}
    await articles.execute("DELETE FROM articles WHERE id = 80")
    assert await found(articles, "bjørn") == set()


async def test_a_transaction_sees_its_own_and_takes_it_back(articles):
    with pytest.raises(ZeroDivisionError):
        async with articles.transaction() as tx:
            await tx.execute("INSERT INTO articles VALUES (8, 'Nytt', 'En elg i hagen')")
            assert await found(articles, "elg", transaction=tx) == {8}
            raise ZeroDivisionError
    assert await found(articles, "elg") == set()
    async with articles.transaction(read_only=True) as tx:
        assert await found(articles, "hus", transaction=tx) == {1, 2}


async def test_names_with_quotes_and_a_key_of_several_columns(provider, engine):
    schema = "main" if engine == "sqlite" else "s"
    if engine == "postgresql":
        await provider.execute("CREATE SCHEMA s")
    await provider.execute(
        f'CREATE TABLE {schema}."Sak ""x""; --" '
        '("a b" TEXT, "år" INTEGER, "tekst ""1""" TEXT, PRIMARY KEY ("a b", "år"))'
    )
    insert = f'INSERT INTO {schema}."Sak ""x""; --" VALUES '
    await provider.execute(f"{insert} ('a', 1, 'om en bil'), ('a', 2, 'om en båt')")
    name, column = f'{schema}.Sak "x"; --', 'tekst "1"'
    await provider.enable_search(name, column)
    await provider.execute(f"{insert} ('b', 1, 'tre biler')")
    assert {(r[0], r[1]) for r in await provider.search(name, column, "bilen")} == {("a", 1), ("b", 1)}
    await provider.execute(f'UPDATE {schema}."Sak ""x""; --" SET "a b" = \'c\' WHERE "a b" = \'b\'')
    await provider.execute(f'DELETE FROM {schema}."Sak ""x""; --" WHERE "år" = 1 AND "a b" = \'a\'')
    assert {(r[0], r[1]) for r in await provider.search(name, column, "bilen")} == {("c", 1)}
    assert await provider.enable_search(name, column) == []


async def test_a_column_that_has_the_name_of_the_rank_is_refused(provider):
    await provider.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT, search_rank INTEGER)")
    await provider.execute("INSERT INTO t VALUES (1, 'et hus', 7)")
    await provider.enable_search("t", "body")
    with pytest.raises(ConfigurationError, match="search_rank"):
        await provider.search("t", "body", "hus")


async def test_a_sealed_field_is_refused(db, engine):
    main = db["main"]
    for call in (main.enable_search("users", "name"), main.search("users", "name", "Kari")):
        with pytest.raises(ConfigurationError, match="sealed"):
            await call


async def test_a_column_of_numbers_is_refused_where_the_engine_has_types(articles, engine):
    if engine == "postgresql":
        with pytest.raises(ConfigurationError, match="text column"):
            await articles.search("articles", "id", "1")
    else:
        assert await articles.enable_search("articles", "id")
        assert [r["id"] for r in await articles.search("articles", "id", "4")] == [4]


async def test_a_view_has_no_index(articles):
    await articles.execute("CREATE VIEW v AS SELECT id, body FROM articles")
    with pytest.raises(ConfigurationError, match="view"):
        await articles.enable_search("v", "body")


async def test_english_and_no_language(provider):
    await provider.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
    await provider.execute("INSERT INTO t VALUES (1, 'running houses'), (2, 'house'), (3, 'huset')")
    for language, text, ids in [
        ("english", "house", {1, 2}),
        ("english", "runs", {1}),
        ("simple", "house", {2}),
        ("simple", "hus", set()),
    ]:
        await provider.enable_search("t", "body", language=language)
        rows = await provider.search("t", "body", text, language=language)
        assert ({r["id"] for r in rows}, language, text) == (ids, language, text)


async def test_a_cancelled_search_leaves_the_provider_usable(articles):
    task = asyncio.ensure_future(found(articles, "hus"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await found(articles, "hus") == {1, 2}
