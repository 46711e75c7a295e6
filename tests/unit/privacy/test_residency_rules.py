"""Which data may be where: the rules, the regions, and the check of a whole map."""

from dataclasses import dataclass

import pytest

from datavern.contracts.errors import ConfigurationError, ResidencyViolation
from datavern.contracts.values import Location
from datavern.privacy.datamap import DataMap
from datavern.privacy.dataset import Dataset, Field
from datavern.privacy.residency import Residency, locate

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
