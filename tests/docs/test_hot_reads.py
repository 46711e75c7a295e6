"""docs/hot-reads.md, run from top to bottom on each engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from docblocks import Story, blocks

if TYPE_CHECKING:
    from datavern.testing import EmptyDatabase

PAGE = Path(__file__).parents[2] / "docs" / "hot-reads.md"
WRITTEN = "postgresql://app@127.0.0.1:5432/app"


@pytest.mark.not_on("azuresql", "the page is told on SQLite and on PostgreSQL")
async def test_the_page_is_true(
    engine: str, database: EmptyDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    replace = {WRITTEN: database.settings["url"]} if engine == "postgresql" else {}
    story = Story(PAGE, tmp_path, replace)
    for block in blocks(PAGE):
        if block.engine in (None, engine):
            await story.run(block)
