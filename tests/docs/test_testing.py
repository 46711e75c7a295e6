"""docs/testing.md, as a project of somebody else's runs it: in strict mode, with warnings as errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from docblocks import Story, blocks

from datavern.testing.postgresql import ENVIRONMENT

if TYPE_CHECKING:
    import pytest

    from datavern.testing.postgresql import PostgreSQLServer

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


async def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql_server: PostgreSQLServer):
    monkeypatch.setenv(ENVIRONMENT, postgresql_server.url)
    story = Story(PAGE, tmp_path)
    for block in blocks(PAGE):
        if block.language != "text":  # needs a server of Azure SQL
            await story.run(block)
