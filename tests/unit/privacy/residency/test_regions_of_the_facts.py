"""Every region identifier that the facts name, and where it is: none more, none less."""

from __future__ import annotations

import pytest

from datavern.contracts.regions import COUNTRIES, REGIONS, locate

NORWAY = ["azure:norwayeast", "azure:norwaywest"]
AZURE = """
    northeurope westeurope swedencentral swedensouth denmarkeast francecentral francesouth germanywestcentral
    germanynorth italynorth polandcentral spaincentral austriaeast belgiumcentral
"""
AWS = "eu-north-1 eu-west-1 eu-west-3 eu-central-1 eu-south-1 eu-south-2 eusc-de-east-1"
GCP = """
    europe-north1 europe-north2 europe-west1 europe-west3 europe-west4 europe-west8 europe-west9 europe-west10
    europe-west12 europe-southwest1 europe-central2
"""
EEA = [f"{cloud}:{name}" for cloud, names in (("azure", AZURE), ("aws", AWS), ("gcp", GCP)) for name in names.split()]
BEYOND = [
    "azure:uksouth", "azure:ukwest", "azure:switzerlandnorth", "azure:switzerlandwest",
    "aws:eu-west-2", "aws:eu-central-2", "gcp:europe-west2", "gcp:europe-west6",
]  # fmt: skip


@pytest.mark.parametrize("region", NORWAY)
def test_in_norway(region):
    assert locate(region) == locate(region.upper()) == "norway"


@pytest.mark.parametrize("region", EEA)
def test_in_the_eea(region):
    assert locate(region) == locate(f" {region.title()} ") == "eu"


@pytest.mark.parametrize("region", BEYOND)
def test_beyond_it_though_the_name_suggests_otherwise(region):
    assert locate(region) == "global"
    assert COUNTRIES[region] in {"United Kingdom", "Switzerland"}


def test_nothing_else_is_known():
    assert set(REGIONS) == {*NORWAY, *EEA}
    assert set(COUNTRIES) == set(BEYOND)


@pytest.mark.parametrize(
    "region",
    ["", "norwayeast", "azure:", "aws:norwayeast", "azure:norwayeast2", "azure: norwayeast", "ovh:no", "nørge"],
)
def test_what_is_not_known_is_global(region):
    assert locate(region) == "global"
