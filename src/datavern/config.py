"""Settings: typed and frozen, from code, TOML and the environment.

Settings are frozen dataclasses; pydantic checks them (and is loaded only when there is something to check, so that
importing Datavern stays quick: `docs/decisions/0001-settings.md`). Wrong settings raise before any I/O, with the path
of the key and what was expected. A secret prints as ``***`` in every repr, log and traceback.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeVar

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Compliance, Location

__all__ = ["TLS", "Config", "General", "Pool", "ProviderSettings", "Secret", "checked", "env", "load"]

T = TypeVar("T")
STRICT: dict[str, Any] = {"extra": "forbid", "hide_input_in_errors": True, "arbitrary_types_allowed": True}


class Secret:
    """A value that is used and never shown. `reveal()` reads it, at the moment it is needed.

    Args:
        value: the secret itself, or a callable that fetches it anew each time (a token that expires). An `async`
            callable is awaited by the providers that take one.
        origin: where it comes from, for messages: ``"environment variable DB_PASSWORD"``.
    """

    __slots__ = ("_read", "origin")

    def __init__(self, value: str | Callable[[], Any], origin: str = "code") -> None:
        if not isinstance(value, str) and not callable(value):
            raise ConfigurationError(f"{origin}: a secret is text, or a callable that gives it, not {_kind(value)}")
        self._read: Callable[[], Any] = value if callable(value) else lambda: value
        self.origin = origin

    def reveal(self) -> Any:
        """The secret: a string, or an awaitable of one where it was made from an async callable."""
        return self._read()

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        """Equal when it is the same secret: by what it reveals, never by what it prints."""
        return self is other or (isinstance(other, Secret) and self.reveal() == other.reveal())

    __hash__ = None  # type: ignore[assignment]  # a secret is no key of a dict

    def __reduce__(self) -> Any:
        """A secret does not leave the process in a pickle."""
        raise TypeError("a Secret cannot be pickled")


def _kind(value: object) -> str:
    return type(value).__name__


def env(name: str, default: str | None = None) -> Secret:
    """A secret that is read from the environment when it is needed: ``password=env("DB_PASSWORD")``.

    Raises:
        ConfigurationError: on reading it, when the variable is not set and there is no default.
    """

    def read() -> str:
        value = os.environ.get(name, default)
        if value is None:
            raise ConfigurationError(f"environment variable {name} is not set")
        return value

    return Secret(read, origin=f"environment variable {name}")


@dataclass(frozen=True, slots=True)
class TLS:
    """How a connection is encrypted. Full verification is the default; turning it off is spelled out.

    Attributes:
        verify: "full" (certificate and host name), "ca" (certificate only), "none" (encrypted, not verified), or
            "off" (not encrypted: only ever to this machine under ``compliance=["nsm"]``).
        ca_file: PEM file of the authorities to trust; the system's own when None.
        cert_file: PEM file of the client's certificate, for servers that ask for one.
        key_file: PEM file of its key.
        server_name: the name that the server's certificate must hold, when it is not the host's.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    verify: Literal["full", "ca", "none", "off"] = "full"
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if self.key_file and not self.cert_file:
            raise ConfigurationError("tls.key_file is given without tls.cert_file: a key needs its certificate")


@dataclass(frozen=True, slots=True)
class Pool:
    """How many connections, and how long they live. Times are in seconds.

    Attributes:
        min: connections kept open.
        max: connections at the most.
        idle: a connection above `min` that was not used for so long is closed.
        acquire: how long a caller waits for a connection before `PoolTimeout`.
        outage: how long, of that, while no connection can be made at all (a server restarts), before
            `ConnectionFailed`; 0: the first attempt decides. A wrong password is told at once. In a failover group the
            group waits, and its members do not.
        connecting: connections that are being made at the same time, at the most.
        lifetime: a connection is replaced after so long, with up to a tenth of jitter.
        max_waiting: callers that may wait; one more gets `PoolTimeout` at once.
        validate_after: a connection idle for longer is probed before it is given out.
        keepalive: a connection idle for so long is asked for a sign of life, with up to a fifth of jitter, so that no
            firewall forgets it; None: it is left alone.
        reset: "touched": a session is made as new where the text of a statement says that it may have left something
            there; "always": after each borrower, in the background, for a database whose triggers, views, operators or
            casts leave something that no text shows.
        leak_after: report a borrower that holds a connection for longer, with its stack; None: do not look.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    min: int = 0
    max: int = 10
    idle: float = 600.0
    acquire: float = 30.0
    lifetime: float = 1800.0
    max_waiting: int = 10_000
    validate_after: float = 0.5
    leak_after: float | None = None
    outage: float = 5.0
    connecting: int = 2
    keepalive: float | None = 60.0
    reset: Literal["touched", "always"] = "touched"

    def __post_init__(self) -> None:
        if self.reset not in {"touched", "always"}:
            raise ConfigurationError("pool.reset: expected touched or always")
        if not self.max >= 1:
            raise ConfigurationError(f"pool.max is {self.max}: expected at least 1")
        if not 0 <= self.min <= self.max:
            raise ConfigurationError(f"pool.min is {self.min}: expected between 0 and pool.max, which is {self.max}")
        if not self.connecting >= 1:
            raise ConfigurationError(f"pool.connecting is {self.connecting}: expected at least 1")
        for name in ("idle", "acquire", "outage", "lifetime", "validate_after"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(f"pool.{name} is {getattr(self, name)}: expected seconds, 0 or more")
        if self.keepalive is not None and not self.keepalive > 0:
            raise ConfigurationError(f"pool.keepalive is {self.keepalive}: expected more than 0 seconds, or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """What every provider has; each engine's settings add to it.

    Attributes:
        name: unique within a manager.
        location: where the data is; follows from `region` when that is given.
        region: a region identifier, ``azure:norwayeast``.
        compliance: "gdpr" and "nsm": the rule sets to enforce.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str
    location: Location | None = None
    region: str | None = None
    compliance: frozenset[Compliance] = field(default_factory=frozenset)


def checked(kind: type[T], values: Mapping[str, Any], *, path: str) -> T:
    """`values` as an instance of the settings class `kind`.

    Args:
        kind: a frozen dataclass of this module's kind.
        values: by name, as code or TOML gave them.
        path: where they stand, for messages: ``databases.main``.

    Raises:
        ConfigurationError: an unknown key (the nearest known one is named), a wrong type, a contradiction: each with
            its path and what was expected, and never with the value, which may be a secret.
    """
    problems: list[str] = []
    known = {f.name for f in fields(kind) if f.init}  # type: ignore[arg-type]  # kind is a dataclass
    for key in values:
        if key not in known:
            import difflib  # noqa: PLC0415  (only when there is a mistake to tell of)

            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(known))}"
            problems.append(f"{path}.{key}: unknown key; {hint}")
    if not problems:
        from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415  (see the module's docstring)

        try:
            return _adapter(TypeAdapter, kind).validate_python(dict(values))  # type: ignore[no-any-return]
        except ValidationError as error:
            for e in error.errors(include_url=False, include_input=False, include_context=False):
                where = ".".join([path, *(str(part) for part in e["loc"])])
                problems.append(f"{where}: {e['msg'][0].lower()}{e['msg'][1:]}")
        except ConfigurationError as error:
            problems.append(f"{path}: {error}")
    raise ConfigurationError("\n".join(problems))


_adapters: dict[type, Any] = {}


def _adapter(adapter: Any, kind: type) -> Any:
    if kind not in _adapters:
        _adapters[kind] = adapter(kind)
    return _adapters[kind]


# ---- datavern.toml --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class General:
    """The ``[datavern]`` table.

    Attributes:
        organisation: who is responsible for the data (the controller), as it stands on certificates.
        contact: where the organisation is reached about personal data: an address, a telephone (GDPR Art. 30(1)(a)).
        representative: the organisation's representative in the EEA, where it has one (Art. 27).
        dpo: the data protection officer, and how to reach them (Art. 37).
        joint_controllers: who decides with it what the data is used for (Art. 26).
        security: measures that no setting tells of, for the record of processing: training, locks, access reviews.
        ledger: name of the database that holds Datavern's own tables; the only database when there is one.
        keyring: where the keys are: ``file:keys``.
        key_copies: the folder for copies of the key store; a folder beside the keys, when these are files.
        checkpoints: where the audit log's checkpoints are published: ``file:folder``, ``database:name``. Out of reach
            of whoever administers the ledger, or they prove little.
        location: where the programs run that open this: what is in their files is there.
        region: the region identifier instead.
        places: name → where else data gets: log sinks, backup stores, replicas, the key vault (docs/residency.md).
        essential_service: whether digitalsikkerhetsloven asks for notice of serious incidents within 24 hours.
        require_identity: whether subject requests are refused until it is recorded how it was made sure who asks.
        consent_age: from which age people consent themselves, in years: 13 by personopplysningsloven § 5, and 15 has
            been proposed. Younger ones need their guardian's consent.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    organisation: str = ""
    contact: str = ""
    representative: str = ""
    dpo: str = ""
    joint_controllers: Sequence[str] = ()
    security: Sequence[str] = ()
    ledger: str | None = None
    keyring: str | None = None
    key_copies: str | None = None
    checkpoints: Sequence[str] = ()
    location: Location | None = None
    region: str | None = None
    places: Mapping[str, Any] = field(default_factory=dict)
    essential_service: bool = False
    require_identity: bool = False
    consent_age: int = 13

    def __post_init__(self) -> None:
        if not 13 <= self.consent_age <= 18:  # noqa: PLR2004  (Art. 8(1) allows no lower one)
            raise ConfigurationError("consent_age: expected years, from 13 (GDPR Art. 8(1)) to 18")


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration file, read and checked as far as it can be without its engines.

    Attributes:
        path: the file.
        general: the ``[datavern]`` table.
        databases: name → settings, with ``provider`` among them; secrets are `Secret`, relative paths are made
            relative to the file's folder.
        datasets: name → the dataset's table, for the data map; None where the file says nothing of personal data.
        derived: name → the functions of what the application made of personal data elsewhere.
    """

    path: str
    general: General
    databases: Mapping[str, Mapping[str, Any]] = field(repr=False)  # a url may hold a password
    datasets: Mapping[str, Mapping[str, Any]] | None
    derived: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_TABLES = ("datavern", "databases", "datasets", "derived")
_SECRETS = frozenset({"password", "token"})
_URLS = frozenset({"keyring", "checkpoints"})
_PATHS = frozenset({"path", "ca_file", "cert_file", "key_file", "key_copies"})


def load(path: str | os.PathLike[str] = "datavern.toml") -> Config:
    """Read a configuration file.

    ``{ env = "NAME" }`` stands for an environment variable wherever a value may stand. A variable
    ``DATAVERN_DATABASES__MAIN__URL`` sets (or overrides) ``databases.main.url``.

    Raises:
        ConfigurationError: the file is missing or is no TOML, or holds what it may not; the message names each key.
    """
    where = os.fspath(path)
    text = _read(where)
    for key, value in text.items():
        if key not in _TABLES:
            import difflib  # noqa: PLC0415  (only when there is a mistake to tell of)

            near = difflib.get_close_matches(key, _TABLES, n=1)
            hint = f"did you mean [{near[0]}]?" if near else f"known tables: {', '.join(_TABLES)}"
            raise ConfigurationError(f"{where}: {key}: unknown table; {hint}")
        if not isinstance(value, dict):
            raise ConfigurationError(f"{where}: {key}: expected a table, [{key}]")
    _override(text)
    folder = os.path.dirname(os.path.abspath(where))  # noqa: PTH100, PTH120  (without loading pathlib)
    databases = _tables(text, "databases", folder)
    for name, values in databases.items():
        if not isinstance(values.get("provider"), str):
            raise ConfigurationError(f"databases.{name}.provider: missing; expected an engine such as 'sqlite'")
    general = checked(General, _resolved(text.get("datavern", {}), folder, "datavern"), path="datavern")
    if general.ledger is not None and general.ledger not in databases:
        raise ConfigurationError(f"datavern.ledger: no database is named {general.ledger}; {_listed(databases)}")
    datasets = _tables(text, "datasets", folder) if "datasets" in text else None
    return Config(where, general, databases, datasets, _tables(text, "derived", folder))


def _read(where: str) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415  (only when there is a file to read)

    problem = ""
    text: dict[str, Any] = {}
    try:
        with open(where, "rb") as file:  # noqa: PTH123  (os.PathLike without loading pathlib)
            text = tomllib.load(file)
    except FileNotFoundError:
        problem = f"{where}: no such file; `datavern init` makes one"
    except OSError as error:
        problem = f"{where}: cannot be read: {error.strerror}"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # The decoder's message names line and column and quotes at most one character.
        problem = f"{where}: not valid TOML: {error}"
    if problem:
        raise ConfigurationError(problem)
    return text


def _tables(text: Mapping[str, Any], kind: str, folder: str) -> dict[str, dict[str, Any]]:
    found = {}
    for name, values in text.get(kind, {}).items():
        if not isinstance(values, dict):
            raise ConfigurationError(f"{kind}.{name}: expected a table, [{kind}.{name}]")
        found[name] = _resolved(values, folder, f"{kind}.{name}")
    return found


def _resolved(values: Mapping[str, Any], folder: str, path: str) -> dict[str, Any]:
    """`values` with environment references read, secrets wrapped and paths made absolute."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        where = f"{path}.{key}"
        if isinstance(value, dict) and "env" in value and key != "fields":
            if set(value) != {"env"} or not isinstance(value["env"], str):
                raise ConfigurationError(f'{where}: expected {{ env = "NAME" }} and nothing beside it')
            secret = env(value["env"])
            if key in _SECRETS:
                result[key] = secret
                continue
            try:
                value = secret.reveal()  # noqa: PLW2901  (the value that the reference stands for)
            except ConfigurationError as error:
                raise ConfigurationError(f"{where}: {error}") from None
        if isinstance(value, dict):
            result[key] = _resolved(value, folder, where)
        elif key in _SECRETS:
            result[key] = Secret(value, origin=where)
        elif key in _PATHS and isinstance(value, str) and value != ":memory:":
            result[key] = os.path.join(folder, value)  # noqa: PTH118  (an absolute one stays as it is)
        elif key in _URLS:
            result[key] = _beside(folder, value)
        else:
            result[key] = value
    return result


def _beside(folder: str, url: Any) -> Any:
    """A ``file:`` URL (or each of several) relative to the configuration file; anything else stays as it is."""
    if isinstance(url, list):
        return [_beside(folder, one) for one in url]
    if not isinstance(url, str) or not url.startswith("file:"):
        return url
    return "file:" + os.path.join(folder, url.removeprefix("file:"))  # noqa: PTH118  (an absolute one stays as it is)


def _override(text: dict[str, Any]) -> None:
    """Put the values of ``DATAVERN_TABLE__NAME__KEY`` variables into place."""
    for variable, value in os.environ.items():
        parts = variable.split("__")
        if len(parts) < 2 or not parts[0].startswith("DATAVERN_"):  # noqa: PLR2004  (a table and a key at the least)
            continue
        parts[0] = parts[0].removeprefix("DATAVERN_")
        level = text
        for part in parts[:-1]:
            known = next((k for k in level if k.lower() == part.lower()), part.lower())
            level = level.setdefault(known, {})
            if not isinstance(level, dict):
                raise ConfigurationError(
                    f"environment variable {variable}: {known} is not a table in the configuration"
                )
        if parts[0].lower() not in _TABLES:
            raise ConfigurationError(f"environment variable {variable}: unknown table; known: {', '.join(_TABLES)}")
        key = next((k for k in level if k.lower() == parts[-1].lower()), parts[-1].lower())
        level[key] = value


def _listed(databases: Mapping[str, Any]) -> str:
    return f"there are: {', '.join(databases)}" if databases else "there are none"
