"""A TDS server for as long as it is needed.

The server is `pysqlbridge`: it speaks SQL Server's protocol, with TLS and sign-in, and answers T-SQL over tables of
text. It writes to temporary tables alone, does not undo anything, and knows neither procedures of others nor times as
parameters: it shows how connections behave, and not what a database does. That takes a server that
``DATAVERN_TEST_AZURESQL`` names (`datavern.testing.azuresql_named`).
"""

from __future__ import annotations

import csv
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from datavern.contracts.errors import ConfigurationError
from datavern.testing.proxy import Certificates

__all__ = ["AzureSQLServer", "available"]

DATABASE: Final = "pysqlbridge"
USER: Final = "app"
_START_DEADLINE: Final = 60.0
_NAMES: Final = ("localhost", "127.0.0.1")


def available() -> bool:
    """Whether the server's package is installed."""
    import importlib.util  # noqa: PLC0415  (only here)

    return importlib.util.find_spec("pysqlbridge") is not None


class AzureSQLServer:
    """A `pysqlbridge` server in a process of its own.

    Synchronous, so that it belongs to no event loop: ``with AzureSQLServer() as server: server.settings``.

    Args:
        tables: name → rows, all with the same columns; values are text or numbers. ``people`` when None.
        password: of its one login, ``app``.
        names: the host names and addresses that its certificate holds.

    Raises:
        ConfigurationError: on `start`: the package is not installed, or the server does not come up.
    """

    host = "localhost"

    def __init__(
        self,
        tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        *,
        password: str | None = None,
        names: Sequence[str] = _NAMES,
    ) -> None:
        self.password = password or secrets.token_urlsafe(18)
        self.port = 0
        self._tables = tables or {"people": [{"id": 1, "name": "Åse"}, {"id": 2, "name": "Øystein"}]}
        self._names = names
        self._folder: Path | None = None
        self._process: subprocess.Popen[str] | None = None
        self._certificates: Certificates | None = None

    @property
    def certificates(self) -> Certificates:
        """The authority that its certificate is from, and the certificate."""
        assert self._certificates is not None  # noqa: S101  (for the type checker: it was started)
        return self._certificates

    @property
    def settings(self) -> dict[str, Any]:
        """What the provider's ``from_settings`` takes."""
        from datavern.config import TLS  # noqa: PLC0415  (with the first provider)

        return {
            "host": self.host,
            "port": self.port,
            "database": DATABASE,
            "username": USER,
            "password": self.password,
            "driver": "python-tds",
            "tls": TLS(ca_file=self.certificates.ca_file),
        }

    def start(self) -> Self:
        """Start it. Idempotent."""
        if self._folder is None:
            if not available():
                raise ConfigurationError("pysqlbridge is not installed: pip install pysqlbridge")
            self._folder = Path(tempfile.mkdtemp(prefix="datavern-azuresql-"))
            self._certificates = Certificates.make(self._folder / "certificates", self._names)
            self._write_tables(self._folder)
        if self._process is None:
            self._run(self._folder)
        return self

    def stop(self) -> None:
        """Kill it and remove its folder. Idempotent."""
        self.kill()
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def kill(self) -> None:
        """``kill -9``. `start` brings it back on its port."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _write_tables(self, folder: Path) -> None:
        for name, rows in self._tables.items():
            with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        config = {
            "tables": [{"name": name, "csv": f"{name}.csv"} for name in self._tables],
            "logins": [{"user": USER, "password_hash": _hashed(self.password)}],
        }
        (folder / "server.json").write_text(json.dumps(config), encoding="utf-8")

    def _run(self, folder: Path) -> None:
        files = [str(folder / "server.json"), self.certificates.cert_file, self.certificates.key_file]
        with (folder / "server.log").open("a") as log_file:
            process = subprocess.Popen(  # noqa: S603  (this very Python)
                [sys.executable, "-m", "datavern.testing.azuresql_process", *files, str(self.port)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log_file, text=True, cwd=folder,
            )  # fmt: skip
        timer = threading.Timer(_START_DEADLINE, process.kill)
        timer.start()
        assert process.stdout is not None  # noqa: S101  (for the type checker: it was asked for)
        line = process.stdout.readline()
        timer.cancel()
        if not line.strip().isdecimal():
            process.kill()
            process.communicate()
            log = (folder / "server.log").read_text(encoding="utf-8", errors="replace")[-2000:]
            raise ConfigurationError(f"the TDS server did not start:\n{log}")
        self.port = int(line)
        self._process = process


def _hashed(password: str) -> str:
    from pysqlbridge.logins import hash_password  # noqa: PLC0415  (when the server is)

    return str(hash_password(password, iterations=1000))  # a password that lives as long as the server
