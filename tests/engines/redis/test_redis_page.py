"""docs/redis.md, run from top to bottom: what the page shows is what happens."""

from __future__ import annotations

from pathlib import Path

from docblocks import Story, blocks

import datavern

PAGE = Path(__file__).parents[3] / "docs" / "redis.md"
NAMED = "from datavern import RedisProvider"


async def test_the_page_is_true(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server.command("FLUSHALL")
    replace = {"port=6379": f"port={server.port}"}
    if "RedisProvider" not in datavern.__all__:
        replace[NAMED] = "from datavern.engines.redis.provider import RedisProvider"
    story = Story(PAGE, tmp_path, replace)
    found = blocks(PAGE)
    assert {b.language for b in found} == {"python"}
    for block in found:
        await story.run(block)
