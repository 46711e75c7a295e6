"""What servers say of where they are, and the comparison with what the settings say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from datavern.contracts.errors import ResidencyViolation
from datavern.contracts.regions import locate
from datavern.contracts.values import Location

__all__ = ["REACH", "Follower", "Said", "Whereabouts", "contradiction", "refuse_contradiction"]

REACH = (Location.NORWAY, Location.EU, Location.GLOBAL)
"""From the narrowest to the widest."""


@dataclass(frozen=True, slots=True)
class Said:
    """A server's word.

    Attributes:
        server: who says it, or is spoken of.
        where: as it was said: a region identifier (``azure:norwayeast``), or the name of a location.
        source: how it came to be known: "member tag", "probe", "DNS".
    """

    server: str
    where: str
    source: str

    @property
    def location(self) -> Location:
        """Where that is; what is not known is `global`."""
        text = self.where.strip().lower()
        return Location(text) if text in REACH else locate(text)


@dataclass(frozen=True, slots=True)
class Follower:
    """A server that receives a copy of everything, as the server that sends it tells.

    Attributes:
        name: as it calls itself.
        address: where it connects from, or None.
    """

    name: str
    address: str | None = None


class Whereabouts(Protocol):
    """What a provider's servers say. Asked anew with each call."""

    async def said(self) -> list[Said]:
        """Their word; empty where they say nothing.

        Raises:
            ProviderError: they cannot be asked.
        """
        ...

    async def followers(self) -> list[Follower]:
        """Servers that a copy of everything is sent to; empty where there are none, or the engine does not tell.

        Raises:
            ProviderError: the server cannot be asked, or not by this user.
        """
        ...


def contradiction(location: Location, said: Said) -> str | None:
    """What is wrong, where a server says that it is further away than the settings say; None where nothing is.

    Nearer than the settings say is no contradiction: data that may be in the EEA may be in Norway.
    """
    if REACH.index(said.location) <= REACH.index(location):
        return None
    where = said.where if said.where == said.location else f"{said.where} ({said.location.value})"
    return f"{said.server} says that it is in {where}, and the settings say {location.value}"


def refuse_contradiction(name: str, location: Location, said: Iterable[Said]) -> None:
    """Compare the servers' word with the settings.

    Raises:
        ResidencyViolation: one says that it is further away.
    """
    for one in said:
        problem = contradiction(location, one)
        if problem is not None:
            raise ResidencyViolation(f"{name}: {problem}")
