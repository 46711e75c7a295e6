"""A ring in memory: what every key provider wraps and unwraps with, wherever it keeps the keys."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from datavern.contracts.errors import ConfigurationError, KeyUnavailable
from datavern.contracts.values import timestamp
from datavern.crypto import wrapping
from datavern.crypto.keyring import Secrets
from datavern.crypto.signing import Signer
from datavern.crypto.xaes import XAESGCM

__all__ = ["KEY", "Ring", "RingProvider", "fingerprint", "new_secrets", "signing_name"]

KEY = 32
_AT_ONCE = 16  # keys wrapped anew before others get their turn: a third of a millisecond


@dataclass(frozen=True, slots=True)
class Ring:
    """What a provider holds while it is open.

    Attributes:
        ring_id: 16 bytes.
        generation: how often the ring was changed.
        epoch: the one that new keys are wrapped under.
        ciphers: epoch → its key, as a cipher.
        signer: the signing key.
    """

    ring_id: bytes
    generation: int
    epoch: int
    ciphers: dict[int, XAESGCM]
    signer: Signer


class RingProvider:
    """The half of a `KeyProvider` that is the same for all of them: whoever derives from it reads and changes the ring.

    Attributes:
        destroys: as for `KeyProvider`.
    """

    __slots__ = ("_ring",)

    destroys: str | None = None

    def __init__(self) -> None:
        self._ring: Ring | None = None

    async def _load(self) -> Ring:
        """Read the ring from where it is."""
        raise NotImplementedError

    def _open(self) -> Ring:
        if self._ring is None:
            raise KeyUnavailable("the key ring is not open")
        return self._ring

    async def open(self) -> None:
        """Read the ring. See `KeyProvider.open`."""
        if self._ring is None:
            self._ring = await self._load()

    async def reload(self) -> None:
        """Read it again. See `KeyProvider.reload`."""
        found = await self._load()
        known = self._open()
        if found.ring_id != known.ring_id:
            raise ConfigurationError("another key ring has taken the place of the one that is open: open it anew")
        if found.generation >= known.generation:  # what another task has read meanwhile may be newer
            self._ring = found

    async def close(self) -> None:
        """Drop the keys."""
        self._ring = None

    @property
    def ring_id(self) -> bytes:
        """16 bytes."""
        return self._open().ring_id

    @property
    def generation(self) -> int:
        """How often the ring was changed, its making included."""
        return self._open().generation

    @property
    def epoch(self) -> int:
        """The epoch that new keys are wrapped under."""
        return self._open().epoch

    @property
    def epochs(self) -> frozenset[int]:
        """The epochs whose keys are there."""
        return frozenset(self._open().ciphers)

    @property
    def signer(self) -> Signer:
        """The signing key."""
        return self._open().signer

    async def wrap(self, key: bytes, context: bytes) -> bytes:
        """See `KeyProvider.wrap`."""
        ring = self._open()
        return wrapping.wrap(ring.ciphers[ring.epoch], ring.ring_id, ring.epoch, key, context)

    async def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """See `KeyProvider.unwrap`."""
        return _unwrapped(self._open(), wrapped, context)

    async def rewrap(self, keys: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """See `KeyProvider.rewrap`."""
        ring = self._open()
        cipher, made = ring.ciphers[ring.epoch], []
        nonces = os.urandom(wrapping.NONCE * len(keys))  # a call for each costs a tenth of the whole
        for number, (wrapped, context) in enumerate(keys, 1):
            key = _unwrapped(ring, wrapped, context)
            nonce = nonces[(number - 1) * wrapping.NONCE : number * wrapping.NONCE]
            made.append(wrapping.wrap(cipher, ring.ring_id, ring.epoch, key, context, nonce=nonce))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        return made

    def _check_next(self, number: int) -> bool:
        """Whether an epoch is there already. Raises `ConfigurationError` where it is neither that nor the next one."""
        ring = self._open()
        if number in ring.ciphers and number == ring.epoch:
            return True
        if number != ring.epoch + 1:
            raise ConfigurationError(f"the next epoch of the key ring is {ring.epoch + 1}, not {number}")
        return False

    def _check_past(self, number: int) -> None:
        if number >= self._open().epoch:
            raise ConfigurationError(f"epoch {number} is in use: its key is not destroyed")


def _unwrapped(ring: Ring, wrapped: bytes, context: bytes) -> bytes:
    epoch = wrapping.epoch_of(wrapped)
    cipher = ring.ciphers.get(epoch)
    if cipher is None:
        raise KeyUnavailable(f"the key ring holds no key of epoch {epoch}")
    return wrapping.unwrap(cipher, ring.ring_id, wrapped, context)


def fingerprint(key: bytes) -> str:
    """What tells an epoch key from every other, and does not show it (FORMAT.md, 2)."""
    return sha256(b"datavern-epoch-key\x00" + key).hexdigest()


def signing_name(ring_id: bytes) -> str:
    """The name of a ring's signing key."""
    return f"datavern/{ring_id.hex()[:16]}"


def new_secrets() -> Secrets:
    """A new ring of one epoch."""
    ring_id = os.urandom(16)
    return Secrets(
        ring_id, 1, {1: os.urandom(KEY)}, {1: timestamp()}, signing_name(ring_id), signing_seed=os.urandom(KEY)
    )
