"""Whole ranges of the audit log: removed when their retention ended, sampled, exported, proven in a kept checkpoint."""

import contextlib
import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import pytest

from datavern.audit import offline
from datavern.audit.checkpoint import Checkpoint
from datavern.audit.log import AuditLog
from datavern.audit.proof import Proof
from datavern.audit.truncation import Truncation
from datavern.contracts.errors import AuditError, ConfigurationError, LogTampered
from datavern.crypto.signing import Signer

ORIGIN = "datavern/test/main"
SIGNER = Signer("datavern/test", b"\7" * 32)
LATER = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)


@pytest.fixture
async def log(provider):
    log = AuditLog(provider, SIGNER, origin=ORIGIN)
    await log.open()
    return log


async def sealed(log, *counts):
    """Ranges of so many entries each; the ids of all, and the checkpoints."""
    ids, checkpoints = [], []
    for count in counts:
        async with log.provider.transaction() as tx:
            ids += await log.append_many(tx, [{"action": "did", "details": {"n": n}} for n in range(count)])
        checkpoints.append(await log.seal())
    return ids, checkpoints


async def run(log, sql):
    return await log.provider.execute(sql)


async def order(log):
    return [r[0] for r in await log.provider.query("SELECT entry_id FROM datavern_audit ORDER BY era, stamp, seq")]


# ---- retention ------------------------------------------------------------------------------------------------------


async def test_old_ranges_go_and_what_remains_proves_itself(log):
    ids, (first, second, third) = await sealed(log, 3, 4, 5)
    record = await log.truncate(dt.datetime.fromisoformat(third.at))
    assert (record.size, record.root, record.origin) == (7, second.root, ORIGIN)
    assert await order(log) == ids[7:]
    report = await log.verify(since=third)
    assert (report.ok, report.entries, report.truncated, report.rollback_checked) == (True, 5, 7, True)
    assert (await log.verify(since=first)).ok  # a checkpoint from before the removal is still one of this log
    assert (await log.verify(since=second.note)).rollback_checked
    for position in range(7, 12):
        proof = await log.prove(ids[position])
        assert (proof.position, proof.verify(SIGNER.verifier).size) == (position, 12)
    with pytest.raises(AuditError, match="no entry of that id"):
        await log.prove(ids[0])
    await sealed(log, 2)
    assert (await log.verify()).entries == 7
    assert (await log.truncate(dt.datetime.fromisoformat(third.at))).size == 7  # nothing more to remove
    assert (await log.truncate(LATER)).size == 14
    assert await order(log) == []
    assert (await log.verify()).ok
    await sealed(log, 1)
    report = await log.verify()
    assert (report.ok, report.entries, report.truncated) == (True, 1, 14)


async def test_an_empty_log_and_a_young_one_lose_nothing(log):
    assert await log.truncate(LATER) is None
    await log.seal()
    assert await log.truncate(LATER) is None
    ids, _ = await sealed(log, 3)
    assert await log.truncate(dt.datetime(2020, 1, 1, tzinfo=dt.UTC)) is None
    assert await order(log) == ids
    with pytest.raises(ConfigurationError, match="time zone"):
        await log.truncate(dt.datetime(2020, 1, 1))  # noqa: DTZ001  (that is what is refused)


async def test_unsealed_entries_are_never_removed(log):
    ids, _ = await sealed(log, 2)
    late = await log.append(log.provider, action="late")
    await log.truncate(LATER)
    assert await order(log) == [late]
    assert late not in ids
    assert (await log.verify()).unsealed == 1


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE datavern_audit SET action = 'other' WHERE entry_id = '{4}'",
        "DELETE FROM datavern_audit WHERE entry_id = '{4}'",
        "UPDATE datavern_audit_checkpoints SET seq = seq - 1 WHERE size = 7",
    ],
)
async def test_what_was_changed_is_not_swept_away(log, sql):
    ids, _ = await sealed(log, 3, 4, 5)
    await run(log, sql.format(*ids))
    before = await order(log)
    with pytest.raises(LogTampered, match="nothing from here on is removed"):
        await log.truncate(LATER)
    assert await order(log) == before[3:]  # the first range was whole, and is gone


async def test_removing_without_the_key_is_found(log):
    ids, _ = await sealed(log, 3, 4)
    await log.truncate(dt.datetime.fromisoformat((await log.seal()).at))
    for sql, says in (
        ("DELETE FROM datavern_audit", "removed since it was sealed"),
        ("UPDATE datavern_audit_truncations SET size = 7", "not what its note says"),
        ("UPDATE datavern_audit_truncations SET note = 'x'", "a signed note"),
        ("DELETE FROM datavern_audit_truncations", "removed since it was sealed"),
    ):
        await run(log, sql)
        report = await log.verify()
        assert not report.ok
        assert any(says in p.reason for p in report.problems), (sql, report.problems)
    other = Truncation.sign(Signer("other", b"\1" * 32), origin=ORIGIN, size=7, root=b"\0" * 32, at="x")
    await run(log, f"INSERT INTO datavern_audit_truncations (size, at, note) VALUES (7, 'x', '{other.note}')")
    assert any("no trusted key" in p.reason for p in (await log.verify()).problems)
    assert ids


async def test_a_record_of_another_log_or_of_more_than_there_is(log):
    await sealed(log, 3)
    for record in (
        Truncation.sign(SIGNER, origin="datavern/other", size=3, root=b"\0" * 32, at="x"),
        Truncation.sign(SIGNER, origin=ORIGIN, size=3, root=b"\0" * 32, at="x"),
        Truncation.sign(SIGNER, origin=ORIGIN, size=9, root=b"\0" * 32, at="x"),
        Truncation.sign(SIGNER, origin=ORIGIN, size=2, root=b"\0" * 32, at="x"),
    ):
        await run(log, "DELETE FROM datavern_audit_truncations")
        values = f"({record.size}, 'x', '{record.note}')"
        await run(log, f"INSERT INTO datavern_audit_truncations (size, at, note) VALUES {values}")
        assert not (await log.verify()).ok
        with contextlib.suppress(LogTampered):
            await log.truncate(LATER)
    assert len(await order(log)) == 3


async def test_a_removal_that_fails_in_the_middle_is_called_again(log, provider, monkeypatch):
    ids, _ = await sealed(log, 3, 4, 5)
    real, calls = SIGNER.sign_note, iter((True, False))

    class Failing:
        verifier = SIGNER.verifier

        @staticmethod
        def sign_note(text):
            if next(calls):
                return real(text)
            raise RuntimeError("the disk is full")

    broken = AuditLog(provider, Failing(), origin=ORIGIN)
    with pytest.raises(RuntimeError):
        await broken.truncate(LATER)
    assert await order(log) == ids[3:]
    assert (await log.verify()).ok
    assert (await log.truncate(LATER)).size == 12


# ---- a sample -------------------------------------------------------------------------------------------------------


async def test_a_sample_of_a_sound_log(log):
    assert (await log.verify(sample=10)).ok
    _, (*_, last) = await sealed(log, 3, 4, 5)
    report = await log.verify(sample=1)
    assert report.ok
    assert report.sampled in {3, 4, 5}
    assert report.entries == report.sampled
    report = await log.verify(sample=1000, since=last)
    assert (report.ok, report.sampled, report.entries, report.rollback_checked) == (True, 12, 12, True)
    await log.append(log.provider, action="late")
    await log.truncate(dt.datetime.fromisoformat(last.at))
    report = await log.verify(sample=1000)
    assert (report.ok, report.sampled, report.truncated, report.unsealed) == (True, 5, 7, 1)
    with pytest.raises(ConfigurationError, match="sample is 0"):
        await log.verify(sample=0)


@pytest.mark.parametrize(
    ("sql", "always"),
    [
        ("UPDATE datavern_audit SET action = 'other' WHERE entry_id = '{5}'", False),
        ("UPDATE datavern_audit_checkpoints SET at = 'x' WHERE size = 7", False),
        ("DELETE FROM datavern_audit WHERE entry_id = '{5}'", True),  # a count tells
        ("DELETE FROM datavern_audit WHERE entry_id IN ('{10}', '{11}')", True),  # cut off
        ("UPDATE datavern_audit_checkpoints SET root = leaves WHERE size = 12", True),  # the last one
    ],
)
async def test_what_a_sample_finds(log, sql, always):
    ids, _ = await sealed(log, 3, 4, 5)
    await run(log, sql.format(*ids))
    assert not (await log.verify(sample=1000)).ok
    reports = [await log.verify(sample=1) for _ in range(60)]
    assert any(not report.ok for report in reports)  # missed by all with a chance of (2/3)^60
    if always:
        assert not any(report.ok for report in reports)


async def test_a_sample_finds_a_log_that_was_set_back(log):
    ids, (first, second) = await sealed(log, 3, 4)
    await run(log, "DELETE FROM datavern_audit_checkpoints WHERE size = 7")
    for entry in ids[3:]:
        await run(log, f"DELETE FROM datavern_audit WHERE entry_id = '{entry}'")
    assert (await log.verify(sample=5)).ok
    assert not (await log.verify(sample=5, since=second)).ok
    assert (await log.verify(sample=5, since=first)).ok
    with pytest.raises(LogTampered, match="set back"):
        await log.seal(published=second)
    assert (await log.seal(published=first)).size == 3


# ---- proofs and exports, verified by somebody else ------------------------------------------------------------------


async def test_every_entry_proves_itself_in_every_later_checkpoint(log):
    ids, checkpoints = await sealed(log, 1, 3, 4, 9)
    for checkpoint in checkpoints:
        for position, entry in enumerate(ids[: checkpoint.size]):
            proof = await log.prove(entry, within=checkpoint.text)
            assert (proof.position, proof.checkpoint.size) == (position, checkpoint.size)
            assert proof.verify(SIGNER.verifier)
            answer = offline.verify_proof(proof.to_json(), SIGNER.verifier, checkpoint.text)
            assert answer.startswith(f"VALID: entry {position} of {ORIGIN}")
    with pytest.raises(AuditError, match="younger than that checkpoint"):
        await log.prove(ids[-1], within=checkpoints[0])
    forged = Checkpoint.sign(SIGNER, origin=ORIGIN, size=8, root=b"\1" * 32, at="x")
    with pytest.raises(LogTampered, match="not the log that the checkpoint covers"):
        await log.prove(ids[0], within=forged)
    ahead = Checkpoint.sign(SIGNER, origin=ORIGIN, size=99, root=b"\1" * 32, at="x")
    with pytest.raises(LogTampered, match="set back"):
        await log.prove(ids[0], within=ahead)


async def test_a_proof_that_was_changed_is_not_valid(log):
    ids, (first, second) = await sealed(log, 3, 4)
    text = (await log.prove(ids[4], within=second)).to_json()
    for change, says in (
        (("did", "undid"), "not the one that the checkpoint covers"),
        (('"position": 4', '"position": 5'), "not the one|longer|shorter"),
        (('"position": 4', '"position": 7'), "does not cover"),
        (('"actor": null', '"actor": 1'), "what no entry holds"),
        (('"seq"', '"sequence"'), "entry is none"),
        (('"version": 1', '"version": 2'), "later version"),
        ((ORIGIN, "datavern/other"), "does not fit|no key"),
    ):
        assert change[0] in text
        with pytest.raises(offline.NotValid, match=says):
            offline.verify_proof(text.replace(*change), SIGNER.verifier)
    with pytest.raises(offline.NotValid, match="ask for the proof in that one"):
        offline.verify_proof(text, SIGNER.verifier, first.text)
    with pytest.raises(offline.NotValid, match="no key of the verifier signed"):
        offline.verify_proof(text, Signer("datavern/test", b"\1" * 32).verifier)
    with pytest.raises(offline.NotValid, match="no public key"):
        offline.verify_proof(text, "nonsense")
    with pytest.raises(offline.NotValid, match="no proof"):
        offline.verify_proof("[]", SIGNER.verifier)


async def exported(log):
    return [json.dumps(line) async for line in log.export()]


async def test_an_export_is_the_log_and_verifies_without_it(log):
    assert await exported(log) == []
    with pytest.raises(offline.NotValid, match="no exported log"):
        offline.verify_export(iter(()), SIGNER.verifier)
    ids, (first, second, third) = await sealed(log, 3, 1200, 5)
    await log.append(log.provider, action="late")
    lines = await exported(log)
    found = [json.loads(line) for line in lines]
    assert [line["entry_id"] for line in found[:-1]] == ids
    assert [line["position"] for line in found[:-1]] == list(range(1208))
    for kept in (None, first.text, second.text, third.text):
        (answer,) = offline.verify_export(iter(lines), SIGNER.verifier, kept)
        assert answer.startswith(f"VALID: {ORIGIN}: 1208 entries")
        assert ("no kept checkpoint" in answer) == (kept is None)
    await log.truncate(dt.datetime.fromisoformat(third.at))
    lines = await exported(log)
    assert len(lines) == 7
    (answer,) = offline.verify_export(iter(lines), SIGNER.verifier, second.text)
    assert "1203 of them removed when their retention ended" in answer
    for spoilt, says in (
        (lines[:-1], "no checkpoint at its end"),
        (lines[1:], "entry 0 was expected"),
        ([lines[0], *lines[2:]], "entry 1203 was expected"),
        ([lines[0], lines[1].replace("did", "undid"), *lines[2:]], "not those that the checkpoint covers"),
        ([lines[0].replace('"truncated": 1203', '"truncated": 1202'), *lines[1:]], "no record of what was removed"),
        (["{", *lines], "line 1 is none"),
    ):
        with pytest.raises(offline.NotValid, match=says):
            offline.verify_export(iter(spoilt), SIGNER.verifier)
    ahead = Checkpoint.sign(SIGNER, origin=ORIGIN, size=1210, root=b"\1" * 32, at="x")
    with pytest.raises(offline.NotValid, match="set back"):
        offline.verify_export(iter(lines), SIGNER.verifier, ahead.text)


async def test_an_entry_that_no_json_holds_ends_the_export(log):
    """Of an engine that keeps any type in any column: what is exported would have to be another value."""
    if log.provider.engine != "sqlite":
        return  # the others refuse it themselves
    await sealed(log, 3)
    await run(log, "UPDATE datavern_audit SET actor = zeroblob(1) WHERE seq = 2")
    with pytest.raises(LogTampered, match="what no entry holds") as caught:
        await exported(log)
    assert caught.value.position == 1


async def test_the_standalone_command_needs_its_files_alone(log, tmp_path):
    ids, (_, kept) = await sealed(log, 3, 4)
    alone = tmp_path / "verify.py"
    alone.write_text(Path(offline.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "verifier.txt").write_text(SIGNER.verifier + "\n", encoding="utf-8")
    proof = await log.prove(ids[1], within=kept)
    assert isinstance(proof, Proof)
    (tmp_path / "proof.json").write_text(proof.to_json(), encoding="utf-8")
    (tmp_path / "log.jsonl").write_text("\n".join(await exported(log)) + "\n", encoding="utf-8")
    (tmp_path / "spoilt.json").write_text(proof.to_json().replace("did", "undid"), encoding="utf-8")
    kept.save(tmp_path / "kept.txt")

    def command(file):
        wanted = ["--verifier", "verifier.txt", "--checkpoint", "kept.txt"]
        # Without the folder of the project on its path: the file alone.
        return subprocess.run(
            [sys.executable, "-I", str(alone), file, *wanted], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    for file, code, says in (
        ("proof.json", 0, "VALID: entry 1"),
        ("log.jsonl", 0, "VALID: datavern/test/main: 7 entries"),
        ("spoilt.json", 1, "NOT VALID: the entry is not the one"),
        ("missing.json", 2, ""),
    ):
        done = command(file)
        assert (done.returncode, done.stdout.startswith(says)) == (code, True), done
        assert "Traceback" not in done.stderr
