"""Full-text search, as far as it is the same on every relational engine: what may be asked, and how a text is read.

A text is what somebody types into a search box: words that must all be there, ``"words in quotes"`` that must follow
each other, ``or`` between alternatives, ``-word`` for what must not be there. It is PostgreSQL's `websearch_to_tsquery`
(PostgreSQL 18 documentation, 12.3.2): no text is a syntax error.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from datavern.contracts.errors import ConfigurationError, QueryRejected
from datavern.engines.searches import MARKS

__all__ = [
    "HEADLINE",
    "RANK",
    "Alternative",
    "Search",
    "Term",
    "columns_of",
    "readings",
    "unambiguous",
]

RANK, HEADLINE = "search_rank", "search_headline"
"""The columns that a search adds to the table's own."""

_MOST = 2**31 - 1
_LONGEST_TEXT = 10_000  # characters: what is typed into a box is shorter, and what is pasted would be a costly query
_LONGEST_MARK = 32
# A word that opens with a quote goes to the next quote, or to the end: nothing is unbalanced.
_PART = re.compile(r'(?P<no>-\s*)?(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))')


@dataclass(frozen=True, slots=True)
class Term:
    """A word, or a phrase of words."""

    text: str
    phrase: bool = False


@dataclass(slots=True)
class Alternative:
    """Terms that must all be there, and terms that must not."""

    wanted: list[Term] = field(default_factory=list)
    excluded: list[Term] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Search:
    """A search whose arguments are in order.

    Raises:
        ConfigurationError: a name, the limit or the marks cannot be meant.
        QueryRejected: the text is no text, or far too long.
    """

    provider: str
    table: str
    columns: tuple[str, ...]
    text: str
    language: str
    limit: int
    marks: tuple[str, str]

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise QueryRejected(f"a search looks for text, not for {type(self.text).__name__}", provider=self.provider)
        if len(self.text) > _LONGEST_TEXT:
            raise QueryRejected(
                f"the text to search for has {len(self.text)} characters: expected {_LONGEST_TEXT} at the most",
                provider=self.provider,
            )
        if "\0" in self.text:
            raise QueryRejected("the text to search for holds a NUL character (U+0000)", provider=self.provider)
        # What decomposed letters spell is the same word to whoever typed it.
        object.__setattr__(self, "text", unicodedata.normalize("NFC", self.text))
        if not isinstance(self.limit, int) or isinstance(self.limit, bool) or not 1 <= self.limit <= _MOST:
            raise ConfigurationError("limit: expected how many rows at the most, from 1 on")
        marks: Any = self.marks
        if (
            not isinstance(marks, Sequence)
            or isinstance(marks, str)
            or len(marks) != 2  # noqa: PLR2004  (one before, one after)
            or not all(isinstance(m, str) and len(m) <= _LONGEST_MARK and not set('"\0') & set(m) for m in marks)
        ):
            raise ConfigurationError(
                f"marks: expected two short texts without double quotes, to stand around what was found: {MARKS}"
            )


def columns_of(column: str | Sequence[str]) -> tuple[str, ...]:
    """The columns to search, one or several.

    Raises:
        ConfigurationError: none, one twice, or something that is no name.
    """
    given: Any = (column,) if isinstance(column, str) else tuple(column)
    if not given or not all(isinstance(c, str) and c and "\0" not in c for c in given):
        raise ConfigurationError("column: expected the name of a column, or a list of such")
    if len(set(given)) != len(given):
        raise ConfigurationError("column: a column is named twice")
    return given  # type: ignore[no-any-return]  # they were just looked at


def readings(text: str) -> list[Alternative]:
    """The alternatives of a text. One that only excludes is left out: a search ranks what it found."""
    found = [Alternative()]
    after_or = False
    for match in _PART.finditer(text):
        phrase, word = match["phrase"], match["word"]
        group = found[-1]
        started = bool(group.wanted or group.excluded)
        if word is not None and match["no"] is None and word.casefold() == "or" and started and not after_or:
            after_or = True
            continue
        term = Term(phrase if word is None else word.lstrip("-"), word is None)
        if not any(unicodedata.category(c)[0] in "LN" for c in term.text):
            continue
        if after_or:
            group = Alternative()
            found.append(group)
            after_or = False
        (group.wanted if match["no"] is None else group.excluded).append(term)
    return [group for group in found if group.wanted]


def unambiguous(rows: Any, table: str) -> Any:
    """The rows, unless the table has a column of its own where the search puts rank or headline.

    Raises:
        ConfigurationError: it has.
    """
    if rows:
        names = [name.lower() for name in rows[0].keys()]  # noqa: SIM118  (a row is a sequence of values)
        for name in (RANK, HEADLINE):
            if names.count(name) > 1:
                raise ConfigurationError(
                    f"{table} has a column {name}, and a search adds one of that name: search a view that renames it, "
                    "or rename the column"
                )
    return rows
