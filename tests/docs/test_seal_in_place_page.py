"""docs/seal-in-place.md: its commands, on a table that was there before."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from docblocks import Story, blocks

from datavern import Keyring

PAGE = Path(__file__).parents[2] / "docs" / "seal-in-place.md"
PROJECT = """
[datavern]
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
fields.personal_number = { sealed = true, lookup = true, kind = "fodselsnummer" }
"""


async def test_the_page_is_true(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datavern.toml").write_text(PROJECT, encoding="utf-8")
    await (await Keyring.create("file:keys")).close()
    connection = sqlite3.connect("app.db")
    connection.execute("CREATE TABLE users (id TEXT PRIMARY KEY, personal_number TEXT)")
    connection.execute("INSERT INTO users VALUES ('a', '13097248022'), ('b', '10915596784'), ('c', '53097248016')")
    connection.commit()
    connection.close()
    story = Story(PAGE, tmp_path)
    for block in blocks(PAGE):
        await story.run(block)
