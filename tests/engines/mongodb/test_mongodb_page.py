"""docs/mongodb.md, run from top to bottom: what the page shows is what happens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from docblocks import Story, blocks

import datavern
from datavern.crypto.keyring import Keyring

if TYPE_CHECKING:
    import pytest

    from datavern.testing.mongodb import MongoDBServer

NAMED = "from datavern import DatabaseManager, MongoDBProvider, SQLiteProvider"
FOUND = (
    "from datavern import DatabaseManager, SQLiteProvider; "
    "from datavern.engines.mongodb.provider import MongoDBProvider"
)
"""Until the package names the provider itself."""

PAGE = Path(__file__).parents[3] / "docs" / "mongodb.md"


async def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: MongoDBServer):
    monkeypatch.chdir(tmp_path)
    await (await Keyring.create("file:keys")).close()
    uri = server.uri(f"t{uuid4().hex[:12]}")
    named = {} if "MongoDBProvider" in datavern.__all__ else {NAMED: FOUND}
    story = Story(PAGE, tmp_path, {"mongodb://127.0.0.1:27017/app": uri, **named})
    for block in blocks(PAGE):
        await story.run(block)
