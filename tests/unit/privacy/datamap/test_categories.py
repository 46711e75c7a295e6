"""Categories of data: ordinary ones, special ones, crimes; and what lets the last two be used at all."""

import pytest

from datavern import ConfigurationError, DataMap, Dataset, Exemption, Field, LegalBasis
from datavern.privacy.datamap.categories import CATEGORIES, article_of, categories_of, without_exemption

HEALTH = {"diagnosis": Field(sealed=True, category="health"), "name": Field(sealed=True, kind="name")}
LAW = "helsepersonelloven § 39"
EXPLICIT = LegalBasis("consent", explicit=True)


def dataset(**more):
    return Dataset("journals", **{"database": "main", "subject": "who", "fields": HEALTH, **more})


def test_the_articles_of_the_categories():
    assert sorted(name for name in CATEGORIES if article_of(name) == 9) == [
        "belief", "biometric", "ethnicity", "genetic", "health", "politics", "sex_life", "sexual_orientation",
        "trade_union",
    ]  # fmt: skip
    assert [name for name in CATEGORIES if article_of(name) == 10] == ["criminal"]
    assert article_of("contact") is None


def test_fields_and_datasets_have_categories_and_kinds_tell_theirs():
    made = dataset(categories=["case"], fields={**HEALTH, "mail": Field(kind="email"), "plain": Field()})
    assert categories_of(made) == {"case": (), "health": ("diagnosis",), "identity": ("name",), "contact": ("mail",)}


def test_a_special_category_asks_for_more_than_a_legal_basis():
    bare = dataset(purposes=["care"], legal_basis="pasientjournalloven § 8")
    (problem,) = without_exemption(bare)
    assert problem.startswith("health: a special category of data (GDPR Art. 9)")
    assert without_exemption(dataset(exemption={"kind": "health_care", "reference": LAW})) == []
    assert without_exemption(dataset(exemption="legal_claims")) == []
    assert without_exemption(dataset(exemption=[Exemption("health_care", LAW), Exemption("legal_claims")])) == []
    assert without_exemption(dataset(purposes=["care"], legal_basis=EXPLICIT)) == []
    assert len(without_exemption(dataset(purposes=["care"], legal_basis=LegalBasis("consent")))) == 1
    both = [LegalBasis("consent", explicit=True, purposes=["care"]), LegalBasis("consent", purposes=["letters"])]
    assert len(without_exemption(dataset(purposes=["care", "letters"], legal_basis=both))) == 1
    assert without_exemption(dataset(fields={"name": Field(kind="name")})) == []


def test_crimes_have_an_article_of_their_own():
    crimes = {"sentence": Field(sealed=True, category="criminal")}
    (problem,) = without_exemption(dataset(fields=crimes, purposes=["care"], legal_basis=EXPLICIT))
    assert "GDPR Art. 10" in problem
    assert len(without_exemption(dataset(fields=crimes, exemption="legal_claims"))) == 1
    law = Exemption("allowed_by_law", "personopplysningsloven § 11")
    assert without_exemption(dataset(fields=crimes, exemption=law)) == []
    assert law.article == 10
    assert str(law) == "allowed by law (GDPR Art. 10): personopplysningsloven § 11"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"categories": ["helth"]}, "datasets.journals.categories: no such category of data; did you mean health?"),
        ({"categories": "health"}, 'categories is a list: categories=["health"]'),
        ({"exemption": "helth_care"}, "no such exemption of GDPR Art. 9(2) or 10; did you mean health_care?"),
        ({"exemption": "health_care"}, "health_care rests on law: name it"),
        ({"exemption": {"kind": "health_care", "law": LAW}}, "unknown key"),
        ({"exemption": 7}, "expected a kind of exemption"),
        ({"exemption": "legal_claims", "fields": {"name": Field(kind="name")}}, "nothing here is one"),
        ({"about": "patients"}, 'about is a list: about=["patients"]'),
        ({"recipients": ["a", "a"]}, "each of them once"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(changes, says):
    with pytest.raises(ConfigurationError) as refused:
        dataset(**changes)
    assert says in str(refused.value)


def test_a_misspelt_category_passes_for_no_ordinary_one():
    with pytest.raises(ConfigurationError, match="did you mean ethnicity"):
        Field(category="etnicity")


def test_toml_says_the_same():
    fields = {"diagnosis": {"sealed": True, "category": "health"}, "name": {"sealed": True, "kind": "name"}}
    given = {"database": "main", "subject": "who", "fields": fields, "about": ["patients"], "recipients": ["NAV"]}
    exemption = {"kind": "health_care", "reference": LAW}
    made = DataMap.from_mapping({"journals": {**given, "exemption": exemption}})["journals"]
    assert made == dataset(exemption=Exemption("health_care", LAW), about=["patients"], recipients=["NAV"])
    with pytest.raises(ConfigurationError, match=r"datasets.journals.exemption: .*did you mean legal_claims"):
        DataMap.from_mapping({"journals": {**given, "exemption": "legal_claim"}})
