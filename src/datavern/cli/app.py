"""The application: it knows the names of the commands, and loads the one that was called."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer

from datavern.cli.group import Group

__all__ = ["COMMANDS", "app", "run"]

COMMANDS = (
    "init",
    "check",
    "scan",
    "prepare",
    "seal",
    "unseal",
    "health",
    "subject",
    "consent",
    "breach",
    "hold",
    "retention",
    "audit",
    "keys",
    "demo",
)
"""In the order in which ``datavern --help`` shows them; each is the module of that name, with an ``app`` in it."""


class _Lazy(Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  (the signature is typer's)
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  (the signature is typer's)
        # A name that nobody knows loads them all: typer names the nearest of those it has.
        for name in [cmd_name] if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                module = import_module(f"datavern.cli.{name}")
                self.commands[name] = typer.main.get_command(module.app)
        return self.commands.get(cmd_name)


app = typer.Typer(
    name="datavern",
    cls=_Lazy,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, which hold people's data
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"datavern {version('datavern')}")
        raise typer.Exit


@app.callback()
def datavern(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Keep people's data safe and lawful.

    New here? `datavern demo` shows it on people who do not exist, and `datavern init` makes a project.
    """


def run() -> None:
    """Run the command that the arguments name, and leave with its exit code: 0 only when what was asked is done."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever called: there is nobody to tell
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123  (until the process ends)
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a log that cannot print æ prints a ? for it: no reason to stop in the middle of an erasure.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app(prog_name="datavern")
