"""The key ring in Azure Key Vault: `azure-keyvault:https://name.vault.azure.net/datavern`.

RSA keys of the vault wrap (RSA-OAEP-256); the wrapped keys are tags of the keys that wrap them. Source: Microsoft's
REST reference for keys, https://learn.microsoft.com/rest/api/keyvault/keys.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from datavern.contracts.errors import ConfigurationError
from datavern.crypto.hashicorp_vault import parted
from datavern.crypto.keyring import Destruction
from datavern.crypto.vault_ring import Vault, VaultProvider

__all__ = ["AzureKeyVaultProvider"]

_OPTIONS = frozenset({"ca_file", "hsm"})
_TIMEOUT = 10  # seconds for one request
_PIECE = 250  # characters of a tag's value: the service takes 256
_MOST = 15  # tags of a key
_SIZE = 3072  # bits
_SETTLE = 2.0  # seconds; a request that writes tags takes a part of one
_WAIT = 20.0  # seconds for a deletion to be visible as one


class AzureKeyVaultProvider(VaultProvider):
    """A ring in Azure Key Vault.

    Args:
        where: what follows ``azure-keyvault:``: the vault's address, the ring's name as its path, and after a ``?``
            what differs: ``hsm=true`` for keys in hardware, a ``ca_file``.
        credential: an azure-identity credential; ``DefaultAzureCredential()`` when None.
        settings: passed on to `azure.keyvault.keys.KeyClient`.

    Raises:
        ConfigurationError: no address, no name, or an unknown option.
    """

    __slots__ = ("_address", "_credential", "_name", "_options", "_settings")

    def __init__(self, where: str, *, credential: Any = None, **settings: Any) -> None:
        address, name, options = parted("azure-keyvault", where, _OPTIONS)
        if urlsplit(address).scheme != "https":
            raise ConfigurationError("keyring: azure-keyvault: the service speaks https alone")
        super().__init__(f"{address}/{name}")
        self._address, self._name, self._options = address, name, options
        self._credential, self._settings = credential, settings

    def _vault(self) -> Vault:
        missing = False
        try:
            from azure.keyvault.keys import KeyClient  # noqa: PLC0415  (an extra)

            credential = self._credential
            if credential is None:
                from azure.identity import DefaultAzureCredential  # noqa: PLC0415  (as above)

                credential = DefaultAzureCredential()
        except ModuleNotFoundError:
            missing = True
        if missing:
            raise ConfigurationError("keys in Azure Key Vault need its client: pip install 'datavern[azure-keyvault]'")
        settings: dict[str, Any] = {
            "connection_timeout": _TIMEOUT, "read_timeout": _TIMEOUT, "retry_total": 2, **self._settings
        }  # fmt: skip
        if "ca_file" in self._options:
            settings["connection_verify"] = self._options["ca_file"]
        client = KeyClient(self._address, credential, **settings)
        return _AzureKeyVault(client, self._name, hardware=self._options.get("hsm") == "true")


def _record(tags: Mapping[str, str] | None) -> dict[str, str] | None:
    """The record that stands in a key's tags, or None."""
    rest = dict(tags or {})
    pieces = rest.pop("pieces", "")
    if not pieces.isdecimal():
        return None
    wrapped = "".join([rest.pop(f"wrapped-{i}", "") for i in range(min(int(pieces), _MOST))])
    return {**rest, "wrapped": wrapped}


def _version_of(wrapped: str) -> str:
    """The version of the vault's key that wrapped it."""
    return base64.b64decode(wrapped).partition(b":")[0].decode()


class _AzureKeyVault:
    def __init__(self, client: Any, name: str, *, hardware: bool) -> None:
        self._client = client
        self._name = name
        self._hardware = hardware

    def _key(self, name: str) -> str:
        return f"{self._name}-{name}"

    def records(self) -> Mapping[str, Mapping[str, str]]:
        found = {}
        for properties in self._client.list_properties_of_keys():
            ring, _, name = properties.name.partition(f"{self._name}-")
            if not ring and (name == "signing" or name.startswith("epoch-")):
                found[name] = self._of_versions(name)
        ring = next((record.get("ring") for record in found.get("signing", ())), None)
        return {
            name: next((record for record in records if record.get("ring") == ring), records[0])
            for name, records in found.items()
            if records
        }

    def _of_versions(self, name: str) -> list[dict[str, str]]:
        """The records on the versions of a key, the one that was kept first first.

        Whoever makes a key makes a version of it, and writes on that alone: the service has no condition that would let
        one of two be refused. A rotation policy makes versions too, with the tags of another or with none.
        """
        versions = self._client.list_properties_of_key_versions(self._key(name))
        kept = [(one.updated_on, one.version, record) for one in versions if (record := _record(one.tags))]
        return [record for _, _, record in sorted(kept, key=lambda one: one[:2])]

    def _crypto(self, name: str, version: str) -> Any:
        return self._client.get_cryptography_client(self._key(name), key_version=version)  # over its own connections

    def wrap(self, name: str, secret: bytes) -> bytes:
        from azure.keyvault.keys.crypto import KeyWrapAlgorithm  # noqa: PLC0415  (an extra)

        made = self._client.create_rsa_key(
            self._key(name), size=_SIZE, hardware_protected=self._hardware, key_operations=["wrapKey", "unwrapKey"]
        )
        version = str(made.properties.version)
        wrapped = self._crypto(name, version).wrap_key(KeyWrapAlgorithm.rsa_oaep_256, secret).encrypted_key
        return version.encode() + b":" + bytes(wrapped)

    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        from azure.keyvault.keys.crypto import KeyWrapAlgorithm  # noqa: PLC0415  (an extra)

        version, _, rest = wrapped.partition(b":")
        return bytes(self._crypto(name, version.decode()).unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, rest).key)

    def keep(self, name: str, record: Mapping[str, str], over: Mapping[str, str] | None) -> bool:
        if next(iter(self._of_versions(name)), None) != over:
            return False
        tags = dict(record)
        wrapped = tags.pop("wrapped")
        pieces = [wrapped[at : at + _PIECE] for at in range(0, len(wrapped), _PIECE)]
        tags |= {f"wrapped-{i}": piece for i, piece in enumerate(pieces)} | {"pieces": str(len(pieces))}
        self._client.update_key_properties(self._key(name), version=_version_of(wrapped), tags=tags)
        return True

    def settle(self) -> None:
        time.sleep(_SETTLE)

    def withdraw(self, name: str, record: Mapping[str, str]) -> None:
        """Its tags go: whoever changes tags in the vault later changes which of two is first."""
        self._client.update_key_properties(self._key(name), version=_version_of(record["wrapped"]), tags={})

    def destroy(self, name: str) -> Destruction:
        from azure.core.exceptions import HttpResponseError, ResourceNotFoundError  # noqa: PLC0415  (an extra)

        key = self._key(name)
        with suppress(ResourceNotFoundError):  # it was deleted before
            self._client.begin_delete_key(key, _polling_interval=0.5).wait(_WAIT)
        try:
            deleted = self._client.get_deleted_key(key)
        except ResourceNotFoundError:
            return Destruction(gone=True, how="the vault's key was deleted and purged")
        refused = False
        try:
            self._client.purge_deleted_key(key)
            deleted = self._client.get_deleted_key(key)
        except ResourceNotFoundError:
            return Destruction(gone=True, how="the vault's key was deleted and purged")
        except HttpResponseError as error:
            if error.status_code not in (400, 403, 409):
                raise
            refused = True
        date = deleted.scheduled_purge_date
        until = None if date is None else date.isoformat()
        why = "its purge was refused (purge protection, or no permission)" if refused else "its purge is under way"
        return Destruction(
            gone=False, until=until, how=f"the vault's key is deleted, and {why}; the vault purges it by {until}"
        )

    def close(self) -> None:
        self._client.close()

    def problem(self, error: Exception) -> str | None:
        from azure.core.exceptions import AzureError, ClientAuthenticationError  # noqa: PLC0415  (an extra)

        kind = type(error).__name__
        if isinstance(error, ClientAuthenticationError):
            return f"the sign-in was refused ({kind})"
        status = getattr(error, "status_code", None)
        if isinstance(error, AzureError):
            return f"the vault answered {status} ({kind})" if status else f"the vault cannot be reached ({kind})"
        return None
