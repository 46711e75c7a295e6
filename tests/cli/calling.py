"""Calls the command: in a process of its own, or in this one, which is quicker and the same but for the interpreter."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from datavern.cli.app import app

PEOPLE = 12


@dataclass(frozen=True)
class Ran:
    """What a command did.

    Attributes:
        said: its standard output.
        told: its standard error.
    """

    code: int
    said: str
    told: str

    @property
    def json(self) -> Any:
        return json.loads(self.said)


Run = Callable[..., Ran]


def inside(*arguments: str, cwd: Path, text: str | None = None, **env: str | None) -> Ran:
    """The same in this process, through typer's runner."""
    for name in [k for k in os.environ if k.startswith("DATAVERN_")]:
        env.setdefault(name, None)
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(app, arguments, input=text, env={"COLUMNS": "100", "NO_COLOR": "1", **env})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Ran(done.exit_code, done.stdout, done.stderr)


def call(*arguments: str, cwd: Path, stdin: Any = subprocess.DEVNULL, text: str | None = None, **env: str) -> Ran:
    """Run ``datavern`` with these arguments; no terminal, and no standard input unless there is one."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("DATAVERN_")}
    source = {"input": text} if text is not None else {"stdin": stdin}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "datavern", *arguments],
        cwd=cwd, env={**variables, "COLUMNS": "100", "NO_COLOR": "1", **env}, check=False, timeout=120,
        capture_output=True, encoding="utf-8", **source,
    )  # fmt: skip
    return Ran(done.returncode, done.stdout, done.stderr)
