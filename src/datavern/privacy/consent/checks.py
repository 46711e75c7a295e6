"""What a write, or a read, asks of a person's consents: does one hold now, to this purpose, as the map wants it?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from datavern.contracts.capabilities import Transaction, needs
from datavern.contracts.errors import ConfigurationError, ConsentRequired
from datavern.contracts.values import timestamp
from datavern.privacy.consent import tables

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider, Session
    from datavern.contracts.fused import Guard
    from datavern.contracts.values import Row
    from datavern.crypto.keystore import KeyStore
    from datavern.privacy.datamap.dataset import Dataset

__all__ = ["REMEMBERED", "ConsentChecks", "Rule", "rules_of"]

REMEMBERED: Final = 0.5
"""Seconds for which what the ledger said counts for reads, from before it was asked. A withdrawal, a restriction and an
objection are in effect in every process by then; USAGE promises a second."""
_MOST: Final = 20_000
"""People whose consents are remembered; those of one read come on top."""


class Rule(NamedTuple):
    """What the data map asks of the consents to a purpose, beside that they hold.

    Attributes:
        version: which text, or a later one, was agreed to; None: any.
        explicit: whether they are explicit (GDPR Art. 9(2)(a)).
    """

    version: str | None
    explicit: bool


def rules_of(dataset: Dataset) -> dict[str, Rule]:
    """Purpose → what is asked of its consents; nothing for a purpose of which nothing more is asked."""
    found = {}
    for purpose in dataset.consent_purposes:
        basis = dataset.basis_of(purpose)
        if basis is not None and (basis.explicit or basis.text_version is not None):
            found[purpose] = Rule(basis.text_version, basis.explicit)
    return found


_NO_RULES: Mapping[str, Rule] = {}


class ConsentChecks:
    """The checks of the consents in the ledger: see `datavern.privacy.consent.consent.Consents`, which is made of this.

    Args:
        provider: the ledger database.
        keys: names subjects by tag.
    """

    def __init__(self, provider: Provider, keys: KeyStore) -> None:
        self._provider = provider
        self._keys = keys
        self._numbers: dict[tuple[str, str], int] = {}  # of registered texts, which never change
        self._seen: dict[bytes, tuple[float, list[Row]]] = {}  # tag → until when it counts, and the consents

    async def check(
        self,
        subject: str,
        purposes: Collection[str],
        given: Any,
        *,
        rules: Mapping[str, Rule] = _NO_RULES,
        transaction: Transaction | None = None,
    ) -> tuple[str, ...]:
        """The ids of consents that hold now for this subject, and cover every purpose.

        Args:
            subject: the canonical id.
            purposes: which must be covered; empty: whatever is given must hold, for whatever purpose.
            given: a `Consent`, its id, or several.
            rules: what more is asked of the consents to a purpose.
            transaction: the write's own; used when the ledger is the same database.

        Raises:
            ConsentRequired: one is missing, unknown, withdrawn, expired, another person's, for another purpose, to an
                older text, or not explicit. The message says which purpose, and never who.
        """
        return (await self.check_many([(subject, given)], purposes, rules=rules, transaction=transaction))[0]

    def guard(
        self,
        subject: str,
        purposes: Collection[str],
        given: Any,
        *,
        provider: Provider,
        rules: Mapping[str, Rule] = _NO_RULES,
    ) -> tuple[Guard, tuple[str, ...]] | None:
        """`check` as a condition of the write's own statement, and the consents' ids.

        Returns:
            None: it takes more than one condition (several consents, several purposes), a text's number is not known
            yet, or the ledger is another database than `provider`: `check` it is.
        """
        ids = ids_of(given)
        if len(ids) != 1 or len(purposes) > 1 or provider is not self._provider:
            return None
        values = {"consent": ids[0], "tag": self._keys.subject_tag(subject), "moment": timestamp()}
        dialect = needs(self._provider, "ledger").dialect
        for purpose in purposes:
            rule = rules.get(purpose)
            if rule is None:
                return tables.CONSENT_HOLDS_FOR.bind(dialect, **values, for_purpose=purpose), ids
            least = 0 if rule.version is None else self._numbers.get((purpose, rule.version))
            if least is None:
                return None
            strictly = {"for_purpose": purpose, "least": least, "expressly": int(rule.explicit)}
            return tables.CONSENT_HOLDS_STRICTLY.bind(dialect, **values, **strictly), ids
        return tables.CONSENT_HOLDS.bind(dialect, **values), ids

    async def check_many(
        self,
        given: Sequence[tuple[str, Any]],
        purposes: Collection[str],
        *,
        rules: Mapping[str, Rule] = _NO_RULES,
        transaction: Transaction | None = None,
    ) -> Sequence[tuple[str, ...]]:
        """The same for many subjects, in few queries: for each (subject, consent) the ids of those that hold."""
        wanted = [ids_of(consent) for _, consent in given]
        if not all(wanted):
            raise ConsentRequired(_missing(purposes))
        known = await self._fetch({id_ for ids in wanted for id_ in ids}, transaction)
        least = await self._least(rules, transaction)
        at = timestamp()
        for (subject, _), ids in zip(given, wanted, strict=True):
            tag = self._keys.subject_tag(subject)
            covered = set()
            for id_ in ids:
                row = known.get(id_)
                purpose = _holding(row, tag, at, purposes)
                if purpose in rules:
                    _meets(row, purpose, rules[purpose], least)
                covered.add(purpose)
            if not covered.issuperset(purposes):
                raise ConsentRequired(_missing([p for p in purposes if p not in covered], covered))
        return wanted

    async def check_tag(self, tag: bytes, given: Any, *, transaction: Transaction | None = None) -> tuple[str, ...]:
        """The ids of consents, to whatever purpose, that all hold now and are those of the person with that tag.

        Raises:
            ConsentRequired: one does not, or is not.
        """
        ids = ids_of(given)
        known = await self._fetch(ids, transaction)
        at = timestamp()
        for id_ in ids:
            _holding(known.get(id_), tag, at, ())
        return ids

    async def standing(
        self,
        tags: Iterable[bytes],
        purposes: Collection[str],
        *,
        rules: Mapping[str, Rule] = _NO_RULES,
        transaction: Transaction | None = None,
    ) -> dict[bytes, str]:
        """For reads: the tags of people without a standing consent to every purpose → the purpose that lacks one.

        What the ledger said is remembered for `REMEMBERED` seconds, from before it was asked: so a withdrawal is in
        effect in every process by then, however busy it is. In an open transaction of the ledger it is asked each time.

        Args:
            tags: of the people.
            purposes: what is asked for.
            rules: what more is asked of the consents.
            transaction: the read's own.
        """
        people = dict.fromkeys(tags)
        session = self._session(transaction)
        asked, at = monotonic(), timestamp()
        remembers = session is not transaction
        missing = [t for t in people if not remembers or (s := self._seen.get(t)) is None or s[0] <= asked]
        found: dict[bytes, list[Row]] = {tag: [] for tag in missing}
        dialect = needs(self._provider, "ledger").dialect
        for query in tables.CONSENTS_STANDING.bind(dialect, missing):
            for row in await session.query(*query):
                found[bytes(row["subject_tag"])].append(row)
        known = {tag: found[tag] if tag in found else self._seen[tag][1] for tag in people}
        if remembers and found:
            if len(self._seen) > _MOST:
                self._seen.clear()
            self._seen.update({tag: (asked + REMEMBERED, rows) for tag, rows in found.items()})
        least = await self._least(rules, transaction)
        lacking = {}
        for tag, rows in known.items():
            holds = {row["purpose"] for row in rows if _stands(row, at, rules, least)}
            lack = next((purpose for purpose in purposes if purpose not in holds), None)
            if lack is not None:
                lacking[tag] = lack
        return lacking

    def forget(self) -> None:
        """Ask the ledger anew: something changed in this process."""
        self._seen.clear()

    async def _least(self, rules: Mapping[str, Rule], transaction: Transaction | None) -> dict[str, int]:
        """Purpose → the number of the text that the data map asks for.

        Raises:
            ConfigurationError: no such text is registered.
        """
        least = {}
        for purpose, rule in rules.items():
            if rule.version is None:
                continue
            number = self._numbers.get((purpose, rule.version))
            if number is None:
                session = self._session(transaction)
                dialect = needs(self._provider, "ledger").dialect
                rows = await session.query(*tables.TEXTS_OF.bind(dialect, for_purpose=purpose))
                number = next((row["number"] for row in rows if row["version"] == rule.version), None)
                if number is None:
                    raise ConfigurationError(
                        f"the data map asks for consents to version {rule.version} of the text for {purpose}, and no "
                        f'such text is registered: await db.consents.text("{purpose}", "{rule.version}", "…")'
                    )
                if session is not transaction:
                    self._numbers[purpose, rule.version] = number
            least[purpose] = number
        return least

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


def id_of(consent: Any) -> str:
    """The id of a consent, or the id itself.

    Raises:
        ConfigurationError: it is neither.
    """
    if isinstance(consent, str):
        return consent
    id_ = getattr(consent, "id", None)
    if not isinstance(id_, str):
        raise ConfigurationError(f"consent: expected a Consent or its id, not {type(consent).__name__}")
    return id_


def ids_of(given: Any) -> tuple[str, ...]:
    """The ids of a consent, or of several, each once."""
    if given is None:
        return ()
    if isinstance(given, str) or hasattr(given, "id"):
        return (id_of(given),)
    return tuple(dict.fromkeys(id_of(one) for one in given))


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


def _meets(row: Any, purpose: str, rule: Rule, least: Mapping[str, int]) -> None:
    """Raises where a consent that holds is not such as the data map asks for."""
    if (row["text_number"] or 0) < least.get(purpose, 0):
        raise ConsentRequired(
            f"the consent to {purpose} is to an older text, or to none that is registered; needed: version "
            f"{rule.version} or a later one"
        )
    if rule.explicit and not row["explicit"]:
        raise ConsentRequired(f"the consent to {purpose} is not explicit, as this data asks for (GDPR Art. 9(2)(a))")


def _stands(row: Any, at: str, rules: Mapping[str, Rule], least: Mapping[str, int]) -> bool:
    """Whether a consent that is not withdrawn holds, and is such as the data map asks for."""
    if row["expires_at"] is not None and row["expires_at"] <= at:
        return False
    purpose = row["purpose"]
    rule = rules.get(purpose)
    if rule is None:
        return True
    return (row["text_number"] or 0) >= least.get(purpose, 0) and bool(row["explicit"] or not rule.explicit)


def _missing(purposes: Collection[str], given: Collection[str] = ()) -> str:
    if given:
        return f"no consent to {', '.join(purposes)}: the one given is to {', '.join(sorted(given))}"
    if purposes:
        return f"no consent was given; needed: {', '.join(purposes)}"
    return "no consent was given, and the write needs one"
