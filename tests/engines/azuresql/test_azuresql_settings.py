"""Settings: what they mean, what contradicts what, and what a URL holds. No I/O."""

from __future__ import annotations

import pytest

from datavern import TLS, AzureSQLProvider, env
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Location
from datavern.engines.azuresql.settings import parse_url

SQL = {"database": "app", "username": "app", "password": "hemmelig"}


def test_defaults():
    provider = AzureSQLProvider(host="kommune.database.windows.net", **SQL)
    assert provider.settings.port == 1433
    assert provider.settings.driver == "mssql-python"
    assert provider.settings.signs_in_by == "sql"
    assert provider.settings.effective_tls.verify == "full"
    assert provider.encrypted
    assert "hemmelig" not in repr(provider.settings)


def test_a_region_says_where():
    assert AzureSQLProvider(region="azure:norwayeast", **SQL).location is Location.NORWAY
    with pytest.raises(ConfigurationError, match="leave it out"):
        AzureSQLProvider(region="azure:uksouth", location="norway", **SQL)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"host": ""}, "host is empty"),
        ({"host": "server\\instance"}, "an instance has a port"),
        ({"port": 0}, "expected 1 to 65535"),
        ({"database": ""}, "database is empty"),
        ({"username": "x" * 129}, "128 at the most"),
        ({"username": "a\0b"}, "NUL"),
        ({"password": None}, "expected both for a SQL login"),
        ({"username": None}, "expected both for a SQL login"),
        ({"connect_timeout": 0}, "more than 0"),
        ({"retry": -1}, "0 or more"),
        ({"driver": "pymssql"}, "driver"),
        ({"authentication": "windows"}, "authentication"),
        ({"authentication": "entra"}, "password: contradicts"),
        ({"token": lambda: "t"}, "password: contradicts"),
        ({"authentication": "token"}, "password: contradicts"),
        ({"authentication": "token", "password": None, "username": None}, "token: expected together"),
        ({"authentication": "entra", "password": None}, "leave it out"),
        ({"tls": TLS(verify="off")}, "always encrypted"),
        ({"tls": TLS(cert_file="c.pem")}, "no client certificates"),
        ({"tls": TLS(ca_file="ca.pem")}, "driver='python-tds'"),
        ({"tls": TLS(verify="ca")}, "driver='python-tds'"),
        ({"tls": TLS(verify="none"), "host": "far.example", "compliance": ["nsm"]}, "NSM 2.7.4"),
    ],
)
def test_wrong_settings_say_what_to_do(settings, says):
    with pytest.raises(ConfigurationError, match=says) as caught:
        AzureSQLProvider(**{**SQL, **settings})
    assert "hemmelig" not in str(caught.value)


def test_ways_to_sign_in():
    assert AzureSQLProvider(database="app", token=lambda: "t").settings.signs_in_by == "token"
    managed = AzureSQLProvider(database="app", authentication="managed-identity", username="client-id")
    assert managed.settings.signs_in_by == "managed-identity"
    assert AzureSQLProvider(database="app", authentication="entra").settings.signs_in_by == "entra"
    assert AzureSQLProvider(database="app", username="a", password=env("X")).settings.signs_in_by == "sql"


def test_a_url():
    found = parse_url("mssql://app:p%40ss@db.example:1444/my%20app?driver=python-tds&intent=readonly&ca_file=ca.pem")
    assert found["password"].reveal() == "p@ss"
    del found["password"]
    assert found == {
        "host": "db.example",
        "port": 1444,
        "username": "app",
        "database": "my app",
        "driver": "python-tds",
        "read_only_intent": True,
        "tls": TLS(ca_file="ca.pem"),
    }
    provider = AzureSQLProvider.from_url("mssql://app:secret@db.example/app", location="norway", name="cases")
    assert (provider.name, provider.settings.host) == ("cases", "db.example")
    assert parse_url("mssql://a:b@c/d?trust=yes")["tls"] == TLS(verify="none")


@pytest.mark.parametrize(
    ("url", "more", "says"),
    [
        ("postgresql://a:secret@b/c", {}, "expected mssql://"),
        ("mssql://a:secret@b:notaport/c", {}, "expected mssql://"),
        ("mssql://a:secret@b/c?encrypt=no", {}, "encrypt is not understood"),
        ("mssql://a:secret@b/c?intent=maybe", {}, "intent is not understood"),
        ("mssql://a:secret@b", {}, "database: missing"),
        ("mssql://a:secret@b/c", {"port": 2}, ""),
        ("mssql://a:secret@b:1/c", {"port": 2}, "contradicts the url"),
    ],
)
def test_a_wrong_url_says_so_and_keeps_its_password(url, more, says):
    if not says:
        AzureSQLProvider.from_settings("main", {"url": url, **more})
        return
    with pytest.raises(ConfigurationError, match=says) as caught:
        AzureSQLProvider.from_settings("main", {"url": url, **more})
    assert "secret" not in str(caught.value)


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean driver"):
        AzureSQLProvider.from_settings("main", {**SQL, "drivr": "python-tds"})
