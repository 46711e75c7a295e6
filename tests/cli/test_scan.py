"""`datavern scan`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from datavern.testing.people import people

if TYPE_CHECKING:
    from calling import Run


def test_what_is_found_is_told_without_a_value(run: Run, tmp_path: Path) -> None:
    assert run("init").code == 0
    with closing(sqlite3.connect(tmp_path / "main.db")) as raw, raw:
        raw.execute("CREATE TABLE kunder (c1 TEXT, c2 TEXT)")
        raw.executemany("INSERT INTO kunder VALUES (?, ?)", [(p.personal_number, p.email) for p in people(40)])
    told = run("scan")
    assert told.code == 0, told.told
    assert "main.kunder" in told.said
    assert "fodselsnummer" in told.said
    assert 'c1 = { sealed = true, lookup = true, kind = "fodselsnummer" }' in told.said
    as_json = run("scan", "--json", "--fail")
    assert as_json.code == 1
    assert [(f["column"], f["seems"]["kind"]) for f in as_json.json["findings"]] == [
        ("c1", "fodselsnummer"), ("c2", "email"),
    ]  # fmt: skip
    for person in people(40):
        assert person.personal_number not in told.said + as_json.said
        assert person.email not in told.said + as_json.said


def test_nothing_found_and_no_such_database(run: Run, tmp_path: Path) -> None:
    assert run("init").code == 0
    told = run("scan", "--fail")
    assert told.code == 0, told.told
    assert "nothing that the data map does not name" in told.said
    assert "no database is named mian" in run("scan", "-d", "mian").told


def test_a_database_that_does_not_answer(run: Run, tmp_path: Path) -> None:
    assert run("init").code == 0
    with (tmp_path / "datavern.toml").open("a") as file:
        file.write(
            '\n[databases.away]\nprovider = "postgresql"\nurl = "postgresql://x@127.0.0.1:1/x"\nlocation = "norway"\n'
        )
    told = run("scan")
    assert told.code == 1
    assert "Not looked at: away" in told.said
