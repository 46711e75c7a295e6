"""What documents, filters and updates become where single fields are encrypted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from bson import Binary, ObjectId

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.subjects import canonical_subject
from datavern.engines.mongodb.encrypting import holds_encrypted
from datavern.engines.mongodb.errors import DRIVER_ERRORS, translate
from datavern.engines.mongodb.keys import TAG_PATHS

if TYPE_CHECKING:
    from bson.codec_options import CodecOptions

    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.sealed import DataKey
    from datavern.engines.mongodb.encrypting import Algorithm, FieldCipher
    from datavern.engines.mongodb.provider import MongoDBProvider

    Cipher = Callable[[KeyStore], Awaitable[FieldCipher]]

__all__ = ["FieldRules", "Sealing", "value_at"]

_LOGICAL: Final = frozenset({"$and", "$or", "$nor"})
_NOWHERE: Final = ObjectId("0" * 24)
"""What no encrypted field holds: for a person who has no key, and so nothing that was encrypted."""

Document = dict[str, Any]


def _related(path: str, other: str) -> bool:
    """Whether two dotted paths are the same, or one leads through the other."""
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")


def value_at(document: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    value: Any = document
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


class Sealing:
    """One document on its way in: whose it is, and the keys that its fields were encrypted under.

    Args:
        store: the key store.
        cipher: what encrypts.
        who: canonical subject id, or None.
    """

    __slots__ = ("cipher", "keys", "store", "who")

    def __init__(self, store: KeyStore, cipher: FieldCipher, who: str | None) -> None:
        self.store = store
        self.cipher = cipher
        self.who = who
        self.keys: dict[str, DataKey] = {}


class FieldRules:
    """The encrypted fields of one collection.

    Args:
        provider: the provider.
        name: the collection's name.
        fields: dotted path → algorithm.
    """

    __slots__ = ("_dataset", "_name", "_provider", "fields")

    def __init__(self, provider: MongoDBProvider, name: str, fields: Mapping[str, Algorithm]) -> None:
        self._provider = provider
        self._name = name
        self.fields = fields
        self._dataset = provider.settings.datasets.get(name, name)

    @property
    def options(self) -> CodecOptions[Any]:
        """The collection's codec options."""
        return self._provider.raw(self._name).codec_options

    @property
    def subject_path(self) -> str | None:
        """Where it says whose a document is; None where no data map says.

        Raises:
            ConfigurationError: what the data map says cannot be found in such a collection.
        """
        path = self._provider.keys.subject_path(self._name)
        if path in TAG_PATHS:
            raise ConfigurationError(
                f"{self._name}: the data map finds people by {path}, which only sealed documents have: name a field "
                "that stays in the clear"
            )
        if path is not None and self.concerned(path):
            raise ConfigurationError(
                f"{self._name}: the data map finds people by {path}, which is encrypted: an erasure would not find it"
            )
        return path

    def concerned(self, path: str) -> str | None:
        """The encrypted field that a path is, leads to or leads through; None where it has to do with none."""
        return next((one for one in self.fields if _related(one, path)), None)

    def key_name(self, path: str) -> str:
        """What a field's keys are called in the key store."""
        return f"{self._dataset}/{path}"

    def whose(self, document: Mapping[str, Any], subject: object) -> str | None:
        """Whose a document is, as canonical text; None: nobody's.

        Raises:
            ConfigurationError: it must say, and does not; or it says another than `subject`.
        """
        path = self.subject_path
        if path is None:
            return None if subject is None else canonical_subject(subject)
        found = value_at(document, path)
        if found is None or isinstance(found, Mapping | list):
            raise ConfigurationError(
                f"{self._name}: the document does not say whose it is: expected one id at {path} (the data map)"
            )
        who = canonical_subject(found)
        if subject is not None and canonical_subject(subject) != who:
            raise ConfigurationError(f"{self._name}: the document's {path} is another than subject=")
        return who

    def check_clear(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Refuse rows of plain values that would put an encrypted field into the clear.

        Raises:
            ConfigurationError: one would.
        """
        for row in rows:
            for path, value in row.items():
                concerned = self.concerned(path)
                if concerned is not None and value is not None and not _empty_at(value, path, concerned):
                    raise ConfigurationError(
                        f"{self._name}.{concerned} is encrypted by MongoDB's own means: write it with "
                        f"encrypted_collection({self._name!r})"
                    )

    # ---- documents --------------------------------------------------------------------------------------------------

    async def document(self, document: Mapping[str, Any], sealing: Sealing, above: str = "") -> Document:
        """A document with what is to be encrypted encrypted; `above` is the path that leads to it.

        Raises:
            ConfigurationError: a value cannot be encrypted, or stands where it cannot.
            KeyErased: an erasure of the subject runs.
        """
        out: Document = {}
        for name, value in document.items():
            path = f"{above}.{name}" if above else name
            if "." in str(name) and self.concerned(path):
                raise ConfigurationError(
                    f"{self._name}: a name with a dot in it cannot stand where {path} is encrypted"
                )
            out[name] = await self.at(path, value, sealing)
        return out

    async def at(self, path: str, value: Any, sealing: Sealing) -> Any:
        """What a value becomes at a path. The errors are those of `document`."""
        concerned = None if value is None else self.concerned(path)
        if concerned is None:
            return value
        if path in self.fields:
            if holds_encrypted(value):
                raise ConfigurationError(f"{self._name}.{path}: the value is encrypted already: give it in the clear")
            sealing.keys[path] = key = await self._key(path, sealing)
            return await self._encrypted(path, value, key, sealing.cipher)
        if isinstance(value, Mapping):
            return await self.document(value, sealing, path)
        kind = "list" if isinstance(value, list | tuple) else type(value).__name__
        raise ConfigurationError(
            f"{self._name}.{path}: {concerned} is encrypted, and a {kind} stands where fields were expected: encrypt "
            "the whole of it, or keep a single document there"
        )

    async def _key(self, path: str, sealing: Sealing) -> DataKey:
        name, store = self.key_name(path), sealing.store
        if sealing.who is None:
            return await store.dataset_key(name)
        return await store.unguarded.key(name, sealing.who)

    async def _encrypted(self, path: str, value: Any, key: DataKey, cipher: FieldCipher) -> Binary:
        error: BaseException | None = None
        try:
            return await cipher.encrypt(
                key, value, self.fields[path], where=f"{self._name}.{path}", options=self.options
            )
        except DRIVER_ERRORS as caught:
            error = translate(caught, provider=self._provider.name, document={path: value}, options=self.options)
        raise error

    # ---- updates ----------------------------------------------------------------------------------------------------

    def check_update(self, update: Mapping[str, Any]) -> None:
        """Refuse what would write a field in the clear, or take a document from whom its keys belong to.

        Raises:
            ConfigurationError: it would.
        """
        if not isinstance(update, Mapping) or not update or not all(str(one).startswith("$") for one in update):
            raise ConfigurationError(f"{self._name}: an update is made of operators: $set, $unset, $inc, …")
        for operator, changes in update.items():
            for target, value in changes.items():
                for path in (target, value) if operator == "$rename" else (target,):
                    self._check_target(operator, path)

    def _check_target(self, operator: str, path: str) -> None:
        subject, concerned = self.subject_path, self.concerned(path)
        if subject is not None and _related(path, subject):
            raise ConfigurationError(
                f"{self._name}.{subject} says whose the document is, and its keys are that person's: insert another"
            )
        if concerned is not None and (operator not in {"$set", "$unset"} or path.startswith(f"{concerned}.")):
            raise ConfigurationError(
                f"{self._name}.{concerned} is encrypted: it can be set and unset as a whole, not changed by "
                f"{operator.replace('$', '')}"
            )

    # ---- filters ----------------------------------------------------------------------------------------------------

    async def filter(self, filter_: Mapping[str, Any], subject: object, cipher: Cipher) -> Document:
        """A filter with its values of encrypted fields encrypted.

        Raises:
            ConfigurationError: no encrypted field can answer it, or it does not say whose value is meant.
        """
        path = self.subject_path
        if subject is None and path is not None:
            whose = filter_.get(path)
            if isinstance(whose, Mapping):
                whose = whose["$eq"] if list(whose) == ["$eq"] else None
            subject = whose
        return await self._filter(filter_, None if subject is None else canonical_subject(subject), cipher)

    async def _filter(self, filter_: Mapping[str, Any], who: str | None, cipher: Cipher) -> Document:
        out: Document = {}
        for name, value in filter_.items():
            concerned = self.concerned(name)
            if name in _LOGICAL:
                out[name] = [await self._filter(part, who, cipher) for part in value]
            elif name in self.fields:
                out[name] = await self._condition(name, value, who, cipher)
            elif concerned is not None:
                raise ConfigurationError(f"{self._name}.{name}: {concerned} is encrypted: ask for exactly that field")
            elif name.startswith("$") and name != "$comment":
                raise ConfigurationError(
                    f"{self._name}: {name.replace('$', '')} is not for encrypted collections: ask collection(), and "
                    "open() what it finds"
                )
            else:
                out[name] = value
        return out

    async def _condition(self, path: str, value: Any, who: str | None, cipher: Cipher) -> Any:
        if not isinstance(value, Mapping) or not any(str(one).startswith("$") for one in value):
            return await self._compared(path, value, who, cipher)
        out: Document = {}
        for operator, operand in value.items():
            if operator == "$exists":
                out[operator] = operand
            elif operator in {"$in", "$nin"}:
                out[operator] = [await self._compared(path, one, who, cipher) for one in operand]
            elif operator in {"$eq", "$ne"}:
                out[operator] = await self._compared(path, operand, who, cipher)
            else:
                raise ConfigurationError(
                    f"{self._name}.{path} is encrypted, and is compared for equality alone, not with "
                    f"{str(operator).replace('$', '')}"
                )
        return out

    async def _compared(self, path: str, value: Any, who: str | None, cipher: Cipher) -> Any:
        if value is None:  # it is not encrypted
            return None
        if self.fields[path] != "deterministic":
            raise ConfigurationError(
                f"{self._name}.{path} is encrypted at random: equal values look different, and none is found by its own"
            )
        if who is None and self.subject_path is not None:
            raise ConfigurationError(
                f"{self._name}.{path} is encrypted under a key of each person: say whose, by {self.subject_path} in "
                "the filter, or by subject="
            )
        store, name = await self._provider.keys.ready("field_encryption"), self.key_name(path)
        key = await (store.dataset_key(name) if who is None else store.find_subject_key(name, who))
        return _NOWHERE if key is None else await self._encrypted(path, value, key, await cipher(store))


def _empty_at(value: Any, path: str, concerned: str) -> bool:
    """Whether a value at `path` has nothing at the encrypted field that the path leads to."""
    if not isinstance(value, Mapping) or not concerned.startswith(f"{path}."):
        return False
    return value_at(value, concerned.removeprefix(f"{path}.")) is None
