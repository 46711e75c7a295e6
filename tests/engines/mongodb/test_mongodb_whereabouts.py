"""A member that joins from further away than the settings say: nothing more goes to the set."""

from __future__ import annotations

import asyncio

import pytest
from pymongo import monitoring
from pymongo.errors import InvalidOperation
from pymongo.hello import Hello
from pymongo.server_description import ServerDescription

from datavern import ResidencyViolation
from datavern.contracts.values import Location
from datavern.engines.mongodb.whereabouts import Newcomers

SET = {"ok": 1, "setName": "rs0", "secondary": True, "maxWireVersion": 21, "hosts": ["db1:27017", "db3:27017"]}


def joins(tags: dict[str, str], address: tuple[str, int] = ("db3", 27017)) -> monitoring.ServerDescriptionChangedEvent:
    """What PyMongo tells of a member that it has just found: its own description, from an answer to hello."""
    described = ServerDescription(address, Hello({**SET, "tags": tags}))
    return monitoring.ServerDescriptionChangedEvent(ServerDescription(address), described, address, object())


@pytest.mark.parametrize(
    ("tags", "elsewhere"),
    [
        ({"region": "azure:norwaywest"}, False),
        ({"dc": "osl"}, False),
        ({}, False),
        ({"region": "azure:northeurope"}, True),
        ({"provider": "AWS", "region": "EU_WEST_2"}, True),
        ({"region": "azure:atlantis"}, True),
    ],
)
def test_each_newcomer_is_looked_at(tags, elsewhere):
    heard = []
    Newcomers(Location.NORWAY, heard.append).description_changed(joins(tags))
    assert [line.startswith("the member db3:27017 says that it is in ") for line in heard] == [True] * elsewhere


async def test_nothing_more_goes_to_a_set_that_a_member_joined_from_elsewhere(mongo, logged):
    documents = mongo.collection("cases")
    await documents.insert_one({"_id": 1})
    assert await mongo.capabilities.whereabouts.said() == []
    assert await mongo.capabilities.whereabouts.followers() == []
    listeners = mongo.client._event_listeners
    for event in (joins({"region": "azure:northeurope"}), joins({"region": "aws:eu-west-2"})):
        listeners.publish_server_description_changed(
            event.previous_description, event.new_description, event.server_address, event.topology_id
        )
    says = r"the member db3:27017 says that it is in azure:northeurope \(eu\), and the settings say norway"
    with pytest.raises(ResidencyViolation, match=says):
        mongo.collection("cases")
    with pytest.raises(ResidencyViolation, match=says):
        await mongo.connect()
    with pytest.raises(ResidencyViolation, match=says):
        await mongo.insert_document("cases", {"a": 1}, classification="OPEN")
    assert (await mongo.health()).status == "unhealthy"
    assert "azure:northeurope" in logged.getvalue()
    await mongo._closing
    with pytest.raises(InvalidOperation):  # a collection that was at hand is of a client that is closed
        await documents.find_one({})
    await mongo.close()
    await mongo.connect()  # opened anew, when the member is gone
    assert await mongo.collection("cases").find_one({}) == {"_id": 1}


async def test_closing_waits_for_what_was_being_closed(mongo):
    mongo._joined_elsewhere("db3 is elsewhere")
    await asyncio.gather(mongo.close(), mongo.close())
    assert (await mongo.health()).status == "unhealthy"
    await mongo.connect()
    assert (await mongo.health()).status == "healthy"
