"""Settings of the Azure SQL engine, and what an ``mssql://`` URL means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from datavern.config import STRICT, TLS, Pool, ProviderSettings, Secret
from datavern.contracts.errors import ConfigurationError
from datavern.engines.hosts import is_this_machine
from datavern.engines.urls import split_url

__all__ = ["AzureSQLSettings", "parse_url"]

Driver = Literal["mssql-python", "python-tds"]
Authentication = Literal["sql", "token", "managed-identity", "entra"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSQLSettings(ProviderSettings):
    """What an Azure SQL provider is made from.

    Attributes:
        host: name or address of the server: ``kommune.database.windows.net``.
        port: TCP port.
        database: its name.
        username: of a SQL login; with ``authentication="managed-identity"`` the client id of a user-assigned one.
        password: a `Secret`; what it was made from is asked anew for each connection.
        token: a `Secret` whose callable, sync or async, gives an Entra access token for
            ``https://database.windows.net/``, asked anew for each connection.
        authentication: "sql" (user and password), "token", "managed-identity" or "entra" (whoever the environment says
            that we are: `azure-identity`'s DefaultAzureCredential). What follows from the rest when None.
        driver: "mssql-python" (Microsoft's own) or "python-tds" (pure Python, for machines without its libraries).
        tls: full verification when None. Encryption cannot be turned off.
        read_only_intent: ask for a readable secondary (ApplicationIntent=ReadOnly).
        pool: how many connections.
        connect_timeout: seconds that one attempt to connect may take, TLS and sign-in included.
        retry: seconds for which what Microsoft documents as transient is tried again; 0: never.
        application_name: what the server's own views call these connections (with python-tds).
        keyring: URL of a key ring, for a provider that is used without a manager.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    host: str = "127.0.0.1"
    port: int = 1433
    database: str
    username: str | None = None
    password: Secret | None = None
    token: Secret | None = None
    authentication: Authentication | None = None
    driver: Driver = "mssql-python"
    tls: TLS | None = None
    read_only_intent: bool = False
    pool: Pool = field(default_factory=Pool)
    connect_timeout: float = 15.0
    retry: float = 60.0
    application_name: str = "datavern"
    keyring: str | None = None

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigurationError("host is empty: expected a host name or an address")
        if "\\" in self.host or "," in self.host:
            raise ConfigurationError("host: expected a name or an address; an instance has a port, which goes in port")
        if not self.database:
            raise ConfigurationError("database is empty: expected its name")
        if not 0 < self.port < 65536:  # noqa: PLR2004  (TCP)
            raise ConfigurationError(f"port is {self.port}: expected 1 to 65535")
        if not self.connect_timeout > 0:
            raise ConfigurationError("connect_timeout: expected seconds, more than 0")
        if not self.retry >= 0:
            raise ConfigurationError("retry: expected seconds, 0 or more")
        for name in ("host", "database", "username", "application_name"):
            value = getattr(self, name) or ""
            if "\0" in value:
                raise ConfigurationError(f"{name} holds a NUL character")
            if len(value) > 128:  # noqa: PLR2004  (MS-TDS 2.2.6.4)
                raise ConfigurationError(f"{name} has {len(value)} characters: expected 128 at the most")
        self._check_identity()
        self._check_tls()

    def _check_identity(self) -> None:
        way = self.signs_in_by
        if way == "sql" and (not self.username or self.password is None):
            raise ConfigurationError(
                "username, password: expected both for a SQL login; or token=, or authentication='managed-identity' "
                "or 'entra'"
            )
        if way != "sql" and self.password is not None:
            raise ConfigurationError(f"password: contradicts authentication={way!r}: leave one of them out")
        if (way == "token") != (self.token is not None):
            raise ConfigurationError("token: expected together with authentication='token', and only with it")
        if way in {"token", "entra"} and self.username is not None:
            raise ConfigurationError(f"username: an identity by {way} says itself who it is: leave it out")

    def _check_tls(self) -> None:
        tls = self.effective_tls
        if tls.verify == "off":
            raise ConfigurationError(
                "tls.verify: Azure SQL is always encrypted: use 'full', or 'none' for a certificate that nobody signed"
            )
        if tls.cert_file is not None:
            raise ConfigurationError("tls.cert_file: Azure SQL knows no client certificates: leave it out")
        if self.driver == "mssql-python" and (tls.ca_file is not None or tls.verify == "ca"):
            raise ConfigurationError(
                "tls: the driver mssql-python trusts the system's authorities and checks the host's name: add the "
                "authority to the system, or use driver='python-tds'"
            )

    @property
    def signs_in_by(self) -> Authentication:
        """How it signs in, defaults filled in."""
        return self.authentication or ("sql" if self.token is None else "token")

    @property
    def local(self) -> bool:
        """Whether the connection cannot leave this machine."""
        return is_this_machine(self.host)

    @property
    def effective_tls(self) -> TLS:
        """What is done about encryption, defaults filled in."""
        return self.tls or TLS()


def parse_url(url: str) -> dict[str, Any]:
    """The settings that an ``mssql://user:password@host:port/database?…`` URL holds.

    Parameters understood: driver (mssql-python, python-tds), authentication, intent (readonly, readwrite), ca_file,
    trust (yes: verify nothing), application_name, connect_timeout.

    Raises:
        ConfigurationError: what is wrong with it. The URL itself, which may hold a password, is not in the message.
    """
    from urllib.parse import parse_qsl, unquote  # noqa: PLC0415  (not needed to import Datavern)

    parts, found = split_url(url, {"mssql", "azuresql"}, expected="mssql://user@host:port/database")
    if parts.path.strip("/"):
        found["database"] = unquote(parts.path[1:])
    _add_query(found, parse_qsl(parts.query, keep_blank_values=True))
    return found


def _add_query(found: dict[str, Any], query: list[tuple[str, str]]) -> None:
    tls: dict[str, Any] = {}
    for key, value in query:
        if key in {"driver", "authentication", "application_name"}:
            found[key] = value
        elif key == "connect_timeout" and value.replace(".", "", 1).isdigit():
            found[key] = float(value)
        elif key == "intent" and value in {"readonly", "readwrite"}:
            found["read_only_intent"] = value == "readonly"
        elif key == "ca_file":
            tls[key] = value
        elif key == "trust" and value in {"yes", "no"}:
            tls |= {"verify": "none"} if value == "yes" else {}
        else:
            raise ConfigurationError(
                f"url: the parameter {key} is not understood, or its value is not; understood: driver, authentication, "
                "intent=readonly|readwrite, ca_file, trust=yes|no, application_name, connect_timeout"
            )
    if tls:
        found["tls"] = TLS(**tls)
