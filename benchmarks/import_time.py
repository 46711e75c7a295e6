"""What `from datavern import …` costs, against the imports that it cannot do without. Each round is a new process."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from benchmarks import Figure, interleave

OURS = "from datavern import SQLiteProvider, DataMap, DatabaseManager"
PEER = "import asyncio, sqlite3, cryptography.hazmat.primitives.ciphers.aead"


async def figures() -> list[Figure]:
    """The figure."""

    def run(code: str):
        async def once(n: int) -> None:
            for _ in range(n):
                await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=True)

        return once

    times = await interleave({"datavern": run(OURS), "asyncio + sqlite3 + AEAD": run(PEER)}, 1, rounds=21)
    return [Figure("Import", "datavern", times, at_most={"asyncio + sqlite3 + AEAD": 2.0})]
