"""What a SQLite provider calls for full-text search; what is done then, on a lane, is in `search`."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from datavern.engines.searches import Searches
from datavern.engines.sqlite.jobs import Run
from datavern.engines.sqlite.session import run_job

if TYPE_CHECKING:
    from datavern.engines.searching import Search

__all__ = ["SQLiteSearches"]


class SQLiteSearches(Searches):
    """The search of a SQLite provider."""

    __slots__ = ()

    async def _search(self, wanted: Search, transaction: Any) -> list[sqlite3.Row]:
        from datavern.engines.sqlite import search  # noqa: PLC0415  (loaded with the first search)

        session: Any = transaction or self
        search.tokenizer(wanted.language)
        return await run_job(session, session._submit(search.search, "SELECT", wanted))  # type: ignore[no-any-return]  # noqa: SLF001  (the engine's own)

    async def _enable_search(self, table: str, columns: tuple[str, ...], language: str) -> list[str]:
        from datavern.engines.sqlite import search  # noqa: PLC0415  (loaded with the first search)

        return await self._change(search.enable, table, columns, language)

    async def _disable_search(self, table: str, columns: tuple[str, ...], language: str) -> list[str]:
        from datavern.engines.sqlite import search  # noqa: PLC0415  (loaded with the first search)

        return await self._change(search.disable, table, columns, language)

    async def _change(self, run: Run, table: str, columns: tuple[str, ...], language: str) -> list[str]:
        from datavern.engines.sqlite import search  # noqa: PLC0415  (loaded with the first search)

        session: Any = self
        search.tokenizer(language)
        return await run_job(session, session._send(run, None, (table, columns, language)))  # type: ignore[no-any-return]  # noqa: SLF001  (the engine's own)
