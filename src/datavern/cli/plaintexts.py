"""Looks for known plaintexts in every file of a folder: the proof that sealed means sealed.

A text is looked for as UTF-8, as Latin-1 and as UTF-16 in both orders, as it is written and in lower case, at any
offset and across the borders of the pieces that are read. What is found is verified byte for byte.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Hit", "Plaintexts"]

SHORTEST = 4
PREFIX = 6  # bytes of a needle that the expression holds; the rest is compared where it matches
PIECE = 1 << 22
ENCODINGS = ("utf-8", "latin-1", "utf-16-le", "utf-16-be")


@dataclass(frozen=True, slots=True)
class Hit:
    """A plaintext that was found.

    Attributes:
        text: which one.
        file: where.
        offset: at which byte.
    """

    text: str
    file: Path
    offset: int


class Plaintexts:
    """A set of texts to look for.

    Args:
        texts: each of at least four characters: shorter ones are found in any file, by chance.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = frozenset(texts)
        self._needles: dict[bytes, dict[bytes, str]] = defaultdict(dict)  # prefix → needle → text
        if any(len(text) < SHORTEST for text in self.texts):
            raise ValueError(f"a plaintext of fewer than {SHORTEST} characters is found anywhere, by chance")
        needles = {needle: text for text in self.texts for needle in forms(text)}
        prefix = min([PREFIX, *map(len, needles)])
        for needle, text in needles.items():
            self._needles[needle[:prefix]][needle] = text
        self._longest = max(map(len, needles), default=0)
        self._expression = re.compile(_trie(self._needles), re.DOTALL) if self.texts else None

    def in_bytes(self, data: bytes) -> list[tuple[str, int]]:
        """Each text that is in `data`, with its offset, in order."""
        found: list[tuple[str, int]] = []
        match = self._expression.search(data) if self._expression else None
        while self._expression and match:
            at = match.start()
            found += [(t, at) for needle, t in self._needles[match[0]].items() if data.startswith(needle, at)]
            match = self._expression.search(data, at + 1)  # not after the match: needles may overlap
        return found

    def in_file(self, path: Path) -> list[Hit]:
        """Each text that is in the file."""
        hits: dict[tuple[str, int], Hit] = {}
        start, tail = 0, b""
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                data = tail + piece
                for text, offset in self.in_bytes(data):
                    at = start - len(tail) + offset
                    hits[text, at] = Hit(text, path, at)
                start += len(piece)
                tail = data[-(self._longest - 1) :] if self._longest > 1 else b""
        return list(hits.values())

    def in_folder(self, folder: Path, *, seen: Callable[[int], Any] = lambda _: None) -> tuple[list[Hit], list[Path]]:
        """Each text that is in a file of the folder, at any depth, and the files that were searched.

        Args:
            folder: where to look.
            seen: called with the size of each file when it was searched.
        """
        hits: list[Hit] = []
        files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()]
        for path in files:
            hits += self.in_file(path)
            seen(path.stat().st_size)
        return hits, files


def forms(text: str) -> set[bytes]:
    """The bytes that a text may be written as."""
    found = set()
    for spelled in (text, text.lower()):
        for encoding in ENCODINGS:
            try:
                # Without the zero at an end of UTF-16: no needle begins with a zero, and files are full of them.
                found.add(spelled.encode(encoding).strip(b"\0"))
            except UnicodeEncodeError:  # Latin-1 lacks the character: then no file holds it so
                continue
    return found


def _trie(prefixes: Iterable[bytes]) -> bytes:
    """An expression for any of the prefixes that decides byte by byte: thousands cost little more than one."""
    root: dict[int, Any] = {}
    for prefix in prefixes:
        node = root
        for byte in prefix:
            node = node.setdefault(byte, {})
    # Each first byte begins an alternative of its own: `re` then skips quickly to the next byte that may begin a match.
    return b"|".join(re.escape(bytes([byte])) + _expression(below) for byte, below in sorted(root.items()))


def _expression(node: dict[int, Any]) -> bytes:
    by_rest: dict[bytes, list[int]] = defaultdict(list)
    for byte, below in sorted(node.items()):
        by_rest[_expression(below) if below else b""].append(byte)
    parts = [_one_of(bytes_) + rest for rest, bytes_ in by_rest.items()]
    return parts[0] if len(parts) == 1 else b"(?:" + b"|".join(parts) + b")"


def _one_of(values: list[int]) -> bytes:
    if len(values) == 1:
        return re.escape(bytes(values))
    return b"[" + b"".join(b"\\x%02x" % v for v in values) + b"]"
