"""Which data may be where: the rules, the regions, and the check of a whole map."""

import dataclasses
import datetime as dt
from dataclasses import dataclass

import pytest

from datavern.contracts.errors import ConfigurationError, ResidencyViolation
from datavern.contracts.values import Location
from datavern.privacy.datamap.approvals import Approval, Safeguard
from datavern.privacy.datamap.datamap import DataMap
from datavern.privacy.datamap.dataset import Dataset, Field
from datavern.privacy.residency.places import Place as PlaceOf
from datavern.privacy.residency.places import places_from_mapping
from datavern.privacy.residency.residency import Residency, locate

ALLOWED = {
    "OPEN": {"norway", "eu", "global"},
    "RESTRICTED": {"norway", "eu"},
    "CONFIDENTIAL": {"norway"},
    "SECRET": {"norway"},
}


@dataclass
class Place:
    location: Location
    region: str | None = None


@pytest.mark.parametrize("classification", ALLOWED)
@pytest.mark.parametrize("location", ["norway", "eu", "global"])
def test_every_combination(classification, location):
    residency = Residency()
    if location in ALLOWED[classification]:
        residency.validate(classification, location)
    else:
        with pytest.raises(ResidencyViolation) as refused:
            residency.validate(classification, location)
        assert str(refused.value) == f"Data classified as {classification} cannot be stored in {location}"


@pytest.mark.parametrize(
    ("region", "location"),
    [
        ("azure:norwayeast", "norway"),
        ("azure:NorwayWest", "norway"),
        ("azure:swedencentral", "eu"),
        ("azure:belgiumcentral", "eu"),
        ("aws:eusc-de-east-1", "eu"),
        ("aws:eu-north-1", "eu"),
        ("gcp:europe-west12", "eu"),
        ("gcp:europe-southwest1", "eu"),
        ("azure:uksouth", "global"),
        ("azure:switzerlandnorth", "global"),
        ("aws:eu-west-2", "global"),
        ("aws:eu-central-2", "global"),
        ("gcp:europe-west2", "global"),
        ("gcp:europe-west6", "global"),
        ("gcp:norwayeast", "global"),
        ("somewhere", "global"),
        ("", "global"),
    ],
)
def test_regions(region, location):
    assert locate(region) == location


def test_a_region_identifier_is_a_location_too():
    Residency().validate("CONFIDENTIAL", "azure:norwayeast")
    with pytest.raises(ResidencyViolation, match="Data classified as CONFIDENTIAL cannot be stored in azure:uksouth"):
        Residency().validate("CONFIDENTIAL", "azure:uksouth")
    with pytest.raises(ConfigurationError, match="norwya"):
        Residency().validate("OPEN", "norwya")


def test_a_location_prints_as_its_name():
    with pytest.raises(ResidencyViolation, match=r"cannot be stored in eu$"):
        Residency().validate("SECRET", Location.EU)


def test_a_classification_that_is_none():
    with pytest.raises(ConfigurationError, match="STRENGT HEMMELIG"):
        Residency().validate("STRENGT HEMMELIG", "norway")
    with pytest.raises(ConfigurationError, match="RESTRICTED"):
        Residency().validate("BEGRENSET", "norway")


def test_every_place_that_a_dataset_reaches():
    sealed = Dataset("users", database="main", subject="id", fields={"name": Field(sealed=True)})
    opened = Dataset("logins", database="copy", subject="id", classification="OPEN")
    data_map = DataMap([sealed, opened])
    norway = Place(Location.NORWAY)
    uk = Place(Location.GLOBAL, "azure:uksouth")
    check = Residency().check
    check(data_map, {"main": norway, "copy": uk, "keys": norway}, ledger="keys")
    with pytest.raises(ResidencyViolation) as refused:
        check(data_map, {"main": uk, "copy": uk, "keys": Place(Location.EU)}, ledger="keys")
    first, second = str(refused.value).splitlines()
    assert first.startswith("datasets.users: Data classified as CONFIDENTIAL cannot be stored in global (database main")
    assert "azure:uksouth" in first
    assert "ledger, database keys" in second
    with pytest.raises(ConfigurationError, match="no database is named copy"):
        check(data_map, {"main": norway}, ledger="main")


# ---- graded information ---------------------------------------------------------------------------------------------

TODAY = dt.date(2026, 11, 28)


def graded(classification="RESTRICTED", **more):
    return Dataset("reports", database="main", subject="id", classification=classification, graded=True, **more)


def moved(dataset, to):
    try:
        Residency(DataMap([dataset])).move("reports", to, on=TODAY)
    except ResidencyViolation as error:
        return str(error)
    return ""


@pytest.mark.parametrize("to", ["norway", "azure:norwayeast"])
@pytest.mark.parametrize("classification", ["RESTRICTED", "CONFIDENTIAL", "SECRET"])
def test_graded_information_may_be_in_norway(classification, to):
    assert moved(graded(classification), to) == ""


def test_graded_information_leaves_norway_with_an_approval_alone():
    told = moved(graded(), "azure:swedencentral")
    assert told.startswith("datasets.reports: Data classified as RESTRICTED cannot be stored in azure:swedencentral")
    assert "leaves Norway with an approval alone (virksomhetsikkerhetsforskriften § 51)" in told
    assert moved(graded(approval="26/0815"), "azure:swedencentral") == ""
    assert moved(graded(approval=Approval("26/0815", expires=TODAY)), "eu") == ""
    ended = moved(graded(approval=Approval("26/0815", expires=TODAY - dt.timedelta(days=1))), "eu")
    assert ended.endswith("the approval 26/0815, by NSM, until 2026-11-27 has ended")


@pytest.mark.parametrize("to", ["global", "azure:uksouth", "aws:us-east-1"])
def test_no_approval_brings_it_out_of_the_eea(to):
    assert "whoever approved what" in moved(graded(approval="26/0815"), to)


@pytest.mark.parametrize("to", ["eu", "global"])
@pytest.mark.parametrize("classification", ["CONFIDENTIAL", "SECRET"])
def test_confidential_and_secret_never_leave(classification, to):
    assert "no approval changes that" in moved(graded(classification), to)


# ---- every place ----------------------------------------------------------------------------------------------------


def pictured(dataset, *places):
    return {(v.place.kind, v.place.name): v.allowed for v in Residency(DataMap([dataset]), places).picture(on=TODAY)}


def test_the_whole_picture():
    users = Dataset("users", database="main", subject="id")
    places = [
        PlaceOf("main", "database", region="azure:norwayeast", of="main"),
        PlaceOf("standby", "failover", region="azure:swedencentral", of="main"),
        PlaceOf("reports", "replica", location="norway", of="main"),
        PlaceOf("other", "database", location="global", of="other"),
        PlaceOf("vault", "keyring"),
        PlaceOf("loki", "logs", region="aws:eu-west-2"),
        PlaceOf("archive", "backups", location="eu", datasets={"invoices"}),
        PlaceOf("file:/elsewhere", "checkpoints", location="global"),
    ]
    assert pictured(users, *places) == {
        ("database", "main"): True,
        ("failover", "standby"): False,
        ("replica", "reports"): True,
        ("keyring", "vault"): None,
        ("logs", "loki"): False,
        ("checkpoints", "file:/elsewhere"): True,  # the head of a tree is no data
    }
    lines = Residency(DataMap([users]), places).refused(on=TODAY)
    assert len(lines) == 2
    assert "standby, which stands in for main, azure:swedencentral" in lines[0]
    assert "the log sink loki, aws:eu-west-2, a region that is not known to be in the EEA" in lines[1]
    unsealed = Dataset("users", database="main", subject="id", classification="OPEN")
    assert set(pictured(unsealed, *places).values()) == {True}


def test_even_the_checkpoints_of_graded_information_stay():
    elsewhere = PlaceOf("objects", "checkpoints", location="eu")
    assert pictured(graded(), elsewhere) == {("checkpoints", "objects"): False}
    assert pictured(graded(approval="26/0815"), elsewhere) == {("checkpoints", "objects"): True}
    assert pictured(graded(approval="26/0815"), PlaceOf("vault", "keyring")) == {("keyring", "vault"): None}


def test_what_gets_out_of_the_eea_and_on_what_grounds():
    places = [
        PlaceOf("copy", "database", region="azure:uksouth", of="copy"),
        PlaceOf("loki", "logs", location="global"),
        PlaceOf("heads", "checkpoints", location="global"),
    ]
    logins = Dataset("logins", database="copy", subject="id", classification="OPEN", transfer="adequacy")
    codes = Dataset("codes", database="copy", personal=False, classification="OPEN")
    ratings = Dataset("ratings", database="copy", subject="id", classification="OPEN")
    found = Residency(DataMap([logins, codes, ratings]), places).transfers()
    assert [(t.dataset, t.place.name, t.country, t.safeguard) for t in found] == [
        ("logins", "copy", "United Kingdom", "an adequacy decision, GDPR Art. 45"),
        ("logins", "loki", None, "an adequacy decision, GDPR Art. 45"),
        ("ratings", "copy", "United Kingdom", None),
        ("ratings", "loki", None, None),
    ]
    named = Safeguard("scc", country="Canada")
    (canada,) = Residency(DataMap([dataclasses.replace(ratings, transfer=named)]), places[1:2]).transfers()
    assert canada.country == "Canada"


def test_places_of_a_configuration_file():
    found = places_from_mapping(
        {
            "logs": {"region": "azure:norwayeast"},
            "reports": {"kind": "replica", "database": "main", "location": "norway"},
            "archive": {"kind": "backups", "location": "eu", "datasets": ["logins"]},
        }
    )
    assert found == [
        PlaceOf("logs", "logs", region="azure:norwayeast"),
        PlaceOf("reports", "replica", location="norway", of="main"),
        PlaceOf("archive", "backups", location="eu", datasets={"logins"}),
    ]
    assert [place.evidence for place in found] == ["region identifier", "configured label", "configured label"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"kind": "log"}, r"datavern\.places\.x\.kind: "),
        ({"regoin": "azure:norwayeast"}, r"datavern\.places\.x\.regoin: unknown key; did you mean region"),
        ({"location": "norway", "region": "azure:uksouth"}, r"datavern\.places\.x: location contradicts region"),
        ({"kind": "replica", "location": "norway"}, r"datavern\.places\.x\.database: missing"),
        ({"location": "norwya"}, r"datavern\.places\.x\.location: "),
        ("azure:norwayeast", r"datavern\.places\.x: expected a table"),
        ({"name": "y"}, r"datavern\.places\.x: takes kind"),
    ],
)
def test_a_place_that_is_none(table, says):
    with pytest.raises(ConfigurationError, match=says):
        places_from_mapping({"x": table})
