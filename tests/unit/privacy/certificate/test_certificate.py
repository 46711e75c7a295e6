"""Certificates: signed, verified offline, read by people; a changed one does not verify."""

import copy
import json

import pytest

from datavern.contracts.errors import ConfigurationError, PrivacyError
from datavern.crypto.signing import Signer
from datavern.privacy.certificate.certificate import Certificate, canonical

CONTENTS = {
    "organisation": "Eksempel kommune",
    "request": "r1",
    "subject": "test-user",
    "received": "2026-11-23",
    "identity": {"method": "bankid", "verified_by": "case-worker-7", "at": "2026-11-23T01:00:00Z"},
    "recipients": {"main.users": ["Skatteetaten"]},
    "completed": "2026-11-23T02:39:51.123456Z",
    "stores": [
        {
            "dataset": "main.users",
            "found": 1,
            "done": {"anonymized": 1},
            "kept": [],
            "left": ["created_at"],
            "notes": [],
        },
        {
            "dataset": "main.invoices",
            "found": 2,
            "done": {},
            "kept": [{"rows": 2, "why": "bokføringsloven § 13", "until": "2030-12-31"}],
            "left": [],
            "notes": [],
        },
    ],
    "keys": [{"id": "00ff", "dataset": "users", "at": "2026-11-23T02:39:51.123456Z"}],
    "audit": "e1",
    "claims": ["a"],
    "limits": ["b"],
}


def signer(seed=7):
    return Signer("datavern/test", bytes([seed]) * 32)


def test_it_verifies_offline_and_after_a_round_trip():
    key = signer()
    certificate = Certificate.issue(key, "erased", CONTENTS)
    read = Certificate.from_json(certificate.to_json())
    assert read == certificate
    assert read.verify(key.verifier)
    assert read.body["statement"] == "erased"
    assert not read.verify(signer(8).verifier)
    with pytest.raises(ConfigurationError):
        read.verify("no key")


def test_reformatted_json_verifies_and_changed_json_does_not():
    key = signer()
    text = Certificate.issue(key, "erased", CONTENTS).to_json()
    assert Certificate.from_json(json.dumps(json.loads(text), sort_keys=True, indent=1)).verify(key.verifier)
    for path in (
        ["subject"],
        ["stores", 0, "found"],
        ["stores", 1, "kept", 0, "until"],
        ["keys", 0, "id"],
        ["version"],
    ):
        changed = copy.deepcopy(json.loads(text))
        place = changed["certificate"]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = 2 if path == ["version"] else "other"
        if path == ["version"]:
            with pytest.raises(PrivacyError, match="another version"):
                Certificate.from_json(json.dumps(changed))
        else:
            assert not Certificate.from_json(json.dumps(changed)).verify(key.verifier)
    added = json.loads(text)
    added["certificate"]["more"] = 1.5
    assert not Certificate.from_json(json.dumps(added)).verify(key.verifier)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"certificate": []}',
        '{"certificate": {}, "signature": {"key": "a", "value": "!"}}',
        '{"certificate": {"format": "x"}, "signature": {"key": "a", "value": ""}}',
    ],
)
def test_what_is_no_certificate(text):
    with pytest.raises(PrivacyError, match="not a certificate"):
        Certificate.from_json(text)


def test_people_can_read_it():
    text = str(Certificate.issue(signer(), "erased", CONTENTS))
    for part in (
        "Eksempel kommune",
        "test-user",
        "main.users: 1 row found",
        "bankid (case-worker-7)",
        "of main.users: Skatteetaten",
        "anonymized: 1",
        "columns left as they were: created_at",
        "kept: 2, bokføringsloven § 13, until 2030-12-31",
        "1 key destroyed",
        "What it does not state",
        "datavern/test",
    ):
        assert part in text


def test_the_canonical_form():
    assert canonical({"b": [1, None, True], "a": "æ"}) == '{"a":"æ","b":[1,null,true]}'.encode()
    for wrong in ({"a": 1.5}, {"a": b""}, {1: "a"}):
        with pytest.raises(TypeError):
            canonical(wrong)
