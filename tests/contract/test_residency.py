"""Residency on every engine: checked before anything is connected."""

import datetime as dt

import pytest

from datavern import ConfigurationError, Dataset, FailoverGroup, Field, ResidencyViolation
from datavern.privacy.datamap.approvals import Approval
from datavern.privacy.residency import residency
from datavern.privacy.residency.places import Place

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


# ---- every place that can be reached --------------------------------------------------------------------------------


async def test_who_stands_in_counts(managed, database):
    primary = database.provider(region="azure:norwayeast")
    standby = database.provider("standby", region="azure:swedencentral")
    group = FailoverGroup("main", primary=primary, secondaries=[standby])
    manager = managed(Dataset("users", database="main", subject="id", fields=SEALED), databases={"main": group})
    with pytest.raises(ResidencyViolation, match=r"eu \(standby, which stands in for main, azure:swedencentral\)"):
        await manager.open()
    assert (await standby.health()).status == "unhealthy"


@pytest.mark.parametrize("kind", ["logs", "backups", "keyring", "key copies", "answers", "replica"])
async def test_what_is_named_beside_the_databases_counts(managed, kind):
    elsewhere = Place("elsewhere", kind, region="azure:uksouth", of="main" if kind == "replica" else "")
    manager = managed(Dataset("users", database="main", subject="id", fields=SEALED), places=[elsewhere])
    with pytest.raises(
        ResidencyViolation, match=r"stored in global \(.*elsewhere.*, azure:uksouth, a region that is not"
    ):
        await manager.open()


async def test_where_this_program_runs_is_where_its_files_are(managed):
    users = Dataset("users", database="main", subject="id", fields=SEALED)
    with pytest.raises(ResidencyViolation, match="the key ring, file, azure:westeurope"):
        await managed(users, region="azure:westeurope").open()
    async with managed(users, region="azure:norwaywest") as db:
        verdicts = {(v.place.kind, v.place.name): v.allowed for v in db.residency.picture()}
    assert verdicts == {
        ("database", "main"): True,
        ("ledger", "main"): True,
        ("keyring", "file"): True,
        ("key copies", "beside the keys"): True,
    }
    (unknown,) = {v.allowed for v in managed(users).residency.picture() if v.place.kind == "keyring"}
    assert unknown is None  # nobody said


async def test_places_that_name_nothing_are_refused(managed):
    users = Dataset("users", database="main", subject="id")
    with pytest.raises(ConfigurationError, match=r"places\.x\.database: no database is named elsewhere"):
        managed(users, places=[Place("x", "replica", location="norway", of="elsewhere")])
    with pytest.raises(ConfigurationError, match=r"places\.x\.datasets: no dataset is named people"):
        managed(users, places=[Place("x", "backups", location="norway", datasets={"people"})])
    with pytest.raises(ConfigurationError, match="location contradicts region"):
        managed(users, location="norway", region="azure:uksouth")


async def test_an_approval_that_ends_while_the_program_runs(managed, database, monkeypatch):
    approval = Approval("26/0815", expires=dt.date(2099, 12, 31))
    reports = Dataset(
        "reports", database="main", subject="id", classification="RESTRICTED", graded=True, approval=approval
    )
    place = database.provider(region="azure:swedencentral")
    async with managed(reports, databases={"main": place}) as db:
        await db.prepare("reports")
        await db.personal("reports").insert({"id": "a"})
        monkeypatch.setattr(residency, "today", lambda: dt.date(2100, 1, 1))
        with pytest.raises(ResidencyViolation, match=r"the approval 26/0815, by NSM, until 2099-12-31 has ended"):
            db.personal("reports")
        with pytest.raises(ResidencyViolation, match="has ended"):
            db.residency.move("reports", "eu")
    with pytest.raises(ResidencyViolation, match="has ended"):
        await managed(reports, databases={"main": database.provider(region="azure:swedencentral")}).open()


async def test_a_move_is_asked_about_again(db):
    db.residency.move("users", "azure:norwaywest")
    with pytest.raises(
        ResidencyViolation, match=r"datasets\.users: Data classified as CONFIDENTIAL cannot be stored in"
    ):
        db.residency.move("users", "eu")
    with pytest.raises(ResidencyViolation, match=r"stored in \?: .*where is this\?"):
        db.residency.move("users", Place("somewhere", "transfers"))
    with pytest.raises(ConfigurationError, match="no dataset is named user"):
        db.residency.move("user", "norway")
