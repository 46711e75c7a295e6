"""docs/lookup.md, run from top to bottom on each engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from docblocks import Story, blocks

PAGE = Path(__file__).parents[2] / "docs" / "lookup.md"


@pytest.mark.not_on("azuresql", "the page is told on SQLite and on PostgreSQL")
async def test_the_page_is_true(engine, database, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    replace = {"postgresql://app@127.0.0.1:5432/app": database.settings["url"]} if engine == "postgresql" else {}
    story = Story(PAGE, tmp_path, replace)
    try:
        for block in blocks(PAGE):
            if block.engine in {None, engine}:
                await story.run(block)
    finally:
        await story.names["db"].close()
