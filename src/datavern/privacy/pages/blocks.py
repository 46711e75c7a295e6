"""What a page for people consists of: headings, paragraphs, tables; how they look is another module's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["Block", "Facts", "Heading", "Language", "Letter", "Listing", "Mono", "Page", "Paragraph", "Table"]

Language = Literal["nb", "en"]


@dataclass(frozen=True, slots=True)
class Heading:
    """What a part is about."""

    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Sentences; `strong` is the first of all."""

    text: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headers; the first cell of each says what the row is about. `code`: columns of ids."""

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    widths: Sequence[int]
    code: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """Sentences, one below the other; each with the language that it is in."""

    items: Sequence[tuple[str, Language]]


@dataclass(frozen=True, slots=True)
class Mono:
    """What is typed, or copied, letter by letter."""

    text: str


Block = Heading | Paragraph | Facts | Table | Listing | Mono


@dataclass(frozen=True, slots=True)
class Page:
    """What is said, and in which language.

    Attributes:
        title: what it is called.
        organisation: whose it is; empty where nobody said.
        language: "nb" (bokmål) or "en".
        blocks: what stands on it.
        foot: at the foot of each sheet of paper.
    """

    title: str
    organisation: str
    language: Language
    blocks: Sequence[Block]
    foot: str = ""


class Letter(Protocol):
    """What a person is given to read."""

    def to_html(self, language: Language = "nb") -> str:
        """A page that stands by itself. Raises `ConfigurationError`: no such language."""
        ...

    def to_pdf(self, language: Language = "nb") -> bytes:
        """The same as PDF. Raises `ConfigurationError`: ``datavern[pdf]`` is not installed, or no such language."""
        ...
