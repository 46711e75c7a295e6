"""Files that hold keys: read only where nobody else may, written whole or not at all."""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
from hashlib import sha256
from pathlib import Path
from typing import Any, Never

from datavern.contracts.errors import ConfigurationError

__all__ = ["Document", "check_owner", "flush_folder", "read_document", "wipe_file", "write_document", "write_file"]

_VERSION = 1
_LONGEST = 1 << 20


class Document:
    """The fields of a key file; each reading says what it expects, and never shows what it found.

    Attributes:
        path: where it was read, for messages.
    """

    __slots__ = ("_fields", "path")

    def __init__(self, path: Path, fields: dict[str, Any]) -> None:
        self.path = path
        self._fields = fields

    def __repr__(self) -> str:
        return f"Document({str(self.path)!r})"

    def damaged(self) -> Never:
        """Raise: the file is not what was written."""
        raise ConfigurationError(f"{self.path} is damaged: restore the folder from your copy of the keys")

    def text(self, name: str) -> str:
        """A field of text."""
        value = self._fields.get(name)
        return value if isinstance(value, str) and _is_valid(value) else self.damaged()

    def number(self, name: str) -> int:
        """A field that counts from 1, and fits four bytes."""
        value = self._fields.get(name)
        if type(value) is not int or not 1 <= value < 1 << 32:
            self.damaged()
        return value

    def hexadecimal(self, name: str, size: int) -> bytes:
        """A field of so many bytes in hexadecimal."""
        value = self.text(name)
        try:
            raw = bytes.fromhex(value)
        except ValueError:
            raw = b""
        return raw if len(raw) == size and raw.hex() == value else self.damaged()

    def base64(self, name: str, size: int) -> bytes:
        """A field of so many bytes in base64."""
        value = self.text(name)
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        return raw if len(raw) == size else self.damaged()

    def entries(self, name: str) -> list[Document]:
        """A field that is a list of objects."""
        value = self._fields.get(name)
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            self.damaged()
        return [Document(self.path, entry) for entry in value]


def _is_valid(text: str) -> bool:
    """Whether it is valid Unicode, and can be written again."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def check_owner(path: Path, found: os.stat_result) -> None:
    """Refuse a key file, or a folder of them, that anybody but this process's user can reach.

    Raises:
        ConfigurationError: says which command mends it.
    """
    if os.name != "posix":
        return
    if found.st_uid != os.geteuid():
        raise ConfigurationError(f"{path} belongs to another user: chown it to the one who runs Datavern")
    if stat.S_IMODE(found.st_mode) & 0o077:
        mode = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise ConfigurationError(f"{path} can be read or changed by others: run chmod {mode} {path}")


def read_document(path: Path, kind: str, ring_id: bytes | None) -> Document:
    """A key file, checked: owner, version, damage, and that it is of this ring.

    Raises:
        ConfigurationError: one line of what is wrong and what mends it; it never quotes the file.
    """
    problem, raw = "", b""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a FIFO in its place does not hang us
        try:
            found = os.fstat(descriptor)
            check_owner(path, found)  # of what is open, not of what the name may mean a moment later
            if stat.S_ISREG(found.st_mode) and found.st_size <= _LONGEST:
                raw = os.read(descriptor, _LONGEST)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        problem = f"{path} is missing: restore the folder from your copy of the keys"
    except OSError as error:
        problem = f"{path} cannot be read: {(error.strerror or type(error).__name__).lower()}"
    if problem:
        raise ConfigurationError(problem)
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        fields = None
    document = Document(path, fields if isinstance(fields, dict) else {})
    if document.text("format") != kind:
        document.damaged()
    version = document.number("version")
    if version > _VERSION:
        raise ConfigurationError(
            f"{path} is of format version {version}, and this Datavern knows {_VERSION}: install a later Datavern"
        )
    if document.text("check") != _check(document._fields):
        document.damaged()
    if ring_id is not None and document.hexadecimal("ring", 16) != ring_id:
        raise ConfigurationError(f"{path} is of another key ring: restore the folder from one copy of the keys")
    return document


def _check(fields: dict[str, Any]) -> str:
    rest = {name: value for name, value in fields.items() if name != "check"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def write_document(path: Path, fields: dict[str, Any]) -> None:
    """A key file with its check, for its owner alone."""
    whole = {**fields, "check": _check(fields)}
    write_file(path, (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode(), mode=0o600)


def write_file(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file whole or not at all: to a temporary name, flushed, renamed, and the folder flushed after it."""
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if os.name == "posix":
                os.fchmod(descriptor, mode)  # whatever the umask
            os.fsync(descriptor)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def wipe_file(path: Path) -> None:
    """Overwrite a file in place, flush it, and remove it. Nothing where there is none.

    What it gives up is what the file system gives up: see docs/security.md on disks that write elsewhere.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        return
    try:
        size = os.fstat(descriptor).st_size
        os.write(descriptor, os.urandom(size))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path.unlink(missing_ok=True)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make a rename in the folder outlive a power cut. Windows offers nothing for it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
