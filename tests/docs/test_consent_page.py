"""docs/consent.md, run from top to bottom: what the page shows is what happens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from docblocks import Story, blocks

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).parents[2] / "docs" / "consent.md"


async def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    story = Story(PAGE, tmp_path)
    for block in blocks(PAGE):
        await story.run(block)
