"""Stored procedures: called by a text of our own, which is the same for both drivers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from datavern.contracts.errors import ConfigurationError
from datavern.engines.azuresql.rows import AzureSQLRow
from datavern.engines.azuresql.wire import Answer

__all__ = ["Call", "Output", "ProcedureResult"]

_TYPE: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?(?:\s*\(\s*(?:\d+|max)\s*(?:,\s*\d+\s*)?\))?", re.IGNORECASE)
_PARAMETER: Final = re.compile(r"@?[\w#$]+")
_PART: Final = re.compile(r"\s*(?:\[((?:[^\]]|\]\])*)\]|\"((?:[^\"]|\"\")*)\"|([^\[\]\".]+))\s*")


@dataclass(frozen=True, slots=True)
class Output:
    """An output parameter: ``{"total": Output("int")}``.

    Attributes:
        type: its type in T-SQL: ``int``, ``nvarchar(50)``, ``decimal(10, 2)``.
        value: what goes in; NULL when None.
    """

    type: str
    value: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.type, str) or not _TYPE.fullmatch(self.type.strip()):
            raise ConfigurationError("Output: expected a type of T-SQL, such as 'int' or 'nvarchar(50)'")


@dataclass(frozen=True, slots=True)
class ProcedureResult(Sequence[AzureSQLRow]):
    """What a stored procedure gave. As a sequence it is the rows of its first result set.

    Attributes:
        sets: the rows of each result set, in order.
        output: the output parameters, by name, or by position (the first is 0) where they were given so.
        value: its return value: 0 by convention where all went well.
    """

    sets: list[list[AzureSQLRow]]
    output: Mapping[Any, Any]
    value: int

    @property
    def rows(self) -> list[AzureSQLRow]:
        """The rows of the first result set; none where there is none."""
        return self.sets[0] if self.sets else []

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        return self.rows[place]


class Call:
    """The text that calls a procedure, and what becomes of its answer.

    Attributes:
        sql: the text.
        values: its parameters.
    """

    __slots__ = ("_outputs", "sql", "values")

    def __init__(self, provider: str, name: str, parameters: Any) -> None:
        given: list[tuple[Any, Any]]
        if isinstance(parameters, Mapping):
            given = [(_parameter_name(key), value) for key, value in parameters.items()]
        elif isinstance(parameters, Sequence) and not isinstance(parameters, str | bytes):
            given = list(enumerate(parameters))
        else:
            raise ConfigurationError(
                f"{provider}: a procedure's parameters are a list, a tuple or a dict, not {type(parameters).__name__}"
            )
        declared, passed, told = ["@datavern_value int"], [], ["@datavern_value AS datavern_value"]
        self.values: list[Any] = []
        self._outputs: list[Any] = []
        for key, value in given:
            named = f"{key} = " if isinstance(key, str) else ""
            sent = value.value if isinstance(value, Output) else value
            if sent is not None or not isinstance(value, Output):
                self.values.append(sent)
                place = f"@P{len(self.values)}"
            if not isinstance(value, Output):
                passed.append(f"{named}{place}")
                continue
            variable = f"@datavern_{len(self._outputs)}"
            declared.append(f"{variable} {value.type.strip()}" + ("" if sent is None else f" = {place}"))
            passed.append(f"{named}{variable} OUTPUT")
            told.append(f"{variable} AS datavern_{len(self._outputs)}")
            self._outputs.append(key.removeprefix("@") if isinstance(key, str) else key)
        arguments = f" {', '.join(passed)}" if passed else ""
        self.sql = (
            f"DECLARE {', '.join(declared)}; EXEC @datavern_value = {quoted_name(name, provider)}{arguments}; "
            f"SELECT {', '.join(told)}"
        )

    def result(self, answer: Answer) -> ProcedureResult:
        """What the answer means: the last result set is ours."""
        *sets, [told] = answer.sets
        value, *outputs = told
        return ProcedureResult(sets, dict(zip(self._outputs, outputs, strict=True)), int(value or 0))


def quoted_name(name: str, provider: str) -> str:
    """A name of one to three parts, quoted part by part: ``usp_GetCases``, ``dbo.usp_GetCases``, ``[a.b].[c]``.

    Raises:
        ConfigurationError: it is none.
    """
    parts: list[str] = []
    at = 0
    while isinstance(name, str) and at <= len(name):
        found = _PART.match(name, at)
        if found is None:
            parts = []
            break
        bracket, quote, bare = found.groups()
        text = bare.strip() if bare is not None else None
        if bracket is not None:
            text = bracket.replace("]]", "]")
        elif quote is not None:
            text = quote.replace('""', '"')
        parts.append(text or "")
        at = found.end()
        if at == len(name):
            break
        if name[at] != ".":
            parts = []
            break
        at += 1
    if not 1 <= len(parts) <= 3 or not all(parts) or any("\0" in p for p in parts):  # noqa: PLR2004  (database, schema, name)
        raise ConfigurationError(f"{provider}: expected the name of a procedure, schema.procedure")
    return ".".join(f"[{part.replace(']', ']]')}]" for part in parts)


def _parameter_name(key: Any) -> str:
    if not isinstance(key, str) or not _PARAMETER.fullmatch(key):
        raise ConfigurationError("a procedure's parameter is named by letters, digits and _, with or without @")
    return key if key.startswith("@") else f"@{key}"
