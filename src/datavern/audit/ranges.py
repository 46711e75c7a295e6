"""The entries that one checkpoint added, read again and compared with what was sealed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datavern.audit.checkpoint import Checkpoint
from datavern.audit.covered import Covered, covered
from datavern.audit.sealer import MOST, hashed
from datavern.audit.tables import START, at_place, log_of
from datavern.contracts.capabilities import Provider, needs
from datavern.contracts.errors import LogTampered, QueryRejected
from datavern.contracts.values import Row

__all__ = ["Place", "checkpoint_after", "checkpoint_of", "compared", "place_of", "same_log"]

Place = tuple[Any, Any, Any]
"""Era, stamp and seq."""


def place_of(row: Row | None) -> Place:
    """Where a checkpoint's row says that it ends; the log's beginning where there is no row."""
    return START if row is None else (row["era"], row["stamp"], row["seq"])


async def checkpoint_of(provider: Provider, size: int) -> Row | None:
    """The checkpoint's row of that size, or None."""
    ledger = needs(provider, "ledger")
    query = log_of(ledger).checkpoint_of.bind(ledger.dialect, of=size)
    return await needs(provider, "session").query_one(*query)


async def checkpoint_after(provider: Provider, size: int) -> Row | None:
    """The row of the first checkpoint that covers more than so many entries, or None."""
    ledger = needs(provider, "ledger")
    query = log_of(ledger).next_checkpoint.bind(ledger.dialect, after=size)
    return await needs(provider, "session").query_one(*query)


async def compared(provider: Provider, before: Place, row: Row, found: Covered) -> int | None:
    """Where the entries of a checkpoint's range first differ from what was sealed; None where they do not.

    Args:
        provider: whose log.
        before: the place that the range comes after.
        row: the checkpoint's row.
        found: what it proved (`covered`).

    Returns:
        The position in the log.
    """
    ledger = needs(provider, "ledger")
    log, dialect = log_of(ledger), ledger.dialect
    query = log.range_page.bind(dialect, **between(before, place_of(row)), most=MOST + 1)
    rows: Sequence[Row] | None = None
    try:
        rows = await needs(provider, "session").query(*query)
    except QueryRejected:
        rows = None  # an entry holds what no driver reads back
    if rows is None:
        return found.base.size
    leaves = await hashed(rows)
    if leaves == found.leaves:
        return None
    both = enumerate(zip(leaves, found.leaves, strict=False))
    first = next((i for i, (there, sealed) in both if there != sealed), min(len(leaves), len(found.leaves)))
    return found.base.size + first


def between(after: Place, until: Place) -> dict[str, Any]:
    """The parameters of a statement over a range."""
    return at_place(after) | {f"to_{name}": value for name, value in at_place(until).items()}


async def same_log(provider: Provider, verifiers: Sequence[str], origin: str, kept: Checkpoint) -> str:
    """Why a checkpoint that was kept elsewhere is not one of this log; empty when it is, as far as it goes.

    Raises:
        LogTampered: the log's own checkpoint of that range is not as it was signed.
    """
    if kept.size == 0:
        return ""
    row = await checkpoint_after(provider, kept.size - 1)
    if row is None:
        return f"the log was set back: a checkpoint kept elsewhere covers {kept.size} entries, and the log has fewer"
    found = covered(row, verifiers, origin)
    if found.base.size > kept.size:
        raise LogTampered(None, f"the checkpoint that covers entry {kept.size - 1} was removed")
    if found.base.copy().extend(found.leaves[: kept.size - found.base.size]).root() != kept.root:
        return f"not the log that the checkpoint kept elsewhere covers: its first {kept.size} entries differ"
    return ""
