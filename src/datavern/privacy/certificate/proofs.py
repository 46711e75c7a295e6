"""The proofs that the entries of an erasure are in the sealed log: they go with its certificate, once there are any."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import AuditError, LogTampered

if TYPE_CHECKING:
    from datavern.audit.checkpoint import Checkpoint
    from datavern.privacy.certificate.certificate import Certificate
    from datavern.privacy.service import Privacy

__all__ = ["proven"]


async def proven(privacy: Privacy, certificate: Certificate, within: Checkpoint | str | None = None) -> Certificate:
    """The certificate, with a proof of each of its entries that is sealed by now; as it is where none is.

    Args:
        privacy: the logs.
        certificate: of an erasure.
        within: a checkpoint that whoever is to be convinced has kept; the one that first covered an entry when None.

    Raises:
        LogTampered: an entry is not in its log as it was sealed.
    """
    stores = certificate.body.get("stores") or ()
    entries = [*(store.get("audit") for store in stores), certificate.body.get("audit")]
    found: list[dict[str, Any]] = []
    for entry in entries:
        if entry is None:
            continue
        try:
            proof = await privacy.audit.prove(entry, within=within)
        except LogTampered:
            raise
        except AuditError:  # not sealed yet, or removed when its retention ended
            continue
        found.append(json.loads(proof.to_json()))
    return replace(certificate, proofs=tuple(found))
