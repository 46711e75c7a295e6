"""Where the members of a set say that they are: when it is opened, and of each that joins it later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pymongo import monitoring

from datavern.contracts.whereabouts import Follower, Said, contradiction
from datavern.engines.mongodb.topology import region_of, tags_of

if TYPE_CHECKING:
    from datavern.contracts.values import Location
    from datavern.engines.mongodb.provider import MongoDBProvider

__all__ = ["MongoDBWhereabouts", "Newcomers"]


class Newcomers(monitoring.ServerListener):
    """Looks at each member as it is found, or changes what it says.

    Args:
        location: where the settings say that the data is.
        elsewhere: called, from the loop, with what is wrong, when a member is further away.

    Attributes:
        problem: what was wrong last; None while nothing was.
    """

    def __init__(self, location: Location, elsewhere: Callable[[str], None]) -> None:
        self._location = location
        self._elsewhere = elsewhere
        self.problem: str | None = None

    def opened(self, event: monitoring.ServerOpeningEvent) -> None:
        """A member was named; it has said nothing yet."""

    def closed(self, event: monitoring.ServerClosedEvent) -> None:
        """A member left."""

    def description_changed(self, event: monitoring.ServerDescriptionChangedEvent) -> None:
        """A member said something new of itself."""
        description = event.new_description
        tags: Mapping[str, Any] = description.tags or {}
        region = region_of(tags)
        if region is None:
            return
        host, port = description.address
        problem = contradiction(self._location, Said(f"the member {host}:{port}", region, "member tag"))
        if problem is not None:
            self.problem = problem
            self._elsewhere(problem)


class MongoDBWhereabouts:
    """`datavern.contracts.whereabouts.Whereabouts` on MongoDB.

    Args:
        provider: the provider.
    """

    __slots__ = ("_provider",)

    def __init__(self, provider: MongoDBProvider) -> None:
        self._provider = provider

    async def said(self) -> list[Said]:
        """What the members' tags say."""
        found = await tags_of(self._provider.client)
        return [
            Said(f"the member {address}", region, "member tag")
            for address, tags in sorted(found.items())
            if (region := region_of(tags)) is not None
        ]

    async def followers(self) -> list[Follower]:
        """None: the members of a set are all in its description, and each says where it is."""
        return []
