"""The calls of full-text search, the same on every relational engine. How a text is read is in `searching`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from datavern.contracts.values import Row

if TYPE_CHECKING:
    from datavern.engines.searching import Search

__all__ = ["MARKS", "Searches"]

MARKS = ("**", "**")
"""What stands around a word that was found."""


class Searches:
    """The search of a provider: the same calls on every relational engine."""

    __slots__ = ()

    name: str

    async def search(
        self,
        table: str,
        column: str | Sequence[str],
        text: str,
        *,
        language: str = "norwegian",
        limit: int = 50,
        marks: tuple[str, str] = MARKS,
        transaction: Any = None,
    ) -> Sequence[Row]:
        """The rows whose text matches, the best first, with two columns more: ``search_rank``, ``search_headline``.

        `text` is what somebody typed: words that must all be there, ``"words in quotes"`` that follow each other,
        ``or`` between alternatives, ``-word`` for what must not be there. Nothing in it is an operator beyond that,
        nothing is a syntax error, and a text without a word in it finds nothing.

        The rank is greater for a better row, and compares rows of one search alone. The headline is a piece of the
        text with the words found between `marks`. It is text as it stands in the table, not HTML: escape it before it
        goes into a page, and turn the marks into tags afterwards.

        Args:
            table: a table, ``schema.table`` or ``table``; names are quoted.
            column: a column of text, or several, that are searched as one text.
            text: what to look for, 10000 characters at the most.
            language: whose word stems are looked for; the same as in `enable_search`.
            limit: how many rows at the most.
            marks: what stands before and after a word that was found.
            transaction: an open transaction of this provider (a tenant's rows are seen in a tenant's alone), or None.

        Raises:
            ConfigurationError: no such table, column or language; a column that holds no text, as sealed ones do; a
                column of the table's own has the name of one of the two.
            QueryRejected: the text is no text, too long, or holds a NUL character.
        """
        from datavern.engines.searching import Search, columns_of  # noqa: PLC0415  (loaded with the first search)

        wanted = Search(self.name, table, columns_of(column), text, language, limit, marks)
        return await self._search(wanted, transaction)

    async def enable_search(self, table: str, column: str | Sequence[str], *, language: str = "norwegian") -> list[str]:
        """Make the index that a search of these columns needs; what was run, nothing when it is there. Idempotent.

        Raises:
            ConfigurationError: as `search` does; a view, which has no index.
        """
        from datavern.engines.searching import columns_of  # noqa: PLC0415  (as above)

        return await self._enable_search(table, columns_of(column), language)

    async def disable_search(
        self, table: str, column: str | Sequence[str], *, language: str = "norwegian"
    ) -> list[str]:
        """Remove what `enable_search` made; what was run. Idempotent.

        Raises:
            ConfigurationError: as `search` does.
        """
        from datavern.engines.searching import columns_of  # noqa: PLC0415  (as above)

        return await self._disable_search(table, columns_of(column), language)

    async def _search(self, wanted: Search, transaction: Any) -> Sequence[Row]:
        raise NotImplementedError

    async def _enable_search(self, table: str, columns: tuple[str, ...], language: str) -> list[str]:
        raise NotImplementedError

    async def _disable_search(self, table: str, columns: tuple[str, ...], language: str) -> list[str]:
        raise NotImplementedError
