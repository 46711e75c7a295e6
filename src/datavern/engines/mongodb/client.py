"""PyMongo's client, made from Datavern's settings."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pymongo
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from datavern.config import TLS
from datavern.contracts.errors import ConfigurationError
from datavern.engines.mongodb.settings import URI, MongoDBSettings, read_uri

if TYPE_CHECKING:
    from datavern.engines.mongodb.watch import PoolWatch

__all__ = ["client_options", "database_name", "encrypted", "make_client", "shut"]


class _Client(AsyncMongoClient[dict[str, Any]]):
    """PyMongo's client, with cancellations that are not swallowed.

    It waits with `asyncio.wait_for`, which in Python 3.11 gives the result where a cancellation comes in the same turn
    (fixed in 3.12, https://github.com/python/cpython/issues/86296): the task would run on as if nobody had cancelled
    it. Every operation passes through this one method, which is PyMongo's own; a test watches it.
    """

    async def _retry_internal(self, *args: Any, **kwargs: Any) -> Any:
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        result = await super()._retry_internal(*args, **kwargs)
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
        return result


_COMMAND_LOG = logging.getLogger("pymongo.command")
_UUID_STANDARD = "standard"
_PATIENCE = 2.0  # seconds that closing waits for servers to hear of it


def effective_tls(settings: MongoDBSettings, uri: URI) -> bool:
    """Whether connections are encrypted.

    Raises:
        ConfigurationError: the settings and the URI contradict each other.
    """
    if settings.tls is None:
        return not uri.local if uri.tls is None else bool(uri.tls)
    wanted = settings.tls.verify != "off"
    if uri.tls is not None and uri.tls != wanted:
        raise ConfigurationError(
            f"tls.verify is {settings.tls.verify!r}, and the uri says tls={str(uri.tls).lower()}: leave one of them out"
        )
    return wanted


def encrypted(settings: MongoDBSettings, uri: URI) -> bool:
    """Whether connections are encrypted and verified, or cannot leave this machine."""
    if uri.local:
        return True
    verify = "full" if settings.tls is None else settings.tls.verify
    return effective_tls(settings, uri) and verify == "full" and uri.verified


def _tls_options(tls: TLS | None, on: bool) -> dict[str, Any]:
    if not on:
        return {"tls": False}
    options: dict[str, Any] = {"tls": True}
    if tls is None:
        return options
    if tls.ca_file is not None:
        options["tlsCAFile"] = tls.ca_file
    if tls.cert_file is not None:
        options["tlsCertificateKeyFile"] = tls.cert_file
    if tls.verify == "ca":
        options["tlsAllowInvalidHostnames"] = True
    elif tls.verify == "none":
        options["tlsAllowInvalidCertificates"] = True
    return options


def client_options(settings: MongoDBSettings, uri: URI) -> dict[str, Any]:
    """PyMongo's keyword arguments: what the settings ask for, and Datavern's defaults where the URI is silent.

    Raises:
        ConfigurationError: a setting contradicts the URI.
    """
    pool, replication = settings.pool, settings.replication
    asked: dict[str, Any] = _tls_options(settings.tls, effective_tls(settings, uri))
    asked |= {
        "replicaSet": replication.replica_set,
        "readPreference": replication.read_preference,
        "maxStalenessSeconds": None if replication.max_staleness is None else round(replication.max_staleness),
        "readConcernLevel": replication.read_concern,
        "w": replication.write_concern,
        "wTimeoutMS": None if replication.write_timeout is None else round(replication.write_timeout * 1000),
        "journal": replication.journal,
        "timeoutMS": None if settings.timeout is None else round(settings.timeout * 1000),
        "username": settings.username,
        "password": None if settings.password is None else settings.password.reveal(),
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    if replication.tags:
        asked["readPreferenceTags"] = [",".join(f"{k}:{v}" for k, v in one.items()) for one in replication.tags]
    for name, value in asked.items():
        said = uri.options.get(name.lower())
        if said is not None and name != "tls" and not _same(name, said, value):
            raise ConfigurationError(f"the uri says {name} too, and not the same: leave one of them out")
    defaults: dict[str, Any] = {
        "appname": "datavern",
        "connectTimeoutMS": round(settings.connect_timeout * 1000),
        "serverSelectionTimeoutMS": round(settings.connect_timeout * 1000),
        "maxPoolSize": pool.max,
        "minPoolSize": pool.min,
        "maxConnecting": pool.connecting,
        "maxIdleTimeMS": round(pool.idle * 1000),
        "waitQueueTimeoutMS": round(pool.acquire * 1000),
        "uuidRepresentation": _UUID_STANDARD,
    }
    for name, value in defaults.items():
        if name.lower() not in uri.options:
            asked[name] = value
    return asked


def _same(name: str, said: Any, value: Any) -> bool:
    if name in ("timeoutMS", "wTimeoutMS"):  # PyMongo reads some of them as seconds
        return said in (value, value / 1000)
    return bool(said == value)


def database_name(settings: MongoDBSettings, uri: URI) -> str:
    """The database's name.

    Raises:
        ConfigurationError: nobody says it, or the settings and the URI say different ones.
    """
    if settings.database and uri.database and settings.database != uri.database:
        raise ConfigurationError("database: the uri ends in another one: leave one of them out")
    found = settings.database or uri.database
    if not found:
        raise ConfigurationError("database: missing; expected its name, or a uri that ends in it")
    return found


def make_client(
    settings: MongoDBSettings, watch: PoolWatch | None, *listeners: Any
) -> AsyncMongoClient[dict[str, Any]]:
    """A client that has connected to nothing yet.

    Raises:
        ConfigurationError: what PyMongo will not take: a certificate file that is not there, a missing package.
    """
    options = client_options(settings, read_uri(settings.uri.reveal()))
    if _COMMAND_LOG.level == logging.NOTSET:
        # PyMongo logs every command, documents and all, where the root logger is at DEBUG. Whoever wants that sets the
        # level of this very logger.
        _COMMAND_LOG.setLevel(logging.INFO)
    heard = [one for one in (watch, *listeners) if one is not None]
    if heard:
        options["event_listeners"] = heard
    problem = ""
    try:
        return _Client(settings.uri.reveal(), **options)
    except FileNotFoundError:
        problem = "tls: a certificate file is not there: look at ca_file, cert_file, and the uri's tls options"
    except OSError:  # ssl.SSLError among them
        problem = "tls: a certificate file cannot be used: expected PEM, the certificate and its key in one file"
    except (PyMongoError, ValueError, TypeError):  # their messages quote the URI
        problem = "uri: PyMongo does not take its options together with the settings beside it"
    raise ConfigurationError(f"databases.{settings.name}.{problem}")


async def shut(client: AsyncMongoClient[dict[str, Any]]) -> None:
    """Close a client, whatever its servers do."""
    try:
        with pymongo.timeout(_PATIENCE):
            await client.close()
    except PyMongoError:
        await client.close()  # the goodbye was not heard; what is left is this side
    for _ in range(3):  # a connection that was being made is cancelled, and ends a few turns of the loop later
        await asyncio.sleep(0)
