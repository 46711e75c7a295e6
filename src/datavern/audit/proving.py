"""The proof of one entry, in the checkpoint that first covered it or in a later one (RFC 6962 section 2.1.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from datavern.audit.checkpoint import Checkpoint
from datavern.audit.covered import Covered, covered
from datavern.audit.entry import COLUMNS, leaf_hashes
from datavern.audit.merkle import Frontier, Span, node_hash, split, verify_inclusion
from datavern.audit.proof import Proof
from datavern.audit.ranges import checkpoint_after
from datavern.audit.tables import log_of
from datavern.contracts.capabilities import Provider, needs
from datavern.contracts.errors import AuditError, LogTampered

__all__ = ["prove"]

Range = tuple[int, int]
"""First leaf and end."""


async def prove(
    provider: Provider, entry_id: str, *, origin: str, verifiers: Sequence[str], within: Checkpoint | None = None
) -> Proof:
    """The proof that an entry is in the log. Constant memory.

    Args:
        provider: whose log.
        entry_id: the entry's.
        origin: the log's name in its checkpoints.
        verifiers: the public keys that are trusted.
        within: in which checkpoint, verified; the one that first covered the entry when None.

    Raises:
        AuditError: there is no such entry, it is not sealed yet, or `within` is older than it.
        LogTampered: the entry or its checkpoint is not as it was sealed, or `within` is none of this log.
    """
    ledger, session = needs(provider, "ledger"), needs(provider, "session")
    log, dialect = log_of(ledger), ledger.dialect
    entry = await session.query_one(*log.by_id.bind(dialect, entry_id=entry_id))
    if entry is None:
        raise AuditError("the log has no entry of that id")
    place = {"era": entry["era"], "stamp": entry["stamp"], "seq": entry["seq"]}
    row = await session.query_one(*log.covering_checkpoint.bind(dialect, **place))
    if row is None:
        raise AuditError("the entry is not sealed yet: seal the log first")
    found = covered(row, verifiers, origin)
    (leaf,) = leaf_hashes([entry])
    if leaf not in found.leaves:
        raise LogTampered(None, "the entry is not as it was sealed: verify the log to see where")
    position = found.base.size + found.leaves.index(leaf)
    values = {name: entry[name] for name in COLUMNS}
    if within is None:
        path = Span(found.base, found.leaves).inclusion(position)
        return Proof(values, position, tuple(path), found.checkpoint)
    if within.size <= position:
        raise AuditError("the entry is younger than that checkpoint, which does not cover it: take a later one")
    path = await _path(provider, verifiers, origin, found, position, within.size)
    if not verify_inclusion(leaf, position, within.size, path, within.root):
        raise LogTampered(None, f"not the log that the checkpoint covers: its first {within.size} entries differ")
    return Proof(values, position, tuple(path), within)


async def _path(  # noqa: PLR0917  (a step of `prove`)
    provider: Provider, verifiers: Sequence[str], origin: str, found: Covered, index: int, size: int
) -> list[bytes]:
    """The audit path in the tree of `size` leaves, from the leaf up: one pass over the checkpoints from the entry's."""
    start = found.base.size
    known: dict[Range, bytes] = {(first, end): node for first, end, node in found.base.subtrees()}
    siblings = list(_siblings(index, size))
    growing = [(part, Frontier()) for one in siblings for part in _parts(one, start)]
    at, leaves = start, found.leaves
    while True:
        for (first, end), frontier in growing:
            frontier.extend(leaves[max(0, first - at) : max(0, end - at)])
        at += len(leaves)
        if at >= size:
            break
        row = await checkpoint_after(provider, at)
        if row is None:
            raise LogTampered(None, "the log was set back: it goes less far than the checkpoint")
        later = covered(row, verifiers, origin)
        if later.base.size != at:
            raise LogTampered(None, f"the checkpoint that covers entry {at} was removed")
        leaves = later.leaves
    known |= {part: frontier.root() for part, frontier in growing}
    return [_node(one, start, known) for one in siblings]


def _siblings(index: int, size: int) -> Iterator[Range]:
    """The subtrees beside the way from a leaf to the root, from the leaf up."""
    first, end, found = 0, size, list[Range]()
    while end - first > 1:
        middle = first + split(end - first)
        if index < middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((first, middle))
            first = middle
    return reversed(found)


def _parts(whole: Range, start: int) -> Iterator[Range]:
    """What has to be hashed of a subtree: the parts of it that begin at `start` or later."""
    first, end = whole
    if first >= start:
        yield whole
    elif end > start:
        middle = first + split(end - first)
        yield from _parts((first, middle), start)
        yield from _parts((middle, end), start)


def _node(whole: Range, start: int, known: dict[Range, bytes]) -> bytes:
    """A subtree's root. One that lies wholly before `start` is perfect, and one of the frontier's (see `Span`)."""
    first, end = whole
    if first >= start or end <= start:
        return known[whole]
    middle = first + split(end - first)
    return node_hash(_node((first, middle), start, known), _node((middle, end), start, known))
