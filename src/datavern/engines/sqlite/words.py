"""The words of a statement, as SQLite's tokenizer tells them apart: enough to see which table it writes to.

Source: https://sqlite.org/lang_keywords.html, https://sqlite.org/lang_comment.html.
"""

from __future__ import annotations

import re

__all__ = ["spans", "words"]

# SQLite takes a name in any of four quotes; a string where a name belongs is one too.
_TOKEN = re.compile(
    r"""
      (?P<space>   [ \t\n\f\r]+ | --[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<quoted>  " (?: [^"] | "" )* " | ' (?: [^'] | '' )* ' | ` (?: [^`] | `` )* ` | \[ [^\]]* \] )
    | (?P<word>    [A-Za-z_\x80-\U0010ffff] [A-Za-z0-9_$\x80-\U0010ffff]* )
    | (?P<value>   [0-9] [0-9A-Za-z_.]* | [?:@$#] [A-Za-z0-9_:$\x80-\U0010ffff]* )
    | (?P<mark>    . )
    """,
    re.VERBOSE | re.DOTALL,
)


def words(sql: str) -> list[tuple[str, str]] | None:
    """Kind and text of each token: words in lower case, quoted names as they are.

    None where the text cannot be read for sure: a quote that is not closed.
    """
    found = spans(sql)
    return None if found is None else [token[:2] for token in found]


def spans(sql: str) -> list[tuple[str, str, int, int]] | None:
    """The same, each with where it begins and where it ends in the text."""
    found: list[tuple[str, str, int, int]] = []
    for match in _TOKEN.finditer(sql):
        kind, text = str(match.lastgroup), match[0]
        if kind == "space":
            continue
        if kind == "quoted":
            mark = text[-1]
            text = text[1:-1] if mark == "]" else text[1:-1].replace(mark * 2, mark)
        elif kind == "word":
            text = text.lower() if text.isascii() else text
        elif text in {'"', "'", "`", "["}:
            return None
        found.append((kind, text, *match.span()))
    return found
