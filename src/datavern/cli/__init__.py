"""The command line: one command per file, each loaded when it is called."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run ``datavern``: the entry point of the installed command."""
    from datavern.cli.app import run

    run()
