"""Patroni's word on who is the primary, through its REST API.

Any member of a Patroni cluster answers for all of it: ``GET /cluster`` gives what its configuration store holds.
Source: https://patroni.readthedocs.io/en/latest/rest_api.html, "Monitoring endpoint".
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from datavern.connectors.topology import Member
from datavern.contracts.errors import ConfigurationError, ConnectionFailed

__all__ = ["Patroni"]

_LARGEST = 1_000_000


class Patroni:
    """A Patroni cluster to ask.

    Args:
        urls: where members' REST APIs are: ``["http://10.0.0.1:8008", …]``. They are asked all at once, and the first
            answer counts.
        ca_file: PEM file of the authorities to trust for ``https``; the system's own when None.

    Raises:
        ConfigurationError: no URL, or one that is none. No I/O happens here.
    """

    def __init__(self, urls: Sequence[str], *, ca_file: str | None = None) -> None:
        if isinstance(urls, str) or not urls:
            raise ConfigurationError('patroni: expected a list of URLs, such as ["http://10.0.0.1:8008"]')
        for url in urls:
            parts = urlsplit(url) if isinstance(url, str) else None
            if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ConfigurationError("patroni: expected URLs such as http://10.0.0.1:8008")
        self.urls = tuple(urls)
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None

    async def leader(self, members: Sequence[Member], *, within: float) -> Member | None:
        """The member that Patroni names as the leader; None where it says that there is none.

        Args:
            members: the group's; recognised by host and port, or by name.
            within: seconds that an answer may take.

        Raises:
            ConnectionFailed: none of the URLs answered as Patroni does.
            ConfigurationError: its leader is none of the members.
        """
        tasks = [asyncio.ensure_future(asyncio.to_thread(self._cluster, url, within)) for url in self.urls]
        said: list[dict[str, Any]] | None = None
        try:
            for done in asyncio.as_completed(tasks):
                said = await done
                if said is not None:
                    break
        finally:
            for task in tasks:
                task.cancel()
        if said is None:
            raise ConnectionFailed("Patroni: none of its REST APIs answers: the members' own word counts")
        leaders = [node for node in said if node.get("role") in {"leader", "master"}]
        if not leaders:
            return None
        node = leaders[0]
        where = (str(node.get("host", "")), str(node.get("port", "")))
        for member in members:
            settings = getattr(member.provider, "settings", None)
            host, port = str(getattr(settings, "host", "")), str(getattr(settings, "port", ""))
            if (host, port) == where:
                return member
        for member in members:
            if member.name == node.get("name"):
                return member
        raise ConfigurationError(
            f"Patroni's leader is at {where[0]}:{where[1]}, and no member of the group is (by host and port, or by "
            "name): the members' own word counts"
        )

    def _cluster(self, url: str, within: float) -> list[dict[str, Any]] | None:
        """The members as one REST API tells them; None where it does not. Runs in a thread."""
        parts = urlsplit(url)
        host, path = parts.hostname or "", f"{parts.path.rstrip('/')}/cluster"
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            if self._tls is None:
                self._tls = ssl.create_default_context(cafile=self._ca_file)
            connection = http.client.HTTPSConnection(host, parts.port, timeout=within, context=self._tls)
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=within)
        try:
            connection.request("GET", path, headers={"Accept": "application/json"})
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                return None
            found = json.loads(answer.read(_LARGEST))
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
        nodes = found.get("members") if isinstance(found, dict) else None
        if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
            return None
        return nodes
