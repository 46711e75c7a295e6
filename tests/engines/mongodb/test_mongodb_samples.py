"""What lies in the collections, a sample of it, and the personal data in it."""

from __future__ import annotations

from typing import Any

from datavern import DataMap, Dataset
from datavern.contracts.capabilities import needs
from datavern.privacy.scanning.scanner import scan
from datavern.testing.people import people


async def test_documents_in_documents(mongo: Any) -> None:
    cases = mongo.collection("cases")
    await cases.insert_many(
        [
            {"n": n, "owner": {"c1": p.personal_number}, "who": [{"mail": p.email}, {"mail": None}], "raw": b"\x00"}
            for n, p in enumerate(people(50))
        ]
    )
    samples = needs(mongo, "samples")
    assert await samples.stores() == ["cases"]
    assert sorted((await samples.sample("cases", 500))["n"]) == list(range(50))
    found = await scan({"documents": mongo}, None)
    assert {(f.column, f.seems.kind) for f in found.findings} == {
        ("owner.c1", "fodselsnummer"), ("who.mail", "email"),
    }  # fmt: skip
    named = DataMap([Dataset("cases", database="documents", subject="owner.c1", erasure="delete")])
    assert {f.column for f in (await scan({"documents": mongo}, named)).findings} == {"who.mail"}


async def test_nothing_there(mongo: Any) -> None:
    assert await needs(mongo, "samples").stores() == []
    assert await needs(mongo, "samples").sample("nothing", 10) == {}
