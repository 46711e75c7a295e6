"""Legal bases in the data map: as text, as a table, one for each purpose; and what is refused."""

import pickle

import pytest

from datavern import ConfigurationError, DataMap, Dataset, LegalBasis

PURPOSES = ["customer-account", "fraud-prevention", "newsletter"]
CONTRACT = LegalBasis("contract", "terms of sale § 2", purposes=["customer-account"])
INTEREST = LegalBasis("legitimate_interests", purposes=["fraud-prevention"], balancing="LIA-2026-04")


def customers(**changes):
    return Dataset("customers", **{"database": "main", "subject": "id", "purposes": PURPOSES, **changes})


def test_a_text_is_what_it_was():
    dataset = customers(legal_basis="bokføringsloven § 13")
    assert dataset.legal_basis == dataset.lawful_by == "bokføringsloven § 13"
    assert dataset.bases == (LegalBasis("stated", "bokføringsloven § 13"),)
    assert dataset.consent_purposes == ()
    assert not dataset.needs_consent


def test_without_a_basis_every_purpose_rests_on_consent():
    assert customers().consent_purposes == tuple(PURPOSES)
    assert customers().bases == ()
    assert customers().lawful_by == ""
    assert not customers(purposes=[]).needs_consent


def test_each_purpose_has_its_own():
    dataset = customers(legal_basis=[CONTRACT, INTEREST])
    assert dataset.basis_of("customer-account") is CONTRACT
    assert dataset.basis_of("fraud-prevention") is INTEREST
    assert dataset.basis_of("newsletter") is None
    assert dataset.consent_purposes == ("newsletter",)
    assert dataset.lawful_by == (
        "contract (GDPR Art. 6(1)(b)): terms of sale § 2; legitimate interests (GDPR Art. 6(1)(f))"
    )
    everything_else = LegalBasis("public_task", "kommuneloven § 1")
    dataset = customers(legal_basis=[CONTRACT, everything_else])
    assert dataset.basis_of("newsletter") is everything_else
    assert not dataset.needs_consent
    assert pickle.loads(pickle.dumps(dataset)) == dataset
    hash(dataset)


def test_consent_is_a_basis_like_the_others():
    dataset = customers(legal_basis=LegalBasis("consent", explicit=True, text_version="2026-02"))
    assert dataset.consent_purposes == tuple(PURPOSES)
    assert dataset.lawful_by == ""
    assert customers(require_consent="read").require_consent == "read"


def test_the_same_in_toml():
    table = {
        "database": "main",
        "subject": "id",
        "purposes": PURPOSES,
        "legal_basis": [
            {"kind": "contract", "reference": "terms of sale § 2", "purposes": ["customer-account"]},
            {"kind": "legitimate_interests", "purposes": ["fraud-prevention"], "balancing": "LIA-2026-04"},
        ],
    }
    assert DataMap.from_mapping({"customers": table})["customers"] == customers(legal_basis=[CONTRACT, INTEREST])
    table["legal_basis"] = {"kind": "public_task", "reference": "kommuneloven § 1"}
    task = DataMap.from_mapping({"customers": table})["customers"]
    assert task.legal_basis == (LegalBasis("public_task", "kommuneloven § 1"),)


@pytest.mark.parametrize(
    ("basis", "path", "says"),
    [
        ("  ", "legal_basis", "text"),
        (7, "legal_basis", "table"),
        ([], "legal_basis", "list"),
        ([7], "legal_basis", "table"),
        ({"kind": "contrakt"}, "legal_basis.kind", "public_task"),
        ({"kind": 7}, "legal_basis.kind", "legal_obligation"),
        ({"kind": "contract", "referense": "x"}, "legal_basis.referense", "did you mean reference?"),
        ({"kind": "legal_obligation"}, "legal_basis.reference", "which law"),
        ({"kind": "public_task", "reference": " "}, "legal_basis.reference", "Art. 6(3)"),
        ({"kind": "legitimate_interests"}, "legal_basis.balancing", "the note says why"),
        ({"kind": "contract", "balancing": "x"}, "legal_basis.balancing", "leave it out"),
        ({"kind": "contract", "marketing": True}, "legal_basis.marketing", "direct marketing"),
        ({"kind": "contract", "explicit": True}, "legal_basis.explicit", "for consent"),
        ({"kind": "contract", "text_version": "1"}, "legal_basis.explicit", "for consent"),
        ({"kind": "consent", "text_version": ""}, "legal_basis.text_version", "2026-02"),
        ({"kind": "contract", "purposes": ["billing"]}, "legal_basis.purposes", "is no purpose of the dataset"),
        ([{"kind": "contract"}, {"kind": "consent"}], "legal_basis.purposes", "each says what for"),
        ([CONTRACT, CONTRACT], "legal_basis.purposes", "two legal bases"),
    ],
)
def test_what_is_refused(basis, path, says):
    table = {"database": "main", "subject": "id", "purposes": PURPOSES, "legal_basis": basis}
    with pytest.raises(ConfigurationError) as refused:
        DataMap.from_mapping({"customers": table})
    message = str(refused.value)
    assert message.startswith(f"datasets.customers.{path}")
    assert message.count("customers") == 1
    assert says in message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"purposes": [], "legal_basis": LegalBasis("consent")}, "a consent is to a purpose"),
        ({"require_consent": "read", "legal_basis": "lov"}, "no purpose rests on consent"),
        ({"require_consent": "reads"}, '"write" or "read"'),
        ({"erasure": "retain", "retention": "5y", "legal_basis": LegalBasis("consent")}, "the law that asks for it"),
    ],
)
def test_contradictions(changes, says):
    with pytest.raises(ConfigurationError, match=says):
        customers(**changes)
