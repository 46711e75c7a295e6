"""The record of processing activities (GDPR Art. 30(1)), made from the data map and the settings.

One activity for each dataset. Nothing is invented: what nobody said stands there as missing, with the setting that
says it; what Datavern knows (what is sealed, where it lies, how it is connected to, what is audited) is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from datavern.contracts.values import timestamp
from datavern.privacy.processing.activities import activity_of, unsaid
from datavern.privacy.processing.page import lines_of
from datavern.privacy.processing.values import Activity, Controller, Data, Missing, Purpose, Sent

if TYPE_CHECKING:
    from datavern.privacy.datamap.datamap import DataMap
    from datavern.privacy.residency.residency import Transfer

__all__ = ["Activity", "Controller", "Data", "Missing", "ProcessingRecord", "Purpose", "Sent"]


@dataclass(frozen=True, slots=True)
class ProcessingRecord:
    """The whole record.

    Attributes:
        controller: (a).
        activities: one for each dataset with personal data.
        security: measures that hold for all of it (g).
        made_at: when it was made, RFC 3339.
    """

    controller: Controller
    activities: Sequence[Activity]
    security: Sequence[str] = ()
    made_at: str = field(default_factory=timestamp)

    @classmethod
    def of(
        cls,
        data_map: DataMap,
        databases: Mapping[str, Any],
        *,
        controller: Controller,
        transfers: Iterable[Transfer] = (),
        keyring: str | None = None,
        checkpoints: Sequence[Any] = (),
        stated: Sequence[str] = (),
    ) -> ProcessingRecord:
        """The record of a data map. No I/O.

        Args:
            data_map: which personal data lies where, and why.
            databases: name → provider.
            controller: who is responsible.
            transfers: where data can get outside of the EEA (`Residency.transfers`).
            keyring: where the keys are; None: nothing is sealed, and nothing is audited.
            checkpoints: where the audit log's checkpoints are published.
            stated: security measures that no setting tells of.
        """
        sent = list(transfers)
        made = [
            activity_of(d, databases[d.database], sent, audited=keyring is not None) for d in data_map if d.personal
        ]
        return cls(controller, made, [*_common(keyring, checkpoints), *stated])

    @property
    def missing(self) -> list[Missing]:
        """Everything that Art. 30(1) asks for and nobody said; empty: it is whole."""
        of = self.controller
        found = [
            Missing("a", "datavern", what, setting)
            for what, said, setting in (
                ("the name of the controller", of.name, "organisation"),
                ("how the controller is reached", of.contact, "contact"),
                ("the data protection officer", of.dpo, "dpo"),
            )
            if not said
        ]
        for one in self.activities:
            part = f"datasets.{one.dataset}"
            found += [Missing(point, part, what, setting) for point, what, setting in unsaid(one)]
        return found

    def to_dict(self) -> dict[str, Any]:
        """The record in values that JSON has, with what is missing."""
        return {
            "controller": asdict(self.controller),
            "security": list(self.security),
            "activities": [asdict(one) for one in self.activities],
            "missing": [asdict(one) for one in self.missing],
            "made_at": self.made_at,
        }

    def to_markdown(self) -> str:
        """The record as a page: every heading of Art. 30(1)(a) to (g), for each dataset."""
        lines = lines_of(self.controller, self.activities, self.security, self.missing, made_at=self.made_at)
        return "\n".join(lines) + "\n"


def _common(keyring: str | None, checkpoints: Sequence[Any]) -> Iterator[str]:
    if keyring is None:
        return
    yield f"keys are kept apart from the data ({keyring.partition(':')[0]}), and an erasure destroys the person's"
    if checkpoints:
        yield "checkpoints of the audit log are published where its administrators do not reach"
    yield "consents, restrictions and objections are looked at on every write"
