"""The numbers by which other stores know a person, in the journal of an erasure (``subject_via``).

They are read before the first change. An erasure that is cut off, and goes on when the row that held them is gone or
says another, still finds what is under them. They are sealed under a key of the person, which ends with the erasure:
the journal names nobody afterwards.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import CryptoError, DatavernError, KeyErased
from datavern.crypto.sealed import RowSealer, new_row_tag
from datavern.privacy.erasure.progress import Progress, why

if TYPE_CHECKING:
    from datavern.crypto.keystore import KeyStore
    from datavern.privacy.links.links import Link
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.service import Privacy

__all__ = ["NUMBERS", "numbers_kept", "numbers_to_keep"]

NUMBERS = "#numbers"
"""The step of a request that holds them: no dataset's name begins with a #."""
_DATASET = "datavern.numbers"
_SEALER = RowSealer(_DATASET, ("numbers",))


async def numbers_to_keep(
    privacy: Privacy, stores: Iterable[PersonalStore], subjects: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Subject → what the journal keeps of the person's numbers as they stand now.

    The keys that seal them are made before the erasure closes them, and end with it. A person whose erasure is under
    way already is left out, whose numbers were written down then; and what a database holds that cannot be asked now
    is left to the step that waits for it.
    """
    links = _links(stores)
    written: dict[str, dict[str, Any]] = {}
    for subject in dict.fromkeys(subjects if links else ()):
        found = []
        for link in links:
            try:
                found.append([*link.of, *await link.values(subject)])
            except DatavernError:  # told by the step that needs them
                continue
        if any(len(one) > 2 for one in found):  # noqa: PLR2004  (dataset, column, and the numbers)
            try:
                key = await privacy.keys.subject_key(_DATASET, subject)
            except KeyErased:
                continue
            tag = new_row_tag()
            sealed = _SEALER.seal_row(key, tag, {"numbers": json.dumps(found, ensure_ascii=False)})["numbers"] or b""
            written[subject] = {"tag": base64.b64encode(tag).decode(), "sealed": base64.b64encode(sealed).decode()}
    return written


async def numbers_kept(
    privacy: Privacy, stores: Iterable[PersonalStore], group: Sequence[Progress]
) -> dict[tuple[str, str, str], list[str]]:
    """Subject, dataset and column → the numbers that the journal keeps of these erasures."""
    known: dict[tuple[str, str, str], list[str]] = {}
    if not _links(stores):
        return known
    try:
        earlier = await privacy.site(privacy.ledger_name).steps.done_many([progress.entry.id for progress in group])
        for progress in group:
            written = earlier.get(progress.entry.id, {}).get(NUMBERS)
            if written is not None:
                subject = progress.entry.subject
                for dataset, column, *found in await _unsealed(privacy.keys, subject, written):
                    known[subject, dataset, column] = found
    except DatavernError as error:  # the ledger cannot be asked
        for progress in group:
            progress.waiting |= dict.fromkeys(progress.entry.datasets, why(error))
    return known


def _links(stores: Iterable[PersonalStore]) -> list[Link]:
    """The links by which people are known by numbers; one for each column."""
    found = {store.link.name: store.link for store in stores if store.link is not None and store.link.number}
    return list(found.values())


async def _unsealed(keys: KeyStore, subject: str, written: Mapping[str, Any]) -> list[list[str]]:
    """What was written down; nothing once the person's keys are gone."""
    row = {"numbers": base64.b64decode(written["sealed"])}
    try:
        known = await keys.keys(_SEALER.key_ids(row))
        opened = _SEALER.open_row(base64.b64decode(written["tag"]), row, known, keys.subject_tag(subject))
    except CryptoError:
        return []
    found: list[list[str]] = json.loads(opened["numbers"])
    return found
