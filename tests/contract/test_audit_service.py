"""`db.audit`: one log in each transactional database, spoken to as one."""

import contextlib

import pytest

import datavern
from datavern import AuditError, ConfigurationError, LogTampered, SQLiteProvider
from datavern.audit.checkpoint import Checkpoint
from datavern.audit.proof import Proof


@pytest.fixture
async def two(managed, database, tmp_path):
    """A manager of two databases: the ledger, and another that has a log of its own."""
    other = SQLiteProvider(tmp_path / "other.db", name="other", location="norway")
    async with managed(databases={"main": database.provider(location="norway"), "other": other}) as db:
        yield db


async def test_usage(db):
    await db.audit.seal()
    with datavern.actor("case-worker-9"):
        first = await db.audit.record("user_login", subject="test-user", actor="case-worker-7")
        async with db["main"].transaction() as tx:
            second = await db.audit.record("case_closed", subject="test-user", transaction=tx)
        with contextlib.suppress(RuntimeError):
            async with db["main"].transaction() as tx:
                await db.audit.record("undone", subject="somebody new", transaction=tx)
                raise RuntimeError("no")
    checkpoint = await db.audit.seal()
    report = await db.audit.verify(since=checkpoint)
    assert (report.ok, report.problems, report.rollback_checked) == (True, (), True)
    assert report.entries == checkpoint.size
    proof = await db.audit.prove(first)
    verifier = db.keys._keyring.signer.verifier
    assert Proof.from_json(proof.to_json()).verify(verifier).size <= checkpoint.size
    rows = await db["main"].query("SELECT * FROM datavern_audit ORDER BY era, stamp, seq")
    mine = {row["entry_id"]: row for row in rows}
    assert mine[first]["actor"] == "case-worker-7"
    assert mine[second]["actor"] == "case-worker-9"
    assert mine[first]["handle"] == mine[second]["handle"] != "test-user"
    assert "undone" not in {row["action"] for row in rows}
    assert "test-user" not in str([tuple(row) for row in rows])


async def test_subjects_are_named_by_handles_and_numbers_refused(db):
    ids = [await db.audit.record("looked_up", subject=subject) for subject in (42, "42", "43")]
    rows = {
        row["entry_id"]: row["handle"] for row in await db["main"].query("SELECT entry_id, handle FROM datavern_audit")
    }
    assert rows[ids[0]] == rows[ids[1]] != rows[ids[2]]
    with pytest.raises(ConfigurationError, match="fødselsnummer"):
        await db.audit.record("looked_up", subject="13097248022")


async def test_an_entry_goes_to_the_log_of_its_database(two):
    here = await two.audit.record("here")
    there = await two.audit.record("there", database="other", subject="test-user")
    async with two["other"].transaction() as tx:
        inside = await two.audit.record("inside", transaction=tx, subject="somebody new")
        with pytest.raises(ConfigurationError, match="the transaction is one of other"):
            await two.audit.record("confused", transaction=tx, database="main")
    nowhere = await two.audit.record("without a log of its own", database="cache")
    names = {
        name: [row[0] for row in await two[name].query("SELECT entry_id FROM datavern_audit ORDER BY seq")]
        for name in ("main", "other")
    }
    assert names == {"main": [here, nowhere], "other": [there, inside]}
    with pytest.raises(AuditError, match="not sealed"):
        await two.audit.prove(inside)
    await two.audit.seal()
    assert (await two.audit.prove(inside)).position == 1
    with pytest.raises(AuditError, match="no log has"):
        await two.audit.prove("0191e0a4-7c2f-7b3a-9c51-2f6d8f1e0a01")
    stranger = SQLiteProvider(":memory:", name="stranger", location="norway")
    async with stranger, stranger.transaction() as tx:
        with pytest.raises(ConfigurationError, match="no audit log"):
            await two.audit.record("lost", transaction=tx)


async def test_several_logs_as_one(two, tmp_path):
    for n in range(3):
        await two.audit.record("here", details={"n": n})
        await two.audit.record("there", database="other", details={"n": n})
    checkpoint = await two.audit.seal()
    assert checkpoint.origin.endswith("/main")
    assert [c.origin.rpartition("/")[2] for c in checkpoint.others] == ["other"]
    checkpoint.save(tmp_path / "kept")
    kept = Checkpoint.load(tmp_path / "kept")
    assert kept == checkpoint
    await two.audit.record("later", database="other")
    for since in (kept, kept.text):
        report = await two.audit.verify(since=since)
        assert (report.ok, report.entries, report.unsealed, report.rollback_checked) == (True, 6, 1, True)
    assert not (await two.audit.verify()).rollback_checked
    assert not (await two.audit.verify(since=kept.note)).rollback_checked  # of one log only
    assert report.checkpoint == checkpoint

    await two["other"].execute("UPDATE datavern_audit SET action = 'x' WHERE seq = 2")
    report = await two.audit.verify()
    assert [(p.log, p.position, p.reason) for p in report.problems] == [("other", 1, "changed since it was sealed")]
    assert str(report.problems[0]) == "other: entry 1: changed since it was sealed"
    with pytest.raises(LogTampered, match="another log"):
        foreign = Checkpoint(**{**{f: getattr(kept, f) for f in ("size", "root", "at", "note")}, "origin": "elsewhere"})
        await two.audit.verify(since=foreign)


async def test_a_log_set_back_with_its_file(two, tmp_path):
    """The whole database of a log is replaced by an older copy of itself: only a checkpoint kept elsewhere shows it."""
    await two.audit.record("first", database="other")
    await two.audit.seal()
    await two["other"].close()
    old = (tmp_path / "other.db").read_bytes()
    await two["other"].connect()
    await two.audit.record("second", database="other")
    kept = await two.audit.seal()
    await two["other"].close()
    for name in ("other.db-wal", "other.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "other.db").write_bytes(old)
    await two["other"].connect()
    assert (await two.audit.verify()).ok
    report = await two.audit.verify(since=kept)
    assert [(p.log, p.position, p.count) for p in report.problems] == [("other", 1, 1)]
    assert "set back" in report.problems[0].reason


async def test_text_that_no_driver_reads_back(two):
    """SQLite keeps any bytes as text: the verifier says which entry they are in, and goes on."""
    for n in range(20):
        await two.audit.record("there", database="other", details={"n": n})
    await two.audit.seal()
    await two["other"].execute("UPDATE datavern_audit SET details = CAST(x'ff' AS TEXT) WHERE seq = 8")
    await two["other"].execute("UPDATE datavern_audit SET action = 'x' WHERE seq = 13")
    await two["other"].execute("UPDATE datavern_audit SET actor = x'00ff' WHERE seq = 15")
    report = await two.audit.verify()
    assert [p.position for p in report.problems] == [7, 12, 14]
    assert {p.reason for p in report.problems} == {"changed since it was sealed"}


async def test_numbers_that_are_none(two):
    """SQLite keeps text in a column of numbers, if somebody puts it there."""
    for _ in range(3):
        await two.audit.record("there", database="other")
        kept = await two.audit.seal()
    await two["other"].execute("UPDATE datavern_audit_checkpoints SET seq = 'x' WHERE size = 3")
    report = await two.audit.verify()  # a hint to the sealer, which nobody signs, and which it does not follow:
    assert ["sealed entries end elsewhere" in p.reason for p in report.problems] == [True]
    with pytest.raises(LogTampered, match="no numbers"):
        await two.audit.seal()
    await two["other"].execute("UPDATE datavern_audit_checkpoints SET size = 'x' WHERE size = 3")
    report = await two.audit.verify(since=kept)
    assert [(p.position, p.reason.split(":")[0]) for p in report.problems] == [
        (2, "a checkpoint was changed"),
        (2, "is lost, though the checkpoint kept elsewhere covers it"),
    ]
    await two["other"].execute("UPDATE datavern_audit_checkpoints SET previous = 'x', leaves = 'x' WHERE size = 2")
    await two["other"].execute("UPDATE datavern_audit SET stamp = 'x' WHERE seq = 1")
    report = await two.audit.verify()
    assert [p.position for p in report.problems] == [0, 1, 1]  # from 1 on nothing is known any more


async def test_databases_that_call_themselves_the_same_are_not_mixed_up(managed, tmp_path):
    """The manager's names count: two SQLite providers are both called sqlite where nobody says otherwise."""
    databases = {name: SQLiteProvider(tmp_path / f"{name}.db", location="norway") for name in ("main", "other")}
    async with managed(databases=databases) as db:
        async with db["other"].transaction() as tx:
            await db.audit.record("there", transaction=tx, database="other")
            with pytest.raises(ConfigurationError, match="the transaction is one of other"):
                await db.audit.record("confused", transaction=tx, database="main")
        assert await db["other"].query_value("SELECT count(*) FROM datavern_audit") == 1
        stranger = SQLiteProvider(tmp_path / "stranger.db", location="norway")
        async with stranger, stranger.transaction() as tx:
            with pytest.raises(ConfigurationError, match="no audit log"):
                await db.audit.record("lost", transaction=tx)
