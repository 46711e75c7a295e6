"""Makes a project folder: a configuration, keys and a database. What `datavern init` and `datavern demo` share."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from datavern.cli.common import write_new
from datavern.contracts.errors import ConfigurationError

__all__ = ["Project", "make", "toml_value"]

PASSWORD = "DATAVERN_MAIN_PASSWORD"  # noqa: S105  (the name of an environment variable)

EXAMPLE = """
# Which personal data lies where. For example:
#
# [datasets.users]
# database = "main"
# subject = "id"                        # the column that says whose row it is
# classification = "CONFIDENTIAL"
# purposes = ["customer-account"]       # what a consent must be for
# erasure = "delete"
#
# [datasets.users.fields]
# personal_number = { sealed = true, lookup = true, kind = "fodselsnummer" }
# name = { sealed = true }
# email = { sealed = true, lookup = true, kind = "email" }
"""


@dataclass(frozen=True, slots=True)
class Project:
    """What a project is made of.

    Attributes:
        folder: where.
        organisation: who is responsible for the data.
        engine: "sqlite" or "postgresql".
        database: the rest of the ``[databases.main]`` table.
        datasets: TOML that follows it.
        password: the password that stood in the URL, which is not written down.
    """

    folder: Path
    organisation: str
    engine: str
    database: Mapping[str, Any]
    datasets: str = EXAMPLE
    password: str | None = field(default=None, repr=False)

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "datavern.toml"

    @property
    def keys(self) -> Path:
        """The folder of the keys."""
        return self.folder / "keys"

    @property
    def files(self) -> list[Path]:
        """What is made in the folder, and must not be there yet."""
        database = [self.folder / str(self.database["path"])] if self.engine == "sqlite" else []
        return [self.config, self.keys, *database]

    def toml(self) -> str:
        """The text of the configuration file."""
        settings = {"provider": self.engine, **self.database}
        if self.password is not None:
            settings["password"] = {"env": PASSWORD}
        lines = [f"{key} = {toml_value(value)}" for key, value in settings.items()]
        return (
            "# Datavern's configuration: `datavern check` says whether it holds.\n\n"
            "[datavern]\n"
            f"organisation = {toml_value(self.organisation)}\n"
            'ledger = "main"              # the database that holds Datavern\'s own tables\n'
            'keyring = "file:keys"        # in production, never on the same disk as the data\n'
            "# location or region: where the programs run that open this, and their files are\n\n"
            "[databases.main]\n" + "\n".join(lines) + "\n" + self.datasets
        )


def postgresql(url: str, **place: str) -> tuple[dict[str, Any], str | None]:
    """The settings of a PostgreSQL database from its URL, and the password, which is not written down.

    Raises:
        ConfigurationError: it is not such a URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"} or not parts.hostname:
        raise ConfigurationError("--url: expected postgresql://user@host:port/database")
    user, at, host = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    written = urlunsplit(parts._replace(netloc=f"{name}{at}{host}"))
    return {"url": written, **place}, unquote(password) if colon else None


async def make(project: Project) -> None:
    """Make the project, whole or not at all.

    Raises:
        ConfigurationError: something of it is there already.
        ConnectionFailed: the database does not answer.
    """
    from datavern.crypto.keyring import Keyring
    from datavern.manager.manager import DatabaseManager

    for path in project.files:
        if path.exists():
            raise ConfigurationError(f"{path} is there already, and is not overwritten: choose another folder")
    if project.password is not None:
        os.environ[PASSWORD] = project.password  # for this process: it is asked for as soon as it connects
    made = [] if project.folder.exists() else [project.folder]
    try:
        project.folder.mkdir(parents=True, exist_ok=True)
        ring = await Keyring.create(f"file:{project.keys}")
        made.append(project.keys)
        await ring.close()
        write_new(project.config, project.toml())
        made.append(project.config)
        made += project.files  # whose database is made by opening it
        async with DatabaseManager.from_config(project.config):
            pass
    except BaseException:
        # Nothing is kept of a project that did not come to be: the keys have sealed nothing yet.
        await asyncio.to_thread(_remove, made)
        raise


def _remove(made: list[Path]) -> None:
    for path in made:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            continue
        for beside in ("", "-wal", "-shm"):
            path.with_name(path.name + beside).unlink(missing_ok=True)


def toml_value(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {toml_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda m: f"\\u{ord(m[0]):04x}", text) + '"'
