"""How many different values there are among many, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from tempfile import TemporaryFile
from typing import IO, Final, Self

from datavern.contracts.errors import ConfigurationError

__all__ = ["TAG", "Distinct"]

TAG: Final = 16
"""Bytes of the key store's tag of a person that are compared: two people share them once in 2^64 people."""
_BUCKETS: Final = 128
_IN_MEMORY: Final = 1 << 16  # bytes of a bucket before it goes to a file


class Distinct:
    """Different values among many, in memory for a part of them: what does not fit lies in unnamed files.

    Args:
        width: bytes of each value; None: lines of text.
    """

    def __init__(self, width: int | None = TAG) -> None:
        self._width = width
        self._buckets = [bytearray() for _ in range(_BUCKETS)]
        self._files: dict[int, IO[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def add(self, mark: bytes, value: bytes | None = None) -> None:
        """One more value. `mark` says which are the same; with no `value` it is the value.

        Raises:
            ConfigurationError: there is no room for it.
        """
        number = mark[0] % _BUCKETS
        bucket = self._buckets[number]
        bucket += mark if value is None else value
        if len(bucket) >= _IN_MEMORY:
            self._put_away(number, bucket)

    def _put_away(self, number: int, bucket: bytearray) -> None:
        """Write a bucket to its file.

        Raises:
            ConfigurationError: there is no room for it.
        """
        problem = ""
        try:
            file = self._files.get(number)
            if file is None:
                opened = TemporaryFile()  # noqa: SIM115  (closed with the others)
                file = self._files[number] = self._stack.enter_context(opened)
            file.write(bucket)
            file.flush()
        except OSError as error:
            problem = error.strerror or type(error).__name__
        if problem:
            raise ConfigurationError(f"temporary files cannot be written: {problem}: set TMPDIR to another folder")
        bucket.clear()

    def _bucket(self, number: int) -> set[bytes]:
        file = self._files.get(number)
        data = b""
        if file is not None:
            file.seek(0)
            data = file.read()
            file.seek(0, 2)
        data += self._buckets[number]
        width = self._width
        if width is None:
            return set(data.splitlines())
        return {data[at : at + width] for at in range(0, len(data), width)}

    def count(self) -> int:
        """How many different ones."""
        return sum(len(self._bucket(number)) for number in range(_BUCKETS))

    def values(self) -> Iterator[bytes]:
        """Each of them once, in no order."""
        for number in range(_BUCKETS):
            yield from self._bucket(number)
