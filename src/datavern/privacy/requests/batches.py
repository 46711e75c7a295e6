"""Many people erased at once: each with a request, a journal entry and a certificate of their own."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError, SubjectRequestRejected
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import today
from datavern.privacy.erasure.erasure import TOGETHER
from datavern.privacy.journal.values import Identity, Receipt, SubjectRequest
from datavern.privacy.requests.register import entry_of

if TYPE_CHECKING:
    from datavern.crypto.keystore import KeyStore
    from datavern.privacy.erasure.erasure import Done, Erasures
    from datavern.privacy.journal.journal import Entry, Journal
    from datavern.privacy.requests.register import Register

__all__ = ["Batch", "people"]


def people(subjects: Iterable[Any]) -> list[str]:
    """The canonical ids, each of them once, in order.

    Raises:
        ConfigurationError: one of them can name nobody; the message says which, by its number, and why.
    """
    if isinstance(subjects, str | bytes):
        raise ConfigurationError("expected several subjects, in a list: one alone is a request of its own")
    found: dict[str, None] = {}
    for number, subject in enumerate(subjects, 1):
        problem = ""
        try:
            found.setdefault(canonical_subject(subject))
        except ConfigurationError as error:
            problem = str(error)
        if problem:
            raise ConfigurationError(f"number {number} of the subjects: {problem}. Nobody was erased")
    return list(found)


class Batch:
    """Erasures of many people.

    Args:
        erasures: what carries them out.
        journal: where requests are found again.
        register: says whether somebody may be worked for.
        keys: names requests, where the batch has a name.
        subjects: who.
        name: a name under which the same people may be given again, and those that are done are not erased again;
            empty: none.
        received: the day of the requests; today when None.
        identity: how it was made sure who asks.

    Raises:
        ConfigurationError: one of them can name nobody.
        SubjectRequestRejected: the day lies in the future, or the settings ask for an identity, and there is none.
    """

    def __init__(
        self,
        erasures: Erasures,
        journal: Journal,
        register: Register,
        keys: KeyStore,
        subjects: Iterable[Any],
        *,
        name: str,
        received: dt.date | None,
        identity: Identity | None,
    ) -> None:
        self._erasures = erasures
        self._journal = journal
        self._register = register
        self._keys = keys
        self._subjects = people(subjects)
        self._name = name
        sample = SubjectRequest("erasure", subject="somebody", received=received or today(), identity=identity)
        self._sample = entry_of(sample)
        register.identified(self._sample)

    async def run(self) -> AsyncIterator[tuple[Entry, Done | Receipt]]:
        """Erase them, some hundred at a time; the requests in the order of the people, and what came of each.

        Raises:
            ConfigurationError: the live schema lacks what the data map says. Those that were yielded are done.
        """
        for at in range(0, len(self._subjects), TOGETHER):
            entries = await self._entries(self._subjects[at : at + TOGETHER])
            answers: dict[str, Done | Receipt] = {}
            begun: list[Entry] = []
            new: list[Entry] = []
            for entry in entries:
                if entry.completed_at is not None:
                    answers[entry.id] = await self._erasures.done(entry.id) or Receipt(entry.id)
                elif entry.begun_at is not None:
                    begun.append(entry)
                else:
                    problem = self._doubted(entry)
                    if problem is None:
                        new.append(entry)
                    else:
                        answers[entry.id] = problem
            if begun:
                answers |= {e.id: done for e, done in zip(begun, await self._erasures.run(begun), strict=True)}
            answers |= await self._erased(new)
            for entry in entries:
                yield entry, answers[entry.id]

    async def _erased(self, new: list[Entry]) -> dict[str, Done | Receipt]:
        """Erase those whose data is not restricted: the others keep it, because they asked for that."""
        answers: dict[str, Done | Receipt] = {}
        while new:
            held = await self._register.restricted([entry.subject for entry in new])
            for entry in new:
                if entry.subject in held:
                    answers[entry.id] = Receipt(entry.id, waiting={"restriction": held[entry.subject]})
            new = [entry for entry in new if entry.subject not in held]
            try:
                done = await self._erasures.erase(new) if new else []
            except SubjectRequestRejected:  # somebody was restricted since they were looked up
                if not await self._register.restricted([entry.subject for entry in new]):
                    raise
                continue
            return answers | {entry.id: one for entry, one in zip(new, done, strict=True)}
        return answers

    async def _entries(self, subjects: list[str]) -> list[Entry]:
        """The requests of some of the people: as they stand in the journal, or new ones."""
        new = [
            replace(
                entry_of(SubjectRequest("erasure", subject=subject)),
                received=self._sample.received,
                deadline=self._sample.deadline,
                details=self._sample.details,
            )
            for subject in subjects
        ]
        if self._name:
            new = [replace(entry, id=self._request_id(entry.subject)) for entry in new]
        earlier = await self._journal.read_many([entry.id for entry in new]) if self._name else {}
        found = await self._journal.open_of(subjects, "erasure")
        return [
            replace(earlier[entry.id], subject=entry.subject)
            if entry.id in earlier
            else found.get(entry.subject, entry)
            for entry in new
        ]

    def _doubted(self, entry: Entry) -> Receipt | None:
        try:
            self._register.identified(entry)
        except SubjectRequestRejected as error:
            return Receipt(entry.id, waiting={"identity": str(error)})
        return None

    def _request_id(self, subject: str) -> str:
        """An id that the same batch and person give again, and that says nothing of either without the keys."""
        return self._keys.subject_tag(f"batch\x00{self._name}\x00{subject}")[:16].hex()
