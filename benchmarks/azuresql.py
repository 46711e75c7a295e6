"""What the provider adds to the raw driver called in a thread: a row by its key, one task, one connection each.

Both speak to the same server over TLS, through python-tds: the raw driver's cursor gets its connection ready made, as
python-tds cannot make one with TLS beside a current pyOpenSSL. Each round measures both, and the difference is the
figure. "asyncio.to_thread" is shown beside the bare executor: it is what most programs write.
"""

from __future__ import annotations

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import Figure, apart, interleave
from datavern import AzureSQLProvider
from datavern.config import Pool
from datavern.testing.azuresql import AzureSQLServer

LIMIT = 60e-6
SQL = "SELECT id, name FROM people WHERE id = @P1"
RAW = "SELECT id, name FROM people WHERE id = %s"


async def figures() -> list[Figure]:
    """The figure."""
    people = [{"id": n, "name": f"name {n}"} for n in range(1, 11)]
    with AzureSQLServer({"people": people}) as server:
        assert server._process is not None
        with apart(server._process.pid):
            times = await _measured(server)
    added = [a - b for a, b in zip(times["Datavern"], times["executor"], strict=True)]
    limit = f"limit, {LIMIT * 1e6:g} µs"
    return [
        Figure(
            "Azure SQL: what the provider adds to python-tds called in a thread",
            "added",
            {"added": added, limit: [LIMIT] * len(added)},
            at_most={limit: 1.0},
            note="A difference of two times with the server's in both: below nothing, the provider's way to its thread "
            "is the shorter one.",
        ),
        Figure("Azure SQL: a row by its key, in all", "Datavern", times),
    ]


async def _measured(server: AzureSQLServer) -> dict[str, list[float]]:
    settings = {**server.settings, "location": "norway", "pool": Pool(max=1)}
    executor = ThreadPoolExecutor(1)
    async with AzureSQLProvider.from_settings("main", settings) as provider:
        cursor = raw_cursor(provider, server.password)
        loop = asyncio.get_running_loop()

        def fetch(key: int) -> Any:
            cursor.execute(RAW, (key,))
            return cursor.fetchall()

        async def ours(n: int) -> None:
            for i in range(n):
                assert (await provider.query(SQL, [i % 10 + 1]))[0]["id"] == i % 10 + 1

        async def in_executor(n: int) -> None:
            for i in range(n):
                assert (await loop.run_in_executor(executor, fetch, i % 10 + 1))[0][0] == i % 10 + 1

        async def to_thread(n: int) -> None:
            for i in range(n):
                assert (await asyncio.to_thread(fetch, i % 10 + 1))[0][0] == i % 10 + 1

        return await interleave({"Datavern": ours, "executor": in_executor, "to_thread": to_thread}, 150, rounds=31)


def raw_cursor(provider: AzureSQLProvider, password: str) -> Any:
    """A cursor of the driver's own."""
    from pytds.connection import NonMarsConnection

    from datavern.engines.azuresql.tds import TDSWire
    from datavern.engines.azuresql.tds_tls import tls_context

    context: ssl.SSLContext = tls_context(provider.settings.effective_tls, "tls")
    wire = TDSWire.connect(provider.settings, context, password=password, token=None)
    return NonMarsConnection(pooling=False, key=(), tds_socket=wire._session.conn).cursor()
