"""The data layer for organisations that must keep people's data safe and lawful.

What costs time to import, or needs a driver, loads when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from datavern.config import TLS, Pool, Secret, env
from datavern.contracts import services as _services
from datavern.contracts.errors import (
    AuditError,
    BackupCorrupt,
    BackupError,
    BackupMissing,
    CapabilityMissing,
    ChecksumMismatch,
    ConfigurationError,
    ConnectionFailed,
    ConsentRequired,
    ConstraintViolated,
    CryptoError,
    DatavernError,
    DecryptionFailed,
    ErasureIncomplete,
    HistoryDiverged,
    IdempotencyKeyReused,
    KeyErased,
    KeyUnavailable,
    LockTimeout,
    LogTampered,
    MigrationError,
    MigrationFailed,
    NoHealthyConnection,
    OutcomeUnknown,
    PoolTimeout,
    PrivacyError,
    ProcessingRestricted,
    ProviderError,
    QueryRejected,
    RequestIncomplete,
    ResidencyViolation,
    RestoreForbidden,
    RotationIncomplete,
    SerializationConflict,
    SubjectRequestRejected,
    TransferError,
)
from datavern.contracts.values import Classification, Health, Location, PoolStats, Row, actor

if TYPE_CHECKING:
    from datavern.background import Background
    from datavern.connectors.failover import FailoverGroup
    from datavern.contracts.uses import purpose, restricted_use
    from datavern.crypto.keyring import Keyring
    from datavern.engines.azuresql.provider import AzureSQLProvider
    from datavern.engines.mongodb.provider import MongoDBProvider
    from datavern.engines.postgresql.provider import PostgreSQLProvider
    from datavern.engines.redis.provider import RedisProvider
    from datavern.engines.sqlite.provider import SQLiteProvider
    from datavern.manager.manager import DatabaseManager
    from datavern.privacy.consent.consent import Consent
    from datavern.privacy.datamap.bases import LegalBasis
    from datavern.privacy.datamap.categories import Exemption
    from datavern.privacy.datamap.datamap import DataMap
    from datavern.privacy.datamap.dataset import Dataset, Field
    from datavern.privacy.journal.values import Identity, SubjectRequest, SubjectResponse

__all__ = [
    "TLS",
    "AuditError",
    "AzureSQLProvider",
    "Background",
    "BackupCorrupt",
    "BackupError",
    "BackupMissing",
    "CapabilityMissing",
    "ChecksumMismatch",
    "Classification",
    "ConfigurationError",
    "ConnectionFailed",
    "Consent",
    "ConsentRequired",
    "ConstraintViolated",
    "CryptoError",
    "DataMap",
    "DatabaseManager",
    "Dataset",
    "DatavernError",
    "DecryptionFailed",
    "ErasureIncomplete",
    "Exemption",
    "FailoverGroup",
    "Field",
    "Health",
    "HistoryDiverged",
    "IdempotencyKeyReused",
    "Identity",
    "KeyErased",
    "KeyUnavailable",
    "Keyring",
    "LegalBasis",
    "Location",
    "LockTimeout",
    "LogTampered",
    "MigrationError",
    "MigrationFailed",
    "MongoDBProvider",
    "NoHealthyConnection",
    "OutcomeUnknown",
    "Pool",
    "PoolStats",
    "PoolTimeout",
    "PostgreSQLProvider",
    "PrivacyError",
    "ProcessingRestricted",
    "ProviderError",
    "QueryRejected",
    "RedisProvider",
    "RequestIncomplete",
    "ResidencyViolation",
    "RestoreForbidden",
    "RotationIncomplete",
    "Row",
    "SQLiteProvider",
    "Secret",
    "SerializationConflict",
    "SubjectRequest",
    "SubjectRequestRejected",
    "SubjectResponse",
    "TransferError",
    "__version__",
    "actor",
    "env",
    "purpose",
    "restricted_use",
]

__version__ = "0.1.0.dev0"

_LAZY = {
    "Background": "datavern.background",
    "Consent": "datavern.privacy.consent.consent",
    "DataMap": "datavern.privacy.datamap.datamap",
    "DatabaseManager": "datavern.manager.manager",
    "Dataset": "datavern.privacy.datamap.dataset",
    "Exemption": "datavern.privacy.datamap.categories",
    "FailoverGroup": "datavern.connectors.failover",
    "Field": "datavern.privacy.datamap.dataset",
    "Identity": "datavern.privacy.journal.values",
    "Keyring": "datavern.crypto.keyring",
    "LegalBasis": "datavern.privacy.datamap.bases",
    "SubjectRequest": "datavern.privacy.journal.values",
    "SubjectResponse": "datavern.privacy.journal.values",
    "purpose": "datavern.contracts.uses",
    "restricted_use": "datavern.contracts.uses",
}
_ENGINES = {
    "AzureSQLProvider": "azuresql",
    "MongoDBProvider": "mongodb",
    "PostgreSQLProvider": "postgresql",
    "RedisProvider": "redis",
    "SQLiteProvider": "sqlite",
}


def __getattr__(name: str) -> Any:
    value: Any
    if name in _ENGINES:
        from datavern.manager.loading import provider_class  # noqa: PLC0415  (it names the extra when a driver is missing)

        value = provider_class(_ENGINES[name])
    elif name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
    else:
        raise AttributeError(f"module 'datavern' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


async def _serve_alone(provider: Any, keyring: str) -> Any:
    """The services of a provider that belongs to no manager: a manager around it alone."""
    from datavern.manager.alone import serve  # noqa: PLC0415  (only when such a call is made)

    return await serve(provider, keyring)


_services.standalone = _serve_alone
