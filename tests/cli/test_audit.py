"""audit: seal, verify, prove; and what it says of a log that was tampered with."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from calling import Run


def tamper(project: Path, statement: str) -> None:
    with closing(sqlite3.connect(project / "main.db")) as database:
        assert database.execute(statement).rowcount == 1
        database.commit()


def test_the_log_of_the_demo_verifies(run: Run, project: Path):
    done = run("audit", "verify", "--since", "checkpoint.txt")
    assert done.code == 0, done.told
    assert "each as it was when it was sealed" in done.said
    told = run("audit", "verify", "--json").json
    assert told["ok"] is True
    assert told["rollback_checked"] is False
    assert told["problems"] == []
    assert "give a kept checkpoint with --since" in run("audit", "verify").said


def test_new_entries_are_not_sealed_until_they_are(run: Run, project: Path):
    assert run("consent", "grant", "p-000001", "newsletter").code == 0
    assert "not sealed yet" in run("audit", "verify").said
    sealed = run("audit", "seal", "--output", "new.txt", "--json")
    assert sealed.code == 0, sealed.told
    assert (project / "new.txt").read_text(encoding="utf-8") == sealed.json["checkpoint"]
    assert "not sealed yet" not in run("audit", "verify", "--since", "new.txt").said
    assert run("audit", "seal", "--output", "new.txt").code == 1
    assert "datavern/" in run("audit", "seal").said


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE datavern_audit SET actor = 'case-worker-8' WHERE seq = 5",
        "UPDATE datavern_audit SET handle = NULL WHERE seq = 5",
        "DELETE FROM datavern_audit WHERE seq = 5",
    ],
)
def test_a_log_that_was_tampered_with_is_pointed_at(run: Run, project: Path, statement: str):
    tamper(project, statement)
    done = run("audit", "verify", "--since", "checkpoint.txt")
    assert done.code == 1
    assert " 4 " in done.said
    assert "The log is NOT what was sealed." in done.said
    told = run("audit", "verify", "--json")
    assert told.code == 1
    assert [p["position"] for p in told.json["problems"]] == [4]


def test_a_log_that_was_set_back_is_seen_with_a_checkpoint_alone(run: Run, project: Path):
    shutil.copy(project / "main.db", project / "before.db")
    assert run("consent", "grant", "p-000001", "newsletter").code == 0
    assert run("audit", "seal", "--output", "later.txt").code == 0
    for name in ("main.db-wal", "main.db-shm"):
        (project / name).unlink(missing_ok=True)
    shutil.copy(project / "before.db", project / "main.db")
    assert run("audit", "verify").code == 0
    done = run("audit", "verify", "--since", "later.txt")
    assert done.code == 1, done.said


def test_what_is_no_checkpoint_is_said_to_be_none(run: Run, project: Path):
    for file, words in (
        ("datavern.toml", "not a checkpoint"),
        ("nothing", "checkpoint nothing: no such file"),
        ("main.db", "it is not text"),
    ):
        done = run("audit", "verify", "--since", file)
        assert done.code == 1
        assert words in done.told


def test_an_entry_is_proven_offline(run: Run, project: Path, tmp_path_factory: pytest.TempPathFactory):
    entry = run("audit", "list", "--last", "3", "--json").json["main"][-1]
    done = run("audit", "prove", entry["entry_id"], "--output", "proof.json")
    assert done.code == 0, done.told
    assert json.loads(run("audit", "prove", entry["entry_id"]).said)["entry"] == entry

    court = tmp_path_factory.mktemp("court")  # has the proof and the public key, and nothing else
    for file in (project / "proof.json", project / "keys" / "verifier.txt"):
        (court / file.name).write_bytes(file.read_bytes())
    arguments = ("audit", "verify-proof", "proof.json", "--verifier", "verifier.txt")
    checked = run(*arguments, cwd=court)
    assert checked.code == 0, checked.told
    assert entry["entry_id"] in checked.said
    assert run(*arguments, "--json", cwd=court).json["entry"] == entry

    text = (court / "proof.json").read_text(encoding="utf-8")
    (court / "proof.json").write_text(text.replace(entry["at"], entry["at"].replace("T", " ")), encoding="utf-8")
    changed = run(*arguments, cwd=court)
    assert changed.code == 1
    assert "NOT VALID" in changed.said
    assert run(*arguments, "--json", cwd=court).json["valid"] is False


def test_an_export_and_a_proof_are_verified_with_what_an_auditor_kept(
    run: Run, project: Path, tmp_path_factory: pytest.TempPathFactory
):
    assert run("consent", "grant", "p-000001", "newsletter").code == 0
    assert run("audit", "seal", "--output", "later.txt").code == 0
    first = run("audit", "list", "--last", "10000", "--json").json["main"][-1]["entry_id"]
    done = run("audit", "prove", first, "--within", "later.txt", "--output", "proof.json")
    assert done.code == 0, done.told
    done = run("audit", "export", "--output", "log.jsonl")
    assert done.code == 0, done.told
    lines = (project / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert f"{len(lines) - 1:,} entries are in log.jsonl" in done.said
    assert run("audit", "export").said.splitlines() == lines
    assert run("audit", "export", "--output", "log.jsonl").code == 1
    assert run("audit", "export", "--log", "nowhere", "--output", "none.jsonl").code == 1
    assert not (project / "none.jsonl").exists()

    court = tmp_path_factory.mktemp("court")
    for file in (project / "proof.json", project / "log.jsonl", project / "later.txt", project / "keys/verifier.txt"):
        (court / file.name).write_bytes(file.read_bytes())
    for file in ("proof.json", "log.jsonl"):
        verify = [sys.executable, "-m", "datavern.audit.offline"]  # which is what datavern-verify runs
        command = [*verify, file, "--verifier", "verifier.txt", "--checkpoint", "later.txt"]
        done = subprocess.run(command, cwd=court, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout[:6]) == (0, "VALID:"), done


def test_a_sample_is_enough_for_every_day(run: Run, project: Path):
    done = run("audit", "verify", "--sample", "5", "--since", "checkpoint.txt")
    assert done.code == 0, done.told
    assert "drawn at random" in done.said
    assert run("audit", "verify", "--sample", "5", "--json").json["sampled"] >= 5
    assert run("audit", "verify", "--sample", "0").code == 2


def test_old_entries_end_and_what_remains_is_whole(run: Run, project: Path):
    assert "needs --yes" in run("audit", "truncate", "--before", "2999-01-01").told
    assert "nothing was removed" in run("audit", "truncate", "--before", "2020-01-01", "--yes").said
    done = run("audit", "truncate", "--before", "2999-01-01", "--yes")
    assert done.code == 0, done.told
    assert run("audit", "seal").code == 0
    done = run("audit", "verify", "--since", "checkpoint.txt")
    assert done.code == 0, done.told
    assert "removed when their retention ended, by a signed record" in done.said
    told = run("audit", "verify", "--json").json
    assert (told["ok"], told["entries"]) == (True, 1)  # that of the removal


def test_what_cannot_be_proven_is_said(run: Run, project: Path):
    assert run("consent", "grant", "p-000001", "newsletter").code == 0
    newest = run("audit", "list", "--last", "1", "--json").json["main"][0]["entry_id"]
    unsealed = run("audit", "prove", newest)
    assert unsealed.code == 1
    assert "seal" in unsealed.told
    unknown = run("audit", "prove", "no-such-entry")
    assert unknown.code == 1
    assert unknown.said == ""
    assert "not a proof" in run("audit", "verify-proof", "certificate.json").told


def test_the_newest_entries_are_listed(run: Run, project: Path):
    done = run("audit", "list", "--last", "2")
    assert done.code == 0, done.told
    assert "case-worker-7" in done.said
    assert len(run("audit", "list", "--last", "2", "--json").json["main"]) == 2
