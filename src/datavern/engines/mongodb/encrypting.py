"""MongoDB's client-side field level encryption, with Datavern's key store where MongoDB keeps a key vault.

libmongocrypt (`pymongocrypt`) does the encrypting, and asks for a *key document* whenever it meets a key id that it has
not at hand. PyMongo reads those from a collection, wrapped by a master key that outlives every person in it: whoever
has an old backup and the master key reads what was erased since. Here the key ids are the key store's own, and a key
document is made when it is asked for, from what the key store holds (crypto/FORMAT.md, 12). So there is no key vault to
be backed up, `keys rotate` reaches these keys like any others, and an erasure ends them.

Source: https://github.com/mongodb/specifications/blob/master/source/client-side-encryption/client-side-encryption.md.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal

from bson import Binary, decode, encode

from datavern.contracts.errors import ConfigurationError, DecryptionFailed, KeyUnavailable

if TYPE_CHECKING:
    from bson.codec_options import CodecOptions

    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.sealed import DataKey

__all__ = ["Algorithm", "FieldCipher", "check_installed", "encrypted_values", "holds_encrypted", "key_id_of"]

Algorithm = Literal["random", "deterministic"]

_SUBTYPE: Final = 6  # BSON: "Encrypted BSON value"
_UUID: Final = 4
_CIPHERTEXTS: Final = (1, 2)  # deterministic, random; above them come those of queryable encryption
_HEAD: Final = 18  # kind, key id, BSON type
_MATERIAL: Final = 96
_PURPOSE: Final = "mongodb-field-encryption"
_NAMES: Final = {
    "random": "AEAD_AES_256_CBC_HMAC_SHA_512-Random",
    "deterministic": "AEAD_AES_256_CBC_HMAC_SHA_512-Deterministic",
}
_REMEMBERED: Final = 60_000
"""Milliseconds that libmongocrypt keeps a key. Whether the key lives is asked of the key store before each use."""


def check_installed(name: str) -> None:
    """See that libmongocrypt is there.

    Raises:
        ConfigurationError: it is not.
    """
    if find_spec("pymongocrypt") is None:
        raise ConfigurationError(
            f"databases.{name}.field_encryption needs the package pymongocrypt: "
            "pip install 'datavern[mongodb-encryption]'"
        )


def encrypted_values(value: Any, path: str = "") -> Iterator[tuple[str, Binary]]:
    """Every value in it that MongoDB's client-side encryption wrote, with its dotted path."""
    if isinstance(value, Binary):
        if value.subtype == _SUBTYPE:
            yield path, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from encrypted_values(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from encrypted_values(inner, f"{path}.{i}")


def holds_encrypted(value: Any) -> bool:
    """Whether there is a value in it that MongoDB's client-side encryption wrote."""
    return next(encrypted_values(value), None) is not None


def key_id_of(value: Binary) -> bytes:
    """The id of the key that an encrypted value names.

    Raises:
        ConfigurationError: it is no value of this kind of encryption (queryable encryption's are others).
        DecryptionFailed: it is damaged.
    """
    if value[:1] and value[0] not in _CIPHERTEXTS:
        raise ConfigurationError(
            "the document holds a value of MongoDB's queryable encryption, or of a later kind, which Datavern does not "
            "open: read it with the client that wrote it"
        )
    if len(value) < _HEAD:
        raise DecryptionFailed
    return bytes(value[1:17])


class FieldCipher:
    """Encrypts single values, and opens those of a document. Not for several event loops.

    Args:
        store: the key store.
    """

    __slots__ = ("_explicit", "_keys", "_opening")

    def __init__(self, store: KeyStore) -> None:
        from pymongocrypt.asynchronous.auto_encrypter import AsyncAutoEncrypter  # noqa: PLC0415  (an extra)
        from pymongocrypt.asynchronous.explicit_encrypter import AsyncExplicitEncrypter  # noqa: PLC0415
        from pymongocrypt.asynchronous.state_machine import AsyncMongoCryptCallback  # noqa: PLC0415
        from pymongocrypt.options import MongoCryptOptions  # noqa: PLC0415

        AsyncMongoCryptCallback.register(_KeyDocuments)
        # libmongocrypt takes key documents only wrapped. They never leave the process, so neither does what wraps them.
        local = {"local": {"key": os.urandom(_MATERIAL)}}
        self._keys = keys = _KeyDocuments(store)
        self._explicit = AsyncExplicitEncrypter(keys, MongoCryptOptions(local, key_expiration_ms=_REMEMBERED))
        self._opening = AsyncAutoEncrypter(
            keys, MongoCryptOptions(local, bypass_encryption=True, key_expiration_ms=_REMEMBERED)
        )
        keys.make = self._explicit.create_data_key

    async def encrypt(
        self, key: DataKey, value: Any, algorithm: Algorithm, *, where: str, options: CodecOptions[Any]
    ) -> Binary:
        """The value, encrypted.

        Args:
            key: from the key store.
            value: not None: MongoDB encrypts no null.
            algorithm: "random", or "deterministic", under which equal values of one key look the same.
            where: its path, for messages.
            options: the codec options.

        Raises:
            ConfigurationError: a value of that type cannot be encrypted so.
            KeyErased: the key is gone.
        """
        from pymongocrypt.errors import MongoCryptError  # noqa: PLC0415

        problem = ""
        try:
            plain = encode({"v": value}, codec_options=options)
            made = await self._explicit.encrypt(plain, _NAMES[algorithm], key_id=key.id)
        except MongoCryptError as error:
            problem = _reason(error)
        if problem:
            raise ConfigurationError(f"{where}: a value of type {type(value).__name__} cannot be encrypted: {problem}")
        encrypted: Binary = decode(made)["v"]
        return encrypted

    async def open(self, document: Mapping[str, Any], options: CodecOptions[Any]) -> dict[str, Any]:
        """The document with every encrypted value opened. The caller has seen to it that their keys live.

        Raises:
            DecryptionFailed: a value was changed.
            KeyErased: a key is gone.
        """
        from pymongocrypt.errors import MongoCryptError  # noqa: PLC0415

        try:
            opened = await self._opening.decrypt(encode(document, codec_options=options))
        except MongoCryptError:
            opened = None
        if opened is None:
            raise DecryptionFailed
        return dict(decode(opened, codec_options=options))

    async def close(self) -> None:
        """Drop the keys that libmongocrypt holds. Idempotent."""
        self._explicit.close()
        await self._opening.close()


def _reason(error: Exception) -> str:
    if "deterministic" in str(error):
        return "deterministic encryption takes no numbers with fractions, truth values, lists and documents: use random"
    return "it is of a type that MongoDB's encryption does not take"


class _KeyDocuments:
    """What libmongocrypt asks for: key documents. It is an `AsyncMongoCryptCallback`, most of which is not asked here.

    Args:
        store: the key store.

    Attributes:
        make: libmongocrypt's own making of a key document.
    """

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self.make: Any = None

    async def fetch_keys(self, asked: bytes) -> AsyncIterator[bytes]:
        """The key documents of a filter: ``{$or: [{_id: {$in: […]}}, …]}``."""
        wanted = [bytes(one) for part in decode(asked)["$or"] for one in part.get("_id", {}).get("$in", ())]
        for key_id, material in (await self._store.derived(wanted, _PURPOSE, _MATERIAL)).items():
            document = await self.make("local", key_material=material)
            yield encode({**document, "_id": Binary(key_id, _UUID)})

    async def insert_data_key(self, document: bytes) -> dict[str, Any]:
        """A key document that was just made: it is handed back, and kept nowhere."""
        return dict(decode(document))

    @staticmethod
    def bson_encode(document: Mapping[str, Any]) -> bytes:
        """The document as BSON."""
        return encode(document)

    async def close(self) -> None:
        """There is nothing to let go of."""

    async def _unasked(self, *_: Any) -> Any:
        raise KeyUnavailable("MongoDB's encryption asked for what Datavern's keys do not need")

    kms_request = collection_info = mark_command = _unasked
