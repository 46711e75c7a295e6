"""Local vaults: small servers of the documented HTTP APIs that `vault:` and `azure-keyvault:` speak, with real keys.

They hold keys in memory and answer the calls that a key ring makes, and no others. What was tested against them was
tested against the API's documentation, not against the services.

    with LocalVault() as vault:
        keyring = f"vault:{vault.url}/datavern"
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import os
import ssl
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import NameOID

__all__ = ["LocalAzureKeyVault", "LocalVault", "StaticCredential"]


class StaticCredential:
    """An azure-identity credential that needs no tenant: for `LocalAzureKeyVault`, which takes any token."""

    class Token(NamedTuple):
        """What the client expects of a token."""

        token: str
        expires_on: int

    def get_token(self, *scopes: str, **options: Any) -> Token:  # noqa: ARG002  (the protocol's)
        """A token that is good for an hour."""
        return self.Token("local", int(dt.datetime.now(dt.UTC).timestamp()) + 3600)


class _Server:
    """A server in a thread of its own.

    Attributes:
        down: while it is true, every connection is cut without an answer.
        down_after: so many more requests are answered, and then it is down; None for ever.
        garbage: what it answers everything with in place of its own answers; None: it does not.
        throttled: so many more requests are told to come back in a moment (429).
        held: method and the end of a path: such a request is answered when `go` is set, and not before.
        requests: how many were answered.
    """

    def __init__(self) -> None:
        self.down = False
        self.down_after: int | None = None
        self.garbage: bytes | None = None
        self.throttled = 0
        self.held: tuple[str, str] | None = None
        self.go = threading.Event()
        self.requests = 0
        self.lock = threading.RLock()
        self._http: ThreadingHTTPServer

    def __enter__(self) -> Self:
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = urlsplit(self.path).path
                if served.held is not None and self.command == served.held[0] and path.endswith(served.held[1]):
                    served.held = None
                    served.go.wait(60)
                with served.lock:
                    if served.down_after is not None:
                        served.down_after -= 1
                        served.down = served.down or served.down_after < 0
                    if served.down:
                        self.close_connection = True
                        return
                    served.requests += 1
                    data = json.loads(body) if body else {}
                    status, answer, headers = 429, {"error": {"code": "Throttled"}}, {"Retry-After": "0"}
                    if served.throttled:
                        served.throttled -= 1
                    else:
                        status, answer, headers = served.reply(self.command, path, data, self.headers)
                raw = b"" if answer is None else json.dumps(answer).encode()
                raw = raw if served.garbage is None else served.garbage
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_LIST = answer  # noqa: N815  (http.server's names)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.secure(self._http)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._http.server_address[1])

    def secure(self, server: ThreadingHTTPServer) -> None:
        """Put TLS in front of it."""

    def reply(self, method: str, path: str, data: Any, headers: Any) -> tuple[int, Any, dict[str, str]]:
        """Status, body and headers."""
        raise NotImplementedError


class LocalVault(_Server):
    """HashiCorp Vault's transit and KV version 2 engines, at ``transit`` and ``secret``.

    Attributes:
        token: what it asks for in ``X-Vault-Token``.
        keys: transit key → its AES-256 key.
        values: KV path → data.
        versions: KV path → the number of its last version.
    """

    def __init__(self, token: str = "local") -> None:  # noqa: S107  (it guards nothing)
        super().__init__()
        self.token = token
        self.keys: dict[str, bytes] = {}
        self.deletable: set[str] = set()
        self.values: dict[str, Any] = {}
        self.versions: dict[str, int] = {}

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def reply(self, method: str, path: str, data: Any, headers: Any) -> tuple[int, Any, dict[str, str]]:
        """As the documentation of Vault's API says."""
        if headers.get("X-Vault-Token") != self.token:
            return 403, {"errors": ["permission denied"]}, {}
        parts = path.removeprefix("/v1/").strip("/").split("/")
        status, answer = 404, None
        if parts[0] == "transit":
            status, answer = self._transit(method, parts[1:], data)
        elif parts[:2] == ["secret", "data"]:
            status, answer = self._data(method, "/".join(parts[2:]), data)
        elif parts[:2] == ["secret", "metadata"]:
            status, answer = self._metadata(method, "/".join(parts[2:]))
        if status >= 400:  # noqa: PLR2004  (an error)
            return status, {"errors": [] if answer is None else [answer]}, {}
        return status, answer if answer is None else {"data": answer}, {}

    def _transit(self, method: str, parts: list[str], data: Any) -> tuple[int, Any]:  # noqa: C901, PLR0911  (a call a branch)
        verb, name = parts[0], parts[1]
        if verb == "keys" and len(parts) == 3:  # noqa: PLR2004  (keys/NAME/config)
            if name not in self.keys:
                return 400, f"no existing key named {name} could be found"
            if data.get("deletion_allowed"):
                self.deletable.add(name)
            return 204, None
        if verb == "keys" and method in ("POST", "PUT"):
            self.keys.setdefault(name, os.urandom(32))
            return 204, None
        if name not in self.keys:
            return (404, None) if method == "GET" else (400, "encryption key not found")
        if verb == "keys" and method == "DELETE":
            if name not in self.deletable:
                return 400, "deletion is not allowed for this key"
            del self.keys[name]
            return 204, None
        cipher = AESGCM(self.keys[name])
        if verb == "encrypt":
            nonce = os.urandom(12)
            sealed = nonce + cipher.encrypt(nonce, base64.b64decode(data["plaintext"]), None)
            return 200, {"ciphertext": f"vault:v1:{base64.b64encode(sealed).decode()}", "key_version": 1}
        if verb == "decrypt":
            sealed = base64.b64decode(data["ciphertext"].rpartition(":")[2])
            try:
                plain = cipher.decrypt(sealed[:12], sealed[12:], None)
            except Exception:  # noqa: BLE001  (InvalidTag, or no ciphertext at all)
                return 400, "cipher: message authentication failed"
            return 200, {"plaintext": base64.b64encode(plain).decode()}
        return 200, {"name": name, "type": "aes256-gcm96", "deletion_allowed": name in self.deletable}

    def _data(self, method: str, path: str, data: Any) -> tuple[int, Any]:
        version = self.versions.get(path, 0)
        if method in ("POST", "PUT"):
            if data.get("options", {}).get("cas", version) != version:
                return 400, "check-and-set parameter did not match the current version"
            self.values[path] = data["data"]
            self.versions[path] = version + 1
            return 200, {"version": version + 1}
        if path not in self.values:
            return 404, None
        metadata = {"version": version, "deletion_time": "", "destroyed": False}
        return 200, {"data": self.values[path], "metadata": metadata}

    def _metadata(self, method: str, path: str) -> tuple[int, Any]:
        if method == "DELETE":
            self.values.pop(path, None)
            self.versions.pop(path, None)
            return 204, None
        names = [name.removeprefix(f"{path}/") for name in self.values if name.startswith(f"{path}/")]
        return (200, {"keys": sorted(names)}) if names else (404, None)


class LocalAzureKeyVault(_Server):
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
        """Its certificate."""
        return str(Path(self._folder.name) / "ca.pem")

    def secure(self, server: ThreadingHTTPServer) -> None:
        """TLS with a certificate of its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        Path(self.ca_file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = Path(self._folder.name) / "key.pem"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca_file, private)
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

    def _key(self, method: str, name: str, rest: list[str], data: Any) -> tuple[int, Any]:  # noqa: C901, PLR0911  (as above)
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
