"""What the server's errors become: by number, without a word of what the server said."""

from __future__ import annotations

import socket
import ssl

import pytest

from datavern.contracts.errors import (
    ConfigurationError,
    ConnectionFailed,
    ConstraintViolated,
    DriverError,
    OutcomeUnknown,
    QueryRejected,
    SerializationConflict,
)
from datavern.engines.azuresql.errors import connecting, fault, missing_libraries
from datavern.engines.azuresql.numbers import TRANSIENT, TRANSIENT_LOGIN
from datavern.engines.azuresql.statements import Effect
from datavern.engines.azuresql.tds_tls import NoEncryption
from datavern.engines.azuresql.wire import Lost, Refused, Unfit, Unread, named

FACTS = {
    233, 997, 1204, 1205, 1222, 4060, 4221, 10053, 10054, 10060, 10928, 10929, 18401, 40143, 40197, 40501, 40540, 40613,
    40642, 42108, 42109, 49802, 49918, 49919, 49920, 49977, 49983,
}  # fmt: skip
"""Microsoft's lists, copied a second time."""


def refused(number: int, **more) -> Refused:
    return Refused("driver.Error", number, **more)


def of(error: Exception, stage: str = "statement", effect: Effect = Effect.WRITES):
    return fault(error, name="main", stage=stage, effect=effect)  # type: ignore[arg-type]


def test_the_list_is_microsofts():
    assert TRANSIENT == FACTS
    assert FACTS - {1204, 1205, 1222} == TRANSIENT_LOGIN


# ---- constraints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "message", "name"),
    [
        (
            2627,
            "Violation of UNIQUE KEY constraint 'people_email'. … The duplicate key value is (constraint 'x').",
            "people_email",
        ),
        (2627, "Violation of PRIMARY KEY constraint 'PK_people'. Cannot insert …", "PK_people"),
        (2601, "Cannot insert duplicate key row in object 'dbo.p' with unique index 'ux p'. The duplicate …", "ux p"),
        (547, 'The INSERT statement conflicted with the FOREIGN KEY constraint "fk". The conflict occurred …', "fk"),
        (547, 'The UPDATE statement conflicted with the CHECK constraint "grown_up". The conflict …', "grown_up"),
        (
            515,
            "Cannot insert the value NULL into column 'name', table 'db.dbo.people'; column does not …",
            "people.name",
        ),
        (515, "Cannot insert the value NULL into column 'name', table 'people'; column does not …", "people.name"),
        (2627, "Brudd på UNIQUE KEY-betingelsen", None),
        (245, "Conversion failed when converting the nvarchar value 'constraint 'x'' to data type int.", None),
    ],
)
def test_a_constraint_is_named_and_no_value(number: int, message: str, name: str | None):
    assert named(number, message) == name


@pytest.mark.parametrize("number", [2627, 2601, 547, 515])
def test_a_violation_keeps_the_connection(number: int):
    found = of(refused(number, constraint="c"))
    assert isinstance(found.error, ConstraintViolated)
    assert (found.error.constraint, found.error.code, found.error.retry) == ("c", str(number), "never")
    assert (found.connection, found.again) == ("keep", False)
    assert isinstance(found.error.__cause__, DriverError)
    assert found.error.__cause__.code == str(number)


# ---- the three scopes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", sorted(FACTS - {233, 997, 1205, 10053, 10054, 10060}))
def test_what_passes_is_tried_again_where_it_is_known_not_to_have_been_done(number: int):
    alone = of(refused(number))
    assert alone.again
    assert isinstance(alone.error, ConnectionFailed)
    assert alone.error.retry == "safe"
    inside = of(refused(number), "transaction")
    assert (inside.again, inside.error.retry) == (False, "transaction")
    batch = of(refused(number), effect=Effect.TOUCHES)
    assert (batch.again, batch.error.retry) == (False, "never")
    commit = of(refused(number), "commit")
    assert isinstance(commit.error, OutcomeUnknown)
    assert not commit.again


def test_a_deadlock_repeats_the_whole_transaction():
    alone, inside = of(refused(1205)), of(refused(1205), "transaction")
    assert isinstance(alone.error, SerializationConflict)
    assert alone.again  # a statement of its own is a whole transaction
    assert (inside.again, inside.error.retry) == (False, "transaction")
    assert inside.connection == "keep"
    for number in (3960, 41302):
        assert isinstance(of(refused(number), "transaction").error, SerializationConflict)


def test_a_busy_service_gets_its_ten_seconds():
    assert of(refused(40501)).rest == 10.0
    assert of(refused(40613)).rest == 0.0


@pytest.mark.parametrize("error", [Lost("x"), *(Refused("x", n) for n in (233, 10053, 10054, 10060))])
def test_a_connection_that_breaks(error: Exception):
    reading = of(error, effect=Effect.READS)
    assert isinstance(reading.error, ConnectionFailed)
    assert reading.again
    for effect in (Effect.WRITES, Effect.TOUCHES):
        writing = of(error, effect=effect)
        assert isinstance(writing.error, OutcomeUnknown)
        assert not writing.again
    assert isinstance(of(error, "commit").error, OutcomeUnknown)
    inside = of(error, "transaction")
    assert isinstance(inside.error, ConnectionFailed)
    assert inside.error.retry == "transaction"
    assert {reading.connection, inside.connection} == {"discard"}


@pytest.mark.parametrize("number", [40613, 40197, 40143, 40540, 42108, 42109, 4221, 3906])
def test_a_database_that_moves_takes_all_connections_with_it(number: int):
    assert of(refused(number)).connection == "renew"


def test_a_database_that_only_reads_says_so():
    found = of(refused(3906))
    assert isinstance(found.error, ConnectionFailed)
    assert "takes no writes" in str(found.error)
    assert not found.again


def test_an_error_that_ends_the_session_parts_with_the_connection():
    assert of(refused(823, severity=24)).connection == "discard"
    assert of(refused(208, severity=16)).connection == "keep"


# ---- what else -------------------------------------------------------------------------------------------------------


def test_numbers_are_said_in_words():
    assert str(of(refused(208)).error) == "main: no such table (error 208)"
    assert str(of(refused(102, line=3)).error) == "main: syntax error, in line 3 of the statement (error 102)"
    assert str(of(refused(2812)).error) == "main: no such procedure (error 2812)"
    assert str(of(refused(99999)).error) == "main: the server refused the statement (error 99999)"
    assert str(of(Refused("x", 0, sqlstate="42S02")).error) == "main: no such table (error 42S02)"
    assert isinstance(of(Refused("x", 0, sqlstate="40001")).error, SerializationConflict)
    assert isinstance(of(Refused("x", 0, sqlstate="08S01")).error, OutcomeUnknown)


def test_what_the_driver_cannot_do():
    for error in (Unfit("x"), Unread("x")):
        found = of(error)
        assert isinstance(found.error, QueryRejected)
        assert found.connection == "discard"


def test_missing_libraries_are_named_with_the_alternative():
    error = missing_libraries("main")
    assert isinstance(error, ConfigurationError)
    for word in ("libltdl7", "libkrb5-3", "libgssapi-krb5-2", "python-tds", "datavern[azuresql-tds]"):
        assert word in str(error)


# ---- connecting ------------------------------------------------------------------------------------------------------


def to_connect(error: Exception):
    return connecting(error, name="main", host="db.example", port=1433, database="app", who="kari")


@pytest.mark.parametrize(
    ("error", "says", "retry"),
    [
        (refused(18456), "refused kari: check username and password", "never"),
        (refused(18486), "is locked", "never"),
        (refused(4060), "has no database app", "safe"),
        (refused(40613), "not available just now", "safe"),
        (refused(40615), "firewall", "never"),
        (refused(49918), "no connection just now (error 49918)", "safe"),
        (refused(17), "refused the connection (error 17)", "safe"),
        (Refused("x", 0, sqlstate="28000"), "refused kari", "never"),
        (Refused("x", 0, sqlstate="HYT00"), "did not answer in time", "safe"),
        (Refused("x", 0, sqlstate="08001"), "nobody answers at db.example:1433", "safe"),
        (ConnectionRefusedError(), "nothing listens at db.example:1433", "safe"),
        (socket.gaierror(), "not known to the name service", "safe"),
        (TimeoutError(), "did not answer in time", "safe"),
        (ssl.SSLCertVerificationError("{secret}"), "does not verify", "never"),
        (ssl.SSLError(), "TLS with the server at db.example:1433 failed", "never"),
        (NoEncryption(), "does not speak TLS, and nothing is sent without it", "never"),
        (Lost("x"), "could not be made", "safe"),
    ],
)
def test_a_connection_that_cannot_be_made_says_what_to_do(error: Exception, says: str, retry: str):
    found = to_connect(error)
    assert isinstance(found, ConnectionFailed)
    assert says in str(found)
    assert found.retry == retry
    assert isinstance(found.__cause__, DriverError)


def test_an_error_of_ours_passes_as_it_is():
    error = ConfigurationError("x")
    assert to_connect(error) is error
