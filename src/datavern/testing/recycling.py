"""PostgreSQL databases that were used and are empty again.

Making a database copies some three hundred files, which takes longer than most tests do. A database of an ephemeral
server is emptied instead, and given out again, if nothing at all is left in it; else it is dropped.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from datavern.testing.postgresql import PostgreSQLServer

__all__ = ["emptied", "kept", "spares"]

_MOST = 4
"""Databases kept for each server. A test seldom needs more at once."""

_spares: weakref.WeakKeyDictionary[PostgreSQLServer, tuple[Path, list[str]]] = weakref.WeakKeyDictionary()

_OTHERS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_DROP = """
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT nspname FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', name);
    END LOOP;
END $$;
CREATE SCHEMA public AUTHORIZATION pg_database_owner;
GRANT USAGE ON SCHEMA public TO PUBLIC;
COMMENT ON SCHEMA public IS 'standard public schema';
"""
# What initdb made has object identifiers below 16384 (FirstNormalObjectId).
_LEFT = """
SELECT (SELECT count(*) FROM pg_class WHERE oid >= 16384 AND relpersistence <> 't')
     + (SELECT count(*) FROM pg_proc WHERE oid >= 16384)
     + (SELECT count(*) FROM pg_operator WHERE oid >= 16384)
     + (SELECT count(*) FROM pg_cast WHERE oid >= 16384)
     + (SELECT count(*) FROM pg_collation WHERE oid >= 16384)
     + (SELECT count(*) FROM pg_ts_config WHERE oid >= 16384)
     + (SELECT count(*) FROM pg_ts_dict WHERE oid >= 16384)
     + (SELECT count(*) FROM pg_extension WHERE oid >= 16384)
     + (SELECT count(*) FROM pg_language WHERE oid >= 16384)
     + (SELECT count(*) FROM pg_event_trigger)
     + (SELECT count(*) FROM pg_publication)
     + (SELECT count(*) FROM pg_foreign_data_wrapper)
     + (SELECT count(*) FROM pg_largeobject_metadata)
     + (SELECT count(*) FROM pg_default_acl)
     + (SELECT count(*) FROM pg_prepared_xacts WHERE database = d.datname)
     + (SELECT count(*) FROM pg_replication_slots WHERE database = d.datname)
     + (SELECT count(*) FROM pg_subscription WHERE subdbid = d.oid)
     + (SELECT count(*) FROM pg_db_role_setting WHERE setdatabase = d.oid)
     + (SELECT count(*) FROM pg_shdepend WHERE dbid = d.oid OR (classid = 'pg_database'::regclass AND objid = d.oid))
     + (d.datacl IS NOT NULL OR d.datconnlimit <> -1 OR NOT d.datallowconn)::int
FROM pg_database d WHERE datname = current_database()
"""


def spares(server: PostgreSQLServer) -> list[str] | None:
    """Names of the server's empty databases; None where a database is made and dropped for each test instead.

    That is so on a server of somebody else's, and where the data is kept: nothing of a test may be left there.
    """
    folder = server.ephemeral_folder
    if folder is None:
        return None
    found = _spares.get(server)
    if found is None or found[0] != folder:
        found = _spares[server] = (folder, [])
    return found[1]


async def emptied(connection: Any) -> bool:
    """Empty the database of an asyncpg connection, and end every other connection to it; whether nothing is left."""
    await connection.execute(_OTHERS)
    await connection.execute(_DROP)
    left: int = await connection.fetchval(_LEFT)
    return left == 0


def kept(server: PostgreSQLServer, name: str) -> bool:
    """Keep an empty database for the next test; False when there are enough."""
    found = spares(server)
    if found is None or len(found) >= _MOST:
        return False
    found.append(name)
    return True
