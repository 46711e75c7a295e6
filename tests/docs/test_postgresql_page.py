"""docs/postgresql.md, run from top to bottom: what the page shows is what happens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from docblocks import Story, blocks

if TYPE_CHECKING:
    from datavern.testing import EmptyDatabase

PAGE = Path(__file__).parents[2] / "docs" / "postgresql.md"
WRITTEN = "postgresql://app@127.0.0.1:5432/app"


async def test_the_page_is_true(tmp_path: Path, postgresql_database: EmptyDatabase):
    story = Story(PAGE, tmp_path, {WRITTEN: postgresql_database.settings["url"]})
    found = blocks(PAGE)
    assert {b.language for b in found} == {"python"}
    for block in found:
        await story.run(block)
