"""A dataset, as an engine of records has to know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datavern.contracts.records import Holding

if TYPE_CHECKING:
    from datavern.privacy.datamap.dataset import Dataset

__all__ = ["holding_of"]


def holding_of(dataset: Dataset) -> Holding:
    """A dataset, as an engine of records has to know it."""
    return Holding(
        dataset.key or dataset.table,
        dataset.subject,
        keyed=dataset.key is not None,
        erasure=dataset.erasure,
        fields=tuple(dataset.fields),
        sealed=dataset.sealed,
        linked=dataset.subject_via is not None,
    )
