"""What a pooler between here and the server cannot carry: told from a statement's text.

A pooler in transaction mode (PgBouncer, ``pool_mode = transaction``) gives each transaction whichever session is free.
What a statement leaves in its session is then somebody else's: a setting, a lock, a temporary table; and what it looks
for there (`lastval()`) may be somebody else's too. Such statements are refused with what to do in their place.

What the text does not show is not seen: a function of one's own that does the same, a DO block.

Source: https://www.pgbouncer.org/features.html, the table of SQL features.
"""

from __future__ import annotations

from typing import Final

from datavern.engines.postgresql.statements import words

__all__ = ["session_bound"]

_ELSE: Final = "; or give a provider of its own the server's address, past the pooler"
_LISTEN: Final = "messages come to a session" + _ELSE
_SETTING: Final = "a setting stays behind in a session that the next transaction of others gets: use SET LOCAL" + _ELSE
_LOCK: Final = "the lock would belong to a session that is another's next: use pg_advisory_xact_lock" + _ELSE
_LAST: Final = "the number is one of the session's, and may be another client's: use INSERT … RETURNING" + _ELSE
_PREPARED: Final = "a statement is prepared in one session, and is not in the next" + _ELSE
_TABLE: Final = (
    "a temporary table stays behind in a session that is another's next: use ON COMMIT DROP, in a transaction" + _ELSE
)
_CURSOR: Final = "a cursor that outlives its transaction is in a session that is another's next: use stream" + _ELSE

_FIRST: Final = {
    "listen": _LISTEN, "unlisten": _LISTEN, "reset": _SETTING, "discard": _SETTING, "load": _SETTING,
    "prepare": _PREPARED, "execute": _PREPARED, "deallocate": _PREPARED,
}  # fmt: skip
_CALLS: Final = {
    **dict.fromkeys(
        ("pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared"), _LOCK
    ),
    **dict.fromkeys(("pg_advisory_unlock", "pg_advisory_unlock_shared", "pg_advisory_unlock_all"), _LOCK),
    "lastval": _LAST,
    "currval": _LAST,
}  # fmt: skip
_OF_THE_TRANSACTION: Final = frozenset({"local", "transaction", "constraints"})
_TEMPORARY: Final = frozenset({"temp", "temporary"})
_BEFORE_TEMPORARY: Final = frozenset({"or", "replace", "global", "local"})


def session_bound(sql: str) -> str:
    """Why a pooler in transaction mode cannot carry the text; empty where nothing speaks against it."""
    found = words(sql) or []
    start = 0
    for i, token in enumerate([*found, ("mark", ";")]):
        if token == ("mark", ";"):
            if problem := _statement(found[start:i]):
                return problem
            start = i + 1
    return ""


def _statement(tokens: list[tuple[str, str]]) -> str:
    said = [text if kind == "word" else "" for kind, text in tokens]
    first, second = [*said, "", ""][:2]
    if first in _FIRST:
        return f"{first.upper()}: {_FIRST[first]}"
    if first == "set" and second not in _OF_THE_TRANSACTION:
        return f"SET: {_SETTING}"
    if first == "declare" and "hold" in said and said[said.index("hold") - 1] == "with":
        return f"DECLARE … WITH HOLD: {_CURSOR}"
    if _is_temporary(tokens, said) and not _drops(said):
        return f"a temporary table: {_TABLE}"
    return _called(tokens)


def _is_temporary(tokens: list[tuple[str, str]], said: list[str]) -> bool:
    if said[:1] == ["create"]:
        what = next((word for word in said[1:] if word not in _BEFORE_TEMPORARY), "")
        if what in _TEMPORARY or any(text == "pg_temp" for _, text in tokens):
            return True
    return any(
        said[i] == "into" and said[i - 1] not in {"insert", "merge"} and bool(_TEMPORARY & set(said[i + 1 : i + 3]))
        for i in range(1, len(said))
    )


def _drops(said: list[str]) -> bool:
    return any(said[i : i + 3] == ["on", "commit", "drop"] for i in range(len(said)))


def _called(tokens: list[tuple[str, str]]) -> str:
    for i in range(1, len(tokens)):
        kind, name = tokens[i - 1]
        if tokens[i] != ("mark", "(") or kind not in {"word", "quoted"}:
            continue
        if name in _CALLS:
            return f"{name}: {_CALLS[name]}"
        if name == "set_config" and not _is_local(tokens, i):
            return f"set_config: {_SETTING.replace('SET LOCAL', 'set_config(…, true)')}"
    return ""


def _is_local(tokens: list[tuple[str, str]], opening: int) -> bool:
    """Whether the call whose parenthesis opens there ends in ``, true)``."""
    depth = 0
    for i in range(opening, len(tokens)):
        if tokens[i] in {("mark", "("), ("mark", "[")}:
            depth += 1
        elif tokens[i] in {("mark", ")"), ("mark", "]")}:
            depth -= 1
            if depth == 0:
                given = [text for _, text in tokens[max(0, i - 5) : i]]
                return given[-2:] == [",", "true"] or given == [",", "is_local", "=", ">", "true"]
    return False
