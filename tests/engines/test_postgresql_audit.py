"""PostgreSQL: an audit entry's era is its column's default, changed when an era begins, looked up where it is not."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from datavern import AuditError, PostgreSQLProvider
from datavern.audit import sealer
from datavern.audit.log import AuditLog
from datavern.crypto.signing import Signer

SIGNER = Signer("datavern/test", b"\7" * 32)
ELSEWHERE = "UPDATE datavern_audit_eras SET identity = 'the server before'"


async def opened(provider: Any) -> AuditLog:
    log = AuditLog(provider, SIGNER, origin="datavern/test/main")
    await log.open()
    return log


def looks_up(log: AuditLog) -> bool:
    return "datavern_audit_eras" in log.entry("asked").statement(log.provider)[0]


async def eras(log: AuditLog) -> list[int]:
    return [row[0] for row in await log.provider.query("SELECT era FROM datavern_audit ORDER BY seq")]


@pytest.fixture
async def log(postgresql: Any) -> AuditLog:
    return await opened(postgresql)


@pytest.fixture
async def older(log: AuditLog) -> AuditLog:
    """A log as it was made before the column had a default, and a process that opened it then."""
    await log.provider.execute("ALTER TABLE datavern_audit ALTER COLUMN era DROP DEFAULT")
    log._begun(await sealer.begin_era(log.provider))
    assert looks_up(log)
    return log


@pytest.fixture
async def plain(postgresql_database: Any, postgresql: Any, log: AuditLog) -> AsyncIterator[Any]:
    """A provider whose role may write to the log, and does not own it."""
    role = f"plain_{uuid.uuid4().hex[:8]}"
    await postgresql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'plain'")
    await postgresql.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    try:
        url = urlsplit(postgresql_database.settings["url"])
        url = url._replace(netloc=f"{role}:plain@{url.hostname}:{url.port}")
        async with PostgreSQLProvider.from_url(url.geturl(), name="plain", location="norway") as found:
            yield found
    finally:
        await postgresql.execute(f"DROP OWNED BY {role}")
        await postgresql.execute(f"DROP ROLE {role}")


async def test_a_new_log_looks_no_era_up(log: AuditLog):
    assert not looks_up(log)
    await log.append(log.provider, action="did")
    await log.append_many(log.provider, [{"action": "did"}, {"action": "did"}])
    assert await log.provider.execute("SELECT 1", audit=log.entry("did")) == 0
    assert await eras(log) == [1] * 4
    await log.seal()
    assert (await log.verify()).entries == 4


async def test_a_log_of_before_gets_its_default_when_it_is_opened(older: AuditLog):
    await older.append(older.provider, action="did")
    await older.seal()
    assert looks_up(older)  # a sealing keeps no writer waiting
    again = await opened(older.provider)
    assert not looks_up(again)
    for log in (older, again, older, again):  # processes of both kinds at once
        await log.append(log.provider, action="did")
    await older.seal()
    assert not looks_up(older)
    assert await eras(older) == [1] * 5
    report = await again.verify()
    assert (report.ok, report.entries) == (True, 5)


async def test_a_writer_keeps_no_opening_waiting(older: AuditLog):
    async with older.provider.transaction() as tx:
        await older.append(tx, action="open")
        again = await opened(older.provider)
        assert looks_up(again)
        await again.append(again.provider, action="did")
    assert not looks_up(await opened(older.provider))
    assert await eras(older) == [1, 1]


async def test_who_does_not_own_the_table_looks_the_era_up(older: AuditLog, plain: Any):
    log = await opened(plain)
    assert looks_up(log)
    await log.append(plain, action="did")
    assert (await log.seal()).size == 1
    assert not looks_up(await opened(older.provider))
    assert not looks_up(await opened(plain))


async def test_an_era_begins_for_every_process_or_for_none(log: AuditLog, plain: Any, monkeypatch: pytest.MonkeyPatch):
    other = await opened(plain)
    await log.append(log.provider, action="did")
    await log.provider.execute(ELSEWHERE)
    monkeypatch.setattr(sealer, "_PATIENCE", 0.2)
    with pytest.raises(AuditError, match="42501.*as the role that owns it"):
        await other.seal()
    async with log.provider.transaction() as tx:
        await log.append(tx, action="open")
        with pytest.raises(AuditError, match="55P03.*while no transaction"):
            await log.seal()
    assert await log.provider.query_value("SELECT max(era) FROM datavern_audit_eras") == 1
    assert (await log.seal()).size == 2
    for one in (log, other):
        assert not looks_up(one)
        await one.append(one.provider, action="did")
    assert await eras(log) == [1, 1, 2, 2]
    assert (await other.seal()).size == 4
    assert (await log.verify()).ok


async def test_a_default_of_another_server_is_put_right(log: AuditLog):
    """As where the tables' definition was copied from a server before its era began, and the rows later."""
    await log.provider.execute("INSERT INTO datavern_audit_eras SELECT 2, identity, at FROM datavern_audit_eras")
    await log.seal()
    assert not looks_up(log)
    await log.append(log.provider, action="did")
    assert await eras(log) == [2]
