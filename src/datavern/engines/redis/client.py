"""redis-py's own client, made from the provider's settings."""

from __future__ import annotations

import inspect
from typing import Any

from redis import CredentialProvider
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.sentinel import Sentinel as SentinelClient

from datavern.config import Secret
from datavern.engines.redis.settings import RedisSettings

__all__ = ["make"]


class _Credentials(CredentialProvider):
    """The user and the password, asked for anew for each connection."""

    def __init__(self, username: str | None, password: Secret) -> None:
        self._username, self._password = username, password

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        password = self._password.reveal()
        if inspect.isawaitable(password):
            password = await password
        return (password,) if self._username is None else (self._username, password)


def make(settings: RedisSettings) -> tuple[Any, ...]:
    """A client, which connects when it is first used; and after it the clients that it uses and does not close."""
    tls = settings.effective_tls
    common: dict[str, Any] = {
        "socket_timeout": settings.timeout,
        "socket_connect_timeout": settings.connect_timeout,
        "client_name": settings.client_name,
    }
    if settings.password is not None:
        common["credential_provider"] = _Credentials(settings.username, settings.password)
    if tls.verify != "off":
        common |= {
            "ssl": True,
            "ssl_cert_reqs": "none" if tls.verify == "none" else "required",
            "ssl_check_hostname": tls.verify == "full",
            "ssl_ca_certs": tls.ca_file,
            "ssl_certfile": tls.cert_file,
            "ssl_keyfile": tls.key_file,
        }
    if settings.cluster:
        nodes = [ClusterNode(host, port) for host, port in settings.cluster]
        return (RedisCluster(startup_nodes=nodes, **common),)
    common["db"] = settings.database
    if settings.sentinel is None:
        return (Redis(host=settings.host, port=settings.port, **common),)
    sentinel = settings.sentinel
    own: dict[str, Any] = {"socket_timeout": settings.timeout, "socket_connect_timeout": settings.connect_timeout}
    if sentinel.password is not None:
        own |= {"username": sentinel.username, "password": sentinel.password.reveal()}
    sentinels = SentinelClient(list(sentinel.nodes), sentinel_kwargs=own, **common)  # type: ignore[no-untyped-call]  # redis-py's own
    return (sentinels.master_for(sentinel.service), *sentinels.sentinels)
