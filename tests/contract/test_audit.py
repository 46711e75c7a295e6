"""The audit log on every engine: entries commit with their work, sealing waits for whom it must, tampering is found."""

import asyncio
import contextlib
import json
import random
import tracemalloc

import pytest

from datavern.audit.checkpoint import Checkpoint
from datavern.audit.log import AuditLog
from datavern.audit.proof import Proof
from datavern.contracts.errors import AuditError, ConfigurationError, LogTampered
from datavern.contracts.values import actor
from datavern.crypto.signing import Signer

ORIGIN = "datavern/test/main"
moves = pytest.mark.not_on(
    "azuresql", "a changed row gets a new rowversion, and with it a new place: test_a_changed_entry_leaves_its_place"
)
SIGNER = Signer("datavern/test", b"\7" * 32)


@pytest.fixture
async def log(provider):
    log = AuditLog(provider, SIGNER, origin=ORIGIN)
    await log.open()
    return log


async def write(log, count, action="did"):
    """`count` entries, a few to a transaction."""
    ids = []
    for at in range(0, count, 7):
        async with log.provider.transaction() as tx:
            ids += await log.append_many(
                tx, [{"action": action, "details": {"n": n}} for n in range(at, min(at + 7, count))]
            )
    return ids


async def run(log, sql):
    """A statement of somebody who goes past the library."""
    return await log.provider.execute(sql)


async def column(log, sql):
    return [row[0] for row in await log.provider.query(sql)]


async def order(log):
    return await column(log, "SELECT entry_id FROM datavern_audit ORDER BY era, stamp, seq")


# ---- writing --------------------------------------------------------------------------------------------------------


async def test_an_entry_commits_or_rolls_back_with_its_work(log, provider):
    await provider.execute("CREATE TABLE work (id INTEGER PRIMARY KEY)")
    async with provider.transaction() as tx:
        await tx.execute("INSERT INTO work (id) VALUES (1)")
        kept = await log.append(tx, action="kept")
    with contextlib.suppress(RuntimeError):
        async with provider.transaction() as tx:
            await tx.execute("INSERT INTO work (id) VALUES (2)")
            await log.append(tx, action="undone")
            raise RuntimeError("no")
    alone = await log.append(provider, action="alone")
    async with provider.transaction() as tx:
        with contextlib.suppress(RuntimeError):
            async with tx.savepoint():
                await log.append(tx, action="undone inside")
                raise RuntimeError("inner")
        last = await log.append(tx, action="last")
    assert await column(log, "SELECT id FROM work") == [1]
    assert await order(log) == [kept, alone, last]
    assert (await log.seal()).size == 3
    assert (await log.verify()).ok


async def test_every_column_is_kept_as_given(log, provider):
    with actor("case-worker-7"):
        entry_id = await log.append(
            provider,
            action="personal.insert",
            handle="ab" * 16,
            dataset="users",
            details={"fields": ["name", "æøå 🌲", 'quote"\\'], "rows": 2, "nested": {"ok": True, "none": None}},
        )
    other = await log.append(provider, action="x", actor="somebody else")
    rows = await provider.query("SELECT * FROM datavern_audit ORDER BY era, stamp, seq")
    assert rows[0]["entry_id"] == entry_id
    assert [rows[0][c] for c in ("action", "actor", "handle", "dataset")] == [
        "personal.insert", "case-worker-7", "ab" * 16, "users",
    ]  # fmt: skip
    assert json.loads(rows[0]["details"])["fields"] == ["name", "æøå 🌲", 'quote"\\']
    assert rows[1]["entry_id"] == other
    assert (rows[1]["actor"], rows[1]["handle"], rows[1]["details"]) == ("somebody else", None, None)
    assert await log.append_many(provider, []) == []
    await log.seal()
    assert (await log.verify()).ok


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"action": "looked up 13097248022"}, "fødselsnummer"),
        ({"action": "x", "actor": "13097248022"}, "fødselsnummer"),
        ({"action": "x", "details": {"number": "130972 48022"}}, "fødselsnummer"),
        ({"action": "x", "details": {"when": object()}}, "JSON"),
        ({"action": "x", "details": {"n": float("nan")}}, "JSON"),
        ({"action": "a\0b"}, "NUL"),
        ({"action": "a\ud800b"}, "surrogate"),
        ({"action": 5}, "expected text"),
    ],
)
async def test_what_may_not_stand_in_the_log(log, provider, values, says):
    with pytest.raises(ConfigurationError, match=says) as caught:
        await log.append(provider, **values)
    assert "48022" not in str(caught.value)
    assert caught.value.__context__ is None
    assert await order(log) == []


# ---- sealing --------------------------------------------------------------------------------------------------------


async def test_an_empty_log_can_be_sealed(log):
    assert (await log.verify()).checkpoint is None
    first = await log.seal()
    assert (first.size, first.origin) == (0, ORIGIN)
    assert await log.seal() == first
    ids = await write(log, 3)
    second = await log.seal()
    assert second.size == 3
    assert await log.seal() == second
    report = await log.verify(since=first)
    assert (report.ok, report.entries, report.unsealed, report.rollback_checked) == (True, 3, 0, True)
    assert report.checkpoint == second
    assert (await log.prove(ids[0])).position == 0


async def test_what_is_not_sealed_is_counted_and_not_claimed(log, provider):
    await write(log, 10)
    await log.seal()
    await write(log, 4)
    await run(log, "UPDATE datavern_audit SET action = 'other' WHERE seq = (SELECT max(seq) FROM datavern_audit)")
    report = await log.verify()
    assert (report.ok, report.entries, report.unsealed, report.rollback_checked) == (True, 10, 4, False)
    assert (await log.seal()).size == 14


async def test_open_again_and_elsewhere(log, provider):
    await write(log, 5)
    again = AuditLog(provider, SIGNER, origin=ORIGIN)
    await again.open()
    await again.open()
    await write(again, 5)
    assert (await again.seal()).size == 10
    assert await column(log, "SELECT DISTINCT era FROM datavern_audit") == [1]
    assert (await log.verify()).ok


async def test_a_backlog_is_sealed_in_several_checkpoints(log, provider):
    async with provider.transaction() as tx:
        for _ in range(5):
            await log.append_many(tx, [{"action": "bulk", "details": {"n": n}} for n in range(2000)])
    last = await log.seal()
    assert last.size == 10_000
    assert await column(log, "SELECT size FROM datavern_audit_checkpoints ORDER BY size") == [4096, 8192, 10_000]
    report = await log.verify(since=last)
    assert (report.ok, report.entries) == (True, 10_000)
    ids = await order(log)
    for position in (0, 4095, 4096, 9999):
        proof = await log.prove(ids[position])
        assert proof.position == position
        proof.verify(SIGNER.verifier)
    await run(log, f"UPDATE datavern_audit SET details = '{{}}' WHERE entry_id = '{ids[5000]}'")
    (problem,) = (await log.verify()).problems
    assert (problem.position, problem.entry_id) == (5000, ids[5000])


async def test_many_writers_and_several_sealers_at_once(log, provider):
    done = asyncio.Event()
    written = []

    async def writer(number):
        rng = random.Random(number)
        for n in range(12):
            async with provider.transaction() as tx:
                for _ in range(rng.randrange(1, 4)):
                    written.append(await log.append(tx, action=f"writer-{number}", details={"n": n}))
                    await asyncio.sleep(0)

    async def sealer():
        other = AuditLog(provider, SIGNER, origin=ORIGIN)
        sizes = []
        while not done.is_set():
            sizes.append((await other.seal()).size)
            await asyncio.sleep(0)
        assert sizes == sorted(sizes)

    sealers = [asyncio.create_task(sealer()) for _ in range(2)]
    await asyncio.gather(*(writer(n) for n in range(16)))
    done.set()
    await asyncio.gather(*sealers)
    last = await log.seal()
    assert last.size == len(written)
    report = await log.verify(since=last)
    assert (report.ok, report.entries, report.unsealed) == (True, len(written), 0)
    assert sorted(await order(log)) == sorted(written)


async def test_two_sealers_at_once_make_one_chain(log):
    await write(log, 20)
    checkpoints = await asyncio.gather(*(log.seal() for _ in range(5)))
    assert {c.size for c in checkpoints} == {20}
    assert await column(log, "SELECT count(*) FROM datavern_audit_checkpoints") == [1]


async def test_an_open_transaction_keeps_later_entries_unsealed_until_it_ends(log, provider, engine):
    if engine == "sqlite":
        # One writer at a time: while it is open nobody else commits, and sealing sees only what is committed.
        async with provider.transaction() as tx:
            await log.append(tx, action="open")
            assert await order(log) == []
        assert (await log.seal()).size == 1
        return
    async with provider.transaction() as tx:
        early = await log.append(tx, action="early")
        later = await write(log, 3)
        assert (await log.seal()).size == 0
        report = await log.verify()
        assert (report.ok, report.entries, report.unsealed) == (True, 0, 3)
        with pytest.raises(AuditError, match="not sealed yet"):
            await log.prove(later[0])
    async with provider.transaction() as tx:
        await tx.query("SELECT 1")  # reads only: it will never commit an entry, and holds nothing up
        assert (await log.seal()).size == 4
    assert await order(log) == [early, *later]
    assert (await log.verify()).ok


async def test_a_cancelled_sealing_leaves_a_log_that_goes_on(log, provider):
    async with provider.transaction() as tx:
        await log.append_many(tx, [{"action": "bulk"} for _ in range(6000)])
    for delay in (0, 0.001, 0.005, 0.02, 0.05):
        task = asyncio.create_task(log.seal())
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (await log.seal()).size == 6000
    assert (await log.verify()).ok


# ---- tampering ------------------------------------------------------------------------------------------------------

TEXT_COLUMNS = ("entry_id", "at", "action", "actor", "handle", "dataset", "details")


async def sealed(log, sizes=(5, 5, 5)):
    """A log with every column filled, sealed in steps; the ids in order."""
    for size in sizes:
        await log.append_many(
            log.provider,
            [
                {"action": "did", "actor": "a1", "handle": "ab" * 16, "dataset": "users", "details": {"n": n}}
                for n in range(size)
            ],
        )
        await log.seal()
    return await order(log)


async def problems(log, **keywords):
    report = await log.verify(**keywords)
    assert not report.ok
    return [(p.position, p.entry_id, p.reason.split(" ")[0], p.count) for p in report.problems]


@moves
@pytest.mark.parametrize("name", TEXT_COLUMNS)
async def test_one_changed_byte_of_any_column(log, name):
    ids = await sealed(log)
    await run(log, f"UPDATE datavern_audit SET {name} = {name} || 'x' WHERE entry_id = '{ids[7]}'")
    now = (await order(log))[7]
    assert await problems(log) == [(7, now, "changed", 1)]
    report = await log.verify()
    assert (report.entries, report.unsealed) == (14, 0)
    with pytest.raises(LogTampered) as caught:
        report.check()
    assert caught.value.position == 7
    with pytest.raises(LogTampered):
        await log.prove(now)
    (await log.prove(ids[8])).verify(SIGNER.verifier)


@moves
@pytest.mark.parametrize("name", ["actor", "handle", "dataset", "details"])
async def test_null_and_empty_are_not_the_same(log, name):
    ids = await sealed(log)
    await run(log, f"UPDATE datavern_audit SET {name} = NULL WHERE entry_id = '{ids[3]}'")
    assert await problems(log) == [(3, ids[3], "changed", 1)]
    await log.append(log.provider, action="nothing else")
    await log.seal()
    last = (await order(log))[-1]
    await run(log, f"UPDATE datavern_audit SET {name} = '' WHERE entry_id = '{last}'")
    assert await problems(log) == [(3, ids[3], "changed", 1), (15, last, "changed", 1)]


@moves
async def test_a_changed_era_seq_or_stamp_takes_an_entry_out_of_its_place(log, engine):
    ids = await sealed(log)
    await run(log, f"UPDATE datavern_audit SET era = era + 1 WHERE entry_id = '{ids[6]}'")
    assert await problems(log) == [(6, None, "removed", 1)]
    await run(log, f"UPDATE datavern_audit SET era = 0 WHERE entry_id = '{ids[6]}'")
    assert await problems(log) == [(0, ids[6], "stands", 1), (6, None, "removed", 1)]
    await run(log, f"UPDATE datavern_audit SET era = 1 WHERE entry_id = '{ids[6]}'")
    assert (await log.verify()).ok
    await run(log, f"UPDATE datavern_audit SET seq = seq + 1000 WHERE entry_id = '{ids[14]}'")
    assert await problems(log) in ([(14, ids[14], "changed", 1)], [(14, None, "removed", 1)])
    await run(log, f"UPDATE datavern_audit SET seq = seq - 1000 WHERE entry_id = '{ids[14]}'")
    number = "7" if engine == "sqlite" else "'7'::xid8"
    before = await column(log, f"SELECT stamp FROM datavern_audit WHERE entry_id = '{ids[2]}'")
    await run(log, f"UPDATE datavern_audit SET stamp = {number} WHERE entry_id = '{ids[2]}'")
    found = await problems(log)
    assert 2 in {position for position, *_ in found}
    restored = str(before[0]) if engine == "sqlite" else f"'{before[0]}'::xid8"
    await run(log, f"UPDATE datavern_audit SET stamp = {restored} WHERE entry_id = '{ids[2]}'")
    assert (await log.verify()).ok


STAMPED = {
    "postgresql": """
CREATE FUNCTION stamped() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.stamp = pg_current_xact_id(); RETURN NEW; END $$;
CREATE TRIGGER stamped BEFORE UPDATE ON datavern_audit FOR EACH ROW EXECUTE FUNCTION stamped();
"""
}
"""What a rowversion does by itself."""


@pytest.mark.not_on("sqlite", "a stamp is the writer's own there, and stays")
async def test_a_changed_entry_leaves_its_place(log, provider, engine):
    """Azure SQL stamps a row anew when it is changed: the entry is missed where it was, and stands unsealed."""
    if engine in STAMPED:
        await provider.execute(STAMPED[engine])
    ids = await sealed(log)
    await run(log, f"UPDATE datavern_audit SET action = 'x' WHERE entry_id = '{ids[7]}'")
    assert await problems(log) == [(7, None, "removed", 1)]
    assert (await order(log))[-1] == ids[7]
    assert (await log.verify()).unsealed == 1
    await run(log, f"UPDATE datavern_audit SET actor = NULL WHERE entry_id IN ('{ids[0]}', '{ids[14]}')")
    assert [position for position, *_ in await problems(log)] == [0, 7, 14]
    await run(log, "UPDATE datavern_audit SET action = 'y'")
    assert await problems(log) == [(0, None, "removed", 15)]


async def test_removed_entries(log):
    ids = await sealed(log)
    await run(log, f"DELETE FROM datavern_audit WHERE entry_id IN ('{ids[0]}', '{ids[4]}', '{ids[5]}', '{ids[9]}')")
    assert await problems(log) == [
        (0, None, "removed", 1),
        (4, None, "removed", 2),
        (9, None, "removed", 1),
    ]
    assert (await log.verify()).entries == 11


async def test_the_last_sealed_entry_removed_with_unsealed_ones_behind_it(log):
    ids = await sealed(log)
    await write(log, 3)
    await run(log, f"DELETE FROM datavern_audit WHERE entry_id = '{ids[14]}'")
    assert await problems(log) == [(14, None, "removed", 1)]
    assert (await log.verify()).unsealed == 3


async def test_the_tail_cut_off(log):
    ids = await sealed(log)
    kept = await log.seal()
    await run(log, f"DELETE FROM datavern_audit WHERE entry_id IN ('{ids[12]}', '{ids[13]}', '{ids[14]}')")
    assert await problems(log) == [(12, None, "removed", 3)]
    # With the checkpoint that covers them gone too, the log alone does not show it; a checkpoint kept elsewhere does.
    await run(log, f"DELETE FROM datavern_audit WHERE entry_id IN ('{ids[10]}', '{ids[11]}')")
    await run(log, "DELETE FROM datavern_audit_checkpoints WHERE size = 15")
    report = await log.verify()
    assert (report.ok, report.rollback_checked) == (True, False)
    assert await problems(log, since=kept) == [(10, None, "is", 5)]
    assert (await log.verify(since=kept)).rollback_checked
    assert (await log.verify(since=kept.note)).problems[0].position == 10


@moves
async def test_inserted_entries(log):
    ids = await sealed(log)
    seqs = await column(log, "SELECT seq FROM datavern_audit ORDER BY era, stamp, seq")
    await run(
        log,
        "INSERT INTO datavern_audit (seq, entry_id, era, stamp, at, action) "
        f"SELECT {seqs[-1]} + 100, 'forged', 0, stamp, at, action FROM datavern_audit WHERE entry_id = '{ids[7]}'",
    )
    assert await problems(log) == [(0, "forged", "stands", 1)]
    assert (await log.verify()).entries == 15


@moves
async def test_swapped_entries(log):
    ids = await sealed(log)
    place = {
        row["entry_id"]: (row["seq"]) for row in await log.provider.query("SELECT seq, entry_id FROM datavern_audit")
    }
    one, two = ids[6], ids[8]
    await run(log, f"UPDATE datavern_audit SET seq = -1 WHERE entry_id = '{one}'")
    await run(log, f"UPDATE datavern_audit SET seq = {place[one]} WHERE entry_id = '{two}'")
    await run(log, f"UPDATE datavern_audit SET seq = {place[two]} WHERE entry_id = '{one}'")
    assert await problems(log) == [(6, two, "changed", 1), (8, one, "changed", 1)]


async def test_the_whole_log_replaced(log):
    await sealed(log)
    kept = await log.seal()
    await run(log, "DELETE FROM datavern_audit")
    await write(log, 15, action="another story")
    found = await problems(log)
    assert found[0][0] == 0
    assert sum(count for *_, count in found) == 15
    # The checkpoints replaced as well, and sealed anew by somebody who has the signing key.
    await run(log, "DELETE FROM datavern_audit_checkpoints")
    await log.seal()
    assert (await log.verify()).ok
    report = await log.verify(since=kept)
    assert not report.ok
    assert report.rollback_checked
    assert "not the log" in report.problems[0].reason
    assert report.problems[0].position is None


async def test_everything_gone(log):
    await sealed(log)
    kept = await log.seal()
    await run(log, "DELETE FROM datavern_audit")
    assert await problems(log) == [(0, None, "removed", 15)]
    await run(log, "DELETE FROM datavern_audit_checkpoints")
    assert (await log.verify()).ok
    assert await problems(log, since=kept) == [(0, None, "is", 15)]


@moves
async def test_more_problems_than_were_asked_for(log):
    await sealed(log)
    await run(log, "UPDATE datavern_audit SET action = 'x'")
    report = await log.verify(most=4)
    assert [p.position for p in report.problems] == [0, 1, 2, 3]
    assert len((await log.verify()).problems) == 15


# ---- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "position", "says"),
    [
        ("note = note || 'x'", 5, "not as it was signed"),
        ("note = (SELECT c.note FROM datavern_audit_checkpoints c WHERE c.size = 5)", 5, "not what its note says"),
        ("root = (SELECT c.root FROM datavern_audit_checkpoints c WHERE c.size = 5)", 5, "not what its note says"),
        ("at = 'yesterday'", 5, "not what its note says"),
        ("leaves = (SELECT c.leaves FROM datavern_audit_checkpoints c WHERE c.size = 5)", 5, "do not give its root"),
        ("leaves = (SELECT c.frontier FROM datavern_audit_checkpoints c WHERE c.size = 5)", 5, "were changed"),
        ("frontier = (SELECT c.leaves FROM datavern_audit_checkpoints c WHERE c.size = 5)", 5, "were changed"),
        ("previous = 4", 5, "were changed"),
        ("previous = -7", 5, "were changed"),
    ],
)
async def test_a_changed_checkpoint(log, change, position, says):
    await sealed(log)
    await run(log, f"UPDATE datavern_audit_checkpoints SET {change} WHERE size = 10")
    report = await log.verify()
    (problem,) = report.problems
    assert problem.position == position
    assert says in problem.reason
    assert report.entries == 10  # those of the other two


@pytest.mark.parametrize("change", ["note = 'x'", "leaves = frontier", "frontier = leaves"])
async def test_nothing_is_signed_on_top_of_a_changed_checkpoint(log, change):
    await sealed(log)
    await run(log, f"UPDATE datavern_audit_checkpoints SET {change} WHERE size = 15")
    await write(log, 1)
    with pytest.raises(LogTampered):
        await log.seal()
    assert await column(log, "SELECT max(size) FROM datavern_audit_checkpoints") == [15]


async def test_a_lost_checkpoint_makes_only_its_own_range_unverifiable(log):
    ids = await sealed(log)
    await run(log, "DELETE FROM datavern_audit_checkpoints WHERE size = 10")
    await run(log, f"UPDATE datavern_audit SET action = 'x' WHERE entry_id = '{ids[12]}'")
    report = await log.verify()
    assert [(p.position, p.count) for p in report.problems] == [(5, 5), (12, 1)]
    assert report.entries == 9


async def test_checkpoints_of_two_histories_that_the_right_key_signed_are_not_one(log):
    """Of a log that was sealed, set back, changed and sealed anew: each checkpoint is true, and so is each entry."""
    (_, second, *_) = await sealed(log, (5,))
    checkpoints = "datavern_audit_checkpoints"
    await run(log, f"CREATE TABLE kept AS SELECT * FROM {checkpoints}")
    await run(log, f"DELETE FROM {checkpoints}")
    await run(log, f"UPDATE datavern_audit SET actor = 'another' WHERE entry_id = '{second}'")
    await log.seal()
    await sealed(log, (3,))
    assert (await log.verify()).ok
    await run(log, f"DELETE FROM {checkpoints} WHERE size = 5")
    await run(log, f"INSERT INTO {checkpoints} SELECT * FROM kept")
    await run(log, f"UPDATE datavern_audit SET actor = 'a1' WHERE entry_id = '{second}'")
    (problem,) = (await log.verify()).problems
    assert "contradict each other at size 5" in problem.reason


async def test_a_checkpoint_of_another_key_or_another_log_counts_for_nothing(log, provider):
    await sealed(log, (5,))
    kept = await log.seal()
    stranger = Signer("datavern/test", b"\6" * 32)
    with pytest.raises(LogTampered):
        await AuditLog(provider, stranger, origin=ORIGIN).seal()
    assert not (await AuditLog(provider, stranger, origin=ORIGIN).verify()).ok
    assert (await AuditLog(provider, stranger, origin=ORIGIN, verifiers=[SIGNER.verifier]).verify()).ok
    assert not (await AuditLog(provider, SIGNER, origin="datavern/test/other").verify()).ok
    forged = Checkpoint.sign(stranger, origin=ORIGIN, size=kept.size, root=kept.root, at=kept.at)
    elsewhere = Checkpoint.sign(SIGNER, origin="datavern/test/other", size=kept.size, root=kept.root, at=kept.at)
    for wrong in (forged, elsewhere, "no checkpoint"):
        with pytest.raises(LogTampered):
            await log.verify(since=wrong)


async def test_a_sealer_led_astray_is_found_out(log):
    """The places in a checkpoint's row are not signed: changed, they would have entries left out or repeated."""
    await sealed(log)
    new = await write(log, 4)
    (true,) = await log.provider.query("SELECT era, stamp, seq FROM datavern_audit_checkpoints WHERE size = 15")
    (another,) = await log.provider.query(f"SELECT stamp, seq FROM datavern_audit WHERE entry_id = '{new[1]}'")
    for place in (
        "stamp = stamp + 100000",
        "era = 99999",  # what comes after would never be sealed
        "seq = 0, stamp = 0",
        f"stamp = {int(another['stamp'])}, seq = {another['seq']}",
    ):
        await run(log, f"UPDATE datavern_audit_checkpoints SET {place} WHERE size = 15")
        with pytest.raises(LogTampered, match="its place is another"):
            await log.seal()
        report = await log.verify()
        assert (report.ok, report.entries, report.unsealed) == (False, 15, 4)
        assert "sealed entries end elsewhere" in report.problems[0].reason
        back = f"era = {true['era']}, stamp = {int(true['stamp'])}, seq = {true['seq']}"
        await run(log, f"UPDATE datavern_audit_checkpoints SET {back} WHERE size = 15")
    assert (await log.seal()).size == 19
    assert (await log.verify()).ok
    await run(log, f"DELETE FROM datavern_audit WHERE entry_id = '{new[3]}'")
    with pytest.raises(LogTampered, match="not as it was sealed"):
        await log.seal()


# ---- proofs ---------------------------------------------------------------------------------------------------------


async def test_every_entry_proves_itself_offline(log):
    ids = await sealed(log, (1, 6, 3, 9))
    for position, entry_id in enumerate(ids):
        proof = Proof.from_json((await log.prove(entry_id)).to_json())
        assert proof.position == position
        assert proof.entry["entry_id"] == entry_id
        checkpoint = proof.verify(SIGNER.verifier)
        assert checkpoint.size in {1, 7, 10, 19}
    with pytest.raises(AuditError, match="no entry of that id"):
        await log.prove("0191e0a4-7c2f-7b3a-9c51-2f6d8f1e0a01")


# ---- eras -----------------------------------------------------------------------------------------------------------


async def test_data_brought_to_another_server_begins_a_new_era(log, provider, engine):
    ids = await write(log, 5)
    kept = await log.seal()
    unsealed = await write(log, 3)
    # As after a restore on another server: its identity differs, and here its commit order begins anew below the old.
    await run(log, "UPDATE datavern_audit_eras SET \"identity\" = 'the server before'")
    if engine == "postgresql":
        await run(log, "UPDATE datavern_audit SET stamp = (stamp::text::bigint + 1000000)::text::xid8 WHERE seq > 5")
    early = await write(log, 2)  # by a process that was connected before anybody noticed
    there = AuditLog(provider, SIGNER, origin=ORIGIN)
    await there.open()
    late = await write(log, 4)  # by the process that did not open again
    assert await column(log, "SELECT era FROM datavern_audit_eras ORDER BY era") == [1, 2]
    last = await there.seal()
    assert last.size == 14
    report = await log.verify(since=kept)
    assert (report.ok, report.entries, report.unsealed) == (True, 14, 0)
    found = await order(log)
    assert found[:5] == ids
    assert sorted(found[5:10]) == sorted(unsealed + early)
    assert found[10:] == late
    await there.open()
    assert await column(log, "SELECT max(era) FROM datavern_audit_eras") == [2]


async def test_entries_that_a_new_server_took_before_the_era_began_are_not_lost(log, provider, engine):
    ids = await write(log, 5)
    await log.seal()
    await run(log, "UPDATE datavern_audit_eras SET \"identity\" = 'the server before'")
    early = await write(log, 2)  # under the old era, with stamps below what is sealed there
    stamp = "-1" if engine == "sqlite" else "'1'"
    await run(log, f"UPDATE datavern_audit SET stamp = {stamp} WHERE seq > 5")
    assert (await log.seal()).size == 7
    assert await column(log, "SELECT era FROM datavern_audit ORDER BY era, stamp, seq") == [1] * 5 + [2] * 2
    report = await log.verify()
    assert (report.ok, report.entries) == (True, 7)
    assert await order(log) == ids + early


# ---- many, and at random --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_done_to_a_sealed_log_is_found_where_it_was_done(log, seed):
    rng = random.Random(seed)
    ids = await sealed(log, [rng.randrange(1, 30) for _ in range(4)])
    await write(log, rng.randrange(3))
    changed = set(rng.sample(range(len(ids)), rng.randrange(4)))
    removed = set(rng.sample(range(len(ids)), rng.randrange(6))) - changed
    if not changed | removed:
        assert (await log.verify()).ok
        return
    for position in changed:
        await run(log, f"UPDATE datavern_audit SET actor = 'x' WHERE entry_id = '{ids[position]}'")
    for position in removed:
        await run(log, f"DELETE FROM datavern_audit WHERE entry_id = '{ids[position]}'")
    report = await log.verify()
    found = {p.position + n for p in report.problems for n in range(p.count)}
    # A changed entry beside a removed one may be told as the other: the places count.
    assert found == changed | removed
    assert report.entries == len(ids) - len(changed) - len(removed)


async def test_a_long_stretch_removed_from_the_middle(log, provider):
    async with provider.transaction() as tx:
        await log.append_many(tx, [{"action": "bulk", "details": {"n": n}} for n in range(12_000)])
    await log.seal()
    await run(log, "DELETE FROM datavern_audit WHERE seq > 3000 AND seq <= 9500")
    assert await problems(log) == [(3000, None, "removed", 6500)]
    assert (await log.verify()).entries == 5500


async def test_verifying_takes_the_same_memory_whatever_the_size(log, provider):
    async def peak():
        tracemalloc.start()
        report = await log.verify()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert report.ok
        return most

    async def grow(count):
        async with provider.transaction() as tx:
            await log.append_many(tx, [{"action": "bulk", "details": {"n": n}} for n in range(count)])
        await log.seal()

    for _ in range(3):
        await grow(5000)  # so that checkpoints and pages do not end together, now and later
    few = max([await peak() for _ in range(3)])  # a batch may come while the one before is still being read
    await grow(25_000)  # 2.7 times as many: memory that grows with them would be 2.7 times as much
    peaks = [await peak()]
    while min(peaks) >= 1.6 * few and len(peaks) < 4:  # a page may be freed a little later than the next one comes
        peaks.append(await peak())
    assert min(peaks) < 1.6 * few
