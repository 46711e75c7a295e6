"""What a statement may leave behind in its session, told from its text.

A pooled connection is reset before its next borrower gets it only where its session may have been touched: a reset is
a round trip. So the question is answered on the safe side: a statement is clean when it is made of SELECT, INSERT,
UPDATE, DELETE, MERGE, VALUES, TABLE or SHOW and calls only functions that are known to leave nothing behind. Everything
else touches: SET, LISTEN, PREPARE, DO, CALL, temporary tables, advisory locks, `set_config`, `nextval`, any function
that is not on the list, and any text that cannot be read.

What the text does not show is not seen: a trigger, a view or an operator that calls `set_config(…, false)`, and the
sequence behind a column's default, which sets `lastval()`.

Source: PostgreSQL 18 documentation, 4.1 Lexical Structure.
"""

from __future__ import annotations

import re
from enum import IntEnum

from datavern.engines.postgresql.functions import CLEAN_FUNCTIONS

__all__ = ["TOUCHES", "WRITES", "Effect", "Token", "effect", "ends_transaction", "tokens_of", "words"]

Token = tuple[str, str, int, int]
"""Kind ("word", "quoted", "value", "mark"), text (see `tokens_of`), and where it begins and ends in the statement."""


class Effect(IntEnum):
    """What a text may do."""

    READS = 0
    """Changes no data and leaves nothing behind."""
    WRITES = 1
    """May change data; leaves nothing behind in the session."""
    TOUCHES = 2
    """May change data, and may leave something behind in the session."""


# For what every statement asks: an enumeration's own look-up takes a tenth of a microsecond in Python 3.11.
TOUCHES = Effect.TOUCHES
WRITES = Effect.WRITES


# PostgreSQL's scanner knows ASCII white space only, and takes every character beyond ASCII as a letter.
_TOKEN = re.compile(
    r"""
      (?P<space>    [ \t\n\r\f\v]+ | --[^\n\r]* )
    | (?P<comment>  /\* )
    | (?P<unicode>  [uU]&["'] )
    | (?P<escape>   [eE]' )
    | (?P<string>   (?: [bBxXnN] )? ' )
    | (?P<quoted>   " (?: [^"] | "" )* " )
    | (?P<dollar>   \$ (?: [A-Za-z_\x80-\U0010ffff] [A-Za-z0-9_\x80-\U0010ffff]* )? \$ )
    | (?P<word>     [A-Za-z_\x80-\U0010ffff] [A-Za-z0-9_$\x80-\U0010ffff]* )
    | (?P<number>   (?: [0-9][0-9_]* (?: \.[0-9_]* )? | \.[0-9][0-9_]* ) (?: [eE][+-]?[0-9]+ )? )
    | (?P<mark>     \$[0-9]+ | :: | [^"] )
    """,
    re.VERBOSE | re.DOTALL,
)
_STRING_END = re.compile(r"(?: [^'] | '' )* '", re.VERBOSE)
_ESCAPED_END = re.compile(r"(?: [^'\\] | \\. | '' )* '", re.VERBOSE | re.DOTALL)
_COMMENT_MARK = re.compile(r"/\*|\*/")

_READING = frozenset({"select", "values", "table", "with", "show"})
_WRITING = frozenset({"insert", "update", "delete", "merge"})
_CONTROL = frozenset({"abort", "begin", "commit", "end", "release", "rollback", "savepoint", "start"})

# Words that may stand before a parenthesis without calling a function: reserved words, and those keywords that cannot
# name a function (appendix C, "reserved" and "non-reserved (cannot be function or type)").
_RESERVED = frozenset(
    """
    all and any array as asc between both case check default desc distinct do else end except exists extract from group
    grouping having in intersect into lateral limit not null offset on only or order returning row select some table
    then to union unique using values when where window with
    bit char character dec decimal float interval nchar numeric time timestamp varchar
    """.split()  # noqa: SIM905  (fifty words are read more easily than fifty strings)
)
# Keywords that could also be the name of a function that somebody made: which word says that they are not.
_AFTER: dict[str, frozenset[str]] = {
    "by": frozenset({"group", "order", "partition"}),
    "conflict": frozenset({"on"}),
    "insert": frozenset({"then"}),
    "materialized": frozenset({"as", "not"}),
    "sets": frozenset({"grouping"}),
    "varying": frozenset({"bit", "char", "character", "nchar"}),
}
# The same for those that follow an operand, which a function's name never does.
_INFIX = frozenset({"filter", "ilike", "join", "like", "over", "set"})
_JOINS = frozenset({"cross", "full", "inner", "left", "natural", "not", "outer", "right"})


def effect(sql: str) -> Effect:
    """What a text may do to its session and its data. Pure; asks nobody."""
    placed = tokens_of(sql)
    if placed is None:
        return Effect.TOUCHES
    return max((_statement(statement) for statement in _statements(placed)), default=Effect.READS)


def ends_transaction(sql: str) -> str:
    """The first statement in a text that begins or ends a transaction or a savepoint (``"COMMIT"``), or nothing."""
    for statement in _statements(tokens_of(sql) or []):
        words = [text for kind, text in statement[:2] if kind == "word"]
        if words[:1] and words[0] in _CONTROL and words[1:] != ["prepared"]:
            return words[0].upper()
        if words == ["prepare", "transaction"]:
            return "PREPARE TRANSACTION"
    return ""


def _statements(placed: list[Token]) -> list[list[tuple[str, str]]]:
    """The statements of a text, none of them empty: kind and text of each token."""
    found: list[list[tuple[str, str]]] = [[]]
    for kind, text, _, _ in placed:
        if (kind, text) == ("mark", ";"):
            found.append([])
        else:
            found[-1].append((kind, text))
    return [statement for statement in found if statement]


def _statement(tokens: list[tuple[str, str]]) -> Effect:
    first = next((token for token in tokens if token != ("mark", "(")), ("mark", ""))
    if first[0] != "word" or (first[1] not in _READING and first[1] not in _WRITING):
        return Effect.TOUCHES
    found = Effect.READS
    for i, (kind, text) in enumerate(tokens):
        if kind == "word" and text in _WRITING and not _is_row_lock(tokens, i):
            found = Effect.WRITES
        elif kind == "word" and text in {"temp", "temporary"}:
            return Effect.TOUCHES  # SELECT … INTO TEMP; a column of that name costs a reset
        elif kind == "word" and text == "into" and _before(tokens, i) not in {"insert", "merge"}:
            return Effect.TOUCHES  # SELECT … INTO makes a table
        elif (kind, text) == ("mark", "(") and i and _calls(tokens, i):
            return Effect.TOUCHES
    return found


def _is_row_lock(tokens: list[tuple[str, str]], i: int) -> bool:
    """FOR UPDATE, FOR NO KEY UPDATE: a lock until the end of the transaction, not a change."""
    return tokens[i][1] == "update" and (
        _before(tokens, i) == "for" or (_before(tokens, i) == "key" and _before(tokens, i - 1) == "no")
    )


def _before(tokens: list[tuple[str, str]], i: int) -> str:
    return tokens[i - 1][1] if i >= 1 and tokens[i - 1][0] == "word" else ""


def _calls(tokens: list[tuple[str, str]], i: int) -> bool:
    """Whether the parenthesis at `i` belongs to a call of a function that is not known to be clean."""
    kind, name = tokens[i - 1]
    if kind not in {"word", "quoted"}:
        return False
    start = i - 1
    schema = ""
    while start >= 2 and tokens[start - 1] == ("mark", ".") and tokens[start - 2][0] in {"word", "quoted"}:  # noqa: PLR2004  (a dot and a name)
        start -= 2
        schema = tokens[start][1]
    if _before(tokens, start) in {"as", "into", "recursive"} or (_before(tokens, start) == "with" and start == 1):
        return False  # FROM … AS name (columns), INSERT INTO name (columns), WITH name (columns) AS
    if schema:
        return schema != "pg_catalog" or name not in CLEAN_FUNCTIONS
    if kind == "word" and (name in _RESERVED or _is_grammar(tokens, start)):
        return False
    return name not in CLEAN_FUNCTIONS


def _is_grammar(tokens: list[tuple[str, str]], i: int) -> bool:
    name, before = tokens[i][1], _before(tokens, i)
    if name in _AFTER:
        return before in _AFTER[name]
    if name not in _INFIX or i == 0:
        return False
    kind, text = tokens[i - 1]
    if kind == "mark":
        return text in {")", "]"} or text.startswith("$")
    return kind != "word" or text in _JOINS or text not in _RESERVED


def words(sql: str) -> list[tuple[str, str]] | None:
    """Kind and text of each token; None where the text cannot be read for sure."""
    placed = tokens_of(sql)
    return None if placed is None else [(kind, text) for kind, text, _, _ in placed]


def tokens_of(sql: str) -> list[Token] | None:
    """Words (lower case), quoted names, values (without their text) and marks, each with its place.

    None where the text cannot be read for sure.
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
        elif kind in {"string", "escape", "dollar", "unicode"}:
            after = _literal_end(sql, position, str(kind), text)
            tokens.append(("value", "", start, position if after is None else after))
        else:
            tokens.append((*_token(str(kind), text), start, position))
            continue
        if after is None:
            return None
        position = after
    return tokens


def _token(kind: str, text: str) -> tuple[str, str]:
    if kind == "word":
        # Only ASCII is folded: a letter beyond it could become one that it is not to PostgreSQL.
        return "word", text.lower() if text.isascii() else text
    if kind == "quoted":
        return "quoted", text[1:-1].replace('""', '"')
    if kind == "number":
        return "value", ""
    return "mark", text


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


def _literal_end(sql: str, position: int, kind: str, opening: str) -> int | None:
    """Where a literal ends that was opened before `position`; None when it does not, or nobody can tell."""
    if kind == "unicode":
        return None  # U&"…" may spell any name: nobody writes that by accident
    if kind == "dollar":
        found = sql.find(opening, position)
        return None if found < 0 else found + len(opening)
    match = (_ESCAPED_END if kind == "escape" else _STRING_END).match(sql, position)
    if match is None or (kind == "string" and "\\" in match[0]):
        return None  # with standard_conforming_strings off, a backslash would escape the quote
    return match.end()
