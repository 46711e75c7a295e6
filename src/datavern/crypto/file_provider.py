"""The key ring as a folder of files (FORMAT.md, 2): `file:keys`."""

from __future__ import annotations

import asyncio
import base64
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from datavern.contracts.errors import ConfigurationError, KeyUnavailable
from datavern.contracts.values import timestamp
from datavern.crypto import wrapping
from datavern.crypto.key_files import check_owner, flush_folder, read_document, write_document, write_file
from datavern.crypto.signing import Signer
from datavern.crypto.xaes import XAESGCM

__all__ = ["FileProvider"]

_RING = "datavern-keyring"
_EPOCH = "datavern-epoch-key"
_SIGNING = "datavern-signing-key"
_KEY = 32


@dataclass(frozen=True, slots=True)
class _Ring:
    ring_id: bytes
    generation: int
    epoch: int
    ciphers: dict[int, XAESGCM]
    signer: Signer


class FileProvider:
    """A ring in files that only their owner may read. Keep them on another disk than the data.

    Args:
        where: what follows ``file:``: a folder.

    Raises:
        ConfigurationError: it names none.
    """

    __slots__ = ("_folder", "_ring")

    def __init__(self, where: str) -> None:
        if where.startswith("//"):
            if not where.startswith("///"):
                raise ConfigurationError("keyring: file:// takes no host: write file:keys, or file:/srv/keys")
            where = where[2:]
        if not where or "\0" in where:
            raise ConfigurationError("keyring: file: needs a folder, such as file:keys")
        self._folder = Path(where).expanduser()
        self._ring: _Ring | None = None

    def __repr__(self) -> str:
        return f"FileProvider({str(self._folder)!r})"

    # ---- what a ring is ---------------------------------------------------------------------------------------------

    def _open(self) -> _Ring:
        if self._ring is None:
            raise KeyUnavailable("the key ring is not open")
        return self._ring

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
        ring = self._open()
        epoch = wrapping.epoch_of(wrapped)
        cipher = ring.ciphers.get(epoch)
        if cipher is None:
            raise KeyUnavailable(f"the key ring holds no key of epoch {epoch}")
        return wrapping.unwrap(cipher, ring.ring_id, wrapped, context)

    # ---- opening and making -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read the ring. See `KeyProvider.open`."""
        if self._ring is None:
            self._ring = await asyncio.to_thread(self._read)

    async def close(self) -> None:
        """Drop the keys."""
        self._ring = None

    async def create(self) -> None:
        """Make a ring of one epoch. See `KeyProvider.create`."""
        await asyncio.to_thread(self._make)

    def _read(self) -> _Ring:
        folder = self._folder
        if not folder.is_dir():
            raise ConfigurationError(
                f"there is no key ring at {folder}: make one with `datavern init`, "
                f"or `await datavern.Keyring.create('file:{folder}')`"
            )
        check_owner(folder, folder.stat())
        ring = read_document(folder / "ring.json", _RING, None)
        ring_id = ring.hexadecimal("ring", 16)
        ciphers: dict[int, XAESGCM] = {}
        for entry in ring.entries("epochs"):
            number = entry.number("epoch")
            document = read_document(folder / f"epoch-{number}.json", _EPOCH, ring_id)
            key = document.base64("key", _KEY)
            if document.number("epoch") != number or entry.text("fingerprint") != _fingerprint(key):
                raise ConfigurationError(
                    f"{document.path} is not the key that {ring.path} names: restore both together"
                )
            ciphers[number] = XAESGCM(key)
        epoch = ring.number("epoch")
        if epoch not in ciphers:
            raise ConfigurationError(f"{ring.path} is damaged: restore the folder from your copy of the keys")
        signing = read_document(folder / "signing.json", _SIGNING, ring_id)
        signer = Signer(signing.text("name"), signing.base64("key", _KEY))
        return _Ring(ring_id, ring.number("generation"), epoch, ciphers, signer)

    def _make(self) -> None:
        folder = self._folder
        if folder.is_symlink() or folder.exists():
            if (folder / "ring.json").exists():
                raise ConfigurationError(f"there is a key ring at {folder} already: it is never overwritten")
            if not folder.is_dir() or any(folder.iterdir()):
                raise ConfigurationError(f"{folder} is not an empty folder: a key ring needs one of its own")
        draft = folder.parent / f".{folder.name}.{os.urandom(8).hex()}"
        problem = ""
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            draft.mkdir(mode=0o700)
            self._write(draft)
            draft.rename(folder)  # onto nothing, or onto an empty folder: a ring is there whole, or not at all
            flush_folder(folder.parent)
        except OSError as error:
            problem = error.strerror or type(error).__name__
        finally:
            _discard(draft)
        if problem:
            raise ConfigurationError(f"a key ring could not be made at {folder}: {problem.lower()}")

    @staticmethod
    def _write(folder: Path) -> None:
        ring_id, created = os.urandom(16), timestamp()
        key, seed = os.urandom(_KEY), os.urandom(_KEY)
        name = f"datavern/{ring_id.hex()[:16]}"
        common: dict[str, Any] = {"version": 1, "ring": ring_id.hex(), "created": created}
        write_document(folder / "epoch-1.json", {"format": _EPOCH, **common, "epoch": 1, "key": _encoded(key)})
        write_document(folder / "signing.json", {"format": _SIGNING, **common, "name": name, "key": _encoded(seed)})
        write_file(folder / "verifier.txt", Signer(name, seed).verifier.encode() + b"\n", mode=0o644)
        epochs = [{"epoch": 1, "created": created, "fingerprint": _fingerprint(key)}]
        write_document(folder / "ring.json", {"format": _RING, **common, "generation": 1, "epoch": 1, "epochs": epochs})


def _fingerprint(key: bytes) -> str:
    return sha256(b"datavern-epoch-key\x00" + key).hexdigest()


def _encoded(key: bytes) -> str:
    return base64.b64encode(key).decode()


def _discard(draft: Path) -> None:
    if draft.is_dir():
        for file in draft.iterdir():
            file.unlink()
        draft.rmdir()
