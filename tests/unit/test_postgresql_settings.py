"""Settings of a PostgreSQL provider, and its URLs: what is wrong raises before any I/O, and no secret is shown."""

from __future__ import annotations

from typing import Any

import pytest

from datavern import TLS, ConfigurationError, Pool, PostgreSQLProvider, Secret
from datavern.contracts.values import Location
from datavern.engines.postgresql.settings import parse_url

SECRET = "hunter2-planted"


def test_everything_in_a_url() -> None:
    pg = PostgreSQLProvider.from_url(
        f"postgresql://app%40x:{SECRET}%2F@db.example:6432/my%20app?application_name=me&connect_timeout=2.5&sslrootcert=ca.pem",
        location="norway",
    )
    settings = pg.settings
    assert (settings.host, settings.port, settings.username) == ("db.example", 6432, "app@x")
    assert (settings.database, settings.application_name, settings.connect_timeout) == ("my app", "me", 2.5)
    assert settings.password is not None
    assert settings.password.reveal() == f"{SECRET}/"
    assert settings.tls == TLS(verify="full", ca_file="ca.pem")
    assert pg.location is Location.NORWAY
    assert SECRET not in repr(pg) + repr(settings) + str(settings) + repr(vars(pg))


@pytest.mark.parametrize(
    ("query", "tls"),
    [
        ("", None),
        ("?sslmode=disable", TLS(verify="off")),
        ("?sslmode=require", TLS(verify="none")),
        ("?sslmode=require&sslrootcert=ca.pem", TLS(verify="ca", ca_file="ca.pem")),
        ("?sslmode=verify-ca&sslrootcert=ca.pem", TLS(verify="ca", ca_file="ca.pem")),
        ("?sslmode=verify-full", TLS(verify="full")),
        ("?sslcert=a.pem&sslkey=b.pem", TLS(cert_file="a.pem", key_file="b.pem")),
    ],
)
def test_sslmode(query: str, tls: TLS | None) -> None:
    assert parse_url(f"postgresql://db.example/app{query}").get("tls") == tls


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://db/app", "expected postgresql://"),
        ("postgresql://db:port/app", "expected postgresql://"),
        ("postgresql://db:99999/app", "expected postgresql://"),
        ("postgresql://a,b/app", "several hosts"),
        ("postgresql://me:p,w@a:5432,b:5433/app", "several hosts"),
        ("postgresql://db/app?sslmode=prefer", "falls back to no encryption"),
        ("postgresql://db/app?sslmode=allow", "falls back to no encryption"),
        ("postgresql://db/app?sslmode=never", "unknown sslmode"),
        ("postgresql://db/app?sslmode=disable&sslrootcert=x", "contradicts"),
        ("postgresql://db/app?host=other", "host"),
        ("postgresql://db/app?sslkey=x", "needs its certificate"),
        ("postgresql://db/app?target_session_attrs=any", "target_session_attrs"),
        (f"postgresql://app:{SECRET}@db", "database: missing"),
        (f"postgresql://app:{SECRET}@db/", "database: missing"),
    ],
)
def test_urls_that_are_refused(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        PostgreSQLProvider.from_url(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None or SECRET not in repr(caught.value.__cause__)


def test_a_socket_folder_in_a_url() -> None:
    settings = PostgreSQLProvider.from_url("postgresql:///app?host=/run/postgresql").settings
    assert settings.host == "/run/postgresql"
    assert settings.local
    assert settings.effective_tls.verify == "off"


def test_what_stands_beside_a_url_may_not_contradict_it() -> None:
    with pytest.raises(ConfigurationError, match="contradicts the url"):
        PostgreSQLProvider.from_url("postgresql://db/app", database="other")
    assert PostgreSQLProvider.from_url("postgresql://db/app", database="app", port=5433).settings.port == 5433
    pg = PostgreSQLProvider.from_settings("main", {"url": "postgresql://app@db/app", "password": SECRET})
    assert pg.settings.password is not None
    assert pg.settings.password.reveal() == SECRET


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"database": "x", "hots": "db"}, "databases.main.hots: unknown key; did you mean host"),
        ({"database": "x", "port": "many"}, "databases.main.port"),
        ({"database": "x", "port": 0}, "port is 0"),
        ({"database": ""}, "database is empty"),
        ({"database": "x", "host": ""}, "host is empty"),
        ({"database": "x\0y"}, "database holds a NUL"),
        ({"database": "x", "connect_timeout": 0}, "connect_timeout"),
        ({"database": "x", "statement_cache": -1}, "statement_cache"),
        ({"database": "x", "pool": {"max": 0}}, "databases.main"),
        ({"database": "x", "pool": {"maxx": 3}}, "databases.main.pool.maxx"),
        ({"database": "x", "tls": {"verify": "maybe"}}, "databases.main.tls.verify"),
        ({"database": "x", "tls": {"key_file": "k"}}, "without tls.cert_file"),
        ({"database": "x", "location": "mars"}, "databases.main.location"),
        ({"database": "x", "location": "eu", "region": "azure:norwayeast"}, "databases.main.location"),
        ({"database": "x", "compliance": ["gdpr", "pci"]}, "databases.main.compliance"),
        ({"database": "x", "host": "db", "tls": {"verify": "off"}, "compliance": ["nsm"]}, "NSM 2.7.4"),
        ({"database": "x", "host": "db", "tls": {"verify": "none"}, "compliance": ["nsm"]}, "NSM 2.7.4"),
        ({}, "databases.main.database: missing"),
    ],
)
def test_settings_that_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PostgreSQLProvider.from_settings("main", {"password": SECRET, **values})
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


def test_settings_as_a_file_has_them() -> None:
    pg = PostgreSQLProvider.from_settings(
        "main",
        {
            "provider": "postgresql",
            "database": "app",
            "region": "azure:norwayeast",
            "compliance": ["gdpr", "nsm"],
            "pool": {"min": 2, "max": 7},
            "tls": {"ca_file": "ca.pem"},
            "keyring": "file:keys",
            "host": "db.example",
        },
    )
    assert pg.settings.pool == Pool(min=2, max=7)
    assert pg.location is Location.NORWAY
    assert pg.compliance == {"gdpr", "nsm"}
    assert pg.encrypted
    assert pg.settings.tls == TLS(ca_file="ca.pem")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("/run/postgresql", True),
        ("127.evil.example", False),
        ("localhost.example", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("db.example", False),
    ],
)
def test_what_is_this_machine(host: str, local: bool) -> None:
    assert PostgreSQLProvider(host=host, database="x").settings.local is local
    pg = PostgreSQLProvider(host=host, database="x")
    assert pg.settings.effective_tls.verify == ("off" if local else "full")
    assert pg.encrypted
    explicit = PostgreSQLProvider(host=host, database="x", tls=TLS(verify="off"))
    assert explicit.encrypted is local


def test_a_secret_is_not_printed() -> None:
    for password in (SECRET, Secret(SECRET), lambda: SECRET):
        pg = PostgreSQLProvider(database="x", password=password)
        assert SECRET not in repr(pg.settings) + repr(vars(pg)) + str(pg)


def test_a_region_is_evidence_and_none_is_global() -> None:
    assert PostgreSQLProvider(database="x").location is Location.GLOBAL
    assert PostgreSQLProvider(database="x", region="aws:eu-west-2").location is Location.GLOBAL
    assert PostgreSQLProvider(database="x", region="azure:swedencentral").location is Location.EU
