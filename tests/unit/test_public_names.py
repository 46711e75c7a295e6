"""The public surface is counted: a name comes or goes on purpose, with a line in the changelog."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import datavern

PUBLIC = """
AuditError AzureSQLProvider Background BackupCorrupt BackupError BackupMissing CapabilityMissing ChecksumMismatch
Classification ConfigurationError ConnectionFailed Consent ConsentRequired ConstraintViolated CryptoError DataMap
DatabaseManager Dataset DatavernError DecryptionFailed ErasureIncomplete Exemption FailoverGroup Field Health
HistoryDiverged IdempotencyKeyReused Identity KeyErased KeyUnavailable Keyring LegalBasis Location LockTimeout
LogTampered MigrationError MigrationFailed MongoDBProvider NoHealthyConnection OutcomeUnknown Pool PoolStats
PoolTimeout PostgreSQLProvider PrivacyError ProcessingRestricted ProviderError QueryRejected RedisProvider
RequestIncomplete ResidencyViolation RestoreForbidden RotationIncomplete Row SQLiteProvider Secret
SerializationConflict SubjectRequest SubjectRequestRejected SubjectResponse TLS TransferError __version__ actor env
purpose restricted_use
""".split()  # noqa: SIM905  (a page of words reads better than a page of quotes)


def test_the_public_names_are_these_and_no_others():
    assert sorted(datavern.__all__) == sorted(PUBLIC)
    assert sorted(dir(datavern)) == sorted(PUBLIC)


def test_every_public_name_leads_to_something_of_ours():
    for name in PUBLIC:
        value = getattr(datavern, name)
        assert value is not None
        if isinstance(value, type):
            assert value.__module__.startswith("datavern."), name


DOCUMENTED = {
    "datavern.privacy.approvals": "Approval Safeguard",
    "datavern.privacy.breaches": "Reads",
    "datavern.privacy.places": "Place",
    "datavern.privacy.processing_record": "ProcessingRecord",
}


def test_the_paths_that_the_documentation_names_stay_wherever_their_rooms_are():
    for path, names in DOCUMENTED.items():
        module = import_module(path)
        assert {*names.split()} <= {*module.__all__}, path
        assert all(isinstance(getattr(module, name), type) for name in names.split()), path


def test_a_name_that_is_not_public_is_an_attribute_error():
    assert not hasattr(datavern, "NoSuchName")


HEAVY = """
pydantic sqlalchemy asyncpg pymongo redis typer rich tomllib cryptography json
pathlib urllib.parse ipaddress decimal uuid platform random secrets hashlib hmac tempfile statistics
datavern.connectors.pool datavern.connectors.retry datavern.connectors.failover datavern.connectors.coalescing
datavern.engines.sqlite.messages datavern.engines.sqlite.files datavern.engines.sqlite.ledger
datavern.engines.sqlite.subjects datavern.engines.own_tables datavern.engines.mapped datavern.audit datavern.crypto
datavern.privacy.service datavern.privacy.personal datavern.privacy.consent datavern.privacy.requests
datavern.privacy.journal
""".split()  # noqa: SIM905  (as above)


def test_importing_loads_nothing_heavy():
    """What is not here is a millisecond or more that a short command does not wait for. Loaded where it is used."""
    code = (
        "import sys; start = set(sys.modules); from datavern import SQLiteProvider, DataMap, DatabaseManager; "
        f"print(*sorted((set({HEAVY!r}) & sys.modules.keys()) - start))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
