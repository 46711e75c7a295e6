"""What Azure's DNS says of where a server is. The names are those of Microsoft's documentation."""

from __future__ import annotations

import asyncio
import socket

import pytest

from datavern import AzureSQLProvider, ResidencyViolation
from datavern.engines.azuresql.whereabouts import region_of


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("cr2.eastus1-a.control.database.windows.net", "azure:eastus1"),  # global, with or without its number
        ("cr4.westeurope1-a.control.database.windows.net", "azure:westeurope"),
        ("cr1.norwayeast1-a.control.database.windows.net.", "azure:norwayeast"),
        ("e299ae56f000.tr1830.swedencentral1-a.worker.database.windows.net", "azure:swedencentral"),
        ("westus2-a.control.database.windows.net", "azure:westus2"),
        ("CR1.AustriaEast1-A.control.database.windows.net", "azure:austriaeast"),
        ("dataslice2.norwayeast.database.windows.net", "azure:norwayeast"),
        ("name.database.windows.net", None),
        ("name.privatelink.database.windows.net.example", None),
        ("", None),
    ],
)
def test_the_region_that_a_gateways_name_tells(name, region):
    assert region_of(name) == region


def provider(**settings):
    return AzureSQLProvider(
        name="main", host="Kommune.database.windows.net", database="app", username="app", password="x", **settings
    )


async def test_a_server_that_azure_says_is_elsewhere_is_refused(monkeypatch):
    async def answers(host, port, **_):
        name = "cr4.northeurope1-a.control.database.windows.net"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, name, ("192.0.2.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answers)
    main = provider(region="azure:norwayeast")
    with pytest.raises(ResidencyViolation, match=r"main: kommune\.database\.windows\.net says .* azure:northeurope"):
        await main.connect()
    (said,) = await main.capabilities.whereabouts.said()
    assert (said.where, said.source) == ("azure:northeurope", "DNS")
    assert await main.capabilities.whereabouts.followers() == []


async def test_no_answer_is_no_word(monkeypatch):
    async def fails(host, port, **_):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fails)
    assert await provider(location="norway").capabilities.whereabouts.said() == []
    here = AzureSQLProvider(name="main", host="127.0.0.1", database="app", username="app", password="x")
    assert await here.capabilities.whereabouts.said() == []
