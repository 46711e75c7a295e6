"""The servers' own word, asked now: the live half of the residency's picture."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import DatavernError, ResidencyViolation
from datavern.contracts.whereabouts import contradiction

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider
    from datavern.contracts.whereabouts import Follower, Said
    from datavern.privacy.residency.places import Place

__all__ = ["Heard", "heard", "unknown_followers"]


@dataclass(frozen=True, slots=True)
class Heard:
    """What one configured server says.

    Attributes:
        database: its name in the manager.
        member: the server's own name, in a failover group.
        settings: where the settings say that it is.
        said: its word; empty where it says nothing.
        followers: who receives a copy of everything from it.
        problem: a contradiction, or why it could not be asked; empty when all is well.
        refused: whether the problem is a contradiction.
    """

    database: str
    member: str
    settings: str
    said: tuple[Said, ...] = ()
    followers: tuple[Follower, ...] = ()
    problem: str = ""
    refused: bool = False


async def heard(databases: Mapping[str, Provider]) -> list[Heard]:
    """Ask every configured server, those that stand in for another too, all at once. Never raises for one of them.

    Providers that are not open are opened, and closed again.
    """
    asked: dict[int, tuple[str, Any]] = {}
    for name, provider in sorted(databases.items(), key=lambda one: not getattr(one[1], "members", ())):
        for member in getattr(provider, "members", ()) or (provider,):
            asked.setdefault(id(member), (name, member))  # who stands in for another is a database of its own, too
    return list(await asyncio.gather(*(_ask(name, member) for name, member in asked.values())))


async def _ask(database: str, provider: Any) -> Heard:
    where = provider.location.value if provider.region is None else f"{provider.location.value} ({provider.region})"
    name = provider.name
    opened = False
    try:
        if (await provider.health()).status == "unhealthy":
            await provider.connect()
            opened = True
        whereabouts = provider.capabilities.whereabouts
        said = () if whereabouts is None else tuple(await whereabouts.said())
        followers = () if whereabouts is None else tuple(await whereabouts.followers())
    except ResidencyViolation as error:
        return Heard(database, name, where, problem=str(error), refused=True)
    except DatavernError as error:
        return Heard(database, name, where, problem=f"could not be asked: {error}")
    finally:
        if opened:
            await provider.close()
    wrong = "; ".join(p for one in said if (p := contradiction(provider.location, one)) is not None)
    return Heard(database, name, where, said, followers, wrong, refused=bool(wrong))


def unknown_followers(found: Iterable[Heard], databases: Mapping[str, Any], places: Iterable[Place]) -> Iterator[str]:
    """Replicas that receive a copy of everything, and of which nobody said where they are: one line each.

    A replica is known by the name (``application_name``) or the address that it connects with: those of a configured
    database, or of a place of the kind replica.
    """
    known = {place.name for place in places if place.kind == "replica"}
    hosts: dict[str, str] = {}
    for name, provider in databases.items():
        for member in getattr(provider, "members", ()) or (provider,):
            known |= {name, member.name}
            hosts[member.name] = getattr(getattr(member, "settings", None), "host", "")
    for one in found:
        # Nobody replicates from itself: where two servers share an address, it tells nothing.
        addresses = {host for name, host in hosts.items() if name != one.member} - {hosts.get(one.member)}
        for follower in one.followers:
            if follower.name not in known and follower.address not in addresses:
                at = f" at {follower.address}" if follower.address else ""
                yield (
                    f"{one.member} sends a copy of everything to the replica {follower.name}{at}, and nobody said "
                    f'where that is: [datavern.places."{follower.name}"] with kind = "replica", '
                    f'database = "{one.database}" and its region'
                )
