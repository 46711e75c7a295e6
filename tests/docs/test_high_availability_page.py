"""docs/high-availability.md, run from top to bottom, with a real primary that goes and a replica that is promoted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docblocks import Story, blocks

from datavern import DatabaseManager, FailoverGroup, PostgreSQLProvider
from datavern.connectors.health import Kind
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.replicas import PostgreSQLReplica, kill, promote

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).parents[2] / "docs" / "high-availability.md"


async def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with PostgreSQLServer() as oslo, PostgreSQLReplica(oslo) as bergen:
        replace = {
            "postgresql://app@db.oslo.example/app": oslo.url,
            "postgresql://app@db.bergen.example/app": bergen.url,
        }
        story = Story(PAGE, tmp_path, replace)

        async def stop_oslo() -> None:
            async with PostgreSQLProvider.from_url(bergen.url) as copy, asyncio.timeout(60):
                while not await copy.query_value("SELECT to_regclass('cases') IS NOT NULL"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                while not await copy.query_value("SELECT count(*) FROM cases"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(kill, oslo)

        async def told(seen: list[str], kind: str) -> None:
            async with asyncio.timeout(60):
                while kind not in seen:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

        story.names |= {
            "stop_oslo": stop_oslo,
            "promote_bergen": lambda: asyncio.to_thread(promote, bergen),
            "start_oslo": lambda: asyncio.to_thread(oslo.start),
            "told": told,
        }
        for block in blocks(PAGE):
            await story.run(block)
        db: Any = DatabaseManager.from_config(tmp_path / "group.toml")
        assert isinstance(db["main"], FailoverGroup)
        assert db["main"].max_lag == 10.0


def test_every_kind_of_event_is_named():
    text = PAGE.read_text(encoding="utf-8")
    for kind in Kind.__args__:
        assert f"`{kind}`" in text, kind
