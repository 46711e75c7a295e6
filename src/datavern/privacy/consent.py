"""Consent: who agreed to what, since when, and since when not any more (GDPR Arts. 6(1)(a) and 7).

A consent is a row in the ledger. It names the person by a keyed tag, never by the id. What was granted stays on record
after a withdrawal (Art. 7(1)), until the person is erased.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from datavern.contracts.capabilities import Transaction, needs
from datavern.contracts.errors import ConfigurationError, ConsentRequired, PrivacyError
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import current_actor, now, timestamp
from datavern.privacy import tables
from datavern.privacy.units import within

if TYPE_CHECKING:
    from datavern.audit.log import AuditLog
    from datavern.contracts.capabilities import Provider, Session
    from datavern.contracts.fused import Guard
    from datavern.contracts.values import Row
    from datavern.crypto.keystore import KeyStore

__all__ = ["Consent", "Consents"]


@dataclass(frozen=True, slots=True)
class Consent:
    """A consent as it stood when it was read.

    Attributes:
        id: random; it says nothing about the person.
        subject: whose it is; None where it was read by its id, since the record holds a tag alone.
        purpose: what it is for.
        granted_at: when.
        expires_at: when it ends by itself, or None.
        withdrawn_at: when it was withdrawn, or None.
        version: which text was agreed to, or None.
        actor: who recorded it, or None.
    """

    id: str
    subject: str | None
    purpose: str
    granted_at: dt.datetime
    expires_at: dt.datetime | None = None
    withdrawn_at: dt.datetime | None = None
    version: str | None = None
    actor: str | None = None

    def holds(self, at: dt.datetime | None = None) -> bool:
        """Whether it is neither withdrawn nor expired at that moment; now when None."""
        at = at or now()
        return (self.withdrawn_at is None or self.withdrawn_at > at) and (
            self.expires_at is None or self.expires_at > at
        )


class Consents:
    """The consents in the ledger.

    Args:
        provider: the ledger database.
        keys: names subjects by tag.
        log: the ledger's audit log.
    """

    def __init__(self, provider: Provider, keys: KeyStore, log: AuditLog) -> None:
        self._provider = provider
        self._keys = keys
        self._log = log

    async def open(self) -> None:
        """Make the table. Idempotent."""
        await needs(self._provider, "ledger").create_tables(tables.ledger_tables())

    async def grant(
        self,
        *,
        subject: object,
        purpose: str,
        expires: dt.datetime | None = None,
        version: str | None = None,
        transaction: Transaction | None = None,
    ) -> Consent:
        """Record a consent, with its audit entry in the same transaction. Not idempotent: each call is a consent.

        Args:
            subject: whose.
            purpose: one of the data map's purposes.
            expires: when it ends by itself (with its time zone).
            version: which text was agreed to.
            transaction: an open transaction of the ledger database.

        Raises:
            ConfigurationError: no subject id, an empty purpose, a moment without time zone.
            KeyErased: an erasure of the subject runs.
        """
        person = canonical_subject(subject)
        if not isinstance(purpose, str) or not purpose.strip() or "\0" in purpose:
            raise ConfigurationError("purpose: expected text, such as customer-account")
        if expires is not None and expires.tzinfo is None:
            raise ConfigurationError("expires: expected a moment with its time zone, such as datetime.now(UTC)")
        actor = current_actor()
        granted = now()
        consent = Consent(secrets.token_hex(16), person, purpose, granted, expires, None, version, actor)
        row = {
            "id": consent.id,
            "subject_tag": self._keys.subject_tag(person),
            "purpose": purpose,
            "text_version": version,
            "granted_at": timestamp(granted),
            "expires_at": None if expires is None else timestamp(expires),
            "withdrawn_at": None,
            "actor": actor,
        }
        dialect = needs(self._provider, "ledger").dialect
        details = {"consent": consent.id, "purpose": purpose}
        async with within(self._provider, transaction) as tx:
            # Held, so that no erasure of the subject comes between and leaves this behind; a new one commits with it.
            handle = await self._keys.hold_handle(person, session=tx)
            await tx.execute(*tables.CONSENT_INSERT.bind(dialect, handle=handle, **row))
            await self._log.append(tx, action="consent_granted", handle=handle, details=details)
        return consent

    async def withdraw(self, consent: Consent | str, *, transaction: Transaction | None = None) -> Consent:
        """Withdraw a consent, with its audit entry in the same transaction. Idempotent: the first withdrawal stands.

        Writes that are under way with the consent, in the ledger's own database, end first; none comes after.

        Raises:
            PrivacyError: there is no consent of that id.
        """
        ledger = needs(self._provider, "ledger")
        id_ = _id(consent)
        async with within(self._provider, transaction) as tx:
            changed = await tx.execute(*tables.CONSENT_WITHDRAW.bind(ledger.dialect, consent=id_, at=timestamp()))
            row = await tx.query_one(*tables.CONSENT_BY_ID.bind(ledger.dialect, id=id_))
            if row is not None and changed:
                details = {"consent": id_, "purpose": row["purpose"]}
                await self._log.append(tx, action="consent_withdrawn", handle=row["handle"], details=details)
        if row is None:
            raise PrivacyError("there is no consent of that id")
        return _consent(row, consent.subject if isinstance(consent, Consent) else None)

    async def get(self, consent: str) -> Consent | None:
        """The consent of that id as it stands now, or None. Its `subject` is None: the record holds a tag."""
        ledger = needs(self._provider, "ledger")
        row = await cast("Session", self._provider).query_one(*tables.CONSENT_BY_ID.bind(ledger.dialect, id=consent))
        return None if row is None else _consent(row, None)

    async def list(self, subject: object) -> list[Consent]:
        """All consents of a person, withdrawn and expired ones too, the oldest first."""
        ledger = needs(self._provider, "ledger")
        person = canonical_subject(subject)
        tag = self._keys.subject_tag(person)
        rows = await cast("Session", self._provider).query(*tables.CONSENTS_OF.bind(ledger.dialect, subject_tag=tag))
        return [_consent(row, person) for row in rows]

    async def delete(self, tags: Sequence[bytes], transaction: Transaction) -> Counter[bytes]:
        """Delete all consents of erased people, in the erasure's own transaction; how many of each."""
        dialect = needs(self._provider, "ledger").dialect
        found: Counter[bytes] = Counter()
        for query in tables.CONSENTS_TAGS.bind(dialect, tags):
            found.update(bytes(row[0]) for row in await transaction.query(*query))
        for statement in tables.CONSENTS_DELETE.bind(dialect, list(found)):
            await transaction.execute(*statement)
        return found

    # ---- what a write asks ------------------------------------------------------------------------------------------

    async def check(
        self, subject: str, purposes: Collection[str], given: Any, *, transaction: Transaction | None = None
    ) -> tuple[str, ...]:
        """The ids of consents that hold now for this subject, and cover every purpose.

        Args:
            subject: the canonical id.
            purposes: which must be covered; empty: whatever is given must hold, for whatever purpose.
            given: a `Consent`, its id, or several.
            transaction: the write's own; used when the ledger is the same database.

        Raises:
            ConsentRequired: one is missing, unknown, withdrawn, expired, another person's, or for another purpose.
                The message says which purpose, and never who.
        """
        ids = _ids(given)
        if not ids:
            raise ConsentRequired(_missing(purposes))
        tag = self._keys.subject_tag(subject)
        known = await self._fetch(ids, transaction)
        at = timestamp()
        covered = {_holding(known.get(id_), tag, at, purposes) for id_ in ids}
        if not covered.issuperset(purposes):
            raise ConsentRequired(_missing([p for p in purposes if p not in covered], covered))
        return ids

    def guard(
        self, subject: str, purposes: Collection[str], given: Any, *, provider: Provider
    ) -> tuple[Guard, tuple[str, ...]] | None:
        """`check` as a condition of the write's own statement, and the consents' ids.

        Returns:
            None: it takes more than one condition (several consents, several purposes), or the ledger is another
            database than `provider`: `check` it is.
        """
        ids = _ids(given)
        if len(ids) != 1 or len(purposes) > 1 or provider is not self._provider:
            return None
        values = {"consent": ids[0], "tag": self._keys.subject_tag(subject), "moment": timestamp()}
        dialect = needs(self._provider, "ledger").dialect
        for purpose in purposes:
            return tables.CONSENT_HOLDS_FOR.bind(dialect, **values, for_purpose=purpose), ids
        return tables.CONSENT_HOLDS.bind(dialect, **values), ids

    async def check_many(
        self, given: Sequence[tuple[str, Any]], purposes: Collection[str], *, transaction: Transaction | None = None
    ) -> Sequence[tuple[str, ...]]:
        """The same for many subjects, in few queries: for each (subject, consent) the ids of those that hold."""
        wanted = [_ids(consent) for _, consent in given]
        if not all(wanted):
            raise ConsentRequired(_missing(purposes))
        known = await self._fetch({id_ for ids in wanted for id_ in ids}, transaction)
        at = timestamp()
        for (subject, _), ids in zip(given, wanted, strict=True):
            tag = self._keys.subject_tag(subject)
            covered = {_holding(known.get(id_), tag, at, purposes) for id_ in ids}
            if not covered.issuperset(purposes):
                raise ConsentRequired(_missing([p for p in purposes if p not in covered], covered))
        return wanted

    async def _fetch(self, ids: Iterable[str], transaction: Transaction | None) -> dict[str, Row]:
        """The consents of those ids; in a transaction of the ledger held as they stand until it ends."""
        session = self._session(transaction)
        statement = tables.CONSENTS_HELD if session is transaction else tables.CONSENTS_BY_ID
        dialect = needs(self._provider, "ledger").dialect
        return {
            row["id"]: row for query in statement.bind(dialect, sorted(set(ids))) for row in await session.query(*query)
        }

    def _session(self, transaction: Transaction | None) -> Session:
        if transaction is not None and transaction.provider is self._provider:
            return transaction
        return cast("Session", self._provider)


def _id(consent: Any) -> str:
    if isinstance(consent, Consent):
        return consent.id
    if isinstance(consent, str):
        return consent
    raise ConfigurationError(f"consent: expected a Consent or its id, not {type(consent).__name__}")


def _ids(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str | Consent):
        return (_id(given),)
    return tuple(dict.fromkeys(_id(one) for one in given))


def _holding(row: Any, tag: bytes, at: str, purposes: Collection[str]) -> str:
    """The purpose of a consent that holds at that moment; raises where it does not."""
    needed = f"; needed: {', '.join(purposes)}" if purposes else ""
    if row is None:
        raise ConsentRequired(f"there is no consent of that id{needed}")
    purpose: str = row["purpose"]
    if bytes(row["subject_tag"]) != tag:
        raise ConsentRequired(f"the consent to {purpose} is another person's{needed}")
    if row["withdrawn_at"] is not None:
        raise ConsentRequired(f"the consent to {purpose} was withdrawn{needed}")
    if row["expires_at"] is not None and row["expires_at"] <= at:
        raise ConsentRequired(f"the consent to {purpose} has expired{needed}")
    return purpose


def _missing(purposes: Collection[str], given: Collection[str] = ()) -> str:
    if given:
        return f"no consent to {', '.join(purposes)}: the one given is to {', '.join(sorted(given))}"
    if purposes:
        return f"no consent was given; needed: {', '.join(purposes)}"
    return "no consent was given, and the write needs one"


def _consent(row: Any, subject: str | None) -> Consent:
    return Consent(
        row["id"],
        subject,
        row["purpose"],
        dt.datetime.fromisoformat(row["granted_at"]),
        None if row["expires_at"] is None else dt.datetime.fromisoformat(row["expires_at"]),
        None if row["withdrawn_at"] is None else dt.datetime.fromisoformat(row["withdrawn_at"]),
        row["text_version"],
        row["actor"],
    )
