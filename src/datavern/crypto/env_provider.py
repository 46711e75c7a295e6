"""The key ring in an environment variable: `env:DATAVERN_KEY`. For development alone: it cannot destroy a key.

One random value of 32 bytes, from which all that a ring holds is derived (FORMAT.md, 15). Its one epoch stays for ever,
so there is no rotation, and nothing is ever shredded.
"""

from __future__ import annotations

import base64
import binascii
import os

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from datavern.contracts.errors import ConfigurationError
from datavern.crypto.keyring import Destruction, Secrets
from datavern.crypto.ring import KEY, Ring, RingProvider, signing_name
from datavern.crypto.signing import Signer
from datavern.crypto.xaes import XAESGCM

__all__ = ["EnvironmentProvider"]

_NO = "keys in the environment cannot be rotated or destroyed: they are for development. Use file:, or a vault"
_CREATED = "1970-01-01T00:00:00.000000Z"


class EnvironmentProvider(RingProvider):
    """A ring made of one environment variable.

    Args:
        where: what follows ``env:``: the variable's name.

    Raises:
        ConfigurationError: it is no name of a variable.
    """

    __slots__ = ("_name",)

    destroys = _NO

    def __init__(self, where: str) -> None:
        super().__init__()
        if not where.isidentifier():
            raise ConfigurationError("keyring: env: needs the name of a variable, such as env:DATAVERN_KEY")
        self._name = where

    def __repr__(self) -> str:
        return f"EnvironmentProvider({self._name!r})"

    async def _load(self) -> Ring:
        secrets = await self.secrets()
        cipher = XAESGCM(secrets.epochs[1])
        return Ring(secrets.ring_id, 1, 1, {1: cipher}, Signer(secrets.signing_name, secrets.signing_seed))

    async def create(self) -> None:
        """There is nothing to make: whoever sets the variable makes the ring. See `KeyProvider.create`."""
        await self.secrets()

    async def restore(self, secrets: Secrets) -> None:  # noqa: ARG002  (the protocol's)
        """See `KeyProvider.restore`."""
        raise ConfigurationError(_NO)

    async def add_epoch(self, number: int) -> None:  # noqa: ARG002  (the protocol's)
        """See `KeyProvider.add_epoch`."""
        raise ConfigurationError(_NO)

    async def destroy_epoch(self, number: int) -> Destruction:  # noqa: ARG002  (the protocol's)
        """See `KeyProvider.destroy_epoch`."""
        raise ConfigurationError(_NO)

    async def secrets(self) -> Secrets:
        """All that the variable stands for."""
        try:
            master = base64.b64decode(os.environ.get(self._name, ""), validate=True)
        except (binascii.Error, ValueError):
            master = b""
        if len(master) != KEY:
            raise ConfigurationError(
                f"the environment variable {self._name} holds no key: set it to 32 random bytes in base64, "
                "such as `openssl rand -base64 32` prints, and keep it"
            )
        ring_id = _derived(master, "ring", 16)
        epoch, seed = _derived(master, "epoch 1", KEY), _derived(master, "signing", KEY)
        return Secrets(ring_id, 1, {1: epoch}, {1: _CREATED}, signing_name(ring_id), signing_seed=seed)


def _derived(master: bytes, what: str, length: int) -> bytes:
    return HKDF(SHA256(), length, salt=None, info=f"datavern-environment-ring\x00{what}".encode()).derive(master)
