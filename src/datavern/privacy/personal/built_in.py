"""The built-in table ``personal_data``: for personal data without a table of its own, sealed as one value."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ConfigurationError, ConsentRequired
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import timestamp
from datavern.privacy.datamap.dataset import OWN_DATASETS, Dataset, Field

if TYPE_CHECKING:
    from datavern.privacy.consent.consent import Consent

__all__ = ["PERSONAL_DATA", "built_in", "row_of"]

PERSONAL_DATA: Final = "personal_data"


def built_in(database: str) -> Dataset:
    """The dataset of it in that database."""
    return Dataset(
        OWN_DATASETS + PERSONAL_DATA,
        database=database,
        store=PERSONAL_DATA,
        subject="user_id",
        erasure="delete",
        fields={
            "data": Field(sealed=True),
            "consent_id": Field(),
            "created_at": Field(),
        },
    )


def row_of(data: Mapping[str, Any], consent: Consent | str | None, *, label: str) -> dict[str, Any]:
    """A new row of it, in the clear.

    Args:
        data: what to keep; ``user_id`` (or ``subject``) says whose it is.
        consent: of that subject, or its id.
        label: of the dataset, for messages.

    Raises:
        ConsentRequired: there is none.
        ConfigurationError: nobody is named.
    """
    naming = next((key for key in ("user_id", "subject") if data.get(key) is not None), None)
    if naming is None:
        raise ConfigurationError("store_personal_data: user_id is missing; it says whose data it is")
    if consent is None:
        raise ConsentRequired(f"{label}: no consent was given, and the write needs one")
    return {
        "id": str(uuid.uuid4()),
        "user_id": canonical_subject(data[naming]),
        "data": {key: value for key, value in data.items() if key != naming},
        "consent_id": consent if isinstance(consent, str) else consent.id,
        "created_at": timestamp(),
    }
