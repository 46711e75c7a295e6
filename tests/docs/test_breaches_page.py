"""docs/breaches.md, run from top to bottom."""

from pathlib import Path

from docblocks import Story, blocks

from datavern.crypto.keyring import Keyring

PAGE = Path(__file__).parents[2] / "docs" / "breaches.md"


async def test_the_page_is_true(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    await (await Keyring.create("file:keys")).close()
    story = Story(PAGE, tmp_path)
    for block in blocks(PAGE):
        await story.run(block)
    assert "advice" in story.names
