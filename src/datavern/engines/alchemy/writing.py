"""Sealing what a statement writes: before SQLAlchemy compiles it, with the whole row in sight.

Listens to ``before_execute``: inserts, updates and deletes of the unit of work pass here as those of Core do. A write
to a table of the data map is what it is through ``db.personal``: the person's key is held, the consent is checked, and
the audit entry stands in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.util.concurrency import await_

from datavern.contracts.errors import ConfigurationError
from datavern.engines.alchemy.stores import store_of
from datavern.engines.alchemy.types import Ready
from datavern.engines.alchemy.waiting import on_loop

__all__ = ["CONSENT", "before_execute"]

CONSENT = "datavern_consent"
"""The execution option with the consent for a write: a consent, its id, or a mapping from subject to consent."""


def before_execute(connection: Any, element: Any, multiparams: Any, params: Any, options: Any) -> Any:
    """SQLAlchemy's event: what is to be run, as it is, or with its values sealed."""
    if isinstance(element, sa.Insert | sa.Update | sa.Delete):
        table = element.table
        if isinstance(table, sa.Table):
            store = store_of(connection.dialect.provider, table.fullname, required=False)
            if store is not None:
                sets = list(multiparams) if multiparams else [params]
                background = connection.dialect.background
                element, sets = on_loop(background, _written, connection, store, element, sets, options)
                return (element, sets, {}) if multiparams else (element, [], sets[0])
    return element, multiparams, params


def _written(
    connection: Any, store: Any, element: Any, sets: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> tuple[Any, list[dict[str, Any]]]:
    adapter = connection.connection.dbapi_connection
    if adapter.autocommit:
        raise ConfigurationError(
            f"{store.dataset.label}: personal data is written in a transaction, and this connection commits each "
            "statement by itself (AUTOCOMMIT)"
        )
    await_(store.whole())
    consent = options.get(CONSENT)
    if isinstance(element, sa.Insert):
        element, made = _inserted(store, element, sets, consent, adapter)
    elif isinstance(element, sa.Update):
        element, made = _updated(connection, store, element, sets, consent, adapter)
    else:
        made = [dict(one) for one in sets]
        for one in made:
            await_(store.note_delete(_rows(connection, store, element, one), transaction=await_(adapter.begun())))
    adapter.audited = True
    return element, made


def _inline(store: Any, element: Any, where: Any) -> dict[str, Any]:
    """The values that stand in the statement itself, by column."""
    if getattr(element, "_multi_values", None):
        raise ConfigurationError(
            f"{store.dataset.label}: give several rows as the second argument: execute(insert(…), [{{…}}, …])"
        )
    if getattr(element, "select", None) is not None or getattr(element, "_post_values_clause", None) is not None:
        raise ConfigurationError(
            f"{store.dataset.label}: an INSERT from a SELECT, or with ON CONFLICT, has no row that could be sealed: "
            "read the rows, and insert or update each"
        )
    found: dict[str, Any] = {}
    for column, value in (element._values or {}).items():
        name = getattr(column, "name", column)
        if isinstance(value, BindParameter):
            found[name] = value.effective_value
        elif where(name):
            raise ConfigurationError(
                f"{store.dataset.label}.{name}: an expression of SQL cannot be sealed: give a value"
            )
    return found


def _inserted(
    store: Any, element: Any, sets: Sequence[Mapping[str, Any]], consent: Any, adapter: Any
) -> tuple[Any, list[dict[str, Any]]]:
    names = _names(element.table)
    own = store.own_columns()
    inline = _inline(store, element, lambda name: name in store.dataset.sealed or name == store.dataset.subject)
    rows = []
    for given in sets:
        row = {**inline, **{names.get(key, key): value for key, value in given.items()}}
        _leave(store, own, row)
        rows.append({name: value for name, value in row.items() if name not in own})
    stored = await_(store.to_insert(rows, consent=consent, transaction=await_(adapter.begun())))
    keys = {name: key for key, name in names.items()}
    sealed = store.dataset.sealed
    made = []
    for given, row in zip(sets, stored, strict=True):
        changed = {name: _ready(value) if name in sealed else value for name, value in row.items()}
        taken = {keys.get(name, name): value for name, value in changed.items()}
        made.append({**given, **taken})
    if inline:
        if len(made) > 1:
            raise ConfigurationError(f"{store.dataset.label}: give all values of several rows as the second argument")
        element = element.values(made[0])
        return element, [{}]
    return element, made


def _updated(  # noqa: PLR0917  (what `_written` has)
    connection: Any, store: Any, element: Any, sets: Sequence[Mapping[str, Any]], consent: Any, adapter: Any
) -> tuple[Any, list[dict[str, Any]]]:
    names, own = _names(element.table), store.own_columns()
    inline = _inline(store, element, lambda name: name in store.dataset.sealed)
    keys = {name: key for key, name in names.items()}
    sealed = store.dataset.sealed
    made = []
    for given in sets:
        changes = {**inline, **{names[key]: value for key, value in given.items() if key in names}}
        _leave(store, own, changes)
        changes = {name: value for name, value in changes.items() if name not in own}
        found = _rows(connection, store, element, given)
        if len(found) > 1 and any(name in sealed for name in changes):
            raise ConfigurationError(
                f"{store.dataset.label}: an UPDATE that changes a sealed column concerns one row, and this one "
                "several: a value is sealed for its row"
            )
        taken: dict[str, Any] = {}
        for row in found:
            stored = await_(store.to_update(row, changes, consent=consent, transaction=await_(adapter.begun())))
            if any(name in sealed for name in changes):
                taken = {keys.get(n, n): _ready(v) if n in sealed else v for n, v in stored.items()}
        if not found:  # nothing will be changed, and nothing may go in as it is
            taken = {keys.get(n, n): None for n in changes if n in sealed}
        made.append({**given, **taken})
    if inline:
        if len(made) > 1:
            raise ConfigurationError(f"{store.dataset.label}: give all values of several rows as the second argument")
        own_keys = {key: value for key, value in made[0].items() if key in names}
        element = element.values(own_keys)
        return element, [{key: value for key, value in made[0].items() if key not in names}]
    return element, made


def _rows(connection: Any, store: Any, element: Any, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that a statement will change, held until the transaction ends; sealed values as they are stored."""
    table = element.table
    wanted = [
        sa.type_coerce(table.c[name], sa.LargeBinary).label(name) if name in store.dataset.sealed else table.c[name]
        for name in store.columns_of_a_write()
        if name in table.c
    ]
    select = sa.select(*wanted).where(*element._where_criteria).with_for_update()
    return [dict(row._mapping) for row in connection.execute(select, dict(params))]


def _leave(store: Any, own: Any, row: Mapping[str, Any]) -> None:
    """Refuse values for the columns that are Datavern's to write; the unit of work fills those it has none for."""
    written = sorted(name for name in own if row.get(name) is not None)
    if written:
        raise ConfigurationError(f"{store.dataset.label}: {written[0]} is Datavern's own column: leave it out")


def _names(table: Any) -> dict[str, str]:
    """A column's key in SQLAlchemy → its name in the database."""
    return {column.key: column.name for column in table.c}


def _ready(value: Any) -> Any:
    return None if value is None else Ready(value)
