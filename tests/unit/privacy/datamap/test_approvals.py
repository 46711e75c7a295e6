"""What a data map says of how far its data may travel."""

from __future__ import annotations

import datetime as dt

import pytest

from datavern import ConfigurationError, DataMap, Dataset
from datavern.privacy.datamap.approvals import Approval, Safeguard


def reports(**more):
    return Dataset("reports", database="main", subject="id", classification="RESTRICTED", **more)


def test_an_approval_is_a_reference_or_says_more():
    assert reports(graded=True).approval is None
    assert reports(graded=True, approval="NSM 26/0815").approval == Approval("NSM 26/0815")
    whole = Approval("26/0815", "NSM", dt.date(2027, 6, 30))
    assert reports(graded=True, approval=whole).approval is whole
    assert str(whole) == "26/0815, by NSM, until 2027-06-30"
    assert str(Approval("26/0815")) == "26/0815, by NSM"


def test_the_last_day_of_an_approval_counts():
    approval = Approval("26/0815", expires=dt.date(2027, 6, 30))
    assert approval.holds(dt.date(2027, 6, 30))
    assert not approval.holds(dt.date(2027, 7, 1))
    assert Approval("26/0815").holds(dt.date(2999, 1, 1))


def test_the_same_from_a_configuration_file():
    table = {"database": "main", "subject": "id", "classification": "RESTRICTED", "graded": True}
    approval = {"reference": "26/0815", "authority": "Nasjonal sikkerhetsmyndighet", "expires": dt.date(2027, 6, 30)}
    found = DataMap.from_mapping({"reports": {**table, "approval": approval}})["reports"]
    assert found.approval == Approval("26/0815", "Nasjonal sikkerhetsmyndighet", dt.date(2027, 6, 30))
    assert DataMap.from_mapping({"reports": {**table, "approval": "æøå'; DROP"}})["reports"].approval == Approval(
        "æøå'; DROP"
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"approval": "26/0815"}, r"datasets\.reports\.approval: is for graded information: set graded = true"),
        ({"graded": True, "classification": "OPEN"}, r"datasets\.reports\.graded: OPEN is ungraded"),
        ({"graded": True, "approval": ""}, r"datasets\.reports\.approval: an approval has a reference"),
        ({"graded": True, "approval": 7}, r"datasets\.reports\.approval: expected text, or a table"),
        (
            {"graded": True, "approval": {"reference": "x", "expire": dt.date(2027, 1, 1)}},
            r"datasets\.reports\.approval\.expire: unknown key; did you mean expires",
        ),
        (
            {"graded": True, "approval": "26/0815", "classification": "SECRET"},
            r"datasets\.reports\.approval: SECRET stays in Norway",
        ),
        ({"transfer": {"basis": "other"}}, r"datasets\.reports\.transfer: basis other says nothing by itself"),
        ({"transfer": {"basis": "hope"}}, r"datasets\.reports\.transfer\.basis: "),
    ],
)
def test_what_contradicts_itself_is_refused_by_its_path(settings, says):
    table = {"database": "main", "subject": "id", "classification": "RESTRICTED", **settings}
    with pytest.raises(ConfigurationError, match=says):
        DataMap.from_mapping({"reports": table})


def test_a_safeguard_is_a_basis_a_text_or_says_more():
    assert reports(transfer="SCC").transfer == Safeguard("scc")
    assert str(reports(transfer="adequacy").transfer) == "an adequacy decision, GDPR Art. 45"
    assert reports(transfer="letter of 2026-11-01").transfer == Safeguard("other", "letter of 2026-11-01")
    table = {"database": "main", "subject": "id", "transfer": {"basis": "scc", "country": "Storbritannia"}}
    assert DataMap.from_mapping({"a": table})["a"].transfer == Safeguard("scc", country="Storbritannia")
