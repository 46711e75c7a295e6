"""Reading a file from GridFS: piece by piece, opened and checked on the way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from datavern.contracts.errors import ConfigurationError, DecryptionFailed, ProviderError
from datavern.crypto.segments import StreamOpener, plain_length
from datavern.engines.mongodb.errors import DRIVER_ERRORS, translate

if TYPE_CHECKING:
    from types import TracebackType

    from pymongo.asynchronous.cursor import AsyncCursor

    from datavern.crypto.documents import Labels
    from datavern.crypto.sealed import DataKey
    from datavern.engines.mongodb.provider import MongoDBProvider

__all__ = ["File", "Opened"]

_FORMS = {True: 8, False: 7}


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """What is known of a file.

    Attributes:
        id: its id.
        name: its name.
        metadata: what was given with it.
        classification: as it was stored; None for a file that PyMongo alone wrote.
        created_at: when; as the codec options hand dates out.
        created_by: who was acting, or None.
        stored: how many bytes it takes in the database.
    """

    id: Any
    name: str
    metadata: dict[str, Any]
    classification: str | None
    created_at: Any
    created_by: str | None
    stored: int
    chunk_size: int = field(repr=False)
    key: DataKey | None = field(repr=False)
    labels: Labels | None = field(repr=False)
    dataset: str = field(repr=False)

    @property
    def sealed(self) -> bool:
        """Whether its content is sealed."""
        return self.key is not None

    @property
    def length(self) -> int:
        """How many bytes it holds.

        Raises:
            DecryptionFailed: no sealed file has the length that is stored.
        """
        return self.stored if self.key is None else plain_length(_FORMS[self.key.subject_tag is None], self.stored)


class Opened:
    """A file that is being read: ``async for piece in f``, or ``await f.read(size)``.

    Of a sealed file every piece is authenticated before it is handed out. That the file was whole is known when the
    last piece has come: until then, what was read is a beginning.
    """

    __slots__ = ("_cursor", "_ended", "_file", "_look", "_next", "_opener", "_pieces", "_provider", "_rest", "_seen")

    def __init__(self, provider: MongoDBProvider, look: Callable[[], Awaitable[File]]) -> None:
        self._provider = provider
        self._look: Callable[[], Awaitable[File]] | None = look
        self._file: File | None = None
        self._cursor: AsyncCursor[dict[str, Any]] | None = None
        self._opener: StreamOpener | None = None
        self._pieces: AsyncGenerator[bytes] | None = None
        self._rest = bytearray()
        self._next = 0
        self._seen = 0
        self._ended = False

    @property
    def file(self) -> File:
        """What is known of it."""
        if self._file is None:
            raise ConfigurationError("open the file first: async with provider.files.open(…) as f")
        return self._file

    @property
    def name(self) -> str:
        """Its name."""
        return self.file.name

    @property
    def metadata(self) -> dict[str, Any]:
        """What was given with it."""
        return self.file.metadata

    @property
    def length(self) -> int:
        """How many bytes it holds."""
        return self.file.length

    async def __aenter__(self) -> Self:
        look, self._look = self._look, None
        if look is None:
            raise ConfigurationError("a file is entered once: open it again")
        self._file = await look()
        provider = self._provider
        chunks = provider.raw(f"{provider.settings.bucket}.chunks")
        self._cursor = chunks.find({"files_id": {"$eq": self._file.id}}, sort=[("n", 1)], batch_size=8)
        if self._file.labels is not None:
            self._opener = StreamOpener(self._file.dataset, self._file.labels)
        self._pieces = self._opened() if self._opener is not None else self._stored()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cursor, self._cursor = self._cursor, None
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            await pieces.aclose()
        if cursor is not None:
            await cursor.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._rest:
            piece = bytes(self._rest)
            self._rest.clear()
            return piece
        if self._pieces is None:
            raise StopAsyncIteration
        return await anext(self._pieces)

    async def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, fewer only at the end; all that is left when it is negative."""
        while (size < 0 or len(self._rest) < size) and not self._ended and self._pieces is not None:
            try:
                self._rest += await anext(self._pieces)
            except StopAsyncIteration:
                self._ended = True
        if size < 0 or size >= len(self._rest):
            piece = bytes(self._rest)
            self._rest.clear()
            return piece
        piece = bytes(self._rest[:size])
        del self._rest[:size]
        return piece

    async def _chunk(self) -> bytes | None:
        """The next chunk as it is stored; None at the end.

        Raises:
            ProviderError: a chunk is missing, or something is there that is none.
        """
        cursor = self._cursor
        if cursor is None:
            return None
        error: BaseException | None = None
        found: dict[str, Any] | None = None
        try:
            found = await anext(cursor, None)
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=self._provider.name)
        if error is not None:
            raise error
        if found is None:
            return None
        data = found.get("data")
        if found.get("n") != self._next or not isinstance(data, bytes):
            raise self._damage()
        self._next += 1
        self._seen += len(data)
        return data

    async def _stored(self) -> AsyncGenerator[bytes]:
        while (data := await self._chunk()) is not None:
            yield data
        if self._seen != self.file.stored:
            raise self._damage()

    async def _opened(self) -> AsyncGenerator[bytes]:
        opener, key = self._opener, self.file.key
        assert opener is not None  # noqa: S101  (for the type checker: it is a sealed file)
        assert key is not None  # noqa: S101  (the same)
        first = await self._chunk()
        if first is None or StreamOpener.key_id(first) != key.id:
            raise DecryptionFailed
        opener.begin(key, first)
        plain = opener.update()
        while True:
            if plain:
                yield plain
            data = await self._chunk()
            if data is None:
                break
            plain = opener.update(data)
        last = opener.finish()
        if self._seen != self.file.stored:
            raise DecryptionFailed
        if last:
            yield last

    def _damage(self) -> Exception:
        if self._opener is not None:
            return DecryptionFailed()
        text = "the file is damaged: a chunk is missing, or has another length"
        return ProviderError(text, provider=self._provider.name)
