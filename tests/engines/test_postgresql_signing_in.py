"""Signing in to PostgreSQL: SCRAM, tokens that expire, client certificates."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from datavern import TLS, ConnectionFailed, Pool, PostgreSQLProvider
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.proxy import Certificates, TCPProxy


@pytest.fixture
async def admin(postgresql_server: PostgreSQLServer) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the superuser's."""
    connection = await asyncpg.connect(postgresql_server.url)
    yield connection
    await connection.close()


class Issuer:
    """Gives the token of the moment, as Entra and AWS do; the server takes that one alone."""

    def __init__(self, admin: asyncpg.Connection, role: str) -> None:
        self._admin = admin
        self.role = role
        self.token = ""
        self.given: list[str] = []

    async def rotate(self) -> None:
        self.token = "token-" + secrets.token_urlsafe(1500)  # as long as such tokens are
        await self._admin.execute(f"ALTER ROLE {self.role} PASSWORD '{self.token}'")

    def issue(self) -> str:
        self.given.append(self.token)
        return self.token

    async def issue_slowly(self) -> str:
        await asyncio.sleep(0.01)
        return self.issue()

    async def kick(self) -> None:
        await self._admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1", self.role
        )


@pytest.fixture
async def issuer(admin: asyncpg.Connection) -> AsyncIterator[Issuer]:
    """Tokens for a role that nobody else uses."""
    role = f"app_{secrets.token_hex(4)}"
    await admin.execute(f"CREATE ROLE {role} LOGIN")
    made = Issuer(admin, role)
    await made.rotate()
    yield made
    await made.kick()
    await admin.execute(f"DROP ROLE {role}")


def app(server: PostgreSQLServer, issuer: Issuer, password: Any, **settings: Any) -> PostgreSQLProvider:
    return PostgreSQLProvider(
        name="main", host="127.0.0.1", port=server.port, database="postgres", username=issuer.role, password=password,
        **settings,
    )  # fmt: skip


async def test_scram(postgresql_server: PostgreSQLServer, issuer: Issuer, admin: asyncpg.Connection) -> None:
    kept = await admin.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = $1", issuer.role)
    assert kept.startswith("SCRAM-SHA-256$")
    rules = await admin.fetch("SELECT DISTINCT auth_method FROM pg_hba_file_rules WHERE address = '127.0.0.1'")
    assert [r[0] for r in rules] == ["scram-sha-256"]
    async with app(postgresql_server, issuer, issuer.token) as pg:
        assert await pg.query_value("SELECT session_user") == issuer.role
    with pytest.raises(ConnectionFailed, match="refused the password") as caught:
        await app(postgresql_server, issuer, "another").connect()
    assert caught.value.retry == "never"


@pytest.mark.parametrize("kind", ["issue", "issue_slowly"])
async def test_the_pool_survives_a_rotation(postgresql_server: PostgreSQLServer, issuer: Issuer, kind: str) -> None:
    async with app(postgresql_server, issuer, getattr(issuer, kind), pool=Pool(max=3)) as pg:
        expired = issuer.token
        pid = await pg.query_value("SELECT pg_backend_pid()")
        await issuer.rotate()
        assert await pg.query_value("SELECT pg_backend_pid()") == pid, "who is in stays in"
        assert issuer.given == [expired]
        await asyncio.gather(*(pg.query("SELECT pg_sleep(0.05)") for _ in range(3)))
        assert issuer.given == [expired, issuer.token, issuer.token], "one for each connection, as it is made"
        for _ in range(3):
            await issuer.kick()
            await issuer.rotate()
            before = len(issuer.given)
            assert await pg.query_value("SELECT 1") == 1
            assert set(issuer.given[before:]) == {issuer.token}
        assert issuer.given.count(expired) == 1


async def test_a_token_that_has_expired(postgresql_server: PostgreSQLServer, issuer: Issuer) -> None:
    tokens = [issuer.token]
    await issuer.rotate()
    tokens.append(issuer.token)
    pg = app(postgresql_server, issuer, lambda: tokens.pop(0))
    with pytest.raises(ConnectionFailed, match="refused the password") as caught:
        await pg.connect()
    assert "token-" not in "".join(traceback.format_exception(caught.value))
    async with pg:  # the next connection asks anew
        assert await pg.query_value("SELECT 1") == 1


@pytest.mark.parametrize("of", ["password", "region_probe"])
async def test_what_was_cancelled_inside_it_is_a_failure_and_no_cancellation(
    postgresql_server: PostgreSQLServer, issuer: Issuer, of: str
) -> None:
    """A token that another task was to fetch: without an error here, whoever waits would wait for ever."""
    broken = True

    async def waits_for_another() -> str:
        if broken:
            fetching = asyncio.get_running_loop().create_future()
            fetching.cancel()
            await fetching
        return issuer.issue() if of == "password" else "azure:norwayeast"

    settings: dict[str, Any] = {of: waits_for_another}
    pg = app(postgresql_server, issuer, settings.pop("password", issuer.issue), location="norway", **settings)
    said = "raised CancelledError" if of == "password" else "cancelled"
    with pytest.raises(ConnectionFailed, match=said):
        await asyncio.wait_for(pg.connect(), 60)
    broken = False
    async with pg:
        assert await pg.query_value("SELECT 1") == 1
        async with pg.listen("x") as notes:
            broken = of == "password"
            await pg.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND usename = current_user"
            )
            await asyncio.sleep(0.5)
            broken = False
            assert (await asyncio.wait_for(anext(notes), 60)).missed


@pytest.mark.parametrize("how", ["raises", "raises slowly", "hangs"])
async def test_an_issuer_that_fails(
    postgresql_server: PostgreSQLServer, issuer: Issuer, admin: asyncpg.Connection, caplog: Any, how: str
) -> None:
    broken = True

    def raises() -> str:
        if broken:
            raise RuntimeError(f"no: {issuer.token}")
        return issuer.issue()

    async def raises_slowly() -> str:
        await asyncio.sleep(0)
        return raises()

    left = False

    async def hangs() -> str:
        nonlocal left
        if broken:
            try:
                await asyncio.Event().wait()
            finally:
                left = True
        return issuer.issue()

    password: Any = {"raises": raises, "raises slowly": raises_slowly, "hangs": hangs}[how]
    pg = app(postgresql_server, issuer, password, connect_timeout=0.2 if how == "hangs" else 10.0)
    with pytest.raises(ConnectionFailed, match="the password's callable") as caught:
        await pg.connect()
    assert ("did not answer in time" if how == "hangs" else "raised RuntimeError") in str(caught.value)
    assert left is (how == "hangs")
    assert caught.value.retry == "safe"
    assert issuer.token not in "".join(traceback.format_exception(caught.value)) + caplog.text + repr(pg.settings)
    seen: BaseException | None = caught.value
    while seen is not None:
        assert "token-" not in str(seen) + str(seen.__context__)
        seen = seen.__cause__
    assert await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", issuer.role) == 0
    broken = False
    pg = app(postgresql_server, issuer, password)
    async with pg:
        assert await pg.query_value("SELECT 1") == 1


# ---- client certificates --------------------------------------------------------------------------------------------


class AskingProxy(TCPProxy):
    """Takes nobody who does not show a certificate of an authority that it trusts."""

    def __init__(self, server: PostgreSQLServer, own: Certificates, trusted: Certificates) -> None:
        super().__init__(server.host, server.port, certificates=own)
        self._own, self._trusted = own, trusted
        self.shown: list[bytes | None] = []

    async def _start_tls(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _onward: asyncio.StreamWriter
    ) -> None:
        await reader.readexactly(8)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._own.cert_file, self._own.key_file)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cafile=self._trusted.ca_file)
        writer.write(b"S")
        await writer.start_tls(context)
        self.shown.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))


async def test_a_client_shows_its_certificate_and_verifies_the_server(
    postgresql_server: PostgreSQLServer, tmp_path: Path
) -> None:
    own = Certificates.make(tmp_path / "server", ["localhost"])
    client = Certificates.make(tmp_path / "client", ["app"])
    stranger = Certificates.make(tmp_path / "stranger", ["app"])
    with AskingProxy(postgresql_server, own, client) as proxy:

        def provider(**tls: Any) -> PostgreSQLProvider:
            return PostgreSQLProvider(
                host=tls.pop("host", "localhost"), port=proxy.port, database="postgres", username="postgres",
                password=postgresql_server.password, tls=TLS(ca_file=own.ca_file, **tls),
            )  # fmt: skip

        shown = {"cert_file": client.cert_file, "key_file": client.key_file}
        async with provider(**shown) as pg:
            assert await pg.query_value("SELECT 1") == 1
        assert proxy.shown == [ssl.PEM_cert_to_DER_cert(Path(client.cert_file).read_text())]

        for wrong in ({}, {"cert_file": stranger.cert_file, "key_file": stranger.key_file}):
            with pytest.raises(ConnectionFailed):
                await provider(**wrong).connect()
        with pytest.raises(ConnectionFailed, match="does not verify"):  # the certificate is for localhost alone
            await provider(host="127.0.0.1", **shown).connect()
        assert len(proxy.shown) == 1, "the others did not get in"
