"""Tables at 80 columns: what is copied from one is whole, and no word is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from rich.text import Text

from datavern.cli.tables import drawn

if TYPE_CHECKING:
    from pathlib import Path

    from calling import Run

ID = "1f989e605b28b91fd858dcb5fc8a1cf4"


def lines(columns: list[str], rows: list[list[str]], *, width: int = 80, whole: set[str]) -> list[str]:
    console = Console(width=width, no_color=True)
    with console.capture() as said:
        console.print(drawn(columns, [[Text(c) for c in row] for row in rows], width=width, whole=whole))
    return [line.strip() for line in said.get().splitlines() if line.strip()]


def test_what_fits_is_a_table():
    head, _, row = lines(["consent", "holds"], [[ID, "yes"]], whole={"consent"})
    assert head.split() == ["consent", "holds"]
    assert row.split() == [ID, "yes"]


def test_what_would_break_an_id_is_told_downwards():
    rows = [[ID, "samtykke-til-nyhetsbrev-og-kurs", "2026-11-29", "until 2027-01-01"]] * 2
    told = lines(["consent", "purpose", "granted", "holds"], rows, whole={"consent", "purpose"})
    assert told[:4] == [
        f"consent  {ID}",
        "purpose  samtykke-til-nyhetsbrev-og-kurs",
        "granted  2026-11-29",
        "holds    until 2027-01-01",
    ]
    assert len(told) == 8


@pytest.mark.usefixtures("project")
def test_a_person_s_consents(run: Run):
    given = run("consent", "list", "p-000002", COLUMNS="80")
    (id_,) = [c["id"] for c in run("consent", "list", "p-000002", "--json").json]
    assert f"{id_}   customer-account" in given.said
    assert run("consent", "withdraw", id_).code == 0
    ended = run("consent", "list", "p-000002", COLUMNS="80").said
    assert "withdrawn" in ended
    assert id_ in ended
    assert run("consent", "grant", "p-000002", "customer-account", "--expires", "2101-12-31").code == 0
    assert "until" in run("consent", "list", "p-000002", COLUMNS="80").said
    assert "until 2101-12-31" in run("consent", "list", "p-000002", COLUMNS="120").said


def test_health_again_and_again_leaves_out_what_nobody_has(run: Run, project: Path):
    said = run("health", "--watch", "--count", "1", COLUMNS="80").said
    assert [line.split() for line in said.splitlines() if "database" in line] == [
        ["database", "status", "role", "answers", "in", "in", "use"]
    ]
    (project / "main.db").write_bytes(b"no database at all, and long enough to be looked at as one" * 20)
    said = run("health", "--watch", "--count", "1", COLUMNS="80").said
    # A path that is longer than the screen is wide is broken, wherever that is on this machine.
    assert "main.db:thefileisnotaSQLitedatabase" in "".join(said.split())
