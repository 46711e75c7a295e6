"""A manager's databases and settings, as a configuration file describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datavern.config_file import load
from datavern.connectors.failover import FailoverGroup
from datavern.contracts.capabilities import Provider
from datavern.contracts.errors import ConfigurationError
from datavern.manager.loading import provider_class

if TYPE_CHECKING:
    import os

    from datavern.privacy.erasure.derived import Derived
    from datavern.privacy.residency.places import Place

__all__ = ["read"]

_GROUP_SETTINGS = ("replicas_read", "max_lag", "patroni")


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Sequence[Derived]]:
    """The arguments of `DatabaseManager`, and what is derived from the data elsewhere. Connects to nothing.

    Raises:
        ConfigurationError: what is wrong in the file, by its key.
    """
    config = load(path)
    databases: dict[str, Provider] = {}
    for name, values in config.databases.items():
        settings = {k: v for k, v in values.items() if k not in ("provider", "failover", *_GROUP_SETTINGS)}
        kind: Any = provider_class(values["provider"])
        databases[name] = kind.from_settings(name, settings)
    for name, values in config.databases.items():
        options = {k: values[k] for k in _GROUP_SETTINGS if k in values}
        if values.get("failover"):
            databases[name] = _group(name, values["failover"], databases, options)
        elif options:
            raise ConfigurationError(
                f"databases.{name}.{next(iter(options))}: is for a failover group, and stands without failover = […]"
            )
    data_map = None
    if config.datasets is not None:
        from datavern.privacy.datamap.datamap import DataMap  # noqa: PLC0415  (only when there is one)

        data_map = DataMap.from_mapping(config.datasets)
    general = config.general
    places: Sequence[Place] = ()
    if general.places:
        from datavern.privacy.residency.places import places_from_mapping  # noqa: PLC0415  (few files name any)

        places = places_from_mapping(general.places)
    derived: Sequence[Derived] = ()
    if config.derived:
        from datavern.privacy.erasure.derived import from_names  # noqa: PLC0415  (few files name any)

        derived = from_names(config.derived)
    settings = {
        "databases": databases,
        "data_map": data_map,
        "keyring": general.keyring,
        "ledger": general.ledger,
        "organisation": general.organisation,
        "contact": general.contact,
        "dpo": general.dpo,
        "key_copies": general.key_copies,
        "consent_age": general.consent_age,
        "checkpoints": general.checkpoints,
        "location": general.location,
        "region": general.region,
        "places": places,
        "essential_service": general.essential_service,
        "require_identity": general.require_identity,
    }
    return settings, derived


def _group(name: str, secondaries: Any, databases: Mapping[str, Provider], options: Mapping[str, Any]) -> FailoverGroup:
    """The failover group that a configuration file's ``failover = [...]`` describes."""
    where = f"databases.{name}.failover"
    if not isinstance(secondaries, list) or not all(isinstance(other, str) for other in secondaries):
        raise ConfigurationError(f'{where}: expected a list of databases, such as ["standby"]')
    for other in secondaries:
        if other == name or other not in databases:
            others = ", ".join(sorted(set(databases) - {name})) or "none"
            raise ConfigurationError(f"{where}: {other} is no other database; there are: {others}")
        if isinstance(databases[other], FailoverGroup):
            raise ConfigurationError(
                f"{where}: {other} has a failover of its own: a group does not stand in for another"
            )
    return FailoverGroup(
        name, primary=databases[name], secondaries=[databases[other] for other in secondaries], **options
    )
