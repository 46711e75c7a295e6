"""The runner of the documentation's examples: an example that is wrong must fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from docblocks import Story, blocks


async def run(folder: Path, text: str) -> Story:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    story = Story(page, folder, {"OLD": "new"})
    for block in blocks(page):
        await story.run(block)
    return story


async def test_blocks_run_as_one_program(tmp_path: Path):
    text = (
        "# T\n```python\nimport asyncio\nx = await asyncio.sleep(0, 'æ')\n```\n"
        "```python\nx  # -> 'æ'\n[x, 'OLD']  # -> ['…', 'new']\nint('z')  # raises ValueError: invalid literal\n```\n"
        "```toml\n# a.toml\nkey = 'OLD'\n```\n"
        "```console\n$ cat a.toml\n# a.toml\nkey = '…'\n$ exit 3  # exits 3\n```\n"
    )
    story = await run(tmp_path, text)
    assert story.names["x"] == "æ"
    assert (tmp_path / "a.toml").read_text() == "# a.toml\nkey = 'new'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\n1 + 1  # -> 3\n```\n", r"page.md:2: the page says 3, and it is 2"),
        ("```python\nint('1')  # raises ValueError\n```\n", r"page.md:2: .* and it does not"),
        ("```python\nint('z')  # raises ValueError: other words\n```\n", r"page.md:2: the page says 'other words'"),
        ("```python\n[][0]  # raises ValueError\n```\n", r"page.md:2: the page says ValueError, and it is IndexError"),
        ("```console\n$ echo a\nb\n```\n", r"it does not say, or not in this order: b"),
        ("```console\n$ exit 1\n```\n", r"exit code 1"),
        ("```console\n$ printf 'a\\nb\\n'\nb\na\n```\n", r"not in this order: a"),
        ("```toml\nkey = 1\n```\n", r"page.md:2: the first line names the file"),
        ("```sql\nSELECT 1\n```\n", r"page.md:2: a block that nobody runs: sql"),
        ("```\nx\n```\n", r"page.md:1: a block without a language"),
        ("```python\nx\n", r"the last block does not end"),
    ],
)
async def test_a_wrong_example_fails_and_says_where(tmp_path: Path, text: str, message: str):
    with pytest.raises(AssertionError, match=message):
        await run(tmp_path, text)
