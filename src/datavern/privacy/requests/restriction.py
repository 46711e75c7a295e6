"""The restriction of a person's data (GDPR Art. 18), and objections to its use (Art. 21); and their end.

What comes of one is a row of the ledger (`datavern.privacy.consent.standing`), written in one transaction with its
audit entry: it is in effect everywhere, or nowhere. So neither waits for a store that is down.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, ProviderError, SubjectRequestRejected
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import current_actor, timestamp, today
from datavern.privacy.consent import tables
from datavern.privacy.consent.standing import WHOLE, Mark
from datavern.privacy.datamap.bases import basis_in_words
from datavern.privacy.datamap.dataset import OWN_DATASETS
from datavern.privacy.requests.register import asked

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.journal.journal import Entry
    from datavern.privacy.service import Privacy

__all__ = ["Restrictions"]

_NO_RIGHT: Final = ("contract", "legal_obligation", "vital_interests")
_YIELDS: Final = ("public_task", "legitimate_interests")


class Restrictions:
    """Restrictions and objections, made and lifted.

    Args:
        privacy: the datasets, the ledger and its audit log.
    """

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy

    # ---- Art. 18 ----------------------------------------------------------------------------------------------------

    async def restrict(self, entry: Entry) -> dict[str, Any]:
        """Restrict a person's data; the answer. Idempotent by the request.

        Raises:
            ConfigurationError: the request names a dataset that is not in the data map.
            KeyErased: an erasure of the person runs.
        """
        wanted = asked(entry)
        reach = {self._dataset(name).label: () for name in wanted.get("datasets") or ()}
        details = {"request": entry.id, "datasets": sorted(reach), "ground": wanted.get("ground")}
        await self._mark(entry, reach, ground=wanted.get("ground"), action="restricted", details=details)
        found, unseen = await self._found(entry.subject, reach)
        number = sum(found.values())
        rows = "1 row" if number == 1 else f"{number} rows"
        message = f"Restricted: {rows} about this subject; what is stored stays, and is not used."
        if not number:
            message = "Nothing was found about this subject; what comes is restricted."
        if unseen:
            message += f" Restricted too, but not looked into, because they cannot be reached: {', '.join(unseen)}."
        return {"message": message, "found": found, "unseen": unseen}

    # ---- Art. 21 ----------------------------------------------------------------------------------------------------

    async def object_to(self, entry: Entry) -> dict[str, Any]:
        """Stop what a person objects to, as far as the right reaches; the answer, purpose by purpose.

        Raises:
            SubjectRequestRejected: a purpose that no dataset has, or grounds against an objection to marketing.
            KeyErased: an erasure of the person runs.
        """
        wanted = asked(entry)
        decisions = self._decisions(wanted.get("purposes"), wanted.get("override"))
        reach: dict[str, list[str]] = {}
        for one in decisions:
            if one["decision"] == "stopped":
                reach.setdefault(one["dataset"], []).append(one["purpose"] or WHOLE)
        details = {
            "request": entry.id,
            "stopped": {label: [p for p in purposes if p] for label, purposes in reach.items()},
            "overridden": {
                f"{d['dataset']}: {d['purpose']}": d["reason"] for d in decisions if d["decision"] == "overridden"
            },
        }
        if reach:
            kept = {label: tuple(purposes) for label, purposes in reach.items()}
            await self._mark(entry, kept, ground=None, action="objected", details=details)
        else:
            async with needs(self._privacy.ledger, "transactions").transaction() as tx:
                handle = await self._privacy.keys.handle(entry.subject, create=False, session=tx)
                await self._privacy.ledger_log.append(tx, action="objection_answered", handle=handle, details=details)
        undecided = any(one["decision"] == "undecided" for one in decisions)
        return {
            "message": _told(decisions, entry.deadline),
            "decisions": decisions,
            "success": bool(reach) and not undecided,
        }

    def _decisions(self, purposes: Sequence[str] | None, override: Any) -> list[dict[str, Any]]:
        """What comes of an objection, for every purpose of every dataset about people."""
        datasets = [s.dataset for s in self._privacy.datasets if s.dataset.personal]
        known = {purpose for dataset in datasets for purpose in dataset.purposes}
        for purpose in purposes or ():
            if purpose not in known:
                raise SubjectRequestRejected(
                    f"purposes: no dataset is for {purpose}; there are: {', '.join(sorted(known))}"
                )
        return [
            _decision(dataset, purpose, override)
            for dataset in datasets
            if not dataset.name.startswith(OWN_DATASETS)  # each row there rests on the consent that it was given with
            for purpose in dataset.purposes or (WHOLE,)
            if purposes is None or purpose in purposes
        ]

    # ---- the end of either ------------------------------------------------------------------------------------------

    async def standing(self, subject: object) -> list[Mark]:
        """What stands against the use of a person's data now, the oldest first."""
        return [m for m in await self._privacy.standing.of(canonical_subject(subject)) if m.lifted_at is None]

    async def lift(self, request: str, *, informed: dt.date | None, reason: str, by_person: bool) -> tuple[Mark, str]:
        """See `SubjectRequests.lift`; what was lifted, and when."""
        privacy = self._privacy
        dialect = needs(privacy.ledger, "ledger").dialect
        at = timestamp()
        async with needs(privacy.ledger, "transactions").transaction() as tx:
            row = await tx.query_one(*tables.RESTRICTION_BY_ID.bind(dialect, request=request))
            if row is None:
                raise SubjectRequestRejected(
                    "no restriction or objection follows from a request of that id: "
                    "`datavern subject standing SUBJECT` shows those that stand, each with its request"
                )
            mark = Mark.of(row)
            if mark.lifted_at is not None:
                raise SubjectRequestRejected(f"it was lifted {mark.lifted_at[:10]}")
            if mark.kind == "restriction":
                _check_informed(informed)
            else:
                self._check_grounds(mark, reason, by_person=by_person)
            day = None if informed is None else informed.isoformat()
            values = {"request": request, "at": at, "informed": day, "why": reason or None}
            if await tx.execute(*tables.RESTRICTION_LIFT.bind(dialect, **values)) != 1:
                raise SubjectRequestRejected("it was lifted just now")
            await privacy.standing.changed(tx)
            details = {"request": request, "informed": day, "reason": reason, "by_person": by_person}
            await privacy.ledger_log.append(tx, action=f"{mark.kind}_lifted", handle=mark.handle, details=details)
        privacy.standing.forget()
        return mark, at

    def _check_grounds(self, mark: Mark, reason: str, *, by_person: bool) -> None:
        if by_person:
            return
        if not reason.strip():
            raise SubjectRequestRejected(
                "reason: missing; an objection ends where compelling legitimate grounds override it, which are for the "
                "organisation to show (GDPR Art. 21(1)), or with the person's own word (by_person=True)"
            )
        for store in self._privacy.datasets:
            for purpose in mark.reach.get(store.dataset.label, ()):
                basis = store.dataset.basis_of(purpose or None)
                if basis is not None and basis.marketing:
                    raise SubjectRequestRejected(
                        f"{store.dataset.label}: {purpose or 'it'} is direct marketing: nothing overrides an objection "
                        "to that (GDPR Art. 21(3)); the person alone takes it back (by_person=True)"
                    )

    # ---- what they share --------------------------------------------------------------------------------------------

    async def _mark(
        self,
        entry: Entry,
        reach: Mapping[str, Sequence[str]],
        *,
        ground: str | None,
        action: str,
        details: Mapping[str, Any],
    ) -> None:
        """Write down what stands from now on, with its audit entry, once."""
        privacy = self._privacy
        dialect = needs(privacy.ledger, "ledger").dialect
        row = {
            "id": entry.id,
            "kind": entry.kind,
            "subject_tag": privacy.keys.subject_tag(entry.subject),
            "reach": json.dumps({label: list(purposes) for label, purposes in reach.items()}, ensure_ascii=False),
            "ground": ground,
            "since": timestamp(),
            "lifted_at": None,
            "informed_on": None,
            "reason": None,
            "actor": current_actor(),
        }

        async def work(tx: Transaction) -> None:
            if await tx.query_one(*tables.RESTRICTION_BY_ID.bind(dialect, request=entry.id)) is not None:
                return  # it was cut off behind this
            await privacy.standing.changed(tx)
            # Held, so that no erasure of the person comes between and leaves this behind.
            handle = await privacy.keys.hold_handle(entry.subject, session=tx)
            await tx.execute(*tables.RESTRICTION_INSERT.bind(dialect, handle=handle, **row))
            await privacy.ledger_log.append(tx, action=action, handle=handle, details=details)

        await needs(privacy.ledger, "transactions").run_in_transaction(work)
        privacy.standing.forget()

    async def _found(self, subject: str, reach: Mapping[str, Any]) -> tuple[dict[str, int], list[str]]:
        """How many rows are about the person in each dataset; and which datasets could not be asked."""
        found: dict[str, int] = {}
        unseen: list[str] = []
        for store in await self._privacy.stores():
            label = store.dataset.label
            if reach and label not in reach:
                continue
            try:
                number = await store.count_of(subject) if await store.exists() else 0
            except (ProviderError, ConfigurationError):
                unseen.append(label)
                continue
            if number or not store.dataset.name.startswith(OWN_DATASETS):
                found[label] = number
        return found, unseen

    def _dataset(self, name: str) -> Dataset:
        dataset = self._privacy.personal(name).dataset
        if dataset.subject is None:
            raise ConfigurationError(f"datasets.{name} is about nobody: nothing of anybody is restricted there")
        return dataset


def _decision(dataset: Dataset, purpose: str, override: Any) -> dict[str, Any]:  # noqa: PLR0911  (one return for each kind)
    """What comes of an objection to one purpose of a dataset."""
    basis = dataset.basis_of(purpose or None)
    said: dict[str, Any] = {
        "dataset": dataset.label,
        "purpose": purpose,
        "basis": basis_in_words(basis) if basis is not None or purpose else "",
    }
    reason = override if isinstance(override, str) else (override or {}).get(purpose)
    if basis is not None and basis.marketing:
        if isinstance(override, Mapping) and reason:
            raise SubjectRequestRejected(
                f"override: {purpose} is direct marketing: nothing overrides that (Art. 21(3))"
            )
        return {**said, "decision": "stopped", "why": "direct marketing always ends (GDPR Art. 21(3))"}
    if basis is None and not purpose:
        return {**said, "decision": "undecided", "why": "the data map names no legal basis: decide by hand"}
    if basis is None or basis.kind == "consent":
        return {**said, "decision": "withdraw", "why": "it rests on consent: withdraw it (GDPR Art. 7(3))"}
    if basis.kind in _YIELDS:
        if reason:
            return {**said, "decision": "overridden", "why": "compelling grounds (GDPR Art. 21(1))", "reason": reason}
        return {**said, "decision": "stopped", "why": "it rests on what an objection ends (GDPR Art. 21(1))"}
    if basis.kind in _NO_RIGHT:
        return {**said, "decision": "does_not_apply", "why": "the right does not reach this basis (GDPR Art. 21(1))"}
    return {**said, "decision": "undecided", "why": "the data map says the basis in words alone: decide by hand"}


def _told(decisions: Sequence[Mapping[str, Any]], deadline: dt.date) -> str:
    """The answer to an objection, for people."""
    if not decisions:
        return "No dataset is about people."
    words = {
        "stopped": "Stopped",
        "overridden": "Goes on, on compelling legitimate grounds",
        "withdraw": "Rests on consent, which is withdrawn instead (`datavern consent withdraw`)",
        "does_not_apply": "Goes on, since the right to object does not reach its basis",
        "undecided": f"To be decided by hand, by {deadline.isoformat()}",
    }
    parts = []
    for decision, text in words.items():
        named = [
            d["dataset"] + (f" ({d['purpose']})" if d["purpose"] else "") + (f": {d['basis']}" if d["basis"] else "")
            for d in decisions
            if d["decision"] == decision
        ]
        if named:
            parts.append(f"{text}: {'; '.join(named)}.")
    return " ".join(parts)


def _check_informed(informed: dt.date | None) -> None:
    if not isinstance(informed, dt.date) or isinstance(informed, dt.datetime):
        raise SubjectRequestRejected(
            "informed: missing; the person is told before a restriction is lifted, and this says on which day "
            "(GDPR Art. 18(3))"
        )
    if informed > today():
        raise SubjectRequestRejected("informed: the day lies in the future: tell the person first")
