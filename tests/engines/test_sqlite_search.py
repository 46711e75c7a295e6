"""What is SQLite's own about its search: triggers that keep an index, and stems that it does not know."""

from __future__ import annotations

import sqlite3

import pytest

from datavern import SQLiteProvider
from datavern.contracts.errors import ConfigurationError, QueryRejected
from datavern.engines.sqlite.norwegian import STOP_WORDS, norwegian_stem
from datavern.engines.sqlite.search import _harmless


@pytest.fixture
async def db(tmp_path):
    async with SQLiteProvider(tmp_path / "test.db", location="norway", trusted_schema=True) as db:
        await db.execute("CREATE TABLE t (id TEXT PRIMARY KEY, body, other TEXT UNIQUE)")
        await db.enable_search("t", "body")
        yield db


async def found(db, text, table="t"):
    return [row["id"] for row in await db.search(table, "body", text)]


async def words(db):
    table = await db.query_value("SELECT name FROM sqlite_master WHERE name LIKE 'datavern_search%words'")
    return {row[0] for row in await db.query(f'SELECT term FROM "{table}"')}


async def test_a_schema_that_is_not_trusted_is_told_why(tmp_path):
    path = tmp_path / "test.db"
    async with SQLiteProvider(path, location="norway") as db:
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
        if _harmless():
            assert await db.enable_search("t", "body")
            assert await db.execute("INSERT INTO t VALUES (1, 'hus')") == 1
            return
        with pytest.raises(ConfigurationError, match="trusted_schema=True"):
            await db.enable_search("t", "body")
        assert await db.execute("INSERT INTO t VALUES (1, 'hus')") == 1
    async with SQLiteProvider(path, location="norway", trusted_schema=True) as db:
        await db.enable_search("t", "body")
    async with SQLiteProvider(path, location="norway") as db:
        with pytest.raises(QueryRejected, match="trusted_schema=True"):
            await db.execute("INSERT INTO t VALUES (2, 'hus')")
        assert await found(db, "huset") == [1]


async def test_every_way_to_write_is_followed(db):
    assert await db.execute("INSERT INTO t VALUES ('a', 'et hus', 'x')") == 1
    assert await db.execute("INSERT OR REPLACE INTO t VALUES ('a', 'en båt', 'x')") == 1
    assert (await found(db, "hus"), await found(db, "båten"), await words(db)) == ([], ["a"], {"en", "båt"})
    assert await db.execute("INSERT OR IGNORE INTO t VALUES ('a', 'en bil', 'x')") == 0
    await db.execute("INSERT INTO t VALUES ('a', 'en bil', 'x') ON CONFLICT DO UPDATE SET body = excluded.body")
    assert await words(db) == {"en", "bil"}
    await db.execute("INSERT OR ROLLBACK INTO t VALUES ('b', 'en hest', 'y')")
    await db.execute("UPDATE OR REPLACE t SET id = 'a' WHERE id = 'b'")
    assert (await found(db, "bil"), await found(db, "hest")) == ([], ["a"])
    await db.execute("INSERT OR REPLACE INTO t VALUES ('c', 'en ku', 'y')")  # takes 'a' away by another key
    assert (await found(db, "hest"), await found(db, "ku")) == ([], ["c"])
    await db.execute("INSERT OR REPLACE INTO t VALUES ('a', 'en sau', 'z')")
    assert (await found(db, "hest"), await found(db, "sau")) == ([], ["a"])
    await db.execute("DELETE FROM t")
    assert await found(db, "ku") == []


async def test_vacuum_leaves_the_rows_where_they_are(db):
    await db.execute_many("INSERT INTO t VALUES (?, ?, ?)", [[f"k{i}", f"ord{i}", str(i)] for i in range(200)])
    await db.execute("DELETE FROM t WHERE CAST(other AS INTEGER) % 3 <> 0")
    await db.execute("VACUUM")
    assert await found(db, "ord99") == ["k99"]
    assert await found(db, "ord98") == []


async def test_bytes_in_a_column_that_takes_anything_are_no_text(db):
    await db.execute("INSERT INTO t VALUES ('a', ?, 'x')", [b"hemmelig"])
    await db.execute("INSERT INTO t (id, body) VALUES (NULL, 'uten')")  # SQLite lets a key be NULL
    assert await words(db) == set()


async def test_a_table_that_was_dropped_takes_its_index_out_of_use(db):
    await db.execute("INSERT INTO t VALUES ('a', 'et hus', 'x')")
    await db.execute("DROP TABLE t")
    with pytest.raises(ConfigurationError, match="no table"):
        await found(db, "hus")
    await db.execute("CREATE TABLE t (id TEXT PRIMARY KEY, body TEXT) WITHOUT ROWID, STRICT")
    await db.execute("INSERT INTO t VALUES ('a', 'en båt')")
    with pytest.raises(ConfigurationError, match="enable_search"):
        await found(db, "hus")
    await db.enable_search("T", "BODY")
    assert (await found(db, "hus"), await found(db, "båter")) == ([], ["a"])


async def test_a_table_without_a_key_and_another_schema_are_refused(db):
    await db.execute("CREATE TABLE u (body TEXT)")
    with pytest.raises(ConfigurationError, match="primary key"):
        await db.enable_search("u", "body")
    with pytest.raises(ConfigurationError, match="one schema"):
        await db.search("temp.u", "body", "hus")


@pytest.mark.parametrize("key", ["id INTEGER PRIMARY KEY DESC", "id INTEGER, PRIMARY KEY (id)", "id INT PRIMARY KEY"])
async def test_what_only_looks_like_a_row_id(db, key):
    await db.execute(f"CREATE TABLE u ({key.replace(', ', ', body TEXT, ') if ',' in key else key + ', body TEXT'})")
    await db.enable_search("u", "body")
    await db.execute("INSERT INTO u (id, body) VALUES (7, 'et hus'), (3, 'en båt')")
    assert await found(db, "hus", "u") == [7]
    await db.execute("DELETE FROM u WHERE id = 7")
    assert (await found(db, "hus", "u"), await found(db, "båt", "u")) == ([], [3])


async def test_memory_and_a_writer_that_is_busy():
    async with SQLiteProvider(":memory:", location="norway", trusted_schema=True) as db:
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
        await db.enable_search("t", "body")
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1, 'et hus')")
            assert len(await db.search("t", "body", "huset", transaction=tx)) == 1
        assert await found(db, "hus") == [1]


async def test_a_failed_enabling_leaves_nothing(tmp_path):
    path = tmp_path / "test.db"
    async with SQLiteProvider(path, location="norway", trusted_schema=True) as db:
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
        await db.execute("INSERT INTO t VALUES (1, ?)", ["et hus " * 10_000])
        await db.execute(f"PRAGMA max_page_count = {await db.query_value('PRAGMA page_count') + 3}")
        with pytest.raises(Exception, match="full"):
            await db.enable_search("t", "body")
        assert not await db.query("SELECT name FROM sqlite_master WHERE name LIKE 'datavern_search%'")


async def test_the_stems_are_postgresqls(postgresql):
    """Words of administration and of everyday, as the server's own dictionary stems them."""
    text = """
    huset husene husets hus biler bilenes vanlig vanlige vanligvis kjærlighet kjærligheten fordømt kommunenes løvt godt
    sendt skoler skolene skolen barnas endene erte smerte ansvarsløshet elever elevene arbeidslov hetslov enkel enkelt
    kjøpt kjøpte boks prosess prosessen bussen båtene fisks fjells banks tanks arks vedtak vedtaket vedtakene
    saksbehandler saksbehandlere saksbehandleren rettighetene rettighetens uvanligste yngst yngste snakket snakkede
    fjellene ære ærens øyas vennskapelig farlige lovgivning bestemmelser lokalt eldste brukerens brukernes idéer kafé
    kafeer mentes personopplysninger personopplysningene behandling behandlingen samtykke samtykket innsyn klage klagen
    søknad søknaden søknadene tjenester tjenestene borgere borgerne offentlighet offentlige ab a ø xyz b2b 2026
    """.split()  # noqa: SIM905  (a hundred words are read more easily than a hundred strings)
    rows = await postgresql.query(
        "SELECT w, (ts_lexize('norwegian_stem', w))[1] AS s FROM unnest($1::text[]) w", [text]
    )
    assert {r["w"]: r["s"] for r in rows if r["s"]} == {
        r["w"]: norwegian_stem(r["w"]) for r in rows if r["s"] is not None and r["s"] != ""
    }


async def test_the_words_that_say_nothing_say_nothing_there_either(postgresql):
    rows = await postgresql.query(
        "SELECT w FROM unnest($1::text[]) w WHERE to_tsvector('norwegian', w) <> ''", [sorted(STOP_WORDS)]
    )
    assert {r["w"] for r in rows} == set()


def test_this_sqlite_has_fts5():
    assert sqlite3.connect(":memory:").execute("SELECT sqlite_compileoption_used('ENABLE_FTS5')").fetchone()[0] == 1
