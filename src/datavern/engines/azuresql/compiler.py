"""What SQLAlchemy's dialect for SQL Server says otherwise here: loaded with the first statement on our own tables."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import sql
from sqlalchemy.dialects.mssql.base import MSDDLCompiler, MSDialect, MSSQLCompiler, MSTypeCompiler
from sqlalchemy.sql import compiler, elements, operators

from datavern.engines.azuresql.dialect import COLLATION, KEY_BYTES, KEY_TEXT

__all__ = ["AzureSQLCompiler", "AzureSQLDialect", "ModelDDL", "ModelTypes"]

_STRICT: Final[dict[Any, Any]] = {
    operators.gt: operators.gt,
    operators.ge: operators.gt,
    operators.lt: operators.lt,
    operators.le: operators.lt,
}


class AzureSQLCompiler(MSSQLCompiler):
    """``@P1`` for parameters, locks as hints, rows compared column by column."""

    @property
    def _numeric_binds_identifier_char(self) -> str:
        return "@P"

    @_numeric_binds_identifier_char.setter
    def _numeric_binds_identifier_char(self, character: str) -> None:
        """SQLAlchemy knows ``$`` and ``:``."""

    # ---- TOP takes a parameter like any other place, and needs no ORDER BY ------------------------------------------

    def get_select_precolumns(self, select: Any, **kw: Any) -> str:
        distinct = compiler.SQLCompiler.get_select_precolumns(self, select, **kw)
        if select._limit_clause is None or not self._use_top(select):  # noqa: SLF001  (as SQLAlchemy's own compilers ask)
            return str(distinct)
        return f"{distinct}TOP ({self.process(select._limit_clause, **kw)}) "  # noqa: SLF001  (the same)

    def _use_top(self, select: Any) -> bool:
        return select._offset_clause is None  # noqa: SLF001  (the same)

    # ---- SELECT … FOR UPDATE, FOR SHARE, SKIP LOCKED ----------------------------------------------------------------

    def visit_select(self, select_stmt: Any, *args: Any, **kw: Any) -> str:
        wanted = select_stmt._for_update_arg  # noqa: SLF001  (the same)
        if wanted is not None:
            hints = "REPEATABLEREAD, ROWLOCK" if wanted.read else "UPDLOCK, ROWLOCK"
            hints += ", READPAST" if wanted.skip_locked else ""
            for table in select_stmt.get_final_froms():
                select_stmt = select_stmt.with_hint(table, f"WITH ({hints})", "mssql")
            select_stmt._for_update_arg = None  # noqa: SLF001  (of a copy)
        return str(super().visit_select(select_stmt, *args, **kw))  # type: ignore[no-untyped-call]  # SQLAlchemy's

    # ---- (a, b) > (x, y) --------------------------------------------------------------------------------------------

    def visit_binary(self, binary: Any, *args: Any, **kw: Any) -> str:
        if isinstance(binary.left, elements.Tuple) and binary.operator in _STRICT:
            return str(self.process(_compared(binary), **kw))
        return str(super().visit_binary(binary, *args, **kw))  # type: ignore[no-untyped-call]  # SQLAlchemy's


def _compared(binary: Any) -> Any:
    pairs = list(zip(binary.left.clauses, binary.right.clauses, strict=True))
    compared = binary.operator(*pairs[-1])
    for left, right in reversed(pairs[:-1]):
        compared = sql.or_(_STRICT[binary.operator](left, right), sql.and_(left == right, compared))
    return compared.self_group()


class _TypeCompiler(MSTypeCompiler):
    """Text and bytes of any length; of a bounded one where they are in a key."""

    def visit_text(self, type_: Any, **kw: Any) -> str:  # noqa: ARG002  (SQLAlchemy's signature)
        return KEY_TEXT if _in_key(kw.get("type_expression")) else f"nvarchar(max) COLLATE {COLLATION}"

    def visit_large_binary(self, type_: Any, **kw: Any) -> str:  # noqa: ARG002  (SQLAlchemy's signature)
        return KEY_BYTES if _in_key(kw.get("type_expression")) else "varbinary(max)"


class ModelTypes(MSTypeCompiler):
    """The types of an application's models: text holds every letter, and stands in a key where it has no bound."""

    def visit_string(self, type_: Any, **kw: Any) -> str:
        if type_.length is None and type_.collation is None and _in_key(kw.get("type_expression")):
            return KEY_TEXT
        return str(self._extend("NVARCHAR", type_, length=type_.length or "max"))  # type: ignore[no-untyped-call]

    visit_text = visit_unicode = visit_unicode_text = visit_string

    def visit_large_binary(self, type_: Any, **kw: Any) -> str:
        if type_.length is None and _in_key(kw.get("type_expression")):
            return KEY_BYTES
        return str(super().visit_large_binary(type_, **kw))  # type: ignore[no-untyped-call]  # SQLAlchemy's


class ModelDDL(MSDDLCompiler):
    """Tables of an application's models: columns beside a sealed one are unique among the rows that have them."""

    def visit_unique_constraint(self, constraint: Any, **kw: Any) -> str:
        columns = list(constraint.columns)
        if len(columns) != 1 or not columns[0].info.get("datavern"):
            return str(super().visit_unique_constraint(constraint, **kw))  # type: ignore[no-untyped-call]  # SQLAlchemy's
        [column] = columns
        quoted = self.preparer.quote(column.name)
        index = self.preparer.quote(f"{column.table.name}_{column.name}"[:128])
        return f"INDEX {index} UNIQUE ({quoted}) WHERE {quoted} IS NOT NULL"


def _in_key(column: Any) -> bool:
    """Whether a column is in a key or an index, which take no ``max`` types."""
    if column is None or getattr(column, "table", None) is None:
        return False
    return bool(
        column.primary_key
        or column.unique
        or column.index
        or column.foreign_keys
        or any(column.name in index.columns for index in column.table.indexes)
    )


class AzureSQLDialect(MSDialect):
    """SQLAlchemy's dialect for SQL Server, as it is spoken here."""

    statement_compiler = AzureSQLCompiler
    type_compiler_cls = _TypeCompiler
    supports_identity_columns = True
    supports_statement_cache = False
