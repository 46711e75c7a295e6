"""Which region identifier lies where. A location is evidence, not a label: what is not known here is `global`.

EEA = EU 27 + Iceland, Liechtenstein, Norway. Sources: the regions as Microsoft, Amazon and Google publish them. Some
lie outside the EEA although their names suggest otherwise (``azure:uksouth``, ``azure:switzerlandnorth``,
``aws:eu-west-2`` in London, ``aws:eu-central-2`` in Zürich, ``gcp:europe-west2`` and ``gcp:europe-west6``): they are
not in the table, and so are global.
"""

from __future__ import annotations

from datavern.contracts.values import Location

__all__ = ["COUNTRIES", "REGIONS", "locate"]

_NORWAY = {"azure": "norwayeast norwaywest"}
_EEA = {
    "azure": (
        "northeurope westeurope swedencentral swedensouth denmarkeast francecentral francesouth germanywestcentral "
        "germanynorth italynorth polandcentral spaincentral austriaeast belgiumcentral"
    ),
    "aws": "eu-north-1 eu-west-1 eu-west-3 eu-central-1 eu-south-1 eu-south-2 eusc-de-east-1",
    "gcp": (
        "europe-north1 europe-north2 europe-west1 europe-west3 europe-west4 europe-west8 europe-west9 europe-west10 "
        "europe-west12 europe-southwest1 europe-central2"
    ),
}

REGIONS: dict[str, Location] = {
    f"{cloud}:{region}": location
    for location, table in ((Location.NORWAY, _NORWAY), (Location.EU, _EEA))
    for cloud, regions in table.items()
    for region in regions.split()
}
"""Every region identifier that is inside the EEA, and where it is."""

COUNTRIES: dict[str, str] = {
    **dict.fromkeys(("azure:uksouth", "azure:ukwest", "aws:eu-west-2", "gcp:europe-west2"), "United Kingdom"),
    **dict.fromkeys(
        ("azure:switzerlandnorth", "azure:switzerlandwest", "aws:eu-central-2", "gcp:europe-west6"), "Switzerland"
    ),
}
"""The third country of the regions whose names may be taken for the EEA's (GDPR Arts. 44-49)."""


def locate(region: str) -> Location:
    """Where a region lies: ``azure:norwayeast`` is in norway; an identifier that is not known is `global`.

    Upper and lower case are the same, as they are to the clouds.
    """
    return REGIONS.get(region.strip().lower(), Location.GLOBAL)
