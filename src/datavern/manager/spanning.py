"""What spans a manager's databases, once there are keys: consent, holds, audit, personal data, subject requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.audit.service import Audit
    from datavern.crypto.keystore import KeyStore
    from datavern.privacy.breach.register import Breaches
    from datavern.privacy.consent.consent import Consents
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.holds.holds import Holds
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.requests.requests import SubjectRequests
    from datavern.privacy.residency.residency import Residency
    from datavern.privacy.retention.run import Retention
    from datavern.privacy.service import Privacy

__all__ = ["Spanning"]


class Spanning:
    """The part of a `DatabaseManager` that needs it open, and a keyring."""

    _keyring: str | None
    _privacy: Privacy | None = None
    _breaches: tuple[Privacy, Breaches] | None = None
    _essential_service: bool

    @property
    def residency(self) -> Residency:
        """Where data may be, and everywhere that it can get."""
        raise NotImplementedError

    @property
    def services(self) -> Privacy:
        """Keys, audit, consents and personal data, wired together.

        Raises:
            ConfigurationError: the manager has no keyring, or is not open.
        """
        if self._privacy is None:
            what = "open it first: async with manager" if self._keyring else "give it keyring='file:keys'"
            raise ConfigurationError(f"the manager has no keys: {what}")
        return self._privacy

    @property
    def consents(self) -> Consents:
        """Consent: grant, withdraw, list."""
        return self.services.consents

    @property
    def holds(self) -> Holds:
        """Legal holds: place, release, list."""
        return self.services.holds

    @property
    def retention(self) -> Retention:
        """Retention runs: what is past its time ends, as the data map says."""
        return self.services.retention

    @property
    def audit(self) -> Audit:
        """The audit log: record, seal, verify, prove."""
        return self.services.audit

    @property
    def keys(self) -> KeyStore:
        """The key store."""
        return self.services.keys

    @property
    def subject_requests(self) -> SubjectRequests:
        """Requests of the people that the data is about."""
        return self.services.requests

    @property
    def breaches(self) -> Breaches:
        """The register of personal data breaches: what happened, whom it touched, what was done, and by when."""
        services = self.services
        if self._breaches is None or self._breaches[0] is not services:
            from datavern.privacy.breach.register import Breaches  # noqa: PLC0415  (with luck, never)

            self._breaches = services, Breaches(services, essential=self._essential_service)
        return self._breaches[1]

    def personal(self, dataset: str) -> PersonalStore:
        """The rows of a dataset, sealed and opened.

        Raises:
            ResidencyViolation: it is graded, and the approval to have it where it is has ended.
        """
        found = self.services.personal(dataset)
        if found.dataset.approval is not None:
            self._still_approved(found.dataset)
        return found

    def _still_approved(self, dataset: Dataset) -> None:
        """Refuse a dataset whose approval ended since the manager was opened."""
        residency = self.residency
        for place in residency.places:
            if place.location is not None and place.holds(dataset.name, dataset.database):
                residency.move(dataset, place)

    async def seal(self, column: str, **options: Any) -> Any:
        """Seal a plain column in place, while it is used: ``await db.seal("users.personal_number")``; again to go on.

        Args:
            column: ``dataset.field``; the data map calls it sealed.
            options: ``rewrite`` ("full", "plain" or None), ``batch_size``, ``step``: as `InPlace` takes them.
        """
        rewrite = options.pop("rewrite", "full")
        return await self.services.in_place(column, **options).seal(rewrite=rewrite)

    async def unseal(self, column: str, **options: Any) -> Any:
        """The way back: values in the clear, of the type ``kind`` ("text"). The data map is to say so afterwards."""
        rewrite, kind = options.pop("rewrite", "full"), options.pop("kind", "text")
        return await self.services.in_place(column, **options).unseal(kind=kind, rewrite=rewrite)

    async def prepare(self, dataset: str) -> Any:
        """Make the dataset's store fit the data map, and say what was run (prints as DDL). Idempotent."""
        return await self.services.prepare(dataset)
