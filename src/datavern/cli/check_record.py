"""`datavern check --record`: the record of processing activities (GDPR Art. 30), as Markdown or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datavern.cli.common import manager_of
from datavern.cli.findings import Finding

if TYPE_CHECKING:
    from pathlib import Path

    from datavern.cli.common import Output
    from datavern.config_file import General
    from datavern.manager.manager import DatabaseManager
    from datavern.privacy.processing_record import ProcessingRecord

__all__ = ["record_findings", "record_of", "show"]


def record_of(db: DatabaseManager, general: General) -> ProcessingRecord:
    """The record of a project. Nothing is connected."""
    from datavern.privacy.datamap.datamap import DataMap
    from datavern.privacy.processing_record import Controller, ProcessingRecord

    controller = Controller(
        general.organisation, general.contact, general.representative, general.dpo, tuple(general.joint_controllers)
    )
    return ProcessingRecord.of(
        db.data_map if db.data_map is not None else DataMap(),
        db.databases,
        controller=controller,
        transfers=db.residency.transfers(),
        keyring=general.keyring,
        checkpoints=general.checkpoints,
        stated=tuple(general.security),
    )


def record_findings(db: DatabaseManager, general: General) -> list[Finding]:
    """What the record lacks, under compliance gdpr: notes."""
    if db.data_map is None or not any("gdpr" in provider.compliance for provider in db.databases.values()):
        return []
    from datavern.privacy.datamap.information import unsaid

    found: dict[str, list[str]] = {}
    for lack in record_of(db, general).missing:
        found.setdefault(lack.part, []).append(lack.setting)
    return [
        Finding(
            part,
            ok=True,
            detail=f"the record of processing (GDPR Art. 30) lacks {', '.join(dict.fromkeys(settings))}: `datavern "
            "check --record` prints it",
            note=True,
        )
        for part, settings in found.items()
    ] + [
        Finding(
            f"datasets.{dataset.name}",
            ok=True,
            detail=f"an access answer (GDPR Art. 15(1)(g) and (h)) lacks {', '.join(lacks)}",
            note=True,
        )
        for dataset in db.data_map
        if dataset.personal and (lacks := [one for one in unsaid(dataset) if one in ("source", "automated_decisions")])
    ]


async def show(out: Output, config: Path) -> bool:
    """Print the record: a page, or one JSON document."""
    from datavern.config_file import load

    general = load(config).general
    record = record_of(manager_of(config), general)
    out.document(record.to_dict())
    if not out.as_json:
        out.page(record.to_markdown())
    return True
