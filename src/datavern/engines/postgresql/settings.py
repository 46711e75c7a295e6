"""Settings of the PostgreSQL engine, and what a ``postgresql://`` URL means."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from datavern.config import STRICT, TLS, Pool, ProviderSettings, Secret
from datavern.contracts.errors import ConfigurationError
from datavern.engines.hosts import is_this_machine
from datavern.engines.urls import split_url

__all__ = ["PostgreSQLSettings", "parse_url"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgreSQLSettings(ProviderSettings):
    """What a PostgreSQL provider is made from.

    Attributes:
        host: name or address of the server, or the folder of its Unix socket (an absolute path).
        port: TCP port, or the number in the socket's name.
        database: its name.
        username: the operating system's user when None.
        password: a `Secret`; what it was made from is asked anew for each connection.
        tls: None means full verification, and no TLS where the host is this machine
            (`docs/decisions/0004-local-tls.md`).
        pool: how many connections.
        connect_timeout: seconds that making one connection may take, TLS and sign-in included.
        statement_cache: prepared statements that each connection keeps; 0 for none.
        application_name: what the server's own views call these connections.
        pooler: what stands between here and the server: ``"transaction"``, a pooler that gives each transaction a
            session (PgBouncer's ``pool_mode = transaction``); ``"session"``, one that gives each connection a session
            of its own; None: look, and live with a pooler of either kind as if it were the former.
        group_commit: audited inserts of single rows that come at the same time may be committed together.
        keyring: URL of a key ring, for a provider that is used without a manager.
        region_probe: how the server says where it is: a statement whose one value is a region identifier, or a
            callable, sync or async, that gives one; None: it does not say. Asked on every new connection.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    host: str = "127.0.0.1"
    port: int = 5432
    database: str
    username: str | None = None
    password: Secret | None = None
    tls: TLS | None = None
    pool: Pool = field(default_factory=Pool)
    connect_timeout: float = 10.0
    statement_cache: int = 200
    application_name: str = "datavern"
    pooler: Literal["transaction", "session"] | None = None
    group_commit: bool = True
    keyring: str | None = None
    region_probe: str | Callable[[], Any] | None = None

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigurationError("host is empty: expected a host name, an address or the path of a socket folder")
        if not self.database:
            raise ConfigurationError("database is empty: expected its name")
        if not 0 < self.port < 65536:  # noqa: PLR2004  (TCP)
            raise ConfigurationError(f"port is {self.port}: expected 1 to 65535")
        if not self.connect_timeout > 0:
            raise ConfigurationError("connect_timeout: expected seconds, more than 0")
        if self.statement_cache < 0:
            raise ConfigurationError("statement_cache: expected 0 or more")
        if isinstance(self.region_probe, str) and not self.region_probe.strip():
            raise ConfigurationError("region_probe is empty: expected a statement that gives a region identifier")
        for name in ("host", "database", "username", "application_name"):
            if "\0" in (getattr(self, name) or ""):
                raise ConfigurationError(f"{name} holds a NUL character")

    @property
    def local(self) -> bool:
        """Whether the connection cannot leave this machine."""
        return self.host.startswith("/") or is_this_machine(self.host)

    @property
    def effective_tls(self) -> TLS:
        """What is done about encryption, defaults filled in."""
        return self.tls or TLS(verify="off" if self.local else "full")


_SSLMODES: dict[str, Literal["off", "none", "ca", "full"]] = {
    "disable": "off",
    "require": "none",
    "verify-ca": "ca",
    "verify-full": "full",
}
_TLS_FILES = {"sslrootcert": "ca_file", "sslcert": "cert_file", "sslkey": "key_file"}


def parse_url(url: str) -> dict[str, Any]:
    """The settings that a ``postgresql://user:password@host:port/database?…`` URL holds.

    Parameters understood: sslmode (disable, require, verify-ca, verify-full), sslrootcert, sslcert, sslkey, host (a
    socket folder), application_name, connect_timeout. As in libpq, ``sslmode=require`` encrypts and verifies nothing
    unless an sslrootcert is given; ``allow`` and ``prefer`` are refused: whoever can read the line can turn them off.

    Raises:
        ConfigurationError: what is wrong with it. The URL itself, which may hold a password, is not in the message.
    """
    from urllib.parse import parse_qsl, unquote  # noqa: PLC0415  (not needed to import Datavern)

    if "," in re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]:
        raise ConfigurationError("url: several hosts: name one server for each provider, and put them in a group")
    parts, found = split_url(url, {"postgresql", "postgres"}, expected="postgresql://user@host:port/database")
    if parts.path.strip("/"):
        found["database"] = unquote(parts.path[1:])
    _add_query(found, parse_qsl(parts.query, keep_blank_values=True))
    return found


def _add_query(found: dict[str, Any], query: list[tuple[str, str]]) -> None:
    mode: str | None = None
    files: dict[str, str] = {}
    for key, value in query:
        if key == "sslmode":
            mode = value
        elif key in _TLS_FILES:
            files[_TLS_FILES[key]] = value
        elif key == "connect_timeout" and value.replace(".", "", 1).isdigit():
            found[key] = float(value)
        elif key == "application_name" or (key == "host" and "host" not in found):
            found[key] = value
        else:
            raise ConfigurationError(
                f"url: the parameter {key} is not understood, or contradicts the rest; understood: sslmode, "
                "sslrootcert, sslcert, sslkey, host, application_name, connect_timeout"
            )
    if mode is not None or files:
        found["tls"] = _tls(mode, files)


def _tls(mode: str | None, files: dict[str, str]) -> TLS:
    if mode in {"allow", "prefer"}:
        raise ConfigurationError(
            f"url: sslmode={mode} falls back to no encryption when anybody on the way says so: use verify-full, "
            "verify-ca, require or disable"
        )
    if mode is not None and mode not in _SSLMODES:
        raise ConfigurationError(f"url: unknown sslmode; expected one of {', '.join(_SSLMODES)}")
    verify = _SSLMODES[mode or "verify-full"]
    if verify == "off" and files:
        raise ConfigurationError("url: sslmode=disable contradicts the certificate files beside it")
    if verify == "none" and "ca_file" in files:
        verify = "ca"
    return TLS(verify=verify, **files)
