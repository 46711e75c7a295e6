"""`datavern health --watch`: a table that lives on a terminal, tables one after the other elsewhere, JSON in lines."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from calling import call, inside


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A project of two files, one of which stands in for the other."""
    (tmp_path / "datavern.toml").write_text(
        '[databases.main]\nprovider = "sqlite"\npath = "a.db"\nfailover = ["standby"]\n'
        '[databases.standby]\nprovider = "sqlite"\npath = "b.db"\n'
    )
    return tmp_path


def test_it_asks_as_often_as_it_is_told(pair: Path):
    ran = inside("health", "--watch", "--count", "2", "--interval", "0.01", cwd=pair, COLUMNS="160")
    assert ran.code == 0, ran.told
    assert ran.said.count("database") == 2
    assert "primary, serves" in ran.said
    assert "standby" in ran.said


def test_programs_get_a_document_in_each_line(pair: Path):
    ran = inside("health", "--watch", "--count", "3", "--interval", "0.01", "--json", cwd=pair)
    assert ran.code == 0
    lines = [json.loads(line) for line in ran.said.splitlines()]
    assert [line["healthy"] for line in lines] == [True] * 3
    assert lines[0]["databases"]["main"]["facts"]["primary"] == "main"
    assert lines[0]["databases"]["main"]["facts"]["members"]["standby"]["serves"] is False


def test_one_that_is_not_well_is_exit_code_1(pair: Path):
    (pair / "b.db").write_text("no database at all, and long enough to be looked at as one" * 20)
    ran = inside("health", "--watch", "--count", "1", cwd=pair)
    assert ran.code == 1
    assert "degraded" in ran.said


@pytest.mark.parametrize("wrong", [("--interval", "0"), ("--interval", "-1"), ("--count", "0")])
def test_numbers_that_are_none_are_refused(pair: Path, wrong: tuple[str, str]):
    ran = inside("health", "--watch", *wrong, cwd=pair)
    assert ran.code == 1
    assert "--interval takes seconds, more than 0, and --count takes 1 or more" in ran.told


def test_control_c_ends_it_without_a_complaint(pair: Path):
    process = subprocess.Popen(
        [sys.executable, "-m", "datavern", "health", "--watch", "--interval", "0.05", "--json"],
        cwd=pair, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["healthy"] is True
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (0, "")


def test_on_a_terminal_it_draws_over_itself(pair: Path):
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(pair)
        os.environ.update(COLUMNS="140", TERM="xterm")
        command = [sys.executable, "-m", "datavern", "health", "--watch", "--count", "3", "--interval", "0.05"]
        os.execv(sys.executable, command)
    said = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            break
        if not piece:
            break
        said += piece
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said
    assert b"\x1b[1A" in said  # up a line: drawn over
    assert b"primary, serves" in said


def test_the_plain_command_is_what_it_was(pair: Path):
    ran = call("health", "--json", cwd=pair)
    assert ran.code == 0
    assert set(ran.json["databases"]) == {"main", "standby"}
