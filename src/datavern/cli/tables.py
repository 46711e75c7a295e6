"""Tables for people: as wide as the terminal, or, where that breaks what may not be broken, row by row downwards."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["drawn"]

_GAP = 3
_NARROWEST = 10
"""How few letters wide a column may get that is broken between words."""


def drawn(
    columns: Sequence[str],
    rows: Sequence[Sequence[Text]],
    *,
    width: int,
    title: str | None = None,
    whole: Collection[str] = (),
) -> RenderableType:
    """The table. What is to be copied from it, such as an id, stands in a column of `whole`, which is never broken.

    Args:
        columns: their headers.
        rows: cells, as many as there are columns.
        width: of the terminal, in letters.
        title: above it.
        whole: headers of the columns that are never broken.
    """
    from rich import box
    from rich.table import Table

    if whole and rows and _width(columns, rows, whole) > width:
        return _downwards(columns, rows, title)
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in whole)
    for row in rows:
        table.add_row(*row)
    return table


def _width(columns: Sequence[str], rows: Sequence[Sequence[Text]], whole: Collection[str]) -> int:
    """How wide it must be at the least, without breaking a column of `whole`."""
    found = _GAP * (len(columns) - 1)
    for number, column in enumerate(columns):
        widest = max(row[number].cell_len for row in rows)
        found += max(len(column), widest if column in whole else min(widest, _NARROWEST))
    return found


def _downwards(columns: Sequence[str], rows: Sequence[Sequence[Text]], title: str | None) -> RenderableType:
    """One row below the other, each with its columns' names, and an empty line between two."""
    from rich.table import Table

    table = Table(
        box=None, title=title, title_justify="left", title_style="bold", show_header=False, pad_edge=False,
        padding=(0, 2, 0, 0),
    )  # fmt: skip
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for number, row in enumerate(rows):
        if number:
            table.add_row()
        for column, cell in zip(columns, row, strict=True):
            table.add_row(column, cell)
    return table
