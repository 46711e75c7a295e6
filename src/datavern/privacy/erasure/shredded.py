"""The second statement about an erasure: from when on not even old backups can bring the data back.

An erasure destroys a person's keys in the key store; copies of them that were made before (backups, replicas' logs,
old pages) are wrapped under the epoch key of their time. They are noise once every copy of that epoch key is gone: in
the ring, in the vault's bin, and in what people hold together for a recovery. That, and no more, is what is signed.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ErasureIncomplete, SubjectRequestRejected
from datavern.contracts.subjects import canonical_subject
from datavern.crypto.key_rows import DESTROYED, ERASING, LIVING
from datavern.privacy.certificate.certificate import Certificate
from datavern.privacy.sealing.rotation import DUE

if TYPE_CHECKING:
    from datavern.crypto.rotations import Rotation
    from datavern.privacy.sealing.rotation import Recovery
    from datavern.privacy.service import Privacy

__all__ = ["SHREDDED_CLAIMS", "SHREDDED_LIMITS", "shredded"]

SHREDDED_CLAIMS: Final = (
    "Every copy of the listed keys that was ever stored was encrypted under an epoch key that is destroyed.",
    "What was sealed under them, in backups, replicas and logs too, opens for nobody from the stated moment on.",
    "The lookup indexes were made anew under new keys, and the old lookup keys were destroyed the same way.",
    "Before that, every member of the key store had the new keys, and a copy of them was read back.",
)
"""What the statement says, and is signed for."""
SHREDDED_LIMITS: Final = (
    "Values that were never sealed stay in older backups and replicas until these are pruned.",
    "Rows that the law keeps are sealed under a key of their own, which lives until the last of them ends.",
    "It rests on every copy of the epoch key being where the organisation says: in the key ring, and in recoveries.",
    "Whoever copied a key, or what it opened, out of the application's memory while it lived has that copy.",
)
"""What it does not say."""


async def shredded(privacy: Privacy, subject: object) -> Certificate:
    """See `SubjectRequests.shredded`."""
    person = canonical_subject(subject)
    rotator, keys = privacy.keys.rotator, privacy.keys
    await rotator.purged()
    tag = keys.subject_tag(person)
    rows, stone = await rotator.destroyed(tag)
    gone = [row for row in rows if row["state"] == DESTROYED]
    if any(row["state"] == ERASING for row in rows):
        raise ErasureIncomplete("not shredded: an erasure of the subject is under way, and goes on by itself")
    if stone is None and not gone:
        raise SubjectRequestRejected("nobody of that id was erased here, so there is nothing to be shredded")
    last = max([row["changed"] for row in gone] + ([] if stone is None else [stone["changed"]]))
    rotation = next((r for r in await rotator.rotations() if r.begun > last and r.destroyed_at is not None), None)
    if rotation is None:
        erased_at = max([row["destroyed_at"] for row in gone] + ([] if stone is None else [stone["erased_at"]]))
        due = (dt.datetime.fromisoformat(erased_at) + DUE).date()
        raise ErasureIncomplete(
            "not shredded yet: no rotation of the keys has ended that began after the erasure. It is due by "
            f"{due.isoformat()}: await db.keys.rotate(), or `datavern keys rotate`"
        )
    if rotation.gone_at is None:
        how = rotation.details.get("destruction", "")
        raise ErasureIncomplete(f"not shredded yet: the old epoch key is deleted, and its vault still keeps it: {how}")
    held = [r for r in await rotator.recoveries() if min(r.epochs) < rotation.epoch]
    outstanding = [r for r in held if r.ended_at is None]
    if outstanding:
        names = ", ".join(r.id for r in outstanding)
        raise ErasureIncomplete(
            f"not shredded yet: people hold recovery shares that the old epoch key can be brought back with ({names}). "
            "Destroy the recovery's file or its shares, and say so: `datavern keys end-recovery ID`"
        )
    return Certificate.issue(privacy.signer, "shredded", _contents(privacy, person, rows, rotation, held))


def _contents(
    privacy: Privacy, person: str, rows: list[Any], rotation: Rotation, held: list[Recovery]
) -> dict[str, Any]:
    details = rotation.details
    since = max([rotation.gone_at or "", *(r.ended_at or "" for r in held)])
    limits = list(SHREDDED_LIMITS)
    if held:
        limits.append("That the listed recoveries were destroyed is the word of the people who are named with them.")
    if details.get("kept"):
        kept = ", ".join(details["kept"])
        limits.append(f"These lookup keys are no dataset's of the data map, and were kept: {kept}.")
    if details.get("unreadable"):
        labels = ", ".join(details["unreadable"])
        limits.append(f"Rows of {labels} did not open, and their lookup indexes stayed as they were, under no key.")
    if any(row["state"] == LIVING for row in rows):
        limits.append("The person has returned since: newer data is sealed under newer keys, and is not shredded.")
    return {
        "organisation": privacy.organisation,
        "subject": person,
        "since": since,
        "keys": [
            {"id": row["key_id"].hex(), "dataset": row["dataset"], "at": row["destroyed_at"]}
            for row in rows
            if row["state"] == DESTROYED
        ],
        "rotation": {
            "epoch": rotation.epoch,
            "previous": rotation.previous,
            "started": rotation.started_at,
            "destroyed": rotation.destroyed_at,
            "gone": rotation.gone_at,
            "how": details.get("destruction", ""),
            "indexed": dict(details.get("indexed", {})),
            "copy": dict(details.get("copy", {})),
        },
        "recoveries": [
            {"id": r.id, "shares": r.shares, "threshold": r.threshold, "destroyed": r.ended_at, "said": r.ended_by}
            for r in held
        ],
        "claims": list(SHREDDED_CLAIMS),
        "limits": limits,
    }
