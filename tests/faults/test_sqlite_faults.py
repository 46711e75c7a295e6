"""SQLite while the process that writes is killed: what was acknowledged is there, and what has a key is there once."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from pathlib import Path

from datavern import SQLiteProvider

KEYS = 400
WRITER = f"""
import asyncio
import sys

from datavern import SQLiteProvider


async def main() -> None:
    async with SQLiteProvider(path=sys.argv[1]) as db:
        await db.execute("CREATE TABLE IF NOT EXISTS done (key INTEGER NOT NULL)")

        async def write(first: int) -> None:
            for key in range(first, {KEYS}, 8):

                async def work(tx, key: int = key) -> int:
                    await tx.execute("INSERT INTO done VALUES (?)", [key])
                    return key

                await db.run_in_transaction(work, idempotency_key=f"key {{key}}")
                print(key, flush=True)

        await asyncio.gather(*(write(first) for first in range(8)))
    print("over", flush=True)


asyncio.run(main())
"""


async def test_a_process_that_is_killed_while_it_writes(tmp_path: Path, faults_long: bool) -> None:
    dice = random.Random(5)
    path = str(tmp_path / "app.db")
    acknowledged: set[int] = set()
    kills, over = (40 if faults_long else 3), False
    while not over:
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, path, stdout=asyncio.subprocess.PIPE
        )
        assert writer.stdout is not None
        left = dice.randrange(1, KEYS // 2)  # acknowledged until it is killed
        async with asyncio.timeout(120):
            while line := await writer.stdout.readline():
                if over := line == b"over\n":
                    break
                acknowledged.add(int(line))
                left -= 1
                if kills and left <= 0:
                    kills -= 1
                    writer.kill()
                    break
            await writer.wait()
    async with SQLiteProvider(path=path) as db:
        there = Counter(row[0] for row in await db.query("SELECT key FROM done"))
    assert acknowledged == set(range(KEYS)), "the test does not test"
    assert there.keys() == acknowledged, "acknowledged, and lost"
    assert set(there.values()) == {1}, "twice"
    assert not kills
