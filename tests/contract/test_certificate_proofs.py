"""A certificate's entries in the sealed log: proven, verified offline with the public key, and not to be changed."""

import copy
import json
from pathlib import Path

import pytest

from datavern import Dataset, Field, Identity, LogTampered, SubjectRequest
from datavern.audit import offline
from datavern.audit.offline import NotValid, verify_certificate
from datavern.testing import create_test_database

NAME = "Planted Name"


def dataset(name, database="main"):
    return Dataset(name, database=database, subject="who", fields={"name": Field(sealed=True)})


@pytest.fixture
async def elsewhere(engine):
    async with create_test_database(engine) as database:
        yield database


def verifier(db):
    return (Path(db._keyring.removeprefix("file:")) / "verifier.txt").read_text()


async def test_the_proofs_come_with_the_certificate_once_the_logs_are_sealed(
    managed, database, elsewhere, tmp_path, capsys
):
    databases = {"main": database.provider(location="norway"), "other": elsewhere.provider("other", location="norway")}
    async with managed(dataset("visits"), dataset("logins", "other"), databases=databases) as db:
        for name in ("visits", "logins"):
            await db.prepare(name)
            await db.personal(name).insert_many([{"id": w, "who": w, "name": NAME} for w in ("u1", "u2")])
        request = SubjectRequest("erasure", subject="u1", identity=Identity("bankid"))
        bare = (await db.subject_requests.process(request)).certificate
        assert (await db.subject_requests.certificate(request.id)).proofs == ()
        await db.audit.seal()
        await db.subject_requests.process(SubjectRequest("access", subject="u2"))
        await db.audit.seal()
        proven = await db.subject_requests.certificate(request.id)
        assert (proven.body, proven.signature) == (bare.body, bare.signature)
        assert len(proven.proofs) == len(bare.body["stores"]) + 1
        text, key = proven.to_json(), verifier(db)
        checked, unchecked = verify_certificate(text, key)
        assert len(checked) == len(proven.proofs) + 1
        assert not any("no proof is in the file" in line for line in unchecked)
        assert any("whether others saw the same log" in line for line in unchecked)
        assert verify_certificate(proven.to_html(), key)[0] == checked
        page = proven.to_html("en")
        assert all(proof["entry"]["entry_id"] in page for proof in proven.proofs)
        assert proven.to_pdf().startswith(b"%PDF-")
        # The standalone verifier says the same.
        (tmp_path / "c.json").write_text(text)
        (tmp_path / "v.txt").write_text(key)
        assert offline.main([str(tmp_path / "c.json"), "--verifier", str(tmp_path / "v.txt")]) == 0
        said = capsys.readouterr().out
        assert said.count("VALID: ") == len(checked)
        assert "NOT CHECKED: whether the databases" in said
        # Anything that is changed in a proof, and a proof of another entry, is found.
        other = json.loads((await db.audit.prove((await _entries(db, "access_request"))[0])).to_json())
        for change in (
            lambda whole: whole["proofs"][0]["entry"].update(details="{}"),
            lambda whole: whole["proofs"][0].update(position=0),
            lambda whole: whole["proofs"][0].update(path=[]),
            lambda whole: whole["proofs"].append(other),
            lambda whole: whole["certificate"]["stores"][0].update(found=0),
        ):
            changed = copy.deepcopy(json.loads(text))
            change(changed)
            with pytest.raises(NotValid):
                verify_certificate(json.dumps(changed), key)


async def _entries(db, action):
    found = await db["main"].query("SELECT * FROM datavern_audit")
    return [row["entry_id"] for row in found if row["action"] == action]


async def test_within_a_checkpoint_that_was_kept_it_is_the_log_that_others_saw(managed):
    async with managed(dataset("visits")) as db:
        await db.prepare("visits")
        await db.personal("visits").insert({"id": "1", "who": "u1", "name": NAME})
        request = SubjectRequest("erasure", subject="u1")
        await db.subject_requests.process(request)
        await db.audit.seal()
        await db.audit.record("later")
        kept = (await db.audit.seal()).note
        proven = await db.subject_requests.certificate(request.id, within=kept)
        checked, unchecked = verify_certificate(proven.to_json(), verifier(db), kept)
        assert all("the checkpoint that was kept" in line for line in checked[1:])
        assert not any("whether others saw the same log" in line for line in unchecked)
        early = await db.subject_requests.certificate(request.id)
        with pytest.raises(NotValid, match="ask for the proof in that one"):
            verify_certificate(early.to_json(), verifier(db), kept)


async def test_a_log_that_was_changed_gives_no_proof(managed):
    async with managed(dataset("visits")) as db:
        await db.prepare("visits")
        await db.personal("visits").insert({"id": "1", "who": "u1", "name": NAME})
        request = SubjectRequest("erasure", subject="u1")
        await db.subject_requests.process(request)
        await db.audit.seal()
        await db["main"].execute("UPDATE datavern_audit SET actor = 'nobody' WHERE action = 'erased'")
        with pytest.raises(LogTampered):
            await db.subject_requests.certificate(request.id)


async def test_the_shredded_statement_verifies_offline_too(managed, monkeypatch):
    from datavern.crypto import remembered

    monkeypatch.setattr(remembered, "FRESH", 0.05)  # nobody else is there who would have to hear of it
    async with managed(dataset("visits")) as db:
        await db.prepare("visits")
        await db.personal("visits").insert_many([{"id": w, "who": w, "name": NAME} for w in ("u1", "u2")])
        await db.subject_requests.process(SubjectRequest("erasure", subject="u1"))
        await db.keys.rotate()
        statement = await db.subject_requests.shredded("u1")
        for text in (statement.to_json(), statement.to_html("nb"), statement.to_html("en")):
            checked, unchecked = verify_certificate(text, verifier(db))
            assert checked[0].endswith("signed exactly this, as shredded")
            assert "the old epoch key is gone" in checked[1]
            assert any("every copy of the epoch key" in line for line in unchecked)
        assert statement.to_pdf("nb").startswith(b"%PDF-")
        changed = json.loads(statement.to_json())
        changed["certificate"]["since"] = "2020-01-01T00:00:00Z"
        with pytest.raises(NotValid, match="no key of the verifier"):
            verify_certificate(json.dumps(changed), verifier(db))
