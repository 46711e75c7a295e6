"""One tree of errors for every engine.

A driver's error is translated once, at its engine's edge. What a driver says quotes values (``Key (email)=(…) already
exists``), so its own error never travels on: ``__cause__`` is a `DriverError`, which keeps the class, the code and the
constraint's name, and nothing that anybody typed in.

Each error says what a caller may do about it:

- ``retry == "safe"``: nothing was sent; the same call may be made again.
- ``retry == "transaction"``: the engine undid the transaction; run all of it again.
- ``retry == "never"``: the same call fails again, or its outcome is not known.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

__all__ = [
    "AuditError",
    "BackupCorrupt",
    "BackupError",
    "BackupMissing",
    "CapabilityMissing",
    "ChecksumMismatch",
    "ConfigurationError",
    "ConnectionFailed",
    "ConsentRequired",
    "ConstraintViolated",
    "CryptoError",
    "DatavernError",
    "DecryptionFailed",
    "DriverError",
    "ErasureIncomplete",
    "HistoryDiverged",
    "IdempotencyKeyReused",
    "KeyErased",
    "KeyUnavailable",
    "LockTimeout",
    "LogTampered",
    "MigrationError",
    "MigrationFailed",
    "NoHealthyConnection",
    "OutcomeUnknown",
    "PoolTimeout",
    "PrivacyError",
    "ProcessingRestricted",
    "ProviderError",
    "QueryRejected",
    "RequestIncomplete",
    "ResidencyViolation",
    "RestoreForbidden",
    "Retry",
    "RotationIncomplete",
    "SerializationConflict",
    "SubjectRequestRejected",
    "TransferError",
    "twin_of",
]

Retry = Literal["safe", "transaction", "never"]


class DriverError(Exception):
    """What may be told of a driver's own error: never its message, which quotes values.

    Attributes:
        kind: the driver's class, such as ``asyncpg.exceptions.UniqueViolationError``.
        code: the engine's code: a SQLSTATE, or ``SQLITE_CONSTRAINT_UNIQUE``; None where it has none.
        constraint: the constraint's name, where the engine tells it.
    """

    def __init__(self, kind: str, code: str | None = None, constraint: str | None = None) -> None:
        super().__init__(kind, code, constraint)
        self.kind = kind
        self.code = code
        self.constraint = constraint

    def __str__(self) -> str:
        """Class, code and constraint in one line."""
        parts = [self.kind]
        if self.code:
            parts.append(f"code {self.code}")
        if self.constraint:
            parts.append(f"constraint {self.constraint}")
        return ", ".join(parts)

    @classmethod
    def of(cls, error: BaseException, code: str | None = None, constraint: str | None = None) -> DriverError:
        """The scrubbed copy of `error`: raise from it outside the ``except`` block, and ``__context__`` is clean."""
        kind = type(error)
        return cls(f"{kind.__module__}.{kind.__qualname__}", code, constraint)


class DatavernError(Exception):
    """The root of the tree: ``except DatavernError`` catches whatever Datavern raises on purpose."""

    retry: Retry = "never"

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross process borders (executors): rebuild from state, not from the message."""
        return _rebuild, (type(self), self.args, self.__dict__)


class ConfigurationError(DatavernError):
    """A setting, a key file or a call is wrong; the message says where and what was expected."""


class CapabilityMissing(DatavernError):
    """The engine cannot do what was asked of it.

    Attributes:
        capability: its name, such as ``"transactions"``.
        provider: the provider's name.
    """

    def __init__(self, capability: str, provider: str, reason: str) -> None:
        super().__init__(f"{provider} has no {capability}: {reason}")
        self.capability = capability
        self.provider = provider


# ---- engines --------------------------------------------------------------------------------------------------------


class ProviderError(DatavernError):
    """Something between Datavern and a database.

    Attributes:
        provider: the provider's name, or None before it has one.
        code: the engine's own code (SQLSTATE, SQLite's extended name, Azure's number), or None.
        constraint: the violated constraint's name, or None.
        position: 1-based character position in the SQL text, or None.
    """

    default_retry: ClassVar[Retry] = "never"

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        code: str | None = None,
        constraint: str | None = None,
        position: int | None = None,
        retry: Retry | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.code = code
        self.constraint = constraint
        self.position = position
        self.retry = retry or self.default_retry


class ConnectionFailed(ProviderError):
    """No connection could be made, or it broke before anything was sent."""

    default_retry: ClassVar[Retry] = "safe"


class PoolTimeout(ProviderError):
    """No connection came free within the acquire deadline, or the queue of waiters is full."""

    default_retry: ClassVar[Retry] = "safe"


class NoHealthyConnection(ProviderError):
    """No member of the group may take this call now."""

    default_retry: ClassVar[Retry] = "safe"


class QueryRejected(ProviderError):
    """The engine, or its driver, refused the statement or a parameter."""


class ConstraintViolated(QueryRejected):
    """A unique, foreign key, not-null, check or exclusion constraint said no; `constraint` names it."""


class IdempotencyKeyReused(QueryRejected):
    """An idempotency key that names another change already; nothing was done. A key names one change: use a new one."""


class SerializationConflict(ProviderError):
    """Serialization failure, deadlock or a busy file: the transaction was undone and may be run again."""

    default_retry: ClassVar[Retry] = "transaction"


class OutcomeUnknown(ProviderError):
    """The statement or commit was sent and no answer came: it may or may not have happened."""


# ---- crypto ---------------------------------------------------------------------------------------------------------


class CryptoError(DatavernError):
    """Keys and sealed values."""


class DecryptionFailed(CryptoError):
    """A sealed value did not open. One message for every cause: the difference would help only an attacker."""

    def __init__(self, message: str = "a sealed value did not open") -> None:
        super().__init__(message)


class KeyUnavailable(CryptoError):
    """The key is not here now: the key ring, the vault or the key store does not hold it."""


class RotationIncomplete(CryptoError):
    """A rotation of the keys that is not at its end: what was done stays done, and `rotate` goes on from there.

    Attributes:
        state: how far it has come: "rewrap", "reindex", "confirm", "destroy" or "purge".
        reasons: what it waits for, one line each; empty when another process is at it.
    """

    def __init__(self, message: str, *, state: str = "", reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.state = state
        self.reasons = reasons


class KeyErased(CryptoError):
    """The subject was erased, and the key with it. Nobody can open this value again."""


# ---- privacy --------------------------------------------------------------------------------------------------------


class PrivacyError(DatavernError):
    """What the law, or the data map that speaks for it, does not allow."""


class ConsentRequired(PrivacyError):
    """No consent that holds now for this subject and purpose."""


class ProcessingRestricted(PrivacyError):
    """Something stands against the use of a person's data: a restriction (GDPR Art. 18) or an objection (Art. 21).

    Attributes:
        request: the request that it follows from.
        reason: "restriction" or "objection".
    """

    def __init__(self, message: str, *, request: str = "", reason: str = "restriction") -> None:
        super().__init__(message)
        self.request = request
        self.reason = reason


class ResidencyViolation(PrivacyError):
    """The data may not be where this would put it."""


class SubjectRequestRejected(PrivacyError):
    """A subject request that cannot be carried out as it stands."""


class RequestIncomplete(PrivacyError):
    """A subject request that has not reached every store yet. It stays open in the journal.

    Attributes:
        receipt: what was done and what waits, store by store.
    """

    def __init__(self, message: str, receipt: Any = None) -> None:
        super().__init__(message)
        self.receipt = receipt


class ErasureIncomplete(RequestIncomplete):
    """An erasure that has not reached every store yet; it goes on by itself."""


# ---- migrations, transfers, backups ---------------------------------------------------------------------------------


class MigrationError(DatavernError):
    """Schema migrations."""


class ChecksumMismatch(MigrationError):
    """A migration that was applied has been edited since."""


class HistoryDiverged(MigrationError):
    """The database holds migrations that the folder does not, or in another order."""


class LockTimeout(MigrationError):
    """Somebody else migrates, or holds a lock that the migration needs."""


class MigrationFailed(MigrationError):
    """A step failed; `step` says which, and the message says what state it left."""

    def __init__(self, message: str, step: str | None = None) -> None:
        super().__init__(message)
        self.step = step


class TransferError(DatavernError):
    """Moving data between stores."""


class BackupError(DatavernError):
    """Backups and restores."""


class BackupCorrupt(BackupError):
    """A backup that does not verify."""


class BackupMissing(BackupError):
    """No such backup, or a part of it is gone."""


class RestoreForbidden(BackupError):
    """Permission, residency or an erasure forbids this restore."""


# ---- audit ----------------------------------------------------------------------------------------------------------


class AuditError(DatavernError):
    """The audit log."""


class LogTampered(AuditError):
    """The log is not what was sealed.

    Attributes:
        position: 0-based position of the first entry that does not fit, or None for the log as a whole.
        reason: what does not fit.
    """

    def __init__(self, position: int | None, reason: str) -> None:
        where = "the log" if position is None else f"entry {position}"
        super().__init__(f"{where}: {reason}")
        self.position = position
        self.reason = reason


def _rebuild(kind: type[DatavernError], args: tuple[Any, ...], state: dict[str, Any]) -> DatavernError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


def twin_of(error: Exception) -> Exception:
    """The same error for one more who waits: one that is shared would gather everybody's traceback.

    What is no error of ours is given back as it is: it is a mistake in a program, and not every class can be copied.
    """
    if not isinstance(error, DatavernError):
        return error
    twin = _rebuild(type(error), error.args, error.__dict__)
    twin.__cause__ = error.__cause__
    twin.__suppress_context__ = True
    return twin
