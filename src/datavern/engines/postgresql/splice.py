"""A change and what goes with it, as one statement with common table expressions. Pure; asks nobody.

A statement is spliced only where it is certain what that means; `shape` gives None for every other text, and then the
change and what goes with it are statements of one transaction. The caller's own INSERT, UPDATE or DELETE becomes a
common table expression, never what the others hang on: PostgreSQL refuses there what a rule would make of it (code
0A000), while a rule that replaces an outer statement takes that statement's common table expressions away with it.
A rule that the server does take there is counted by the rows that it returns: one that does another kind of statement
instead (a DELETE in place of an UPDATE, RETURNING) counts those, where the server alone would have said 0.

Sources: PostgreSQL 18 documentation, 7.8.4 (Data-Modifying Statements in WITH), 4.1 (Lexical Structure), chapter 39
(The Rule System).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from datavern.engines.idempotency import CHANGE
from datavern.engines.postgresql.statements import Token, tokens_of

__all__ = [
    "HELD",
    "Shape",
    "Spliced",
    "counted",
    "held",
    "is_readable",
    "shape",
    "shared",
    "shared_held",
    "single_row",
    "tagged",
]

ENTRY: Final = "datavern_entry"
HELD: Final = "datavern_held"
"""A relation with one row where every guard holds, and none where one does not."""
_CHECKED: Final = "datavern_checked"
PATIENCE: Final = 10
"""Milliseconds that a transaction which several callers share waits for a lock."""
LONGEST: Final = 250
"""Milliseconds that a row may take in one, from the second on."""

_CHECK: Final = """SELECT CASE WHEN ${number}::pg_catalog.int4 = 0 THEN pg_catalog.set_config('lock_timeout', CASE
WHEN EXISTS (SELECT FROM pg_catalog.pg_class c
    WHERE c.oid = {oid} AND c.relkind = 'r' AND NOT c.relhasrules AND NOT c.relrowsecurity)
AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t
    WHERE t.tgrelid = {oid} AND NOT (t.tgisinternal AND t.tgfoid < 16384))
AND COALESCE(pg_catalog.current_setting('transaction_timeout', true)::pg_catalog.interval, '0')
    NOT BETWEEN '1 ms' AND '10 s'
THEN '{patience}' ELSE 'this table is not for sharing a transaction' END, true) ||
pg_catalog.set_config('statement_timeout',
    CASE WHEN pg_catalog.current_setting('statement_timeout')::pg_catalog.interval BETWEEN '1 ms' AND '{longest} ms'
    THEN pg_catalog.current_setting('statement_timeout') ELSE '{longest}' END, true) END"""
"""Whether rows may share a transaction, and if so `PATIENCE`; else an error.

It is to be an ordinary table, without rules and policies, and without triggers but those of foreign keys (a partition's
copies of others may call themselves internal, too); and the server is not to end the session because the transaction
takes long (`transaction_timeout`, since PostgreSQL 17). Each further statement has `LONGEST`, or what the session has
where that is less.
"""
_NOW: Final = [("word", "now"), ("mark", "("), ("mark", ")")]
_COUNTED: Final = frozenset({"insert", "update", "delete"})
_TAGGED: Final = frozenset({"select", "merge"})
_OWN: Final = (CHANGE, ENTRY, HELD, "datavern_idempotency", "datavern_audit")


@dataclass(frozen=True, slots=True)
class Shape:
    """A single statement that may be spliced.

    Attributes:
        verb: insert, update, delete (their rows are counted through RETURNING), select or merge.
        common: where a further common table expression may stand first: behind WITH; None without one.
        main: where the statement itself begins, behind its common table expressions.
        end: where its last token ends; white space, comments and semicolons follow.
        highest: the highest parameter number in it.
        returns: whether it has a RETURNING clause.
    """

    verb: str
    common: int | None
    main: int
    end: int
    highest: int
    returns: bool

    @property
    def is_counted(self) -> bool:
        """Whether it can be a common table expression whose rows are counted."""
        return self.verb in _COUNTED


@dataclass(frozen=True, slots=True)
class Spliced:
    """The one statement.

    Attributes:
        text: its text.
        own: where in it the words stand that are not the caller's: begin and end of each.
    """

    text: str
    own: tuple[tuple[int, int], ...]

    def origin(self, position: int) -> int | None:
        """Where in the caller's text a character stands; None where it is none of the caller's. Both count from 1.

        What is behind the caller's text is its end: that is where a statement that is not finished is shown.
        """
        at = position - 1
        removed = 0
        for begin, end in self.own:
            if at < begin:
                break
            if at < end:
                return begin - removed + 1 if len(self.own) > 1 and begin == self.own[-1][0] else None
            removed += end - begin
        return at - removed + 1


def is_readable(sql: str) -> bool:
    """Whether the statements in the text can be told apart."""
    return tokens_of(sql) is not None


def shape(sql: str) -> Shape | None:
    """What can be spliced into the text, and where; None where that is not certain."""
    tokens = tokens_of(sql)
    while tokens and tokens[-1][:2] == ("mark", ";"):
        tokens.pop()
    if not tokens or not _is_whole(tokens):
        return None
    common, first = _common(tokens)
    if first is None:
        return None
    verb = tokens[first][1] if tokens[first][0] == "word" else ""
    if verb not in _COUNTED and verb not in _TAGGED:
        return None
    returns = _returns(tokens, first)
    if returns is None or (verb == "select" and any(token[:2] == ("word", "into") for token in tokens)):
        return None
    highest = max((int(text[1:]) for kind, text, _, _ in tokens if kind == "mark" and text[1:].isdecimal()), default=0)
    return Shape(verb, common, tokens[first][2], tokens[-1][3], highest, returns)


def _is_whole(tokens: list[Token]) -> bool:
    """One statement, whose parentheses close, whose end is one, and which uses no name of ours."""
    open_: list[str] = []
    for kind, text, _, _ in tokens:
        if kind == "mark":
            if text in "([":
                open_.append(text)
            elif (text in ")]" and (not open_ or open_.pop() + text not in {"()", "[]"})) or text == ";":
                return False
        elif kind != "value" and text.lower().startswith(_OWN):
            return False
    kind, text = tokens[-1][:2]
    ended = text in {")", "]", "*"} or text[:1] == "$" if kind == "mark" else (kind, text) != ("word", "as")
    return not open_ and ended


def _common(tokens: list[Token]) -> tuple[int | None, int | None]:
    """Where a further common table expression goes, and which token begins the statement itself.

    The latter is None where the common table expressions are not read for sure.
    """
    if tokens[0][:2] != ("word", "with"):
        return None, 0
    at = 1
    if _word(tokens, 1) == "recursive":
        if tokens[2:] and tokens[2][0] in {"word", "quoted"} and _word(tokens, 2) != "as":
            at = 2
        else:
            return None, None  # it may be a name
    common = tokens[at - 1][3]
    while True:
        behind = _behind_expression(tokens, at)
        if behind is None or tokens[behind][:2] != ("mark", ","):
            return common, behind  # SEARCH and CYCLE are no verb
        at = behind + 1


def _behind_expression(tokens: list[Token], at: int) -> int | None:
    """Behind ``name (columns) AS NOT MATERIALIZED (…)``; None where that is not what stands there."""
    if at >= len(tokens) or tokens[at][0] not in {"word", "quoted"}:
        return None
    at = _behind(tokens, at + 1)
    if _word(tokens, at) != "as":
        return None
    at += 1
    for word in ("not", "materialized"):
        if _word(tokens, at) == word:
            at += 1
    behind = _behind(tokens, at)
    return behind if at < behind < len(tokens) else None


def _behind(tokens: list[Token], at: int) -> int:
    """Behind the parentheses that open at a token; that token where none do."""
    depth = 0
    for i in range(at, len(tokens)):
        mark = tokens[i][1] if tokens[i][0] == "mark" else ""
        depth += (mark == "(") - (mark == ")")
        if depth == 0:
            return i + 1 if i > at else at
    return at


def _word(tokens: list[Token], at: int) -> str:
    return tokens[at][1] if at < len(tokens) and tokens[at][0] == "word" else ""


def _returns(tokens: list[Token], first: int) -> bool | None:
    """Whether the statement has RETURNING; None where the word may be a name, and for WHERE CURRENT OF."""
    depth = 0
    for i in range(first, len(tokens)):
        kind, text = tokens[i][:2]
        if kind == "mark":
            depth += (text == "(") - (text == ")")
        elif kind == "word" and text == "current" and _word(tokens, i + 1) == "of":
            return None
        elif kind == "word" and text == "returning" and depth == 0:
            return None if tokens[i - 1][:2] in {("word", "as"), ("mark", ".")} else True
    return False


def single_row(sql: str) -> str | None:
    """The table's name, as PostgreSQL reads it, where the text is the INSERT of exactly one row of given values.

    ``INSERT INTO name (columns) VALUES (values)`` and nothing else: parameters, literals, casts, and of all functions
    ``now()`` alone. None for every other text.
    """
    tokens = [(kind, text) for kind, text, _, _ in tokens_of(sql) or ()]
    while tokens and tokens[-1] == ("mark", ";"):
        tokens.pop()
    if tokens[:2] != [("word", "insert"), ("word", "into")]:
        return None
    at = 2
    name = []
    while at < len(tokens) and tokens[at][0] in {"word", "quoted"}:
        kind, text = tokens[at]
        name.append(text if kind == "word" else '"' + text.replace('"', '""') + '"')
        at += 1
        if tokens[at : at + 1] != [("mark", ".")]:
            break
        at += 1
    if tokens[at : at + 1] == [("mark", "(")] and ("mark", ")") in tokens:
        at = tokens.index(("mark", ")"), at) + 1
    if not name or tokens[at : at + 2] != [("word", "values"), ("mark", "(")] or tokens[-1] != ("mark", ")"):
        return None
    at += 2
    while at < len(tokens) - 1:
        if tokens[at : at + 3] == _NOW and tokens[at - 1] != ("mark", "."):
            at += 3
        elif _may_call(*tokens[at - 1 : at + 1]):
            return None
        else:
            at += 1
    found = ".".join(name)
    return None if "\\" in found else found  # it is to stand in a literal


def _may_call(before: tuple[str, str], token: tuple[str, str]) -> bool:
    """Whether a function may be called there: f(…), and $1.f, which may be the same."""
    return token in {("mark", "("), ("mark", ")")} or (token == ("mark", ".") and before[0] == "mark")


# ---- texts ----------------------------------------------------------------------------------------------------------


def counted(sql: str, of: Shape, *, entry: str | None, closing: str, closing_takes: int = 0) -> Spliced:
    """The change as a common table expression, the entry as another, and a statement that says how many rows it was.

    Args:
        sql: the caller's text.
        of: its shape; `is_counted`.
        entry: the insert of the audit entry, if there is one.
        closing: reads `CHANGE`.
        closing_takes: how many parameters it takes; they follow the caller's, and the entry's follow them.
    """
    lead = ("WITH " if of.common is None else ", ") + f"{CHANGE} AS ("
    tail = ("" if of.returns else " RETURNING 1") + ")"
    if entry is not None:
        tail += f", {ENTRY} AS ({_renumbered(entry, of.highest + closing_takes)})"
    tail += f" {_renumbered(closing, of.highest)}"
    text = f"{sql[: of.main]}{lead}{sql[of.main : of.end]}{tail}{sql[of.end :]}"
    middle = of.end + len(lead)
    return Spliced(text, ((of.main, of.main + len(lead)), (middle, middle + len(tail))))


def tagged(sql: str, of: Shape, *, entry: str) -> Spliced:
    """The caller's statement as it is, with the entry as a further common table expression."""
    expression = f"{ENTRY} AS ({_renumbered(entry, of.highest)})"
    if of.common is None:
        at, own = of.main, f"WITH {expression} "
    else:
        at, own = of.common, f" {expression},"
    return Spliced(f"{sql[:at]}{own}{sql[at:]}", ((at, at + len(own)),))


def held(guards: tuple[str, ...], row: str, entry: str, *, taken: tuple[int, ...]) -> str:
    """An insert and its entry under guards: each reads `HELD`, and the command tag tells whether they held.

    Args:
        guards: each a SELECT. Each is evaluated once and to its end, with the locks that it asks for.
        row: the insert of the row: it reads `HELD`.
        entry: that of the entry; it is the outer statement, since no rule of the caller's can replace it.
        taken: how many parameters each guard and the row take; they come in this order, and the entry's last.
    """
    parts, condition = _guarded(guards, taken)
    parts.append(f"{HELD} AS MATERIALIZED (SELECT 1 WHERE {condition})")
    parts.append(f"datavern_row_written AS ({_renumbered(row, sum(taken[:-1]))})")
    return f"WITH {', '.join(parts)} {_renumbered(entry, sum(taken))}"


def _guarded(guards: tuple[str, ...], taken: tuple[int, ...]) -> tuple[list[str], str]:
    """The guards, and what is true where each has a row."""
    parts = []
    names = []
    first = 0
    for number, (guard, takes) in enumerate(zip(guards, taken, strict=False), 1):
        names.append(f"datavern_guard_{number}")
        parts.append(f"{names[-1]} AS MATERIALIZED ({_renumbered(guard, first)})")
        first += takes
    counts = (f"(SELECT pg_catalog.count(*) FROM {name}) > 0" for name in names)  # noqa: S608  (names of our own)
    return parts, " AND ".join(counts) or "true"


def shared(sql: str, of: Shape, *, table: str, entry: str, takes: int) -> str:
    """The insert of a row and of its entry, for a transaction with others: it waits for nobody, and no trigger sees it.

    The outer statement is the entry's, so that what it reads, the check, is done before the row is inserted
    (`ExecPostprocessPlan` runs what nobody reads at the end). A check that fails is an error: the setting is no number.

    Args:
        sql: the caller's text.
        of: its shape.
        table: the table's name: `single_row`.
        entry: the insert of the entry, which reads `HELD`.
        takes: how many parameters it takes; they follow the caller's. The last of all is the row's number in the
            transaction, from 0.
    """
    check = _check(table, of.highest + takes + 1)
    row = f"{CHANGE} AS ({sql[of.main : of.end]})"
    return f"WITH {HELD} AS MATERIALIZED ({check}), {row} {_renumbered(entry, of.highest)}"


def shared_held(
    guards: tuple[str, ...], row: str, entry: str, *, table: str, taken: tuple[int, ...], takes: int
) -> str:
    """The same as `held`, for a transaction with others: it gives the row's number where the guards held.

    The check is done before the guards are asked, which may wait for locks: CASE sees to that.

    Args:
        guards: as `held`, as `row`, `entry` and `taken`.
        row: see above.
        entry: see above.
        table: the table's name, as PostgreSQL reads it.
        taken: see above.
        takes: how many parameters the entry takes. The last of all is the row's number in the transaction, from 0.
    """
    parts, condition = _guarded(guards, taken)
    number = sum(taken) + takes + 1
    checked = f"(SELECT pg_catalog.count(*) FROM {_CHECKED}) > 0"  # noqa: S608  (a name of our own)
    parts.insert(0, f"{_CHECKED} AS MATERIALIZED ({_check(table, number)})")
    parts.append(f"{HELD} AS MATERIALIZED (SELECT 1 WHERE CASE WHEN {checked} THEN {condition} END)")
    parts.append(f"datavern_row_written AS ({_renumbered(row, sum(taken[:-1]))})")
    return f"WITH {', '.join(parts)} {_renumbered(entry, sum(taken))} RETURNING ${number}::pg_catalog.int4"


def _check(table: str, number: int) -> str:
    oid = "'" + table.replace("'", "''") + "'::pg_catalog.regclass"
    return _CHECK.format(number=number, oid=oid, patience=PATIENCE, longest=LONGEST)


def _renumbered(sql: str, by: int) -> str:
    """One of our own texts, with its parameters counted from a later number."""
    if not by:
        return sql
    parts = []
    at = 0
    for kind, text, begin, end in tokens_of(sql) or ():
        if kind == "mark" and text[1:].isdecimal():
            parts += [sql[at:begin], f"${int(text[1:]) + by}"]
            at = end
    return "".join([*parts, sql[at:]])
