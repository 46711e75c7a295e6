"""Why no server could be had, as well as it can be told: the hosts are asked once more, each by itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError, ServerSelectionTimeoutError

from datavern.contracts.errors import ConfigurationError, ConnectionFailed, DriverError, ProviderError
from datavern.engines.mongodb.errors import translate

if TYPE_CHECKING:
    from datavern.engines.mongodb.settings import URI, MongoDBSettings

__all__ = ["explain_no_server"]

_PROBE: Final = 2.0  # seconds for a question whose answer only makes a message better
_PORT: Final = 27017
_OTHER_NAME: Final = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_EXPIRED: Final = frozenset({9, 10})  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


async def explain_no_server(
    error: PyMongoError, settings: MongoDBSettings, uri: URI, options: Mapping[str, Any]
) -> BaseException:
    """Datavern's error for a client that found no server.

    Args:
        error: what PyMongo said.
        settings: the provider's.
        uri: its URI.
        options: the client's options.
    """
    ours = translate(error, provider=settings.name)
    if not isinstance(error, ServerSelectionTimeoutError):
        return ours
    wanted = settings.replication.replica_set or uri.options.get("replicaset")
    hosts = ", ".join(f"{host}:{port}" if port else host for host, port in uri.hosts)
    tls = {name: value for name, value in options.items() if name.startswith("tls")}
    tls = {name: value for name, value in uri.options.items() if name.startswith("tls")} | tls
    host, port = uri.hosts[0]
    hint = "" if uri.srv else await _reach(host, port or _PORT, {k.lower(): v for k, v in tls.items()})
    found = None if uri.srv or hint else await _ask(uri, tls)
    if wanted is not None and found is not None and found.get("setName") != wanted:
        actual = found.get("setName")
        is_in = f"is in the replica set {actual}" if actual else "is in no replica set"
        failed: BaseException = ConfigurationError(
            f"databases.{settings.name}: the replica set is called {wanted} here, and the server "
            f"{found.get('me') or hosts} {is_in}"
        )
    elif found is not None:
        failed = ConnectionFailed(
            f"{settings.name}: {hosts} answers, and has no member that takes this: no primary, or none that fits the "
            "read preference",
            provider=settings.name,
        )
    else:
        if not uri.srv and not hint and tls.get("tls"):
            hint = "TLS is agreed, then nothing comes: is a client certificate wanted?"
        text = f"{settings.name}: no server answered at {hosts} in {settings.connect_timeout:g} s"
        failed = ConnectionFailed(text + (f": {hint}" if hint else ""), provider=settings.name)
    failed.__cause__ = ours.__cause__ if isinstance(ours, ProviderError) else DriverError.of(error)
    return failed


async def _ask(uri: URI, tls: Mapping[str, Any]) -> dict[str, Any] | None:
    """Hello of the first host that answers, asked without a replica set in mind."""
    patience = round(_PROBE * 1000)
    for host, port in uri.hosts:
        probe: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            host,
            port or _PORT,
            directConnection=True,
            serverSelectionTimeoutMS=patience,
            connectTimeoutMS=patience,
            **tls,
        )
        try:
            return dict(await probe.admin.command("hello"))
        except PyMongoError:
            continue
        finally:
            await probe.close()
    return None


async def _reach(host: str, port: int, tls: Mapping[str, Any]) -> str:
    """What stops one on the way to a host: its name, its port, its TLS; empty when nothing does."""
    if host.startswith("/"):
        return ""
    problem = await _try(host, port, None)
    if problem:
        return problem
    if not tls.get("tls"):
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname = False
        anybody.verify_mode = ssl.CERT_NONE
        speaks = not await _try(host, port, anybody)
        return "the server speaks TLS, and the settings do not ask for it" if speaks else ""
    context = ssl.create_default_context(cafile=tls.get("tlscafile"))
    context.check_hostname = not tls.get("tlsallowinvalidhostnames")
    if tls.get("tlsallowinvalidcertificates") or tls.get("tlsinsecure"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.get("tlscertificatekeyfile"):
        context.load_cert_chain(tls["tlscertificatekeyfile"])
    return await _try(host, port, context)


async def _try(host: str, port: int, context: ssl.SSLContext | None) -> str:  # noqa: PLR0911  (one return for each cause)
    """What stops a connection; empty when nothing does."""
    try:
        async with asyncio.timeout(_PROBE):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _OTHER_NAME:
            return "the certificate is for another name"
        if error.verify_code in _EXPIRED:
            return "the certificate has expired, or is not valid yet"
        return "the certificate is not from an authority that is trusted here (tls.ca_file)"
    except ssl.SSLError:
        return "the TLS handshake failed"
    except TimeoutError:
        return "it does not answer" if context is None else "no answer to the TLS handshake: does the server speak TLS?"
    except socket.gaierror:
        return "the host's name is not known"
    except ConnectionRefusedError:
        return "nothing listens there"
    except OSError:
        return "the network does not lead there" if context is None else "the server ended the TLS handshake"
    return ""
