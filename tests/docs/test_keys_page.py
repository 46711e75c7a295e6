"""docs/keys.md, run from top to bottom."""

from pathlib import Path

from docblocks import Story, blocks

from datavern.crypto import remembered

PAGE = Path(__file__).parents[2] / "docs" / "keys.md"


async def test_the_page_is_true(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remembered, "FRESH", 0.05)  # nobody else is there who would have to hear of it
    story = Story(PAGE, tmp_path)
    for block in blocks(PAGE):
        await story.run(block)
    assert "found" in story.names
