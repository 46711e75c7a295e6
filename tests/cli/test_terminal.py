"""On a terminal: it asks before it erases, and shows progress."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

import pytest


def on_a_terminal(folder: Path, *arguments: str, answer: str = "") -> tuple[int, str]:
    """Run ``datavern`` with a terminal for all three streams, and type `answer` when it asks."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.environ.update(COLUMNS="80", TERM="xterm")
        os.execv(sys.executable, [sys.executable, "-m", "datavern", *arguments])
    said, answered = b"", not answer
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the terminal is gone with its process
            break
        if not piece:
            break
        said += piece
        if not answered and b"[y/N]" in said:
            os.write(terminal, answer.encode())
            answered = True
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode()


@pytest.mark.parametrize("answer", ["n\n", "\n", "what?\n", "\x04"])
def test_anything_but_yes_erases_nobody(project: Path, answer: str):
    code, said = on_a_terminal(project, "subject", "erase", "p-000002", answer=answer)
    assert code == 1
    assert "Erase everything about p-000002? It cannot be undone. [y/N]" in said
    assert "nothing was changed: the answer was not yes" in said
    assert not list(project.glob("certificate-*"))


@pytest.mark.parametrize("answer", ["y\n", "Yes\n", "ja\n"])
def test_yes_erases(project: Path, answer: str):
    code, said = on_a_terminal(project, "subject", "erase", "p-000002", answer=answer)
    assert code == 0, said
    assert len(list(project.glob("certificate-*"))) == 1


def test_control_c_at_the_question_erases_nobody(project: Path):
    code, said = on_a_terminal(project, "subject", "erase", "p-000002", answer="\x03")
    assert code == 130
    assert "stopped" in said
    assert "Traceback" not in said
    assert not list(project.glob("certificate-*"))


def test_a_terminal_has_colours_and_progress(tmp_path: Path):
    code, said = on_a_terminal(tmp_path, "demo", "--people", "300")
    assert code == 0, said
    assert "\x1b[" in said
    assert "Importing" in said
    assert "Found in the project: none." in said
