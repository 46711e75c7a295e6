"""The configuration file ``datavern.toml``: read, with what the environment adds to it, and checked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from datavern.config import STRICT, Secret, checked, env
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Location

__all__ = ["Config", "General", "load"]


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
    except UnicodeDecodeError:
        problem = f"{where}: not valid TOML: it is not text in UTF-8"
    except tomllib.TOMLDecodeError as error:
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
