"""A database in memory, with a little SQL of its own. It stands in for yours, and knows nothing of Datavern."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Read = Callable[[Mapping[str, Any], Sequence[Any]], Any]  # a value, from a row and the parameters
Row = dict[str, Any]

WHERE = r"(?: WHERE (.+?))?"
FORMS = {
    "create": r"CREATE TABLE (\w+) \((.+)\)",
    "drop": r"DROP TABLE (\w+)",
    "insert": r"INSERT INTO (\w+)(?: \(([\w, ]+)\))? VALUES \((.+)\)",
    "select": rf"SELECT (.+?)(?: FROM (\w+){WHERE}(?: ORDER BY (\w+)( DESC)?)?)?",
    "update": rf"UPDATE (\w+) SET (.+?){WHERE}",
    "delete": rf"DELETE FROM (\w+){WHERE}",
    "wait": r"WAIT (\d+)",
}
OUTSIDE_QUOTES = r"(?=(?:[^']*'[^']*')*[^']*$)"
COMPARE = {"=": operator.eq, "<": operator.lt, ">": operator.gt}


class BoardError(Exception):
    """What went wrong. As the errors of many drivers do, it quotes what was typed in."""

    def __init__(self, code: str, message: str, column: str | None = None) -> None:
        super().__init__(message)
        self.code, self.column = code, column


class Table(NamedTuple):
    """Never changed, only replaced: whoever reads goes on reading the one that was there."""

    columns: tuple[str, ...]
    unique: tuple[str, ...]
    required: tuple[str, ...]
    rows: tuple[Row, ...] = ()

    def check(self) -> None:
        """Raise where a row breaks a rule of a column."""
        for column in self.required:
            if any(row[column] is None for row in self.rows):
                raise BoardError("REQUIRED", f"a row has no {column}", column)
        for column in self.unique:
            seen = set()
            for value in (row[column] for row in self.rows if row[column] is not None):
                if value in seen:
                    raise BoardError("UNIQUE", f"{column} {value!r} is there already", column)
                seen.add(value)


Tables = Mapping[str, Table]


class Found(NamedTuple):
    """The tables after a statement, the rows that it gives, and how many it changed."""

    tables: Tables
    names: tuple[str, ...] = ()
    rows: Sequence[tuple[Any, ...]] = ()
    changed: int = 0


class Statement:
    """A statement. It is read as it is made; `run` gives the tables as they are after it."""

    def __init__(self, text: str) -> None:
        pieces = re.split(r"('[^']*'|\?)", text)
        self.parameters = pieces.count("?")
        numbers = iter(range(self.parameters))
        numbered = "".join(f"?{next(numbers)}" if piece == "?" else piece for piece in pieces)
        for self.kind, form in FORMS.items():
            if match := re.fullmatch(form, numbered, re.DOTALL):
                self.table = match[1]
                self._run: Callable[[Tables, Sequence[Any]], Found] = getattr(self, f"_{self.kind}")(*match.groups())
                return
        raise BoardError("SYNTAX", f"not understood: {text}")

    def run(self, tables: Tables, *sets: Sequence[Any]) -> Found:
        """Run it with each set of parameters, one for each ``?``: all of them, or none."""
        found, changed = Found(tables), 0
        for parameters in sets:
            if len(parameters) != self.parameters:
                raise BoardError("PARAMETERS", f"it takes {self.parameters} parameters, not {len(parameters)}")
            found = self._run(found.tables, parameters)
            changed += found.changed
        if changed:
            found.tables[self.table].check()
        return found._replace(changed=changed)

    def _create(self, name: str, columns: str) -> Any:
        found = [re.fullmatch(r"(\w+) \w+((?: PRIMARY KEY| UNIQUE| NOT NULL)*)", column) for column in _list(columns)]
        if None in found:
            raise BoardError("SYNTAX", f"no column: {columns}")
        rules = {match[1]: match[2] for match in found if match}
        unique = tuple(column for column, rule in rules.items() if "UNIQUE" in rule or "KEY" in rule)
        required = tuple(column for column, rule in rules.items() if "NOT" in rule or "KEY" in rule)
        return lambda tables, _: Found({**tables, name: Table(tuple(rules), unique, required)})

    def _drop(self, name: str) -> Any:
        return lambda tables, _: Found({n: t for n, t in tables.items() if t is not _table(tables, name)})

    def _insert(self, name: str, columns: str | None, values: str) -> Any:
        given = [[_value(value) for value in _list(row)] for row in re.split(r"\), ?\(", values)]

        def run(tables: Tables, parameters: Sequence[Any]) -> Found:
            table = _table(tables, name)
            into = _list(columns) if columns else table.columns
            if set(into) - set(table.columns) or any(len(row) != len(into) for row in given):
                raise BoardError("VALUES", f"expected values for {', '.join(table.columns)}")
            new = [dict(zip(into, (read({}, parameters) for read in row), strict=True)) for row in given]
            rows = [*table.rows, *({**dict.fromkeys(table.columns), **row} for row in new)]
            return Found({**tables, name: table._replace(rows=tuple(rows))}, changed=len(new))

        return run

    def _select(self, wanted: str, name: str | None, where: str | None, order: str | None, down: str | None) -> Any:
        holds = _condition(where)
        columns = [] if wanted in {"*", "count(*)"} else _list(wanted)
        reads = [_value(column) for column in columns]

        def run(tables: Tables, parameters: Sequence[Any]) -> Found:
            table = _table(tables, name) if name else Table((), (), (), ({},))
            rows = [row for row in table.rows if holds(row, parameters)]
            if order:
                rows.sort(key=lambda row: (_column(row, order) is not None, row[order]), reverse=bool(down))
            if wanted == "count(*)":
                return Found(tables, ("count",), [(len(rows),)])
            if wanted == "*":
                return Found(tables, table.columns, [tuple(row.values()) for row in rows])
            return Found(tables, tuple(columns), [tuple(read(row, parameters) for read in reads) for row in rows])

        return run

    def _update(self, name: str, changes: str, where: str | None) -> Any:
        pairs = [change.partition(" = ") for change in _list(changes)]
        reads = {column: _value(value) for column, _, value in pairs}
        return self._change(name, where, lambda row, p: {**row, **{c: read(row, p) for c, read in reads.items()}})

    def _delete(self, name: str, where: str | None) -> Any:
        return self._change(name, where, lambda *_: None)

    def _change(self, name: str, where: str | None, changed: Read) -> Any:
        holds = _condition(where)

        def run(tables: Tables, parameters: Sequence[Any]) -> Found:
            table = _table(tables, name)
            hits = [holds(row, parameters) for row in table.rows]
            rows = [changed(row, parameters) if hit else row for row, hit in zip(table.rows, hits, strict=True)]
            left = tuple(row for row in rows if row is not None)
            if any(len(row) != len(table.columns) for row in left):
                raise BoardError("NO COLUMN", f"there are the columns {', '.join(table.columns)}")
            return Found({**tables, name: table._replace(rows=left)}, changed=sum(hits))

        return run

    def _wait(self, seconds: str) -> Any:
        self.seconds = int(seconds)
        return lambda tables, _: Found(tables)


def _list(text: str) -> list[str]:
    return re.split(r", ?" + OUTSIDE_QUOTES, text)


def _table(tables: Tables, name: str) -> Table:
    if name not in tables:
        raise BoardError("NO TABLE", f"there is no table {name}")
    return tables[name]


def _column(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise BoardError("NO COLUMN", f"there is no column {name}")
    return row[name]


def _value(text: str) -> Read:
    match = re.fullmatch(r"(?:\?(\d+)|(\d+)|'([^']*)'|(NULL)|(\w+))(?: ([+-]) (\w+))?", text, re.DOTALL)
    if match is None:
        raise BoardError("SYNTAX", f"no value: {text}")
    parameter, number, quoted, null, column, sign, other = match.groups()
    if sign:
        one, two, plus = _value(text.split(" ", maxsplit=1)[0]), _value(other), 1 if sign == "+" else -1
        return lambda row, parameters: one(row, parameters) + plus * two(row, parameters)
    if parameter:
        return lambda _, parameters: parameters[int(parameter)]
    if column:
        return lambda row, _: _column(row, column)
    constant = None if null else int(number) if number else quoted
    return lambda *_: constant


def _condition(text: str | None) -> Callable[[Mapping[str, Any], Sequence[Any]], bool]:
    pairs = []
    for condition in re.split(" AND " + OUTSIDE_QUOTES, text) if text else ():
        match = re.fullmatch(r"(\w+) ([=<>]) (.+)", condition, re.DOTALL)
        if match is None:
            raise BoardError("SYNTAX", f"no condition: {condition}")
        pairs.append((match[1], COMPARE[match[2]], _value(match[3])))

    def holds(row: Mapping[str, Any], parameters: Sequence[Any]) -> bool:
        for column, compare, read in pairs:
            left, right = _column(row, column), read(row, parameters)
            if left is None or right is None or not compare(left, right):
                return False
        return True

    return holds
