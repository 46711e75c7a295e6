"""docs/retries.md, run from top to bottom, and its table of settings against the settings themselves."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from docblocks import Story, blocks

from datavern import Pool
from datavern.testing import EmptyDatabase

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).parents[2] / "docs" / "retries.md"
WRITTEN = "postgresql://app@127.0.0.1:5432/app"


async def test_the_page_is_true(
    postgresql_database: EmptyDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    story = Story(PAGE, tmp_path, {WRITTEN: postgresql_database.settings["url"]})
    for block in blocks(PAGE):
        await story.run(block)
    assert "transfer" in story.names


def test_every_setting_is_on_the_page_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: ast.literal_eval(default) for name, default in rows} == {f.name: f.default for f in fields(Pool)}
