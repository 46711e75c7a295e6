"""Consent: who agreed to what, since when, and since when not any more (GDPR Arts. 6(1)(a), 7 and 8).

A consent is a row in the ledger. It names the person by a keyed tag, never by the id. What was granted stays on record
after a withdrawal (Art. 7(1)), until the person is erased.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from datavern.contracts.capabilities import Transaction, needs
from datavern.contracts.errors import ConfigurationError, ConsentRequired, PrivacyError
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import current_actor, now, timestamp, today
from datavern.crypto.sealed import RowSealer, new_row_tag
from datavern.privacy.consent import tables
from datavern.privacy.consent.checks import ConsentChecks, id_of
from datavern.privacy.consent.texts import ConsentText, agreed_text, register, texts_of
from datavern.privacy.units import within

if TYPE_CHECKING:
    from datavern.audit.log import AuditLog
    from datavern.contracts.capabilities import Provider, Session
    from datavern.crypto.keystore import KeyStore

__all__ = ["Consent", "Consents", "Evidence"]

_DATASET = "datavern.consents"
_LONGEST = 200

BirthDate = Callable[[str, "Transaction | None"], Awaitable["dt.date | None"]]


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
        language: in which language it was read: of a registered text.
        text_hash: the SHA-256 of the registered text, in hexadecimal.
        source: how it was given: "web form", "paper", "phone"; or None.
        explicit: whether it was given explicitly, as special categories of data ask for (Art. 9(2)(a)).
        by_guardian: whether a holder of parental responsibility gave it (Art. 8(1)).
        of_age_on: of such a consent: the day from which the child consents itself. It holds on, and is the child's to
            withdraw (`Consents.coming_of_age`).
    """

    id: str
    subject: str | None
    purpose: str
    granted_at: dt.datetime
    expires_at: dt.datetime | None = None
    withdrawn_at: dt.datetime | None = None
    version: str | None = None
    actor: str | None = None
    language: str | None = None
    text_hash: str | None = None
    source: str | None = None
    explicit: bool = False
    by_guardian: bool = False
    of_age_on: dt.date | None = None

    def holds(self, at: dt.datetime | None = None) -> bool:
        """Whether it is neither withdrawn nor expired at that moment; now when None."""
        at = at or now()
        return (self.withdrawn_at is None or self.withdrawn_at > at) and (
            self.expires_at is None or self.expires_at > at
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What shows that a person consented (GDPR Art. 7(1)).

    Attributes:
        consent: the consent as it stands now.
        text: the text that was agreed to, where it is registered.
        proof: what was kept as proof, opened: what the form said, where the signed paper lies.
        entry: the audit entry of the grant: ``await db.audit.prove(entry)`` gives the proof that it stands in the log.
    """

    consent: Consent
    text: ConsentText | None = None
    proof: Any = field(default=None, repr=False)
    entry: str | None = None


class Consents(ConsentChecks):
    """The consents in the ledger.

    Args:
        provider: the ledger database.
        keys: names subjects by tag.
        log: the ledger's audit log.
        age: from which age people consent themselves, in years (personopplysningsloven § 5).
        born: finds a person's birth date in the databases, where the data map has a fødselsnummer that tells it.
    """

    def __init__(
        self, provider: Provider, keys: KeyStore, log: AuditLog, *, age: int = 13, born: BirthDate | None = None
    ) -> None:
        super().__init__(provider, keys)
        self._log = log
        self._age = age
        self._born = born
        self._sealer = RowSealer(_DATASET, ("proof",))

    async def open(self) -> None:
        """Make the tables. Idempotent."""
        await needs(self._provider, "ledger").create_tables(tables.consent_tables())

    async def grant(
        self,
        *,
        subject: object,
        purpose: str,
        expires: dt.datetime | None = None,
        version: str | None = None,
        language: str | None = None,
        source: str | None = None,
        proof: Any = None,
        explicit: bool = False,
        birth_date: dt.date | None = None,
        guardian: object = None,
        transaction: Transaction | None = None,
    ) -> Consent:
        """Record a consent, with its audit entry in the same transaction. Not idempotent: each call is a consent.

        Args:
            subject: whose.
            purpose: one of the data map's purposes.
            expires: when it ends by itself (with its time zone).
            version: which text was agreed to: one of those registered with `text`, where there are any.
            language: in which language it was read, where the version has several.
            source: how it was given: "web form", "paper", "phone".
            proof: what shows it later (Art. 7(1)), any value that can be sealed: what the form said, where the signed
                paper lies. It is sealed under the person's key; `evidence` opens it.
            explicit: it was given explicitly, in words of its own (Art. 9(2)(a)).
            birth_date: the person's. Not kept. When None it is read from a fødselsnummer that the data map names, where
                the number tells it: numbers assigned from 2032 do not.
            guardian: the id of the holder of parental responsibility who gives it for a child (Art. 8(1)). Kept as a
                keyed tag.
            transaction: an open transaction of the ledger database.

        Raises:
            ConsentRequired: the person is younger than the age of consent, and no guardian gives it.
            ConfigurationError: no subject id, an empty purpose, a moment without time zone, a text that is not
                registered though others of the purpose are, a guardian who is the person.
            KeyErased: an erasure of the subject runs.
        """
        person = canonical_subject(subject)
        if not isinstance(purpose, str) or not purpose.strip() or "\0" in purpose:
            raise ConfigurationError("purpose: expected text, such as customer-account")
        if expires is not None and expires.tzinfo is None:
            raise ConfigurationError("expires: expected a moment with its time zone, such as datetime.now(UTC)")
        if source is not None and (not isinstance(source, str) or not source.strip() or len(source) > _LONGEST):
            raise ConfigurationError(f'source: expected a short text, such as "web form", up to {_LONGEST} characters')
        if birth_date is None and self._born is not None:
            birth_date = await self._born(person, transaction)
        by, of_age = self._of_age(person, birth_date, guardian)
        actor = current_actor()
        granted = now()
        row: dict[str, Any] = {
            "id": secrets.token_hex(16),
            "subject_tag": self._keys.subject_tag(person),
            "purpose": purpose,
            "text_version": version,
            "text_number": None,
            "text_language": None,
            "text_hash": None,
            "granted_at": timestamp(granted),
            "expires_at": None if expires is None else timestamp(expires),
            "withdrawn_at": None,
            "explicit": int(bool(explicit)),
            "source": source,
            "guardian_tag": by,
            "of_age_on": None if of_age is None else of_age.isoformat(),
            "row_tag": None,
            "proof": None,
            "actor": actor,
        }
        dialect = needs(self._provider, "ledger").dialect
        if version is not None or language is not None:
            text = await agreed_text(self._session(transaction), dialect, purpose, version, language)
            if text is not None:
                row |= {"text_number": text.number, "text_language": text.language, "text_hash": text.hash}
        if proof is not None:
            key = await self._keys.subject_key(_DATASET, person, session=transaction)
            row["row_tag"] = new_row_tag()
            row |= self._sealer.seal_row(key, row["row_tag"], {"proof": proof})
        details = {"consent": row["id"], "purpose": purpose}
        details |= {name: row[name] for name in ("text_version", "text_hash", "source") if row[name] is not None}
        details |= {name: True for name, so in (("explicit", explicit), ("guardian", by is not None)) if so}
        async with within(self._provider, transaction) as tx:
            # Held, so that no erasure of the subject comes between and leaves this behind; a new one commits with it.
            handle = await self._keys.hold_handle(person, session=tx)
            entry = await self._log.append(tx, action="consent_granted", handle=handle, details=details)
            await tx.execute(*tables.CONSENT_INSERT.bind(dialect, handle=handle, entry=entry, **row))
        self._seen.pop(row["subject_tag"], None)
        return _consent(row, person)

    def _of_age(self, person: str, birth_date: dt.date | None, guardian: object) -> tuple[bytes | None, dt.date | None]:
        """The tag of whoever gives the consent for a child, and the day from which the child does it itself.

        Raises:
            ConsentRequired: a child, and nobody gives it.
        """
        if isinstance(birth_date, dt.datetime) or not isinstance(birth_date, dt.date | None):
            raise ConfigurationError("birth_date: expected a date, such as date(2014, 5, 17)")
        day = today()
        if birth_date is not None and birth_date > day:
            raise ConfigurationError("birth_date: the day lies in the future")
        of_age = None if birth_date is None else _birthday(birth_date, self._age)
        if guardian is None:
            if of_age is not None and of_age > day:
                raise ConsentRequired(
                    f"the person is under {self._age}: the holder of parental responsibility gives the consent, "
                    "guardian=… (GDPR Art. 8(1), personopplysningsloven § 5)"
                )
            return None, None
        holder = canonical_subject(guardian)
        if holder == person:
            raise ConfigurationError("guardian: is the person; a child's consent is given by somebody else")
        return self._keys.subject_tag(holder), of_age if of_age is not None and of_age > day else None

    async def withdraw(self, consent: Consent | str, *, transaction: Transaction | None = None) -> Consent:
        """Withdraw a consent, with its audit entry in the same transaction. Idempotent: the first withdrawal stands.

        Writes that are under way with the consent, in the ledger's own database, end first; none comes after.

        Raises:
            PrivacyError: there is no consent of that id.
        """
        ledger = needs(self._provider, "ledger")
        id_ = id_of(consent)
        async with within(self._provider, transaction) as tx:
            changed = await tx.execute(*tables.CONSENT_WITHDRAW.bind(ledger.dialect, consent=id_, at=timestamp()))
            row = await tx.query_one(*tables.CONSENT_BY_ID.bind(ledger.dialect, id=id_))
            if row is not None and changed:
                details = {"consent": id_, "purpose": row["purpose"]}
                await self._log.append(tx, action="consent_withdrawn", handle=row["handle"], details=details)
        if row is None:
            raise PrivacyError("there is no consent of that id")
        self._seen.pop(bytes(row["subject_tag"]), None)
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

    async def given_for_others(self, guardian: object) -> Sequence[Consent]:
        """The consents that somebody gave as a guardian, the oldest first: they are part of that person's data too."""
        tag = self._keys.subject_tag(canonical_subject(guardian))
        dialect = needs(self._provider, "ledger").dialect
        rows = await cast("Session", self._provider).query(*tables.CONSENTS_BY_GUARDIAN.bind(dialect, tag=tag))
        return [_consent(row, None) for row in rows]

    async def coming_of_age(self, by: dt.date | None = None) -> Sequence[Consent]:
        """The standing consents of guardians whose child consents itself by that day; by today when None.

        They hold on until they are withdrawn, and the child must be told that it may (EDPB Guidelines 05/2020, 7.1.4).
        """
        day = (today() if by is None else by).isoformat()
        dialect = needs(self._provider, "ledger").dialect
        rows = await cast("Session", self._provider).query(*tables.CONSENTS_OF_AGE.bind(dialect, day=day))
        return [_consent(row, None) for row in rows]

    async def evidence(self, consent: Consent | str) -> Evidence:
        """What shows that the person consented: the text that was agreed to, the proof, the audit entry (Art. 7(1)).

        Raises:
            PrivacyError: there is no consent of that id.
            DecryptionFailed: the proof is not what was sealed.
        """
        session = cast("Session", self._provider)
        dialect = needs(self._provider, "ledger").dialect
        row = await session.query_one(*tables.CONSENT_BY_ID.bind(dialect, id=id_of(consent)))
        if row is None:
            raise PrivacyError("there is no consent of that id")
        proof = None
        if row["proof"] is not None:
            values = {"proof": bytes(row["proof"])}
            keys = await self._keys.keys(self._sealer.key_ids(values))
            tag = bytes(row["subject_tag"])
            proof = self._sealer.open_row(bytes(row["row_tag"]), values, keys, tag)["proof"]
        text = None
        if row["text_number"] is not None:
            text = await agreed_text(session, dialect, row["purpose"], row["text_version"], row["text_language"])
        known = consent.subject if isinstance(consent, Consent) else None
        return Evidence(_consent(row, known), text, proof, row["entry"])

    # ---- the texts --------------------------------------------------------------------------------------------------

    async def text(self, purpose: str, version: str, text: str, *, language: str = "nb") -> ConsentText:
        """Register the text that people agree to. Idempotent; what is registered does not change.

        Versions of a purpose follow one another in the order in which they are registered. The data map may ask for
        one, or a later one (`LegalBasis.text_version`): consents to older texts then hold no more.

        Args:
            purpose: what for.
            version: its name: "2026-02".
            text: what people read.
            language: of that text, as BCP 47 has it: "nb", "nn", "se", "en". A version may have several.

        Raises:
            ConfigurationError: an empty name or text, or another text is registered under that name.
        """
        return await register(self._provider, self._log, purpose, version, text, language=language)

    async def texts(self, purpose: str | None = None) -> Sequence[ConsentText]:
        """The registered texts, of one purpose or of all, the oldest version first."""
        return await texts_of(cast("Session", self._provider), needs(self._provider, "ledger").dialect, purpose)

    async def delete(self, tags: Sequence[bytes], transaction: Transaction) -> Counter[bytes]:
        """Delete all consents of erased people, in the erasure's own transaction; how many of each.

        What they gave as guardians stays, and says no more by whom.
        """
        dialect = needs(self._provider, "ledger").dialect
        found: Counter[bytes] = Counter()
        for query in tables.CONSENTS_TAGS.bind(dialect, tags):
            found.update(bytes(row[0]) for row in await transaction.query(*query))
        for statement in tables.CONSENTS_DELETE.bind(dialect, list(found)):
            await transaction.execute(*statement)
        for statement in tables.GUARDIANS_FORGET.bind(dialect, tags, nobody=b""):
            await transaction.execute(*statement)
        return found


def _birthday(born: dt.date, years: int) -> dt.date:
    """The birthday that makes somebody so old; whoever was born on a 29 February is a year older on 1 March."""
    try:
        return born.replace(year=born.year + years)
    except ValueError:
        return dt.date(born.year + years, 3, 1)


def _consent(row: Any, subject: str | None) -> Consent:
    def moment(name: str) -> dt.datetime | None:
        return None if row[name] is None else dt.datetime.fromisoformat(row[name])

    return Consent(
        row["id"],
        subject,
        row["purpose"],
        dt.datetime.fromisoformat(row["granted_at"]),
        moment("expires_at"),
        moment("withdrawn_at"),
        row["text_version"],
        row["actor"],
        row["text_language"],
        row["text_hash"],
        row["source"],
        bool(row["explicit"]),
        row["guardian_tag"] is not None,
        None if row["of_age_on"] is None else dt.date.fromisoformat(row["of_age_on"]),
    )
