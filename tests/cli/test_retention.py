"""`datavern retention run` and `datavern hold`, on a project with old rows; killed in the middle too."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from datavern import DatabaseManager, Keyring

if TYPE_CHECKING:
    from calling import Run

PROJECT = """
[datavern]
organisation = "Eksempel kommune"
ledger = "main"
keyring = "file:keys"

[databases.main]
provider = "sqlite"
path = "app.db"
location = "norway"

[datasets.visits]
database = "main"
subject = "who"
erasure = "delete"
retention = "2y"
retention_from = "day"
legal_basis = "kommuneloven § 1"

[datasets.visits.fields]
name = { sealed = true, lookup = true }

[datasets.notes]
database = "main"
subject = "who"
retention = "1y"
legal_basis = "kommuneloven § 1"
"""


async def made(folder: Path, rows: int) -> None:
    (folder / "datavern.toml").write_text(PROJECT, encoding="utf-8")
    await (await Keyring.create(f"file:{folder / 'keys'}")).close()
    os.chdir(folder)
    async with DatabaseManager.from_config("datavern.toml") as db:
        await db.prepare("visits")
        people = [
            {"id": f"v{n:05}", "who": f"u{n % 7}", "name": f"Name {n}", "day": "2020-01-01" if n else "2999-01-01"}
            for n in range(rows)
        ]
        await db.personal("visits").insert_many(people)


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    asyncio.run(made(tmp_path, 9))
    return tmp_path


def test_holds_and_a_run(old: Path, run: Run) -> None:
    assert run("hold", "list").said == "No hold stands.\n"
    placed = run("hold", "place", "--dataset", "visits", "--key", "v00001", "--reason", "sak 1", "--json").json
    assert (placed["rows"], placed["dataset"], placed["until"]) == (1, "visits", None)
    found = run("hold", "place", "--dataset", "visits", "--where", "name=Name 2", "--reason", "æøå").said
    assert "1 row held, until it is released." in found
    run("hold", "place", "--subject", "u3", "--reason", "sak", "--until", "2999-12-31")
    listed = run("hold", "list", "--json").json
    assert [(h["subject"], h["dataset"], h["rows"], h["reason"]) for h in listed] == [
        ("u1", "visits", 1, "sak 1"),
        ("u2", "visits", 1, "æøå"),
        ("u3", None, 1, "sak"),
    ]
    assert "2999-12-31" in run("hold", "list").said

    dry = run("retention", "run", "--dry-run")
    assert dry.code == 0
    assert "would end" in dry.said
    assert "main.notes: no retention_from" in dry.said
    assert run("retention", "run", "--dry-run", "--json").json["rows"] == 8
    done = run("retention", "run", "--batch-size", "2", "--json")
    assert done.code == 0
    (visits,) = (one for one in done.json["datasets"] if one["dataset"] == "main.visits")
    assert (visits["rows"], visits["held"], visits["oldest"]) == (5, 3, "2020-01-01")

    assert "released" in run("hold", "release", placed["id"]).said
    assert run("retention", "run", "--dataset", "visits", "--json").json["rows"] == 1
    assert len(run("hold", "list", "--json").json) == 2
    assert len(run("hold", "list", "--all", "--json").json) == 3


def test_an_erasure_that_a_hold_puts_off(old: Path, run: Run) -> None:
    hold = run("hold", "place", "--subject", "u4", "--reason", "tvistesak", "--json").json["id"]
    erased = run("subject", "erase", "u4", "--yes", "--output", "c.json")
    assert erased.code == 0, erased.told
    assert "tvistesak" in erased.said
    released = " ".join(run("hold", "release", hold).said.split())
    assert "The erasure is complete: 1 row that had to stay ended too." in released
    request = released.split("subject certificate ")[1].split("`")[0]
    assert "visits" in run("subject", "certificate", request).said


def test_mistakes(old: Path, run: Run) -> None:
    for arguments, says in (
        (("retention", "run", "--dataset", "visit"), "did you mean visits"),
        (("hold", "place", "--reason", "x"), "a hold is of a subject="),
        (("hold", "place", "--dataset", "visits", "--where", "name", "--reason", "x"), "expected FIELD=VALUE"),
        (("hold", "place", "--subject", "u1", "--reason", "x", "--until", "2001-01-01"), "today or later"),
        (("hold", "release", "nothing"), "no hold of that id"),
    ):
        done = run(*arguments)
        assert done.code == 1
        assert says in " ".join(done.told.split())


def left(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "app.db", timeout=30)) as connection:
        return int(connection.execute("SELECT count(*) FROM visits").fetchone()[0])


def test_killed_in_the_middle_and_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.chdir(tmp_path)
    asyncio.run(made(tmp_path, 2500))
    command = [sys.executable, "-m", "datavern", "retention", "run", "--batch-size", "1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while left(tmp_path) > 2490 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    at = left(tmp_path)
    assert 1 <= at <= 2490  # one, if this process was kept from killing it for as long as the rest took
    done = run("retention", "run", "--json").json
    assert done["rows"] == at - 1
    assert left(tmp_path) == 1
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        told = connection.execute(
            "SELECT sum(json_extract(details, '$.rows')) FROM datavern_audit WHERE action = 'expired'"
        )
        assert told.fetchone()[0] == 2499
