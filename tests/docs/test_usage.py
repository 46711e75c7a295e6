"""docs/usage.md, run from top to bottom on each engine: what the page shows is what happens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from docblocks import Block, Story, blocks

if TYPE_CHECKING:
    import pytest

    from datavern.testing import EmptyDatabase

PAGE = Path(__file__).parents[2] / "docs" / "usage.md"
README = Path(__file__).parents[2] / "README.md"
WRITTEN = "postgresql://app@127.0.0.1:5432/app"


async def told(engine: str, folder: Path, replace: dict[str, str]) -> None:
    story = Story(PAGE, folder, replace)
    for block in blocks(PAGE):
        if block.engine in (None, engine):
            await story.run(block)


async def test_the_page_is_true_on_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    await told("sqlite", tmp_path, {})


async def test_the_page_is_true_on_postgresql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql_database: EmptyDatabase
):
    monkeypatch.chdir(tmp_path)
    await told("postgresql", tmp_path, {WRITTEN: postgresql_database.settings["url"]})


def test_every_block_is_run_on_an_engine():
    found = blocks(PAGE)
    assert {b.language for b in found} == {"python", "toml", "console"}
    assert {b.engine for b in found} == {None, "sqlite", "postgresql"}


async def test_the_ten_lines_of_the_readme_are_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    story = Story(README, tmp_path)
    made = next(b for b in blocks(PAGE) if b.language == "toml" and b.engine == "sqlite")
    await story.run(made)
    await story.run(Block("console", None, "$ mv datavern.toml kept && datavern init && mv kept datavern.toml\n", 0))
    (code,) = [b for b in blocks(README) if b.language == "python"]
    await story.run(code)
    assert [row["id"] for row in story.names["found"]] == ["u1"]
    assert story.names["raw"][0]["name"] != "Åse Østby"
