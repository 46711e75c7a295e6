"""A checkpoint's row, once it has proven itself: its note is signed, and frontier and leaf hashes give its root."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from datavern.audit.checkpoint import Checkpoint
from datavern.audit.merkle import HASH, Frontier
from datavern.contracts.errors import LogTampered
from datavern.contracts.values import Row

__all__ = ["Covered", "covered"]


class Covered(NamedTuple):
    """What a checkpoint added to the one before it.

    Attributes:
        checkpoint: verified.
        base: the frontier of what was covered before; never changed.
        leaves: the leaf hashes that it added.
        whole: the frontier with them.
    """

    checkpoint: Checkpoint
    base: Frontier
    leaves: list[bytes]
    whole: Frontier


def covered(row: Row, verifiers: Iterable[str], origin: str) -> Covered:
    """What the row says, if it is true.

    Raises:
        LogTampered: it is not.
    """
    size = row["size"]
    checkpoint = _checkpoint(row, verifiers, origin)
    base = _frontier(max(row["previous"], 0), row["frontier"]) if isinstance(row["previous"], int) else None
    leaves = row["leaves"]
    if base is None or not isinstance(leaves, bytes) or len(leaves) != (size - base.size) * HASH:
        raise LogTampered(None, f"the leaf hashes of the checkpoint of size {size} were changed")
    hashes = [leaves[at : at + HASH] for at in range(0, len(leaves), HASH)]
    whole = base.copy().extend(hashes)
    if whole.root() != checkpoint.root:
        raise LogTampered(None, f"the leaf hashes of the checkpoint of size {size} do not give its root")
    return Covered(checkpoint, base, hashes, whole)


def _checkpoint(row: Row, verifiers: Iterable[str], origin: str) -> Checkpoint:
    note: Any = row["note"]
    reason = ""
    checkpoint = None
    try:
        checkpoint = Checkpoint.read(note if isinstance(note, str) else "").verified(verifiers, origin=origin)
    except LogTampered as error:
        reason = error.reason
    if checkpoint is None:
        raise LogTampered(None, f"the checkpoint of size {row['size']} is not as it was signed: {reason}")
    if (row["size"], row["root"], row["at"]) != (checkpoint.size, checkpoint.root, checkpoint.at):
        raise LogTampered(None, f"the checkpoint of size {row['size']} is not what its note says")
    return checkpoint


def _frontier(size: int, data: Any) -> Frontier | None:
    try:
        return Frontier.of(size, data if isinstance(data, bytes) else b"\0")
    except ValueError:
        return None
