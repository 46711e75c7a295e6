"""What stands in a person's rows and is somebody else's: fields with an owner, lists of people, shared tables."""

import copy

import pytest

from datavern import ConfigurationError, DataMap, Dataset, Field
from datavern.privacy.requests.masking import Masking

DOCUMENT = {
    "_id": "c1",
    "title": "Shared",
    "members": [
        {
            "id": "u1",
            "name": "Own",
            "role": "owner",
            "notes": [{"by": "u1", "text": "mine"}, {"by": "u2", "text": "x"}],
        },
        {"id": 2, "name": "Other", "role": "guest", "notes": [{"by": "u2", "text": "y"}]},
        {"name": "Nobody's"},
        None,
    ],
    "watchers": ["u1", "u3"],
    "contact": {"id": "u2", "phone": "99999999", "address": {"city": "Bodø"}},
}


def masked(fields, row=DOCUMENT, subject="u1", whose="_id", others=()):
    dataset = Dataset("cases", database="main", subject=whose, erasure="anonymize", fields=fields)
    masking = Masking(dataset, [dataset, *others], subject)
    found = masking.masked(copy.deepcopy(row))
    return found, {(m.field, m.of): m.times for m in masking.report()}


def test_a_field_of_another_is_left_out_with_the_id_that_names_them():
    row = {"id": "1", "sender": "u1", "receiver": "u2", "receiver_name": "Other", "text": "to both"}
    fields = {"receiver_name": Field(of="receiver")}
    found, report = masked(fields, row, whose="sender")
    assert found == {"id": "1", "sender": "u1", "receiver": None, "receiver_name": None, "text": "to both"}
    assert report == {("receiver_name", "receiver"): 1, ("receiver", "receiver"): 1}
    to_oneself = {**row, "receiver": "u1"}
    assert masked(fields, to_oneself, whose="sender") == (to_oneself, {})
    unknown = {**row, "receiver": None}  # a name without an id is somebody's too
    assert masked(fields, unknown, whose="sender")[0]["receiver_name"] is None


@pytest.mark.parametrize("star", ["members.*.", "members."])
def test_elements_of_others_in_a_list(star):
    found, report = masked({f"{star}name": Field(of=f"{star}id")})
    assert [m and m["name"] for m in found["members"]] == ["Own", None, None, None]
    assert [m and m.get("id") for m in found["members"]] == ["u1", None, None, None]
    assert found["members"][1]["role"] == "guest"
    assert report == {(f"{star}name", f"{star}id"): 2, (f"{star}id", f"{star}id"): 1}


def test_whole_elements_lists_of_ids_and_lists_within_lists():
    found, report = masked(
        {
            "members.*": Field(of="members.*.id"),
            "watchers.*": Field(of="watchers.*"),
            "members.*.notes.*.text": Field(of="members.*.notes.*.by"),
        }
    )
    assert [m is None for m in found["members"]] == [False, True, True, True]
    assert found["watchers"] == ["u1", None]
    assert [n["text"] for n in found["members"][0]["notes"]] == ["mine", None]
    assert report[("members.*", "members.*.id")] == 2
    assert report[("watchers.*", "watchers.*")] == 1


def test_nested_fields():
    found, _ = masked({"contact.phone": Field(of="contact.id"), "contact.address": Field(of="contact.id")})
    assert found["contact"] == {"id": None, "phone": None, "address": None}
    found, report = masked({"contact.phone": Field(of="nothing"), "no.such": Field(of="contact.id")})
    assert found["contact"]["phone"] is None
    assert report[("contact.phone", "nothing")] == 1


def test_a_document_that_names_several_people_shows_the_one():
    found, report = masked({}, whose="members.id")
    assert found["members"] == [DOCUMENT["members"][0], None, None, None]
    assert report == {("members.*", "members.id"): 2}
    assert masked({}, whose="watchers")[0]["watchers"] == ["u1", None]
    assert masked({}, row={"members": {"id": "u1"}}, whose="members.id")[1] == {}


def test_two_datasets_over_one_table():
    sent = Dataset(
        "sent",
        database="main",
        store="messages",
        subject="sender",
        erasure="anonymize",
        fields={"text": Field(sealed=True, lookup=True)},
    )
    got = Dataset(
        "got", database="main", store="messages", subject="receiver", erasure="anonymize", fields={"alias": Field()}
    )
    row = {"id": "1", "sender": "u1", "text": "mine", "receiver": "u2", "alias": "Other"}
    masking = Masking(sent, [sent, got], "u1")
    assert masking.masked(dict(row)) == {**row, "receiver": None, "alias": None}
    received = {**row, "text": b"sealed", "text_lookup": b"index"}
    masking = Masking(got, [sent, got], "u2")
    assert masking.masked(dict(received)) == {"id": "1", "sender": None, "receiver": "u2", "alias": "Other"}
    assert {m.field for m in masking.report()} == {"text", "sender"}
    DataMap([sent, got])


def beside(**more):
    settings = {"store": "messages", "database": "main", "subject": "receiver", "erasure": "anonymize"}
    return Dataset("got", **{**settings, **more})


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (beside(subject="sender"), "has a subject column of its own"),
        (beside(erasure="delete"), "both need erasure = anonymize"),
        (beside(fields={"text": Field()}), "and text too: a field is one person's"),
        (beside(fields={"sender": Field()}), "and sender too"),
        (beside(fields={"alias": Field(sealed=True)}), "only one of them can have sealed fields"),
    ],
)
def test_datasets_over_one_table_that_would_not_leave_each_other_alone(other, says):
    sent = Dataset(
        "sent", database="main", store="messages", subject="sender", erasure="anonymize",
        fields={"text": Field(sealed=True)},
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match=says):
        DataMap([sent, other])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"fields": {"a": Field(sealed=True, of="receiver")}}, "a sealed field is under the key of the row's subject"),
        ({"fields": {"a": Field(of="receiver")}, "erasure": "delete"}, "takes the whole row"),
        ({"fields": {"a": Field(of="receiver", anonymize="null")}}, "leave anonymize out"),
    ],
)
def test_what_is_anothers_must_outlast_the_subject(settings, says):
    with pytest.raises(ConfigurationError, match=says):
        Dataset("sent", database="main", subject="sender", **{"erasure": "anonymize", **settings})
    Dataset("sent", database="main", subject="sender", fields={"a": Field(sealed=True, of="sender")})


@pytest.mark.parametrize("of", ["", ".", "a..b", 5])
def test_an_of_that_names_nothing(of):
    with pytest.raises(ConfigurationError, match="of names the column or path"):
        Field(of=of)
