"""docs/sqlite.md, run from top to bottom, and its table of settings against the settings themselves."""

from __future__ import annotations

import ast
import re
from dataclasses import MISSING, fields
from pathlib import Path

from docblocks import Story, blocks

from datavern.config import ProviderSettings
from datavern.engines.sqlite.settings import SQLiteSettings

PAGE = Path(__file__).parents[2] / "docs" / "sqlite.md"


async def test_the_page_is_true(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    story = Story(PAGE, tmp_path)
    for block in blocks(PAGE):
        await story.run(block)
    assert "copy" in story.names


def test_every_setting_is_on_the_page_with_its_default():
    rows = re.findall(r"^\| `(\w+)` \| (?:`([^`]+)`)? ?\|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    told = {name: ast.literal_eval(default) if default else MISSING for name, default in rows}
    shared = {f.name for f in fields(ProviderSettings)}
    assert told == {f.name: f.default for f in fields(SQLiteSettings) if f.name not in shared}
