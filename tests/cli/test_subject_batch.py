"""subject erase --file: many people, each once, each with a certificate."""

from __future__ import annotations

import json
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from calling import Run

LEAVERS = ["p-000001", "p-000002", "p-000003"]


def ids(project: Path, *lines: str) -> str:
    (project / "leavers.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "leavers.txt"


def test_the_people_of_a_file_are_erased_and_run_again_nobody_is_erased_twice(run: Run, project: Path):
    file = ids(project, "\ufeffp-000001", "", " p-000002 ", "p-000003", "p-000001", "nobody")
    done = run("subject", "erase", "--file", file, "--yes", "--json")
    assert done.code == 0, done.told
    told = done.json
    assert (told["people"], told["erased"], told["repeated"], told["waiting"]) == (4, 4, 1, [])
    folder = project / "leavers-certificates"
    files = sorted(folder.glob("*.json"))
    assert len(files) == 4
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not any(who in path.name for who in LEAVERS for path in files)
    whose = {json.loads(path.read_text(encoding="utf-8"))["certificate"]["subject"] for path in files}
    assert whose == {*LEAVERS, "nobody"}
    assert run("subject", "verify", str(files[0])).code == 0
    for who in LEAVERS:
        assert "Nothing was found" in run("subject", "access", who).said
    before = {path.name: path.read_bytes() for path in files}
    files[0].unlink()
    again = run("subject", "erase", "--file", file, "--yes")
    assert again.code == 0
    assert "4 people erased" in again.said
    assert "1 of the lines named somebody again" in again.said
    assert {path.name for path in folder.glob("*.json")} == set(before)
    assert all((folder / name).read_bytes() == text for name, text in before.items() if name != files[0].name)


def test_one_who_waits_is_told_by_the_line_and_the_others_are_erased(run: Run, project: Path):
    (path,) = project.glob("*.db")
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE fines (id INTEGER PRIMARY KEY, person TEXT REFERENCES people (id))")
        database.execute("INSERT INTO fines VALUES (1, 'p-000002')")
        database.commit()
    done = run("subject", "erase", "--file", ids(project, *LEAVERS), "--yes")
    assert done.code == 1
    assert "Line 2 waits" in done.said
    assert "main.people: ConstraintViolated" in done.said
    assert "2 people erased" in done.said
    assert len(list((project / "leavers-certificates").glob("*.json"))) == 2
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM fines")
        database.commit()
    again = run("subject", "erase", "--file", "leavers.txt", "--yes", "--json")
    assert (again.code, again.json["erased"]) == (0, 3)
    assert len(list((project / "leavers-certificates").glob("*.json"))) == 3


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (["p-000001", "13097248022"], "line 2"),
        (["", " ", ""], "names nobody"),
        ([], "names nobody"),
    ],
)
def test_a_file_that_is_wrong_erases_nobody(run: Run, project: Path, lines: list[str], match: str):
    done = run("subject", "erase", "--file", ids(project, *lines), "--yes")
    assert done.code == 1
    assert match in done.told
    assert "Nobody was erased" in done.told
    assert "13097248022" not in done.said + done.told
    assert "main.people" in run("subject", "access", "p-000001").said
    assert not (project / "leavers-certificates").exists()


def test_what_contradicts_is_refused(run: Run, project: Path):
    file = ids(project, *LEAVERS)
    for wrong in (("p-000001", "--file", file), (), ("p-000001", "--batch", "b")):
        done = run("subject", "erase", *wrong, "--yes")
        assert done.code == 1
        assert "say whom" in done.told
    assert run("subject", "erase", "--file", "no-such-file.txt", "--yes").code == 1
    done = run("subject", "erase", "--file", file)
    assert done.code == 1
    assert "--yes" in done.told
