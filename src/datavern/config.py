"""Settings: typed and frozen.

Settings are frozen dataclasses; pydantic checks them (and is loaded only when there is something to check, so that
importing Datavern stays quick: `docs/decisions/0001-settings.md`). Wrong settings raise before any I/O, with the path
of the key and what was expected. A secret prints as ``***`` in every repr, log and traceback.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeVar

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Compliance, Location

__all__ = ["STRICT", "TLS", "Pool", "ProviderSettings", "Secret", "checked", "env"]

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
        key_file: PEM file of its key, which is not encrypted.
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
