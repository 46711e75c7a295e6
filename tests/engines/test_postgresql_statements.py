"""What a statement may leave behind, told from its text: unsure means TOUCHES."""

from __future__ import annotations

import pytest

from datavern.engines.postgresql.statements import Effect, effect, ends_transaction

READS = [
    "SELECT 1",
    "select * from users where id = $1",
    "(SELECT 1) UNION ALL (SELECT 2)",
    "SELECT count(*), max(created), coalesce(a, b), now() FROM t GROUP BY 1 HAVING count(*) > 2",
    "SELECT pg_catalog.lower(name) FROM t",
    "SELECT row_number() OVER (PARTITION BY a ORDER BY b), sum(x) FILTER (WHERE x > 0) FROM t",
    "SELECT * FROM a JOIN (SELECT 1 AS x) b USING (x) LEFT JOIN (SELECT 2) c ON (true)",
    "SELECT * FROM t WHERE a IN (1, 2) AND b = ANY ($1) AND EXISTS (SELECT 1) AND NOT (c OR d)",
    "SELECT * FROM t WHERE name LIKE (upper($1)) AND other NOT LIKE ($2) AND x ILIKE ($3)",
    "SELECT CAST(a AS varchar(10)), b::numeric(10, 2), c::timestamptz(3), '1'::character varying(5) FROM t",
    "WITH x (a, b) AS (SELECT 1, 2) SELECT * FROM x",
    "SELECT x.a FROM unnest($1::int[]) WITH ORDINALITY AS x (a, place)",
    'SELECT "x y".a FROM unnest($1::int[]) AS "x y" ("a b")',
    "WITH RECURSIVE x (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM x WHERE n < 9) SELECT * FROM x",
    "WITH x AS MATERIALIZED (SELECT 1) SELECT * FROM x",
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED",
    "VALUES (1), (2)",
    "TABLE users",
    "SHOW search_path",
    "SELECT 'SET role admin; set_config(1)', $$ DO LISTEN $$, $q$ $$ PREPARE $$ $q$ FROM t -- LISTEN x",
    "SELECT /* SET x /* nested */ LISTEN y */ 1",
    'SELECT "set_config", "a""b" FROM t',
    "SELECT E'it\\'s set_config()' FROM t",
    "SELECT 'it''s', x'1F', b'01' FROM t",
    "SELECT a[(1)], (b).c, $1 || (lower($2)) FROM t",
    "SELECT extract(year FROM d), grouping(a) FROM t GROUP BY GROUPING SETS ((a), ())",
    "SELECT pg_try_advisory_xact_lock(1)",
    "SELECT 1; SELECT 2",
    "  \n-- a comment first\nSELECT 1;",
    "",
]
WRITES = [
    "INSERT INTO users (id, name) VALUES ($1, $2)",
    'INSERT INTO "my schema"."user table" (id) VALUES ($1) RETURNING id',
    "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET (a, b) = (1, 2)",
    "UPDATE t SET (a, b) = (1, lower($1)) WHERE id = $2",
    "UPDATE users SET last_login = now() WHERE id = $1",
    "DELETE FROM t USING (SELECT 1 AS x) u WHERE t.x = u.x",
    "MERGE INTO t USING s ON (t.id = s.id) WHEN MATCHED THEN UPDATE SET a = 1",
    "MERGE INTO t USING s ON (t.id = s.id) WHEN NOT MATCHED THEN INSERT (a) VALUES (1)",
    "WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone",
    "WITH a AS (INSERT INTO audit (x) VALUES ($2)) UPDATE acct SET balance = balance + 1 WHERE id = $1",
]
TOUCHES = [
    "SET search_path TO x",
    "SET LOCAL x.y = 1",
    "RESET ALL",
    "BEGIN",
    "COMMIT",
    "LISTEN channel",
    "NOTIFY channel",
    "PREPARE p AS SELECT 1",
    "EXECUTE p(1)",
    "DEALLOCATE ALL",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "DO $$ BEGIN END $$",
    "CALL p()",
    "LOAD 'x'",
    "CREATE TEMP TABLE t (a int)",
    "CREATE TABLE t (a int)",
    "COPY t FROM STDIN",
    "EXPLAIN ANALYZE SELECT set_config('a', 'b', false)",
    "SELECT set_config('a.b', 'c', false)",
    "SELECT pg_catalog.set_config('a.b', 'c', false)",
    "SELECT SET_CONFIG ('a.b', 'c', false)",
    "SELECT set_config/* here */('a.b', 'c', false)",
    "SELECT set_config -- here\n ('a.b', 'c', false)",
    'SELECT "set_config"(\'a.b\', \'c\', false)',
    "SELECT U&\"set\\005Fconfig\"('a.b', 'c', false)",
    "SELECT 1, pg_advisory_lock(1)",
    "SELECT nextval('s'), currval('s'), lastval()",
    "SELECT my_function($1)",
    "SELECT my_schema.count(1)",
    "SELECT * FROM my_function($1) AS f (a int)",
    "SELECT 1 INTO TEMP t",
    "SELECT 1 INTO t",
    "SELECT 1into t",
    "SELECT 1; SET x.y = 1",
    "INSERT INTO t (a) VALUES (set_config('a.b', 'c', false))",
    "WITH x AS (SELECT set_config('a.b', 'c', false)) SELECT * FROM x",
    "SELECT * FROM t WHERE 1=1or set_config('a.b', 'c', false) IS NULL",
    "SELECT join(1)",
    "SELECT 1, like('a', 'b'), filter(3), over(4)",
    "SELECT key(1), range(2)",
    "SELECT conflict(1)",
    "SELECT count\u00a0(1)",
    "SELECT set\u2010count(1)",
    "SELECT \u212aount(1)",
    "SELECT 'a\\', set_config(1), '",
    "SELECT 'unterminated",
    'SELECT "unterminated',
    "SELECT /* unterminated",
    "SELECT $a$ unterminated $b$",
    "SELECT query_to_xml('SELECT 1', true, true, '')",
    "SELECT dblink_connect('x')",
    "SELECT setseed(0.5)",
]  # fmt: skip


@pytest.mark.parametrize("sql", READS)
def test_reads(sql: str) -> None:
    assert effect(sql) is Effect.READS


@pytest.mark.parametrize("sql", WRITES)
def test_writes(sql: str) -> None:
    assert effect(sql) is Effect.WRITES


@pytest.mark.parametrize("sql", TOUCHES)
def test_touches(sql: str) -> None:
    assert effect(sql) is Effect.TOUCHES


@pytest.mark.parametrize(
    ("sql", "control"),
    [
        ("BEGIN", "BEGIN"),
        ("start transaction", "START"),
        ("SELECT 1; commit;", "COMMIT"),
        ("/* a */ -- b\n end", "END"),
        ("ROLLBACK TO x", "ROLLBACK"),
        ("abort", "ABORT"),
        ("SAVEPOINT x", "SAVEPOINT"),
        ("RELEASE x", "RELEASE"),
        ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION"),
        ("COMMIT PREPARED 'x'", ""),
        ("ROLLBACK PREPARED 'x'", ""),
        ("PREPARE x AS SELECT 1", ""),
        ("SELECT 'x; COMMIT'", ""),
        ("SELECT begin, commit FROM t", ""),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$", ""),
        ("SET TRANSACTION READ ONLY", ""),
        ("", ""),
    ],
)
def test_which_end_a_transaction(sql: str, control: str) -> None:
    assert ends_transaction(sql) == control
