"""keys: status, rotate, verify; and what subject shredded and check say of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from datavern.crypto import remembered

if TYPE_CHECKING:
    from calling import Run


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Nobody else is there who would have to be given time to hear of a rotation."""
    monkeypatch.setattr(remembered, "FRESH", 0.05)


def test_rotated_and_shredded(run: Run, project: Path):
    # The demo erased somebody.
    found = run("keys", "status", "--json")
    assert found.code == 0, found.told
    assert (found.json["epoch"], found.json["epochs"], found.json["rotation"]) == (1, [1], None)
    assert found.json["due"] is not None
    assert "since somebody was erased" in run("keys", "status").said
    assert "due by" in run("check").said
    assert run("subject", "erase", "p-000003", "--yes").code == 0
    told = run("subject", "shredded", "p-000003")
    assert (told.code, told.said) == (1, "")
    assert "not shredded yet" in told.told
    assert "datavern keys rotate" in told.told
    done = run("keys", "rotate")
    assert done.code == 0, done.told
    assert "The key of epoch 1 is destroyed" in done.said
    assert not (project / "keys" / "epoch-1.json").exists()
    assert (project / "keys-copies" / "key-store-epoch-2.datavern").exists()
    shredded = run("subject", "shredded", "p-000003", "--output", "shredded.json")
    assert shredded.code == 0, shredded.told
    assert "Certificate: shredded" in shredded.said
    assert run("subject", "verify", "shredded.json").code == 0
    assert run("keys", "verify").said.endswith("every one of them unwraps.\n")
    assert run("keys", "verify", "--json").json["ok"] is True
    assert "no: nobody was erased" in run("keys", "status").said
    assert "none is due" in run("check").said
    assert run("audit", "verify").code == 0


def test_a_rotation_that_is_overdue_is_told(run: Run, project: Path):
    with closing(sqlite3.connect(project / "main.db")) as database:
        database.execute("UPDATE datavern_keys SET destroyed_at = '2020-01-01T00:00:00Z' WHERE state = 'destroyed'")
        database.commit()
    done = run("keys", "status")
    assert done.code == 1
    assert "OVERDUE since 2020-01-31" in done.said
    checked = run("check")
    assert checked.code == 1
    assert "2020-01-31" in checked.said


def test_a_key_that_does_not_unwrap_is_named_and_not_shown(run: Run, project: Path):
    with closing(sqlite3.connect(project / "main.db")) as database:
        database.execute("UPDATE datavern_keys SET subject_tag = x'00' WHERE key_id = (SELECT min(key_id) FROM "
                         "datavern_keys WHERE state = 'living' AND subject_tag IS NOT NULL)")  # fmt: skip
        database.commit()
    done = run("keys", "verify")
    assert done.code == 1
    assert "a wrapped key did not open" in done.said
    assert "Problems found: 1." in done.said


def test_a_rotation_that_cannot_end_says_what_it_waits_for(run: Run, project: Path):
    (project / "file").write_text("in the way")
    done = run("keys", "rotate", "--copy", "file")
    assert done.code == 1
    assert "could not be copied" in done.told
    assert "to epoch 2, at confirm" in run("keys", "status").said
    assert "is not at its end" in run("check").said
    assert run("keys", "rotate").code == 0


def test_a_recovery_holds_shredding_up_until_it_is_ended(run: Run, project: Path):
    made = run("keys", "export-recovery", "held", "--threshold", "2", "--shares", "3", "--json")
    assert made.code == 0, made.told
    id_ = made.json["id"]
    assert (project / "held").stat().st_mode & 0o077 == 0
    files = sorted(path.name for path in (project / "held").iterdir())
    assert files == [f"recovery-{id_}.json", "share-1.txt", "share-2.txt", "share-3.txt"]
    assert run("keys", "export-recovery", "held").code == 1
    assert "2 of 3 shares" in run("keys", "status").said
    assert run("subject", "erase", "p-000003", "--yes").code == 0
    assert run("keys", "rotate").code == 0
    told = run("subject", "shredded", "p-000003")
    assert told.code == 1
    assert id_ in told.told
    assert run("keys", "end-recovery", id_).code == 1  # nobody is there to answer for it
    assert run("keys", "end-recovery", "unknown", "--yes").code == 1
    assert run("keys", "end-recovery", id_, "--yes", "--actor", "kari").code == 0
    statement = run("subject", "shredded", "p-000003", "--json").json["certificate"]
    assert [(r["id"], r["said"]) for r in statement["recoveries"]] == [(id_, "kari")]


def test_a_lost_ring_is_made_again_from_its_shares(run: Run, project: Path):
    assert run("keys", "export-recovery", "held").code == 0
    verifier = (project / "keys" / "verifier.txt").read_text()
    (project / "keys").rename(project / "lost")
    assert run("keys", "status").code == 1
    (file,) = (project / "held").glob("recovery-*.json")
    one, two = project / "held" / "share-1.txt", project / "held" / "share-3.txt"
    few = run("keys", "import-recovery", str(file), str(one))
    assert few.code == 1
    assert "takes 2 different shares" in few.told
    done = run("keys", "import-recovery", str(file), str(one), str(two))
    assert done.code == 0, done.told
    assert (project / "keys" / "verifier.txt").read_text() == verifier
    assert run("keys", "verify").code == 0
    assert run("keys", "import-recovery", str(file), str(one), str(two)).code == 1  # never overwritten
    assert run("keys", "rotate").code == 0


def test_a_lost_key_store_is_put_back_from_its_copy(run: Run, project: Path):
    assert run("keys", "rotate").code == 0
    copy = str(project / "keys-copies" / "key-store-epoch-2.datavern")
    assert "never overwritten" in run("keys", "restore", copy).told
    with closing(sqlite3.connect(project / "main.db")) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in (
            "store",
            "keys",
            "handles",
            "lookup_keys",
            "tombstones",
            "rotations",
            "recoveries",
            "epochs",
            "erasures",
            "erasure_order",
            "heard",
        ):
            assert f"datavern_{name}" in tables
            database.execute(f"DELETE FROM datavern_{name}")
        database.commit()
    done = run("keys", "restore", copy)
    assert done.code == 0, done.told
    assert "is in main again" in done.said
    assert run("keys", "verify").code == 0
    assert run("subject", "access", "p-000001", "--json").json["success"] is True
