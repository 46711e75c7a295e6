"""The end of old entries: whole sealed ranges are removed, and what remains proves itself as before (FORMAT.md 8)."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from datavern.audit.checkpoint import Signs
from datavern.audit.covered import Covered, covered
from datavern.audit.merkle import HASH
from datavern.audit.ranges import between, checkpoint_after, checkpoint_of, compared, place_of
from datavern.audit.tables import log_of
from datavern.contracts.capabilities import Provider, needs
from datavern.contracts.errors import ConfigurationError, ConstraintViolated, LogTampered
from datavern.contracts.values import Row, timestamp
from datavern.crypto.notes import open_note

__all__ = ["Truncation", "last_truncation", "truncate"]

_KIND: Final = "truncated"
_LINES: Final = 5


@dataclass(frozen=True, slots=True)
class Truncation:
    """The signed record that the first entries of a log were removed when their retention ended.

    Attributes:
        origin: which log it is of.
        size: how many entries were removed, from the first.
        root: the Merkle tree hash over them, as their checkpoint has it.
        at: when, RFC 3339 in UTC.
        note: the signed note.
    """

    origin: str
    size: int
    root: bytes
    at: str
    note: str

    @classmethod
    def sign(cls, signer: Signs, *, origin: str, size: int, root: bytes, at: str) -> Self:
        """Make one."""
        text = f"{origin}\n{_KIND}\n{size}\n{base64.b64encode(root).decode()}\ntime {at}\n"
        return cls(origin, size, root, at, signer.sign_note(text))

    @classmethod
    def read(cls, note: str, verifiers: Iterable[str], *, origin: str) -> Self:
        """Read one whose signature fits.

        Raises:
            LogTampered: no trusted key signed it, or it is of another log, or none at all.
        """
        lines = open_note(note, verifiers).split("\n")[:-1]
        root = b""
        if len(lines) == _LINES and lines[1] == _KIND and re.fullmatch("0|[1-9][0-9]{0,18}", lines[2]):
            try:
                root = base64.b64decode(lines[3], validate=True)
            except (binascii.Error, ValueError):
                root = b""
        if len(root) != HASH or not lines[4].startswith("time "):
            raise LogTampered(None, "not a record of what was removed")
        if lines[0] != origin:
            raise LogTampered(None, f"the record of what was removed is of another log: {lines[0]}")
        return cls(origin, int(lines[2]), root, lines[4].removeprefix("time "), note)


async def last_truncation(provider: Provider, verifiers: Sequence[str], origin: str) -> Truncation | None:
    """What was removed so far, or None.

    Raises:
        LogTampered: the record is not as it was signed.
    """
    ledger = needs(provider, "ledger")
    row = await needs(provider, "session").query_one(*log_of(ledger).last_truncation.bind(ledger.dialect))
    if row is None:
        return None
    found = Truncation.read(row["note"] if isinstance(row["note"], str) else "", verifiers, origin=origin)
    if (row["size"], row["at"]) != (found.size, found.at):
        raise LogTampered(None, "the record of what was removed is not what its note says")
    return found


async def truncate(
    provider: Provider, signer: Signs, *, origin: str, verifiers: Sequence[str], before: dt.datetime
) -> Truncation | None:
    """Remove the entries that were sealed before a moment, range by range; the record of all that was ever removed.

    A range is what one checkpoint added. It goes only when its entries are still what was sealed, so that nothing that
    was changed is swept away with it; its checkpoint stays, with the hashes of its entries. Each range and its record
    are one transaction: after a failure it is simply called again. Constant memory.

    Args:
        provider: whose log.
        signer: signs the records.
        origin: the log's name in its checkpoints.
        verifiers: the public keys that are trusted.
        before: ranges that were sealed before it go.

    Raises:
        ConfigurationError: `before` has no time zone.
        LogTampered: a range is not as it was sealed. It and all behind it stay.
    """
    if before.tzinfo is None:
        raise ConfigurationError("before: expected a moment with its time zone: datetime(…, tzinfo=UTC)")
    limit = timestamp(before)
    record = await last_truncation(provider, verifiers, origin)
    row = None if record is None else await checkpoint_of(provider, record.size)
    whole = b"" if row is None else bytes(covered(row, verifiers, origin).whole)
    if record is not None and row is None:
        raise LogTampered(record.size, "the checkpoint up to which entries were removed is lost")
    size = 0 if record is None else record.size
    while (row_after := await checkpoint_after(provider, size)) is not None:
        found = covered(row_after, verifiers, origin)
        if found.checkpoint.at >= limit:
            break
        if bytes(found.base) != whole:
            raise LogTampered(size, "the checkpoint that covers it was removed, or contradicts the one before it")
        differs = await compared(provider, place_of(row), row_after, found)
        if differs is not None:
            raise LogTampered(differs, "not as it was sealed: nothing from here on is removed; verify the log")
        record = await _remove(provider, signer, origin, row, row_after, found)
        row, size, whole = row_after, found.whole.size, bytes(found.whole)
    return record


async def _remove(  # noqa: PLR0917  (a step of `truncate`)
    provider: Provider, signer: Signs, origin: str, before: Row | None, row: Row, found: Covered
) -> Truncation:
    ledger = needs(provider, "ledger")
    log, dialect = log_of(ledger), ledger.dialect
    size, root = found.whole.size, found.checkpoint.root
    record = Truncation.sign(signer, origin=origin, size=size, root=root, at=timestamp())
    try:
        async with needs(provider, "transactions").transaction() as tx:
            await tx.execute(*log.insert_truncation.bind(dialect, size=size, at=record.at, note=record.note))
            await tx.execute(*log.drop_truncations.bind(dialect, below=size))
            await tx.execute(*log.delete_range.bind(dialect, **between(place_of(before), place_of(row))))
    except ConstraintViolated:
        pass  # another process removed it just now
    return record
