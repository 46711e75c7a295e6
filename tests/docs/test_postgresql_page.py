"""docs/postgresql.md, run from top to bottom: what the page shows is what happens."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from docblocks import Story, blocks

if TYPE_CHECKING:
    from datavern.testing import EmptyDatabase

PAGE = Path(__file__).parents[2] / "docs" / "postgresql.md"
PLAIN = "postgresql://plain_app@127.0.0.1:5432/app"
WRITTEN = "postgresql://app@127.0.0.1:5432/app"


async def test_the_page_is_true(tmp_path: Path, postgresql_database: EmptyDatabase):
    url = postgresql_database.settings["url"]
    role = f"plain_app_{uuid.uuid4().hex[:12]}"  # a server's, not a database's
    there = urlsplit(url)
    as_role = there._replace(netloc=f"plain_app@{there.hostname}:{there.port}").geturl()
    replace = {PLAIN: as_role, WRITTEN: url, "plain_app": role}
    story = Story(PAGE, tmp_path, replace)
    found = blocks(PAGE)
    assert {b.language for b in found} == {"python"}
    try:
        for block in found:
            await story.run(block)
    finally:
        async with postgresql_database.provider() as admin:
            await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
