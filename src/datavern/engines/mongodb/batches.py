"""Reading a cursor batch by batch, with the driver's errors as Datavern's."""

from __future__ import annotations

from typing import Any

from datavern.engines.mongodb.errors import DRIVER_ERRORS, translate

__all__ = ["next_batch"]


async def next_batch(cursor: Any, size: int, *, provider: str, document: Any = None, options: Any = None) -> list[Any]:
    """The next documents of a cursor, `size` of them at the most; none at its end. Whoever reads closes the cursor.

    Args:
        cursor: PyMongo's.
        size: how many.
        provider: the provider's name, and `document` and `options`: as `translate` takes them.

    Raises:
        ProviderError: as `translate` makes it of the driver's error.
    """
    try:
        return await cursor.to_list(size)  # type: ignore[no-any-return]  # a list of documents
    except DRIVER_ERRORS as caught:
        error = translate(caught, provider=provider, document=document, options=options)
    raise error
