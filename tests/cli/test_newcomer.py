"""What somebody meets who begins: help that is whole, and mistakes whose messages say what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from calling import PEOPLE, Run

GROUPS = ("subject", "consent", "breach", "hold", "retention", "audit", "keys")


@pytest.mark.parametrize("group", [(), *((name,) for name in GROUPS)])
def test_no_command_is_described_by_half_a_sentence(run: Run, group: tuple[str, ...]):
    said = run(*group, "--help").said
    listed = said.partition("Commands:")[2]
    assert listed.count("\n  ") > 2
    assert "..." not in listed
    assert "Arts.\n" not in listed


def test_help_keeps_an_article_together_with_its_number(run: Run):
    assert "(GDPR Arts. 33 and 34)." in " ".join(run("--help").said.split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("audit", "truncate", "--before", "yesterday"), "'yesterday' is not a date such as 2026-01-31."),
        (("subject", "receive", "eraseur", "p-000001"), "'eraseur' is not one of 'access', "),
        (("subject", "export", "p-000001", "--format", "xml", "-o", "x"), "'xml' is not one of 'json', 'csv'."),
    ],
)
def test_a_wrong_option_is_told_of_in_plain_words(run: Run, arguments: tuple[str, ...], told: str):
    done = run(*arguments)
    assert done.code == 2
    assert told in done.told
    assert "Value error" not in done.told
    assert "%Y" not in done.told


def test_an_option_that_is_a_day_is_called_so(run: Run):
    assert "%Y" not in run("consent", "grant", "--help").said
    assert "--expires DATE" in run("consent", "grant", "--help").said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("subject", "rectify", "p-000001"), "--set DATASET.FIELD=VALUE"),
        (("subject", "lift", "p-000001"), "`datavern subject standing SUBJECT`"),
        (("seal", "people.nothing"), "no field is called nothing; there are: "),
        (("seal", "nothing.name"), "nothing"),
        (("unseal", "users'; DROP TABLE users; --"), "DATASET.FIELD"),
        (("audit", "verify", "--since", "datavern.toml"), "checkpoint datavern.toml: not a checkpoint: expected what"),
    ],
)
def test_a_mistake_is_told_of_with_what_to_do(run: Run, project: Path, arguments: tuple[str, ...], told: str):
    done = run(*arguments)
    assert done.code == 1
    assert told in done.told
    assert "--yes" not in done.told


def test_a_consent_that_no_write_asks_for_is_told_of(run: Run, project: Path):
    done = run("consent", "grant", "p-000001", "newsleter")
    assert done.code == 0
    assert "No dataset of the data map is used for newsleter" in done.said
    purpose = run("consent", "list", "p-000001", "--json").json[0]["purpose"]
    assert "No dataset" not in run("consent", "grant", f"p-{PEOPLE:06d}", purpose).said


def test_an_export_says_what_is_not_in_it(run: Run, project: Path):
    assert run("consent", "grant", "p-000001", "newsletter").code == 0
    assert "not sealed yet, and not in it: 1 (" in run("audit", "export", "--output", "one.jsonl").said
    assert run("audit", "seal", "--output", "newest.txt").code == 0
    assert "not sealed" not in run("audit", "export", "--output", "two.jsonl").said


def test_a_file_that_is_no_configuration(run: Run, tmp_path: Path):
    (tmp_path / "bytes.toml").write_bytes(b"\xd4\x00\xff")
    assert "bytes.toml: not valid TOML: it is not text in UTF-8" in run("check", "-c", "bytes.toml").told
    (tmp_path / "empty.toml").write_text("")
    assert "[databases.main]" in run("check", "-c", "empty.toml").told


def test_one_is_wrong(run: Run, project: Path):
    config = project / "datavern.toml"
    config.write_text(
        config.read_text(encoding="utf-8").replace("[datasets.people", "[datasets.peeple"), encoding="utf-8"
    )
    assert " is wrong." in run("check").said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a Linux device")
def test_a_full_disk_is_an_error_and_no_traceback(project: Path):
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123  (a device)
        done = subprocess.run(
            [sys.executable, "-m", "datavern", "check", "--json"],
            cwd=project, stdout=full, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, encoding="utf-8", check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "error: no space left on device" in done.stderr.lower()
    assert "Traceback" not in done.stderr
