"""Settings of the MongoDB engine, and what a ``mongodb://`` URI means beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from datavern.config import STRICT, TLS, Pool, ProviderSettings, Secret, checked
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Classification
from datavern.engines.hosts import is_this_machine

__all__ = ["MongoDBSettings", "Replication", "Sharding", "parse", "read_uri", "replicated"]

ReadPreference = Literal["primary", "primaryPreferred", "secondary", "secondaryPreferred", "nearest"]
_MOST_STALE = 90.0  # the smallest maxStalenessSeconds that MongoDB knows
_SCHEMES = ("mongodb://", "mongodb+srv://")
_OPTION = re.compile(r"[A-Za-z]{1,40}\Z")
_VERIFY_OFF = ("tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames")


@dataclass(frozen=True, slots=True)
class Replication:
    """What is asked of the replica set, and what it must be. Checked when the provider connects.

    Attributes:
        replica_set: its name. A server of another name, or of none, is refused.
        members: how many members with data the server must know of, at the least.
        read_preference: where reads go: "primary" (the default), "primaryPreferred", "secondary",
            "secondaryPreferred" or "nearest".
        tags: tag sets of the members that reads may go to, in order of preference.
        max_staleness: seconds that a secondary may lag behind and still be read from; at least 90.
        read_concern: "local", "available", "majority", "linearizable" or "snapshot"; the server's default when None.
        write_concern: "majority", a number of members, or the name of a rule of the set; the server's default when
            None. A number above the members that the server knows of is refused: no such write would ever be
            acknowledged.
        write_timeout: seconds to wait for the write concern, before `OutcomeUnknown`; None: for ever.
        journal: whether a write is acknowledged from the journal on the disk; the server's default when None.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    replica_set: str | None = None
    members: int | None = None
    read_preference: ReadPreference | None = None
    tags: Sequence[Mapping[str, str]] = ()
    max_staleness: float | None = None
    read_concern: Literal["local", "available", "majority", "linearizable", "snapshot"] | None = None
    write_concern: int | str | None = None
    write_timeout: float | None = None
    journal: bool | None = None

    def __post_init__(self) -> None:
        if self.members is not None and not self.members >= 1:
            raise ConfigurationError(f"replication.members is {self.members}: expected at least 1")
        if self.max_staleness is not None and not self.max_staleness >= _MOST_STALE:
            raise ConfigurationError("replication.max_staleness: expected seconds, 90 or more (MongoDB's own bound)")
        if (self.tags or self.max_staleness is not None) and self.read_preference in (None, "primary"):
            raise ConfigurationError(
                "replication: tags and max_staleness choose among secondaries, and read_preference is primary"
            )
        if isinstance(self.write_concern, int) and not self.write_concern >= 1:
            raise ConfigurationError(
                "replication.write_concern is 0: a write that nobody acknowledges may be lost unseen; expected 1 "
                "or more"
            )
        if self.write_timeout is not None and not self.write_timeout > 0:
            raise ConfigurationError("replication.write_timeout: expected seconds, more than 0")


@dataclass(frozen=True, slots=True)
class Sharding:
    """What the cluster must be. Checked when the provider connects, against the cluster's own configuration.

    Attributes:
        collections: collection → shard key: path → 1, -1 or "hashed". A collection that is sharded by another key, or
            is not sharded, is refused; `MongoDBProvider.shard_collection` shards one.
        zones: zone → the shards that must lie in it.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    collections: Mapping[str, Mapping[str, Literal[1, -1, "hashed"]]] = field(default_factory=dict, hash=False)
    zones: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name, key in self.collections.items():
            if not key:
                raise ConfigurationError(f"sharding.collections.{name}: a shard key has at least one path")


@dataclass(frozen=True, slots=True, kw_only=True)
class MongoDBSettings(ProviderSettings):
    """What a MongoDB provider is made from. Times are in seconds.

    What the URI says itself is not overruled: a setting that contradicts it is refused.

    Attributes:
        uri: ``mongodb://host:port/database?…`` or ``mongodb+srv://…``, as PyMongo reads it.
        database: its name, where the URI does not say.
        username: for servers that ask; `password` beside it. The URI may hold both instead.
        password: a `Secret`.
        classification: of documents and files that do not say their own; what nobody classified is CONFIDENTIAL.
        tls: None means full verification, and no TLS where every host is this machine, unless the URI says ``tls=``.
        pool: how many connections to each server. Of its fields, `max`, `min`, `idle` and `acquire` are PyMongo's too;
            the others belong to Datavern's own pool and are ignored.
        connect_timeout: for making a connection, and for finding a server that may take a call.
        timeout: for every call, retries included (PyMongo's timeoutMS); None: no bound but that of the network.
        replication: what is asked of the replica set.
        sharding: what the cluster must be; None: it need not be one.
        datasets: collection → dataset id, where they differ: a collection that was renamed keeps its id here, because
            the id is bound into every sealed document.
        bucket: name of the GridFS bucket behind `files`.
        watch_pool: count connections by PyMongo's events (13 µs for each call); without, `pool` shows the moment only.
        field_encryption: collection → dotted path → "random" or "deterministic": the fields that MongoDB's own
            client-side field level encryption encrypts, under Datavern's keys (`encrypted_collection`).
        keyring: URL of a key ring, for a provider that is used without a manager.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    uri: Secret
    database: str | None = None
    username: str | None = None
    password: Secret | None = None
    classification: Classification | None = None
    tls: TLS | None = None
    pool: Pool = field(default_factory=Pool)
    connect_timeout: float = 10.0
    timeout: float | None = None
    replication: Replication = field(default_factory=Replication)
    sharding: Sharding | None = None
    datasets: Mapping[str, str] = field(default_factory=dict, hash=False)
    bucket: str = "fs"
    watch_pool: bool = False
    field_encryption: Mapping[str, Mapping[str, Literal["random", "deterministic"]]] = field(
        default_factory=dict, hash=False
    )
    keyring: str | None = None

    def __post_init__(self) -> None:
        if not self.connect_timeout > 0:
            raise ConfigurationError("connect_timeout: expected seconds, more than 0")
        if self.timeout is not None and not self.timeout > 0:
            raise ConfigurationError("timeout: expected seconds, more than 0")
        if (self.username is None) != (self.password is None):
            raise ConfigurationError("username and password: give both of them, or neither")
        if not self.bucket or "$" in self.bucket or "\0" in self.bucket:
            raise ConfigurationError("bucket: expected a name, without $ and NUL")
        for name, paths in self.field_encryption.items():
            _check_encrypted(f"field_encryption.{name}", paths)
        if self.tls is not None and self.tls.key_file is not None and self.tls.key_file != self.tls.cert_file:
            raise ConfigurationError(
                "tls.key_file: PyMongo reads certificate and key from one file: put both into tls.cert_file"
            )
        if self.tls is not None and self.tls.server_name is not None:
            raise ConfigurationError(
                "tls.server_name: PyMongo checks the certificate against the host that it connects to"
            )


def replicated(values: dict[str, Any], path: str) -> dict[str, Any]:
    """`values` with the short forms put into ``replication``."""
    for short in ("replica_set", "read_preference"):
        value = values.pop(short, None)
        if value is None:
            continue
        given = values.get("replication")
        if isinstance(given, Mapping):
            given = checked(Replication, given, path=f"{path}.replication")
        given = given or Replication()
        if getattr(given, short) not in (None, value):
            raise ConfigurationError(f"{path}.{short}: replication says another: leave one of them out")
        said = {one.name: getattr(given, one.name) for one in fields(Replication)}
        values["replication"] = {**said, short: value}
    return values


def _check_encrypted(where: str, paths: Mapping[str, str]) -> None:
    if not paths:
        raise ConfigurationError(f"{where}: expected at least one path of a field")
    for path in paths:
        if path == "_id" or any(not part or part.startswith("$") for part in path.split(".")):
            raise ConfigurationError(f"{where}: expected dotted paths of fields, and not _id")
        outer = next((one for one in paths if path.startswith(f"{one}.")), None)
        if outer is not None:
            raise ConfigurationError(
                f"{where}: {outer} is encrypted as a whole, so {path} is too: leave one of them out"
            )


@dataclass(frozen=True, slots=True)
class URI:
    """What a URI says, as far as that can be told without asking anybody.

    Attributes:
        hosts: host and port; of a ``mongodb+srv`` URI the name that is looked up.
        database: in the path, or None.
        options: name in lower case → value.
        srv: whether the hosts are still to be looked up.
    """

    hosts: tuple[tuple[str, int | None], ...]
    database: str | None
    options: Mapping[str, Any]
    srv: bool

    @property
    def local(self) -> bool:
        """Whether no host lies beyond this machine."""
        return not self.srv and all(host.startswith("/") or is_this_machine(host) for host, _ in self.hosts)

    @property
    def tls(self) -> bool | None:
        """Whether it says that TLS is on, or off; None when it says neither."""
        value = self.options.get("tls", self.options.get("ssl"))
        return True if value is None and self.srv else value

    @property
    def verified(self) -> bool:
        """Whether it leaves verification as it is by default: full."""
        return not any(self.options.get(option) for option in _VERIFY_OFF)


def read_uri(text: str) -> URI:
    """What a URI says.

    Raises:
        ConfigurationError: it is not one. The message names the option that is wrong, and never quotes the URI, which
            may hold a password.
    """
    found = parse(text)
    srv = text.startswith(_SCHEMES[1])
    options = {str(name).lower(): value for name, value in found["options"].items()}
    return URI(tuple(found["nodelist"]), found["database"], options, srv)


def parse(text: str) -> dict[str, Any]:
    """PyMongo's reading of a URI; the hosts of a ``mongodb+srv`` URI are not looked up."""
    from pymongo.errors import PyMongoError  # noqa: PLC0415  (the settings of others load without the driver)
    from pymongo.uri_parser import parse_uri  # noqa: PLC0415

    if not isinstance(text, str) or not text.startswith(_SCHEMES):
        raise ConfigurationError("uri: expected mongodb://host:port/database, or mongodb+srv://host/database")
    plain = _SCHEMES[0] + text.partition("://")[2]  # what srv adds is looked up by the driver when it connects
    try:
        found: dict[str, Any] = parse_uri(plain, validate=True, warn=False)
    except (PyMongoError, ValueError, TypeError):
        pass
    else:
        return found
    raise ConfigurationError(_problem(plain))


def _problem(text: str) -> str:
    """Which part of a URI is wrong."""
    from pymongo.errors import PyMongoError  # noqa: PLC0415
    from pymongo.uri_parser import parse_uri  # noqa: PLC0415

    for option in text.rpartition("?")[2].split("&") if "?" in text else ():
        try:
            parse_uri(f"mongodb://localhost/?{option}", validate=True, warn=False)
        except (PyMongoError, ValueError, TypeError):
            name = option.partition("=")[0]
            if _OPTION.match(name):
                return f"uri: the option {name} is unknown, or its value is not one that it takes"
    return (
        "uri: cannot be read: expected mongodb://user:password@host:port/database?option=value, with the user's name, "
        "the password and the database's name percent-encoded"
    )
