"""A local Azure Key Vault: the API of its keys, as Microsoft's REST reference has it, with real RSA keys in memory."""

from __future__ import annotations

import base64
import datetime as dt
import os
import ssl
import tempfile
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from datavern.testing.proxy import Certificates
from datavern.testing.vault_server import VaultServer

__all__ = ["LocalAzureKeyVault", "StaticCredential"]


class StaticCredential:
    """An azure-identity credential that needs no tenant: for `LocalAzureKeyVault`, which takes any token."""

    class Token(NamedTuple):
        """What the client expects of a token."""

        token: str
        expires_on: int

    def get_token(self, *scopes: str, **options: Any) -> Token:  # noqa: ARG002  (the protocol's)
        """A token that is good for an hour."""
        return self.Token("local", int(dt.datetime.now(dt.UTC).timestamp()) + 3600)


class LocalAzureKeyVault(VaultServer):
    """Azure Key Vault's keys: RSA, wrap and unwrap with RSA-OAEP-256, tags, soft-delete and purge.

    Attributes:
        purge_protected: deleted keys cannot be purged before their time.
        keys, deleted: name → key.
    """

    def __init__(self, *, purge_protected: bool = False) -> None:
        super().__init__()
        self.purge_protected = purge_protected
        self.keys: dict[str, dict[str, Any]] = {}
        self.deleted: dict[str, dict[str, Any]] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="datavern-vault-")

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self._folder.cleanup()

    @property
    def url(self) -> str:
        """Its address."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> str:
        """The certificate of its authority."""
        return str(Path(self._folder.name) / "ca.pem")

    def secure(self, server: ThreadingHTTPServer) -> None:
        """TLS with a certificate of its own."""
        made = Certificates.make(Path(self._folder.name), ["127.0.0.1"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.cert_file, made.key_file)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)

    def reply(self, method: str, path: str, data: Any, headers: Any) -> tuple[int, Any, dict[str, str]]:
        """As Microsoft's REST reference says."""
        if not headers.get("Authorization"):
            challenge = f'Bearer authorization="{self.url}/tenant", resource="{self.url}"'
            return 401, _error("Unauthorized"), {"WWW-Authenticate": challenge}
        parts = path.strip("/").split("/")
        if parts[0] == "deletedkeys":
            return (*self._deleted(method, parts[1]), {})
        if len(parts) == 1:
            return 200, {"value": [self._item(name) for name in self.keys], "nextLink": None}, {}
        return (*self._key(method, parts[1], parts[2:], data), {})

    def _key(self, method: str, name: str, rest: list[str], data: Any) -> tuple[int, Any]:  # noqa: C901, PLR0911  (a call a branch)
        if rest == ["create"]:
            if name in self.deleted:
                return 409, _error("Conflict")
            self.renew(name, data.get("tags"))
            return 200, self._bundle(name)
        key = self.keys.get(name)
        if key is None:
            return 404, _error("KeyNotFound")
        if method == "DELETE":
            self.deleted[name] = self.keys.pop(name)
            return 200, self._bundle(name)
        if rest == ["versions"]:
            versions = [key, *key["older"]]
            return 200, {"value": [self._item(name, one) for one in versions], "nextLink": None}
        key = next((one for one in (key, *key["older"]) if one["version"] == rest[0]), None) if rest else key
        if key is None:
            return 404, _error("KeyNotFound")
        if method == "PATCH":
            key["tags"], key["updated"] = data.get("tags") or {}, _now()
            return 200, self._bundle(name, key)
        oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
        if rest[-1:] == ["wrapkey"]:
            value = key["rsa"].public_key().encrypt(_from64(data["value"]), oaep)
            return 200, {"kid": self._bundle(name, key)["key"]["kid"], "value": _to64(value)}
        if rest[-1:] == ["unwrapkey"]:
            try:
                value = key["rsa"].decrypt(_from64(data["value"]), oaep)
            except ValueError:
                return 400, _error("BadParameter")
            return 200, {"kid": self._bundle(name, key)["key"]["kid"], "value": _to64(value)}
        return 200, self._bundle(name, key)

    def renew(self, name: str, tags: dict[str, str] | None = None) -> None:
        """Make a key, or a version of it, as a rotation policy does."""
        before = self.keys.get(name)
        moment = _now()
        self.keys[name] = {
            "version": os.urandom(16).hex(),
            "rsa": _rsa_key(),
            "tags": tags or {},
            "created": moment,
            "updated": moment,
            "older": [] if before is None else [before, *before["older"]],
        }

    def _deleted(self, method: str, name: str) -> tuple[int, Any]:
        if name not in self.deleted:
            return 404, _error("KeyNotFound")
        if method == "DELETE":
            if self.purge_protected:
                return 403, _error("Forbidden")
            del self.deleted[name]
            return 204, None
        return 200, self._bundle(name)

    def _item(self, name: str, key: dict[str, Any] | None = None) -> dict[str, Any]:
        bundle = self._bundle(name, key)
        kid = f"{self.url}/keys/{name}" + ("" if key is None else f"/{key['version']}")
        return {"kid": kid, "attributes": bundle["attributes"], "tags": bundle["tags"]}

    def _bundle(self, name: str, key: dict[str, Any] | None = None) -> dict[str, Any]:
        deleted = name in self.deleted
        key = key or (self.deleted[name] if deleted else self.keys[name])
        numbers = key["rsa"].public_key().public_numbers()
        moment = _now()
        bundle = {
            "key": {
                "kid": f"{self.url}/keys/{name}/{key['version']}",
                "kty": "RSA",
                "key_ops": ["wrapKey", "unwrapKey"],
                "n": _to64(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
                "e": _to64(numbers.e.to_bytes(3, "big")),
            },
            "attributes": {
                "enabled": True,
                "created": key["created"],
                "updated": key["updated"],
                "recoverableDays": 90,
            },
            "tags": key["tags"],
        }
        if deleted:
            bundle |= {
                "recoveryId": f"{self.url}/deletedkeys/{name}",
                "deletedDate": moment,
                "scheduledPurgeDate": moment + 90 * 86_400,
            }
        return bundle


def _rsa_key() -> rsa.RSAPrivateKey:
    """One of a few, and never the same twice in a row: making one takes a large part of a second."""
    if len(_RSA) < 8:  # noqa: PLR2004  (a few)
        _RSA.append(rsa.generate_private_key(public_exponent=65537, key_size=2048))  # smaller than Azure's: quicker
    else:
        _RSA.append(_RSA.pop(0))
    return _RSA[-1]


_RSA: list[rsa.RSAPrivateKey] = []


def _now() -> int:
    return int(dt.datetime.now(dt.UTC).timestamp())


def _error(code: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": code}}


def _to64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _from64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
