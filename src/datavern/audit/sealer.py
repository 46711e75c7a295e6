"""Eras and sealing: settled entries, in order, into the tree (FORMAT.md sections 2 to 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from datavern.audit.checkpoint import Checkpoint, Signs
from datavern.audit.covered import covered
from datavern.audit.entry import leaf_hashes
from datavern.audit.merkle import Frontier
from datavern.audit.tables import ENTRIES, START, at_place, log_of
from datavern.contracts.capabilities import Provider, Transaction, needs
from datavern.contracts.errors import AuditError, ConstraintViolated, LogTampered, ProviderError
from datavern.contracts.values import Row, timestamp

__all__ = ["MOST", "Era", "begin_era", "hashed", "seal"]

MOST: Final = 4096
"""Entries that one checkpoint adds at the most: what the verifier and a proof hold in memory of the tree."""
_SLICE: Final = 256
"""Entries that are hashed before other tasks get a turn: about half a millisecond."""

_PATIENCE: Final = 3.0
"""Seconds that the beginning of an era waits for those who write entries just now: others wait behind it meanwhile."""
_HURRY: Final = 0.1
"""The same for what can wait until another time."""


class _Head(NamedTuple):
    checkpoint: Checkpoint
    frontier: Frontier
    place: tuple[int, int, int]
    highest_seq: int


class Era(NamedTuple):
    """What is written now belongs to.

    Attributes:
        number: the era's.
        by_default: an insert that gives no era takes this one, in every process and from the moment it begins.
    """

    number: int
    by_default: bool


async def begin_era(provider: Provider, *, opening: bool = False) -> Era:
    """The era of what is written now. Starts a new one when this is another server than the last era's. Idempotent.

    Where an engine can give a column another default at any time, that is the era, and inserts need not look it up.

    Args:
        provider: whose log.
        opening: a log that was made before the column had a default gets one. Where that may not be, since the table is
            somebody else's or is written to just now, its inserts look the era up, and the next opening tries again.

    Raises:
        AuditError: a new era is due, and the log's table cannot be told of it.
    """
    ledger = needs(provider, "ledger")
    session = needs(provider, "session")
    sets: Any = ledger if getattr(ledger, "sets_defaults", False) else None
    identity = await ledger.identity()
    log, dialect = log_of(ledger), ledger.dialect
    while True:
        last = await session.query_one(*log.last_era.bind(dialect))
        default = None if sets is None else await sets.default_of(session, ENTRIES, "era")
        known = None
        if last is not None and last["identity"] == identity:
            known = Era(int(last["era"]), by_default=default == last["era"])
            if sets is None or known.by_default or (default is None and not opening):
                return known
        try:
            async with needs(provider, "transactions").transaction(isolation="read committed" if sets else None) as tx:
                if sets is not None:  # from here on nobody else begins an era, and no entry is on its way
                    await sets.set_default(tx, ENTRIES, "era", default or 1, patience=_HURRY if known else _PATIENCE)
                era = await _begun(tx, provider, identity)
                if sets is not None and era != (default or 1):
                    await sets.set_default(tx, ENTRIES, "era", era, patience=_PATIENCE)
            return Era(era, by_default=sets is not None)
        except ConstraintViolated:
            continue  # another process began it just now
        except ProviderError as error:
            if known is not None:
                return known
            if last is None or sets is None or error.code is None:
                raise
            failed = error
        raise AuditError(
            f"{provider.name}: the data came from another server, so the audit log begins a new era, and the table "
            f"{ENTRIES} could not be told of it: {failed}. Open the log, or seal it, once as the role that owns it and "
            "while no transaction that has written an entry stays open; until then nothing is sealed"
        )


async def _begun(tx: Transaction, provider: Provider, identity: str) -> int:
    ledger = needs(provider, "ledger")
    log, dialect = log_of(ledger), ledger.dialect
    last = await tx.query_one(*log.last_era.bind(dialect))
    if last is not None and last["identity"] == identity:
        return int(last["era"])
    era = 1 if last is None else int(last["era"]) + 1
    await tx.execute(*log.insert_era.bind(dialect, era=era, identity=identity, at=timestamp()))
    head = await tx.query_one(*log.last_checkpoint.bind(dialect))
    if head is not None:
        place = {"era": head["era"], "stamp": head["stamp"], "seq": head["seq"]}
        await tx.execute(*log.adopt.bind(dialect, new_era=era, highest_seq=head["highest_seq"], **place))
    return era


async def seal(
    provider: Provider,
    signer: Signs,
    *,
    origin: str,
    verifiers: Sequence[str],
    published: Checkpoint | None = None,
    era: Era | None = None,
) -> Checkpoint:
    """Cover every settled entry with a checkpoint, and give the last one.

    Safe in several processes at once, and safe to run again after any failure: each checkpoint is one insert that
    succeeds once. Constant memory.

    Args:
        provider: whose log.
        signer: signs the checkpoints.
        origin: the log's name in them.
        verifiers: the public keys that are trusted.
        published: a checkpoint of the log that was kept elsewhere, read before this is called.
        era: what `begin_era` gave just now.

    Raises:
        LogTampered: the last checkpoint is not as it was signed, or the log is not the one, or goes less far than the
            one, that was published. Nothing is signed on top of it.
    """
    era = await begin_era(provider) if era is None else era
    if published is not None:
        from datavern.audit.ranges import same_log  # noqa: PLC0415  (it is built on this module)

        reason = await same_log(provider, verifiers, origin, published)
        if reason:
            raise LogTampered(None, reason)
    head = await _head(provider, verifiers, origin)
    while True:
        ledger = needs(provider, "ledger")
        log, dialect = log_of(ledger), ledger.dialect
        session = needs(provider, "session")
        place = START if head is None else head.place
        rows = await session.query(*log.settled_page.bind(dialect, **at_place(place), current=era.number, most=MOST))
        if head is not None and not rows:
            return head.checkpoint
        row, grown = await _next(head, rows, signer, origin)
        try:
            await session.execute(*log.insert_checkpoint.bind(dialect, **row))
        except ConstraintViolated:
            head = await _head(provider, verifiers, origin)  # another sealer was first: go on from its checkpoint
            continue
        head = grown
        if len(rows) < MOST:
            return head.checkpoint


async def _next(head: _Head | None, rows: Sequence[Row], signer: Signs, origin: str) -> tuple[dict[str, Any], _Head]:
    """The checkpoint that covers `rows` as well, as a row of the table, and as the next head."""
    base = Frontier() if head is None else head.frontier
    leaves = await hashed(rows)
    frontier = base.copy().extend(leaves)
    root = frontier.root()
    at = timestamp()
    checkpoint = Checkpoint.sign(signer, origin=origin, size=frontier.size, root=root, at=at)
    place = START if head is None else head.place
    highest = 0 if head is None else head.highest_seq
    if rows:
        place = (rows[-1]["era"], rows[-1]["stamp"], rows[-1]["seq"])
        highest = max(highest, *(row["seq"] for row in rows))
    row = {
        "size": frontier.size,
        "previous": -1 if head is None else base.size,
        "root": root,
        "at": at,
        "note": checkpoint.note,
        "frontier": bytes(base),
        "leaves": b"".join(leaves),
        "era": place[0],
        "stamp": place[1],
        "seq": place[2],
        "highest_seq": highest,
    }
    return row, _Head(checkpoint, frontier, place, highest)


async def _head(provider: Provider, verifiers: Sequence[str], origin: str) -> _Head | None:
    ledger = needs(provider, "ledger")
    row = await needs(provider, "session").query_one(*log_of(ledger).last_checkpoint.bind(ledger.dialect))
    if row is None:
        return None
    found = covered(row, verifiers, origin)
    hints = [row[name] for name in ("era", "stamp", "seq", "highest_seq")]
    if not all(isinstance(hint, int) for hint in hints):
        raise LogTampered(
            None, f"the checkpoint of size {found.checkpoint.size} was changed: its places are no numbers"
        )
    head = _Head(found.checkpoint, found.whole, (hints[0], hints[1], hints[2]), hints[3])
    await _check_place(provider, verifiers, origin, head, found.leaves)
    return head


async def _check_place(
    provider: Provider, verifiers: Sequence[str], origin: str, head: _Head, leaves: Sequence[bytes]
) -> None:
    """Refuse to go on from a place that is not the last sealed entry's: what it passed over would never be sealed."""
    if not leaves:
        return
    ledger = needs(provider, "ledger")
    log = log_of(ledger)
    entry = await needs(provider, "session").query_one(*log.by_place.bind(ledger.dialect, **at_place(head.place)))
    if entry is None:
        from datavern.audit.truncation import last_truncation  # noqa: PLC0415  (it is built on this module)

        cut = await last_truncation(provider, verifiers, origin)
        if cut is not None and cut.size >= head.checkpoint.size:
            return  # removed, when its retention ended
    elif leaf_hashes([entry]) == [leaves[-1]]:
        return
    raise LogTampered(
        head.checkpoint.size - 1, "the last sealed entry is not as it was sealed, or its place is another"
    )


async def hashed(rows: Sequence[Row]) -> list[bytes]:
    """The leaf hashes of the rows, without keeping the event loop for long."""
    if len(rows) <= _SLICE:
        return leaf_hashes(rows)
    leaves: list[bytes] = []
    for at in range(0, len(rows), _SLICE):
        leaves += leaf_hashes(rows[at : at + _SLICE])
        await asyncio.sleep(0)
    return leaves
