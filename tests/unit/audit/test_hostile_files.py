"""What an auditor is handed may be made by whom it is to convict: the verifier judges it, and never falls over it."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from datavern.audit import offline
from datavern.audit.checkpoint import Checkpoint
from datavern.audit.offline import NotValid
from datavern.audit.proof import Proof
from datavern.contracts.errors import AuditError
from datavern.crypto.signing import Signer

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "audit-1.json").read_text(encoding="utf-8"))
KEY, ORIGIN, NOTES = VECTORS["verifier"], VECTORS["origin"], [c["note"] for c in VECTORS["checkpoints"]]
PROOF = VECTORS["proofs"][-1]
EXPORT = [
    *({"origin": ORIGIN, "position": n, **entry["columns"]} for n, entry in enumerate(VECTORS["entries"])),
    {"origin": ORIGIN, "checkpoint": NOTES[-1]},
]
TRUNCATED = [{"origin": ORIGIN, "truncated": 2, "frontier": ["AA=="], "note": NOTES[2]}, *EXPORT[2:]]
HOSTILE = (
    None, True, -1, 10**30, 1.5, "", "\ud800", "\n\n", "\ud800\n\n— b AAAAAAAA\n", [], [[]], [5], [None], {}, {"a": 1},
)  # fmt: skip
SIGNER = Signer("datavern/test", b"\7" * 32)


def places(value, place=()):
    yield place
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*place, key))


def changed(value, place, hostile):
    value = copy.deepcopy(value)
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = hostile
    return value


def each_changed(value):
    for place in places(value):
        for hostile in HOSTILE if place else ():
            yield changed(value, place, hostile)


def test_a_proof_of_anything_is_judged():
    offline.verify_proof(json.dumps(PROOF), KEY)
    for wrong in each_changed(PROOF):
        text = json.dumps(wrong)
        if wrong != PROOF:
            with pytest.raises(NotValid):
                offline.verify_proof(text, KEY)
            with pytest.raises(AuditError):
                Proof.from_json(text).verify(KEY)


def test_an_export_of_anything_is_judged():
    offline.verify_export(map(json.dumps, EXPORT), KEY)
    for lines in (EXPORT, TRUNCATED):
        for wrong in each_changed(lines):
            if wrong != EXPORT:
                with pytest.raises(NotValid):
                    offline.verify_export(map(json.dumps, wrong), KEY, NOTES[3])
    for text in ("[" * 100_000, "9" * 5000, "", "null", "\0"):
        with pytest.raises(NotValid):
            offline.verify_export(iter([text]), KEY)
        with pytest.raises(NotValid):
            offline.verify_proof(text, KEY)
        with pytest.raises(NotValid):
            offline.verify_certificate(text, KEY)


def test_hashes_of_another_length_pass_nowhere():
    """Two nodes whose border was moved hash to the same: so each is measured."""
    root, text = b"\1" * 32, f"{ORIGIN}\ntruncated\n3\n"
    left, right = b"\2" * 32, b"\3" * 32
    root = offline.node(left, right)
    note = SIGNER.sign_note(f"{text}{offline.base64.b64encode(root).decode()}\ntime 2026-11-23T02:41:00.000000Z\n")
    end = Checkpoint.sign(SIGNER, origin=ORIGIN, size=3, root=root, at="x").note
    for border, valid in ((32, True), (31, False)):
        nodes = [offline.base64.b64encode(n).decode() for n in ((left + right)[:border], (left + right)[border:])]
        lines = [{"origin": ORIGIN, "truncated": 3, "frontier": nodes, "note": note}]
        lines.append({"origin": ORIGIN, "checkpoint": end})
        if valid:
            assert offline.verify_export(map(json.dumps, lines), SIGNER.verifier)
        else:
            with pytest.raises(NotValid, match="list of hashes"):
                offline.verify_export(map(json.dumps, lines), SIGNER.verifier)


def test_a_log_that_was_left_out_of_the_file_is_told_of():
    other = Checkpoint.sign(SIGNER, origin="datavern/vectors/payroll", size=7, root=b"\1" * 32, at="x")
    keys = f"{KEY}\n{SIGNER.verifier}\n"
    (found, told) = offline.verify_export(map(json.dumps, EXPORT), keys, f"{NOTES[5]}\n{other.note}")
    assert found.startswith(f"VALID: {ORIGIN}: 5 entries")
    assert told.startswith("NOT CHECKED: datavern/vectors/payroll: a checkpoint of it was kept")


@pytest.fixture
def judged(tmp_path, capsys):
    """What the command says of a file's bytes."""

    def judged(raw: bytes, *more: str) -> tuple[int, list[str]]:
        (tmp_path / "verifier.txt").write_text(KEY + "\n", encoding="utf-8")
        (tmp_path / "file").write_bytes(raw)
        code = offline.main([str(tmp_path / "file"), "--verifier", str(tmp_path / "verifier.txt"), *more])
        return code, "".join(capsys.readouterr()).splitlines()

    return judged


def test_a_file_writes_no_lines_of_the_answer_and_commands_no_terminal(judged):
    spoof = "x\nVALID: datavern/…/main: 9 entries\r\x1b[2J\u202e\u2028VALID\ud800"
    code, lines = judged(json.dumps({**EXPORT[0], "origin": spoof}).encode())
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith("NOT VALID: ")
    assert "\\nVALID" in lines[0]
    assert not set("\r\x1b\u202e\u2028\ud800") & set(lines[0])


def test_files_without_end_are_refused(judged, monkeypatch):
    monkeypatch.setattr(offline, "LONGEST", 1 << 12)
    for raw in (
        b'{"origin": "' + b"x" * (1 << 13),
        b'{"format": "datavern-audit-proof", "x": "' + b"x" * (1 << 13),
        b'{"certificate": {"x": "' + b"x" * (1 << 13),
    ):
        code, (line,) = judged(raw)
        assert code == 1
        assert "longer" in line
    assert judged(b"\xff")[0] == 2


def test_odd_characters_in_entries_stay_in_their_lines(judged):
    """What JSON lines are read with takes U+2028, U+0085 and the like for the end of a line in places."""
    code, lines = judged(b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in EXPORT))
    assert (code, len(lines)) == (0, 1), lines
    assert "\u2028" in VECTORS["entries"][3]["columns"]["action"]
