"""Each statement of these tests can be said to every engine: in words that all know, or through `speech`.

What goes through `speech` is looked at while the tests run (`conftest.sql`); here it is the texts themselves, as they
are written.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tsql import GIVES_UP, VERB, problem

HERE = Path(__file__).parent
ENGINES = {"postgresql", "sqlite", "azuresql"}
OWN = {"postgresql", "postgresql_database", "postgresql_server", "sqlite_database", "servers"}
"""Fixtures of one engine: what a test says to those is its affair alone."""
NOT_SPOKEN = {"speech.py", "tsql.py", "test_wording.py"}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each statement that is said as it stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    marks = {
        ast.unparse(one.targets[0])
        for one in tree.body
        if isinstance(one, ast.Assign) and "not_on('azuresql'" in ast.unparse(one.value)
    }
    if "pytestmark" in marks:
        return
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        text = written(node)
        if text is None or not VERB.match(text) or isinstance(parents.get(node), ast.JoinedStr):
            continue
        above = list(ancestors(node, parents))
        if any(
            spoken(one) or of_one_engine(one, below, marks) for below, one in zip([node, *above], above, strict=False)
        ):
            continue
        within = next((one for one in above if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)), tree)
        if re.search(r"\$\d", text) and re.search(r"\bsql\([A-Za-z_]+\)", ast.unparse(within)):
            text = re.sub(r"\$(\d)", r"@P\1", text)  # a name for it is spoken
        yield node.lineno, text if "QueryRejected" not in ast.unparse(within) or parses(text) else "SELECT 1"


def parses(text: str) -> bool:
    """Whether it is a statement at all: some are wrong on purpose."""
    why = problem(text)
    return why is None or GIVES_UP not in why


def written(node: ast.AST) -> str | None:
    """A text; ``x`` stands for what it is filled in with."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
    return None


def ancestors(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> Iterator[ast.AST]:
    while node in parents:
        node = parents[node]
        yield node


def spoken(node: ast.AST) -> bool:
    """Said through `speech`."""
    return isinstance(node, ast.Call) and ast.unparse(node.func).partition("[")[0] in {"sql", "SPEECHES"}


def of_one_engine(node: ast.AST, below: ast.AST, marks: set[str]) -> bool:
    """Under a condition on the engine, in a table by engines, or in a test that not every engine takes part in."""
    if isinstance(node, ast.If | ast.IfExp) and below is not node.test:
        return bool(ENGINES & set(re.findall(r"\w+", ast.unparse(node.test))))
    if isinstance(node, ast.Dict):
        return bool(ENGINES & {key.value for key in node.keys if isinstance(key, ast.Constant)})
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        decorators = " ".join(map(ast.unparse, node.decorator_list))
        chosen = re.search(r"'engine', \[(.*?)\]", decorators)
        if "PostgreSQLProvider" in ast.unparse(node) or marks & set(decorators.split()):
            return True
        return (
            bool({argument.arg for argument in node.args.args} & OWN)
            or "not_on('azuresql'" in decorators
            or (chosen is not None and "azuresql" not in chosen[1])
            or (ast.get_docstring(node) or "").startswith(("SQLite", "PostgreSQL"))
        )
    return False


@pytest.mark.parametrize("name", sorted(p.name for p in HERE.glob("*.py") if p.name not in NOT_SPOKEN))
def test_what_is_said_as_it_stands_is_said_by_every_engine(name):
    wrong = [f"{name}:{line}: {why}: {text}" for line, text in texts(HERE / name) if (why := problem(text))]
    assert not wrong, "say it through the fixture `sql`:\n" + "\n".join(wrong)
