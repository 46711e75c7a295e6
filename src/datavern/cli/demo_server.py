"""Where the demo's database lives, how it is copied, and how the PostgreSQL server of an earlier demo runs again."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.cli.common import Output
    from datavern.testing.postgresql import PostgreSQLServer

__all__ = ["Place", "place_of", "serve_again"]

DATABASE = "datavern_demo"
COPY = "datavern_demo_copied"


class Place(Protocol):
    """What the story needs of a database besides what every provider offers."""

    described: str

    async def start(self) -> dict[str, Any]:
        """Make it ready; the settings of ``[databases.main]``."""
        ...

    async def flush(self) -> None:
        """Have the engine write what it holds in memory to its files."""
        ...

    async def hold(self) -> None:
        """Keep every file that the engine writes, until `stop`."""
        ...

    async def copy(self, config: Path) -> Path:
        """Copy the project, which nobody has open, out of its folder; the copy's configuration."""
        ...

    async def stop(self) -> None:
        """Let go of it, and of the copy. Idempotent."""
        ...


def place_of(engine: str, folder: Path, scratch: Path) -> Place:
    """The place for that engine."""
    return _File(folder, scratch) if engine == "sqlite" else _Server(folder, scratch)


class _File:
    def __init__(self, folder: Path, scratch: Path) -> None:
        self.file, self.target = folder / "main.db", scratch / "copy"
        self.described = f"{self.file}  the SQLite database"
        self._reader: sqlite3.Connection | None = None

    async def start(self) -> dict[str, Any]:
        return {"path": "main.db", "location": "norway"}

    async def flush(self) -> None:
        """SQLite's commits are in the file or in its write-ahead log, and both are files of the folder."""

    async def hold(self) -> None:
        """Keep the write-ahead log: SQLite removes it when the last connection closes, and it is to be searched too."""
        if self._reader is None:
            self._reader = sqlite3.connect(self.file, check_same_thread=False)
            self._reader.execute("SELECT count(*) FROM sqlite_schema").fetchall()

    async def copy(self, config: Path) -> Path:
        def copied() -> None:
            shutil.copytree(self.file.parent, self.target, ignore=shutil.ignore_patterns("main.db*"))
            (self.target / "main.db").touch(0o600)  # SQLite would let everybody read it
            with closing(sqlite3.connect(self.file)) as one, closing(sqlite3.connect(self.target / "main.db")) as other:
                one.backup(other)

        await asyncio.to_thread(copied)
        return self.target / config.name

    async def stop(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class _Server:
    def __init__(self, folder: Path, scratch: Path) -> None:
        self.data, self.target = folder / "postgresql", scratch / "copy"
        self.described = f"{self.data}/  a PostgreSQL server of its own, with its data"
        self.server: PostgreSQLServer | None = None

    async def start(self) -> dict[str, Any]:
        def started() -> PostgreSQLServer:
            self.data.parent.mkdir(parents=True)
            try:
                return _started(self.data)
            except BaseException:
                shutil.rmtree(self.data.parent, ignore_errors=True)
                raise

        self.server = await asyncio.to_thread(started)
        await self._maintain(f"CREATE DATABASE {DATABASE}")
        return {"url": self.server.url_of(DATABASE), "location": "norway"}

    async def flush(self) -> None:
        await self._maintain("CHECKPOINT")

    async def hold(self) -> None:
        """The server holds its own files."""

    async def copy(self, config: Path) -> Path:
        await self._maintain(f"CREATE DATABASE {COPY} TEMPLATE {DATABASE}")

        def copied() -> None:
            # Everything but the server's own folder: the copy of the database is made by the server.
            shutil.copytree(config.parent, self.target, ignore=shutil.ignore_patterns(self.data.name))
            text = config.read_text(encoding="utf-8").replace(f"/{DATABASE}", f"/{COPY}")
            (self.target / config.name).write_text(text, encoding="utf-8")

        await asyncio.to_thread(copied)
        return self.target / config.name

    async def stop(self) -> None:
        if self.server is not None:
            await self._maintain(f"DROP DATABASE IF EXISTS {COPY}")
            server, self.server = self.server, None
            await asyncio.to_thread(server.stop)

    async def _maintain(self, statement: str) -> None:
        from datavern.engines.postgresql.provider import PostgreSQLProvider

        if self.server is not None:
            async with PostgreSQLProvider.from_url(self.server.url, name="maintenance", location="norway") as provider:
                await provider.execute(statement)


def _started(data: Path, port: int = 0) -> PostgreSQLServer:
    from datavern.testing.postgresql import PostgreSQLServer

    return PostgreSQLServer(folder=data, port=port, durable=True).start()


async def serve_again(folder: Path, out: Output) -> None:
    """Run the PostgreSQL server of an earlier demo until Ctrl-C.

    Raises:
        ConfigurationError: there is none in the folder, or its port is taken.
    """
    from datavern.config_file import load

    config = folder / "datavern.toml"
    data = folder / "postgresql"
    url = str(load(config).databases.get("main", {}).get("url", ""))
    port = urlsplit(url).port if url else None
    if port is None or not (data / "data").is_dir():
        raise ConfigurationError(
            f"{folder} holds no PostgreSQL server: `datavern demo --database postgresql` makes one"
        )
    server = await asyncio.to_thread(_started, data, port)
    try:
        if server.port != port:
            raise ConfigurationError(f"port {port}, which {config} names, is taken by another program")
        out.document({"serving": str(data), "port": port})
        out.say(f"PostgreSQL runs on port {port}, with the data of {data}. Ctrl-C stops it.")
        await asyncio.Event().wait()
    finally:
        await asyncio.to_thread(server.stop)
