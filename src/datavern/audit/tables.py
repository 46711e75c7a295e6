"""The log's tables and statements: built once for each kind of stamp, compiled once for each dialect."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from datavern.audit.entry import COLUMNS, GIVEN
from datavern.contracts.capabilities import Ledger
from datavern.contracts.statements import Statement

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["START", "Log", "at_place", "log_of"]

ENTRIES: Final = "datavern_audit"
CHECKPOINTS: Final = "datavern_audit_checkpoints"
ERAS: Final = "datavern_audit_eras"
TRUNCATIONS: Final = "datavern_audit_truncations"

START: Final = (0, 0, 0)
"""Before every entry: era, stamp, seq."""
_LARGEST: Final = (1 << 63) - 1


def log_of(ledger: Ledger) -> Log:
    """The tables and statements for an engine."""
    dialect = ledger.dialect
    # Where there are no identity columns, the plain integer key counts; it must be told not to use a number twice.
    counting = None if dialect.supports_identity_columns else f"{dialect.name}_autoincrement"
    return _log(
        ledger.stamp_type,
        ledger.stamp_default,
        ledger.settled,
        counting,
        as_bytes=bool(getattr(ledger, "stamp_bytes", False)),
        by_default=bool(getattr(ledger, "sets_defaults", False)),
        keyed_by_id=bool(getattr(ledger, "rows_are_heaped", False)),
        in_parts=bool(getattr(ledger, "seeks_in_parts", False)),
    )


def at_place(place: Sequence[Any]) -> dict[str, Any]:
    """A place in the log's order (era, stamp, seq) as the parameters of a statement."""
    return dict(zip(("era", "stamp", "seq"), place, strict=True))


class Log:
    """Tables and statements.

    Args:
        stamp_type: SQL type of the stamp.
        stamp_default: SQL expression that fills it in; empty where the engine does that by itself.
        settled: SQL predicate over it.
        counting: the option that makes a plain integer key count, for engines without identity columns.
        as_bytes: the engine keeps a stamp as eight bytes, the highest first, and not as a number.
        by_default: the engine can have the column `era` take another number whenever one begins.
        keyed_by_id: the id is the primary key: `seq` needs no index of its own, which every entry would pay for.
        in_parts: the engine finds a place in the order by its index only when era, stamp and seq are compared one by
            one. Compared as a whole, each page would cost as much as all that stands before it in its era.
    """

    def __init__(
        self,
        stamp_type: str,
        stamp_default: str,
        settled: str,
        counting: str | None,
        *,
        as_bytes: bool = False,
        by_default: bool = False,
        keyed_by_id: bool = False,
        in_parts: bool = False,
    ) -> None:
        import sqlalchemy as sa  # noqa: PLC0415  (loaded when the first own table is needed)

        class Stamp(sa.types.UserDefinedType[int]):
            """The engine's own type, as the engine names it."""

            cache_ok = True

            def get_col_spec(self, **_: Any) -> str:
                return stamp_type

            if as_bytes:

                def column_expression(self, column: Any) -> Any:
                    return sa.cast(column, sa.BigInteger)

                def bind_expression(self, bindvalue: Any) -> Any:
                    return sa.cast(sa.type_coerce(bindvalue, sa.BigInteger), sa.BINARY(8))

        self._settled = settled
        self._stamp = Stamp
        self._in_parts = in_parts
        self._inserts: dict[tuple[str | None, bool], Statement] = {}
        self.metadata = sa.MetaData()
        seq: sa.Column[int] = (
            sa.Column("seq", sa.Integer, primary_key=True)
            if counting
            else sa.Column("seq", sa.BigInteger, sa.Identity(), primary_key=not keyed_by_id, nullable=False)
        )
        options: dict[str, Any] = {counting: True} if counting else {}
        default = sa.text(stamp_default) if stamp_default else None
        self.entries = sa.Table(
            ENTRIES,
            self.metadata,
            seq,
            sa.Column("entry_id", sa.Text, nullable=False, unique=not keyed_by_id, primary_key=keyed_by_id),
            sa.Column("era", sa.BigInteger, nullable=False, server_default=sa.text("1") if by_default else None),
            sa.Column("stamp", Stamp(), nullable=False, server_default=default),
            sa.Column("at", sa.Text, nullable=False),
            sa.Column("action", sa.Text, nullable=False),
            sa.Column("actor", sa.Text),
            sa.Column("handle", sa.Text),
            sa.Column("dataset", sa.Text),
            sa.Column("details", sa.Text),
            sa.Index("datavern_audit_order", "era", "stamp", "seq", unique=keyed_by_id),
            **options,
        )
        self.checkpoints = sa.Table(
            CHECKPOINTS,
            self.metadata,
            sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("previous", sa.BigInteger, nullable=False, unique=True),
            sa.Column("root", sa.LargeBinary, nullable=False),
            sa.Column("at", sa.Text, nullable=False),
            sa.Column("note", sa.Text, nullable=False),
            sa.Column("frontier", sa.LargeBinary, nullable=False),
            sa.Column("leaves", sa.LargeBinary, nullable=False),
            sa.Column("era", sa.BigInteger, nullable=False),
            sa.Column("stamp", sa.BigInteger, nullable=False),
            sa.Column("seq", sa.BigInteger, nullable=False),
            sa.Column("highest_seq", sa.BigInteger, nullable=False),
        )
        self.eras = sa.Table(
            ERAS,
            self.metadata,
            sa.Column("era", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("identity", sa.Text, nullable=False),
            sa.Column("at", sa.Text, nullable=False),
        )
        self.truncations = sa.Table(
            TRUNCATIONS,
            self.metadata,
            sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("at", sa.Text, nullable=False),
            sa.Column("note", sa.Text, nullable=False),
        )
        self.page = Statement(lambda: self._page(self._columns()))
        self.settled_page = Statement(self._settled_page)
        self.keys_page = Statement(self._keys_page)
        self.by_place = Statement(self._by_place)
        self.by_id = Statement(lambda: self._columns().where(self.entries.c.entry_id == sa.bindparam("entry_id")))
        self.newest = Statement(self._newest)
        self.count_after = Statement(self._count_after)
        self.adopt = Statement(self._adopt)
        self.last_checkpoint = Statement(
            lambda: sa.select(self.checkpoints).order_by(self.checkpoints.c.size.desc()).limit(1)
        )
        self.next_checkpoint = Statement(self._next_checkpoint)
        self.covering_checkpoint = Statement(self._covering_checkpoint)
        self.insert_checkpoint = Statement(lambda: sa.insert(self.checkpoints))
        self.last_era = Statement(lambda: sa.select(self.eras).order_by(self.eras.c.era.desc()).limit(1))
        self.insert_era = Statement(lambda: sa.insert(self.eras))
        self.checkpoint_of = Statement(
            lambda: sa.select(self.checkpoints).where(self.checkpoints.c.size == sa.bindparam("of"))
        )
        self.range_page = Statement(lambda: self._page(self._columns(), ranged=True))
        self.count_until = Statement(lambda: sa.select(sa.func.count()).select_from(self.entries).where(self._until()))
        self.delete_range = Statement(self._delete_range)
        self.last_truncation = Statement(
            lambda: sa.select(self.truncations).order_by(self.truncations.c.size.desc()).limit(1)
        )
        self.insert_truncation = Statement(lambda: sa.insert(self.truncations))
        self.drop_truncations = Statement(
            lambda: sa.delete(self.truncations).where(self.truncations.c.size < sa.bindparam("below"))
        )

    def insert(self, *, source: str | None = None, by_default: bool = False) -> Statement:
        """The insert of an entry.

        Args:
            source: name of a relation: the entry is written once for each of its rows, and where it has none, not.
            by_default: the era is the column's own default, and is not looked up.
        """
        known = (source, by_default)
        found = self._inserts.get(known)
        if found is None:
            found = self._inserts[known] = Statement(lambda: self._insert(source, by_default=by_default))
        return found

    def _insert(self, source: str | None, *, by_default: bool) -> sa.Executable:
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        values: dict[str, Any] = {name: sa.bindparam(name, type_=sa.Text()) for name in GIVEN}
        if not by_default:
            values["era"] = sa.select(sa.func.max(self.eras.c.era)).scalar_subquery()
        if source is None:
            return sa.insert(self.entries).values(values).inline()  # nobody reads back what the engine filled in
        return sa.insert(self.entries).from_select(
            list(values), sa.select(*values.values()).select_from(sa.table(source)), include_defaults=False
        )

    def _columns(self) -> Any:
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        return sa.select(*(self.entries.c[name] for name in COLUMNS))

    def _place(self, table: sa.Table, prefix: str = "") -> tuple[Any, Any]:
        """A row's place in the order, and the place to compare it with, as row values."""
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        stamp = self._stamp() if table is self.entries else sa.BigInteger()
        wanted = sa.tuple_(
            sa.bindparam(f"{prefix}era", type_=sa.BigInteger()),
            sa.bindparam(f"{prefix}stamp", type_=stamp),
            sa.bindparam(f"{prefix}seq", type_=sa.BigInteger()),
        )
        return sa.tuple_(table.c.era, table.c.stamp, table.c.seq), wanted

    def _behind(self, rows: Any, *, ranged: bool = False) -> list[Any]:
        """Of a select's rows those behind a place, up to another if `ranged`; in parts, of which none has another's."""
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        place, wanted = self._place(self.entries)
        if not self._in_parts:
            return [rows.where(place > wanted, *([self._until()] if ranged else []))]
        t = self.entries.c
        era, stamp, seq = wanted.clauses
        of_stamp, of_era = (t.era == era) & (t.stamp == stamp), t.era == era
        parts = [of_stamp & (t.seq > seq), of_era & (t.stamp > stamp), t.era > era]
        if not ranged:
            return [rows.where(part) for part in parts]
        # How far a part goes is compared by itself too: what only rules rows out, one by one, reads them to the end.
        _, until = self._place(self.entries, "to_")
        to_era, to_stamp, to_seq = until.clauses
        every = self.entries.alias().c
        last = sa.select(sa.func.max(every.stamp)).where(every.era == era).scalar_subquery()
        ends = [
            t.seq <= sa.case(((to_era == era) & (to_stamp == stamp), to_seq), else_=_LARGEST),
            t.stamp <= sa.case((to_era == era, to_stamp), else_=last),
            t.era <= to_era,
        ]
        return [rows.where(part, end, self._until()) for part, end in zip(parts, ends, strict=True)]

    def _page(self, rows: Any, *, ranged: bool = False) -> Any:
        """The first of those, in the log's order."""
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        parts = self._behind(rows, ranged=ranged)
        whole: Any = parts[0]
        columns: Any = self.entries.c
        if len(parts) > 1:
            whole = sa.union_all(*parts)
            columns = whole.selected_columns
        return whole.order_by(columns.era, columns.stamp, columns.seq).limit(sa.bindparam("most"))

    def _by_place(self) -> Any:
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        t = self.entries.c
        stamp = sa.bindparam("stamp", type_=self._stamp())
        return self._columns().where(t.era == sa.bindparam("era"), t.stamp == stamp, t.seq == sa.bindparam("seq"))

    def _newest(self) -> Any:
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        t = self.entries.c
        return self._columns().order_by(t.era.desc(), t.stamp.desc(), t.seq.desc()).limit(sa.bindparam("most"))

    def _until(self) -> Any:
        """Up to and with the place ``to_era``, ``to_stamp``, ``to_seq``."""
        place, wanted = self._place(self.entries, "to_")
        return place <= wanted

    def _delete_range(self) -> sa.Executable:
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        delete, place, wanted = sa.delete(self.entries), *self._place(self.entries)
        if not self._in_parts:
            return delete.where(place > wanted, self._until())
        seq = self.entries.c.seq
        return delete.where(sa.or_(*(seq.in_(part) for part in self._behind(sa.select(seq), ranged=True))))

    def _settled_page(self) -> sa.Executable:
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        # An earlier era's entries came with the data from another server: no transaction there can precede them here.
        settled = sa.or_(self.entries.c.era < sa.bindparam("current"), sa.text(f"({self._settled})"))
        return self._page(self._columns().where(settled))  # type: ignore[no-any-return]  # a Select

    def _keys_page(self) -> sa.Executable:
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        t = self.entries.c
        return self._page(sa.select(t.era, t.stamp, t.seq))  # type: ignore[no-any-return]  # a Select

    def _count_after(self) -> sa.Executable:
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        parts = self._behind(sa.select(sa.func.count()).select_from(self.entries))
        if len(parts) == 1:
            return parts[0]  # type: ignore[no-any-return]  # a Select
        counts = [part.scalar_subquery() for part in parts]
        return sa.select(sum(counts[1:], counts[0]))

    def _adopt(self) -> sa.Executable:
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        t = self.entries.c
        place, wanted = self._place(self.entries)
        strays = (t.era < sa.bindparam("new_era")) & (t.seq > sa.bindparam("highest_seq")) & (place <= wanted)
        return sa.update(self.entries).where(strays).values(era=sa.bindparam("new_era"))

    def _next_checkpoint(self) -> sa.Executable:
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        t = self.checkpoints.c
        return sa.select(self.checkpoints).where(t.size > sa.bindparam("after")).order_by(t.size).limit(1)

    def _covering_checkpoint(self) -> sa.Executable:
        import sqlalchemy as sa  # noqa: PLC0415  (as above)

        place, wanted = self._place(self.checkpoints)
        return sa.select(self.checkpoints).where(place >= wanted).order_by(self.checkpoints.c.size).limit(1)


_log: Final = cache(Log)
