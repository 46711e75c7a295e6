"""What a server, or each primary of a cluster, says of itself just now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from datavern.contracts.values import Health, PoolStats
from datavern.engines.redis.cluster import Cluster
from datavern.engines.redis.wire import pack

if TYPE_CHECKING:
    from datavern.engines.redis.router import Router

__all__ = ["probe"]


async def probe(router: Router, *, pool: Callable[[], PoolStats], encrypted: bool) -> Health:
    """Ask.

    Raises:
        ProviderError: no answer.
    """
    if isinstance(router, Cluster):
        return await _of_cluster(router, pool, encrypted)
    return await _of_server(router, pool, encrypted)


async def _of_server(router: Router, pool: Callable[[], PoolStats], encrypted: bool) -> Health:
    await router.call(pack((b"PING",)), b"", True)  # connected and warm: the next answer's time is its own
    start = time.perf_counter()
    role, *rest = await router.call(pack((b"ROLE",)), b"", True)
    latency = time.perf_counter() - start
    line = next(iter(router.lines))
    hello = line.wire.hello if line.wire is not None else {}
    primary = role == b"master"
    behind = not primary and rest[2] != b"connected"
    return Health(
        "degraded" if behind else "healthy",
        role="primary" if primary else "secondary",
        latency=latency,
        version=_version(hello),
        detail="the replica is not connected to its primary" if behind else "",
        pool=pool(),
        facts={"encrypted": encrypted, "replicas": len(rest[1]) if primary else 0, "mode": "standalone"},
    )


async def _of_cluster(router: Cluster, pool: Callable[[], PoolStats], encrypted: bool) -> Health:
    nodes = await router.primaries()
    start = time.perf_counter()
    answers = await asyncio.gather(*(router.ask(node, b"CLUSTER", b"INFO") for node in nodes), return_exceptions=True)
    latency = time.perf_counter() - start
    silent = [node for node, answer in zip(nodes, answers, strict=True) if isinstance(answer, BaseException)]
    down = [n for n, a in zip(nodes, answers, strict=True) if isinstance(a, bytes) and b"cluster_state:ok" not in a]
    status = "healthy" if not silent and not down else "degraded" if len(silent) < len(nodes) else "unhealthy"
    detail = "; ".join(
        [f"{host}:{port} does not answer" for host, port in silent]
        + [f"{host}:{port} says that the cluster is down" for host, port in down]
    )
    hello = next((line.wire.hello for line in router.lines if line.wire is not None), {})
    return Health(
        status,  # type: ignore[arg-type]  # one of the three
        role="primary",
        latency=latency,
        version=_version(hello),
        detail=detail,
        pool=pool(),
        facts={"encrypted": encrypted, "mode": "cluster", "primaries": len(nodes)},
    )


def _version(hello: Mapping[Any, Any]) -> str:
    server, version = hello.get(b"server", b""), hello.get(b"version", b"")
    name = {b"valkey": "Valkey", b"redis": "Redis"}.get(server, bytes(server).decode(errors="replace"))
    return f"{name} {bytes(version).decode(errors='replace')}".strip()
