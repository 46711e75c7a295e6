"""A client's side of TLS, as the settings ask for it: for engines whose driver takes an `ssl.SSLContext`."""

from __future__ import annotations

import ssl
from typing import TypeVar

from datavern.config import TLS
from datavern.contracts.errors import ConfigurationError

__all__ = ["client_context"]

S = TypeVar("S", bound=ssl.SSLContext)


def client_context(tls: TLS, path: str, kind: type[S]) -> S:
    """What a handshake is made with: TLS 1.2 or later, and the server verified as the settings say.

    Args:
        tls: the settings; `verify` is not "off".
        path: where they stand, for messages: ``main.tls``.
        kind: `ssl.SSLContext`, or a class of its kind.

    Raises:
        ConfigurationError: a file that cannot be read, or does not hold what it should.
    """
    context = kind(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = tls.verify == "full"
    context.verify_mode = ssl.CERT_NONE if tls.verify == "none" else ssl.CERT_REQUIRED
    problem = ""
    try:
        if tls.ca_file is not None:
            context.load_verify_locations(cafile=tls.ca_file)
        elif tls.verify != "none":
            context.load_default_certs()
    except (OSError, ValueError):  # ssl.SSLError among the first, a path with a NUL among the second
        problem = f"{path}.ca_file: cannot be read, or holds no certificate in PEM form: {tls.ca_file}"
    if tls.cert_file is not None and not problem:
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")  # nobody is asked at a terminal
        except (OSError, ValueError):
            problem = (
                f"{path}.cert_file, {path}.key_file: cannot be read, or are no certificate and key that fit, or the "
                "key is encrypted"
            )
    if problem:
        raise ConfigurationError(problem)
    return context
