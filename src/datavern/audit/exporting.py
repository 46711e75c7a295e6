"""The log as JSON objects, one for each entry: for files, and for whoever is to verify it without the database.

What comes, in order (FORMAT.md section 9): the record of what was removed, where something was; the entries with their
positions; the checkpoint that covers them.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from datavern.audit.covered import covered
from datavern.audit.entry import COLUMNS
from datavern.audit.ranges import between, checkpoint_of, place_of
from datavern.audit.tables import START, log_of
from datavern.audit.truncation import last_truncation
from datavern.contracts.capabilities import Provider, needs
from datavern.contracts.errors import LogTampered

__all__ = ["export"]

_PAGE: Final = 1000


async def export(provider: Provider, *, origin: str, verifiers: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
    """Every sealed entry that is there, and what proves them. Reads only, page by page, in constant memory.

    What is sealed after the beginning is left to the next export. Nothing is verified here: the reader does that.

    Raises:
        LogTampered: the last checkpoint, or the record of what was removed, is not as it was signed.
    """
    ledger = needs(provider, "ledger")
    log, dialect = log_of(ledger), ledger.dialect
    session = needs(provider, "session")
    head = await session.query_one(*log.last_checkpoint.bind(dialect))
    if head is None:
        return
    last = covered(head, verifiers, origin).checkpoint
    cut = await last_truncation(provider, verifiers, origin)
    position, place, end = 0, START, place_of(head)
    if cut is not None:
        row = await checkpoint_of(provider, cut.size)
        if row is None:
            raise LogTampered(cut.size, "the checkpoint up to which entries were removed is lost")
        whole = covered(row, verifiers, origin).whole
        position, place = cut.size, place_of(row)
        frontier = [base64.b64encode(node).decode() for _, _, node in whole.subtrees()]
        yield {"origin": origin, "truncated": cut.size, "frontier": frontier, "note": cut.note}
    while True:
        session = needs(provider, "session")
        rows = await session.query(*log.range_page.bind(dialect, **between(place, end), most=_PAGE))
        for row in rows:
            entry = {name: row[name] for name in COLUMNS}
            if not all(value is None or isinstance(value, str | int) for value in entry.values()):
                raise LogTampered(position, "a column of the entry holds what no entry holds: verify the log")
            yield {"origin": origin, "position": position, **entry}
            position += 1
        if len(rows) < _PAGE:
            break
        place = place_of(rows[-1])
    yield {"origin": origin, "checkpoint": last.note}
