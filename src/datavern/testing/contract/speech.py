"""How an engine says what the contract's tests need to say; everything else is the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from datavern.contracts.errors import ConfigurationError

__all__ = ["FEATURES", "WORDS", "Speech"]

WORDS: Final = ("integer", "bigint", "text", "bytes", "real")
"""Types that every engine with sessions has a word for: whole numbers, those of 64 bits, text, bytes, doubles."""

FEATURES: Final[Mapping[str, str]] = {
    "alter": "ALTER TABLE … ADD COLUMN",
    "check constraints": "CONSTRAINT … CHECK (…)",
    "codes": "ProviderError.code: the engine numbers its errors",
    "ddl": "Subjects.prepare tells what it ran in SQL: CREATE TABLE, ALTER TABLE, CREATE INDEX",
    "deferred constraints": "REFERENCES … DEFERRABLE INITIALLY DEFERRED",
    "endless": "a statement that runs until it is cancelled: the word {endless}",
    "foreign keys": "REFERENCES",
    "insert select": "INSERT INTO … SELECT …",
    "pool": "Health.pool: the engine holds connections, and counts them",
    "positions": "ProviderError.position: where in its text a statement is wrong",
    "quoted names": '"a name with anything in it"',
    "returning": "INSERT, UPDATE and DELETE … RETURNING …",
    "with": "WITH … AS (…)",
}
"""What a dialect may lack, and a test may ask for."""


@dataclass(frozen=True)
class Speech:
    """One engine's way of saying things: ``sql("SELECT $1")``.

    The tests speak plain SQL. Where an engine has another sentence for one of theirs, `sentences` holds it.

    Attributes:
        placeholder: what ``$1`` becomes; ``{}`` stands for its number.
        words: what ``{word}`` in a text becomes: a type for each of `WORDS`, and ``endless`` for a statement that runs
            until it is cancelled.
        lacks: of `FEATURES`, those that the engine's language does not have, each with the reason.
        sentences: a text of the tests, to the letter → the engine's own, instead of all the above.

    Raises:
        ConfigurationError: no word for a type, a lack that is no feature, or one without a reason.
    """

    placeholder: str
    words: Mapping[str, str]
    lacks: Mapping[str, str] = field(default_factory=dict)
    sentences: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = [*WORDS, *(() if "endless" in self.lacks else ("endless",))]
        problems = [f"words: no word for {word}" for word in wanted if word not in self.words]
        problems += [
            f"lacks: {name}: expected one of {', '.join(FEATURES)}" for name in self.lacks if name not in FEATURES
        ]
        problems += [f"lacks: {name}: say why" for name, reason in self.lacks.items() if not reason]
        if problems:
            raise ConfigurationError("\n".join(problems))

    def __call__(self, text: str) -> str:
        """A text of the tests in the engine's words. Placeholders stand in their order, each once."""
        found = self.sentences.get(text)
        if found is not None:
            return found
        return re.sub(r"\$(\d+)", lambda m: self.placeholder.format(m[1]), text.format_map(self.words))

    def has(self, feature: str) -> bool:
        """Whether the language has it."""
        return feature not in self.lacks
