"""Microsoft's driver: what it is given, what becomes of its errors, and what it does here, where its libraries are."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from pytds import tds_base

from datavern import TLS
from datavern.contracts.errors import ConfigurationError, ConnectionFailed, QueryRejected
from datavern.engines.azuresql import tds
from datavern.engines.azuresql.settings import AzureSQLSettings
from datavern.engines.azuresql.wire import Lost, Refused

mssql_python = pytest.importorskip("mssql_python", reason="mssql-python has no wheel for this machine")
odbc = pytest.importorskip("datavern.engines.azuresql.odbc")


def settings(**more: Any) -> AzureSQLSettings:
    from datavern.config import Secret

    given = {"name": "main", "host": "db.example", "database": "app", "username": "app", "password": Secret("x")}
    return AzureSQLSettings(**{**given, **more})


# ---- the connection string -------------------------------------------------------------------------------------------


def test_encryption_is_always_on_and_every_value_is_only_a_value():
    text = odbc.connection_string(settings(database="a;Encrypt=no}"), password="p}w;d={")
    assert "Encrypt={yes};TrustServerCertificate={no}" in text
    assert "Database={a;Encrypt=no}}}" in text
    assert "PWD={p}}w;d={}" in text
    assert "Server={tcp:db.example,1433}" in text
    from mssql_python.connection_string_parser import _ConnectionStringParser

    found = _ConnectionStringParser(validate_keywords=True)._parse(text)
    assert found["pwd"] == "p}w;d={"
    assert found["database"] == "a;Encrypt=no}"
    assert found["encrypt"] == "yes"


def test_intent_certificate_and_token():
    text = odbc.connection_string(settings(read_only_intent=True, tls=TLS(server_name="other.example")), password="x")
    assert "ApplicationIntent={ReadOnly}" in text
    assert "HostNameInCertificate={other.example}" in text
    assert "TrustServerCertificate={yes}" in odbc.connection_string(settings(tls=TLS(verify="none")), password="x")
    from datavern.config import Secret

    token = settings(username=None, password=None, token=Secret(lambda: "t"))
    assert "UID" not in odbc.connection_string(token, password=None)


# ---- its errors ------------------------------------------------------------------------------------------------------


class Said:
    """A cursor whose handle is gone, with what the server said before."""

    hstmt = None

    def __init__(self, *said: tuple[str, str]) -> None:
        self.said = list(said)


def error(words: str = "Syntax error or access violation") -> Exception:
    return mssql_python.ProgrammingError(words, "[Microsoft][SQL Server]what it says")


def test_the_number_is_taken_from_the_diagnostic_records():
    violation = (
        "[23000] (2627)",
        "Violation of UNIQUE KEY constraint 'people_email'. The duplicate key value is (kari).",
    )
    found = odbc._translated(error(), Said(violation, ("[01000] (3621)", "The statement has been terminated.")))
    assert isinstance(found, Refused)
    assert (found.number, found.sqlstate, found.constraint) == (2627, "23000", "people_email")
    assert "kari" not in repr(found.args)
    found = odbc._translated(error(), Said(("[01000] (3621)", "terminated"), ("[40001] (1205)", "deadlocked")))
    assert found.number == 1205


@pytest.mark.parametrize(
    ("words", "kind", "state"),
    [
        ("Communication link failure", Lost, ""),
        ("Connection not open", Lost, ""),
        ("Client unable to establish connection", Refused, "08001"),
        ("Invalid authorization specification", Refused, "28000"),
        ("Timeout expired", Refused, "HYT00"),
        ("something else", Refused, "HY000"),
    ],
)
def test_where_there_are_no_records_its_words_say_which_state(words, kind, state):
    found = odbc._translated(error(words), None)
    assert isinstance(found, kind)
    assert not state or found.sqlstate == state


def test_a_library_that_is_missing_is_known_by_its_words():
    failed = mssql_python.OperationalError("Connection operation failed", "Failed to load the driver. Please read …")
    assert isinstance(odbc._translated(failed, None), odbc.NoLibraries)


async def test_missing_libraries_are_named_with_the_alternative(make, monkeypatch):
    def missing(*_: Any, **__: Any) -> None:
        raise mssql_python.OperationalError("Connection operation failed", "Failed to load the driver. Please read …")

    monkeypatch.setattr(mssql_python, "connect", missing)
    with pytest.raises(ConfigurationError, match=r"libltdl7 libkrb5-3 libgssapi-krb5-2; or use driver='python-tds'"):
        async with make(driver="mssql-python", tls=TLS()):
            pass


# ---- what it does here -----------------------------------------------------------------------------------------------


async def test_it_speaks_to_the_server_where_its_libraries_are(make):
    """Where they are not, that is said. What has parameters, it prepares in a way that this server does not know."""
    provider = make(driver="mssql-python", tls=TLS(verify="none"), retry=0)
    try:
        await provider.connect()
    except ConfigurationError as failed:
        missing = str(failed)
        assert "libltdl7" in missing
        return
    async with provider:
        assert [tuple(r) for r in await provider.query("SELECT id, name FROM people WHERE id < 3 ORDER BY id")] == [
            (1, "Åse"),
            (2, "Øystein"),
        ]
        assert (await provider.health()).role == "secondary"
        with pytest.raises(QueryRejected, match="no such table") as caught:
            await provider.query("SELECT * FROM no_such_table")
        assert caught.value.code == "208"
        async with provider.transaction() as tx, tx.savepoint():
            assert await tx.query_value("SELECT @@TRANCOUNT") == 1
        await provider.execute("CREATE TABLE #scratch (id int)")
        for _ in range(1000):
            if provider.stats().reset:
                break
            await asyncio.sleep(0.01)
        assert provider.stats().discarded == 0
        with pytest.raises(QueryRejected, match=r"error 2812|error 50000"):
            await provider.query("SELECT @P1", [1])
    with pytest.raises(ConnectionFailed) as caught_too:
        async with make(driver="mssql-python", tls=None, retry=0):
            pass
    assert "its certificate does not verify" in str(caught_too.value)


# ---- python-tds ------------------------------------------------------------------------------------------------------


class SigningIn:
    """A sign-in of python-tds that the server ends with these errors."""

    def __init__(self, *numbers: int) -> None:
        self.main_session = self
        self.messages = [{"marker": tds_base.TDS_ERROR_TOKEN, "msgno": n, "message": "kari"} for n in numbers]

    def login(self) -> None:
        error = tds_base.OperationalError("kari")
        error.number = error.msg_no = self.messages[-1]["msgno"]
        raise error


@pytest.mark.parametrize(
    ("numbers", "reason"), [((18456,), 18456), ((4060, 18456), 4060), ((40613,), 40613), ((18456, 18456), 18456)]
)
def test_the_reason_of_a_refused_sign_in_is_what_the_server_says_first(numbers, reason):
    with pytest.raises(Refused) as caught:
        tds._signed_in(SigningIn(*numbers))
    assert caught.value.number == reason
    assert "kari" not in repr(caught.value.args)


@pytest.mark.parametrize(
    "failed", [ssl.SSLError(), TimeoutError(), BrokenPipeError(), tds_base.ClosedConnectionError()]
)
def test_a_connection_that_breaks_under_python_tds_is_lost(failed):
    def work() -> None:
        raise failed

    for after in (None, lambda: None):
        with pytest.raises(Lost):
            tds._heard(work, after)
