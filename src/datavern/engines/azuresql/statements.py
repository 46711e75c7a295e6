"""What a text of T-SQL does, and where its parameters stand, told from its words.

A pooled connection is reset before its next borrower gets it only where its session may have been touched. So the
question is answered on the safe side: a text is clean when it is one SELECT, INSERT, UPDATE, DELETE or MERGE and holds
no other of T-SQL's reserved verbs. T-SQL needs no semicolon between statements, but its verbs are reserved: outside
quotes and brackets they are nothing else. Functions of T-SQL change no data.

What the text does not show is not seen: what a procedure or a trigger does.

Source: Transact-SQL reference, "Transact-SQL syntax conventions" and "Reserved keywords".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from typing import Final

__all__ = [
    "Effect",
    "Places",
    "Token",
    "effect",
    "ends_transaction",
    "mapped_words",
    "places",
    "several",
    "tokens_of",
    "words",
]

Token = tuple[str, str, int, int]
"""Kind ("word", "quoted", "value", "variable", "mark"), text, and where it begins and ends in the statement."""


class Effect(IntEnum):
    """What a text may do."""

    READS = 0
    """Changes no data and leaves nothing behind."""
    WRITES = 1
    """May change data; leaves nothing behind in the session."""
    TOUCHES = 2
    """May change data, and may leave something behind in the session."""


_TOKEN: Final = re.compile(
    r"""
      (?P<space>    \s+ | --[^\n]* )
    | (?P<comment>  /\* )
    | (?P<string>   [nN]?' (?: [^'] | '' )* ' )
    | (?P<quoted>   " (?: [^"] | "" )* " )
    | (?P<bracket>  \[ (?: [^\]] | \]\] )* \] )
    | (?P<variable> @@?[\w@$#]+ )
    | (?P<binary>   0[xX][0-9a-fA-F]* )
    | (?P<number>   (?: \d+ (?: \.\d* )? | \.\d+ ) (?: [eE][+-]?\d+ )? )
    | (?P<word>     [^\W\d][\w@$#]* | \#\#?[\w@$#]+ )
    | (?P<mark>     [^'"\[] )
    """,
    re.VERBOSE,
)
_COMMENT_MARK: Final = re.compile(r"/\*|\*/")

_DML: Final = frozenset({"select", "insert", "update", "delete", "merge"})
_STARTS: Final = _DML | {"with"}
_VERBS: Final = frozenset(
    """
    alter backup begin break bulk checkpoint close commit continue create dbcc deallocate declare deny drop dump exec
    execute goto grant if kill load open opendatasource openquery openrowset print raiserror readtext reconfigure
    restore return revert revoke rollback save setuser shutdown tran transaction truncate updatetext use waitfor while
    writetext
    """.split()  # noqa: SIM905  (fifty words are read more easily than fifty strings)
)
_MODULES: Final = frozenset({"function", "proc", "procedure", "trigger"})


def effect(sql: str) -> Effect:
    """What a text may do to its session and its data. Pure; asks nobody."""
    tokens = tokens_of(sql)
    if tokens is None:
        return Effect.TOUCHES
    said = [text for kind, text, _, _ in tokens if kind == "word"]
    if not said:
        return Effect.READS
    if said[0] not in _STARTS or not _VERBS.isdisjoint(said):
        return Effect.TOUCHES
    counts = {verb: said.count(verb) for verb in ("insert", "update", "delete", "merge", "into", "output", "set")}
    # SELECT … INTO makes a table, and SET is a statement of its own where it does not belong to an UPDATE.
    if counts["into"] > counts["insert"] + counts["merge"] + counts["output"] or counts["set"] > counts["update"]:
        return Effect.TOUCHES
    changes = counts["insert"] + counts["update"] + counts["delete"] + counts["merge"]
    return Effect.WRITES if changes or _draws(said) else Effect.READS


def _draws(said: list[str]) -> bool:
    """Whether NEXT VALUE FOR is among the words: it takes a number from a sequence."""
    return any(said[i : i + 3] == ["next", "value", "for"] for i in range(len(said) - 2))


@lru_cache(maxsize=512)
def several(sql: str) -> bool:
    """Whether a text of INSERT, UPDATE, DELETE, MERGE and SELECT holds more than one of them, told by semicolons."""
    tokens = tokens_of(sql) or []
    while tokens and tokens[-1][:2] == ("mark", ";"):
        tokens.pop()
    return any(token[:2] == ("mark", ";") for token in tokens)


def ends_transaction(sql: str) -> str:
    """What in a text begins or ends a transaction or a savepoint (``"COMMIT"``), or nothing.

    The body of a procedure or trigger that the text makes is not looked at: it does not run now.
    """
    tokens = tokens_of(sql)
    said = [text for kind, text, _, _ in tokens or () if kind == "word"]
    if said[:1] in (["create"], ["alter"]) and not _MODULES.isdisjoint(said[1:4]):
        return ""
    for word, after in zip(said, [*said[1:], ""], strict=False):
        if word in {"commit", "rollback"}:
            return word.upper()
        if word in {"begin", "save"} and after in {"tran", "transaction", "distributed"}:
            return f"{word.upper()} TRANSACTION"
        if word == "implicit_transactions":
            return "SET IMPLICIT_TRANSACTIONS"
    return ""


# ---- parameters -----------------------------------------------------------------------------------------------------

_PLACE: Final = re.compile(r"@[pP]([1-9]\d*)\Z")


class Places:
    """Where the parameters of a text stand.

    Attributes:
        empty: whether the text holds no statement at all.
        highest: how many parameters the text takes.
        missing: the first number below `highest` that does not appear; 0: none.
    """

    __slots__ = ("_parts", "_texts", "empty", "highest", "missing", "numbers")

    def __init__(self, sql: str, tokens: list[Token]) -> None:
        parts: list[str] = []
        numbers: list[int] = []
        at = 0
        for kind, text, start, end in tokens:
            found = _PLACE.match(text) if kind == "variable" else None
            if found:
                parts.append(sql[at:start])
                numbers.append(int(found[1]))
                at = end
        parts.append(sql[at:])
        self._parts = parts
        self.empty = all(token[:2] == ("mark", ";") for token in tokens)
        self.numbers = tuple(numbers)
        self.highest = max(numbers, default=0)
        there = set(numbers)
        self.missing = next((n for n in range(1, self.highest) if n not in there), 0)
        self._texts: dict[tuple[int, ...], str] = {}

    def without(self, nulls: tuple[int, ...]) -> str:
        """The text with NULL written in the place of those parameters: a NULL has no type that fits every column."""
        found = self._texts.get(nulls)
        if found is None:
            if len(self._texts) > 64:  # noqa: PLR2004  (which columns are NULL varies little from call to call)
                self._texts.clear()
            found = self._texts[nulls] = self._written(lambda n: "NULL" if n in nulls else f"@P{n}")
        return found

    def marked(self) -> str:
        """The text with ``?`` for each parameter, once for each time that it appears."""
        found = self._texts.get((-1,))
        if found is None:
            found = self._texts[(-1,)] = self._written(lambda _: "?")
        return found

    def _written(self, place: Callable[[int], str]) -> str:
        pieces = [self._parts[0]]
        for number, part in zip(self.numbers, self._parts[1:], strict=True):
            pieces += [place(number), part]
        return "".join(pieces)


@lru_cache(maxsize=2048)
def places(sql: str) -> Places | None:
    """Where the parameters of a text stand; None where it cannot be read for sure."""
    tokens = tokens_of(sql)
    return None if tokens is None else Places(sql, tokens)


# ---- which tables a text writes to ----------------------------------------------------------------------------------


def mapped_words(sql: str) -> list[tuple[str, str]] | None:
    """The words of a text for `datavern.engines.mapped`, which reads the standard's way of writing.

    T-SQL leaves INTO and FROM out, puts TOP (n) before the table, and names it by its alias: what is written to is
    repeated at the end, in full. None where the text cannot be read for sure.
    """
    found = words(sql)
    if found is None:
        return None
    plain = [("word", text) if kind == "word" else (kind, text) for kind, text in found]
    more: list[tuple[str, str]] = []
    for at, (kind, verb) in enumerate(plain):
        if kind == "word" and verb in {"insert", "update", "delete", "merge", "truncate"}:
            target = _name_from(plain, _behind_top(plain, at + 1))
            if target:
                more += [("word", "update"), *target, ("mark", ";")]
                if len(target) == 1:
                    for full in _aliased(plain, target[0]):
                        more += [("word", "update"), *full, ("mark", ";")]
    return [*plain, ("mark", ";"), *more] if more else plain


def _behind_top(found: list[tuple[str, str]], at: int) -> int:
    """Where the name begins, behind TOP (n), INTO, FROM or TABLE."""
    while at < len(found):
        if found[at] == ("word", "top"):
            at += 1
            if found[at : at + 1] == [("mark", "(")]:
                depth = 0
                while at < len(found):
                    depth += (found[at] == ("mark", "(")) - (found[at] == ("mark", ")"))
                    at += 1
                    if not depth:
                        break
            else:
                at += 1
        elif found[at][0] == "word" and found[at][1] in {"into", "from", "table", "percent"}:
            at += 1
        else:
            break
    return at


def _name_from(found: list[tuple[str, str]], at: int) -> list[tuple[str, str]]:
    """The tokens of the name that begins there: words and quoted names with dots between them."""
    name: list[tuple[str, str]] = []
    while at < len(found) and found[at][0] in {"word", "quoted"}:
        name.append(found[at])
        if found[at + 1 : at + 2] != [("mark", ".")]:
            break
        name.append(("mark", "."))
        at += 2
    return name


def _aliased(found: list[tuple[str, str]], alias: tuple[str, str]) -> list[list[tuple[str, str]]]:
    """The names that the text gives that alias to: ``FROM people AS p``, ``JOIN people p``."""
    names = []
    for at, token in enumerate(found):
        if (token[0] == "word" and token[1] in {"from", "join", "using"}) or token == ("mark", ","):
            name = _name_from(found, at + 1)
            behind = at + 1 + len(name)
            if found[behind : behind + 1] == [("word", "as")]:
                behind += 1
            given = found[behind : behind + 1]
            if name and given and given[0][0] in {"word", "quoted"} and given[0][1].lower() == alias[1].lower():
                names.append(name)
    return names


# ---- tokens ---------------------------------------------------------------------------------------------------------


def words(sql: str) -> list[tuple[str, str]] | None:
    """Kind and text of each token; None where the text cannot be read for sure."""
    tokens = tokens_of(sql)
    return None if tokens is None else [(kind, text) for kind, text, _, _ in tokens]


def tokens_of(sql: str) -> list[Token] | None:
    """Words (lower case), quoted names, variables, values (without their text) and marks, each with its place.

    None where the text cannot be read for sure: a quote or a bracket that is left open.
    """
    tokens: list[Token] = []
    position, end = 0, len(sql)
    while position < end:
        match = _TOKEN.match(sql, position)
        if match is None:
            return None
        kind, text, start, position = match.lastgroup, match[0], position, match.end()
        if kind == "space":
            continue
        if kind == "comment":
            after = _comment_end(sql, position)
            if after is None:
                return None
            position = after
        elif kind in {"string", "binary", "number"}:
            tokens.append(("value", "", start, position))
        elif kind == "quoted":
            tokens.append(("quoted", text[1:-1].replace('""', '"'), start, position))
        elif kind == "bracket":
            tokens.append(("quoted", text[1:-1].replace("]]", "]"), start, position))
        elif kind == "word":
            tokens.append(("word", text.lower(), start, position))
        else:
            tokens.append((str(kind), text, start, position))
    return tokens


def _comment_end(sql: str, position: int) -> int | None:
    """Where a comment ends whose opening stands before `position`: comments nest."""
    depth = 1
    while depth:
        mark = _COMMENT_MARK.search(sql, position)
        if mark is None:
            return None
        depth += 1 if mark[0] == "/*" else -1
        position = mark.end()
    return position
