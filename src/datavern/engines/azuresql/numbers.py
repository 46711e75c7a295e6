"""The server's error numbers: which pass by themselves, which end what, and what they mean in our words.

Sources: "Database engine events and errors" of SQL Server's documentation; which errors are transient, and in which of
three scopes (signing in, a statement, a transaction): Microsoft's lists of SqlClient and EF Core.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CONFLICTS",
    "CONSTRAINTS",
    "FINAL_LOGIN",
    "LOGIN",
    "MOVED",
    "NETWORK",
    "NULL",
    "READ_ONLY",
    "STATES",
    "THROTTLED",
    "TRANSIENT",
    "TRANSIENT_LOGIN",
    "WORDS",
]

TRANSIENT: Final = frozenset(
    {
        233, 997, 1204, 1205, 1222, 4060, 4221, 10053, 10054, 10060, 10928, 10929, 18401, 40143, 40197, 40501, 40540,
        40613, 40642, 42108, 42109, 49802, 49918, 49919, 49920, 49977, 49983,
    }
)  # fmt: skip
"""Errors that Microsoft documents as passing."""
NETWORK: Final = frozenset({233, 997, 10053, 10054, 10060})
"""Of these, what stands for a connection that broke: the statement may have been done."""
CONFLICTS: Final = frozenset({1205, 3960, 3961, 41302, 41305, 41325, 41839})
"""The transaction was undone, and may be run again: deadlocks, and conflicts of snapshots and of memory tables."""
TRANSIENT_LOGIN: Final = TRANSIENT - {1204, 1205, 1222}
"""Of these, what may be answered to signing in: the others are about locks."""
THROTTLED: Final = 40501
"""The service is busy, and asks for ten seconds of rest."""
READ_ONLY: Final = 3906
"""Failed to update database because the database is read-only."""
MOVED: Final = frozenset({3906, 4221, 40143, 40197, 40540, 40613, 42108, 42109, 49977, 49983})
"""The database is being moved, or is not where it was: connections of the same generation go with this one."""
WORDS: Final[dict[int, str]] = {
    102: "syntax error",
    103: "a name is too long",
    105: "a quotation mark is not closed",
    107: "a column's prefix is no table of the statement",
    109: "fewer values than columns",
    110: "more values than columns",
    113: "a comment is not closed",
    121: "more columns selected than there are to insert into",
    120: "fewer columns selected than there are to insert into",
    137: "a variable or parameter is not declared",
    139: "a default cannot be given here",
    156: "syntax error",
    170: "syntax error",
    201: "the procedure needs a parameter that was not given",
    206: "the types do not fit",
    207: "no such column",
    208: "no such table",
    209: "a column's name is ambiguous",
    213: "the values do not fit the table's columns",
    214: "a parameter of a procedure has the wrong type",
    217: "procedures, functions, triggers or views are nested too deeply",
    220: "a number is out of range",
    229: "this user may not do that",
    230: "this user may not do that",
    241: "not a valid date or time",
    242: "a date or time is out of range",
    244: "a number is out of range",
    245: "a text is not a valid value of the type it should become",
    248: "a number is out of range",
    257: "the types do not fit: a conversion must be written out",
    262: "this user may not do that",
    266: "a procedure begins a transaction and does not end it, or the other way round",
    295: "not a valid date or time",
    297: "this user may not do that",
    300: "this user may not do that",
    319: "syntax error",
    334: "OUTPUT without INTO cannot be used on a table with triggers",
    402: "the types do not fit",
    468: "two collations meet: add COLLATE",
    512: "more rows than the statement may have",
    529: "no such conversion",
    535: "a date or time is out of range",
    544: "an identity column takes no value of the statement's own",
    1105: "the database is full",
    1222: "somebody else holds the lock",
    1505: "the rows that are there break the unique index",
    1750: "the constraint could not be made",
    1801: "the database exists already",
    1911: "no such column",
    1913: "the index exists already",
    2601: "unique index",
    2627: "unique constraint",
    2628: "a text is too long for its column",
    2705: "a column is named twice",
    2714: "an object of that name exists already",
    2715: "no such type",
    2812: "no such procedure",
    2809: "no procedure is of that name",
    3609: "a trigger ended the transaction",
    3701: "no such object, or this user may not drop it",
    3726: "a foreign key points to it",
    3728: "no such constraint",
    3902: "there is no transaction to commit",
    3903: "there is no transaction to roll back",
    3930: "an earlier statement of this transaction failed, and only a rollback can follow",
    3931: "an earlier statement of this transaction failed, and only a rollback can follow",
    3952: "the database does not allow snapshot isolation: ALTER DATABASE … SET ALLOW_SNAPSHOT_ISOLATION ON",
    3998: "an earlier statement of this transaction failed, and it was rolled back",
    4104: "no such column",
    4145: "syntax error",
    4712: "a foreign key points to it",
    4902: "no such table",
    4924: "no such column",
    8101: "an identity column takes no value of the statement's own",
    8115: "a number is out of range",
    8134: "division by zero",
    8144: "more parameters than the procedure takes",
    8145: "the procedure has no parameter of that name",
    8146: "the procedure takes no parameters",
    8152: "a text is too long for its column",
    8162: "the parameter is not one for output",
    8169: "a text is not a uuid",
    8180: "the statement could not be prepared",
    8114: "a value does not fit the type it should become",
    8178: "a parameter of the statement has no value",
    8623: "the statement is too complex",
    8645: "the server is out of memory",
    9002: "the database's log is full",
    10318: "this cannot run inside a transaction",
    226: "this cannot run inside a transaction",
    574: "this cannot run inside a transaction",
    3906: "the database is read-only",
    40544: "the database has reached its size quota",
    50000: "the database's own code raised an error",
}
CONSTRAINTS: Final = {2601: "unique index", 2627: "unique constraint", 547: "foreign key or check constraint"}
NULL: Final = 515
STATES: Final = {
    "23000": "a constraint was violated",
    "22001": "a text is too long for its column",
    "22003": "a number is out of range",
    "22012": "division by zero",
    "42S02": "no such table",
    "42S22": "no such column",
    "42000": "syntax error, or this user may not do that",
    "HYT00": "the statement took longer than the server allows",
}
"""Where a driver tells no number."""


LOGIN: Final = {
    4060: "the server at {where} has no database {database}, or {user} may not use it, or it is being moved",
    4064: "the default database of {user} at {where} cannot be opened: set database",
    18401: "the server at {where} is starting up or shutting down",
    18452: "the server at {where} does not take the identity of {user}: check authentication",
    18456: "the server at {where} refused {user}: check username and password, or that the token has not expired and "
    "is for https://database.windows.net/",
    18470: "the account of {user} at {where} is disabled",
    18486: "the account of {user} at {where} is locked",
    18487: "the password of {user} at {where} has expired",
    18488: "the password of {user} at {where} must be changed",
    40532: "the server at {where} cannot be opened by this name: check host",
    40613: "the database {database} at {where} is not available just now: it is being moved, or wakes up",
    40615: "the firewall of the server at {where} does not let this address in: add it there",
    47073: "the server at {where} takes no connections from the public network: use its private endpoint",
}
FINAL_LOGIN: Final = frozenset({4064, 18452, 18456, 18470, 18486, 18487, 18488, 40532, 40615, 47073})
"""Trying again does not help."""
