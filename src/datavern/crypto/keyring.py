"""The key ring: the epoch keys that wrap every other key, and the key that signs.

Where the ring is kept is a provider's business (`KeyProvider`): files on a disk of their own, and vaults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, Self

from datavern.contracts.errors import ConfigurationError, KeyUnavailable
from datavern.crypto.signing import Signer
from datavern.crypto.wrapping import epoch_of

__all__ = ["Destruction", "KeyProvider", "Keyring", "Secrets"]


@dataclass(frozen=True, slots=True)
class Destruction:
    """How far the destruction of an epoch key is.

    Attributes:
        gone: nobody can bring it back through the place that held it.
        until: RFC 3339: until when the place keeps what it deleted (a vault's soft-delete); None where it does not say.
        how: what was done, or is still to be done, for people and for the signed statement.
    """

    gone: bool
    until: str | None = None
    how: str = ""


@dataclass(frozen=True, slots=True)
class Secrets:
    """Everything that a ring holds, for a recovery: whoever has it has every key.

    Attributes:
        ring_id: 16 bytes.
        generation: of the ring when this was read.
        epochs: epoch → 32-byte key.
        created: epoch → RFC 3339.
        signing_name: the signing key's name in signed notes.
        signing_seed: its 32-byte seed.
    """

    ring_id: bytes
    generation: int
    epochs: dict[int, bytes] = field(repr=False)
    created: dict[int, str]
    signing_name: str
    signing_seed: bytes = field(repr=False)


class KeyProvider(Protocol):
    """A place that holds a ring. The constructor does no I/O. Nothing here may show a key, errors included.

    What speaks to a network has a deadline of its own for every call, and raises `KeyUnavailable` (never a client's own
    error, which may quote a token) when the place does not answer. Everything but `create` may be called again after it
    failed or was cut off.

    Attributes, once it is open:
        ring_id: 16 bytes, random, for ever the same.
        generation: how often the ring was changed, its making included; never less than it was.
        epoch: the number of the epoch key that new keys are wrapped under.
        epochs: every epoch whose key is there.
        signer: the organisation's signing key.
        destroys: None, or why the place cannot destroy an epoch key, so that nothing is ever shredded.
    """

    ring_id: bytes
    generation: int
    epoch: int
    epochs: frozenset[int]
    signer: Signer
    destroys: str | None

    async def create(self) -> None:
        """Make a new ring, whole or not at all. Raises `ConfigurationError` where there is one already."""
        ...

    async def restore(self, secrets: Secrets) -> None:
        """Make a ring of what was recovered. Raises `ConfigurationError` where there is one already."""
        ...

    async def open(self) -> None:
        """Make the keys ready. Raises `ConfigurationError` where they are missing, exposed, damaged or too new."""
        ...

    async def reload(self) -> None:
        """Read the ring again: another process may have changed it. What was ready stays so until the new is."""
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

    async def rewrap(self, keys: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Many wrapped keys, each with its context, wrapped anew under the current epoch. Raises as `unwrap`."""
        ...

    async def add_epoch(self, number: int) -> None:
        """Make the key of that epoch and let new keys be wrapped under it. Idempotent.

        Raises:
            ConfigurationError: the number is not the next one.
        """
        ...

    async def destroy_epoch(self, number: int) -> Destruction:
        """Destroy the key of an epoch that is not the current one. Idempotent: it says how far it is by now.

        Raises:
            ConfigurationError: it is the current one, or the place cannot destroy.
        """
        ...

    async def secrets(self) -> Secrets:
        """All that the ring holds. Raises `ConfigurationError` where the place does not give it away."""
        ...


_SCHEMES: dict[str, tuple[str, str]] = {
    "azure-keyvault": ("datavern.crypto.azure_key_vault", "AzureKeyVaultProvider"),
    "env": ("datavern.crypto.env_provider", "EnvironmentProvider"),
    "file": ("datavern.crypto.file_provider", "FileProvider"),
    "vault": ("datavern.crypto.hashicorp_vault", "HashiCorpVaultProvider"),
}


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
    def register(cls, scheme: str, provider: Callable[[str], KeyProvider]) -> None:
        """Make a key provider of somebody else's known: ``Keyring.register("hsm", HSMProvider)`` for ``hsm:…``.

        Args:
            scheme: what stands before the colon of the URL.
            provider: makes a `KeyProvider` of what follows it.

        Raises:
            ConfigurationError: the scheme is one of Datavern's own, or no word.
        """
        if scheme in _SCHEMES or not scheme.replace("-", "").isalnum():
            raise ConfigurationError("a key provider's scheme is a word that is none of Datavern's own")
        _registered[scheme] = provider

    @classmethod
    def from_url(cls, url: str) -> Self:
        """The ring at a URL, without I/O (docs/keys.md has them all).

        ``file:keys`` (a folder, relative to the working directory) or ``file:/srv/keys``;
        ``vault:https://vault.example:8200/datavern``; ``azure-keyvault:https://name.vault.azure.net/datavern``;
        ``env:DATAVERN_KEYS`` for development.

        Raises:
            ConfigurationError: the URL names no kind of ring that is known (the message lists those that are).
        """
        scheme, colon, where = url.partition(":")
        if colon and scheme in _registered:
            return cls(url, _registered[scheme](where))
        if not colon or scheme not in _SCHEMES:
            known = ", ".join(f"{name}:" for name in sorted({*_SCHEMES, *_registered}))
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

    @classmethod
    async def restore(cls, url: str, secrets: Secrets) -> Self:
        """Make a ring of what was recovered (`datavern.crypto.recovery`), and open it.

        Raises:
            ConfigurationError: there is one already: it is never overwritten.
        """
        ring = cls.from_url(url)
        provider = ring._provider  # noqa: SLF001  (its own)
        await provider.restore(secrets)
        await ring.open()
        return ring

    async def open(self) -> None:
        """Make the keys ready. Idempotent.

        Raises:
            ConfigurationError: the ring is missing, readable by others, of a later version, damaged or incomplete.
            KeyUnavailable: the vault that holds it does not answer.
        """
        if not self._opened:
            await self._provider.open()
            self._opened = True

    async def reload(self) -> None:
        """Read the ring again, since another process may have rotated it.

        Raises:
            ConfigurationError, KeyUnavailable: as `open`; what was ready stays so.
        """
        await self._ready().reload()

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
    def generation(self) -> int:
        """How often the ring was changed."""
        return self._ready().generation

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

    @property
    def destroys(self) -> str | None:
        """None, or why this ring cannot destroy an epoch key."""
        return self._ready().destroys

    async def wrap(self, key: bytes, context: bytes) -> bytes:
        """The key, encrypted under the current epoch key (XAES-256-GCM). The wrapped form names its epoch.

        Args:
            key: what to wrap.
            context: what the key is for; unwrapping asks for the same.
        """
        return await self._ready().wrap(key, context)

    async def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """The key that was wrapped. A ring that another process has rotated meanwhile is read again.

        Raises:
            KeyUnavailable: the epoch that it was wrapped under is not in the ring.
            DecryptionFailed: it was wrapped for something else, by another ring, or has been changed.
        """
        provider = self._ready()
        if epoch_of(wrapped) > provider.epoch:
            await provider.reload()
        return await provider.unwrap(wrapped, context)

    async def rewrap(self, keys: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Many wrapped keys, each with its context, under the current epoch. Raises as `unwrap`."""
        return await self._ready().rewrap(keys)

    async def add_epoch(self, number: int) -> None:
        """Make the next epoch key. Idempotent. Raises `ConfigurationError` where the number is not the next one."""
        await self._ready().add_epoch(number)

    async def destroy_epoch(self, number: int) -> Destruction:
        """Destroy an epoch key that nothing is wrapped under any more. Idempotent; see `KeyProvider.destroy_epoch`."""
        return await self._ready().destroy_epoch(number)

    async def secrets(self) -> Secrets:
        """All that the ring holds, for `datavern keys export-recovery`. See `KeyProvider.secrets`."""
        return await self._ready().secrets()


_registered: dict[str, Callable[[str], KeyProvider]] = {}
