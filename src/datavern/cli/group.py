"""A group of commands: how it lists them, and how it words what is wrong with their options."""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.core import TyperGroup

__all__ = ["Group"]


class Group(TyperGroup):
    """Commands with the whole first sentence of what each does.

    Typer cuts that sentence to one line, and at each full stop: "GDPR Arts." is where it would end.
    """

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands into the help text."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _sentence(command.help or "")) for name, command in found if command and not command.hidden]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = _plain(error.message)
            raise


def _sentence(text: str) -> str:
    """The first sentence; a new one begins with a capital or a quotation mark."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=\.)\s+(?=[A-ZÆØÅ`])", paragraph, maxsplit=1)[0]


def _plain(message: str) -> str:
    """What the parser says, without the name of its exception and without the pattern of a date."""
    return message.removeprefix("Value error, ").replace(
        "does not match the formats '%Y-%m-%d'", "is not a date such as 2026-01-31"
    )
