"""The rows of Azure SQL's tables, addressed by plain values of their columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from datavern.contracts.stores import Column, ShapeColumn, Store
from datavern.engines.azuresql.dialect import COLLATION, KEY_BYTES, KEY_TEXT, dialect
from datavern.engines.relational import RelationalSubjects

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import Dialect

__all__ = ["EXCLUDE", "AzureSQLSubjects", "dialect"]

EXCLUDE: Final = """
DECLARE @taken int;
EXEC @taken = sp_getapplock @Resource = N'datavern schema', @LockMode = 'Exclusive', @LockOwner = 'Transaction',
    @LockTimeout = 60000;
IF @taken < 0 THROW 50000, 'somebody else makes tables', 1;
"""
"""One at a time makes tables in a database."""

# Which types hold such a value as it is.
_HELD_BY: Final[dict[str, frozenset[str]]] = {
    "text": frozenset({"nvarchar", "varchar", "uniqueidentifier"}),
    "integer": frozenset({"bigint", "int"}),
    "real": frozenset({"float"}),
    "boolean": frozenset({"bit"}),
    "bytes": frozenset({"varbinary"}),
    "date": frozenset({"date"}),
    "timestamp": frozenset({"datetimeoffset"}),
    "json": frozenset({"nvarchar", "json"}),
}
_BITS: Final = {"tinyint": 9, "smallint": 16, "int": 32}  # tinyint holds 0 to 255: nine bits, sign included
_INEXACT: Final = frozenset(
    {"char", "nchar", "text", "ntext", "decimal", "numeric", "float", "real", "money", "smallmoney"}
)
"""Types that pad a text, or make a number of it."""

_TABLE: Final = "SELECT o.object_id FROM sys.objects o WHERE o.object_id = OBJECT_ID(@P1) AND o.type IN ('U', 'V')"
_COLUMNS: Final = """
SELECT c.name, TYPE_NAME(c.system_type_id) AS type, c.max_length AS length, c.is_nullable AS nullable,
       c.is_identity AS counted, c.is_computed AS computed, c.default_object_id AS default_id,
       c.collation_name AS collation, COALESCE(k.key_ordinal, 0) AS place
FROM sys.columns c
LEFT JOIN (
    SELECT ic.object_id, ic.column_id, ic.key_ordinal FROM sys.indexes i
    JOIN sys.index_columns ic ON ic.object_id = i.object_id AND ic.index_id = i.index_id
    WHERE i.is_primary_key = 1
) k ON k.object_id = c.object_id AND k.column_id = c.column_id
WHERE c.object_id = @P1
ORDER BY c.column_id
"""
_INDEXES: Final = """
SELECT i.index_id AS number, i.is_unique AS is_unique, i.has_filter AS filtered, i.filter_definition AS filter,
       c.name AS name
FROM sys.indexes i
JOIN sys.index_columns ic ON ic.object_id = i.object_id AND ic.index_id = i.index_id
JOIN sys.columns c ON c.object_id = ic.object_id AND c.column_id = ic.column_id
WHERE i.object_id = @P1 AND i.is_disabled = 0 AND ic.is_included_column = 0
ORDER BY i.index_id, ic.key_ordinal
"""
_REFERENCES: Final = """
SELECT CASE WHEN OBJECT_SCHEMA_NAME(f.parent_object_id) = SCHEMA_NAME() THEN N''
            ELSE OBJECT_SCHEMA_NAME(f.parent_object_id) + N'.' END
       + OBJECT_NAME(f.parent_object_id) + N'.' + c.name
FROM sys.foreign_key_columns f
JOIN sys.columns c ON c.object_id = f.parent_object_id AND c.column_id = f.parent_column_id
WHERE f.referenced_object_id = @P1
ORDER BY OBJECT_NAME(f.parent_object_id), f.constraint_object_id, f.constraint_column_id
"""


class AzureSQLSubjects(RelationalSubjects):
    """`Subjects` on Azure SQL. A name without a schema is looked up in the user's default schema, as in SQL."""

    types: ClassVar[Mapping[str, str]] = {
        "text": f"nvarchar(max) COLLATE {COLLATION}",
        "integer": "bigint",
        "real": "float",
        "boolean": "bit",
        "bytes": "varbinary(max)",
        "date": "date",
        "timestamp": "datetimeoffset(6)",
        "json": f"nvarchar(max) COLLATE {COLLATION}",
    }
    adding: ClassVar[str] = "ADD"
    most_values: ClassVar[int] = 1024  # of one list: a statement takes 2098 parameters

    @property
    def dialect(self) -> Dialect:
        """SQLAlchemy's dialect with ``@P1`` for parameters."""
        return dialect()

    # T-SQL compares texts without the spaces at their ends: 'u1 ' would be 'u1'. With something behind them they count.
    # In capitals, because a uuid becomes a text in them; how letters compare is the column's own comparison, which goes
    # first and uses its index.

    def equal(self, column: Any, value: Any, *, texts: bool) -> list[Any]:
        """The conditions under which a column has exactly that value."""
        return [column == value, *([_ended(column) == _ended(value)] if texts else [])]

    def among(self, column: Any, values: list[Any], *, texts: bool) -> list[Any]:
        """The conditions under which a column has exactly one of those values."""
        return [column.in_(values), *([_ended(column).in_([_ended(v) for v in values])] if texts else [])]

    def type_of(self, column: ShapeColumn, *, keyed: bool) -> str:
        """The type of a column; what is in a key or an index has a bound."""
        if keyed and column.type in {"text", "json"}:
            return KEY_TEXT
        return KEY_BYTES if keyed and column.type == "bytes" else self.types[column.type]

    def index(self, unique: str, name: str, store: str, column: str) -> str:
        """The statement that makes an index of one column. In a unique one many rows may have no value."""
        text = super().index(unique, name, store, column)
        return f"{text} WHERE {self.quoted(column)} IS NOT NULL" if unique else text

    async def exclude(self, tx: Any, store: str) -> None:  # noqa: ARG002  (one lock for all tables)
        """Wait until nobody else makes tables in this database."""
        await tx.execute(EXCLUDE)

    async def describe(self, store: str, *, transaction: Any = None) -> Store | None:
        """The table or view as it stands, or None when there is none."""
        session = transaction or self._provider
        table = await session.query_value(_TABLE, [self.quoted_store(store)])
        if table is None:
            return None
        columns = tuple(_column(row) for row in await session.query(_COLUMNS, [table]))
        covers: dict[int, list[str]] = {}
        unique: set[int] = set()
        filtered: set[int] = set()
        for row in await session.query(_INDEXES, [table]):
            names = covers.setdefault(row["number"], [])
            names.append(row["name"])
            if row["is_unique"]:
                unique.add(row["number"])
            if row["filtered"] and not (len(names) == 1 and row["filter"] == f"([{row['name']}] IS NOT NULL)"):
                filtered.add(row["number"])
        sets = {frozenset(names) for number, names in covers.items() if number in unique - filtered}
        references = await session.query(_REFERENCES, [table])
        return Store(
            name=store,
            columns=columns,
            unique=tuple(sorted(sets, key=sorted)),
            indexed=frozenset(names[0] for number, names in covers.items() if number not in filtered),
            referenced_by=tuple(row[0] for row in references),
        )

    def holds(self, column: Column, wanted: ShapeColumn) -> bool:
        """Whether the column's type keeps such a value as it is. A length that the schema sets is the schema's."""
        return column.type.split("(", 1)[0].strip() in _HELD_BY[wanted.type]


def _column(row: Any) -> Column:
    kind, length = str(row["type"] or "").lower(), row["length"]
    written = kind
    if kind in {"nvarchar", "nchar", "varchar", "char", "varbinary", "binary"}:
        size = "max" if length < 0 else str(length // 2 if kind.startswith("n") else length)
        written = f"{kind}({size})"
    return Column(
        name=row["name"],
        type=written,
        nullable=bool(row["nullable"]),
        primary_key=int(row["place"]),
        default=bool(row["counted"] or row["computed"] or row["default_id"]),
        bits=_BITS.get(kind),
        exact=kind not in _INEXACT and _tells_apart(row["collation"]),
    )


def _ended(text: Any) -> Any:
    from sqlalchemy import func, literal_column  # noqa: PLC0415  (with the first statement)

    return func.upper(func.concat(text, literal_column("N'.'")))


def _tells_apart(collation: str | None) -> bool:
    """Whether a collation tells texts apart that are written differently: the default of Azure SQL does not."""
    if collation is None:
        return True
    name = collation.upper()
    return "_BIN" in name or ("_CS" in name and "_AS" in name)
