import json

import pytest

from datavern.audit.checkpoint import Checkpoint
from datavern.audit.entry import COLUMNS, canonical
from datavern.audit.merkle import EMPTY, Frontier, Span, leaf_hash
from datavern.audit.proof import Proof
from datavern.audit.report import Problem, Report
from datavern.contracts.errors import AuditError, ConfigurationError, LogTampered
from datavern.crypto.signing import Signer

SIGNER = Signer("datavern/test", b"\7" * 32)
STRANGER = Signer("datavern/test", b"\6" * 32)
AT = "2026-11-23T02:40:00.000000Z"


def checkpoint(origin="datavern/test/main", size=0, root=EMPTY, signer=SIGNER):
    return Checkpoint.sign(signer, origin=origin, size=size, root=root, at=AT)


def test_a_checkpoint_is_a_c2sp_note():
    made = checkpoint()
    assert made.note.startswith(
        f"datavern/test/main\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\ntime {AT}\n\n\N{EM DASH} datavern/test "
    )
    assert Checkpoint.read(made.note) == made
    assert made.verified([STRANGER.verifier, SIGNER.verifier], origin="datavern/test/main") == made


def test_files(tmp_path):
    several = Checkpoint.read("\n".join(checkpoint(f"datavern/test/{n}").note for n in ("a", "b", "c")))
    assert [c.origin for c in (several, *several.others)] == [f"datavern/test/{n}" for n in ("a", "b", "c")]
    several.save(tmp_path / "checkpoint")
    assert Checkpoint.load(tmp_path / "checkpoint") == several
    checkpoint().save(tmp_path / "one")
    assert Checkpoint.load(tmp_path / "one") == checkpoint()
    (tmp_path / "one").write_bytes(b"\xff\xfe")
    with pytest.raises(LogTampered, match="not a checkpoint"):
        Checkpoint.load(tmp_path / "one")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "origin\n1\nAAAA\n\n\N{EM DASH} datavern/test AAAA\n",
        "origin\n01\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\N{EM DASH} datavern/test AAAA\n",
        "origin\n-1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\N{EM DASH} datavern/test AAAA\n",
        "origin\nx\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\N{EM DASH} datavern/test AAAA\n",
        "origin\n1\n!!!!\n\n\N{EM DASH} datavern/test AAAA\n",
        "origin\n\n\N{EM DASH} datavern/test AAAA\n",
        checkpoint().note + "more",
        checkpoint().note.replace("\n\n", "\n"),
    ],
)
def test_what_is_no_checkpoint(text):
    with pytest.raises(LogTampered, match="not a checkpoint") as caught:
        Checkpoint.read(text)
    assert caught.value.__context__ is None


def test_other_extension_lines_are_left_alone():
    note = SIGNER.sign_note("origin\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\nsomething else\n")
    assert Checkpoint.read(note).verified([SIGNER.verifier]).at == ""


def test_a_checkpoint_that_is_not_as_it_was_signed():
    made = checkpoint()
    with pytest.raises(LogTampered, match="no trusted key"):
        made.verified([STRANGER.verifier])
    with pytest.raises(LogTampered, match="another log"):
        made.verified([SIGNER.verifier], origin="datavern/test/other")
    with pytest.raises(LogTampered, match="does not fit"):
        Checkpoint.read(made.note.replace("\n0\n", "\n1\n")).verified([SIGNER.verifier])
    lying = Checkpoint(made.origin, 5, made.root, made.at, made.note)
    with pytest.raises(LogTampered, match="not what its note says"):
        lying.verified([SIGNER.verifier])


ROWS = [(n, f"id-{n}", 1, 0, AT, "did", None, None, "users", '{"n":1}') for n in range(7)]


def proof(position=3):
    leaves = [leaf_hash(canonical(row)) for row in ROWS]
    whole = checkpoint(size=7, root=Frontier().extend(leaves).root())
    path = Span(Frontier(), leaves).inclusion(position)
    return Proof(dict(zip(COLUMNS, ROWS[position], strict=True)), position, tuple(path), whole)


def test_a_proof_verifies_and_travels():
    for position in range(7):
        made = proof(position)
        again = Proof.from_json(made.to_json())
        assert again == made
        assert again.verify(SIGNER.verifier) == made.checkpoint
        assert again.verify([STRANGER.verifier, SIGNER.verifier]) == made.checkpoint
    with pytest.raises(LogTampered, match="no trusted key"):
        proof().verify(STRANGER.verifier)
    with pytest.raises(ConfigurationError):
        proof().verify("no key")


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("value", [None, "other", 99, b"bytes"])
def test_a_changed_proof_does_not_verify(name, value):
    made = proof()
    if made.entry[name] == value:
        return
    wrong = Proof({**made.entry, name: value}, made.position, made.path, made.checkpoint)
    with pytest.raises(LogTampered) as caught:
        wrong.verify(SIGNER.verifier)
    assert caught.value.position == 3


def test_other_changes_to_a_proof():
    made = proof()
    less = {k: v for k, v in made.entry.items() if k != "actor"}
    for wrong in (
        Proof(made.entry, 4, made.path, made.checkpoint),
        Proof(made.entry, -1, made.path, made.checkpoint),
        Proof(made.entry, 3, made.path[1:], made.checkpoint),
        Proof(made.entry, 3, made.path, checkpoint(size=7, root=EMPTY)),
        Proof(less, 3, made.path, made.checkpoint),
        Proof({**made.entry, "more": 1}, 3, made.path, made.checkpoint),
    ):
        with pytest.raises(LogTampered):
            wrong.verify(SIGNER.verifier)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.clear(),
        lambda p: p.update(format="other"),
        lambda p: p.update(version=2),
        lambda p: p.update(entry=[1]),
        lambda p: p.update(position="3"),
        lambda p: p.update(position=True),
        lambda p: p.update(path=["!"]),
        lambda p: p.update(path=5),
        lambda p: p.update(checkpoint=5),
        lambda p: p.pop("checkpoint"),
    ],
)
def test_json_that_is_no_proof(change):
    whole = json.loads(proof().to_json())
    change(whole)
    with pytest.raises(AuditError, match="proof") as caught:
        Proof.from_json(json.dumps(whole))
    assert caught.value.__context__ is None


@pytest.mark.parametrize("text", ["", "[]", "5", "[" * 100_000])
def test_text_that_is_no_proof(text):
    with pytest.raises(AuditError, match="not a proof"):
        Proof.from_json(text)


def test_reports_read_well():
    problems = (Problem(None, None, "differs"), Problem(3, "id", "changed"), Problem(5, None, "removed", 4, "main"))
    report = Report(False, 10, problems, 0, False, None)
    assert [str(p) for p in problems] == ["the log: differs", "entry 3: changed", "main: entries 5 to 8: removed"]
    with pytest.raises(LogTampered, match="the log: differs"):
        report.check()
    fine = Report(True, 10, (), 0, False, None)
    assert fine.check() is fine
