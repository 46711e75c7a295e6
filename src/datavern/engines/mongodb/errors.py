"""PyMongo's errors and the server's codes as the tree of errors, and nothing of what they say about values.

The server's messages quote values (``dup key: { email: "…" }``), and so do those of the BSON encoder. What is passed on
is the code's name, the names of indexes and fields, and where in a document a value stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from bson.errors import BSONError, InvalidDocument
from gridfs.errors import CorruptGridFile, FileExists, NoFile
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ClientBulkWriteException,
    ConnectionFailure,
    DocumentTooLarge,
    EncryptionError,
    ExecutionTimeout,
    InvalidName,
    InvalidOperation,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)

from datavern.contracts.errors import (
    ConnectionFailed,
    ConstraintViolated,
    DatavernError,
    DriverError,
    NoHealthyConnection,
    OutcomeUnknown,
    PoolTimeout,
    ProviderError,
    QueryRejected,
    SerializationConflict,
)
from datavern.engines.mongodb.encoding import unencodable

__all__ = ["DRIVER_ERRORS", "DUPLICATE", "scrubbed", "translate"]

DRIVER_ERRORS: Final = (PyMongoError, BSONError, OverflowError, UnicodeError, RecursionError)
"""What the driver raises for what it was given or told. (TypeError and some ValueErrors are the caller's own bugs.)"""

_INDEX = re.compile(r"index: (.*?)(?: collation: .*?)? dup key: ", re.DOTALL)
_CODE_NAME = re.compile(r"[A-Za-z0-9_]{1,80}\Z")

DUPLICATE: Final = frozenset({11000, 11001, 12582})
"""Codes of a unique index that holds such a value already."""
_VALIDATION = 121
_TOO_LARGE = frozenset({10334, 17419, 17420, 17280})
_CONFLICT = frozenset({112, 24, 251, 246})  # WriteConflict, LockTimeout, NoSuchTransaction, SnapshotUnavailable
_NOT_PRIMARY = frozenset({10107, 13435, 10058})  # nothing was done
_STOPPING = frozenset({91, 189, 11600, 11602, 13436})
_UNREACHABLE = frozenset({6, 7, 89, 9001, 262})
_TIME_LIMIT = 50
_SIGN_IN = 18
_NOT_ALLOWED = 13
_WRITE_CONCERN = frozenset({64, 79, 100})
_SHORT_SERVER = "the server refused it"

_SAID = {
    2: "a value is not one that the server takes here",
    9: "the server cannot read the command: an operator is unknown, or stands where it may not",
    14: "a value has a type that does not fit here",
    17: "the transaction or session protocol was not followed",
    20: "the operation is not allowed here",
    26: "there is no collection of that name",
    27: "there is no such index",
    28: "a path of the update cannot be created in the document as it stands",
    40: "the update would change the same path twice",
    43: "the cursor is gone: it was not read for too long, or the server was restarted",
    48: "there is a collection of that name already",
    59: "the server does not know the command",
    66: "the field _id, or a part of a shard key, cannot be changed",
    67: "the index cannot be made",
    85: "there is such an index already, with other options",
    86: "there is an index of that name already, over other fields",
    166: "the command is not supported on a view",
    197: "the index options are not valid",
    263: "the operation is not supported in a transaction",
    303: "the server does not have this feature switched on",
}


def translate(  # noqa: PLR0911  (one return for each kind)
    error: BaseException, *, provider: str, wrote: bool = False, document: Any = None, options: Any = None
) -> BaseException:
    """The driver's error as ours, ready to be raised: its cause is scrubbed, and it has no context.

    Args:
        error: what the driver raised.
        provider: the provider's name.
        wrote: whether the call writes, so that no answer means that its outcome is unknown.
        document: what was to be encoded, to name the place of a value that cannot be.
        options: the codec options that it is encoded with.
    """
    if isinstance(error, DatavernError):
        if isinstance(error, ProviderError) and error.provider is None:
            error.provider = provider
        return error
    if isinstance(error, DocumentTooLarge):
        return _as(QueryRejected(_too_large()), error, provider)
    if isinstance(error, InvalidDocument | OverflowError | UnicodeError | RecursionError):
        return _as(QueryRejected(_unencodable(document, options)), error, provider)
    if isinstance(error, BSONError):
        return _as(QueryRejected("the answer is not BSON that the driver can read"), error, provider)
    if isinstance(error, BulkWriteError | ClientBulkWriteException):
        return _bulk(error, provider, wrote=wrote)
    if isinstance(error, OperationFailure):
        return _failure(error, error.details or {}, provider, wrote=wrote)
    if isinstance(error, ConnectionFailure):
        return _connection(error, provider, wrote=wrote)
    return _other(error, provider)


def scrubbed(error: BaseException, ours: BaseException) -> BaseException:
    """`ours`, when it was raised while the driver's error was handled: without the context that Python adds."""
    if ours is not error:
        ours.__context__ = None
    return ours


def _as(
    ours: ProviderError,
    error: BaseException,
    provider: str,
    code: str | None = None,
    constraint: str | None = None,
) -> ProviderError:
    ours.provider = provider
    ours.code = code
    ours.constraint = constraint
    ours.__cause__ = DriverError.of(error, code, constraint)
    return ours


def _code(details: Mapping[str, Any]) -> tuple[int | None, str | None]:
    number, name = details.get("code"), details.get("codeName")
    if not isinstance(number, int):
        number = None
    if isinstance(name, str) and _CODE_NAME.match(name):
        return number, name
    return number, None if number is None else str(number)


def _label(error: BaseException, label: str) -> bool:
    return isinstance(error, PyMongoError) and error.has_error_label(label)


def _failure(  # noqa: C901, PLR0911, PLR0912  (one return for each kind)
    error: OperationFailure, details: Mapping[str, Any], provider: str, *, wrote: bool
) -> ProviderError:
    number, name = _code(details)
    if number is None:
        number = error.code
    if name is None and number is not None:
        name = str(number)
    if _label(error, "UnknownTransactionCommitResult"):
        return _as(OutcomeUnknown("the commit was sent, and its outcome is not known"), error, provider, name)
    if number in DUPLICATE:
        return _duplicate(error, details, provider)
    if number == _VALIDATION:
        return _validation(error, details, provider)
    if number in _CONFLICT or (_label(error, "TransientTransactionError") and number not in _NOT_PRIMARY | _STOPPING):
        text = "another operation changed the same documents: the transaction was undone"
        return _as(SerializationConflict(text), error, provider, name)
    if number in _TOO_LARGE:
        return _as(QueryRejected(_too_large()), error, provider, name)
    if number in _NOT_PRIMARY | _STOPPING:
        return _not_primary(error, number, name, provider, wrote=wrote)
    if number in _UNREACHABLE:
        return _connection(error, provider, wrote=wrote, code=name)
    if number == _SIGN_IN:
        text = "the server does not accept the user and password, or the certificate"
        return _as(ConnectionFailed(text, retry="never"), error, provider, name)
    if number == _NOT_ALLOWED:
        return _as(QueryRejected("the user may not do this (Unauthorized)"), error, provider, name)
    if number in _WRITE_CONCERN or "writeConcern" in type(error).__name__ or _write_concern(error):
        text = "written, but not confirmed by as many members as the write concern asks for: it may yet be rolled back"
        return _as(OutcomeUnknown(text), error, provider, name)
    if number == _TIME_LIMIT or isinstance(error, ExecutionTimeout):
        text = "the server stopped it at its time limit"
        kind = OutcomeUnknown if wrote else ProviderError
        return _as(kind(text), error, provider, name)
    said = _SAID.get(number or 0, _SHORT_SERVER)
    return _as(QueryRejected(f"{said} ({name})" if name else said), error, provider, name)


def _write_concern(error: BaseException) -> bool:
    from pymongo.errors import WriteConcernError  # noqa: PLC0415  (one rare branch)

    return isinstance(error, WriteConcernError)


def _duplicate(error: BaseException, details: Mapping[str, Any], provider: str) -> ProviderError:
    message = details.get("errmsg")
    found = _INDEX.search(message) if isinstance(message, str) else None
    index = found[1].rpartition(".$")[2] if found else None
    pattern = details.get("keyPattern")
    fields = ", ".join(str(field) for field in pattern) if isinstance(pattern, Mapping) else ""
    text = "a unique index holds such a value already"
    if index:
        text += f": {index}" + (f" ({fields})" if fields and fields != index else "")
    return _as(ConstraintViolated(text), error, provider, "DuplicateKey", index)


def _validation(error: BaseException, details: Mapping[str, Any], provider: str) -> ProviderError:
    info = details.get("errInfo")
    rules = sorted(_rules(info.get("details") if isinstance(info, Mapping) else None, ""))
    text = "the document does not fit the collection's validator"
    if rules:
        text += ": " + "; ".join(rules)
    return _as(ConstraintViolated(text), error, provider, "DocumentValidationFailure", "$jsonSchema")


def _rules(details: Any, path: str) -> set[str]:
    """Which rules of a $jsonSchema were broken, and where: names of rules and fields, never a value."""
    found: set[str] = set()
    if not isinstance(details, Mapping):
        return found
    for rule in details.get("schemaRulesNotSatisfied", ()):
        found |= _rule(rule, path)
    for inner in details.get("details", ()) if isinstance(details.get("details"), list) else ():
        found |= _rules(inner, path) or _rule(inner, path)
    return found


def _rule(rule: Any, path: str) -> set[str]:
    if not isinstance(rule, Mapping):
        return set()
    found: set[str] = set()
    for missing in rule.get("missingProperties", ()):
        found.add(f"{path}{missing} is required")
    for inner in rule.get("propertiesNotSatisfied", ()):
        name = f"{path}{inner.get('propertyName', '')}"
        for reason in inner.get("details", ()):
            found |= (
                _rules(reason, f"{name}.") or _rule(reason, f"{name}.") or {f"{name}: {reason.get('operatorName')}"}
            )
    if not found and path and "operatorName" in rule:
        found.add(f"{path[:-1]}: {rule['operatorName']}")
    return found


def _bulk(error: BulkWriteError | ClientBulkWriteException, provider: str, *, wrote: bool) -> ProviderError:
    """Of several writes at once: the first that failed."""
    details: Any = error.details or {}
    writes = details.get("writeErrors") or ()
    first = writes[0] if isinstance(writes, list) and writes else None
    if isinstance(first, Mapping):
        return _failure(error, first, provider, wrote=wrote)
    concerns = details.get("writeConcernErrors") or ()
    first = concerns[0] if isinstance(concerns, list) and concerns else {}
    code = _code(first)[1] if isinstance(first, Mapping) else None
    return _as(OutcomeUnknown("written, but not confirmed as the write concern asks"), error, provider, code)


def _not_primary(
    error: BaseException, number: int | None, name: str | None, provider: str, *, wrote: bool
) -> ProviderError:
    if _label(error, "TransientTransactionError"):
        text = "the server is not the primary any more: the transaction was undone"
        return _as(NoHealthyConnection(text, retry="transaction"), error, provider, name)
    if number in _STOPPING and wrote:
        text = "the server stopped, or stepped down, before it said what became of the write"
        return _as(OutcomeUnknown(text), error, provider, name)
    return _as(NoHealthyConnection("the server is not the primary, and takes no writes"), error, provider, name)


def _connection(  # noqa: PLR0911  (one return for each kind)
    error: BaseException, provider: str, *, wrote: bool, code: str | None = None
) -> ProviderError:
    if _label(error, "UnknownTransactionCommitResult"):
        return _as(OutcomeUnknown("the commit was sent, and no answer came"), error, provider, code)
    if isinstance(error, WaitQueueTimeoutError):
        return _as(PoolTimeout("no connection came free in time"), error, provider, code)
    if isinstance(error, NotPrimaryError):
        details = error.details if isinstance(error.details, Mapping) else {}
        number, name = _code(details)
        return _not_primary(error, number, name, provider, wrote=wrote)
    if _label(error, "TransientTransactionError"):
        text = "the connection broke: the transaction was undone"
        return _as(ConnectionFailed(text, retry="transaction"), error, provider, code)
    if isinstance(error, ServerSelectionTimeoutError):
        text = "no server that may take this answered in time"
        return _as(ConnectionFailed(text), error, provider, code)
    if wrote and isinstance(error, AutoReconnect | OperationFailure):
        text = "the connection broke before the server said what became of the write"
        return _as(OutcomeUnknown(text), error, provider, code)
    return _as(ConnectionFailed("the connection broke, or could not be made"), error, provider, code)


def _other(error: BaseException, provider: str) -> BaseException:  # noqa: PLR0911  (one return for each kind)
    if isinstance(error, NoFile):
        return _as(QueryRejected("there is no such file"), error, provider)
    if isinstance(error, FileExists):
        return _as(ConstraintViolated("there is a file with that id already"), error, provider, None, "_id_")
    if isinstance(error, CorruptGridFile):
        return _as(ProviderError("the file is damaged: a chunk is missing, or has another length"), error, provider)
    if isinstance(error, InvalidOperation):
        text = "the client or session is closed, or was used in a way that it does not allow"
        return _as(QueryRejected(text), error, provider)
    if isinstance(error, InvalidName):
        return _as(QueryRejected("the name is not one that MongoDB takes"), error, provider)
    if isinstance(error, EncryptionError):
        return _as(QueryRejected("client-side field level encryption refused it"), error, provider)
    if isinstance(error, PyMongoError):
        return _as(ProviderError("the driver refused it"), error, provider)
    return error


def _too_large() -> str:
    return "the document is larger than MongoDB holds (16 MiB): keep large content in `files`"


def _unencodable(document: Any, options: Any) -> str:
    return unencodable(document, options) or "a value cannot be encoded as BSON"
