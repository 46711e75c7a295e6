"""The published contract can fail: engines that break one promise each are found out, and told what is wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from datavern import ConfigurationError
from datavern.testing.contract import FEATURES, Speech, asks

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "shelf"
WORDS = {"integer": "i", "bigint": "i", "text": "t", "bytes": "b", "real": "r", "endless": "WAIT"}

BROKEN = '''
import asyncio
import secrets

import pytest
from boards import BoardError
from shelf import Savepoint, ShelfProvider, Transaction
from test_shelf import CancellationContract, EmptyDatabase, ErrorsContract, HealthContract, SessionContract
from test_shelf import StreamContract, SubjectsContract, TransactionsContract
from test_shelf import sql

from datavern import ConstraintViolated, DatabaseManager, Health


def broken(engine):
    """A fixture with an empty database of the broken engine."""
    engine.engine = engine.__name__.lower()
    DatabaseManager.register(engine.engine, engine)

    @pytest.fixture
    def database(self):
        return EmptyDatabase(engine.engine, {"shelf": secrets.token_hex(8)})

    return database


class Leaky(ShelfProvider):
    def apply(self, tables, statement, sets):
        try:
            return statement.run(tables, *sets)
        except BoardError as error:
            raise ConstraintViolated("refused", provider=self.name, code="UNIQUE", constraint="email") from error


class Forgetful(ShelfProvider):
    class Transaction(Transaction):
        async def __aexit__(self, *exc):
            await super().__aexit__(None, None, None)

    def transaction(self, **_):
        return self.Transaction(self, read_only=False)


class Miscounting(ShelfProvider):
    async def execute(self, *args, **options):
        await super().execute(*args, **options)
        return 1


class Swallowing(ShelfProvider):
    async def query(self, *args):
        try:
            return await super().query(*args)
        except asyncio.CancelledError:
            return []


class Cutting(ShelfProvider):
    async def execute(self, sql, parameters=(), **options):
        return await super().execute(sql, [v.split(chr(0))[0] if isinstance(v, str) else v for v in parameters])


class Cheerful(ShelfProvider):
    async def health(self):
        return Health("healthy", "primary", 0.1, version="1")


class Silent(ShelfProvider):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.capabilities.reasons.clear()


class Hasty(ShelfProvider):
    async def execute_many(self, sql, parameters):
        for one in parameters:
            await self.execute(sql, one)
        return len(parameters)


class TestLeaky(ErrorsContract):
    database = broken(Leaky)


class TestForgetful(TransactionsContract):
    database = broken(Forgetful)


class TestMiscounting(SessionContract):
    database = broken(Miscounting)


class TestSwallowing(CancellationContract):
    database = broken(Swallowing)


class TestCutting(ErrorsContract):
    database = broken(Cutting)


class TestCheerful(HealthContract):
    database = broken(Cheerful)


class TestSilent(SubjectsContract):
    database = broken(Silent)


class TestHasty(SessionContract):
    database = broken(Hasty)
'''
FOUND_OUT = {
    "TestLeaky::test_a_unique_value_appears_nowhere[alone]": "assert not ",
    "TestForgetful::test_a_transaction_rolls_back_when_an_exception_leaves_it": "assert {} == {'a': 100, 'b': 0}",
    "TestMiscounting::test_execute_tells_how_many_rows_were_changed": "assert 1 == 3",
    "TestSwallowing::test_a_cancelled_query_is_cancelled": "DID NOT RAISE CancelledError",
    "TestCutting::test_a_nul_in_text_is_refused": "DID NOT RAISE QueryRejected",
    "TestCheerful::test_health_tells_the_role_and_never_raises": "assert 'healthy' == 'unhealthy'",
    "TestSilent::test_nobody_means_every_row": "has no subjects, and capabilities.reasons does not say why",
    "TestHasty::test_execute_many_runs_every_set_or_none": "assert 55 == 53",
}


def test_an_engine_that_breaks_a_promise_is_found_out(tmp_path: Path):
    for name in ("boards.py", "shelf.py", "test_shelf.py"):
        shutil.copy(EXAMPLE / name, tmp_path)
    (tmp_path / "test_broken.py").write_text(BROKEN, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"
    )
    plugins = ["-p", "no:cacheprovider", "-p", "datavern.testing.plugin", "-p", "pytest_asyncio.plugin"]
    command = [sys.executable, "-m", "pytest", *plugins, *(f"test_broken.py::{test}" for test in FOUND_OUT)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    counted = re.findall(r"(\d+) (failed|errors?|passed|not offered|skipped)", said.splitlines()[-1])
    assert sum(int(n) for n, what in counted if what.startswith(("failed", "error"))) == len(FOUND_OUT), said
    assert {what for _, what in counted} <= {"failed", "error", "errors"}, said
    for words in FOUND_OUT.values():
        assert words in said, f"{words}\n{said}"


# ---- the speech -----------------------------------------------------------------------------------------------------


def test_a_text_is_said_in_the_engines_words():
    dollars = Speech("${}", WORDS)
    assert dollars("INSERT INTO t VALUES ($1, $2)") == "INSERT INTO t VALUES ($1, $2)"
    marks = Speech("?", WORDS, sentences={"SELECT 1": "RETURN 1"})
    assert marks("CREATE TABLE t (a {text}) -- $1 $12") == "CREATE TABLE t (a t) -- ? ?"
    assert marks("SELECT 1") == "RETURN 1"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"words": {**WORDS, "integer": "i"}, "lacks": {"retruning": "no"}}, "lacks: retruning: expected one of"),
        ({"words": WORDS, "lacks": {"returning": ""}}, "lacks: returning: say why"),
        ({"words": {k: v for k, v in WORDS.items() if k != "bytes"}}, "words: no word for bytes"),
        ({"words": {k: v for k, v in WORDS.items() if k != "endless"}}, "words: no word for endless"),
    ],
)
def test_a_speech_that_is_wrong_is_refused(settings, said):
    with pytest.raises(ConfigurationError, match=said):
        Speech("?", **settings)


def test_what_a_language_lacks_needs_no_word():
    speech = Speech("?", {k: v for k, v in WORDS.items() if k != "endless"}, lacks={"endless": "nothing runs long"})
    assert not speech.has("endless")
    assert all(speech.has(feature) for feature in FEATURES if feature != "endless")


def test_nothing_unknown_is_asked_for():
    with pytest.raises(ValueError, match="no capability and no feature is named retruning"):
        asks("session", "retruning")
