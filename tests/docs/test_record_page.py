"""docs/record-of-processing.md, run from top to bottom."""

from pathlib import Path

from docblocks import Story, blocks

PAGE = Path(__file__).parents[2] / "docs" / "record-of-processing.md"


async def test_the_page_is_true(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    story = Story(PAGE, tmp_path)
    for block in blocks(PAGE):
        await story.run(block)
