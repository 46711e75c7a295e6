"""`datavern seal` and `unseal`, on a database that was there before; killed in the middle too."""

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

from calling import Run, call

from datavern import Keyring

PROJECT = """
[datavern]
organisation = "Eksempel kommune"
ledger = "main"
keyring = "file:keys"

[databases.main]
provider = "sqlite"
path = "app.db"
location = "norway"

[datasets.users]
database = "main"
subject = "id"
legal_basis = "kommuneloven § 1"

[datasets.users.fields]
personal_number = { sealed = true, lookup = true, kind = "fodselsnummer" }
"""
ROWS = 1500


async def made(folder: Path, rows: int) -> None:
    (folder / "datavern.toml").write_text(PROJECT, encoding="utf-8")
    await (await Keyring.create(f"file:{folder / 'keys'}")).close()
    with sqlite3.connect(folder / "app.db") as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE users (id TEXT PRIMARY KEY, personal_number TEXT)")
        connection.executemany("INSERT INTO users VALUES (?, ?)", ((f"u{n}", f"9{n:010}") for n in range(rows)))
    connection.close()


def state(folder: Path) -> tuple[int, int]:
    """How many are sealed, and how many are not."""
    connection = sqlite3.connect(folder / "app.db", timeout=30)
    try:
        connection.execute("BEGIN")  # all of one moment
        names = {row[1] for row in connection.execute("PRAGMA table_info(users)")}
        if "datavern_row" not in names:
            return 0, ROWS
        (done,) = connection.execute("SELECT count(personal_number) FROM users").fetchone()
        if "personal_number_unsealed" not in names:
            return done, 0
        return done, connection.execute("SELECT count(personal_number_unsealed) FROM users").fetchone()[0]
    finally:
        connection.close()


def asked(folder: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        return connection.execute(sql).fetchall()


def test_there_and_back(run: Run, tmp_path: Path):
    asyncio.run(made(tmp_path, 30))
    refused = run("seal", "users.personal_number")
    assert (refused.code, "needs --yes" in refused.told) == (1, True)
    done = run("seal", "users.personal_number", "--yes")
    assert done.code == 0, done.told
    assert "30 values sealed, 30 opened again" in done.said
    assert "backups from before hold the plain values" in done.said
    assert b"90000000012" not in (tmp_path / "app.db").read_bytes()
    again = run("seal", "users.personal_number", "--yes", "--json", "--rewrite", "none")
    assert again.json == {
        "column": "users.personal_number", "rows": 0, "unindexed": 0, "verified": 30, "gone": 0, "dropped": True,
        "rewritten": None,
    }  # fmt: skip
    assert run("unseal", "users.personal_number", "--yes").code == 0
    assert asked(tmp_path, "SELECT max(personal_number) FROM users") == [("90000000029",)]
    for wrong, message in (("users.nothing", "no field is called nothing"), ("users", "DATASET.FIELD")):
        said = run("seal", wrong, "--yes", "--json")
        assert (said.code, message in said.told) == (1, True)


def test_killed_again_and_again_it_arrives(tmp_path: Path):
    asyncio.run(made(tmp_path, ROWS))
    command = [sys.executable, "-m", "datavern", "seal", "users.personal_number", "--yes", "--batch", "20"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DATAVERN_")}
    before = 0
    for wanted in (20, 300, 700):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 250
        while process.poll() is None and time.monotonic() < deadline and state(tmp_path)[0] < wanted:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        done, left = state(tmp_path)
        assert done >= max(wanted, before)
        assert done + left == ROWS
        before = done
    ended = call("seal", "users.personal_number", "--yes", "--json", cwd=tmp_path)
    assert ended.code == 0, ended.told
    assert state(tmp_path) == (ROWS, 0)
    assert asked(tmp_path, "PRAGMA integrity_check") == [("ok",)]
    assert ended.json["verified"] == ROWS
    back = call("unseal", "users.personal_number", "--yes", "--rewrite", "none", cwd=tmp_path)
    assert back.code == 0, back.told
    rows = dict(asked(tmp_path, "SELECT id, personal_number FROM users"))
    assert rows == {f"u{n}": f"9{n:010}" for n in range(ROWS)}


def test_check_tells_of_values_that_a_sealing_has_not_come_to(run: Run, tmp_path: Path):
    asyncio.run(made(tmp_path, 3))
    assert run("seal", "users.personal_number", "--yes", "--rewrite", "none").code == 0
    assert "Everything holds" in run("check").said
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("ALTER TABLE users ADD COLUMN personal_number_unsealed TEXT")
        connection.execute("UPDATE users SET personal_number_unsealed = '90000000001' WHERE id = 'u1'")
    done = run("check", "--json")
    assert done.code == 1
    (wrong,) = [one["detail"] for one in done.json["findings"] if not one["ok"]]
    assert "1 value is in the clear, in personal_number_unsealed: `datavern seal users.personal_number`" in wrong
    assert "90000000001" not in done.said + done.told
