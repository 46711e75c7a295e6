"""The key ring as a folder of files (FORMAT.md, 2): `file:keys`."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import timestamp
from datavern.crypto.key_files import (
    Document,
    check_owner,
    flush_folder,
    read_document,
    wipe_file,
    write_document,
    write_file,
)
from datavern.crypto.keyring import Destruction, Secrets
from datavern.crypto.ring import KEY, Ring, RingProvider, fingerprint, new_secrets
from datavern.crypto.signing import Signer
from datavern.crypto.xaes import XAESGCM

__all__ = ["FileProvider"]

_RING = "datavern-keyring"
_EPOCH = "datavern-epoch-key"
_SIGNING = "datavern-signing-key"
_WIPED = (
    "the file was overwritten and removed; a disk that writes elsewhere (SSD, snapshots) and copies of the folder may "
    "keep it"
)


class FileProvider(RingProvider):
    """A ring in files that only their owner may read. Keep them on another disk than the data.

    Args:
        where: what follows ``file:``: a folder.

    Raises:
        ConfigurationError: it names none.
    """

    __slots__ = ("_folder",)

    def __init__(self, where: str) -> None:
        super().__init__()
        if where.startswith("//"):
            if not where.startswith("///"):
                raise ConfigurationError("keyring: file:// takes no host: write file:keys, or file:/srv/keys")
            where = where[2:]
        if not where or "\0" in where:
            raise ConfigurationError("keyring: file: needs a folder, such as file:keys")
        self._folder = Path(where).expanduser()

    def __repr__(self) -> str:
        return f"FileProvider({str(self._folder)!r})"

    # ---- opening and making -----------------------------------------------------------------------------------------

    async def _load(self) -> Ring:
        return await asyncio.to_thread(self._read)

    async def create(self) -> None:
        """Make a ring of one epoch. See `KeyProvider.create`."""
        await asyncio.to_thread(self._make, new_secrets())

    async def restore(self, secrets: Secrets) -> None:
        """Make a ring of what was recovered. See `KeyProvider.restore`."""
        await asyncio.to_thread(self._make, secrets)

    async def secrets(self) -> Secrets:
        """See `KeyProvider.secrets`."""
        return await asyncio.to_thread(self._secrets)

    def _read(self) -> Ring:
        secrets, epoch = self._read_all()
        ciphers = {number: XAESGCM(key) for number, key in secrets.epochs.items()}
        return Ring(
            secrets.ring_id, secrets.generation, epoch, ciphers, Signer(secrets.signing_name, secrets.signing_seed)
        )

    def _secrets(self) -> Secrets:
        return self._read_all()[0]

    def _read_all(self) -> tuple[Secrets, int]:
        folder = self._folder
        if not folder.is_dir():
            raise ConfigurationError(
                f"there is no key ring at {folder}. If it was moved or lost, put it back: from a recovery with "
                "`datavern keys import-recovery` (a new one opens nothing that is sealed already). For a new project, "
                f"make one: `datavern init`, or `await datavern.Keyring.create('file:{folder}')`"
            )
        check_owner(folder, folder.stat())
        ring = self._document()
        while True:
            generation, epoch = ring.number("generation"), ring.number("epoch")
            problem: ConfigurationError
            try:
                return self._read_named(ring), epoch
            except ConfigurationError as error:
                problem = error
            ring = self._document()
            if ring.number("generation") == generation:
                raise problem
            # A rotation changed the folder while it was being read.

    def _document(self) -> Document:
        return read_document(self._folder / "ring.json", _RING, None)

    def _read_named(self, ring: Document) -> Secrets:
        folder, ring_id = self._folder, ring.hexadecimal("ring", 16)
        keys: dict[int, bytes] = {}
        created: dict[int, str] = {}
        for entry in ring.entries("epochs"):
            number = entry.number("epoch")
            keys[number] = self._epoch_key(ring_id, number, entry.text("fingerprint"))
            created[number] = entry.text("created")
        if ring.number("epoch") not in keys:
            raise ConfigurationError(f"{ring.path} is damaged: restore the folder from your copy of the keys")
        signing = read_document(folder / "signing.json", _SIGNING, ring_id)
        return Secrets(
            ring_id, ring.number("generation"), keys, created, signing.text("name"), signing.base64("key", KEY)
        )

    def _epoch_key(self, ring_id: bytes, number: int, expected: str | None) -> bytes:
        document = read_document(self._folder / f"epoch-{number}.json", _EPOCH, ring_id)
        key = document.base64("key", KEY)
        if document.number("epoch") != number or (expected is not None and expected != fingerprint(key)):
            raise ConfigurationError(
                f"{document.path} is not the key that {self._folder / 'ring.json'} names: restore both together"
            )
        return key

    def _make(self, secrets: Secrets) -> None:
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
            self._write(draft, secrets)
            draft.rename(folder)  # onto nothing, or onto an empty folder: a ring is there whole, or not at all
            flush_folder(folder.parent)
        except OSError as error:
            problem = error.strerror or type(error).__name__
        finally:
            _discard(draft)
        if problem:
            raise ConfigurationError(f"a key ring could not be made at {folder}: {problem.lower()}")

    @staticmethod
    def _write(folder: Path, secrets: Secrets) -> None:
        ring_id, name, seed = secrets.ring_id, secrets.signing_name, secrets.signing_seed
        for number, key in secrets.epochs.items():
            _write_epoch(folder, ring_id, number, key, secrets.created[number])
        signing = {"format": _SIGNING, **_common(ring_id, timestamp()), "name": name, "key": _encoded(seed)}
        write_document(folder / "signing.json", signing)
        write_file(folder / "verifier.txt", Signer(name, seed).verifier.encode() + b"\n", mode=0o644)
        _write_ring(folder, secrets)

    # ---- rotation ---------------------------------------------------------------------------------------------------

    async def add_epoch(self, number: int) -> None:
        """See `KeyProvider.add_epoch`."""
        await self.reload()
        if not self._check_next(number):
            await asyncio.to_thread(self._changing, self._add, number)
            await self.reload()

    async def destroy_epoch(self, number: int) -> Destruction:
        """See `KeyProvider.destroy_epoch`."""
        await self.reload()
        self._check_past(number)
        await asyncio.to_thread(self._changing, self._destroy, number)
        await self.reload()
        return Destruction(gone=True, how=_WIPED)

    def _changing(self, change: Any, number: int) -> None:
        problem = ""
        try:
            with _alone(self._folder):
                change(number)
        except OSError as error:
            problem = error.strerror or type(error).__name__
        if problem:
            raise ConfigurationError(f"the key ring at {self._folder} could not be changed: {problem.lower()}")

    def _add(self, number: int) -> None:
        secrets, epoch = self._read_all()
        if epoch >= number:
            return  # another process did
        path = self._folder / f"epoch-{number}.json"
        if path.exists():  # an addition that was cut off: nothing has been wrapped under it, or others were told of it
            key = self._epoch_key(secrets.ring_id, number, None)
        else:
            key = os.urandom(KEY)
            _write_epoch(self._folder, secrets.ring_id, number, key, timestamp())
        epochs = {**secrets.epochs, number: key}
        created = {**secrets.created, number: timestamp()}
        _write_ring(
            self._folder,
            Secrets(
                secrets.ring_id, secrets.generation + 1, epochs, created, secrets.signing_name, secrets.signing_seed
            ),
        )

    def _destroy(self, number: int) -> None:
        secrets, _ = self._read_all()
        if number in secrets.epochs:
            epochs = {n: key for n, key in secrets.epochs.items() if n != number}
            _write_ring(
                self._folder,
                Secrets(
                    secrets.ring_id,
                    secrets.generation + 1,
                    epochs,
                    secrets.created,
                    secrets.signing_name,
                    secrets.signing_seed,
                ),
            )
        # Named by no ring any more: a crash from here on leaves a file that the next try finds.
        for path in (self._folder / f"epoch-{number}.json", *self._folder.glob(f".epoch-{number}.json.*")):
            wipe_file(path)


def _common(ring_id: bytes, created: str) -> dict[str, Any]:
    return {"version": 1, "ring": ring_id.hex(), "created": created}


def _write_epoch(folder: Path, ring_id: bytes, number: int, key: bytes, created: str) -> None:
    fields = {"format": _EPOCH, **_common(ring_id, created), "epoch": number, "key": _encoded(key)}
    write_document(folder / f"epoch-{number}.json", fields)


def _write_ring(folder: Path, secrets: Secrets) -> None:
    epochs = [
        {"epoch": number, "created": secrets.created[number], "fingerprint": fingerprint(key)}
        for number, key in sorted(secrets.epochs.items())
    ]
    fields = {"generation": secrets.generation, "epoch": max(secrets.epochs), "epochs": epochs}
    write_document(folder / "ring.json", {"format": _RING, **_common(secrets.ring_id, timestamp()), **fields})


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from changing the ring meanwhile."""
    if os.name != "posix":
        yield
        return
    import fcntl  # noqa: PLC0415  (POSIX alone has it)

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _encoded(key: bytes) -> str:
    return base64.b64encode(key).decode()


def _discard(draft: Path) -> None:
    if draft.is_dir():
        for file in draft.iterdir():
            file.unlink()
        draft.rmdir()
