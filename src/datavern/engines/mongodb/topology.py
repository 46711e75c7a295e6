"""What the servers say of themselves, compared with what the settings say of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pymongo
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.errors import PyMongoError

from datavern.contracts.errors import (
    CapabilityMissing,
    ConfigurationError,
    ProviderError,
    QueryRejected,
)
from datavern.contracts.values import Health, Location
from datavern.contracts.whereabouts import Said, refuse_contradiction
from datavern.engines.mongodb.errors import translate

if TYPE_CHECKING:
    from datavern.contracts.values import PoolStats
    from datavern.engines.mongodb.settings import MongoDBSettings, Replication, Sharding

__all__ = ["check_server", "health", "is_mongos", "region_of", "shard_collection", "tags_of"]

Client = AsyncMongoClient[dict[str, Any]]

_ATLAS = {"AZURE": "azure", "AWS": "aws", "GCP": "gcp"}
_ANY = ReadPreference.PRIMARY_PREFERRED  # a set without a primary answers too


def region_of(tags: Mapping[str, Any]) -> str | None:
    """The region identifier that a member's tags name, or None when they name none.

    A tag ``region`` with a region identifier (``azure:norwayeast``) counts, and so do the tags that MongoDB Atlas sets:
    ``provider`` (AZURE, AWS, GCP) beside ``region`` (NORWAY_EAST, EU_NORTH_1, EUROPE_NORTH_1).
    Source: https://www.mongodb.com/docs/atlas/reference/replica-set-tags/.
    """
    region = tags.get("region")
    if not isinstance(region, str) or not region:
        return None
    cloud = _ATLAS.get(str(tags.get("provider", "")).upper())
    if cloud is None:
        return region.lower() if ":" in region else None
    plain = region.lower()
    if cloud == "azure":
        return f"azure:{plain.replace('_', '')}"
    if cloud == "aws":
        return f"aws:{plain.replace('_', '-')}"
    area, _, rest = plain.partition("_")
    return f"gcp:{area}-{rest.replace('_', '')}" if rest else f"gcp:{area}"


def check_location(name: str, location: Location, tags: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare where the members say they are with where the settings say that the data is.

    Raises:
        ResidencyViolation: a member lies further away than the configured location.
    """
    said = ((f"the member {address}", region_of(one)) for address, one in tags.items())
    refuse_contradiction(name, location, (Said(who, where, "member tag") for who, where in said if where is not None))


async def tags_of(client: Client, hello: Mapping[str, Any] | None = None) -> dict[str, Mapping[str, Any]]:
    """Address → tags, of every member that has any.

    Args:
        client: the client.
        hello: the answer to hello; asked for when None.

    Raises:
        pymongo.errors.PyMongoError: no server answers.
    """
    if hello is None:
        hello = await client.admin.command("hello", read_preference=_ANY)
    described = client.topology_description.server_descriptions()
    found: dict[str, Mapping[str, Any]] = {f"{h}:{p}": d.tags for (h, p), d in described.items() if d.tags}
    if isinstance(hello.get("tags"), Mapping):
        found.setdefault(str(hello.get("me", "the server")), hello["tags"])
    return found


def is_mongos(hello: Mapping[str, Any]) -> bool:
    """Whether the answer to hello comes from a cluster's router."""
    return hello.get("msg") == "isdbgrid"


async def check_server(client: Client, settings: MongoDBSettings, location: Location, database: str) -> dict[str, Any]:
    """Ask the server who it is, and refuse one that is not what the settings say.

    Returns:
        Its answer to hello.

    Raises:
        ConfigurationError: another replica set, too few members, no cluster where one was asked for, another shard key.
        ResidencyViolation: a member lies where the settings say it does not.
        pymongo.errors.PyMongoError: it does not answer, or refuses the user.
    """
    hello = await client.admin.command("hello", read_preference=_ANY)
    name = settings.name
    check_location(name, location, await tags_of(client, hello))
    check_replication(f"databases.{name}.replication", settings.replication, hello)
    if settings.sharding is not None:
        if not is_mongos(hello):
            raise ConfigurationError(
                f"databases.{name}.sharding: the server is not the router of a cluster (mongos): leave sharding out, "
                "or connect to the cluster's routers"
            )
        await check_sharding(client, settings.sharding, database, f"databases.{name}.sharding")
    return dict(hello)


def check_replication(where: str, wanted: Replication, hello: Mapping[str, Any]) -> None:
    """Compare the settings with the answer to hello.

    Raises:
        ConfigurationError: they do not fit.
    """
    if is_mongos(hello):
        return  # behind a router each shard is a set of its own, which the router does not tell of
    actual = hello.get("setName")
    if wanted.replica_set is not None and actual != wanted.replica_set:
        is_in = f"is in the replica set {actual}" if actual else "is in no replica set"
        raise ConfigurationError(f"{where}.replica_set is {wanted.replica_set}, and the server {is_in}")
    known = len(hello.get("hosts", ())) + len(hello.get("passives", ())) or 1
    if wanted.members is not None and known < wanted.members:
        raise ConfigurationError(f"{where}.members is {wanted.members}, and the server knows of {known} with data")
    if isinstance(wanted.write_concern, int) and wanted.write_concern > known:
        raise ConfigurationError(
            f"{where}.write_concern asks for {wanted.write_concern} members, and the server knows of {known} with "
            "data: no write would ever be confirmed"
        )


async def check_sharding(client: Client, wanted: Sharding, database: str, where: str) -> None:
    """Compare the settings with the cluster's own configuration (the database ``config``).

    Raises:
        ConfigurationError: they do not fit.
    """
    config = client.get_database("config")
    for name, key in wanted.collections.items():
        found = await config.collections.find_one({"_id": f"{database}.{name}"})
        if found is None or found.get("dropped"):
            raise ConfigurationError(
                f"{where}.collections.{name}: the collection is not sharded: await provider.shard_collection(…) does it"
            )
        actual = dict(found.get("key", {}))
        if list(actual.items()) != list(key.items()):
            told = ", ".join(f"{path}: {kind}" for path, kind in actual.items())
            raise ConfigurationError(f"{where}.collections.{name}: the collection is sharded by another key: {told}")
    shards = {shard["_id"]: shard.get("tags", ()) async for shard in config.shards.find({})}
    for zone, members in wanted.zones.items():
        for member in members:
            if member not in shards:
                known = ", ".join(sorted(shards)) or "none"
                raise ConfigurationError(f"{where}.zones.{zone}: there is no shard {member}; there are: {known}")
            if zone not in shards[member]:
                raise ConfigurationError(f"{where}.zones.{zone}: the shard {member} does not lie in the zone")


async def shard_collection(
    client: Client, namespace: str, key: Mapping[str, Any], *, unique: bool, provider: str
) -> list[str]:
    """Shard a collection; what was run. Idempotent.

    Raises:
        CapabilityMissing: the server is no cluster's router.
        ConfigurationError: it is sharded already, by another key.
        ProviderError: what the cluster says.
    """
    error: BaseException | None = None
    try:
        hello = await client.admin.command("hello")
        if not is_mongos(hello):
            raise CapabilityMissing(
                "sharding", provider, "the server is not the router of a cluster (mongos): a replica set has no shards"
            )
        found = await client.get_database("config").collections.find_one({"_id": namespace})
        if found is not None and not found.get("dropped"):
            if list(found.get("key", {}).items()) == list(key.items()):
                return []
            told = ", ".join(f"{path}: {kind}" for path, kind in found.get("key", {}).items())
            raise ConfigurationError(f"{namespace} is sharded already, by another key: {told}")
        await client.admin.command("shardCollection", namespace, key=dict(key), unique=unique)
    except PyMongoError as caught:
        error = translate(caught, provider=provider, wrote=True)
    else:
        return [f"shardCollection {namespace} by {dict(key)}" + (" unique" if unique else "")]
    raise error


async def health(client: Client, provider: str, pool: PoolStats, *, within: float) -> Health:
    """How the servers are, asked now. Never raises for a server that does not answer.

    Args:
        client: the client.
        provider: the provider's name.
        pool: the pools' state.
        within: seconds that it may take.
    """
    started = perf_counter()
    try:
        with pymongo.timeout(within):
            hello = await client.admin.command("hello", read_preference=_ANY)
            latency = perf_counter() - started
            version = str((await client.admin.command("buildInfo", read_preference=_ANY)).get("version", ""))
    except (PyMongoError, OSError) as error:
        ours = translate(error, provider=provider)
        detail = str(ours) if isinstance(ours, ProviderError) else "the server cannot be asked"
        if isinstance(ours, QueryRejected):
            return Health("degraded", detail=detail, pool=pool)
        return Health("unhealthy", detail=detail, pool=pool)
    members = _members(client)
    facts: dict[str, Any] = {"members": members}
    if hello.get("setName"):
        facts["replica_set"] = hello["setName"]
    if hello.get("me"):
        facts["server"] = hello["me"]
    if is_mongos(hello):
        return Health("healthy", "primary", latency, version, pool=pool, facts=facts | {"router": True})
    writable = bool(hello.get("isWritablePrimary", hello.get("ismaster")))
    lags = [m["lag"] for m in members.values() if m["lag"] is not None]
    if lags:
        facts["lag"] = max(lags)
    if writable:
        return Health("healthy", "primary", latency, version, pool=pool, facts=facts)
    if any(m["role"] == "primary" for m in members.values()):
        return Health("healthy", "secondary", latency, version, pool=pool, facts=facts)
    return Health(
        "degraded", "secondary", latency, version, "the set has no primary that is known here", pool=pool, facts=facts
    )


_ROLES = {"RSPrimary": "primary", "RSSecondary": "secondary", "Standalone": "primary", "Mongos": "primary"}


def _members(client: Client) -> dict[str, dict[str, Any]]:
    """Address → role, and seconds behind the primary where both have told their last write."""
    described = client.topology_description.server_descriptions()
    newest: Any = max((_moment(d.last_write_date) for d in described.values() if d.last_write_date), default=None)
    members = {}
    for (host, port), d in described.items():
        role = _ROLES.get(d.server_type_name, "unknown")
        lag = None
        if role == "secondary" and newest is not None and d.last_write_date:
            lag = max(0.0, newest - _moment(d.last_write_date))
        members[f"{host}:{port}" if port else str(host)] = {"role": role, "lag": lag}
    return members


def _moment(value: Any) -> float:
    return value.timestamp() if isinstance(value, dt.datetime) else float(value)
