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


def exported(entries, size):
    """A log of those entries, and its checkpoint, signed with the right key."""
    tree = offline.Tree()
    for entry in entries[:size]:
        tree.append(offline.leaf_of(entry))
    note = Checkpoint.sign(SIGNER, origin=ORIGIN, size=size, root=tree.root(), at="2026-11-23T02:41:00Z").note
    return [*entries[:size], {"origin": ORIGIN, "checkpoint": note}], note


def test_a_history_that_the_right_key_signed_anew_is_not_the_one_that_was_kept():
    entries = EXPORT[:-1]
    forged = [{**entry, "actor": "somebody else"} if entry["position"] == 1 else entry for entry in entries]
    kept = exported(entries, 3)[1]
    offline.verify_export(map(json.dumps, exported(entries, 5)[0]), SIGNER.verifier, kept)
    lines = list(map(json.dumps, exported(forged, 5)[0]))
    assert offline.verify_export(iter(lines), SIGNER.verifier)  # without one that was kept nobody sees it
    with pytest.raises(NotValid, match="the first 3 entries are not those"):
        offline.verify_export(iter(lines), SIGNER.verifier, kept)
    with pytest.raises(NotValid, match="was set back"):
        offline.verify_export(map(json.dumps, exported(entries, 2)[0]), SIGNER.verifier, kept)


def test_what_stands_for_removed_entries_is_what_was_signed():
    nodes = [b"\2" * 32, b"\3" * 32]
    root = offline.base64.b64encode(offline.Tree(3, nodes).root()).decode()
    note = SIGNER.sign_note(f"{ORIGIN}\ntruncated\n3\n{root}\ntime 2026-11-23T02:41:00.000000Z\n")
    for other in (nodes[::-1], [b"\2" * 32, b"\4" * 32]):
        frontier = [offline.base64.b64encode(node).decode() for node in other]
        end = Checkpoint.sign(SIGNER, origin=ORIGIN, size=3, root=offline.Tree(3, other).root(), at="x").note
        lines = [{"origin": ORIGIN, "truncated": 3, "frontier": frontier, "note": note}]
        lines.append({"origin": ORIGIN, "checkpoint": end})
        with pytest.raises(NotValid, match="is not what was signed"):
            offline.verify_export(map(json.dumps, lines), SIGNER.verifier)


def test_a_path_is_as_long_as_its_tree_is_high():
    leaf, other = b"\2" * 32, b"\3" * 32
    assert offline.root_by_path(leaf, 0, 2, [other]) == offline.node(leaf, other)
    for size, path in ((2, []), (3, [other]), (8, [other]), (1, [other]), (2, [other, other])):
        with pytest.raises(NotValid, match="than its tree is high"):
            offline.root_by_path(leaf, 0, size, path)


def certificate(body, proofs=()):
    """Signed with the right key."""
    form = json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    signature = offline.base64.b64encode(SIGNER.sign(b"datavern-certificate\0\1" + form.encode())).decode()
    return json.dumps({"certificate": body, "signature": {"value": signature}, "proofs": list(proofs)})


def day(number):
    return f"2026-11-{number:02}T00:00:00+00:00"


@pytest.mark.parametrize(
    ("keys", "rotation", "since", "says"),
    [
        ([1], (2, 3, 4), 4, None),
        ([5], (2, 3, 4), 4, "contradicts itself"),  # a key that was destroyed after the rotation began
        ([1], (4, 3, 5), 5, "contradicts itself"),
        ([1], (2, 4, 3), 4, "contradicts itself"),
        ([1], (2, 3, 5), 4, "contradicts itself"),  # shredded before the old epoch key was gone
        ([1], None, 4, "names no rotation"),
    ],
)
def test_a_statement_of_shredding_keeps_its_order(keys, rotation, since, says):
    body = {
        "format": "datavern-certificate", "version": 1, "statement": "shredded", "since": day(since),
        "keys": [{"at": day(at)} for at in keys],
    }  # fmt: skip
    if rotation is not None:
        body["rotation"] = dict(zip(("started", "destroyed", "gone"), map(day, rotation), strict=True))
    if says is None:
        assert offline.verify_certificate(certificate(body), SIGNER.verifier)[0]
    else:
        with pytest.raises(NotValid, match=says):
            offline.verify_certificate(certificate(body), SIGNER.verifier)


def test_an_erasure_that_ended_before_its_keys_did_is_none():
    body = {"format": "datavern-certificate", "version": 1, "statement": "erased", "completed": day(2)}
    assert offline.verify_certificate(certificate({**body, "keys": [{"at": day(2)}]}), SIGNER.verifier)
    with pytest.raises(NotValid, match="after it was completed"):
        offline.verify_certificate(certificate({**body, "keys": [{"at": day(3)}]}), SIGNER.verifier)


def test_a_verifier_that_is_damaged_is_told_of():
    name, key_id, key = SIGNER.verifier.split("+", 2)
    other = "0" if key_id[0] != "0" else "1"
    with pytest.raises(NotValid, match="key id does not fit"):
        offline.verify_proof(json.dumps(PROOF), f"{name}+{other}{key_id[1:]}+{key}")


STORE = {"dataset": "people", "policy": "shred", "found": 2, "done": 2, "left": 0}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"store": {"done": 1, "left": 1}}, "says something else"),
        ({"store": {"policy": "retain"}}, "says something else"),
        ({"store": {"dataset": "others"}}, "another dataset"),
        ({"body": {"request": "another"}}, "says something else"),
        ({"entry": {"action": "read"}}, "of another entry"),
        ({"entry": {"entry_id": "0190a000-0000-7000-8000-000000000009"}}, "of another entry"),
    ],
)
def test_a_signed_certificate_says_what_the_log_says(changes, says):
    details = {name: STORE[name] for name in ("policy", "found", "done", "left")}
    said = json.dumps({"request": "r1", **details}, separators=(",", ":"))
    entry = {**VECTORS["entries"][0]["columns"], "action": "erased", "dataset": "people", "details": said}
    place = entry["entry_id"]
    entry |= changes.get("entry", {})
    note = exported([{"origin": ORIGIN, "position": 0, **entry}], 1)[1]
    proof = {
        "format": "datavern-audit-proof", "version": 1, "entry": entry, "position": 0, "path": [], "checkpoint": note
    }  # fmt: skip
    body = {
        "format": "datavern-certificate", "version": 1, "statement": "erased", "request": "r1",
        "completed": "2026-11-23T02:41:00+00:00", "keys": [],
        "stores": [{**STORE, "audit": place, **changes.get("store", {})}], **changes.get("body", {}),
    }  # fmt: skip
    text = certificate(body, [proof])
    if says is None:
        assert any("entry 0" in line for line in offline.verify_certificate(text, SIGNER.verifier)[0])
    else:
        with pytest.raises(NotValid, match=says):
            offline.verify_certificate(text, SIGNER.verifier)
