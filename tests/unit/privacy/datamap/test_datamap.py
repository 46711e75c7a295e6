"""The data map: what it takes, and what it refuses, by name and path."""

import pickle

import pytest

from datavern.contracts.errors import CapabilityMissing, ConfigurationError
from datavern.contracts.values import Classification
from datavern.privacy.datamap.datamap import DataMap
from datavern.privacy.datamap.dataset import Dataset, Field, classification_of


def users(**changes):
    settings = {
        "database": "main",
        "subject": "id",
        "purposes": ["customer-account"],
        "erasure": "anonymize",
        "fields": {
            "personal_number": Field(sealed=True, lookup=True, kind="fodselsnummer"),
            "name": Field(sealed=True),
            "email": Field(sealed=True, lookup=True),
        },
    }
    return Dataset("users", **{**settings, **changes})


def test_indexes_of_parts_are_written_in_toml_too():
    fields = {"name": {"sealed": True, "kind": "name", "prefixes": [6, 3, 3], "ngrams": 3}}
    given = {"database": "m", "subject": "id", "fields": fields}
    users = DataMap.from_mapping({"users": given})["users"]
    assert users.fields["name"].prefixes == (3, 6)
    assert users.indexes == dict.fromkeys(("name_prefix3", "name_prefix6", "name_ngrams"), "name")
    fields["name"]["prefixes"] = [99]
    with pytest.raises(ConfigurationError, match=r"users\.fields\.name.*prefixes"):
        DataMap.from_mapping({"users": given})


def test_the_map_of_the_usage_page():
    data_map = DataMap(
        [
            users(classification="CONFIDENTIAL"),
            Dataset(
                "invoices",
                database="main",
                subject="user_id",
                erasure="retain",
                retention="5y",
                legal_basis="bokføringsloven § 13",
            ),
            Dataset("sessions", database="cache", key="user:session:{subject}", erasure="delete"),
            Dataset("cases", database="documents", subject="owner.id", erasure="delete"),
        ]
    )
    assert [d.name for d in data_map] == ["users", "invoices", "sessions", "cases"]
    dataset = data_map["users"]
    assert dataset.sealed == ("personal_number", "name", "email")
    assert dataset.lookups == {"personal_number": "personal_number_lookup", "email": "email_lookup"}
    assert dataset.table == "users"
    assert dataset.keys == ("id",)
    assert dataset.label == "main.users"
    assert dataset.needs_consent
    assert dataset.needs_keys
    assert not data_map["invoices"].needs_consent
    assert not data_map["invoices"].needs_keys
    assert pickle.loads(pickle.dumps(dataset)) == dataset


def test_what_nobody_classified_stays_in_norway():
    assert Dataset("users", database="main", subject="id").classification is Classification.CONFIDENTIAL


def test_the_same_map_from_toml():
    tables = {
        "users": {
            "database": "main",
            "subject": "id",
            "purposes": ["customer-account"],
            "erasure": "anonymize",
            "fields": {
                "personal_number": {"sealed": True, "lookup": True, "kind": "fodselsnummer"},
                "name": {"sealed": True},
                "email": {"sealed": True, "lookup": True},
            },
        }
    }
    assert DataMap.from_mapping(tables) == DataMap([users()])


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"subjekt": "id"}, "datasets.users.subjekt", "did you mean subject?"),
        ({"fields": {"email": {"seeled": True}}}, "datasets.users.fields.email.seeled", "did you mean sealed?"),
        ({"fields": {"email": {"sealed": "perhaps"}}}, "datasets.users.fields.email.sealed", "boolean"),
        ({"fields": {"email": True}}, "datasets.users.fields.email", "expected a table"),
        ({"fields": ["email"]}, "datasets.users.fields", "expected a table"),
        ({"fields": {"email": {"lookup": True}}}, "datasets.users.fields.email", "set sealed = true"),
        ({"erasure": "anonymise"}, "datasets.users.erasure", "anonymize"),
        ({"retention": "five years"}, "datasets.users.retention", "5y"),
        ({"purposes": "one"}, "datasets.users.purposes", "sequence"),
        ({"name": "users"}, "datasets.users.name", "leave it out"),
        ({"subject": None}, "datasets.users.subject", "missing"),
        ({"classification": "STRENGT HEMMELIG"}, "datasets.users", "STRENGT HEMMELIG"),
    ],
)
def test_toml_is_refused_with_its_path(changes, path, says):
    table = {"database": "main", "subject": "id", **changes}
    with pytest.raises(ConfigurationError) as refused:
        DataMap.from_mapping({"users": table})
    message = str(refused.value)
    assert message.startswith(path)
    assert message.count("datasets.users") == 1
    assert says.lower() in message.lower()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"subject": None}, "which column says whose row it is"),
        ({"key": "a:{subject}"}, "give one of them"),
        ({"subject": None, "key": "a:id"}, "{subject}"),
        ({"fields": {"id": Field(sealed=True)}}, "subject column cannot be sealed"),
        ({"subject": "owner", "fields": {"id": Field(sealed=True)}}, "primary key cannot be sealed"),
        ({"fields": {"datavern_row": Field()}}, "Datavern keeps a column of its own"),
        ({"fields": {"a": Field(sealed=True, lookup=True), "a_lookup": Field()}}, "column of its own"),
        ({"fields": {"": Field()}}, "empty"),
        ({"fields": {"a": {"sealed": True}}}, "expected Field"),
        ({"erasure": "retain", "legal_basis": "lov"}, "retention: missing"),
        ({"erasure": "retain", "retention": "5y"}, "legal_basis: missing"),
        ({"retention_from": "paid"}, "retention: missing"),
        ({"retention_from_year_end": True}, "retention: missing"),
        ({"retention": "0d"}, "5y"),
        ({"retention": "5y", "retention_from": "on", "fields": {"on": Field(sealed=True)}}, "retention_from"),
        ({"erasure": "burn"}, "expected one of"),
        ({"erasure": "shred", "fields": {}}, "no field here is sealed"),
        ({"purposes": "customer-account"}, 'purposes=["customer-account"]'),
        ({"purposes": ["a", "a"]}, "each of them once"),
        ({"primary_key": []}, "primary_key"),
        ({"classification": "STRENGT HEMMELIG"}, "out of scope"),
        ({"classification": "strengt_hemmelig"}, "out of scope"),
        ({"classification": "BEGRENSET"}, "RESTRICTED"),
        ({"classification": "PRIVATE"}, "OPEN, RESTRICTED, CONFIDENTIAL, SECRET"),
        ({"database": " "}, "database"),
        ({"store": "a\0b"}, "store"),
        ({"personal": False}, "about nobody"),
        ({"personal": False, "subject": None}, "nobody can consent"),
        ({"subject_via": "users"}, "expected dataset.column"),
    ],
)
def test_contradictions_are_refused(changes, says):
    with pytest.raises(ConfigurationError, match=r".") as refused:
        users(**changes)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lookup": True}, "lookup is for sealed"),
        ({"sealed": True, "unique": True}, "lookup index"),
        ({"sealed": True, "type": "integer"}, "not sealed"),
        ({"sealed": True, "kind": "fnr"}, "there are: email, fodselsnummer"),
    ],
)
def test_a_field_that_contradicts_itself(settings, says):
    with pytest.raises(ConfigurationError, match=says):
        Field(**settings)


def test_one_name_and_one_table_each():
    with pytest.raises(ConfigurationError, match="two datasets of that name"):
        DataMap([users(), users(store="others")])
    with pytest.raises(ConfigurationError, match="one table has one policy"):
        DataMap([users(), Dataset("people", database="main", store="users", subject="id")])
    assert len(DataMap([users(), Dataset("people", database="other", store="users", subject="id")])) == 2


@pytest.mark.parametrize("settings", [{"name": "datavern.users"}, {"name": "users", "store": "datavern_users"}])
def test_names_of_datavern_are_its_own(settings):
    with pytest.raises(ConfigurationError, match="Datavern's own"):
        DataMap([Dataset(**settings, database="main", subject="id")])


def test_an_unknown_dataset_names_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean users"):
        DataMap([users()])["user"]
    with pytest.raises(ConfigurationError, match="there are: none"):
        DataMap([])["users"]


def test_subject_via_leads_to_a_field_that_can_be_searched():
    cases = Dataset("cases", database="main", subject="number", subject_via="users.personal_number")
    data_map = DataMap([users(), cases])
    assert data_map.via(cases) == (data_map["users"], "personal_number")
    assert data_map.via(data_map["users"]) is None
    with pytest.raises(ConfigurationError, match="phone is no field"):
        DataMap([users(), Dataset("cases", database="main", subject="n", subject_via="users.phone")])
    with pytest.raises(ConfigurationError, match="sealed without lookup"):
        DataMap([users(), Dataset("cases", database="main", subject="n", subject_via="users.name")])
    with pytest.raises(ConfigurationError, match="no dataset people"):
        DataMap([users(), Dataset("cases", database="main", subject="n", subject_via="people.id")])
    secrets = Dataset("secrets", database="main", personal=False, fields={"value": Field(sealed=True)})
    with pytest.raises(ConfigurationError, match="about nobody"):
        DataMap([secrets, Dataset("cases", database="main", subject="n", subject_via="secrets.id")])


def test_databases_are_there_and_can_hold_it():
    with pytest.raises(ConfigurationError, match=r"datasets\.users\.database: no database is named main; there are: a"):
        DataMap([users()]).check_databases({"a": None})
    keys = DataMap([Dataset("sessions", database="main", key="s:{subject}")])
    with pytest.raises(CapabilityMissing, match=r"datasets\.sessions"):
        keys.check_databases({"main": None})


def test_gdpr_asks_for_a_legal_basis():
    assert DataMap([users()]).without_basis("main") == []
    without = DataMap([users(purposes=[])])
    (problem,) = without.without_basis("main")
    assert problem.startswith("datasets.users: compliance gdpr asks for purposes")
    assert without.without_basis("other") == []


def test_classifications_by_any_spelling():
    assert classification_of("confidential") is Classification.CONFIDENTIAL
    assert classification_of(Classification.OPEN) is Classification.OPEN


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"source": " "}, "datasets.users.source: expected where it comes from"),
        ({"source": ["NAV", "NAV"]}, "datasets.users.source: expected names, each of them once"),
        ({"automated_decisions": ""}, "automated_decisions: expected text"),
        ({"fields": {"name": {"source": ""}}}, 'source says where it comes from: "Folkeregisteret", or "person"'),
    ],
)
def test_what_people_are_told_is_said_in_words(wrong, says):
    with pytest.raises(ConfigurationError, match=says):
        DataMap.from_mapping({"users": {"database": "main", "subject": "id", **wrong}})


def test_sources_are_a_text_or_several_and_a_field_s_own():
    written = {"database": "main", "subject": "id", "source": "Folkeregisteret", "fields": {"name": {"source": "NAV"}}}
    users = DataMap.from_mapping({"users": written})["users"]
    assert users.sources == {"": ("Folkeregisteret",), "name": ("NAV",)}
    assert Dataset("users", database="main", subject="id").sources == {}
