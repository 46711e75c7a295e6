"""A document's classification, changed: sealed where it was in the clear, in the clear where it was sealed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Classification
from datavern.engines.mongodb.bodies import METADATA, SEALED_BODY, check_subject, labels_of, sealed_body
from datavern.engines.mongodb.errors import DRIVER_ERRORS, translate

if TYPE_CHECKING:
    from pymongo.asynchronous.client_session import AsyncClientSession

    from datavern.engines.mongodb.documents import Documents
    from datavern.engines.mongodb.transactions import MongoDBTransaction

__all__ = ["reclassify"]


async def reclassify(
    documents: Documents,
    name: str,
    filter_: Mapping[str, Any],
    *,
    classification: Classification | str,
    subject: object,
    session: AsyncClientSession | None,
) -> bool:
    """See `MongoDBProvider.reclassify_document`."""
    documents.mark(classification)  # what may not be here is refused before anything is asked
    work = partial(
        _reclassify,
        documents=documents, name=name, filter_=filter_, classification=classification,
        subject=subject,
    )  # fmt: skip
    return await (documents.provider.run_in_transaction(work) if session is None else work(session))


async def _reclassify(
    session: AsyncClientSession,
    *,
    documents: Documents,
    name: str,
    filter_: Mapping[str, Any],
    classification: Classification | str,
    subject: object,
) -> bool:
    provider = documents.provider
    mark, place = documents.mark(classification), documents.place(name)
    found = await documents.first(place, filter_, session)
    if found is None:
        return False
    id_, metadata = found["_id"], found.get(METADATA)
    if not isinstance(metadata, Mapping):
        raise ConfigurationError(f"{name}: the document was not written by insert_document: use collection()")
    new = {**metadata, "classification": mark.name}
    labels = labels_of(new, id_, place.options)
    await documents.admit(place, name, [found], writing=True)
    tag = labels.subject_tag
    if place.subject_path is not None:
        check_subject(place, name, mark.grade, tag)
    sealed = isinstance(found.get(SEALED_BODY), bytes)
    store = await provider.keys.ready("reclassify_document") if tag or mark.sealed or sealed else None
    who, key = await documents.key_of(place, store, tag, subject, name)
    (opened,) = await documents.open(name, [found])
    body = {field: value for field, value in opened.items() if field not in {"_id", METADATA}}
    error: BaseException | None = None
    try:
        stored: dict[str, Any] = {"_id": id_, METADATA: new}
        if mark.sealed:
            assert key is not None  # noqa: S101  (for the type checker: a sealed document has a key)
            stored[SEALED_BODY] = sealed_body(place, key, labels.bytes, body)
        else:
            stored = {"_id": id_, **body, METADATA: new}
        await place.collection.replace_one({"_id": {"$eq": id_}}, stored, session=session)
    except DRIVER_ERRORS as caught:
        error = translate(caught, provider=provider.name, wrote=True, document=body, options=place.options)
    if error is not None:
        raise error
    if who and store is not None and key is not None:
        again = partial(documents.look_again, place, store, who, key, id_)
        open_: MongoDBTransaction | None = provider.transactions_open.get(session)
        if open_ is not None:
            open_.written.append(again)
        else:
            await again()
    return True
