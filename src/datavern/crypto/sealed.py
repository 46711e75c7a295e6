"""Sealed fields (FORMAT.md, 5): a value opens in its own row, column and person, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.crypto.encoding import SURROGATE, decode, encode
from datavern.crypto.xaes import XAESGCM

__all__ = ["DataKey", "RowSealer", "new_row_tag", "new_row_tags", "retained_tag"]

KEY_ID: Final = 16
ROW_TAG: Final = 16
KEY: Final = 32
_HEAD = 1 + KEY_ID  # form, key id: 17, written out where it is hot
_LONGEST_NONCE = 24
_urandom = os.urandom
_UNOPENED = (InvalidTag, KeyError, ValueError, TypeError, IndexError, AttributeError)
_OpenPlaced = Callable[[bytes, Sequence[Any], Mapping[bytes, "DataKey"], bytes | None], list[Any]]


def new_row_tag() -> bytes:
    """What ties sealed values to their row (the column ``datavern_row``): 16 random bytes, made before the insert."""
    return _urandom(ROW_TAG)


def new_row_tags(count: int) -> list[bytes]:
    """So many of them, drawn in one call."""
    drawn = _urandom(ROW_TAG * count)
    return [drawn[at : at + ROW_TAG] for at in range(0, len(drawn), ROW_TAG)]


def retained_tag(row_tag: bytes, subject_tag: bytes) -> bytes:
    """What stands for the row's tag where a row is sealed under a key that is not its person's (FORMAT.md, 5).

    The law keeps some rows of people who were erased, and whose own keys are destroyed: so that such a row still opens
    for its person and for nobody else, the person goes into what its values are bound to.
    """
    return sha256(b"retained\x00" + row_tag + subject_tag).digest()[:ROW_TAG]


def text_block(text: str) -> bytes:
    """FORMAT.md's ``text(x)``: the length, then the bytes.

    Raises:
        ConfigurationError: longer than 65,535 bytes.
    """
    return block(text.encode())


def block(raw: bytes) -> bytes:
    """FORMAT.md's ``block(x)``."""
    if len(raw) > 0xFFFF:  # noqa: PLR2004  (two bytes of length)
        raise ConfigurationError("a name of a dataset or field is longer than 65,535 bytes")
    return len(raw).to_bytes(2, "big") + raw


class DataKey:
    """The key of one subject in one dataset, or of what belongs to no subject there.

    Args:
        key_id: 16 bytes.
        dataset: the dataset's id.
        subject_tag: how the key store names the subject; None for a dataset key, which uses XAES-256-GCM.
        key: 32 bytes; they are not kept beside the cipher.

    Attributes:
        id: the key's id.
        cipher: `AESGCM`, or `XAESGCM` for a dataset key.
        head: what each value under this key begins with.
        subject: the subject's id as a row named it whose tag was found to be `subject_tag`; None until then. It spares
            the next row of the same person the tag's computation.
    """

    __slots__ = ("cipher", "dataset", "decrypt", "encrypt", "head", "id", "nonce_size", "subject", "subject_tag")

    def __init__(self, key_id: bytes, dataset: str, subject_tag: bytes | None, key: bytes) -> None:
        if len(key_id) != KEY_ID or len(key) != KEY:
            raise ValueError("a data key has 32 bytes, and its id 16")
        self.cipher = cipher = XAESGCM(key) if subject_tag is None else AESGCM(key)
        self.id = key_id
        self.dataset = dataset
        self.subject_tag = subject_tag
        self.subject: str | None = None
        self.nonce_size = 24 if subject_tag is None else 12
        self.head = (b"\x02" if subject_tag is None else b"\x01") + key_id
        self.encrypt = cipher.encrypt  # bound once: the attribute lookups are a tenth of a short value's time
        self.decrypt = cipher.decrypt

    def __repr__(self) -> str:
        return f"DataKey({self.id.hex()}, {self.dataset!r})"

    def __reduce__(self) -> Any:
        """A key does not leave the process in a pickle."""
        raise TypeError("a DataKey cannot be pickled")


class RowSealer:
    """Seals and opens the rows of one dataset.

    Args:
        dataset: its id.
        sealed: the fields that are sealed.

    Attributes:
        fields: the sealed fields.
    """

    __slots__ = ("_begin", "_fields", "dataset", "fields")

    def __init__(self, dataset: str, sealed: Iterable[str]) -> None:
        self.dataset = dataset
        self.fields = tuple(dict.fromkeys(sealed))
        # What the associated data of a field begins with; form, key id and row tag follow.
        self._fields = tuple((name, text_block(dataset) + text_block(name)) for name in self.fields)
        self._begin = dict(self._fields)

    def draw(self) -> tuple[bytes, bytes]:
        """The tag of a new row, and the nonces of its fields, for `seal_row`: one system call for all of it."""
        drawn = _urandom(ROW_TAG + _LONGEST_NONCE * len(self._fields))
        return drawn[:ROW_TAG], drawn[ROW_TAG:]

    def seal_rows(self, rows: Sequence[tuple[DataKey, bytes, Mapping[str, Any]]]) -> list[dict[str, bytes | None]]:
        """A batch in one call, whose nonces are drawn together: `seal_row` for each (key, row tag, values).

        Raises:
            ConfigurationError: as `seal_row`; nothing is sealed then.
        """
        size = _LONGEST_NONCE * len(self._fields)
        drawn = _urandom(size * len(rows))  # a nonce more than is needed is thrown away; none is kept for a later call
        sealed, at = [], 0
        for key, tag, values in rows:
            sealed.append(self.seal_row(key, tag, values, drawn[at : at + size]))
            at += size
        return sealed

    def seal_row(
        self, key: DataKey, row_tag: bytes, values: Mapping[str, Any], nonces: bytes | None = None
    ) -> dict[str, bytes | None]:
        """The sealed fields of a row, sealed. Fields that the row lacks, or that are not sealed, are left out.

        Args:
            key: of the row's subject in this dataset (or the dataset's own).
            row_tag: the row's tag, from `new_row_tag`, or as it stands when the row is changed.
            values: the row, or a part of it. None stays None.
            nonces: random bytes for the nonces of all fields, used here and nowhere else; drawn when None.

        Raises:
            ConfigurationError: a value of a type that cannot be sealed, a key of another dataset, a wrong row tag.
        """
        if key.dataset != self.dataset or len(row_tag) != ROW_TAG:
            raise ConfigurationError(f"{self.dataset}: sealing needs a key of this dataset, and a row tag of 16 bytes")
        get, encrypt, head, size = values.get, key.encrypt, key.head, key.nonce_size
        tail = head + row_tag
        sealed: dict[str, bytes | None] = {}
        if nonces is None:
            nonces = _urandom(size * len(self._fields))
        at = 0
        problem = name = ""
        try:
            for name, begin in self._fields:
                value = get(name)
                if value is not None:
                    nonce = nonces[at : at + size]
                    at += size
                    plain = b"\x01" + value.encode() if type(value) is str else encode(value)
                    sealed[name] = head + nonce + encrypt(nonce, plain, begin + tail)
                elif name in values:
                    sealed[name] = None
            return sealed  # noqa: TRY300  (an else block would say no more)
        except ConfigurationError as error:
            problem = str(error)
        except UnicodeEncodeError:  # it carries the whole value
            problem = SURROGATE
        raise ConfigurationError(f"{self.dataset}.{name}: {problem}")

    def key_ids(self, row: Mapping[str, Any]) -> set[bytes]:
        """The ids of the keys that the sealed fields of a row name. What is no sealed value names none."""
        return {
            value[1:_HEAD] for name in self.fields if isinstance(value := row.get(name), bytes) and len(value) > _HEAD
        }

    def open_row(
        self,
        row_tag: bytes,
        values: Mapping[str, Any],
        key_of: Mapping[bytes, DataKey],
        subject_tag: bytes | None,
    ) -> dict[str, Any]:
        """The sealed fields of a row, opened. Fields that the row lacks, or that are not sealed, are left out.

        Args:
            row_tag: the row's tag.
            values: the row as it is stored. None stays None.
            key_of: the keys, by id (`KeyStore.keys` of `key_ids`).
            subject_tag: the tag of the subject that the row names; None where rows belong to nobody.

        Raises:
            DecryptionFailed: a value is not one that was sealed in this row, column, dataset and person, or has been
                changed. There is one message for every cause.
        """
        get = values.get
        opened: dict[str, Any] = {}
        head: bytes | None = None
        try:
            for name, begin in self._fields:
                value = get(name)
                if value is None:
                    if name in values:
                        opened[name] = None
                    continue
                if value[:17] != head:  # the fields of a row are mostly under one key
                    key = key_of[value[1:17]]
                    self._check(key, value, row_tag, subject_tag)
                    head, decrypt, end = key.head, key.decrypt, 17 + key.nonce_size
                    tail = head + row_tag
                plain = decrypt(value[17:end], value[end:], begin + tail)
                opened[name] = plain[1:].decode() if plain[0] == 1 else decode(plain)
            return opened  # noqa: TRY300  (an else block would say no more)
        except _UNOPENED:
            pass
        raise DecryptionFailed

    def placed(self, fields: Iterable[tuple[int, str]]) -> _OpenPlaced:
        """`open_row` for rows as a driver gives them: what makes of one a list, with its sealed fields opened.

        Args:
            fields: where in a row each of the sealed fields stands.
        """
        places = [(at, self._begin[name]) for at, name in fields]

        def opened(
            row_tag: bytes, row: Sequence[Any], key_of: Mapping[bytes, DataKey], subject_tag: bytes | None
        ) -> list[Any]:
            made = list(row)
            head: bytes | None = None
            try:
                for at, begin in places:
                    value = row[at]
                    if value is None:
                        continue
                    if value[:17] != head:
                        key = key_of[value[1:17]]
                        self._check(key, value, row_tag, subject_tag)
                        head, decrypt, end = key.head, key.decrypt, 17 + key.nonce_size
                        tail = head + row_tag
                    plain = decrypt(value[17:end], value[end:], begin + tail)
                    made[at] = plain[1:].decode() if plain[0] == 1 else decode(plain)
                return made  # noqa: TRY300  (an else block would say no more)
            except _UNOPENED:
                pass
            raise DecryptionFailed

        return opened

    def _check(self, key: DataKey, value: bytes, row_tag: bytes, subject_tag: bytes | None) -> None:
        """Whether the key is one that a value of this row may be sealed under."""
        if (
            value[:17] != key.head
            or len(row_tag) != ROW_TAG
            or key.dataset != self.dataset
            or key.subject_tag != subject_tag
        ):
            raise DecryptionFailed
