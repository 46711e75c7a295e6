"""Tables with personal data, which nobody writes to without an audit entry: what ``compliance=["nsm"]`` asks for.

A manager tells its providers which of their tables the data map names. Datavern's own writes to them leave an entry;
any other INSERT, UPDATE, DELETE, MERGE, REPLACE, TRUNCATE or COPY … FROM is refused where it has none, before anything
is sent (NSM's basic principles 3.2.4 and 3.2.5). The text of a statement tells what it writes to. What the text does
not name is not seen: what triggers, rules, functions, DO blocks and foreign keys do, a view that writes to a mapped
table, a partition of one, what another program does. Changes of the schema (DROP, ALTER) are migrations, and pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from datavern.contracts.errors import PrivacyError
from datavern.engines.preparing import split_name

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider, Services
    from datavern.engines.relational import RelationalSubjects

__all__ = ["Mapped", "written"]

Words = Sequence[tuple[str, str]]
"""Kind ("word", "quoted" or anything else) and text of each token: words in lower case, quoted names as they are."""

_NAMES: Final = frozenset({"word", "quoted"})
_BETWEEN: Final = frozenset({"binary", "only", "table"})
"""What may stand between the verb and the table: TRUNCATE TABLE ONLY, COPY BINARY. None can name a table unquoted."""
_WRITES: Final = re.compile(r"\b(?:insert|update|delete|merge|replace|truncate|copy)\b", re.IGNORECASE)
_ASCII_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class Mapped:
    """The tables of one provider that hold personal data.

    Args:
        provider: its name is in messages.
        tables: as the data map names them, ``table`` or ``schema.table``.
        subjects: what writes for Datavern; its own texts pass.
        read: a text's tokens; None where it cannot be read for sure.
        folds: whether the engine's quoted names know no letter case either.
    """

    __slots__ = ("_folds", "_name", "_read", "_subjects", "_tables")

    def __init__(
        self,
        provider: Provider,
        tables: Iterable[str],
        *,
        subjects: RelationalSubjects,
        read: Callable[[str], Words | None],
        folds: bool,
    ) -> None:
        self._name = provider.name
        self._subjects = subjects
        self._read = read
        self._folds = folds
        self._tables: dict[str, set[tuple[str | None, str]]] = {}  # the name as it compares → as the data map has it
        for store in tables:
            schema, table = split_name(store)
            self._tables.setdefault(self._folded(table), set()).add((schema and self._folded(schema), store))

    @classmethod
    def of(
        cls,
        provider: Provider,
        services: Services,
        *,
        subjects: RelationalSubjects,
        read: Callable[[str], Words | None],
        folds: bool = False,
    ) -> Mapped | None:
        """For a provider whose compliance asks for it; None otherwise."""
        if "nsm" not in provider.face.compliance:
            return None
        tables = services.mapped(provider)
        return cls(provider, tables, subjects=subjects, read=read, folds=folds) if tables else None

    def check(self, sql: str) -> None:
        """Refuse a text that writes to one of the tables.

        Raises:
            PrivacyError: it does, or cannot be read and may. Says what to do instead.
        """
        if self._subjects.owns(sql):
            return
        words = self._read(sql)
        store = self._suspected(sql) if words is None else self._target(words)
        if store is not None:
            does = "writes to" if words is not None else "cannot be read for sure, and may write to"
            raise PrivacyError(
                f"{self._name}: the statement {does} {store}, which holds personal data, and compliance nsm refuses "
                "writes without an audit entry (NSM 3.2.4): write through db.personal(…), or give the statement its "
                "entry: execute(…, audit=await db.audit.entry(…))"
            )

    def concerns(self, sql: str) -> bool:
        """Whether a text is one that needs an audit entry."""
        words = self._read(sql)
        return (self._suspected(sql) if words is None else self._target(words)) is not None

    def _target(self, words: Words) -> str | None:
        for schema, table in written(words, folds=self._folds):
            for mapped_schema, store in self._tables.get(table, ()):
                if schema is None or mapped_schema is None or schema == mapped_schema:
                    return store
        return None

    def _suspected(self, sql: str) -> str | None:
        """For a text that cannot be read: a verb that writes, and the name anywhere, or one that may spell any name."""
        if not _WRITES.search(sql):
            return None
        folded = sql.lower()
        spelled = 'u&"' in folded
        stores = [store for entries in self._tables.values() for _, store in entries]
        return next((store for store in stores if spelled or split_name(store)[1].lower() in folded), None)

    def _folded(self, name: str) -> str:
        return name.translate(_ASCII_LOWER) if self._folds else name


def written(words: Words, *, folds: bool = False) -> Iterator[tuple[str | None, str]]:
    """Schema and name of every table that the statements of a text write to, as far as their words say.

    Args:
        words: see `Words`.
        folds: quoted names are folded too.
    """
    for at, (kind, verb) in enumerate(words):
        first = _behind_verb(words, at, verb) if kind == "word" else None
        while first is not None:
            name, behind = _name(words, first, folds=folds)
            first = None
            if name is not None:
                yield name
                if verb == "truncate":  # it takes several
                    while behind < len(words) and words[behind] in {("mark", "*"), ("mark", ")")}:
                        behind += 1
                    first = behind + 1 if words[behind : behind + 1] == [("mark", ",")] else None


def _behind_verb(words: Words, at: int, verb: str) -> int | None:
    """Where the table is named that is written to; None where this is no verb that writes."""
    if verb in {"into", "update", "truncate"} or (verb == "copy" and _copies_in(words, at + 1)):
        return at + 1
    return at + 2 if verb == "delete" and _word(words, at + 1) == "from" else None


def _copies_in(words: Words, at: int) -> bool:
    """COPY table (columns) FROM: not COPY … TO, nor COPY (query)."""
    depth = 0
    for kind, text in words[at:]:
        if kind == "mark":
            depth += (text == "(") - (text == ")")
        elif kind == "word" and not depth and text in {"from", "to"}:
            return text == "from"
    return False


def _name(words: Words, at: int, *, folds: bool) -> tuple[tuple[str | None, str] | None, int]:
    """The name that stands there, behind what may stand before it; and where it ends."""
    while _word(words, at) in _BETWEEN or (words[at : at + 1] == [("mark", "(")] and _word(words, at - 1) == "only"):
        at += 1
    if _word(words, at) == "or":  # UPDATE OR IGNORE
        at += 2
    parts: list[str] = []
    while at < len(words) and words[at][0] in _NAMES:
        kind, text = words[at]
        # Only ASCII is folded, as the engines do it.
        parts.append(text.translate(_ASCII_LOWER) if folds or kind == "word" else text)
        if at + 1 >= len(words) or words[at + 1] != ("mark", "."):
            at += 1
            break
        at += 2
    if not parts:
        return None, at
    return (parts[-2] if len(parts) > 1 else None, parts[-1]), at


def _word(words: Words, at: int) -> str:
    return words[at][1] if at < len(words) and words[at][0] == "word" else ""
