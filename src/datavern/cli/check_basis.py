"""`datavern check`: what each use of personal data rests on, and whether what a consent must be to is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datavern.cli.findings import Finding
from datavern.privacy.consent.checks import rules_of
from datavern.privacy.datamap.information import informed

if TYPE_CHECKING:
    from datavern.manager.manager import DatabaseManager

__all__ = ["bases", "texts"]


def bases(db: DatabaseManager) -> list[Finding]:
    """Purpose by purpose, the legal basis (GDPR Art. 6(1)). A dataset of which the map says nothing is left out."""
    findings = []
    for dataset in db.data_map or ():
        told = informed(dataset).purposes
        detail = "; ".join(f"{purpose}: {basis}" if purpose else basis for purpose, basis in told.items())
        if detail and dataset.require_consent == "read":
            detail += "; reads need the consent too"
        if detail:
            findings.append(Finding(f"datasets.{dataset.name}.legal_basis", ok=True, detail=detail))
    return findings


async def texts(db: DatabaseManager) -> list[Finding]:
    """The texts that consents must be to, and are not registered: no consent holds until they are."""
    wanted = {
        (purpose, rule.version): dataset.name
        for dataset in db.data_map or ()
        for purpose, rule in rules_of(dataset).items()
        if rule.version is not None
    }
    if not wanted:
        return []
    known = {(text.purpose, text.version) for text in await db.consents.texts()}
    return [
        Finding(
            f"datasets.{name}.legal_basis",
            ok=False,
            detail=f"no text is registered as version {version} for {purpose}, and a consent must be to it: "
            f"`datavern consent text {purpose} {version} FILE`",
        )
        for (purpose, version), name in wanted.items()
        if (purpose, version) not in known
    ]
