"""SQLite's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from datavern.config import ProviderSettings
from datavern.contracts.errors import ConfigurationError

__all__ = ["MEMORY", "SQLiteSettings", "parse_url"]

MEMORY = ":memory:"


@dataclass(frozen=True, slots=True, kw_only=True)
class SQLiteSettings(ProviderSettings):
    """How a database file is opened. Times are in seconds.

    The journal is always a write-ahead log (``journal_mode=WAL``): that readers and the writer do not wait for each
    other rests on it.

    Attributes:
        path: the file, or ``":memory:"`` for a database that ends with its provider. A new file is made with mode 0600.
        readers: connections that serve reads when all goes well. ``:memory:`` has one connection for everything.
        max_readers: connections at the most, when long queries, streams and read-only transactions hold the others.
        busy_timeout: how long a write waits for another process to let go of the file, before `SerializationConflict`.
        acquire: how long a call waits for the writer, or for a reader of its own, before `PoolTimeout`.
        synchronous: when a commit counts as done: "full" (it is on the disk: survives a power cut), "extra" (its
            folder entry too), "normal" (a power cut may take the last commits, never the database's consistency) or
            "off" (nothing is promised).
        foreign_keys: whether foreign keys are enforced.
        trusted_schema: whether functions and virtual tables that touch the world outside may be called from views,
            triggers and defaults of the file. A file from somebody else is not to be trusted.
        secure_delete: whether deleted content is overwritten with zeros, so that an erased value does not linger in
            free pages. It does linger in the write-ahead log until a checkpoint: `SQLiteProvider.checkpoint`.
        cache_size: page cache of each connection, in KiB.
        mmap_size: how much of the file each connection may map into memory, in bytes; 0: none.
        keyring: URL of a key ring, for a provider that is used without a manager.
    """

    path: str
    readers: int = 2
    max_readers: int = 8
    busy_timeout: float = 5.0
    acquire: float = 30.0
    synchronous: Literal["full", "extra", "normal", "off"] = "full"
    foreign_keys: bool = True
    trusted_schema: bool = False
    secure_delete: bool = True
    cache_size: int = 8192
    mmap_size: int = 0
    keyring: str | None = None

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigurationError("path is empty: expected a file, or ':memory:'")
        if "\0" in self.path:
            raise ConfigurationError("path holds a NUL character: expected a file, or ':memory:'")
        try:
            self.path.encode()
        except UnicodeEncodeError:
            raise ConfigurationError("path holds half of a surrogate pair: expected valid Unicode") from None
        if not self.readers >= 1:
            raise ConfigurationError(f"readers is {self.readers}: expected at least 1")
        if not self.max_readers >= self.readers:
            raise ConfigurationError(f"max_readers is {self.max_readers}: expected at least readers, {self.readers}")
        for name in ("busy_timeout", "acquire"):
            if not 0 <= getattr(self, name) <= 86_400:  # noqa: PLR2004  (a day; SQLite holds milliseconds in 32 bits)
                raise ConfigurationError(f"{name} is {getattr(self, name)}: expected seconds, 0 to 86400")
        for name, bits in (("cache_size", 31), ("mmap_size", 63)):  # a larger one would be taken for none
            if not 0 <= getattr(self, name) < 2**bits:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: expected 0 to {2**bits - 1}")

    @property
    def in_memory(self) -> bool:
        """Whether there is no file."""
        return self.path == MEMORY


def parse_url(url: str) -> dict[str, Any]:
    """The path in ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``sqlite:///:memory:``.

    Raises:
        ConfigurationError: not such a URL.
    """
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415  (only for a URL)

    parts = urlsplit(url)
    if parts.scheme != "sqlite" or parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError("url: expected sqlite:///file.db, sqlite:////absolute/file.db or sqlite:///:memory:")
    path = unquote(parts.path.removeprefix("/"))
    if not path:
        raise ConfigurationError("url: names no file: expected sqlite:///file.db, or sqlite:///:memory:")
    return {"path": path}
