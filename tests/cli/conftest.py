"""A project that the demo made, for the commands to work on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from calling import PEOPLE, Ran, Run, call, inside


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs ``datavern`` in `tmp_path`."""

    def runs(*arguments: str, **options: Any) -> Ran:
        return inside(*arguments, **{"cwd": tmp_path, **options})

    return runs


@pytest.fixture(scope="session")
def demonstrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """What a demo on a few people left, and said."""
    folder = tmp_path_factory.mktemp("demonstrated")
    done = call("demo", "--people", str(PEOPLE), "--json", cwd=folder)
    assert done.code == 0, done.told
    return folder / "demo", done


@pytest.fixture
def project(demonstrated: tuple[Path, Ran], tmp_path: Path) -> Path:
    """`tmp_path`, with a copy of the demo's project in it: a test may do with it what it wants."""
    shutil.copytree(demonstrated[0], tmp_path, dirs_exist_ok=True)
    return tmp_path
