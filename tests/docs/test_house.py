"""The house keeps its order: engines are named where they are loaded, and text speaks of the project alone."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "datavern"
ENGINE = re.compile(r"sqlite|postgres|asyncpg|\bpg_|mongo|redis|valkey|mssql|azure_?sql|\btds\b", re.IGNORECASE)
AT_HOME = ("engines", "testing", "cli")
AT_HOME_FILES = {
    "manager/loading.py",  # loads them, by name
    "manager/alone.py",  # keeps the keys of a provider used alone
    "__init__.py",  # the public names
}
SPOKEN = {  # messages that show what may be written
    "config_file.py": {".provider: missing; expected an engine such as 'sqlite'"},
}


def words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What the code says: names and strings, without docstrings and comments."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Constant(value=str(text)) if id(node) not in prose:
                yield line, text
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.alias(name=name):
                yield line, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield line, name
            case ast.ImportFrom(module=str(name)):
                yield line, name
            case ast.keyword(arg=str(name)):
                yield line, name


def strangers() -> list[Path]:
    """The modules that may not know an engine."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).parts
        if parts[0] not in AT_HOME and path.relative_to(SOURCE).as_posix() not in AT_HOME_FILES:
            found.append(path)
    return found


def test_the_search_sees_names_and_strings_and_no_prose():
    code = '"""About sqlite."""\nimport asyncpg\ndef f(redis): "mongo"; x = "pg_x"  # sqlite\n'
    assert {word for _, word in words(ast.parse(code)) if ENGINE.search(word)} == {"asyncpg", "redis", "pg_x"}


@pytest.mark.parametrize("path", strangers(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_engine_is_named_where_none_is_known(path: Path):
    allowed = SPOKEN.get(str(path.relative_to(SOURCE)), set())
    found = [
        f"{path.name}:{line}: {word}"
        for line, word in words(ast.parse(path.read_text(encoding="utf-8")))
        if ENGINE.search(word) and word not in allowed
    ]
    assert not found, "an engine is named outside engines, manager/loading.py, testing, cli and the documentation"


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def test_every_link_between_the_pages_leads_somewhere():
    broken = []
    for page in [p for p in tracked() if p.suffix == ".md" and p.exists()]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        broken += [
            f"{page.relative_to(ROOT)}: {target}"
            for target in re.findall(r"\]\(([^)\s]+)\)", text)
            if not re.match(r"[a-z]+:|#", target) and not (page.parent / target.partition("#")[0]).exists()
        ]
    assert not broken


def test_no_page_and_no_code_names_a_path_of_one_machine():
    own = re.compile(r"/(?:work/|root/\w|home/\w|Users/\w)")
    found = [
        f"{p.relative_to(ROOT)}:{number}"
        for p in tracked()
        if p.suffix in {".py", ".md", ".toml", ".txt", ""} and p.exists() and p.name != "test_house.py"
        for number, line in enumerate(p.read_text(encoding="utf-8").splitlines(), 1)
        if own.search(line)
    ]
    assert not found
