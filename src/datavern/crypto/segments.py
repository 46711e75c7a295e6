"""Sealed streams (FORMAT.md, 11): data of any length in constant memory; what comes out was not cut or reordered.

A stream has a key of its own, drawn at random and sealed under the subject's or the dataset's key. The construction is
STREAM (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance,
CRYPTO 2015) with the nonces of the age format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.crypto.documents import Labels
from datavern.crypto.sealed import KEY, KEY_ID, DataKey, text_block

__all__ = ["SEGMENT", "TAG", "StreamOpener", "StreamSealer", "plain_length"]

SEGMENT: Final = 262_144
"""Bytes of plaintext in every segment but the last."""
TAG: Final = 16

_HEAD: Final = 1 + KEY_ID
_NO_FIELD: Final = b"\x00\x00"
_FORMS: Final = {True: b"\x08", False: b"\x07"}
_MORE, _LAST = b"\x00", b"\x01"
_HEADERS: Final = {7: _HEAD + 12 + KEY + TAG, 8: _HEAD + 24 + KEY + TAG}
"""The form that a stream begins with → how long its header is."""


def plain_length(form: int, sealed: int) -> int:
    """How many bytes a sealed stream of `sealed` bytes, beginning with the byte `form`, holds.

    Raises:
        DecryptionFailed: no stream has that form or length.
    """
    body = sealed - _HEADERS.get(form, 0)
    full, rest = divmod(body, SEGMENT + TAG)
    if form not in _HEADERS or body < TAG or 0 < rest < TAG or (rest == TAG and full):
        raise DecryptionFailed
    return body - TAG * (full + (rest > 0))


_INTO: Final = hasattr(AESGCM, "encrypt_into")
"""Whether the cipher writes into memory of ours, which spares each segment new pages: a tenth of its time."""

_Piece = bytes | bytearray | memoryview


class _Segments:
    """The cipher of one stream, and where it stands."""

    __slots__ = ("_cipher", "counter")

    def __init__(self, file_key: bytes) -> None:
        self._cipher = AESGCM(file_key)
        self.counter = 0

    def nonce(self, flag: bytes) -> bytes:
        counter = self.counter
        self.counter = counter + 1
        return counter.to_bytes(11, "big") + flag

    def seal(self, data: _Piece, flag: bytes) -> bytes:
        return self._cipher.encrypt(self.nonce(flag), data, None)

    def open(self, data: _Piece, flag: bytes) -> bytes:
        try:
            return self._cipher.decrypt(self.nonce(flag), data, None)
        except (InvalidTag, ValueError):
            pass
        raise DecryptionFailed

    def each_sealed(self, whole: list[_Piece]) -> Iterator[_Piece]:
        """Segments that are not the last, one by one, in memory that the next one is written to."""
        if not _INTO or not whole:
            yield from (self.seal(segment, _MORE) for segment in whole)
            return
        buffer, seal = bytearray(SEGMENT + TAG), self._cipher.encrypt_into
        for segment in whole:
            seal(self.nonce(_MORE), segment, None, buffer)
            with memoryview(buffer).toreadonly() as view:  # what somebody kept of it raises, and is not another's bytes
                yield view

    def each_opened(self, whole: list[_Piece]) -> Iterator[_Piece]:
        """The same, opened."""
        if not _INTO or not whole:
            yield from (self.open(segment, _MORE) for segment in whole)
            return
        buffer, opens = bytearray(SEGMENT), self._cipher.decrypt_into
        for segment in whole:
            try:
                opens(self.nonce(_MORE), segment, None, buffer)
                found = True
            except (InvalidTag, ValueError):
                found = False
            if not found:
                raise DecryptionFailed
            with memoryview(buffer).toreadonly() as view:
                yield view


def _fixed(data: _Piece) -> memoryview:
    """What the caller cannot change any more; a copy where it could."""
    return memoryview(data if isinstance(data, bytes) else bytes(data))


def _whole(held: _Piece, given: memoryview, size: int) -> tuple[list[_Piece], _Piece]:
    """What is certain not to be the last segment, cut into segments of `size` bytes; and the rest, up to `size` bytes.

    Copied is only a segment that comes in several pieces.
    """
    if 0 < len(held) < size:
        if not isinstance(held, bytearray):
            held = bytearray(held)
        missing = size - len(held)
        held += given[:missing]
        given = given[missing:]
    if not given:  # whether a full segment is the last is known only when more has come
        return [], held
    whole: list[_Piece] = [held] if held else []
    at = 0
    while len(given) - at > size:
        whole.append(given[at : at + size])
        at += size
    return whole, given[at:]


class StreamSealer:
    """Seals one stream: write `header` first, then what `update` gives, then what `finish` gives.

    A megabyte takes less than a millisecond: whoever has more at hand gives it in pieces, so that an event loop is not
    held up.

    Args:
        dataset: the dataset's id.
        key: of the stream's subject in this dataset, or the dataset's own.
        labels: what is bound to it.

    Attributes:
        header: what the sealed stream begins with.

    Raises:
        ConfigurationError: the key is of another dataset, or of another subject than the labels name.
    """

    __slots__ = ("_finished", "_held", "_segments", "header")

    def __init__(self, dataset: str, key: DataKey, labels: Labels) -> None:
        if key.dataset != dataset or key.subject_tag != labels.subject_tag:
            raise ConfigurationError(f"{dataset}: sealing a stream needs its subject's key of this dataset")
        drawn = os.urandom(KEY + key.nonce_size)
        file_key, nonce = drawn[:KEY], drawn[KEY:]
        head = _FORMS[key.subject_tag is None] + key.id
        associated = text_block(dataset) + _NO_FIELD + head + labels.bytes
        self.header = head + nonce + key.encrypt(nonce, file_key, associated)
        self._segments = _Segments(file_key)
        self._held: _Piece = b""
        self._finished = False

    def update(self, data: _Piece) -> bytes:
        """Take more of the plaintext; the segments that are complete by it, possibly none."""
        seal = self._segments.seal
        return b"".join([seal(segment, _MORE) for segment in self._taken(data)])

    def segments(self, data: _Piece) -> Iterator[_Piece]:
        """`update`, one by one, each sealed when it is asked for. Take them all.

        A segment is to be written, or copied, before the next one is asked for, which takes its memory: one that was
        kept raises ValueError when it is read.
        """
        return self._segments.each_sealed(self._taken(data))

    def _taken(self, data: _Piece) -> list[_Piece]:
        if self._finished:
            raise ValueError("the stream is finished")
        whole, self._held = _whole(self._held, _fixed(data), SEGMENT)
        return whole

    def finish(self) -> bytes:
        """The last segment. It says that it is the last."""
        if self._finished:
            raise ValueError("the stream is finished")
        self._finished = True
        return self._segments.seal(self._held, _LAST)


class StreamOpener:
    """Opens one stream: give it the sealed bytes as they come, in pieces of any size.

    What `update` returns is authenticated and in its place; that nothing is missing at the end is known when `finish`
    has returned, and not before.

    Args:
        dataset: the dataset's id.
        labels: as they stand beside the stream now.
    """

    __slots__ = ("_dataset", "_held", "_labels", "_segments")

    def __init__(self, dataset: str, labels: Labels) -> None:
        self._dataset = dataset
        self._labels = labels
        self._held: _Piece = b""
        self._segments: _Segments | None = None

    @staticmethod
    def key_id(header: bytes) -> bytes:
        """The id of the key that a stream names, from its first 17 bytes or more.

        Raises:
            DecryptionFailed: no stream begins like this.
        """
        if len(header) < _HEAD or header[0] not in _HEADERS:
            raise DecryptionFailed
        return bytes(header[1:_HEAD])

    def begin(self, key: DataKey, data: bytes) -> None:
        """Open the header, which is at the beginning of `data`; the rest of it is kept for `update`.

        Raises:
            DecryptionFailed: the key or the labels are not the stream's, or it was changed, or is too short.
        """
        head = _FORMS[key.subject_tag is None] + key.id
        size = _HEADERS[head[0]]
        end = _HEAD + key.nonce_size
        if (
            len(data) >= size
            and data.startswith(head)
            and key.dataset == self._dataset
            and key.subject_tag == self._labels.subject_tag
        ):
            associated = text_block(self._dataset) + _NO_FIELD + head + self._labels.bytes
            try:
                self._segments = _Segments(key.decrypt(data[_HEAD:end], data[end:size], associated))
            except (InvalidTag, ValueError):
                self._segments = None
        if self._segments is None:
            raise DecryptionFailed
        self._held = _fixed(data)[size:]

    def update(self, data: _Piece = b"") -> bytes:
        """Take more of the sealed stream; the plaintext that is certain by it, possibly none.

        Raises:
            DecryptionFailed: a segment was changed, or does not stand in its place.
        """
        whole = self._taken(data)
        open_ = self._begun().open
        return b"".join([open_(segment, _MORE) for segment in whole])

    def segments(self, data: _Piece = b"") -> Iterator[_Piece]:
        """`update`, one by one, each opened when it is asked for. Take them all. Raises as that does.

        A segment is to be used, or copied, before the next one is asked for, which takes its memory: one that was kept
        raises ValueError when it is read.
        """
        whole = self._taken(data)
        return self._begun().each_opened(whole)

    def _begun(self) -> _Segments:
        if self._segments is None:
            raise ValueError("begin comes first")
        return self._segments

    def _taken(self, data: _Piece) -> list[_Piece]:
        self._begun()
        size = SEGMENT + TAG
        early: list[_Piece] = []
        if isinstance(self._held, memoryview) and len(self._held) > size:  # what came with the header
            early, self._held = _whole(b"", self._held, size)
        whole, self._held = _whole(self._held, _fixed(data), size)
        return early + whole

    def finish(self) -> bytes:
        """The last of the plaintext, when the stream ends here.

        Raises:
            DecryptionFailed: it does not: something is missing at the end, or was added.
        """
        segments = self._begun()
        rest, first = self._held, segments.counter == 0
        self._held = b""
        if len(rest) == TAG and not first:  # an empty last segment stands in an empty stream alone
            raise DecryptionFailed
        return segments.open(rest, _LAST)
