"""A checkpoint: the size and the root of the log at one moment, signed (FORMAT.md section 5)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol, Self

from datavern.audit.merkle import HASH
from datavern.contracts.errors import LogTampered
from datavern.crypto.notes import open_note

__all__ = ["Checkpoint", "Signs", "kept_of"]

_SIGNED: Final = re.compile(r"(.+?\n\n(?:\N{EM DASH} [^\n]+\n)+)\n*", re.DOTALL)
_LINES: Final = 4


class Signs(Protocol):
    """What signs checkpoints: the key ring's signer."""

    @property
    def verifier(self) -> str:
        """The public key, as one line."""
        ...

    def sign_note(self, text: str) -> str:
        """The text as a signed note."""
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log was when it was sealed. Keep a copy where whoever can change the database cannot.

    Attributes:
        origin: which log it is of.
        size: how many entries it covers.
        root: the Merkle tree hash over them (RFC 6962), 32 bytes.
        at: when it was sealed, RFC 3339 in UTC.
        note: the signed note: all of it as text.
        others: checkpoints of the other logs that were sealed with this one.
    """

    origin: str
    size: int
    root: bytes
    at: str
    note: str
    others: tuple[Checkpoint, ...] = ()

    @classmethod
    def sign(cls, signer: Signs, *, origin: str, size: int, root: bytes, at: str) -> Self:
        """Make one."""
        text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\ntime {at}\n"
        return cls(origin, size, root, at, signer.sign_note(text))

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a checkpoint, or the several of a file. It is not verified yet: `verified` does that.

        Raises:
            LogTampered: it is no checkpoint.
        """
        notes = list(_split(text))
        if not notes:
            raise LogTampered(None, "not a checkpoint: a signed note was expected (c2sp.org/tlog-checkpoint)")
        first, *others = (cls._of(note, note.partition("\n\n")[0] + "\n") for note in notes)
        return replace(first, others=tuple(others))

    @classmethod
    def _of(cls, note: str, text: str) -> Self:
        lines = text.split("\n")[:-1]
        root = b""
        if len(lines) >= _LINES - 1 and re.fullmatch("0|[1-9][0-9]{0,18}", lines[1]):
            try:
                root = base64.b64decode(lines[2], validate=True)
            except (binascii.Error, ValueError):
                root = b""
        if len(root) != HASH or not lines[0]:
            raise LogTampered(None, "not a checkpoint: origin, size and root were expected (c2sp.org/tlog-checkpoint)")
        at = next((line.removeprefix("time ") for line in lines[3:] if line.startswith("time ")), "")
        return cls(lines[0], int(lines[1]), root, at, note)

    def verified(self, verifiers: Iterable[str], *, origin: str | None = None) -> Self:
        """This checkpoint, once its signature was checked.

        Args:
            verifiers: the public keys that are trusted, a line each.
            origin: which log it must be of; any when None.

        Raises:
            LogTampered: no trusted key signed it, it says something else than this value, or it is of another log.
        """
        signed = self._of(self.note, open_note(self.note, verifiers))
        if (signed.origin, signed.size, signed.root, signed.at) != (self.origin, self.size, self.root, self.at):
            raise LogTampered(None, "the checkpoint is not what its note says")
        if origin is not None and self.origin != origin:
            raise LogTampered(None, f"the checkpoint is of another log: {self.origin}")
        return self

    @property
    def text(self) -> str:
        """All notes, one after the other: what `save` writes and `read` reads."""
        return "\n".join(c.note for c in (self, *self.others))

    def save(self, path: str | Path) -> None:
        """Write it to a file, to be copied out of reach. Overwrites the file."""
        Path(path).write_text(self.text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read it from a file. It is not verified yet.

        Raises:
            LogTampered: the file holds no checkpoint.
            OSError: it cannot be read.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            text = ""
        return cls.read(text)


def kept_of(given: Checkpoint | str, verifiers: Iterable[str], origin: str) -> Checkpoint:
    """The checkpoint of a log among those that were kept elsewhere, verified.

    Args:
        given: a checkpoint with its `others`, or its text.
        verifiers: the public keys that are trusted.
        origin: the log's.

    Raises:
        LogTampered: none is of that log, or no trusted key signed it.
    """
    first = Checkpoint.read(given) if isinstance(given, str) else given
    kept = next((c for c in (first, *first.others) if c.origin == origin), first)
    return replace(kept, others=()).verified(verifiers, origin=origin)


def _split(text: str) -> Iterator[str]:
    at = 0
    while match := _SIGNED.match(text, at):
        yield match[1]
        at = match.end()
    if text[at:].strip():
        raise LogTampered(None, "not a checkpoint: something else stands behind its signature")
