"""Where a server is, as Azure's own DNS says: a logical server's name leads to the gateway of its region.

``name.database.windows.net`` is an alias of ``dataslice2.eastus.database.windows.net``, and that of
``cr2.eastus1-a.control.database.windows.net``: Microsoft's documentation, "Troubleshoot connectivity issues" and "Azure
SQL connectivity architecture". A server with a private endpoint alone does not say it. T-SQL has no word for it.
"""

from __future__ import annotations

import asyncio
import re
import socket
from typing import TYPE_CHECKING, Final

from datavern.contracts.regions import REGIONS
from datavern.contracts.whereabouts import Follower, Said

if TYPE_CHECKING:
    from datavern.engines.azuresql.provider import AzureSQLProvider

__all__ = ["AzureSQLWhereabouts", "region_of"]

_AZURE: Final = ".database.windows.net"
_RING: Final = re.compile(r"\A(?:[a-z0-9-]+\.)*?([a-z]+)([0-9]*)-[a-z]\.(?:control|worker)\.database\.windows\.net\Z")
_SLICE: Final = re.compile(r"\A[a-z]+[0-9]*\.([a-z]+[0-9]*)\.database\.windows\.net\Z")
_WITHIN: Final = 5.0


def region_of(name: str) -> str | None:
    """The region identifier that the canonical name of a gateway tells, or None where it tells none.

    A region's ring has a number of its own behind the region's name, which may end in one: ``westeurope1-a`` is in
    westeurope, and ``westus2-a`` in westus2. Where the EEA has no such region, the number makes no difference.
    """
    name = name.lower().rstrip(".")
    ring = _RING.match(name)
    if ring is not None:
        whole = f"azure:{ring[1]}{ring[2]}"
        return whole if whole in REGIONS or f"azure:{ring[1]}" not in REGIONS else f"azure:{ring[1]}"
    found = _SLICE.match(name)
    return None if found is None else f"azure:{found[1]}"


class AzureSQLWhereabouts:
    """`datavern.contracts.whereabouts.Whereabouts` on Azure SQL.

    Args:
        provider: the provider.
    """

    __slots__ = ("_provider",)

    def __init__(self, provider: AzureSQLProvider) -> None:
        self._provider = provider

    async def said(self) -> list[Said]:
        """What Azure's DNS says; nothing for a server that is not Azure's, or that it does not answer about."""
        settings = self._provider.settings
        host = settings.host.lower().rstrip(".")
        if not host.endswith(_AZURE):
            return []
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_WITHIN):
                found = await loop.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
        except (OSError, UnicodeError, TimeoutError):
            return []
        return [Said(host, region, "DNS") for *_, name, _ in found[:1] if (region := region_of(name)) is not None]

    async def followers(self) -> list[Follower]:
        """None that it tells of: geo-replicas are servers of their own, and configured as such."""
        return []
