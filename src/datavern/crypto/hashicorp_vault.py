"""The key ring in HashiCorp Vault: `vault:https://vault.example:8200/datavern`.

Keys of the transit engine wrap; the wrapped keys lie in the key-value engine (version 2) beside it. Source: Vault's
HTTP API, https://developer.hashicorp.com/vault/api-docs/secret/transit and .../secret/kv/kv-v2.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from datavern.contracts.errors import ConfigurationError
from datavern.crypto.keyring import Destruction
from datavern.crypto.vault_ring import Vault, VaultProvider

__all__ = ["HashiCorpVaultProvider"]

_OPTIONS = frozenset({"transit", "kv", "namespace", "ca_file"})
_TIMEOUT = 10  # seconds for one request


class HashiCorpVaultProvider(VaultProvider):
    """A ring in HashiCorp Vault.

    Args:
        where: what follows ``vault:``: the address, the ring's name as its path, and after a ``?`` what differs from
            ``transit=transit&kv=secret``: the engines' mounts, a ``namespace``, a ``ca_file``.
        token: the client's token; from ``VAULT_TOKEN`` or ``~/.vault-token`` when None, as Vault's own tools do.

    Raises:
        ConfigurationError: no address, no name, an unknown option, or a connection beyond this machine without TLS.
    """

    __slots__ = ("_address", "_name", "_options", "_token")

    def __init__(self, where: str, *, token: str | None = None) -> None:
        address, name, options = parted("vault", where, _OPTIONS)
        super().__init__(f"{address}/{name}")
        self._address, self._name, self._options, self._token = address, name, options, token

    def _vault(self) -> Vault:
        missing = False
        try:
            import hvac  # noqa: F401, PLC0415  (an extra)
        except ModuleNotFoundError:
            missing = True
        if missing:
            raise ConfigurationError("keys in HashiCorp Vault need its client: pip install 'datavern[vault]'")
        return _HashiCorpVault(self._address, self._name, self._options, self._token)


def parted(scheme: str, where: str, known: frozenset[str]) -> tuple[str, str, dict[str, str]]:
    """Address, name and options of a vault's URL.

    Raises:
        ConfigurationError: one of them is missing or unknown.
    """
    parts = urlsplit(where)
    name = parts.path.strip("/")
    example = f"{scheme}:https://vault.example/datavern"
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.fragment:
        raise ConfigurationError(f"keyring: {scheme}: needs an https address, such as {example}")
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigurationError(f"keyring: {scheme}: use https: keys do not travel unencrypted beyond this machine")
    if not name or not name.replace("-", "").isalnum() or not name.isascii():
        raise ConfigurationError(f"keyring: {scheme}: the path is the ring's name, letters and digits: {example}")
    options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ConfigurationError(f"keyring: {scheme}: {unknown[0]} is no option; there are: {', '.join(sorted(known))}")
    return f"{parts.scheme}://{parts.netloc}", name, options


class _HashiCorpVault:
    def __init__(self, address: str, name: str, options: Mapping[str, str], token: str | None) -> None:
        import hvac  # noqa: PLC0415  (an extra)

        verify: Any = options.get("ca_file") or True
        self._client: Any = hvac.Client(
            url=address, token=token, namespace=options.get("namespace"), verify=verify, timeout=_TIMEOUT
        )
        self._name = name
        self._transit, self._kv = options.get("transit", "transit"), options.get("kv", "secret")

    @property
    def _keys(self) -> Any:
        return self._client.secrets.transit

    @property
    def _values(self) -> Any:
        return self._client.secrets.kv.v2

    def _key(self, name: str) -> str:
        return f"{self._name}-{name}"

    def records(self) -> Mapping[str, Mapping[str, str]]:
        from hvac.exceptions import InvalidPath  # noqa: PLC0415  (as above)

        try:
            names = self._values.list_secrets(self._name, mount_point=self._kv)["data"]["keys"]
        except InvalidPath:
            return {}
        found = {}
        for name in names:
            try:
                found[name] = self._values.read_secret_version(
                    f"{self._name}/{name}", mount_point=self._kv, raise_on_deleted_version=True
                )["data"]["data"]
            except InvalidPath:
                continue  # a destruction is just taking it away
        return found

    def wrap(self, name: str, secret: bytes) -> bytes:
        self._keys.create_key(self._key(name), key_type="aes256-gcm96", mount_point=self._transit)  # or it is there
        plain = base64.b64encode(secret).decode()
        answer = self._keys.encrypt_data(self._key(name), plaintext=plain, mount_point=self._transit)
        return str(answer["data"]["ciphertext"]).encode()

    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        answer = self._keys.decrypt_data(self._key(name), ciphertext=wrapped.decode(), mount_point=self._transit)
        return base64.b64decode(answer["data"]["plaintext"])

    def keep(self, name: str, record: Mapping[str, str], over: Mapping[str, str] | None) -> bool:
        from hvac.exceptions import InvalidPath, InvalidRequest  # noqa: PLC0415  (as above)

        path = f"{self._name}/{name}"
        version, there = 0, None
        try:
            # A deleted version has a number too, and no data.
            found = self._values.read_secret_version(path, mount_point=self._kv, raise_on_deleted_version=False)["data"]
            version, there = found["metadata"]["version"], found["data"]
        except InvalidPath:
            pass
        if there != over:
            return False
        try:
            self._values.create_or_update_secret(path, dict(record), cas=version, mount_point=self._kv)
        except InvalidRequest as error:
            if "check-and-set" not in str(error):
                raise
            return False
        return True

    def settle(self) -> None:
        """`keep` sees everything."""

    def withdraw(self, name: str, record: Mapping[str, str]) -> None:
        """Nothing: `keep` lets one of two be."""

    def destroy(self, name: str) -> Destruction:
        from hvac.exceptions import InvalidPath, InvalidRequest  # noqa: PLC0415  (as above)

        # The record first: without it no process tries to open an epoch whose key is gone.
        self._values.delete_metadata_and_all_versions(f"{self._name}/{name}", mount_point=self._kv)
        key = self._key(name)
        gone = False
        try:
            self._keys.update_key_configuration(key, deletion_allowed=True, mount_point=self._transit)
            self._keys.delete_key(key, mount_point=self._transit)
            self._keys.read_key(key, mount_point=self._transit)
        except InvalidPath:
            gone = True
        except InvalidRequest:  # what Vault answers of a key that is not there
            gone = self._missing(key)
        if not gone:
            return Destruction(gone=False, how="the transit key is still there after its deletion")
        return Destruction(
            gone=True, how="the transit key was deleted in Vault; snapshots of Vault's own storage may keep it"
        )

    def _missing(self, key: str) -> bool:
        from hvac.exceptions import InvalidPath  # noqa: PLC0415  (as above)

        try:
            self._keys.read_key(key, mount_point=self._transit)
        except InvalidPath:
            return True
        return False

    def close(self) -> None:
        self._client.adapter.close()

    def problem(self, error: Exception) -> str | None:
        from hvac.exceptions import (  # noqa: PLC0415  (as above)
            BadGateway,
            InternalServerError,
            RateLimitExceeded,
            VaultDown,
            VaultError,
            VaultNotInitialized,
        )
        from requests.exceptions import RequestException  # noqa: PLC0415  (hvac's own client)

        kind = type(error).__name__
        if isinstance(error, RateLimitExceeded | VaultDown | InternalServerError | BadGateway | VaultNotInitialized):
            return f"the vault does not serve now ({kind}): see to it, and try again"
        if isinstance(error, VaultError):
            return f"the vault refused ({kind}): see to the token and its policy"
        return f"the vault cannot be reached ({kind})" if isinstance(error, RequestException) else None
