"""Full-text search with PostgreSQL's own means: tsvector, websearch_to_tsquery, ts_rank_cd, ts_headline.

Source: PostgreSQL 18 documentation, chapter 12.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

from datavern.contracts.errors import ConfigurationError, QueryRejected
from datavern.contracts.values import Row
from datavern.engines.postgresql.statements import Effect
from datavern.engines.searches import Searches
from datavern.engines.searching import HEADLINE, RANK, Search, readings, unambiguous

__all__ = ["PostgreSQLSearches"]

_KNOWN = 512  # searches whose statement is remembered
_POLL = 0.2  # seconds between looks at whether somebody else still makes the index
_LONGEST_HEAD = 40  # bytes of the table's name in an index's name: identifiers have 63

_TABLE = """
SELECT c.oid, c.relkind::text AS kind, n.nspname AS schema FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass($1::text) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_COLUMNS = """
SELECT a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, t.typcategory = 'S' AS is_text
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
"""
_LANGUAGES = """
SELECT CASE WHEN n.nspname = 'pg_catalog' THEN '' ELSE n.nspname || '.' END || c.cfgname AS name,
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.cfgname) AS quoted
FROM pg_catalog.pg_ts_config c JOIN pg_catalog.pg_namespace n ON n.oid = c.cfgnamespace
ORDER BY 1
"""
_INDEX = """
SELECT i.indisvalid FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = $1 AND c.relname = $2
"""
_TRY = "SELECT pg_catalog.pg_try_advisory_lock($1::bigint)"
_UNLOCK = "SELECT pg_catalog.pg_advisory_unlock($1::bigint)"


class _Place:
    """A table and the columns in it that are searched, as they stand."""

    __slots__ = ("document", "kind", "oid", "quoted", "schema")

    def __init__(self, oid: int, kind: str, schema: str, quoted: str, document: str) -> None:
        self.oid = oid
        self.kind = kind
        self.schema = schema
        self.quoted = quoted
        self.document = document


class PostgreSQLSearches(Searches):
    """The search of a PostgreSQL provider."""

    __slots__ = ()

    _search_texts: dict[tuple[str, tuple[str, ...], str], str]

    async def _search(self, wanted: Search, transaction: Any) -> Sequence[Row]:
        """The rows that match, the best first."""
        if not readings(wanted.text):
            return []
        session: Any = transaction or self
        key = (wanted.table, wanted.columns, wanted.language)
        sql = self._search_texts.get(key)
        if sql is None:
            place, config = await self._look(session, *key)
            sql = _statement(place, config)
            if len(self._search_texts) >= _KNOWN:
                self._search_texts.clear()
            self._search_texts[key] = sql
        opening, closing = wanted.marks
        try:
            rows = await session.query(sql, [wanted.text, wanted.limit, f'StartSel="{opening}", StopSel="{closing}"'])
        except QueryRejected:
            self._search_texts.pop(key, None)  # the table may have changed: the next call looks again
            raise
        return unambiguous(rows, wanted.table)  # type: ignore[no-any-return]  # the rows

    async def _enable_search(self, table: str, columns: tuple[str, ...], language: str) -> list[str]:
        """Make the index that a search of these columns needs; what was run."""
        provider: Any = self
        place, config = await self._look(provider, table, columns, language)
        if place.kind not in {"r", "p", "m"}:
            raise ConfigurationError(f"{table} is a view or a foreign table, which has no index: enable its tables")
        name = _index_name(table, columns, config)
        if await provider.query_value(_INDEX, [place.oid, name]) is True:
            return []
        quoted = provider.capabilities.subjects.quoted
        index, target = quoted(name), f"{place.quoted} USING gin ({_vector(place.document, config)})"
        if place.kind == "p":
            # PostgreSQL has no CONCURRENTLY for a partitioned table: writes wait meanwhile.
            sql = f"CREATE INDEX IF NOT EXISTS {index} ON {target}"
            await provider.execute(sql)
            return [sql]
        drop = f"DROP INDEX CONCURRENTLY IF EXISTS {quoted(place.schema)}.{index}"
        create = f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {index} ON {target}"
        return await self._concurrently(place.oid, name, drop, create)

    async def _disable_search(self, table: str, columns: tuple[str, ...], language: str) -> list[str]:
        """Drop the index that `enable` made; what was run."""
        provider: Any = self
        place, config = await self._look(provider, table, columns, language)
        name = _index_name(table, columns, config)
        if await provider.query_value(_INDEX, [place.oid, name]) is None:
            return []
        quoted = provider.capabilities.subjects.quoted
        how = "" if place.kind == "p" else "CONCURRENTLY "
        sql = f"DROP INDEX {how}IF EXISTS {quoted(place.schema)}.{quoted(name)}"
        await provider.execute(sql)
        return [sql]

    async def _look(self, session: Any, table: str, columns: tuple[str, ...], language: str) -> tuple[_Place, str]:
        """Table and configuration as they stand, or the reason why they cannot be searched."""
        subjects: Any = session.provider.capabilities.subjects
        quoted = subjects.quoted_store(table)
        found = await session.query_one(_TABLE, [quoted])
        if found is None:
            raise ConfigurationError(f"there is no table {table} to search")
        there = {row["name"]: row for row in await session.query(_COLUMNS, [found["oid"]])}
        for column in columns:
            if column not in there:
                raise ConfigurationError(f"{table} has no column {column} to search")
            if there[column]["type"] == "bytea":
                raise ConfigurationError(
                    f"{table}.{column} holds bytes, and sealed fields are such: nobody can search in what is sealed. "
                    "Use a field with lookup=True, and find()"
                )
            if not there[column]["is_text"]:
                raise ConfigurationError(f"{table}.{column} is {there[column]['type']}: a search needs a text column")
        configs = {row["name"]: row["quoted"] for row in await session.query(_LANGUAGES)}
        if language not in configs:
            raise ConfigurationError(f"language: the server has no {language!r}: expected {', '.join(configs)}")
        texts = [f"{subjects.quoted(c)}::text" for c in columns]
        document = texts[0] if len(texts) == 1 else " || ' ' || ".join(f"coalesce({t}, '')" for t in texts)
        return _Place(found["oid"], found["kind"], found["schema"], quoted, document), configs[language]

    async def _concurrently(self, oid: int, name: str, drop: str, create: str) -> list[str]:
        """Make the index while others write. One at a time: who comes later finds it made.

        The lock is polled. A session that waited for it in a statement would be waited for by CREATE INDEX
        CONCURRENTLY, which waits for every older snapshot; so would one that waits for the table's lock.
        """
        provider: Any = self
        if provider.pooled:
            raise ConfigurationError(
                f"{provider.name}: enable_search: an index is made under a lock of a session, and a pooler in "
                "transaction mode keeps none: make it from a provider with the server's own address"
            )
        pool = provider._pool  # noqa: SLF001  (a part of the provider, in a file of its own; here and below)
        lock = int.from_bytes(hashlib.sha256(f"datavern search {oid}".encode()).digest()[:8], "big", signed=True)
        while True:
            slot = pool.take() or await pool.acquire()
            try:
                run = await _build(slot.connection, lock, [oid, name], drop, create)
            except BaseException as error:  # noqa: BLE001  (translated, and raised by _end)
                found = provider._found(slot, error, Effect.TOUCHES, ())  # noqa: SLF001
            else:
                slot.touched = True
                pool.give(slot)
                return run
            await provider._end(slot, create, found)  # noqa: SLF001


async def _build(connection: Any, lock: int, index: list[Any], drop: str, create: str) -> list[str]:
    while not await connection.fetchval(_TRY, lock):  # noqa: ASYNC110  (another process holds it: it sends no event)
        await asyncio.sleep(_POLL)
    valid = await connection.fetchval(_INDEX, *index)
    run = []
    if valid is not True:
        if valid is False:  # left behind by a run that broke off
            await connection.execute(drop)
            run.append(drop)
        await connection.execute(create)
        run.append(create)
    await connection.fetchval(_UNLOCK, lock)
    return run


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _vector(document: str, config: str) -> str:
    """As in the index: the planner takes the index only for the very same expression."""
    return f"pg_catalog.to_tsvector({_literal(config)}::pg_catalog.regconfig, {document})"


def _statement(place: _Place, config: str) -> str:
    """The search. Headlines are made for the rows that are returned, not for all that match."""
    vector = _vector(place.document, config)
    query = f"pg_catalog.websearch_to_tsquery({_literal(config)}::pg_catalog.regconfig, $1::text)"
    return (
        f"SELECT (datavern_found.datavern_row).*, datavern_found.datavern_rank AS {RANK}, "  # noqa: S608  (quoted names)
        f"pg_catalog.ts_headline({_literal(config)}::pg_catalog.regconfig, datavern_found.datavern_document, "
        f"{query}, $3::text) AS {HEADLINE} "
        f"FROM (SELECT datavern_searched AS datavern_row, {place.document} AS datavern_document, "
        f"pg_catalog.ts_rank_cd({vector}, {query}) AS datavern_rank "
        f"FROM {place.quoted} AS datavern_searched WHERE {vector} @@ {query} "
        "ORDER BY datavern_rank DESC LIMIT $2::bigint) AS datavern_found ORDER BY datavern_found.datavern_rank DESC"
    )


def _index_name(table: str, columns: tuple[str, ...], config: str) -> str:
    bare = table.rpartition(".")[2]
    digest = hashlib.sha256("\0".join([bare, config, *columns]).encode()).hexdigest()[:12]
    return f"{bare.encode()[:_LONGEST_HEAD].decode(errors='ignore')}_{digest}_search"
