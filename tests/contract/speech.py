"""How each engine says what the contract tests need to say; everything else is the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["SPEECHES", "Speech"]


@dataclass(frozen=True)
class Speech:
    """One engine's way of saying things: ``sql("SELECT $1")``.

    Attributes:
        engine: its name.
        placeholder: what ``$1`` becomes; ``{}`` stands for its number.
        words: what ``{word}`` in a text becomes: types, and statements that engines have no common words for.
    """

    engine: str
    placeholder: str
    words: Mapping[str, str]

    def __call__(self, text: str) -> str:
        """A text of the tests in the engine's words. Placeholders stand in their order, each once."""
        return re.sub(r"\$(\d+)", lambda m: self.placeholder.format(m[1]), text.format_map(self.words))


SPEECHES = {
    "sqlite": Speech(
        "sqlite",
        "?",
        {
            "integer": "INTEGER",
            "bigint": "INTEGER",
            "text": "TEXT",
            "bytes": "BLOB",
            "real": "REAL",
            "thousand": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)",
            "endless": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        },
    ),
    "postgresql": Speech(
        "postgresql",
        "${}",
        {
            "integer": "integer",
            "bigint": "bigint",
            "text": "text",
            "bytes": "bytea",
            "real": "double precision",
            "thousand": "WITH n(i) AS (SELECT generate_series(1, 1000))",
            "endless": "SELECT pg_sleep(600)",
        },
    ),
}
