"""Fixtures for pytest, there as soon as Datavern is installed (``docs/testing.md``).

Nothing is started, and nothing heavy is imported, before a test asks for it. A test that the published contract suite
reports as not offered is counted by itself, with the engine's reason, and not among the skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from datavern.privacy.datamap.datamap import DataMap
    from datavern.testing.databases import EmptyDatabase
    from datavern.testing.people import Person
    from datavern.testing.postgresql import PostgreSQLServer

__all__ = [
    "datavern_data_map",
    "datavern_database",
    "datavern_engine",
    "datavern_keyring",
    "datavern_people",
    "datavern_postgresql",
]

pytest.register_assert_rewrite("datavern.testing.contract")

_NOT_OFFERED: Final = "not offered: "
_ASYNCIO: Final = ("asyncio", "pytest_asyncio.plugin")  # the names that pytest-asyncio goes by


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--datavern-engine``, and ``datavern_engine`` in pytest's settings, for the fixture of that name."""
    text = "the engine that the fixture datavern_database makes its databases on: sqlite (as it is now) or postgresql"
    parser.getgroup("datavern").addoption("--datavern-engine", default=None, help=text)
    parser.addini("datavern_engine", text, default="sqlite")


def pytest_configure(config: pytest.Config) -> None:
    """Take in the fixtures that are open when a test gets them, or those that say what they need."""
    if any(config.pluginmanager.hasplugin(name) for name in _ASYNCIO):
        from datavern.testing import plugin_asyncio  # noqa: PLC0415  (its own plugin is loaded by now)

        config.pluginmanager.register(plugin_asyncio, "datavern-asyncio")
    else:
        from datavern.testing import plugin_without_asyncio  # noqa: PLC0415  (the other one)

        config.pluginmanager.register(plugin_without_asyncio, "datavern-without-asyncio")


# ---- databases ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def datavern_postgresql() -> PostgreSQLServer:
    """The process's PostgreSQL server: the one that ``DATAVERN_TEST_POSTGRESQL`` names, or an ephemeral one."""
    from datavern.testing.postgresql import shared_server  # noqa: PLC0415  (see the module's docstring)

    return shared_server()


@pytest.fixture
def datavern_engine(request: pytest.FixtureRequest) -> str:
    """Which engine: ``--datavern-engine``, or the setting, or SQLite. Override it, or parametrise a test with it."""
    return str(request.config.getoption("--datavern-engine") or request.config.getini("datavern_engine"))


@pytest.fixture
def datavern_database(datavern_engine: str) -> Iterator[EmptyDatabase]:
    """A database that nobody else uses, on the chosen engine; gone after the test.

    It belongs to no event loop: ``async with datavern_database.provider() as provider: …``.
    """
    from datavern.testing.databases import create_test_database  # noqa: PLC0415  (see the module's docstring)

    made = create_test_database(datavern_engine)
    database = _run(made.__aenter__())
    try:
        yield database
    finally:
        _run(made.__aexit__(None, None, None))


@pytest.fixture
def datavern_keyring(tmp_path: Path) -> str:
    """The URL of a new key ring, in the test's temporary folder."""
    from datavern.crypto.keyring import Keyring  # noqa: PLC0415  (see the module's docstring)

    async def make(url: str) -> str:
        ring = await Keyring.create(url)
        await ring.close()
        return url

    url: str = _run(make(f"file:{tmp_path / 'datavern-keys'}"))
    return url


@pytest.fixture
def datavern_data_map() -> DataMap | None:
    """The data map of `datavern_manager`: none. Override it with yours."""
    return None


@pytest.fixture(scope="session")
def datavern_people() -> Callable[..., list[Person]]:
    """Synthetic people: ``datavern_people(10)`` are ten, ``datavern_people(10, seed=2)`` ten others."""
    from datavern.testing.people import people  # noqa: PLC0415  (see the module's docstring)

    def make(count: int, seed: int = 1) -> list[Person]:
        return list(people(count, seed))

    return make


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it to its end in a thread of its own: whatever loop the test has, or has not, is left alone."""
    import asyncio  # noqa: PLC0415  (see the module's docstring)
    import threading  # noqa: PLC0415  (see the module's docstring)

    result: list[Any] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            result.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001  (raised again where it is awaited)
            failed.append(error)

    thread = threading.Thread(target=body, name="datavern-fixture")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return result[0]


# ---- what is not offered --------------------------------------------------------------------------------------------


def pytest_report_teststatus(report: pytest.CollectReport | pytest.TestReport) -> tuple[str, str, str] | None:
    """Count what an engine does not offer by itself."""
    return ("not offered", "n", "NOT OFFERED") if _reason(report) is not None else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not offered, and why, once for each reason."""
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("not offered", ()):
        reason = _reason(report)
        if reason is not None:
            reasons[reason] = reasons.get(reason, 0) + 1
    if reasons:
        terminalreporter.section("not offered")
        for reason, count in reasons.items():
            terminalreporter.write_line(f"{reason} ({count} test{'s' if count > 1 else ''})")


def _reason(report: Any) -> str | None:
    """Why the test of a report was not offered; None when it is another's."""
    if not getattr(report, "skipped", False) or not isinstance(report.longrepr, tuple):
        return None
    said = str(report.longrepr[2]).removeprefix("Skipped: ")
    return said.removeprefix(_NOT_OFFERED) if said.startswith(_NOT_OFFERED) else None
