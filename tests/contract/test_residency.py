"""Residency on every engine: checked before anything is connected."""

import pytest

from datavern import ConfigurationError, Dataset, Field, ResidencyViolation

SEALED = {"name": Field(sealed=True)}


async def test_the_rule_of_the_usage_page(db):
    db.residency.validate("CONFIDENTIAL", "norway")
    with pytest.raises(ResidencyViolation) as refused:
        db.residency.validate("CONFIDENTIAL", "eu")
    assert str(refused.value) == "Data classified as CONFIDENTIAL cannot be stored in eu"


async def test_a_dataset_where_it_may_not_be_is_refused_before_anything_is_connected(managed, database):
    place = database.provider(region="azure:swedencentral")
    manager = managed(Dataset("users", database="main", subject="id", fields=SEALED), databases={"main": place})
    with pytest.raises(ResidencyViolation) as refused:
        await manager.open()
    assert "datasets.users: Data classified as CONFIDENTIAL cannot be stored in eu" in str(refused.value)
    assert "azure:swedencentral" in str(refused.value)
    assert (await place.health()).status == "unhealthy"  # nobody connected it
    restricted = Dataset("users", database="main", subject="id", fields=SEALED, classification="RESTRICTED")
    async with managed(restricted, databases={"main": database.provider(region="azure:swedencentral")}) as db:
        await db.prepare("users")


async def test_the_ledger_counts_too(managed, database):
    databases = {"main": database.provider(location="norway"), "keys": database.provider("keys", location="global")}
    manager = managed(
        Dataset("users", database="main", subject="id", fields=SEALED), databases=databases, ledger="keys"
    )
    with pytest.raises(ResidencyViolation, match="ledger, database keys"):
        await manager.open()


async def test_a_database_without_a_place_is_anywhere(managed, database):
    manager = managed(Dataset("users", database="main", subject="id"), databases={"main": database.provider()})
    with pytest.raises(ResidencyViolation, match="cannot be stored in global"):
        await manager.open()


async def test_the_built_in_table_stays_in_norway(managed, database):
    settings = {"databases": {"main": database.provider(location="eu")}}
    async with managed(**settings) as db:
        consent = await db.consents.grant(subject="a", purpose="p")
        with pytest.raises(ResidencyViolation, match="CONFIDENTIAL cannot be stored in eu"):
            await db["main"].store_personal_data({"user_id": "a"}, consent)


def test_a_dataset_of_no_database(managed):
    with pytest.raises(ConfigurationError, match=r"datasets\.users\.database: no database is named elsewhere"):
        managed(Dataset("users", database="elsewhere", subject="id"))
