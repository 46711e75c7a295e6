"""For code written with SQLAlchemy: the type of a sealed column (docs/sqlalchemy.md).

The engine comes from a provider: ``provider.sqlalchemy_engine()``.
"""

from typing import Any

from datavern.engines.alchemy.types import Sealed
from datavern.engines.alchemy.writing import CONSENT

__all__ = ["CONSENT", "Sealed", "include_name"]


def include_name(name: str | None, type_: str, parent_names: Any) -> bool:  # noqa: ARG001  (Alembic calls it so)
    """For Alembic's ``context.configure(include_name=…)``: leaves Datavern's own tables to Datavern."""
    return not (type_ == "table" and name is not None and name.startswith("datavern_"))
