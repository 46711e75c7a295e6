"""Full-text search on SQLite: FTS5, an index for each set of columns, kept by triggers.

The index holds its own copy of the text. An external-content table would not, but it has to be told the old text of a
row that goes, and ``INSERT OR REPLACE`` removes rows without telling a trigger: it would go on finding words that are
no longer there. A row of the index is a row of the table by its INTEGER PRIMARY KEY; where the table has another key, a
third table gives each key a number, since VACUUM may change the row ids of a table without one.

Sources: https://sqlite.org/fts5.html; https://sqlite.org/lang_vacuum.html; https://sqlite.org/lang_createtrigger.html.
"""

from __future__ import annotations

import hashlib
import sqlite3
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import cache
from typing import Any

from datavern.contracts.errors import ConfigurationError
from datavern.engines.preparing import split_name
from datavern.engines.searching import HEADLINE, RANK, Alternative, Search, Term, readings, unambiguous
from datavern.engines.sqlite.norwegian import STOP_WORDS, norwegian_stem
from datavern.engines.sqlite.subjects import affinity

__all__ = ["disable", "enable", "search", "tokenizer"]

# No diacritics are removed: æ, ø and å are letters of their own, and so is é.
_TOKENIZERS = {
    "norwegian": "unicode61 remove_diacritics 0",
    "simple": "unicode61 remove_diacritics 0",
    "english": "porter unicode61 remove_diacritics 0",
}
_SNIPPET = 32  # words of a headline
_MOST_FORMS = 500  # words of one stem that are looked for
_SECURE_DELETE = (3, 42, 0)  # the first version whose index can be told to forget at once
_TABLE = "SELECT name, type FROM main.sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE"
_COLUMNS = "SELECT name, type, pk FROM pragma_table_xinfo(?) WHERE hidden <> 1"
_LAST = "\U0010ffff"


class _Index:
    """The full-text index of some columns: its names, and how its rows are the table's."""

    __slots__ = ("columns", "keys", "mapped", "name", "numbers", "table", "tokenizer", "words")

    def __init__(self, connection: sqlite3.Connection, table: str, columns: Iterable[str], language: str) -> None:
        self.tokenizer = tokenizer(language)
        schema, bare = split_name(table)
        if schema not in {None, "main"}:
            raise ConfigurationError(f"{table}: SQLite has one schema, main")
        found = connection.execute(_TABLE, [bare]).fetchone()
        if found is None:
            raise ConfigurationError(f"there is no table {table} to search")
        if found["type"] == "view":
            raise ConfigurationError(f"{table} is a view: search the tables that it is made of")
        self.table: str = found["name"]
        there = {_folded(c["name"]): c for c in connection.execute(_COLUMNS, [self.table])}
        self.columns: list[str] = []
        for column in columns:
            known = there.get(_folded(column))
            if known is None:
                raise ConfigurationError(f"{table} has no column {column} to search")
            if affinity(known["type"]) == "BLOB":
                raise ConfigurationError(
                    f"{table}.{column} holds bytes, and sealed fields are such: nobody can search in what is sealed. "
                    "Use a field with lookup=True, and find()"
                )
            self.columns.append(known["name"])
        keyed = sorted((c for c in there.values() if c["pk"]), key=lambda c: c["pk"])
        if not keyed:
            raise ConfigurationError(f"{table} has no primary key, and a search needs one to find its rows by")
        self.keys = [c["name"] for c in keyed]
        self.mapped = not self._is_row_id(connection, keyed)
        text = "\0".join([_folded(self.table), self.tokenizer, *map(_folded, self.columns)])
        self.name = f"datavern_search_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.words, self.numbers = f"{self.name}_words", f"{self.name}_keys"

    def _is_row_id(self, connection: sqlite3.Connection, keyed: Sequence[sqlite3.Row]) -> bool:
        """Whether the primary key is the row id, which VACUUM leaves as it is: then SQLite has made no index for it."""
        if len(keyed) > 1 or keyed[0]["type"].upper() != "INTEGER":
            return False
        made = "SELECT count(*) FROM pragma_index_list(?) WHERE origin = 'pk'"
        return bool(connection.execute(made, [self.table]).fetchone()[0] == 0)

    @property
    def triggers(self) -> list[str]:
        """Their names."""
        return [f"{self.name}_{event}" for event in ("insert", "update", "delete")]

    def is_whole(self, connection: sqlite3.Connection) -> bool:
        """Whether the index is there, and the table's triggers keep it: they go with a table that is dropped."""
        count = connection.execute(
            f"SELECT count(*) FROM main.sqlite_master WHERE name = ? OR (type = 'trigger' AND tbl_name = ? "  # noqa: S608  (placeholders)
            f"AND name IN ({', '.join('?' * len(self.triggers))}))",
            [self.name, self.table, *self.triggers],
        ).fetchone()[0]
        return bool(count == 1 + len(self.triggers))

    # ---- statements -------------------------------------------------------------------------------------------------

    def drops(self) -> list[str]:
        """What removes all of it."""
        return [
            *(f"DROP TRIGGER IF EXISTS main.{_quoted(t)}" for t in self.triggers),
            *(f"DROP TABLE IF EXISTS main.{_quoted(t)}" for t in (self.words, self.name, self.numbers)),
        ]

    def creates(self) -> list[str]:
        """What makes all of it, the rows that are there included."""
        table, index, numbers = _quoted(self.table), _quoted(self.name), _quoted(self.numbers)
        names = ", ".join(f"c{i}" for i in range(len(self.columns)))
        keys = ", ".join(f"k{i}" for i in range(len(self.keys)))
        ddl = [
            f'CREATE VIRTUAL TABLE main.{index} USING fts5({names}, tokenize = "{self.tokenizer}")',
            f"CREATE VIRTUAL TABLE main.{_quoted(self.words)} USING fts5vocab({index}, 'row')",
        ]
        if sqlite3.sqlite_version_info >= _SECURE_DELETE:
            ddl.append(f"INSERT INTO {index} ({index}, rank) VALUES ('secure-delete', 1)")  # noqa: S608  (a quoted name)
        if self.mapped:
            ddl.append(f"CREATE TABLE main.{numbers} (id INTEGER PRIMARY KEY, {keys}, UNIQUE ({keys}))")
            ddl.append(
                f"INSERT INTO {numbers} ({keys}) SELECT {self._each('t')} "  # noqa: S608  (quoted names)
                f"FROM {table} AS t WHERE {self._set('t')}"
            )
            ddl.append(
                f"INSERT INTO {index} (rowid, {names}) SELECT n.id, {self._texts('t')} FROM {numbers} AS n "  # noqa: S608  (quoted names)
                f"JOIN {table} AS t ON {self._joined('n', 't')}"
            )
        else:
            ddl.append(
                f"INSERT INTO {index} (rowid, {names}) SELECT {self._each('t')}, {self._texts('t')} FROM {table} AS t"  # noqa: S608  (quoted names)
            )
        changed = " OR ".join(f"old.{_quoted(c)} IS NOT new.{_quoted(c)}" for c in [*self.keys, *self.columns])
        bodies = {
            "INSERT": self._forgets("new") + self._takes(names, keys),
            f"UPDATE ON {table} WHEN {changed}": self._forgets("old") + self._forgets("new") + self._takes(names, keys),
            "DELETE": self._forgets("old"),
        }
        for trigger, (event, body) in zip(self.triggers, bodies.items(), strict=True):
            on = event if " ON " in event else f"{event} ON {table}"
            ddl.append(f"CREATE TRIGGER main.{_quoted(trigger)} AFTER {on} BEGIN {' '.join(body)} END")
        return ddl

    def _forgets(self, row: str) -> list[str]:
        """Take a row out of the index; nothing when it is not in it."""
        index, numbers = _quoted(self.name), _quoted(self.numbers)
        if not self.mapped:
            return [f"DELETE FROM {index} WHERE rowid = {row}.{_quoted(self.keys[0])};"]  # noqa: S608  (quoted names)
        this = " AND ".join(f"k{i} = {row}.{_quoted(k)}" for i, k in enumerate(self.keys))
        return [
            f"DELETE FROM {index} WHERE rowid = (SELECT id FROM {numbers} WHERE {this});",  # noqa: S608  (quoted names)
            f"DELETE FROM {numbers} WHERE {this};",  # noqa: S608  (quoted names)
        ]

    def _takes(self, names: str, keys: str) -> list[str]:
        """Put the new row into the index. Nothing here may conflict: the outer statement's OR … would decide then."""
        index, numbers = _quoted(self.name), _quoted(self.numbers)
        if not self.mapped:
            return [f"INSERT INTO {index} (rowid, {names}) VALUES ({self._each('new')}, {self._texts('new')});"]  # noqa: S608  (quoted names)
        this = " AND ".join(f"k{i} = new.{_quoted(k)}" for i, k in enumerate(self.keys))
        return [
            f"INSERT INTO {numbers} ({keys}) SELECT {self._each('new')} WHERE {self._set('new')};",
            f"INSERT INTO {index} (rowid, {names}) SELECT id, {self._texts('new')} FROM {numbers} WHERE {this};",  # noqa: S608  (quoted names)
        ]

    def _each(self, row: str) -> str:
        return ", ".join(f"{row}.{_quoted(k)}" for k in self.keys)

    def _set(self, row: str) -> str:
        """SQLite lets the columns of most primary keys be NULL; a row without a key is not searched."""
        return " AND ".join(f"{row}.{_quoted(k)} IS NOT NULL" for k in self.keys)

    def _joined(self, numbers: str, row: str) -> str:
        return " AND ".join(f"{row}.{_quoted(k)} = {numbers}.k{i}" for i, k in enumerate(self.keys))

    def _texts(self, row: str) -> str:
        """The texts; bytes in a column that takes anything, sealed ones among them, are not text."""
        return ", ".join(
            f"CASE typeof({row}.{_quoted(c)}) WHEN 'blob' THEN NULL ELSE {row}.{_quoted(c)} END" for c in self.columns
        )

    def select(self) -> str:
        """The search. Only rows that the table has count, and headlines are made for those that are returned."""
        table, index, numbers = _quoted(self.table), _quoted(self.name), _quoted(self.numbers)
        if self.mapped:
            source = f"FROM {numbers} AS n JOIN {table} AS t ON {self._joined('n', 't')} WHERE n.id ="
        else:
            source = f"FROM {table} AS t WHERE t.{_quoted(self.keys[0])} ="
        join = (
            f"JOIN {numbers} AS n ON n.id = f.id JOIN {table} AS t ON {self._joined('n', 't')}"
            if self.mapped
            else (f"JOIN {table} AS t ON t.{_quoted(self.keys[0])} = f.id")
        )
        return (
            f"SELECT t.*, -f.score AS {RANK}, f.headline AS {HEADLINE} FROM ("  # noqa: S608  (quoted names)
            f"SELECT rowid AS id, rank AS score, snippet({index}, -1, ?, ?, '…', {_SNIPPET}) AS headline "
            f"FROM {index} WHERE {index} MATCH ? AND EXISTS (SELECT 1 {source} {index}.rowid) ORDER BY rank LIMIT ?"
            f") AS f {join} ORDER BY f.score, f.id"
        )


def _check_trusted(connection: sqlite3.Connection) -> None:
    """FTS5 says of itself that it is harmless in triggers, but not in every version of SQLite.

    Raises:
        ConfigurationError: it does not say so here, and the file's triggers may use nothing else.
    """
    if not connection.execute("PRAGMA trusted_schema").fetchone()[0] and not _harmless():
        raise ConfigurationError(
            f"SQLite {sqlite3.sqlite_version} lets the triggers that keep a full-text index run only where the file's "
            "own schema is trusted: if nobody else can have made this file, open it with trusted_schema=True, here and "
            "wherever its rows are changed"
        )


@cache
def _harmless() -> bool:
    """Whether this SQLite lets a trigger write to FTS5 in a schema that is not trusted: tried out."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in (
            "PRAGMA trusted_schema = 0",
            "CREATE TABLE t (v TEXT)",
            "CREATE VIRTUAL TABLE f USING fts5(v)",
            "CREATE TRIGGER a AFTER INSERT ON t BEGIN INSERT INTO f (v) VALUES (new.v); END",
        ):
            connection.execute(statement)
        try:
            connection.execute("INSERT INTO t VALUES ('x')")
        except sqlite3.OperationalError:
            return False
    return True


# ---- what runs on a lane --------------------------------------------------------------------------------------------


def enable(connection: sqlite3.Connection, sql: Any, wanted: tuple[str, Sequence[str], str]) -> list[str]:  # noqa: ARG001  (every job is called alike)
    """Make the index where it is not whole; what was run."""
    index = _Index(connection, *wanted)
    if index.is_whole(connection):
        return []
    _check_trusted(connection)
    for statement in index.drops():  # what a table that was dropped left behind
        connection.execute(statement)
    statements = index.creates()
    for statement in statements:
        connection.execute(statement)
    return statements


def disable(connection: sqlite3.Connection, sql: Any, wanted: tuple[str, Sequence[str], str]) -> list[str]:  # noqa: ARG001  (every job is called alike)
    """Remove the index; what was run."""
    index = _Index(connection, *wanted)
    there = "SELECT count(*) FROM main.sqlite_master WHERE name = ?"
    if not connection.execute(there, [index.name]).fetchone()[0]:
        return []
    statements = index.drops()
    for statement in statements:
        connection.execute(statement)
    return statements


def search(connection: sqlite3.Connection, sql: Any, wanted: Search) -> list[sqlite3.Row]:  # noqa: ARG001  (every job is called alike)
    """The rows that are found."""
    index = _Index(connection, wanted.table, wanted.columns, wanted.language)
    if not index.is_whole(connection):
        raise ConfigurationError(
            f"{wanted.table} has no full-text index of {', '.join(wanted.columns)} for {wanted.language}: make it "
            "once, with enable_search"
        )
    alternatives = readings(wanted.text)
    forms = _Forms(connection, index.words) if wanted.language == "norwegian" else None
    match = " OR ".join(f"({text})" for a in alternatives if (text := _alternative(a, forms)))
    if not match:
        return []
    rows = connection.execute(index.select(), [*wanted.marks, match, wanted.limit]).fetchall()
    return unambiguous(rows, wanted.table)  # type: ignore[no-any-return]  # the rows


class _Forms:
    """The words of an index that have the stem of another word."""

    __slots__ = ("_connection", "_words")

    def __init__(self, connection: sqlite3.Connection, words: str) -> None:
        self._connection = connection
        self._words = _quoted(words)

    def of(self, word: str) -> list[str]:
        """Those of `word`, itself among them."""
        folded = word.lower()
        stem = norwegian_stem(folded)
        sql = f"SELECT term FROM {self._words} WHERE term >= ? AND term <= ?"  # noqa: S608  (a quoted name)
        found = {folded}
        for row in self._connection.execute(sql, [stem, stem + _LAST]):
            if norwegian_stem(row[0]) == stem:
                found.add(row[0])
                if len(found) >= _MOST_FORMS:
                    break
        return sorted(found)


def _alternative(alternative: Alternative, forms: _Forms | None) -> str:
    """FTS5's own words for it. Whatever was typed stands in quotes, so that none of it is an operator."""
    wanted, excluded = alternative.wanted, alternative.excluded
    if forms is not None:
        wanted = [t for t in wanted if t.phrase or _bare(t.text).lower() not in STOP_WORDS]
        excluded = [t for t in excluded if t.phrase or _bare(t.text).lower() not in STOP_WORDS]
    text = " AND ".join(_term(t, forms) for t in wanted)
    if text and excluded:
        return f"({text}) NOT ({' OR '.join(_term(t, forms) for t in excluded)})"
    return text


def _term(term: Term, forms: _Forms | None) -> str:
    word = _bare(term.text)
    if forms is None or term.phrase or not all(map(_is_letter, word)):
        return f'"{term.text}"'  # what the tokenizer takes apart stays together, as a phrase
    return "(" + " OR ".join(f'"{form}"' for form in forms.of(word)) + ")"


def _bare(text: str) -> str:
    """A word without the comma after it, or the bracket before it: the tokenizer drops them, too."""
    inside = [i for i, c in enumerate(text) if _is_letter(c)]
    return text[inside[0] : inside[-1] + 1] if inside else text


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def tokenizer(language: str) -> str:
    """FTS5's tokenizer for a language. Raises `ConfigurationError` where there is none."""
    found = _TOKENIZERS.get(language) if isinstance(language, str) else None
    if found is None:
        raise ConfigurationError(f"language: SQLite's search has no {language!r}: expected {', '.join(_TOKENIZERS)}")
    return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _folded(name: str) -> str:
    """Names are the same in upper and lower case, of ASCII alone."""
    return "".join(c.lower() if c.isascii() else c for c in name)
