"""The audit log where `seq` is nobody's primary key: an index fewer to write, and no place for two entries."""

from __future__ import annotations

import pytest

from datavern import ConstraintViolated
from datavern.audit.log import AuditLog
from datavern.audit.streams import PAGE
from datavern.crypto.signing import Signer
from datavern.testing.databases import EmptyDatabase

SIGNER = Signer("datavern/test", b"\7" * 32)
COPY = (
    "INSERT INTO datavern_audit (seq, entry_id, era, stamp, at, action) OVERRIDING SYSTEM VALUE "
    "SELECT seq, 'another', era, stamp, at, 'never done' FROM datavern_audit ORDER BY era, stamp, seq LIMIT 1 OFFSET $1"
)


@pytest.mark.parametrize("position", [0, PAGE - 2, PAGE - 1, PAGE, PAGE + 1])
async def test_an_entry_put_beside_another_is_found_wherever_a_page_ends(
    postgresql_database: EmptyDatabase, position: int
) -> None:
    async with postgresql_database.provider() as pg:
        log = AuditLog(pg, SIGNER, origin="datavern/test/main")
        await log.open()
        async with pg.transaction() as tx:
            await log.append_many(tx, [{"action": "did", "details": {"n": n}} for n in range(PAGE + 3)])
        await log.seal()
        assert (await log.verify()).ok
        with pytest.raises(ConstraintViolated):
            await pg.execute(COPY, [position])
        await pg.execute("DROP INDEX datavern_audit_order")  # as whoever owns the database can
        await pg.execute("CREATE INDEX datavern_audit_order ON datavern_audit (era, stamp, seq)")
        assert await pg.execute(COPY, [position]) == 1
        # Of two entries in one place the index gives the one that was there first: the other one is the page's next.
        database = await pg.query_value("SELECT current_database()")
        await pg.execute(
            f"ALTER DATABASE {database} SET enable_seqscan = off; ALTER DATABASE {database} SET enable_sort = off"
        )
    async with postgresql_database.provider() as pg:
        log = AuditLog(pg, SIGNER, origin="datavern/test/main")
        assert not (await log.verify()).ok
