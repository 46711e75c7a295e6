"""The vectors are what their programs write, which know FORMAT.md and nothing of Datavern's code."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "vectors"
MADE = {"crypto-1": "make_crypto", "sealed-1": "make_sealed", "audit-1": "make_audit",
        "audit-records-1": "make_audit_records"}  # fmt: skip


@pytest.mark.parametrize("name", MADE)  # the shares in keys-1 are drawn anew each time
def test_a_program_writes_its_file(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    program = importlib.import_module(MADE[name])
    monkeypatch.setattr(program, "TARGET", tmp_path / "made")
    program.main()
    assert (tmp_path / "made").read_bytes() == (FOLDER / f"{name}.json").read_bytes()
    with pytest.raises(SystemExit):
        program.main()


def test_they_know_nothing_of_the_code_and_every_file_has_one():
    programs = sorted(FOLDER.glob("make_*.py"))
    assert {*(f"{stem}.py" for stem in MADE.values()), "make_keys.py"} == {path.name for path in programs}
    assert {f"{name}.json" for name in (*MADE, "keys-1")} == {path.name for path in FOLDER.glob("*.json")}
    allowed = {path.stem for path in programs} | {"cryptography", "shamir_mnemonic", *sys.stdlib_module_names}
    for path in programs:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= allowed
