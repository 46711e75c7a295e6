"""Copies of the key store: all of its tables, sealed under the ring, in one file (FORMAT.md, 13).

A rotation destroys the old epoch key only when there is a copy under the new one that was read back: whoever loses the
ledger database then loses no keys. A copy opens with the ring alone, and the ring's destroyed epochs open no copy.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from binascii import a2b_base64, b2a_base64
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, ConstraintViolated, DecryptionFailed
from datavern.contracts.values import timestamp
from datavern.crypto.documents import Labels
from datavern.crypto.key_files import flush_folder
from datavern.crypto.key_rows import TAG_KEY, data_context, lookup_context
from datavern.crypto.sealed import KEY, KEY_ID, DataKey
from datavern.crypto.segments import StreamOpener, StreamSealer
from datavern.crypto.wrapping import epoch_of

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider
    from datavern.crypto.keyring import Keyring

__all__ = ["Copy", "read_back", "restore", "write"]

_FORMAT: Final = "datavern-key-store"
_VERSION: Final = 1
_DATASET: Final = "datavern.key-store"
_CONTEXT: Final = b"key-store-copy\x00"
_CHUNK: Final = 1 << 18
_AT_ONCE: Final = 32  # rows before others get their turn: less than a millisecond
_LONGEST_HEADER: Final = 4096


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of the key store that was read back.

    Attributes:
        path: where it is.
        epoch: the epoch that everything in it is wrapped under.
        rows: table → how many.
        digest: SHA-256 of its rows, in hexadecimal.
        created_at: RFC 3339.
    """

    path: str
    epoch: int
    rows: dict[str, int]
    digest: str
    created_at: str


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


class _Count:
    """What a copy holds, counted the same way when it is written and when it is read back."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self._digest = sha256()

    def add(self, table: str, line: bytes) -> None:
        self.rows[table] = self.rows.get(table, 0) + 1
        self._digest.update(line)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


async def write(provider: Provider, keyring: Keyring, path: str | Path) -> Copy:
    """Write a copy, as the store is at one moment, and read it back. Constant memory.

    Args:
        provider: the ledger database.
        keyring: open.
        path: a file, which appears whole and read back, or not at all; one of that name is then replaced.

    Raises:
        ConfigurationError: it cannot be written there, or what was read back is not what was written.
        DecryptionFailed: a key in the store does not unwrap, so that no copy of it is good.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    problem = ""
    count = _Count()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            created = await _write(provider, keyring, file, count)
            file.flush()
            await asyncio.to_thread(os.fsync, descriptor)
        found = await read_back(draft, keyring)
        if found.digest != count.digest or found.rows != count.rows or found.created_at != created:
            raise ConfigurationError(f"what was read back from {path} is not what was written: use another disk")
        draft.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        problem = (error.strerror or type(error).__name__).lower()
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    if problem:
        raise ConfigurationError(f"the key store could not be copied to {path}: {problem}")
    return replace(found, path=str(path))


async def _write(provider: Provider, keyring: Keyring, file: BinaryIO, count: _Count) -> str:
    from datavern.crypto.tables import copied  # noqa: PLC0415  (loads SQLAlchemy)

    key_id, key = os.urandom(KEY_ID), os.urandom(KEY)
    created = timestamp()
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "ring": keyring.ring_id,
        "epoch": keyring.epoch,
        "created": created,
        "key_id": key_id.hex(),
        "key": base64.b64encode(await keyring.wrap(key, _CONTEXT)).decode(),
    }
    line = json.dumps(header, sort_keys=True).encode() + b"\n"
    sealer = StreamSealer(_DATASET, DataKey(key_id, _DATASET, None, key), _labels(line))
    file.write(line + sealer.header)
    pending = bytearray()
    dialect = needs(provider, "ledger").dialect
    transactions = needs(provider, "transactions")
    async with transactions.transaction(isolation="repeatable read", read_only=True) as tx:
        for table, statement in copied().items():
            async with tx.stream(*statement.bind(dialect)) as rows:
                async for row in rows:
                    text = _line(table, dict(row))
                    count.add(table, text)
                    pending += text
                    if count.rows[table] % _AT_ONCE == 0:
                        await asyncio.sleep(0)
                    if len(pending) >= _CHUNK:
                        file.write(sealer.update(bytes(pending)))
                        pending.clear()
    file.write(sealer.update(bytes(pending)) + sealer.finish())
    return created


def _labels(header: bytes) -> Labels:
    return Labels(
        classification="",
        location="",
        created_at=0,
        created_by=None,
        subject_tag=None,
        identity=sha256(header).digest(),
    )


def _line(table: str, row: dict[str, Any]) -> bytes:
    values = {
        name: {"b": b2a_base64(value, newline=False).decode()} if type(value) is bytes else value
        for name, value in row.items()
    }
    return _encode([table, values]).encode() + b"\n"


def _row(line: bytes) -> tuple[str, dict[str, Any]]:
    table, values = json.loads(line)
    return table, {name: a2b_base64(value["b"]) if type(value) is dict else value for name, value in values.items()}


async def _lines(path: Path, keyring: Keyring) -> AsyncIterator[tuple[dict[str, Any], bytes]]:
    """The header, and every line of the rows."""
    problem = ""
    try:
        with path.open("rb") as file:
            first = file.readline(_LONGEST_HEADER)
            header, key = await _header(first, keyring)
            opener = StreamOpener(_DATASET, _labels(first))
            opener.begin(key, file.read(_CHUNK))
            pending = bytearray(opener.update())
            while True:
                for line in _cut(pending):
                    yield header, line
                more = file.read(_CHUNK)
                if not more:
                    break
                pending += opener.update(more)
            pending += opener.finish()
            for line in _cut(pending):
                yield header, line
            if pending:
                raise DecryptionFailed
    except OSError as error:
        problem = (error.strerror or type(error).__name__).lower()
    if problem:
        raise ConfigurationError(f"the copy of the key store at {path} cannot be read: {problem}")


def _cut(pending: bytearray) -> Iterator[bytes]:
    end = pending.rfind(b"\n") + 1
    lines = bytes(pending[:end])
    del pending[:end]
    yield from lines.splitlines(keepends=True)


async def _header(line: bytes, keyring: Keyring) -> tuple[dict[str, Any], DataKey]:
    header: Any = None
    try:
        header = json.loads(line)
        wrapped, key_id = base64.b64decode(header["key"]), bytes.fromhex(header["key_id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != _FORMAT or len(key_id) != KEY_ID:
        raise ConfigurationError("this is no copy of a key store")
    if header.get("version") != _VERSION:
        raise ConfigurationError("this copy of a key store is of another version: a later Datavern reads it")
    if header.get("ring") != keyring.ring_id:
        raise ConfigurationError("this copy of a key store belongs to another key ring")
    return header, DataKey(key_id, _DATASET, None, await keyring.unwrap(wrapped, _CONTEXT))


async def read_back(path: str | Path, keyring: Keyring) -> Copy:
    """Read a copy to its end, and unwrap every key in it. Constant memory.

    Raises:
        ConfigurationError: it cannot be read, or is no copy of this ring's key store.
        DecryptionFailed: it was changed or cut, or a key in it does not unwrap.
        KeyUnavailable: it was made under an epoch that was destroyed.
    """
    count = _Count()
    epoch, created = 0, ""
    async for header, line in _lines(Path(path), keyring):
        epoch, created = header["epoch"], header["created"]
        table, row = _row(line)
        count.add(table, line)
        await _check(keyring, table, row)
        if count.rows[table] % _AT_ONCE == 0:
            await asyncio.sleep(0)
    if count.rows.get("datavern_store") != 1:
        raise DecryptionFailed("the copy of the key store lacks the store's own row")
    return Copy(str(path), epoch, count.rows, count.digest, created)


async def _check(keyring: Keyring, table: str, row: dict[str, Any]) -> None:
    wrapped, context = b"", b""
    if table == "datavern_keys" and row["wrapped"]:
        wrapped, context = row["wrapped"], data_context(row["dataset"], row["subject_tag"], row["key_id"])
    elif table == "datavern_lookup_keys":
        wrapped, context = row["wrapped"], lookup_context(row["dataset"], row["field"])
    elif table == "datavern_store":
        wrapped, context = row["tag_key"], TAG_KEY
    if wrapped:
        await keyring.unwrap(wrapped, context)
        if epoch_of(wrapped) != row["epoch"]:
            raise DecryptionFailed("a key in the copy is wrapped under another epoch than its row says")


async def restore(path: str | Path, provider: Provider, keyring: Keyring) -> Copy:
    """Fill an empty key store from a copy, all or nothing.

    The copy is read to its end first, so that one that is damaged is refused before anything is written.

    Raises:
        ConfigurationError: there is a key store already: it is never overwritten.
        DecryptionFailed, KeyUnavailable: as `read_back`.
    """
    from datavern.crypto import tables  # noqa: PLC0415  (loads SQLAlchemy)

    found = await read_back(path, keyring)
    ledger = needs(provider, "ledger")
    await ledger.create_tables(tables.key_store)
    inserts = tables.restored()
    taken = False
    try:
        async with needs(provider, "transactions").transaction(isolation="read committed") as tx:
            batch: list[dict[str, Any]] = []
            table = ""
            async for _, line in _lines(Path(path), keyring):
                name, row = _row(line)
                if batch and (name != table or len(batch) >= 1000):  # noqa: PLR2004  (a batch)
                    await tx.execute_many(*inserts[table].bind_many(ledger.dialect, batch))
                    batch = []
                table = name
                batch.append(row)
            await tx.execute_many(*inserts[table].bind_many(ledger.dialect, batch))
    except ConstraintViolated:
        taken = True
    if taken:
        raise ConfigurationError(f"there is a key store in {provider.name} already: it is never overwritten")
    return found
