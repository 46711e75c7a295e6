"""The audit log on SQLite: a page costs what is on it, and holds what comparing whole places would have given it."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest

from datavern import SQLiteProvider
from datavern.audit.log import AuditLog
from datavern.audit.ranges import between
from datavern.audit.tables import Log, at_place, log_of
from datavern.contracts.capabilities import needs
from datavern.crypto.signing import Signer
from datavern.testing.databases import EmptyDatabase

SIGNER = Signer("datavern/test", b"\7" * 32)
STAMPS = (0, 0, 7, -3, 2.5, "text", "tekst", b"bytes", (1 << 63) - 1)  # SQLite keeps any type in any column
PLACES = [(era, stamp, seq) for era in (0, 1, 2, 4) for stamp in (0, 5, 7, "tekst") for seq in (0, 4, 13, 40)]


class _Undone(Exception):
    """Ends a transaction that is to leave nothing."""


@pytest.fixture
async def log(sqlite_database: EmptyDatabase):
    async with sqlite_database.provider() as provider:
        log = AuditLog(provider, SIGNER, origin="datavern/test/main")
        await log.open()
        yield log


async def scattered(log: AuditLog) -> tuple[Any, Log, Log]:
    """A log whose entries stand in several eras under several stamps; its statements, and those over whole places."""
    main: Any = log.provider
    await log.append_many(main, [{"action": "did", "details": {"n": n}} for n in range(36)])
    for seq, (era, stamp) in enumerate(itertools.product((1, 1, 2, 3), STAMPS), 1):
        await main.execute("UPDATE datavern_audit SET era = ?, stamp = ? WHERE seq = ?", [era, stamp, seq])
    ledger = needs(main, "ledger")
    whole = Log(ledger.stamp_type, ledger.stamp_default, ledger.settled, "sqlite_autoincrement")
    return main, log_of(ledger), whole


async def test_a_page_in_parts_is_the_page(log: AuditLog) -> None:
    main, parts, whole = await scattered(log)
    dialect = needs(main, "ledger").dialect

    async def same(name: str, **values: Any) -> list[Any]:
        found = [
            [tuple(row) for row in await main.query(*getattr(of, name).bind(dialect, **values))]
            for of in (parts, whole)
        ]
        assert found[0] == found[1], (name, values)
        return found[0]

    seen = 0
    for place in PLACES:
        for most in (1, 5, 100):
            seen += len(await same("page", **at_place(place), most=most))
            seen += len(await same("keys_page", **at_place(place), most=most))
            seen += len(await same("settled_page", **at_place(place), most=most, current=2))
        seen += (await same("count_after", **at_place(place)))[0][0]
    for place, until in itertools.product(PLACES, PLACES):
        for most in (3, 100):
            seen += len(await same("range_page", **between(place, until), most=most))
    assert seen > 10_000


async def test_a_range_in_parts_is_deleted_whole_and_nothing_else(log: AuditLog) -> None:
    main, parts, whole = await scattered(log)
    dialect = needs(main, "ledger").dialect
    counts = set()
    for place, until in itertools.product(PLACES[::3], PLACES[::2]):
        left = []
        for of in (parts, whole):
            with contextlib.suppress(_Undone):
                async with main.transaction() as tx:
                    await tx.execute(*of.delete_range.bind(dialect, **between(place, until)))
                    left.append([row[0] for row in await tx.query("SELECT seq FROM datavern_audit ORDER BY seq")])
                    raise _Undone
        assert left[0] == left[1], (place, until)
        counts.add(len(left[0]))
    assert len(counts) > 10


@pytest.mark.parametrize("name", ["page", "keys_page", "settled_page", "count_after", "range_page", "delete_range"])
async def test_no_page_reads_what_stands_before_it(log: AuditLog, name: str) -> None:
    """The index leads every step to the place itself, and knows where a range ends."""
    main: SQLiteProvider = log.provider  # type: ignore[assignment]
    ledger = needs(main, "ledger")
    compiled = getattr(log_of(ledger), name).compiled(ledger.dialect)
    plan = [row["detail"] for row in await main.query(f"EXPLAIN QUERY PLAN {compiled.sql}", [1] * len(compiled.names))]
    steps = [step.split("datavern_audit_order ")[1] for step in plan if "datavern_audit_order (" in step]
    ends = ["seq<?", "stamp<?", "era<?"] if name in {"range_page", "delete_range"} else ["", "", ""]
    sought = ["era=? AND stamp=? AND seq>?", "era=? AND stamp>?", "era>?"]
    expected = {f"({s} AND {e})" if e else f"({s})" for s, e in zip(sought, ends, strict=True)}
    assert expected <= set(steps), plan
    assert not [step for step in plan if step.startswith("SCAN datavern_audit")], plan
