"""What goes wrong gets its own clear error, and no error holds a value: not in its message, its chain, or the log."""

from __future__ import annotations

import asyncio
import io
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

import datavern
from datavern import (
    TLS,
    ConfigurationError,
    ConnectionFailed,
    ConstraintViolated,
    DatavernError,
    Pool,
    PostgreSQLProvider,
    ProviderError,
    QueryRejected,
    Secret,
)
from datavern.testing import EmptyDatabase
from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.proxy import TCPProxy

PLANTED = "Kari-13097248022"

TABLES = """
CREATE TABLE people (
    id int PRIMARY KEY, name text NOT NULL, number text UNIQUE, age smallint CHECK (age < 150),
    boss int REFERENCES people, short varchar(5), born date, tags jsonb, price numeric(4, 2), span int4range,
    EXCLUDE USING gist (span WITH &&)
);
INSERT INTO people (id, name, number, span) VALUES (1, 'x', 'Kari-13097248022', '[1,5)');
CREATE FUNCTION complain(v text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no %', v; END $$;
CREATE TYPE mood AS ENUM ('glad');
"""

# statement, parameters, SQLSTATE (None: the driver refused, nothing was sent), what the message says
FAILING: list[tuple[str, list[Any], str | None, str]] = [
    ("INSERT INTO people (id, name, number) VALUES (2, 'y', $1)", [PLANTED], "23505", "people_number_key"),
    ("INSERT INTO people (id, number) VALUES (2, $1)", [PLANTED], "23502", "column name of table people"),
    ("INSERT INTO people (id, name, age) VALUES (2, $1, 151)", [PLANTED], "23514", "people_age_check"),
    ("INSERT INTO people (id, name, boss) VALUES (2, $1, 99)", [PLANTED], "23503", "people_boss_fkey"),
    ("INSERT INTO people (id, name, span) VALUES (2, $1, '[2,3)')", [PLANTED], "23P01", "people_span_excl"),
    ("UPDATE people SET short = $1", [PLANTED], "22001", "too long"),
    ("UPDATE people SET price = 12345.67", [], "22003", "out of range"),
    ("SELECT $1::text::int", [PLANTED], "22P02", "not a valid value"),
    ("SELECT $1::text::mood", [PLANTED], "22P02", "not a valid value"),
    ("SELECT $1::text::date", [PLANTED], "22007", "not a valid date"),
    ("SELECT complain($1)", [PLANTED], "P0001", "raised an error"),
    (f"SELECT '{PLANTED}' FRM people", [], "42601", "syntax error, at character 31"),
    (f'SELECT "{PLANTED}" FROM people', [], "42703", "no such column, at character 8"),
    (f'SELECT * FROM "{PLANTED}"', [], "42P01", "no such table, at character 15"),
    (f"SELECT '{PLANTED}'::int", [], "22P02", "at character 8"),
    ("SELECT nothing($1::text)", [PLANTED], "42883", "no such function"),
    ("SELECT 1 / 0, $1::text", [PLANTED], "22012", "division by zero"),
    ("SELECT $1::text, $1::int", [PLANTED], "22P02", "not a valid value"),
    ("SELECT $1::int", [PLANTED], None, "parameter $1 is not a value that fits int4"),
    ("SELECT $1::text, $2::int", [PLANTED, 2**40], None, "parameter $2 is not a value that fits int4"),
    ("SELECT $1::bigint", [2**70], None, "fits int8"),
    ("SELECT $1::date", [PLANTED], None, "fits date"),
    ("SELECT $1::uuid", [PLANTED], None, "fits uuid"),
    ("SELECT $1::bytea", [PLANTED], None, "fits bytea"),
    ("SELECT $1::int[]", [[PLANTED]], None, "fits int4[]"),
    ("SELECT $1::jsonb", [{PLANTED}], None, "fits jsonb"),
    ("SELECT $1::jsonb", [{"a": float("nan"), "b": PLANTED}], None, "fits jsonb"),
    ("SELECT $1::text", [f"{PLANTED}\ud800"], None, "fits text"),
    ("SELECT $1::text, $2::text", ["x", f"{PLANTED}\0"], "22021", "parameter $2 holds a NUL"),
    ("SELECT $1::text", [], None, "takes 1 parameter, 0 were given"),
    ("SELECT $1::text", [PLANTED, PLANTED], None, "takes 1 parameter, 2 were given"),
    ("SELECT 1", [PLANTED], None, "takes 0 parameters, 1 was given"),
    (f"SELECT '{PLANTED}\0'", [], None, "NUL character, at character 25"),
    (f"SELECT '{PLANTED}\ud800'", [], None, "half a surrogate"),
    (f"SELECT '{PLANTED}'; SELECT 2", [], "42601", "one statement was expected"),
    (f"SELECT '{PLANTED}'; SELECT $1::text", ["x"], "42601", "run them one by one, in a transaction"),
]


def everything(error: BaseException) -> str:
    """All that may ever be printed of an error: its chain, formatted; each link's state."""
    parts = traceback.format_exception(error)
    link: BaseException | None = error
    while link is not None:
        parts += [repr(link), str(link), repr(link.args), repr(link.__dict__), repr(getattr(link, "__notes__", ""))]
        assert link.__context__ is None or link.__context__ is link.__cause__, "a driver's error hides in __context__"
        link = link.__cause__
    return "".join(parts)


@pytest.fixture(autouse=True)
def nothing_planted_is_logged(logged: io.StringIO) -> Iterator[None]:
    yield
    assert PLANTED not in logged.getvalue()


@pytest.mark.parametrize("how", ["alone", "transaction", "stream", "many", "value"])
async def test_each_has_its_own_error_and_none_holds_a_value(postgresql: Any, how: str) -> None:
    await postgresql.execute(TABLES)
    for sql, parameters, code, says in FAILING:
        with pytest.raises(QueryRejected) as caught:
            await _run(postgresql, how, sql, parameters)
        error = caught.value
        assert PLANTED not in everything(error), sql
        if how != "many" or code is not None:
            assert says in str(error), (sql, str(error))
        assert error.code == code, (sql, error.code)
        assert error.retry == "never"
        assert error.provider == "main"
        if code is not None and code.startswith("23"):
            assert isinstance(error, ConstraintViolated)
    stats = postgresql.stats()
    assert stats.size - stats.idle <= 1
    assert await postgresql.query_value("SELECT count(*) FROM people") == 1


async def _run(pg: Any, how: str, sql: str, parameters: list[Any]) -> None:
    match how:
        case "alone":
            await pg.query(sql, parameters)
        case "value":
            await pg.query_value(sql, parameters)
        case "many":
            await pg.execute_many(sql, [parameters])
        case "transaction":
            async with pg.transaction() as tx:
                await tx.query(sql, parameters)
        case "stream":
            async with pg.stream(sql, parameters) as rows:
                async for _ in rows:
                    pass


async def test_position_constraint_and_code_are_attributes(postgresql: Any) -> None:
    await postgresql.execute(TABLES)
    with pytest.raises(QueryRejected) as caught:
        await postgresql.query("SELECT 'æøå', x FROM people")
    assert caught.value.position == 15
    with pytest.raises(ConstraintViolated) as violated:
        await postgresql.execute("INSERT INTO people (id, name) VALUES (1, 'x')")
    assert violated.value.constraint == "people_pkey"
    assert violated.value.code == "23505"
    cause: Any = violated.value.__cause__
    assert cause.code == "23505"
    assert cause.constraint == "people_pkey"
    assert cause.kind == "asyncpg.exceptions.UniqueViolationError"


async def test_which_set_of_many_is_wrong(postgresql: Any) -> None:
    await postgresql.execute("CREATE TABLE t (a int PRIMARY KEY, b text)")
    with pytest.raises(QueryRejected, match=r"\$1 of set 3"):
        await postgresql.execute_many("INSERT INTO t VALUES ($1, $2)", [(1, "a"), (2, "b"), (PLANTED, "c")])
    assert await postgresql.query_value("SELECT count(*) FROM t") == 0, "all or none"
    with pytest.raises(ConstraintViolated):
        await postgresql.execute_many("INSERT INTO t VALUES ($1, $2)", [(1, "a"), (2, "b"), (1, "c")])
    assert await postgresql.query_value("SELECT count(*) FROM t") == 0, "all or none"
    assert await postgresql.execute_many("INSERT INTO t VALUES ($1, $2)", [(1, "a"), (2, "b")]) == 2
    assert await postgresql.execute_many("INSERT INTO t VALUES ($1, $2)", []) == 0


@pytest.mark.parametrize("parameters", [{"a": 1}, "text", b"bytes", {1}, iter([1]), 1, None])
async def test_parameters_by_position_only(postgresql: Any, parameters: Any) -> None:
    for call in (postgresql.query, postgresql.query_one, postgresql.query_value, postgresql.execute):
        with pytest.raises(QueryRejected, match="by position"):
            await call("SELECT $1::text", parameters)
    async with postgresql.transaction() as tx:
        with pytest.raises(QueryRejected, match="by position"):
            await tx.query("SELECT $1::text", parameters)


async def test_names_with_quotes(postgresql: Any) -> None:
    await postgresql.execute("""CREATE TABLE "a ""b"" 'c' (x)" ("d ""e"" 'f" int)""")
    assert await postgresql.query("""SELECT "d ""e"" 'f" FROM "a ""b"" 'c' (x)" """) == []


async def test_an_aborted_transaction_says_so(postgresql: Any) -> None:
    with pytest.raises(QueryRejected, match="was rolled back"):
        async with postgresql.transaction() as tx:
            with pytest.raises(QueryRejected, match="division by zero"):
                await tx.query("SELECT 1 / 0")
            with pytest.raises(QueryRejected, match="only a rollback can follow"):
                await tx.query("SELECT 1")


async def test_one_transaction_two_tasks(postgresql: Any) -> None:
    async with postgresql.transaction() as tx:
        results = await asyncio.gather(
            *(tx.query_value("SELECT 1 FROM pg_sleep(0.05)") for _ in range(3)), return_exceptions=True
        )
        refused = [r for r in results if isinstance(r, QueryRejected)]
        assert len(refused) == 2
        assert all("one statement at a time" in str(r) for r in refused)
        assert await tx.query_value("SELECT 1") == 1


# ---- connecting -----------------------------------------------------------------------------------------------------


async def refused(provider: PostgreSQLProvider) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as caught:
        await provider.connect()
    assert PLANTED not in everything(caught.value)
    assert provider.stats().size == 0
    return caught.value


async def test_a_wrong_password(postgresql_database: EmptyDatabase, postgresql_server: PostgreSQLServer) -> None:
    url = postgresql_database.settings["url"].replace(str(postgresql_server.password), PLANTED)
    error = await refused(PostgreSQLProvider.from_url(url))
    assert "refused the password of postgres" in str(error)
    assert (error.code, error.retry) == ("28P01", "never")


async def test_an_unknown_database(postgresql_server: PostgreSQLServer) -> None:
    error = await refused(PostgreSQLProvider.from_url(postgresql_server.url_of("nothing {here}")))
    assert "has no database nothing {here}" in str(error)
    assert (error.code, error.retry) == ("3D000", "never")


async def test_an_unknown_user(postgresql_server: PostgreSQLServer) -> None:
    error = await refused(PostgreSQLProvider.from_url(postgresql_server.url.replace("//postgres:", "//nobody-here:")))
    assert "nobody-here" in str(error)
    assert error.retry == "never"


async def test_nothing_listens() -> None:
    with TCPProxy("127.0.0.1", 1) as proxy:
        port = proxy.port
    error = await refused(PostgreSQLProvider(host="127.0.0.1", port=port, database="x", username="x"))
    assert f"nothing listens at 127.0.0.1:{port}" in str(error)
    assert error.retry == "safe"
    error = await refused(PostgreSQLProvider(host="/nowhere", database="x", username="x"))
    assert "nothing listens at /nowhere/.s.PGSQL.5432" in str(error)


async def test_an_unknown_host() -> None:
    error = await refused(PostgreSQLProvider(host="nowhere.invalid", database="x", username="x"))
    assert "not known to the name service" in str(error)


async def test_a_server_that_does_not_answer(postgresql_server: PostgreSQLServer) -> None:
    with TCPProxy(postgresql_server.host, postgresql_server.port) as proxy:
        proxy.freeze()
        provider = PostgreSQLProvider(
            host="127.0.0.1", port=proxy.port, database="postgres", username="postgres", connect_timeout=0.1
        )
        error = await refused(provider)
    assert "did not answer in time" in str(error)


async def test_a_server_that_hangs_up(postgresql_server: PostgreSQLServer) -> None:
    with TCPProxy(postgresql_server.host, postgresql_server.port) as proxy:
        proxy.refuse()
        error = await refused(PostgreSQLProvider(host="127.0.0.1", port=proxy.port, database="x", username="x"))
    assert "could not be made" in str(error)


async def test_every_waiter_hears_of_it() -> None:
    provider = PostgreSQLProvider(host="/nowhere", database="x", username="x", pool=Pool(max=2))
    results = await asyncio.gather(*(provider.connect() for _ in range(5)), return_exceptions=True)
    assert all(isinstance(r, ConnectionFailed) for r in results)
    assert len({id(r) for r in results}) == 5


@pytest.mark.parametrize("kind", ["text", "secret", "callable", "async callable"])
async def test_passwords(postgresql_database: EmptyDatabase, postgresql_server: PostgreSQLServer, kind: str) -> None:
    asked = 0

    def fetch() -> str:
        nonlocal asked
        asked += 1
        return str(postgresql_server.password)

    async def fetch_slowly() -> str:
        await asyncio.sleep(0)
        return fetch()

    password: Any = {
        "text": fetch(),
        "secret": Secret(fetch()),
        "callable": fetch,
        "async callable": fetch_slowly,
    }[kind]
    asked = 0
    provider = PostgreSQLProvider(
        host=postgresql_server.host,
        port=postgresql_server.port,
        username="postgres",
        database="postgres",
        password=password,
        pool=Pool(min=0, max=3),
    )
    async with provider:
        await asyncio.gather(*(provider.query("SELECT pg_sleep(0.05)") for _ in range(3)))
        assert provider.stats().created == 3
    assert asked == (3 if "callable" in kind else 0)
    assert str(postgresql_server.password) not in repr(provider.settings) + repr(provider) + repr(vars(provider))


async def test_a_password_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATAVERN_NO_SUCH", raising=False)
    provider = PostgreSQLProvider(database="x", password=datavern.env("DATAVERN_NO_SUCH"))
    with pytest.raises(ConfigurationError, match="DATAVERN_NO_SUCH is not set"):
        await provider.connect()
    provider = PostgreSQLProvider(database="x", password=lambda: 42)
    with pytest.raises(ConfigurationError, match="the callable gave int"):
        await provider.connect()

    def breaks() -> str:
        raise RuntimeError(PLANTED)

    error = await refused(PostgreSQLProvider(database="x", password=breaks))
    assert "the password's callable raised RuntimeError" in str(error)


# ---- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls_server() -> Iterator[PostgreSQLServer]:
    with PostgreSQLServer(tls=True) as server:
        yield server


def with_tls(server: PostgreSQLServer, host: str = "localhost", **settings: Any) -> PostgreSQLProvider:
    return PostgreSQLProvider(
        host=host,
        port=server.tls_port,
        database="postgres",
        username="postgres",
        password=server.password,
        **settings,
    )


async def test_a_list_is_copied_and_looked_at_through_tls(tls_server: PostgreSQLServer) -> None:
    async with with_tls(tls_server, tls=TLS(ca_file=tls_server.ca_file), pool=Pool(min=1, max=1)) as pg:
        await pg.execute("CREATE TABLE copied (a int, b text)")
        rows: list[tuple[Any, ...]] = [(i, "x" * 200) for i in range(10_000)]
        assert await pg.copy_in("copied", ["a", "b"], rows) == 10_000
        rows[5_000] = (1, "x", "too many")
        with pytest.raises(QueryRejected, match="row 5001 has 3 values"):
            await pg.copy_in("copied", ["a", "b"], rows)
        assert await pg.query_value("SELECT count(*) FROM copied") == 10_000


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_tls_with_full_verification(tls_server: PostgreSQLServer, host: str) -> None:
    async with with_tls(tls_server, host, tls=TLS(ca_file=tls_server.ca_file)) as pg:
        assert pg._pool.idle[0].connection._protocol.is_ssl
        assert pg.encrypted
        sleeping = asyncio.ensure_future(pg.query("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.1)
        sleeping.cancel()  # the request to cancel goes through TLS, too
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        assert await pg.query_value("SELECT 1") == 1


async def test_tls_that_does_not_verify(tls_server: PostgreSQLServer) -> None:
    error = await refused(with_tls(tls_server, tls=TLS()))
    assert "does not verify" in str(error)
    assert error.retry == "never"
    error = await refused(with_tls(tls_server, tls=TLS(ca_file=tls_server.ca_file, server_name="db.example.no")))
    assert "does not verify" in str(error)
    assert "db.example.no" in str(error)
    error = await refused(with_tls(tls_server, tls=TLS(verify="ca")))
    assert "does not verify" in str(error)


async def test_tls_that_verifies_less(tls_server: PostgreSQLServer) -> None:
    for tls in (
        TLS(verify="ca", ca_file=tls_server.ca_file, server_name="db.example.no"),
        TLS(verify="none"),
        TLS(ca_file=tls_server.ca_file, server_name="localhost"),
    ):
        async with with_tls(tls_server, "127.0.0.1", tls=tls) as pg:
            assert pg._pool.idle[0].connection._protocol.is_ssl


async def test_tls_asked_of_a_server_without(postgresql_server: PostgreSQLServer) -> None:
    provider = PostgreSQLProvider(
        host="127.0.0.1", port=postgresql_server.port, database="postgres", username="postgres", tls=TLS()
    )
    error = await refused(provider)
    assert "does not speak TLS" in str(error)
    assert error.retry == "never"


async def test_a_certificate_file_that_is_not_there(tls_server: PostgreSQLServer, tmp_path: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"tls\.ca_file"):
        await with_tls(tls_server, tls=TLS(ca_file=str(tmp_path / "no.pem"))).connect()
    with pytest.raises(ConfigurationError, match=r"tls\.cert_file"):
        await with_tls(tls_server, tls=TLS(ca_file=tls_server.ca_file, cert_file=str(tmp_path / "no.pem"))).connect()


async def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import sys

    # What is imported meanwhile is not the package that others hold: its name leads back to theirs afterwards.
    monkeypatch.setattr(datavern.engines, "postgresql", sys.modules["datavern.engines.postgresql"])
    for name in [n for n in sys.modules if n.startswith(("asyncpg", "datavern.engines.postgresql"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    monkeypatch.delitem(vars(datavern), "PostgreSQLProvider", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install 'datavern\[postgresql\]'"):
        _ = datavern.PostgreSQLProvider
    importlib.invalidate_caches()


def test_every_error_is_of_the_tree() -> None:
    assert issubclass(ConnectionFailed, ProviderError)
    assert issubclass(ProviderError, DatavernError)
