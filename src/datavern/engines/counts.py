"""How many parameters a statement takes, as every engine says it of a wrong number of them."""

from __future__ import annotations

__all__ = ["takes"]


def takes(wanted: int, given: int, *, beside: str = "") -> str:
    """What is wrong, in words.

    Args:
        wanted: how many the statement takes.
        given: how many there are.
        beside: what else there is to say of those that it takes.
    """
    parameters = "1 parameter" if wanted == 1 else f"{wanted} parameters"
    return f"the statement takes {parameters}{beside}, {given} {'was' if given == 1 else 'were'} given"
