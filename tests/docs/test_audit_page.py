"""docs/audit.md, run from top to bottom: what the page shows is what happens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from docblocks import Story, blocks

from datavern.crypto.keyring import Keyring

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).parents[2] / "docs" / "audit.md"


async def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    await (await Keyring.create("file:keys")).close()
    # What the command runs, whether or not the package was installed again since it has one.
    story = Story(PAGE, tmp_path, {"$ datavern-verify": f"$ {sys.executable} -m datavern.audit.offline"})
    for block in blocks(PAGE):
        await story.run(block)
