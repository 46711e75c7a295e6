"""What to make of an error while a connection is made: why, and what to do about it."""

from __future__ import annotations

from datavern.contracts.errors import ConnectionFailed, DatavernError
from datavern.engines.postgresql.errors import caused, code_of

__all__ = ["connecting"]

_REFUSALS = {
    "28P01": "the server at {where} refused the password of {user}: check username and password",
    "28000": "the server at {where} does not let {user} in from here: check username, and the server's pg_hba.conf",
    "3D000": "the server at {where} has no database {database}: check database, or create it",
    "42501": "{user} may not connect to the database {database}: GRANT CONNECT ON DATABASE",
    "53300": "the server at {where} has no connections left: lower pool.max, or raise max_connections there",
    "57P03": "the server at {where} is starting up or shutting down",
}
_FINAL = frozenset({"28P01", "28000", "3D000", "42501"})
"""Trying again does not help."""


def connecting(
    error: BaseException, *, name: str, host: str, port: int, database: str, username: str | None
) -> DatavernError:
    """What to make of an error while a connection was made: says what to do about it."""
    if isinstance(error, DatavernError):
        return error
    where = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else f"{host}:{port}"
    user = username or "the operating system's user"
    code = code_of(error)
    if code is None:
        message, final = _network_message(error)
    elif code in _REFUSALS:
        message, final = _REFUSALS[code], code in _FINAL
    else:
        message, final = f"the server at {{where}} refused the connection (SQLSTATE {code})", False
    text = message.format(where=where, user=user, database=database)
    raised = ConnectionFailed(f"{name}: {text}", provider=name, code=code, retry="never" if final else "safe")
    return caused(raised, error, code)


def _network_message(error: BaseException) -> tuple[str, bool]:
    """What to say where no server answered, and whether trying again is pointless."""
    import socket  # noqa: PLC0415  (asyncio has loaded both)
    import ssl  # noqa: PLC0415  (the same)

    final = False
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = str(getattr(error, "verify_message", "") or "not valid").replace("{", "(").replace("}", ")")
        message = (
            "the certificate of the server at {where} does not verify (" + reason + "): check host, tls.ca_file and "
            "tls.server_name"
        )
        final = True
    elif isinstance(error, ssl.SSLError):
        message = "TLS with the server at {where} failed: check tls"
        final = True
    elif isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
        message = (
            "the server at {where} does not speak TLS: turn it on there, or spell out TLS(verify='off') where the line "
            "is safe"
        )
        final = True
    elif isinstance(error, TimeoutError):
        message = "the server at {where} did not answer in time (connect_timeout)"
    elif isinstance(error, ConnectionRefusedError | FileNotFoundError):
        message = "nothing listens at {where}: check host and port, and that the server runs"
    elif isinstance(error, socket.gaierror):
        message = "the host of {where} is not known to the name service: check host"
    else:
        message = "the connection to {where} could not be made"
    return message, final
