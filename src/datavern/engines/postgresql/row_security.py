"""Row-level security: a transaction sees and writes the rows of one tenant, and the server holds it to that.

`enable` makes a policy that compares a column with the setting ``datavern.tenant``; `TenantTransaction` sets it, for
the transaction alone (``set_config(…, is_local => true)``), so that the connection carries nothing to its next
borrower. Without a tenant the comparison is with NULL, and no row is seen.

A policy does not bind everybody: superusers and roles with BYPASSRLS pass it, and so does a table's owner unless the
table says FORCE. Each would see every tenant's rows without a word, so a transaction with a tenant is refused to them.

Source: PostgreSQL 18 documentation, 5.9 Row Security Policies.
"""

from __future__ import annotations

import hashlib
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from datavern.contracts.errors import ConfigurationError
from datavern.engines.postgresql.statements import Effect
from datavern.engines.postgresql.transaction import PostgreSQLTransaction

if TYPE_CHECKING:
    from datavern.engines.postgresql.provider import PostgreSQLProvider

__all__ = ["POLICY", "SETTING", "TenantTransaction", "enable"]

POLICY = "datavern_tenant"
SETTING = "datavern.tenant"

# One round trip: the tenant, and who it is that asks. Policies are few, so what they are asked for costs little.
_ENTER = """
SELECT pg_catalog.set_config('datavern.tenant', $1, true), r.rolname::text AS name, r.rolsuper, r.rolbypassrls,
       ARRAY(
           SELECT DISTINCT n.nspname || '.' || c.relname
           FROM pg_catalog.pg_policy p
           JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           WHERE (c.relrowsecurity AND NOT c.relforcerowsecurity AND pg_catalog.pg_has_role(c.relowner, 'USAGE'))
              OR (NOT c.relrowsecurity AND p.polname = 'datavern_tenant')
              OR (p.polpermissive AND p.polname <> 'datavern_tenant' AND EXISTS (
                     SELECT FROM pg_catalog.pg_policy q
                     WHERE q.polrelid = p.polrelid AND q.polname = 'datavern_tenant'))
           ORDER BY 1 LIMIT 3
       ) AS open
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
"""

# Views over tables with policies, at any depth, that look with the rights of an owner whom policies do not bind; and
# materialized views, which hold what their owner saw.
_VIEWS = """
WITH RECURSIVE above (oid, owners) AS (
    SELECT DISTINCT p.polrelid,
           CASE WHEN c.relrowsecurity AND NOT c.relforcerowsecurity THEN c.relowner ELSE 0::pg_catalog.oid END
    FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
    UNION
    SELECT r.ev_class, a.owners
    FROM above a
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = a.oid
                               AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
    JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
)
SELECT DISTINCT n.nspname || '.' || c.relname AS name, o.rolname::text AS owner, c.relkind = 'm' AS holds
FROM above a
JOIN pg_catalog.pg_class c ON c.oid = a.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
WHERE pg_catalog.has_any_column_privilege(c.oid, 'SELECT')
  AND (c.relkind = 'm'
       OR (c.relkind = 'v' AND (o.rolsuper OR o.rolbypassrls OR c.relowner = a.owners)
           AND NOT coalesce((SELECT v.option_value::pg_catalog.bool
                             FROM pg_catalog.pg_options_to_table(c.reloptions) v
                             WHERE v.option_name = 'security_invoker'), false)))
ORDER BY 1 LIMIT 1
"""
_LOOK_AT_VIEWS = 60.0
"""Seconds for which views are taken to be as they were: looking is several times the work of the rest."""

_BELOW = """
WITH RECURSIVE below (oid) AS (
    SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = $1
    UNION
    SELECT i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid
)
SELECT c.oid, c.relrowsecurity, c.relforcerowsecurity,
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS quoted
FROM below b JOIN pg_catalog.pg_class c ON c.oid = b.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') ORDER BY 4
"""
_TABLE = """
SELECT c.oid, c.relkind IN ('r', 'p') AS is_table, c.relrowsecurity, c.relforcerowsecurity
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1::text)
"""
_COLUMN = """
SELECT CASE t.typtype WHEN 'd' THEN pg_catalog.format_type(t.typbasetype, NULL)
                      ELSE pg_catalog.format_type(a.atttypid, NULL) END
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = $1 AND a.attname = $2::text AND a.attnum > 0 AND NOT a.attisdropped
"""
_POLICIES = """
SELECT p.polname::text AS name, p.polpermissive AND p.polcmd = '*' AND p.polroles = '{0}' AS for_all, p.polpermissive,
       pg_catalog.pg_get_expr(p.polqual, p.polrelid) AS seen,
       pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) AS written,
       pg_catalog.obj_description(p.oid, 'pg_policy') AS mark
FROM pg_catalog.pg_policy p WHERE p.polrelid = $1 ORDER BY p.polname
"""

# What the setting becomes to be compared: the column's own type, so that its index serves. Never a type with a length:
# the cast would cut a tenant's name, to what may be another's.
_CASTS = {
    "text": "text",
    "character varying": "text",
    "uuid": "uuid",
    "smallint": "int8",
    "integer": "int8",
    "bigint": "int8",
}


class TenantTransaction(PostgreSQLTransaction):
    """A transaction of one tenant. Savepoints keep it; the end of the transaction ends it, whichever it is."""

    __slots__ = ("_tenant",)

    def __init__(self, provider: PostgreSQLProvider, begin: str, *, read_only: bool, tenant: str) -> None:
        super().__init__(provider, begin, read_only=read_only)
        self._tenant = checked(tenant)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            row: Any = await self.query_one(_ENTER, (self._tenant,))
            problem = _unbound(row) or await self._seen_through(row["name"])
            if problem:
                raise ConfigurationError(f"{self._provider.name}: {problem}")  # noqa: TRY301  (ends the transaction)
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self

    async def _seen_through(self, name: str) -> str:
        """Which view would show the rows of every tenant."""
        provider = self._provider
        if monotonic() < provider._views_looked_at:  # noqa: SLF001  (two halves of one engine)
            return ""
        row: Any = await self.query_one(_VIEWS)
        if row is None:
            provider._views_looked_at = monotonic() + _LOOK_AT_VIEWS  # noqa: SLF001
            return ""
        how = (
            "it holds the rows that its owner saw"
            if row["holds"]
            else f"it looks with the rights of its owner {row['owner']}, whom row-level security does not bind: make "
            "it WITH (security_invoker = true)"
        )
        return f"the view {row['name']} shows the rows of every tenant, and {name} may read it: {how}, or REVOKE SELECT"

    def _prepared(self, sql: str, parameters: Any) -> Any:
        if sql is not _ENTER and sql is not _VIEWS:
            return super()._prepared(sql, parameters)
        slot = self._slot
        assert slot is not None  # noqa: S101  (for the type checker: it was opened in the line before)
        return slot.connection, Effect.READS  # a setting that ends with the transaction leaves nothing behind


def checked(tenant: object) -> str:
    """A tenant's name.

    Raises:
        ConfigurationError: it is empty, no text, or no text that PostgreSQL can hold.
    """
    if not isinstance(tenant, str):
        raise ConfigurationError(f"tenant: expected a text, not {type(tenant).__name__}")
    if not tenant.strip():
        raise ConfigurationError("tenant is empty: leave it out for a transaction without one, which sees no rows")
    try:
        tenant.encode()
    except UnicodeEncodeError:
        tenant = "\0"
    if "\0" in tenant:
        raise ConfigurationError("tenant holds a NUL character or half a surrogate pair")
    return tenant


def _unbound(row: Any) -> str:
    """Why the policies would not hold."""
    if row["rolsuper"] or row["rolbypassrls"]:
        what = "is a superuser" if row["rolsuper"] else "has BYPASSRLS"
        return (
            f"the user {row['name']} {what}, and row-level security does not bind it: it would see the rows of every "
            "tenant. Use a plain role for tenant="
        )
    if row["open"]:
        return (
            f"row-level security does not bind the user {row['name']} on {', '.join(row['open'])}: the table is not "
            "under FORCE ROW LEVEL SECURITY and the user owns it, it is not enabled there, or another permissive "
            "policy lets more rows through: run enable_row_level_security for it"
        )
    return ""


async def enable(provider: PostgreSQLProvider, table: str, column: str) -> list[str]:
    """Make the policy. See `PostgreSQLProvider.enable_row_level_security`."""
    subjects = provider._subjects  # noqa: SLF001  (two halves of one engine)
    quoted = subjects.quoted_store(table)
    if not isinstance(column, str) or not column or "\0" in column:
        raise ConfigurationError("enable_row_level_security: column: expected its name")
    async with provider.transaction() as tx:
        await subjects.exclude(tx, table)
        found: Any = await tx.query_one(_TABLE, [quoted])
        if found is None:
            raise ConfigurationError(f"enable_row_level_security: there is no table {table}")
        if not found["is_table"]:
            raise ConfigurationError(f"enable_row_level_security: {table} is no table: policies belong to tables")
        kind = await tx.query_value(_COLUMN, [found["oid"], column])
        wanted = _condition(table, column, subjects.quoted(column), kind)
        run = await _enabled(tx, table, quoted, wanted, found)
        # A partition that is named in a statement goes by its own policies, and so does a table that inherits.
        for below in await tx.query(_BELOW, [found["oid"]]):
            run += await _enabled(tx, below["quoted"], below["quoted"], wanted, below)
    provider._views_looked_at = 0.0  # noqa: SLF001
    return run


async def _enabled(tx: Any, table: str, quoted: str, wanted: str, found: Any) -> list[str]:
    policies = {row["name"]: row for row in await tx.query(_POLICIES, [found["oid"]])}
    run = _needed(table, quoted, wanted, found, policies)
    for statement in run:
        await tx.execute(statement)
    if run and run[-1].startswith("CREATE"):
        (policy,) = [row for row in await tx.query(_POLICIES, [found["oid"]]) if row["name"] == POLICY]
        await tx.execute(f"COMMENT ON POLICY {POLICY} ON {quoted} IS '{_mark(wanted, policy)}'")
    return run


def _needed(table: str, quoted: str, wanted: str, found: Any, policies: dict[str, Any]) -> list[str]:
    """What the table lacks: a table that is as it should be is not locked."""
    others = [name for name, row in policies.items() if row["polpermissive"] and name != POLICY]
    if others:
        raise ConfigurationError(
            f"enable_row_level_security: {table} has the policy {others[0]}, which would let rows of other tenants "
            "through beside this one: make it RESTRICTIVE, or drop it"
        )
    run = []
    if not found["relrowsecurity"]:
        run.append(f"ALTER TABLE {quoted} ENABLE ROW LEVEL SECURITY")
    if not found["relforcerowsecurity"]:
        run.append(f"ALTER TABLE {quoted} FORCE ROW LEVEL SECURITY")
    there = policies.get(POLICY)
    if there is not None and there["for_all"] and there["mark"] == _mark(wanted, there):
        return run
    if there is not None:
        run.append(f"DROP POLICY {POLICY} ON {quoted}")
    return [*run, f"CREATE POLICY {POLICY} ON {quoted} USING ({wanted}) WITH CHECK ({wanted})"]


def _condition(table: str, column: str, quoted: str, kind: str | None) -> str:
    if kind is None:
        raise ConfigurationError(
            f"enable_row_level_security: {table} has no column {column}: add it, or name the one that holds the tenant"
        )
    cast = _CASTS.get(kind)
    if cast is None:
        raise ConfigurationError(
            f"enable_row_level_security: {table}.{column} has the type {kind}: expected text, varchar, uuid, smallint, "
            "integer or bigint"
        )
    # As a query of its own it is worked out once for each statement, and not for each row. After a transaction that
    # had a tenant, the setting of its session is empty, and not NULL.
    setting = f"pg_catalog.current_setting('{SETTING}', true)"
    return f"{quoted} = (SELECT (nullif({setting}, ''))::pg_catalog.{cast})"


def _mark(wanted: str, policy: Any) -> str:
    """Says of a policy that it is as it was made, and from what: a changed one is made again."""
    said = "\0".join((wanted, policy["seen"] or "", policy["written"] or ""))
    return f"datavern {hashlib.sha256(said.encode()).hexdigest()}"
