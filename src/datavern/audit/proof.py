"""The proof that one entry is in the log: it verifies offline, with a public key (FORMAT.md section 7)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from datavern.audit.checkpoint import Checkpoint
from datavern.audit.entry import COLUMNS, canonical
from datavern.audit.merkle import leaf_hash, verify_inclusion
from datavern.contracts.errors import AuditError, LogTampered

__all__ = ["Proof"]

_FORMAT: Final = "datavern-audit-proof"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Proof:
    """An entry, and what ties it to a signed checkpoint.

    Attributes:
        entry: its ten columns, by name.
        position: its place in the log, from 0.
        path: the audit path (RFC 6962 section 2.1.1).
        checkpoint: the one that first covered it.
    """

    entry: Mapping[str, Any]
    position: int
    path: tuple[bytes, ...]
    checkpoint: Checkpoint

    def verify(self, verifier: str | Iterable[str]) -> Checkpoint:
        """The checkpoint that proves the entry. Needs no database, no network and no private key.

        Args:
            verifier: the public key, or several that are trusted, a line each.

        Raises:
            LogTampered: the entry, the path or the checkpoint is not what was sealed.
            ConfigurationError: the verifier is none.
        """
        checkpoint = self.checkpoint.verified([verifier] if isinstance(verifier, str) else verifier)
        try:
            leaf = leaf_hash(canonical([self.entry[name] for name in COLUMNS]))
        except (KeyError, TypeError, ValueError):
            leaf = b""
        if len(self.entry) != len(COLUMNS):
            leaf = b""
        if not leaf or not verify_inclusion(leaf, self.position, checkpoint.size, self.path, checkpoint.root):
            raise LogTampered(self.position, "the entry is not the one that the checkpoint covers")
        return checkpoint

    def to_json(self) -> str:
        """The proof as JSON, for files and for `from_json`."""
        whole = {
            "format": _FORMAT,
            "version": _VERSION,
            "entry": {name: self.entry[name] for name in COLUMNS},
            "position": self.position,
            "path": [base64.b64encode(node).decode() for node in self.path],
            "checkpoint": self.checkpoint.note,
        }
        return json.dumps(whole, ensure_ascii=False, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote. It is not verified yet.

        Raises:
            AuditError: it is no proof, or one of a later version.
            LogTampered: its checkpoint is none.
        """
        found: Any = None
        entry: Any = None
        position: Any = None
        path: tuple[bytes, ...] = ()
        note: Any = None
        try:
            found = json.loads(text)
            entry, position, note = found["entry"], found["position"], found["checkpoint"]
            path = tuple(base64.b64decode(node, validate=True) for node in found["path"])
        except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
            entry = None
        whole = isinstance(entry, dict) and type(position) is int and isinstance(note, str)
        if not whole or found.get("format") != _FORMAT:
            raise AuditError("not a proof: expected the JSON that Datavern wrote")
        if found.get("version") != _VERSION:
            raise AuditError("a proof of another version: a later Datavern reads it")
        return cls(entry, position, path, Checkpoint.read(note))
