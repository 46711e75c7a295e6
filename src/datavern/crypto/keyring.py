"""The key ring: the epoch keys that wrap every other key, and the key that signs.

Where the ring is kept is a provider's business (`KeyProvider`): files on a disk of their own, and vaults.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, Self

from datavern.contracts.errors import ConfigurationError, KeyUnavailable
from datavern.crypto.signing import Signer

__all__ = ["KeyProvider", "Keyring"]


class KeyProvider(Protocol):
    """A place that holds a ring. The constructor does no I/O. Nothing here may show a key, errors included.

    Attributes, once it is open:
        ring_id: 16 bytes, random, for ever the same.
        epoch: the number of the epoch key that new keys are wrapped under.
        epochs: every epoch whose key is there.
        signer: the organisation's signing key.
    """

    ring_id: bytes
    epoch: int
    epochs: frozenset[int]
    signer: Signer

    async def create(self) -> None:
        """Make a new ring, whole or not at all. Raises `ConfigurationError` where there is one already."""
        ...

    async def open(self) -> None:
        """Make the keys ready. Raises `ConfigurationError` where they are missing, exposed, damaged or too new."""
        ...

    async def close(self) -> None:
        """Let go of the keys. Idempotent."""
        ...

    async def wrap(self, key: bytes, context: bytes) -> bytes:
        """The key, encrypted under the current epoch and bound to the context."""
        ...

    async def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """The key again. Raises `KeyUnavailable` (its epoch is not there) or `DecryptionFailed`."""
        ...


_SCHEMES: dict[str, tuple[str, str]] = {"file": ("datavern.crypto.file_provider", "FileProvider")}


class Keyring:
    """The ring in use. It wraps, unwraps and signs; it never shows a key.

        keyring = await Keyring.create("file:keys")     # once, for a new installation
        keyring = Keyring.from_url("file:keys")         # from then on
        await keyring.open()

    Attributes:
        url: where the ring is.
    """

    __slots__ = ("_opened", "_provider", "url")

    def __init__(self, url: str, provider: KeyProvider) -> None:
        self.url = url
        self._provider = provider
        self._opened = False

    def __repr__(self) -> str:
        return f"Keyring({self.url!r})"

    def __reduce__(self) -> Any:
        """Keys do not leave the process in a pickle."""
        raise TypeError("a Keyring cannot be pickled")

    @classmethod
    def from_url(cls, url: str) -> Self:
        """The ring at a URL: ``file:keys`` (a folder, relative to the working directory) or ``file:/srv/keys``. No I/O.

        Raises:
            ConfigurationError: the URL names no kind of ring that is known (the message lists those that are).
        """
        scheme, colon, where = url.partition(":")
        if not colon or scheme not in _SCHEMES:
            known = ", ".join(f"{name}:" for name in sorted(_SCHEMES))
            said = f"no kind of key ring is called {scheme}:" if colon else "it names no kind of key ring"
            raise ConfigurationError(f"keyring: {said}; there are: {known} (such as file:keys, a folder)")
        module, name = _SCHEMES[scheme]
        make: Callable[[str], KeyProvider] = getattr(import_module(module), name)
        return cls(url, make(where))

    @classmethod
    async def create(cls, url: str) -> Self:
        """Make a new ring and open it.

        Raises:
            ConfigurationError: there is one already (it is never overwritten), or the place cannot hold one.
        """
        ring = cls.from_url(url)
        provider = ring._provider  # noqa: SLF001  (its own)
        await provider.create()
        await ring.open()
        return ring

    async def open(self) -> None:
        """Make the keys ready. Idempotent.

        Raises:
            ConfigurationError: the ring is missing, readable by others, of a later version, damaged or incomplete.
        """
        if not self._opened:
            await self._provider.open()
            self._opened = True

    async def close(self) -> None:
        """Drop the keys. Idempotent."""
        self._opened = False
        await self._provider.close()

    async def __aenter__(self) -> Self:
        """Open it."""
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close it."""
        await self.close()

    def _ready(self) -> KeyProvider:
        if not self._opened:
            raise KeyUnavailable("the key ring is not open")
        return self._provider

    @property
    def ring_id(self) -> str:
        """What tells this ring from every other: 32 hexadecimal digits."""
        return self._ready().ring_id.hex()

    @property
    def epoch(self) -> int:
        """The epoch that new keys are wrapped under."""
        return self._ready().epoch

    @property
    def epochs(self) -> frozenset[int]:
        """The epochs whose keys are still there."""
        return self._ready().epochs

    @property
    def signer(self) -> Signer:
        """The organisation's signing key."""
        return self._ready().signer

    async def wrap(self, key: bytes, context: bytes) -> bytes:
        """The key, encrypted under the current epoch key (XAES-256-GCM). The wrapped form names its epoch.

        Args:
            key: what to wrap.
            context: what the key is for; unwrapping asks for the same.
        """
        return await self._ready().wrap(key, context)

    async def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """The key that was wrapped.

        Raises:
            KeyUnavailable: the epoch that it was wrapped under is not in the ring.
            DecryptionFailed: it was wrapped for something else, by another ring, or has been changed.
        """
        return await self._ready().unwrap(wrapped, context)
