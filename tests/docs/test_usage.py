"""docs/usage.md, run from top to bottom on each engine: what the page shows is what happens."""

from __future__ import annotations

from pathlib import Path

import pytest
from docblocks import Story, blocks

from datavern.testing import create_test_database

PAGE = Path(__file__).parents[2] / "docs" / "usage.md"
WRITTEN = "postgresql://app@127.0.0.1:5432/app"


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_the_page_is_true(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    found = blocks(PAGE)
    assert {b.language for b in found} == {"python", "toml", "console"}
    async with create_test_database(engine) as database:
        replace = {WRITTEN: database.url} if engine == "postgresql" else {}
        story = Story(PAGE, tmp_path, replace)
        for block in found:
            if block.engine in (None, engine):
                await story.run(block)
