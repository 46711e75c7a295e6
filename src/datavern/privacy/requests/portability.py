"""A person's data in a structured, commonly used and machine-readable form (GDPR Art. 20), with its schema.

JSON comes with a JSON Schema (draft 2020-12); CSV (RFC 4180, UTF-8) comes as one file for each dataset, with a W3C CSVW
table group that names their columns and types. In CSV a nested value is JSON text, and what is missing is empty.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datavern.privacy.journal.values import Masked

__all__ = ["portable"]

Rows = Sequence[Mapping[str, Any]]

_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array"}
_CSV_TYPES = {"boolean": "boolean", "integer": "integer", "number": "number"}


def portable(data: Mapping[str, Rows], form: Literal["json", "csv"], masked: Sequence[Masked] = ()) -> dict[str, bytes]:
    """The files that a person takes along: name → content, the schema among them.

    Args:
        data: dataset's label → rows, in values that JSON has.
        form: "json" or "csv".
        masked: what was left out because it is about others: a file of its own says so.
    """
    left = {"left-out.json": _text([asdict(one) for one in masked])} if masked else {}
    return {**_files(data, form), **left}


def _files(data: Mapping[str, Rows], form: Literal["json", "csv"]) -> dict[str, bytes]:
    if form == "json":
        return {"data.json": _text(data), "schema.json": _text(_json_schema(data))}
    files = {f"{label}.csv": _csv(rows) for label, rows in data.items() if rows}
    return {**files, "csv-metadata.json": _text(_csv_schema({label: data[label] for label in data if data[label]}))}


def _text(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def _columns(rows: Rows) -> dict[str, list[str]]:
    """Every column of the rows, in the order in which they come, with the types that its values have."""
    found: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            kinds = found.setdefault(name, set())
            if value is not None:
                kinds.add(_JSON_TYPES[type(value)])
    for name, kinds in found.items():
        if any(row.get(name) is None for row in rows):
            kinds.add("null")
    return {name: sorted(kinds) for name, kinds in found.items()}


def _json_schema(data: Mapping[str, Rows]) -> dict[str, Any]:
    properties = {}
    for label, rows in data.items():
        fields = {
            name: {"type": kinds[0] if len(kinds) == 1 else kinds} if kinds else {}
            for name, kinds in _columns(rows).items()
        }
        properties[label] = {"type": "array", "items": {"type": "object", "properties": fields}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


def _csv(rows: Rows) -> bytes:
    columns = list(_columns(rows))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in columns])
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _csv_schema(data: Mapping[str, Rows]) -> dict[str, Any]:
    tables = []
    for label, rows in data.items():
        columns = []
        for name, kinds in _columns(rows).items():
            there = [kind for kind in kinds if kind != "null"]
            only = there[0] if len(there) == 1 else "string"
            datatype = "json" if only in ("object", "array") else _CSV_TYPES.get(only, "string")
            columns.append({"titles": name, "datatype": datatype, "required": "null" not in kinds})
        tables.append({"url": f"{label}.csv", "tableSchema": {"columns": columns}})
    return {"@context": "http://www.w3.org/ns/csvw", "tables": tables}
