"""Where a server is, as a configured probe says, and who receives a copy of everything from it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError, DatavernError, DriverError, QueryRejected
from datavern.contracts.regions import locate
from datavern.contracts.values import Location
from datavern.contracts.whereabouts import Follower, Said, refuse_contradiction
from datavern.engines.postgresql.errors import fault
from datavern.engines.postgresql.statements import Effect

if TYPE_CHECKING:
    import asyncpg

    from datavern.engines.postgresql.provider import PostgreSQLProvider
    from datavern.engines.postgresql.settings import PostgreSQLSettings

__all__ = ["PostgreSQLWhereabouts", "compare"]

# pg_stat_replication (PostgreSQL 18 documentation, 27.2.4). What a user may not see there is NULL.
_FOLLOWERS = """
SELECT application_name, host(client_addr), pid IS NOT NULL AND state IS NULL FROM pg_catalog.pg_stat_replication
"""


async def compare(connection: asyncpg.Connection, settings: PostgreSQLSettings) -> None:
    """Ask the probe on a new connection, whichever server that leads to, and compare its word with the settings.

    Raises:
        ResidencyViolation: the server is further away than the settings say.
        ConfigurationError: the probe failed, or gave what is no place.
        ProviderError: the server does not answer it.
    """
    probe = settings.region_probe
    if probe is None:
        return
    where: Any
    failure: BaseException | None = None
    try:
        where = await (connection.fetchval(probe) if isinstance(probe, str) else _called(probe, settings.name))
    except DatavernError:
        raise
    except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
        failure = fault(error, name=settings.name, stage="statement", effect=Effect.READS).error
    if failure is not None:
        raise _failed(settings.name, failure)
    said = _said(where, settings)
    refuse_contradiction(settings.name, _location(settings), said)


def _location(settings: PostgreSQLSettings) -> Location:
    return locate(settings.region) if settings.region else settings.location or Location.GLOBAL


async def _called(probe: Callable[[], Any], name: str) -> Any:
    failed: Exception | None = None
    try:
        found = probe()
        return await found if inspect.isawaitable(found) else found
    except DatavernError:
        raise
    except Exception as error:  # noqa: BLE001  (what it says is a stranger's: only its type is passed on)
        failed = error
    raise ConfigurationError(f"{name}.region_probe: the callable raised {type(failed).__name__}") from DriverError.of(
        failed, None, None
    )


def _failed(name: str, error: BaseException) -> BaseException:
    """A probe that the server refuses is a mistake in the settings; one that it does not answer is none."""
    if not isinstance(error, QueryRejected):
        return error
    failed = ConfigurationError(f"{name}.region_probe: the server refuses the statement: {error}")
    failed.__cause__ = error.__cause__
    return failed


def _said(where: Any, settings: PostgreSQLSettings) -> list[Said]:
    if where is None:
        return []
    if not isinstance(where, str) or not where.strip():
        raise ConfigurationError(
            f"{settings.name}.region_probe: gave {type(where).__name__}: expected a region identifier as text "
            "(azure:norwayeast), or nothing where the server does not know"
        )
    return [Said(settings.name, where.strip(), "probe")]


class PostgreSQLWhereabouts:
    """`datavern.contracts.whereabouts.Whereabouts` on PostgreSQL.

    Args:
        provider: one server.
    """

    __slots__ = ("_provider",)

    def __init__(self, provider: PostgreSQLProvider) -> None:
        self._provider = provider

    async def said(self) -> list[Said]:
        """The configured probe's word; nothing without one: PostgreSQL itself does not know where it is."""
        provider = self._provider
        probe = provider.settings.region_probe
        if probe is None:
            return []
        if isinstance(probe, str):
            return _said(await provider.query_value(probe), provider.settings)
        return _said(await _called(probe, provider.name), provider.settings)

    async def followers(self) -> list[Follower]:
        """Replicas that stream from this server.

        Raises:
            ConfigurationError: the user may not see them.
        """
        found = []
        for name, address, hidden in await self._provider.query(_FOLLOWERS):
            if hidden:
                raise ConfigurationError(
                    f"{self._provider.name}: the user may not see who replicates from it: GRANT pg_monitor to the user"
                )
            found.append(Follower(name or "", address))
        return found
