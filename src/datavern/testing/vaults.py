"""Local vaults: small servers of the documented HTTP APIs that `vault:` and `azure-keyvault:` speak, with real keys.

They hold keys in memory and answer the calls that a key ring makes, and no others. What was tested against them was
tested against the API's documentation, not against the services.

    with LocalVault() as vault:
        keyring = f"vault:{vault.url}/datavern"
"""

from __future__ import annotations

import base64
import os
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datavern.testing.azure_key_vault import LocalAzureKeyVault, StaticCredential
from datavern.testing.vault_server import VaultServer

__all__ = ["LocalAzureKeyVault", "LocalVault", "StaticCredential"]


class LocalVault(VaultServer):
    """HashiCorp Vault's transit and KV version 2 engines, at ``transit`` and ``secret``.

    Attributes:
        token: what it asks for in ``X-Vault-Token``.
        keys: transit key → its AES-256 key.
        deletable: transit keys that may be deleted.
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
