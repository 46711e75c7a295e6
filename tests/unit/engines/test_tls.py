"""What a handshake is made with: verified as the settings say, and nobody is asked for anything."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from datavern.config import TLS
from datavern.contracts.errors import ConfigurationError
from datavern.engines.tls import client_context
from datavern.testing.proxy import Certificates


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Certificates.make(tmp_path_factory.mktemp("tls"), ["127.0.0.1"])


@pytest.mark.parametrize(
    ("verify", "mode", "named"),
    [("full", ssl.CERT_REQUIRED, True), ("ca", ssl.CERT_REQUIRED, False), ("none", ssl.CERT_NONE, False)],
)
def test_the_server_is_verified_as_the_settings_say(made, verify, mode, named):
    context = client_context(TLS(verify=verify, ca_file=made.ca_file), "main.tls", ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (mode, named)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_clients_certificate_may_stand_with_its_key(made, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(Path(made.cert_file).read_bytes() + Path(made.key_file).read_bytes())
    client_context(TLS(ca_file=made.ca_file, cert_file=str(both)), "main.tls", ssl.SSLContext)
    client_context(TLS(ca_file=made.ca_file, cert_file=made.cert_file, key_file=made.key_file), "x", ssl.SSLContext)


def test_a_key_that_is_encrypted_is_refused_and_nobody_is_asked_for_its_password(made, tmp_path):
    key = serialization.load_pem_private_key(Path(made.key_file).read_bytes(), None)
    sealed = tmp_path / "sealed.key"
    sealed.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    tls = TLS(ca_file=made.ca_file, cert_file=made.cert_file, key_file=str(sealed))
    with pytest.raises(ConfigurationError, match=r"main\.tls\.key_file: .* or the key is encrypted"):
        client_context(tls, "main.tls", ssl.SSLContext)


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_file_that_holds_no_certificate_is_named(tmp_path, content):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigurationError, match=r"main\.tls\.ca_file: cannot be read, or holds no certificate"):
        client_context(TLS(ca_file=str(file)), "main.tls", ssl.SSLContext)
